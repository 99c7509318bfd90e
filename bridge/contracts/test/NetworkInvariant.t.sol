// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {BridgedERC20} from "../src/BridgedERC20.sol";
import {Inbox} from "../src/Inbox.sol";
import {IMessageAttributes} from "../src/Outbox.sol";
import {BRIDGE, INBOX, OUTBOX} from "../src/Predeploys.sol";
import {Origin, Transfer} from "../src/TokenBridge.sol";
import {TwinERC20} from "../src/TwinERC20.sol";
import {Message, Wire} from "../src/Wire.sol";
import {Network} from "./lib/Network.sol";
import {Refuser} from "./lib/Recipients.sol";
import {PlainToken} from "./lib/Tokens.sol";
import {Tree} from "./lib/Tree.sol";
import {vm, within} from "./lib/Vm.sol";

/// Users, relayers and a rollup that lies do what they can, on two rollups.
contract NetworkHandler is Network {
    enum Fate {
        Open,
        Delivered,
        Expired,
        Refunded
    }

    uint128 internal constant FUNDED = 500;
    uint256 internal constant WEALTH = 1e6;

    PlainToken internal gold;
    TwinERC20 internal twin;
    BridgedERC20 internal bridgedGold;
    address[3] internal users;
    Refuser internal refuser;

    mapping(uint256 message => Fate) internal fates;
    /// What LIAR got, and what went out to it.
    mapping(uint64 rollup => uint256) internal taken;
    mapping(uint64 rollup => uint256) internal given;
    uint256 public deliveries;
    uint256 public expiries;
    uint256 public refunds;
    uint256 public lies;

    constructor() {
        start();
        gold = new PlainToken("Gold", "GLD", 6);
        refuser = new Refuser();
        users = [account("user 0"), account("user 1"), address(refuser)];
        twin = newTwin(users[0], WEALTH);
        // Each user has an account on each rollup, as people have.
        for (uint256 i; i < 3; i++) {
            separate(users[i]);
        }
        for (uint64 rollup = A; rollup <= B; rollup++) {
            enter(rollup);
            for (uint256 i; i < 3; i++) {
                vm.deal(users[i], WEALTH);
            }
            vm.deal(address(this), 2 * FUNDED);
            INBOX.fund{value: FUNDED}(A + B - rollup);
            INBOX.fund{value: FUNDED}(LIAR);
            depart();
        }
        for (uint256 i; i < 3; i++) {
            gold.mint(users[i], WEALTH);
            vm.prank(users[i]);
            gold.approve(address(BRIDGE), type(uint256).max);
        }
        bridgedGold = BridgedERC20(BRIDGE.bridgedAddress(A, address(gold)));
    }

    function messages() external view returns (uint256) {
        return sent.length;
    }

    function sendCoin(uint256 seed) public {
        uint64 from = seed % 2 == 0 ? A : B;
        uint64 to = (seed >> 8) % 5 == 0 ? LIAR : A + B - from;
        uint256 value = within(seed >> 16, 1, 300);
        bytes[] memory attributes = new bytes[]((seed >> 32) % 2 == 0 ? 2 : 3);
        attributes[0] = abi.encodeCall(IMessageAttributes.transfer, ());
        attributes[1] =
            abi.encodeCall(IMessageAttributes.deadline, (uint64(block.timestamp + within(seed >> 40, 10, 2000))));
        if (attributes.length == 3) attributes[2] = abi.encodeCall(IMessageAttributes.ordered, ());
        enter(from);
        vm.prank(users[(seed >> 64) % 2]);
        OUTBOX.sendMessage{value: value}(evm(to, users[(seed >> 72) % 3]), "", attributes);
        depart();
        if (to == LIAR) given[from] += value;
    }

    function sendToken(uint256 seed) public {
        address user = users[(seed >> 8) % 2];
        address receiver = users[(seed >> 16) % 2];
        uint64 from = seed % 2 == 0 ? A : B;
        address token = (seed >> 24) % 2 == 0 ? address(twin) : from == A ? address(gold) : address(bridgedGold);
        uint256 amount = within(seed >> 32, 1, 1000);
        enter(from);
        vm.prank(user);
        try BRIDGE.crosschainTransfer(
            token, evm(A + B - from, receiver), amount, uint64(block.timestamp + within(seed >> 64, 10, 2000))
        ) {}
            catch {}
        depart();
    }

    /// Anyone delivers any message, again too.
    function deliverMessage(uint256 pick) public {
        if (sent.length == 0) return;
        pick %= sent.length;
        Message memory m = messageAt(pick);
        if (m.destination == LIAR) return;
        enter(m.destination);
        bring(m.source);
        try INBOX.deliver(m, sent[pick].payload, proofOf(m), m.gasLimit) returns (bool delivered) {
            vm.assertTrue(fates[pick] == Fate.Open && block.timestamp <= m.deadline);
            if (delivered) {
                fates[pick] = Fate.Delivered;
                deliveries++;
            }
        } catch {}
        depart();
    }

    function expireMessage(uint256 pick) public {
        if (sent.length == 0) return;
        pick %= sent.length;
        Message memory m = messageAt(pick);
        if (m.destination == LIAR) return;
        enter(m.destination);
        bring(m.source);
        bool due = fates[pick] == Fate.Open && block.timestamp > m.deadline;
        try INBOX.expire(m, proofOf(m)) {
            vm.assertTrue(due);
            fates[pick] = Fate.Expired;
            expiries++;
        } catch {
            vm.assertTrue(!due);
        }
        depart();
    }

    /// A refund of coin, or of tokens, as the message is.
    function refundMessage(uint256 pick) public {
        if (sent.length == 0) return;
        pick %= sent.length;
        Message memory m = messageAt(pick);
        if (m.destination == LIAR || m.kind == Wire.NOTICE) return;
        enter(m.source);
        bool ok;
        if (m.value > 0) {
            try INBOX.refund(m) {
                ok = true;
            } catch {}
        } else {
            try BRIDGE.refund(m, sent[pick].payload) {
                ok = true;
            } catch {}
        }
        depart();
        if (!ok) return;
        vm.assertTrue(fates[pick] == Fate.Expired);
        fates[pick] = Fate.Refunded;
        refunds++;
    }

    function pass(uint256 time) public {
        vm.warp(block.timestamp + within(time, 1, 1000));
    }

    /// The rollup that lies sends whatever it likes: coin, tokens of others, notices, acknowledgements.
    function lie(uint256 seed) public {
        uint64 to = seed % 2 == 0 ? A : B;
        Message memory m;
        (m.source, m.sourceChain, m.destination, m.destinationChain) = (LIAR, chainOf(LIAR), to, chainOf(to));
        (m.index, m.deadline) = (uint64(outboxes[LIAR].length), type(uint64).max);
        address thief = account("thief");
        bytes memory payload;
        uint256 kind = (seed >> 8) % 4;
        if (kind == 0) {
            (m.kind, m.value, m.recipient) = (Wire.TRANSFER, uint128(within(seed >> 16, 1, 400)), Wire.account(thief));
            m.received = uint128(seed >> 32);
        } else if (kind == 1) {
            bool isTwin = (seed >> 16) % 2 == 0;
            address token = isTwin ? address(twin) : address(gold);
            uint64 home = (seed >> 24) % 2 == 0 ? A : LIAR;
            payload =
                abi.encode(Transfer(Origin(home, token, isTwin), thief, thief, within(seed >> 32, 1, 1000), "", "", 0));
            m.sender = m.recipient = Wire.account(address(BRIDGE));
            m.gasLimit = 400_000;
        } else if (sent.length > 0) {
            // Another rollup's message has expired here, it says.
            uint256 pick = (seed >> 16) % sent.length;
            payload = abi.encode(Wire.messageId(messageAt(pick)));
            (m.kind, m.sender) = (Wire.NOTICE, Wire.account(address(INBOX)));
        }
        m.payloadHash = keccak256(payload);
        outboxes[LIAR].push(Wire.messageId(m));
        enter(to);
        bring(LIAR);
        uint256 before = thief.balance;
        try INBOX.deliver(m, payload, proofOf(m), 400_000) {
            lies++;
        } catch {}
        depart();
        taken[to] += thief.balance - before;
        vm.assertEq(gold.balanceOf(thief) + twin.balanceOf(thief), 0);
    }

    /// Coin and tokens that are on their way from one rollup to the other: neither delivered nor refunded.
    function onTheWay(uint64 from, address home, bool token) private view returns (uint256 sum) {
        for (uint256 i; i < sent.length; i++) {
            Message memory m = messageAt(i);
            if (m.source != from || m.destination == LIAR || m.kind == Wire.NOTICE) continue;
            if (fates[i] == Fate.Delivered || fates[i] == Fate.Refunded) continue;
            if (!token) {
                sum += m.value;
            } else if (m.value == 0) {
                Transfer memory t = abi.decode(sent[i].payload, (Transfer));
                if (t.origin.token == home) sum += t.amount;
            }
        }
    }

    struct Seen {
        uint256 free;
        uint256 inFlight;
        uint256 liar;
        uint256 inbox;
        uint256 users;
        uint256 outGold;
        uint256 outTwin;
        uint256 twinSupply;
    }

    function look(uint64 rollup) private on(rollup) returns (Seen memory s) {
        (s.free, s.inFlight,,) = INBOX.accounts(A + B - rollup);
        (uint128 free, uint128 inFlight,,) = INBOX.accounts(LIAR);
        s.liar = uint256(free) + inFlight;
        s.inbox = address(INBOX).balance;
        for (uint256 i; i < 3; i++) {
            s.users += users[i].balance;
        }
        s.outGold = BRIDGE.outstanding(address(gold), A + B - rollup);
        s.outTwin = BRIDGE.outstanding(address(twin), A + B - rollup);
        s.twinSupply = twin.totalSupply();
    }

    function check() external {
        Seen memory a = look(A);
        Seen memory b = look(B);
        // Coin: what the Inbox holds is what stands on accounts; none is made or lost on a rollup.
        vm.assertEq(a.inbox, a.free + a.inFlight + a.liar, "accounts of A");
        vm.assertEq(b.inbox, b.free + b.inFlight + b.liar, "accounts of B");
        vm.assertEq(a.inbox + a.users + taken[A], 3 * WEALTH + 2 * FUNDED, "coin of A");
        vm.assertEq(b.inbox + b.users + taken[B], 3 * WEALTH + 2 * FUNDED, "coin of B");
        uint256 ab = onTheWay(A, address(0), false);
        uint256 ba = onTheWay(B, address(0), false);
        vm.assertEq(a.free + a.inFlight + b.free + b.inFlight, 2 * FUNDED + ab + ba, "coin between A and B");
        // Whatever is on its way can be refunded.
        vm.assertGe(a.inFlight, ab, "refunds of A");
        vm.assertGe(b.inFlight, ba, "refunds of B");
        // The liar.
        vm.assertLe(taken[A], FUNDED + given[A], "taken from A");
        vm.assertLe(taken[B], FUNDED + given[B], "taken from B");
        // Tokens: what is out is there or on its way, and home holds as much.
        uint256 goldThere = address(bridgedGold).code.length == 0 ? 0 : bridgedGold.totalSupply();
        uint256 moving = onTheWay(A, address(gold), true) + onTheWay(B, address(gold), true);
        vm.assertEq(a.outGold, goldThere + moving, "gold out");
        vm.assertEq(gold.balanceOf(address(BRIDGE)), a.outGold, "gold locked");
        moving = onTheWay(A, address(twin), true) + onTheWay(B, address(twin), true);
        vm.assertEq(a.outTwin, b.twinSupply + moving, "twins out");
        vm.assertEq(a.twinSupply + a.outTwin, WEALTH, "twins");
        vm.assertEq(b.outGold + b.outTwin, 0, "at home on A only");
    }

    /// Everything comes to an end: what can be delivered is, the rest expires and is refunded.
    function finish() external {
        for (uint64 rollup = A; rollup <= B; rollup++) {
            enter(rollup);
            refuser.mend();
            depart();
        }
        for (uint256 round; round < 2; round++) {
            for (uint256 i; i < sent.length; i++) {
                deliverMessage(i);
            }
            if (round == 0) vm.warp(block.timestamp + 3000);
            for (uint256 i; i < sent.length; i++) {
                expireMessage(i);
            }
        }
        for (uint256 i; i < sent.length; i++) {
            refundMessage(i);
            Message memory m = messageAt(i);
            if (m.destination == LIAR) continue;
            vm.assertTrue(fates[i] == Fate.Delivered || fates[i] == Fate.Refunded, "stuck");
        }
    }
}

/// Conservation, exactly once, and a way out, over two rollups and one that lies.
contract NetworkInvariantTest {
    NetworkHandler private handler;

    function setUp() external {
        handler = new NetworkHandler();
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(handler);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        list = new FuzzSelector[](1);
        bytes4[] memory s = new bytes4[](11);
        s[0] = s[1] = NetworkHandler.sendCoin.selector;
        s[2] = s[3] = NetworkHandler.sendToken.selector;
        s[4] = s[5] = s[6] = NetworkHandler.deliverMessage.selector;
        s[7] = NetworkHandler.expireMessage.selector;
        s[8] = NetworkHandler.refundMessage.selector;
        s[9] = NetworkHandler.pass.selector;
        s[10] = NetworkHandler.lie.selector;
        list[0] = FuzzSelector(address(handler), s);
    }

    /// forge-config: default.invariant.runs = 16
    /// forge-config: default.invariant.depth = 50
    function invariant_value_is_conserved() external {
        handler.check();
    }

    function afterInvariant() external {
        handler.finish();
        handler.check();
    }

    /// The handler does reach what it is meant to.
    function test_the_handler_delivers_expires_refunds_and_lies() external {
        for (uint256 i; i < 40; i++) {
            uint256 r = uint256(keccak256(abi.encode(i)));
            handler.sendCoin(r);
            handler.sendToken(r);
            handler.lie(r);
            handler.deliverMessage(r);
            if (i % 3 == 0) handler.pass(r);
            handler.expireMessage(r >> 8);
            for (uint256 j; j < handler.messages(); j++) {
                if (i % 10 == 9) handler.refundMessage(j);
                if (i % 20 == 19) handler.deliverMessage(j);
            }
            if (i % 4 == 3) handler.check();
        }
        bool all = handler.deliveries() > 9 && handler.expiries() > 4 && handler.refunds() > 4 && handler.lies() > 4;
        vm.assertTrue(all);
        this.afterInvariant();
    }
}

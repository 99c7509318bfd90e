// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC7786Recipient} from "@openzeppelin/contracts/crosschain/ERC7786Recipient.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {BridgedERC20} from "../src/BridgedERC20.sol";
import {Inbox, MessageProof} from "../src/Inbox.sol";
import {Outbox} from "../src/Outbox.sol";
import {BRIDGE, BRIDGED, INBOX, OUTBOX} from "../src/Predeploys.sol";
import {Origin, TokenBridge, Transfer} from "../src/TokenBridge.sol";
import {TwinERC20} from "../src/TwinERC20.sol";
import {Message, Wire} from "../src/Wire.sol";
import {Remote} from "./lib/Base.sol";
import {FeeToken, HostileToken, OldToken, PlainToken} from "./lib/Tokens.sol";
import {Vm, vm} from "./lib/Vm.sol";

contract TokenBridgeTest is Remote {
    address private immutable alice = account("alice");
    address private immutable bob = account("bob");
    PlainToken private token;
    /// A token of THERE, which has no code here.
    address private immutable foreign = account("token on the other rollup");

    function setUp() external {
        install(HERE);
        register(HERE);
        register(THERE);
        register(3);
        token = new PlainToken("Gold", "GLD", 6);
        token.mint(alice, 1000);
        vm.prank(alice);
        token.approve(address(BRIDGE), type(uint256).max);
    }

    function plain(uint64 home, address original, address to, uint256 amount) private view returns (Transfer memory t) {
        t = Transfer(Origin(home, original, false), alice, to, amount, "Silver", "SLV", 8);
    }

    function twinTransfer(uint64 home, address original, uint256 amount) private view returns (Transfer memory) {
        return Transfer(Origin(home, original, true), alice, bob, amount, "", "", 0);
    }

    /// A transfer arrives from a rollup's bridge.
    function arrive(uint64 from, Transfer memory t) private returns (bool) {
        Message memory m = message(address(BRIDGE), address(BRIDGE), abi.encode(t));
        (m.source, m.sourceChain, m.index) = (from, chainOf(from), uint64(outboxes[from].length));
        m.gasLimit = 400_000;
        MessageProof memory p = append(m);
        return INBOX.deliver(m, abi.encode(t), p, m.gasLimit);
    }

    function send(address what, address who, uint64 to, uint256 amount)
        private
        returns (Message memory m, bytes memory payload)
    {
        vm.recordLogs();
        vm.prank(who);
        BRIDGE.crosschainTransfer(what, evm(to, bob), amount, 0);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; i++) {
            if (logs[i].topics[0] == Outbox.MessageAppended.selector) m = abi.decode(logs[i].data, (Message));
            if (logs[i].emitter == address(OUTBOX) && logs[i].topics[0] != Outbox.MessageAppended.selector) {
                (,, payload,,) = abi.decode(logs[i].data, (bytes, bytes, bytes, uint256, bytes[]));
            }
        }
    }

    function expired(Message memory m) private {
        bytes32 id = Wire.messageId(m);
        Message memory n = message(address(INBOX), address(INBOX), abi.encode(id));
        n.kind = Wire.NOTICE;
        (n.source, n.sourceChain, n.index) = (m.destination, m.destinationChain, uint64(outboxes[m.destination].length));
        MessageProof memory p = append(n);
        INBOX.deliver(n, abi.encode(id), p, 0);
    }

    function bridged(uint64 home, address original) private view returns (BridgedERC20) {
        return BridgedERC20(BRIDGE.bridgedAddress(home, original));
    }

    function deployTwin(uint64 home) private returns (TwinERC20) {
        return new TwinERC20("Twin", "TWN", home, alice, 1000);
    }

    function test_a_token_that_leaves_home_is_locked_and_described() external {
        (Message memory m, bytes memory payload) = send(address(token), alice, THERE, 400);
        vm.assertEq(token.balanceOf(address(BRIDGE)), 400);
        vm.assertEq(BRIDGE.outstanding(address(token), THERE), 400);
        Transfer memory expected =
            Transfer(Origin(HERE, address(token), false), alice, bob, 400, bytes32("Gold"), bytes32("GLD"), 6);
        vm.assertEq(payload, abi.encode(expected));
        vm.assertEq(m.sender, Wire.account(address(BRIDGE)));
        vm.assertEq(m.recipient, Wire.account(address(BRIDGE)));
        vm.assertEq(m.gasLimit, 400_000);
    }

    function test_a_token_comes_home_up_to_what_is_out() external {
        send(address(token), alice, THERE, 400);
        send(address(token), alice, 3, 300);
        vm.assertTrue(arrive(THERE, plain(HERE, address(token), bob, 400)));
        vm.assertEq(token.balanceOf(bob), 400);
        // What is out on rollup 3 is not THERE's.
        vm.assertTrue(!arrive(THERE, plain(HERE, address(token), bob, 1)));
        vm.assertTrue(arrive(3, plain(HERE, address(token), bob, 300)));
    }

    function test_a_token_of_another_rollup_is_minted_here_and_burned_on_its_way_back() external {
        vm.assertTrue(arrive(THERE, plain(THERE, foreign, alice, 50)));
        BridgedERC20 silver = bridged(THERE, foreign);
        vm.assertEq(silver.balanceOf(alice), 50);
        vm.assertEq(silver.name(), "Silver");
        vm.assertEq(silver.symbol(), "SLV");
        vm.assertEq(silver.decimals(), 8);
        vm.assertTrue(arrive(THERE, plain(THERE, foreign, bob, 5)));
        vm.assertEq(silver.totalSupply(), 55);
        (, bytes memory payload) = send(address(silver), alice, THERE, 20);
        vm.assertEq(silver.totalSupply(), 35);
        Transfer memory back = Transfer(Origin(THERE, foreign, false), alice, bob, 20, "", "", 0);
        vm.assertEq(payload, abi.encode(back));
    }

    function test_a_token_moves_only_between_its_home_and_another_rollup() external {
        arrive(THERE, plain(THERE, foreign, alice, 50));
        address silver = address(bridged(THERE, foreign));
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(TokenBridge.NotItsHome.selector, THERE, 3));
        BRIDGE.crosschainTransfer(silver, evm(3, bob), 20, 0);
        // Rollup 3 says that there is more of THERE's token.
        vm.assertTrue(!arrive(3, plain(THERE, foreign, bob, 50)));
    }

    function test_only_bridges_of_registered_rollups_are_heard() external {
        Transfer memory t = plain(THERE, foreign, bob, 50);
        Message memory m = message(bob, address(BRIDGE), abi.encode(t));
        MessageProof memory p = append(m);
        vm.assertTrue(!INBOX.deliver(m, abi.encode(t), p, 400_000));
        bytes memory sender = evm(THERE, address(BRIDGE));
        vm.expectPartialRevert(ERC7786Recipient.ERC7786RecipientUnauthorizedGateway.selector);
        BRIDGE.receiveMessage(bytes32("id"), sender, abi.encode(t));
    }

    function test_only_the_bridge_mints_burns_and_names() external {
        arrive(THERE, plain(THERE, foreign, alice, 50));
        BridgedERC20 silver = bridged(THERE, foreign);
        BridgedERC20[2] memory both = [silver, BRIDGED];
        for (uint256 i; i < 2; i++) {
            vm.expectPartialRevert(BridgedERC20.NotBridge.selector);
            both[i].crosschainMint(bob, 1);
            vm.expectPartialRevert(BridgedERC20.NotBridge.selector);
            both[i].crosschainBurn(alice, 1);
            vm.expectPartialRevert(BridgedERC20.NotBridge.selector);
            both[i].initialize("a", "b", 1);
        }
        TwinERC20 twin = deployTwin(HERE);
        vm.expectPartialRevert(TwinERC20.NotBridge.selector);
        twin.crosschainMint(bob, 1);
    }

    function test_a_transfer_that_expired_is_given_back_once() external {
        (Message memory m, bytes memory payload) = send(address(token), alice, THERE, 400);
        bytes memory notYet = abi.encodeWithSelector(TokenBridge.NotRefundable.selector, Wire.messageId(m));
        vm.expectRevert(notYet);
        BRIDGE.refund(m, payload);
        expired(m);
        BRIDGE.refund(m, payload);
        vm.assertEq(token.balanceOf(alice), 1000);
        vm.assertEq(BRIDGE.outstanding(address(token), THERE), 0);
        vm.expectRevert(notYet);
        BRIDGE.refund(m, payload);
        expired(m);
        vm.expectRevert(notYet);
        BRIDGE.refund(m, payload);
    }

    function test_only_its_sender_has_a_refund_paid_elsewhere() external {
        (Message memory m, bytes memory payload) = send(address(token), alice, THERE, 400);
        expired(m);
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(TokenBridge.NotRefundable.selector, Wire.messageId(m)));
        BRIDGE.refundTo(m, payload, bob);
        vm.prank(alice);
        BRIDGE.refundTo(m, payload, bob);
        vm.assertEq(token.balanceOf(bob), 400);
        vm.expectRevert(abi.encodeWithSelector(TokenBridge.NotRefundable.selector, Wire.messageId(m)));
        BRIDGE.refund(m, payload);
    }

    function test_a_burned_token_that_expired_is_minted_back() external {
        arrive(THERE, plain(THERE, foreign, alice, 50));
        BridgedERC20 silver = bridged(THERE, foreign);
        (Message memory m, bytes memory payload) = send(address(silver), alice, THERE, 20);
        expired(m);
        BRIDGE.refund(m, payload);
        vm.assertEq(silver.balanceOf(alice), 50);
    }

    /// THERE's Inbox says that transfers expired which were never sent; by it, THERE gains what is out there and no more.
    function test_a_false_expiry_takes_only_what_is_out_there() external {
        send(address(token), alice, THERE, 400);
        send(address(token), alice, 3, 300);
        Transfer memory t = plain(HERE, address(token), bob, 0);
        t.from = bob;
        uint256[2] memory amounts = [uint256(401), 400];
        for (uint256 i; i < 2; i++) {
            t.amount = amounts[i];
            Message memory m = message(address(BRIDGE), address(BRIDGE), abi.encode(t));
            (m.source, m.sourceChain, m.destination, m.destinationChain) = (HERE, chainOf(HERE), THERE, chainOf(THERE));
            expired(m);
            if (i == 0) vm.expectPartialRevert(TokenBridge.OutstandingExceeded.selector);
            BRIDGE.refund(m, abi.encode(t));
        }
        vm.assertEq(token.balanceOf(bob), 400);
        vm.assertEq(BRIDGE.outstanding(address(token), 3), 300);
    }

    function test_a_message_of_somebody_else_is_no_transfer_to_refund() external {
        send(address(token), alice, THERE, 400);
        bytes memory payload = abi.encode(plain(HERE, address(token), bob, 400));
        vm.recordLogs();
        vm.prank(bob);
        OUTBOX.sendMessage(evm(THERE, bob), payload, new bytes[](0));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        Message memory m = abi.decode(logs[0].data, (Message));
        expired(m);
        vm.expectPartialRevert(TokenBridge.NotRefundable.selector);
        BRIDGE.refund(m, payload);
    }

    function test_a_twin_is_burned_and_minted_and_counted_at_home() external {
        TwinERC20 twin = deployTwin(HERE);
        (, bytes memory payload) = send(address(twin), alice, THERE, 400);
        vm.assertEq(twin.totalSupply(), 600);
        vm.assertEq(abi.decode(payload, (Transfer)).origin.twin, true);
        vm.assertTrue(!arrive(THERE, twinTransfer(HERE, address(twin), 401)));
        vm.assertTrue(arrive(THERE, twinTransfer(HERE, address(twin), 400)));
        vm.assertEq(twin.balanceOf(bob), 400);
    }

    function test_a_twin_away_from_home_takes_from_its_home_alone() external {
        TwinERC20 twin = deployTwin(THERE);
        vm.assertEq(twin.totalSupply(), 0);
        vm.assertTrue(arrive(THERE, twinTransfer(THERE, address(twin), 7)));
        vm.assertEq(twin.balanceOf(bob), 7);
        vm.assertTrue(!arrive(3, twinTransfer(THERE, address(twin), 7)));
        vm.assertTrue(!arrive(3, twinTransfer(3, address(twin), 7)));
        (Message memory m, bytes memory payload) = send(address(twin), bob, THERE, 7);
        vm.assertEq(twin.totalSupply(), 0);
        expired(m);
        BRIDGE.refund(m, payload);
        vm.assertEq(twin.balanceOf(bob), 7);
    }

    /// What one kind of token is, away from home, cannot be turned into the other kind at home.
    function test_the_kind_of_a_token_is_what_it_is_at_home() external {
        send(address(token), alice, THERE, 400);
        vm.assertTrue(!arrive(THERE, twinTransfer(HERE, address(token), 400)));
        TwinERC20 twin = deployTwin(HERE);
        send(address(twin), alice, THERE, 400);
        // Somebody has left some with the bridge, so that it could pay.
        vm.prank(alice);
        twin.transfer(address(BRIDGE), 400);
        vm.assertTrue(!arrive(THERE, plain(HERE, address(twin), bob, 400)));
        // A plain token of here is no twin of a token of THERE.
        vm.assertTrue(!arrive(THERE, twinTransfer(THERE, address(token), 1)));
    }

    function test_a_token_that_keeps_a_fee_sends_what_arrived() external {
        FeeToken fee = new FeeToken();
        fee.mint(alice, 100);
        vm.prank(alice);
        fee.approve(address(BRIDGE), 100);
        (, bytes memory payload) = send(address(fee), alice, THERE, 10);
        vm.assertEq(abi.decode(payload, (Transfer)).amount, 9);
        vm.assertEq(BRIDGE.outstanding(address(fee), THERE), 9);
    }

    function test_an_old_token_without_answers_and_name_works() external {
        OldToken old = new OldToken();
        old.mint(alice, 100);
        (, bytes memory payload) = send(address(old), alice, THERE, 10);
        Transfer memory t = abi.decode(payload, (Transfer));
        vm.assertEq(t.name, bytes32(0));
        vm.assertEq(t.symbol, bytes32(0));
        vm.assertEq(t.decimals, 0);
        vm.assertTrue(arrive(THERE, plain(HERE, address(old), bob, 10)));
        vm.assertEq(old.balanceOf(bob), 10);
    }

    function test_a_long_name_is_cut() external {
        PlainToken long =
            new PlainToken("0123456789012345678901234567890123456789", "01234567890123456789012345678901", 0);
        long.mint(alice, 1);
        vm.prank(alice);
        long.approve(address(BRIDGE), 1);
        (, bytes memory payload) = send(address(long), alice, THERE, 1);
        Transfer memory t = abi.decode(payload, (Transfer));
        vm.assertEq(t.name, bytes32("01234567890123456789012345678901"));
        t.origin = Origin(THERE, foreign, false);
        arrive(THERE, t);
        vm.assertEq(bridged(THERE, foreign).name(), "01234567890123456789012345678901");
        vm.assertEq(bridged(THERE, foreign).symbol(), "01234567890123456789012345678901");
    }

    function test_a_token_that_calls_back_cannot_send_or_refund_meanwhile() external {
        HostileToken hostile = new HostileToken();
        hostile.mint(alice, 100);
        vm.prank(alice);
        hostile.approve(address(BRIDGE), 100);
        hostile.mint(address(hostile), 10);
        vm.prank(address(hostile));
        hostile.approve(address(BRIDGE), 10);
        hostile.arm(
            address(BRIDGE), abi.encodeCall(TokenBridge.crosschainTransfer, (address(hostile), evm(THERE, bob), 10, 0))
        );
        send(address(hostile), alice, THERE, 20);
        vm.assertTrue(hostile.refused());
        vm.assertEq(BRIDGE.outstanding(address(hostile), THERE), 20);
        vm.assertEq(hostile.balanceOf(address(BRIDGE)), 20);
    }

    function test_what_cannot_be_sent_is_refused() external {
        vm.startPrank(alice);
        vm.expectRevert(TokenBridge.NothingToSend.selector);
        BRIDGE.crosschainTransfer(address(token), evm(THERE, bob), 0, 0);
        address[2] memory nobody = [address(0), address(BRIDGE)];
        for (uint256 i; i < 2; i++) {
            vm.expectRevert(TokenBridge.NoReceiver.selector);
            BRIDGE.crosschainTransfer(address(token), evm(THERE, nobody[i]), 1, 0);
        }
        vm.expectRevert(abi.encodeWithSelector(TokenBridge.NotAToken.selector, foreign));
        BRIDGE.crosschainTransfer(foreign, evm(THERE, bob), 1, 0);
        vm.expectRevert(abi.encodeWithSelector(Outbox.UnknownDestination.selector, chainOf(9)));
        BRIDGE.crosschainTransfer(address(token), evm(9, bob), 1, 0);
        vm.expectRevert(abi.encodeWithSelector(Outbox.UnknownDestination.selector, chainOf(HERE)));
        BRIDGE.crosschainTransfer(address(token), evm(HERE, bob), 1, 0);
        vm.stopPrank();
    }

    function test_a_deadline_is_passed_on() external {
        vm.recordLogs();
        vm.prank(alice);
        BRIDGE.crosschainTransfer(address(token), evm(THERE, bob), 1, uint64(block.timestamp + 60));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; i++) {
            if (logs[i].topics[0] != Outbox.MessageAppended.selector) continue;
            vm.assertEq(abi.decode(logs[i].data, (Message)).deadline, block.timestamp + 60);
            return;
        }
        vm.assertTrue(false, "no message");
    }

    function test_the_stated_gas_is_enough_for_a_token_that_is_met_first() external {
        Transfer memory t = plain(THERE, foreign, bob, 1);
        (t.name, t.symbol) = (bytes32("01234567890123456789012345678901"), bytes32("01234567890123456789012345678901"));
        Message memory m = message(address(BRIDGE), address(BRIDGE), abi.encode(t));
        m.gasLimit = 200_000;
        MessageProof memory p = append(m);
        vm.assertTrue(INBOX.deliver(m, abi.encode(t), p, 200_000), "half of what it states");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {AtomicVault} from "../src/AtomicVault.sol";
import {HubProof} from "../src/Hub.sol";
import {VAULT} from "../src/Predeploys.sol";
import {Call, Leg, Move, Wire} from "../src/Wire.sol";
import {Bundles, Hashes, Participant} from "./lib/Bundles.sol";
import {Failing, Refuser} from "./lib/Recipients.sol";
import {Collectible, HostileToken, PlainToken} from "./lib/Tokens.sol";
import {vm, within} from "./lib/Vm.sol";

/// Does with the vault whatever anyone may do, and keeps its own account of what the vault owes.
contract VaultHandler is Bundles {
    PlainToken internal gold = new PlainToken("Gold", "GLD", 18);
    HostileToken internal hostile = new HostileToken();
    Collectible internal art = new Collectible();
    Participant internal participant = new Participant();
    address payable[4] internal actors;

    /// The leg as bytes, since the compiler does not put such structures into storage.
    struct Item {
        bytes encoded;
        uint8 decision;
    }

    Item[] private legs;
    uint256 public owedCoin;
    uint256 public owedGold;
    uint256 public owedHostile;
    uint256[] private escrowedArt;
    uint256 private nextArt = 1;
    uint256 public committed;
    uint256 public aborted;
    uint256 public failures;

    constructor() {
        install(HERE);
        hashes = new Hashes();
        // One of them takes no coin, one takes none until the end, two are people.
        actors = [
            payable(account("alice")), payable(account("bob")), payable(new Refuser()), payable(address(new Failing()))
        ];
        for (uint256 i; i < 4; i++) {
            vm.deal(actors[i], 1e18);
            gold.mint(actors[i], 1e18);
            hostile.mint(actors[i], 1e18);
            vm.startPrank(actors[i]);
            gold.approve(address(VAULT), type(uint256).max);
            hostile.approve(address(VAULT), type(uint256).max);
            art.setApprovalForAll(address(VAULT), true);
            vm.stopPrank();
        }
    }

    function legAt(uint256 i) private view returns (Prepared memory) {
        return abi.decode(legs[i].encoded, (Prepared));
    }

    function legsCount() public view returns (uint256) {
        return legs.length;
    }

    /// A leg with random moves, in the right place or (it then reverts) not.
    function prepareLeg(uint256 seed) public {
        address signer = actors[seed % 4];
        uint256 moves = within(seed >> 8, 0, 4);
        Leg memory leg = emptyLeg(signer, moves, (seed >> 16) % 2);
        if (moves + leg.calls.length == 0) leg = emptyLeg(signer, 1, 0);
        for (uint256 i; i < leg.moves.length; i++) {
            uint256 r = uint256(keccak256(abi.encode(seed, i)));
            uint256 amount = within(r >> 16, 1, 1000);
            address to = actors[(r >> 32) % 4];
            if (r % 4 == 0) leg.moves[i] = Move(Wire.COIN, address(0), amount, to, signer);
            if (r % 4 == 1) leg.moves[i] = Move(Wire.ERC20, address(gold), amount, to, signer);
            if (r % 4 == 2) leg.moves[i] = Move(Wire.ERC20, address(hostile), amount, to, signer);
            if (r % 4 == 3) {
                art.mint(signer, nextArt);
                leg.moves[i] = Move(Wire.ERC721, address(art), nextArt++, to, signer);
            }
        }
        if (leg.calls.length == 1) leg.calls[0] = Call(address(participant), 150_000, "");
        Prepared memory p = bundleOf(leg, uint8((seed >> 24) % 3), 3);
        uint256 value = coinOf(leg);
        // Now and then with the wrong value, or by somebody else.
        uint256 mistake = (seed >> 40) % 10;
        if (mistake == 0) value++;
        vm.prank(mistake == 1 ? actors[(seed + 1) % 4] : signer);
        try VAULT.prepare{value: value, gas: 3_000_000}(p.bundle, p.index, leg) {
            vm.assertTrue(mistake > 1);
            legs.push();
            legs[legs.length - 1].encoded = abi.encode(p);
            count(p, true, type(uint16).max);
        } catch {}
    }

    /// The hub's decision, brought by anyone; or a false one, which must be refused.
    function settleLeg(uint256 pick, uint256 seed, uint16 items) public {
        if (legs.length == 0) return;
        Item storage item = legs[pick % legs.length];
        Prepared memory p = legAt(pick % legs.length);
        if (item.decision == 0) item.decision = uint8(1 + (seed % 3));
        AtomicVault.Decision decision = AtomicVault.Decision(item.decision - 1);
        bool lie = (seed >> 8) % 4 == 0;
        bytes32 leaf = decision == AtomicVault.Decision.Release
            ? Wire.releaseLeaf(p.id, HERE, p.index)
            : Wire.decisionLeaf(p.id, decision == AtomicVault.Decision.Commit, 9);
        trySettle(p, lie ? AtomicVault.Decision((uint8(decision) + 1) % 3) : decision, leaf, items, lie);
    }

    function trySettle(Prepared memory p, AtomicVault.Decision decision, bytes32 leaf, uint16 items, bool lie) private {
        HubProof memory proof = hubProof(hubAppend(leaf));
        (AtomicVault.Status status, uint16 before) = stateOf(p);
        bool good = !lie && status == AtomicVault.Status.Prepared;
        try VAULT.settle(p.bundle, p.index, p.leg, decision, 9, proof, items) {
            vm.assertTrue(good);
            if (decision == AtomicVault.Decision.Commit) committed++;
            else aborted++;
            (, uint16 left) = stateOf(p);
            count(p, false, before & ~left);
        } catch {
            vm.assertTrue(!good);
        }
    }

    function retryLeg(uint256 pick, uint16 items) public {
        if (legs.length == 0) return;
        Prepared memory p = legAt(pick % legs.length);
        (AtomicVault.Status status, uint16 held) = stateOf(p);
        try VAULT.retry(p.bundle, p.index, p.leg, items, 0) {
            (, uint16 left) = stateOf(p);
            vm.assertEq(left & held, left);
            if (left & items > 0) failures++;
            count(p, false, held & ~left);
        } catch {
            vm.assertTrue(status == AtomicVault.Status.Prepared);
        }
    }

    function redirectItem(uint256 pick, uint8 index, uint256 who, uint256 to) public {
        if (legs.length == 0) return;
        Prepared memory p = legAt(pick % legs.length);
        (AtomicVault.Status status, uint16 held) = stateOf(p);
        index %= 4;
        address caller = actors[who % 4];
        vm.prank(caller);
        try VAULT.redirect(p.bundle, p.index, p.leg, index, actors[to % 2], 0) {
            Move memory m = p.leg.moves[index];
            vm.assertTrue(caller == (status == AtomicVault.Status.Committed ? m.to : m.refund));
            vm.assertTrue((held >> index) & 1 == 1);
            count(p, false, uint16(1) << index);
        } catch {}
    }

    function spoil(uint8 token, uint8 part) public {
        hostile.setMood(token % 5);
        participant.fail(Participant.How(part % 4));
    }

    /// Coin that is forced upon the vault changes nothing.
    function donate(uint256 amount) public {
        vm.deal(address(VAULT), address(VAULT).balance + amount % 100);
    }

    /// Everything that is broken is mended, and every leg that is left is settled: abort unless decided otherwise.
    function finish() external {
        hostile.setMood(0);
        participant.fail(Participant.How.No);
        Refuser(actors[2]).mend();
        for (uint256 i; i < legs.length; i++) {
            (AtomicVault.Status status,) = stateOf(legAt(i));
            if (status == AtomicVault.Status.Prepared) {
                uint256 decision = legs[i].decision == 0 ? 0 : legs[i].decision - 1;
                settleLeg(i, 0x100 + decision, type(uint16).max);
            }
            retryLeg(i, type(uint16).max);
            Prepared memory p = legAt(i);
            for (uint8 item; item < p.leg.moves.length; item++) {
                for (uint256 who; who < 4; who++) {
                    redirectItem(i, item, who, 0);
                }
            }
        }
    }

    function heldOf(uint256 i) external view returns (uint16 bits) {
        (, bits) = stateOf(legAt(i));
    }

    /// Adds to, or takes from, what is owed, for the items in `bits`.
    function count(Prepared memory p, bool add, uint16 bits) private {
        for (uint256 i; i < p.leg.moves.length; i++) {
            if ((bits >> i) & 1 == 0) continue;
            Move memory m = p.leg.moves[i];
            if (m.kind == Wire.COIN) owedCoin = add ? owedCoin + m.amount : owedCoin - m.amount;
            else if (m.token == address(gold)) owedGold = add ? owedGold + m.amount : owedGold - m.amount;
            else if (m.token == address(hostile)) owedHostile = add ? owedHostile + m.amount : owedHostile - m.amount;
            else if (add) escrowedArt.push(m.amount);
            else removeArt(m.amount);
        }
    }

    function removeArt(uint256 id) private {
        for (uint256 i; i < escrowedArt.length; i++) {
            if (escrowedArt[i] != id) continue;
            escrowedArt[i] = escrowedArt[escrowedArt.length - 1];
            escrowedArt.pop();
            return;
        }
        vm.assertTrue(false, "paid out twice");
    }

    function check() external view {
        vm.assertGe(address(VAULT).balance, owedCoin, "coin");
        vm.assertEq(gold.balanceOf(address(VAULT)), owedGold, "gold");
        vm.assertEq(hostile.balanceOf(address(VAULT)), owedHostile, "hostile");
        vm.assertEq(art.balanceOf(address(VAULT)), escrowedArt.length, "art");
    }
}

/// Never more paid out than escrowed, and nothing without an exit.
contract VaultInvariantTest {
    VaultHandler private handler;

    function setUp() external {
        handler = new VaultHandler();
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(handler);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        list = new FuzzSelector[](1);
        bytes4[] memory s = new bytes4[](8);
        s[0] = s[1] = VaultHandler.prepareLeg.selector;
        s[2] = s[3] = VaultHandler.settleLeg.selector;
        s[4] = VaultHandler.retryLeg.selector;
        s[5] = VaultHandler.redirectItem.selector;
        s[6] = VaultHandler.spoil.selector;
        s[7] = VaultHandler.donate.selector;
        list[0] = FuzzSelector(address(handler), s);
    }

    function invariant_the_vault_holds_what_it_owes() external view {
        handler.check();
    }

    function afterInvariant() external {
        handler.finish();
        handler.check();
        for (uint256 i; i < handler.legsCount(); i++) {
            vm.assertEq(handler.heldOf(i), 0, "no exit");
        }
        vm.assertEq(handler.owedCoin() + handler.owedGold() + handler.owedHostile(), 0);
    }

    /// The handler does reach what it is meant to.
    function test_the_handler_prepares_commits_and_aborts() external {
        for (uint256 i; i < 60; i++) {
            handler.prepareLeg(uint256(keccak256(abi.encode(i))));
            handler.settleLeg(i, uint256(keccak256(abi.encode("settle", i))), uint16(i * 7));
            handler.spoil(uint8(i), uint8(i / 5));
            handler.retryLeg(i, type(uint16).max);
            handler.check();
        }
        vm.assertTrue(handler.committed() > 5 && handler.aborted() > 5 && handler.failures() > 5);
        this.afterInvariant();
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {AtomicVault} from "../src/AtomicVault.sol";
import {BridgedERC20} from "../src/BridgedERC20.sol";
import {HubProof} from "../src/Hub.sol";
import {Inbox} from "../src/Inbox.sol";
import {IMessageAttributes} from "../src/Outbox.sol";
import {BRIDGE, INBOX, OUTBOX, VAULT} from "../src/Predeploys.sol";
import {SwapPool} from "../src/SwapPool.sol";
import {TwinERC20} from "../src/TwinERC20.sol";
import {Bundle, Call, Leg, Message, Move, Wire} from "../src/Wire.sol";
import {Hashes} from "./lib/Bundles.sol";
import {Network} from "./lib/Network.sol";
import {Failing} from "./lib/Recipients.sol";
import {Collectible, PlainToken} from "./lib/Tokens.sol";
import {vm} from "./lib/Vm.sol";

/// From end to end between two rollups: each account belongs to one of them.
contract NetworkTest is Network {
    address private immutable aliceA = account("alice on A");
    address private immutable aliceB = account("alice on B");
    address private immutable bobA = account("bob on A");
    address private immutable bobB = account("bob on B");
    PlainToken private gold;
    Hashes private hashes;

    function setUp() external {
        start();
        hashes = new Hashes();
        gold = new PlainToken("Gold", "GLD", 6);
        gold.mint(aliceA, 1000);
        vm.prank(aliceA);
        gold.approve(address(BRIDGE), type(uint256).max);
        vm.prank(aliceA);
        gold.approve(address(VAULT), type(uint256).max);
        vm.deal(aliceA, 1000);
        vm.deal(bobB, 1000);
        vm.deal(address(this), 1000);
    }

    function sendCoin(uint64 from, address sender, uint64 to, address receiver, uint256 value) private on(from) {
        vm.prank(sender);
        OUTBOX.sendMessage{value: value}(evm(to, receiver), "", one(abi.encodeCall(IMessageAttributes.transfer, ())));
    }

    function sendToken(uint64 from, address token, address sender, uint64 to, address receiver, uint256 amount)
        private
        on(from)
    {
        vm.prank(sender);
        BRIDGE.crosschainTransfer(token, evm(to, receiver), amount, 0);
    }

    function fund(uint64 rollup, uint64 peer, uint256 value) private on(rollup) {
        INBOX.fund{value: value}(peer);
    }

    function accountOf(uint64 rollup, uint64 peer) private on(rollup) returns (uint128 free, uint128 inFlight) {
        (free, inFlight,,) = INBOX.accounts(peer);
    }

    function test_coin_goes_and_comes_back() external {
        fund(B, A, 100);
        sendCoin(A, aliceA, B, aliceB, 60);
        vm.assertTrue(deliver(0));
        vm.assertEq(aliceB.balance, 60);
        (uint128 free, uint128 inFlight) = accountOf(A, B);
        vm.assertEq(inFlight, 60);
        sendCoin(B, aliceB, A, aliceA, 50);
        vm.assertTrue(deliver(1));
        vm.assertEq(aliceA.balance, 990);
        // The message back told that all 60 were delivered.
        (free, inFlight) = accountOf(A, B);
        vm.assertEq(free, 10);
        vm.assertEq(inFlight, 0);
        (free, inFlight) = accountOf(B, A);
        vm.assertEq(free, 40);
        vm.assertEq(inFlight, 50);
    }

    /// Between rollups that nobody funded, coin goes nowhere, and comes back.
    function test_coin_that_cannot_be_paid_out_is_refunded() external {
        sendCoin(A, aliceA, B, aliceB, 60);
        enter(B);
        bring(A);
        Message memory m = messageAt(0);
        vm.expectRevert(abi.encodeWithSelector(Inbox.CreditExceeded.selector, A, 0));
        INBOX.deliver(m, "", proofOf(m), m.gasLimit);
        depart();
        vm.warp(block.timestamp + 8 days);
        expire(0);
        vm.assertTrue(deliver(1), "notice");
        enter(A);
        INBOX.refund(m);
        depart();
        vm.assertEq(aliceA.balance, 1000);
    }

    function test_a_token_goes_and_comes_back() external {
        sendToken(A, address(gold), aliceA, B, aliceB, 400);
        vm.assertTrue(deliver(0));
        address there = BRIDGE.bridgedAddress(A, address(gold));
        vm.assertEq(BridgedERC20(there).balanceOf(aliceB), 400);
        vm.assertEq(BridgedERC20(there).symbol(), "GLD");
        sendToken(B, there, aliceB, A, bobA, 150);
        vm.assertTrue(deliver(1));
        vm.assertEq(gold.balanceOf(bobA), 150);
        vm.assertEq(BridgedERC20(there).totalSupply(), 250);
        vm.assertEq(gold.balanceOf(address(BRIDGE)), 250);
    }

    function test_a_twin_goes_and_comes_back() external {
        TwinERC20 twin = newTwin(aliceA, 1000);
        sendToken(A, address(twin), aliceA, B, aliceB, 300);
        vm.assertTrue(deliver(0));
        enter(B);
        vm.assertEq(twin.balanceOf(aliceB), 300);
        vm.assertEq(twin.totalSupply(), 300);
        depart();
        sendToken(B, address(twin), aliceB, A, bobA, 300);
        vm.assertTrue(deliver(1));
        enter(A);
        vm.assertEq(twin.balanceOf(bobA), 300);
        vm.assertEq(twin.totalSupply(), 1000);
        depart();
    }

    function test_an_answer_is_delivered_to_the_first_sender() external {
        Failing recipient = new Failing();
        enter(A);
        vm.prank(aliceA);
        OUTBOX.sendMessage(evm(B, address(recipient)), "ping", new bytes[](0));
        depart();
        vm.assertTrue(deliver(0));
        vm.assertEq(recipient.lastSender(), evm(A, aliceA));
        enter(B);
        vm.prank(address(recipient));
        OUTBOX.sendMessage(recipient.lastSender(), "pong", new bytes[](0));
        depart();
        Message memory m = messageAt(1);
        vm.assertEq(m.recipient, Wire.account(aliceA));
        vm.assertEq(m.destination, A);
    }

    struct Swap {
        Bundle bundle;
        Leg legA;
        Leg legB;
        bytes32 id;
    }

    function bundle(Leg memory legA, Leg memory legB) private view returns (Swap memory s) {
        (legA.rollup, legB.rollup) = (A, B);
        s.bundle = Bundle(100, "salt", new bytes32[](2));
        s.bundle.legs[0] = hashes.legHash(legA);
        s.bundle.legs[1] = hashes.legHash(legB);
        (s.legA, s.legB, s.id) = (legA, legB, hashes.bundleId(s.bundle));
    }

    function legOf(address signer, Move memory m) private pure returns (Leg memory leg) {
        (leg.signer, leg.moves) = (signer, new Move[](1));
        leg.moves[0] = m;
    }

    /// Alice gives 400 gold on A to bob, who gives 70 coin on B to alice.
    function goldForCoin() private view returns (Swap memory) {
        return bundle(
            legOf(aliceA, Move(Wire.ERC20, address(gold), 400, bobA, aliceA)),
            legOf(bobB, Move(Wire.COIN, address(0), 70, aliceB, bobB))
        );
    }

    /// A leg's transaction. If it reverts, the node finds no vote, which is a no.
    function prepare(Swap memory s, uint8 index, uint256 value) private on(index == 0 ? A : B) {
        Leg memory leg = index == 0 ? s.legA : s.legB;
        vm.prank(leg.signer);
        try VAULT.prepare{value: value}(s.bundle, index, leg) {} catch {}
    }

    /// The hub's rule: commit if every leg voted yes.
    function decide(Swap memory s) private returns (bool committed, uint64 index) {
        committed = votes[s.id][0] && votes[s.id][1];
        index = hubAppend(Wire.decisionLeaf(s.id, committed, 42));
    }

    function settle(Swap memory s, uint8 index, bool committed, uint64 at_) private on(index == 0 ? A : B) {
        HubProof memory proof = hubProof(at_);
        AtomicVault.Decision decision = committed ? AtomicVault.Decision.Commit : AtomicVault.Decision.Abort;
        VAULT.settle(s.bundle, index, index == 0 ? s.legA : s.legB, decision, 42, proof, type(uint16).max);
    }

    function test_a_swap_over_two_rollups_happens_on_both() external {
        Swap memory s = goldForCoin();
        prepare(s, 0, 0);
        prepare(s, 1, 70);
        (bool committed, uint64 index) = decide(s);
        vm.assertTrue(committed);
        settle(s, 1, true, index);
        settle(s, 0, true, index);
        vm.assertEq(gold.balanceOf(bobA), 400);
        vm.assertEq(aliceB.balance, 70);
    }

    function test_a_swap_over_two_rollups_happens_on_neither() external {
        Swap memory s = goldForCoin();
        prepare(s, 0, 0);
        // Bob's leg comes with too little coin.
        prepare(s, 1, 69);
        (bool committed, uint64 index) = decide(s);
        vm.assertTrue(!committed);
        settle(s, 0, false, index);
        vm.assertEq(gold.balanceOf(aliceA), 1000);
        vm.assertEq(bobB.balance, 1000);
        // Bob comes later, on his own: the same decision gives him back what he brought.
        prepare(s, 1, 70);
        vm.assertEq(bobB.balance, 930);
        settle(s, 1, false, index);
        vm.assertEq(bobB.balance, 1000);
    }

    /// Swap on A, buy on B, or neither.
    function test_a_swap_and_a_purchase_happen_together_or_not_at_all() external {
        PlainToken iron = new PlainToken("Iron", "IRN", 6);
        SwapPool pool = new SwapPool(gold, iron, address(this));
        Collectible art = new Collectible();
        gold.mint(address(this), 1000);
        iron.mint(address(this), 1000);
        gold.approve(address(pool), 1000);
        iron.approve(address(pool), 1000);
        pool.add(1000, 1000);
        vm.prank(aliceA);
        gold.approve(address(pool), 100);
        art.mint(bobB, 1);
        vm.prank(bobB);
        art.approve(address(VAULT), 1);
        for (uint256 round; round < 2; round++) {
            Leg memory swap;
            (swap.signer, swap.calls) = (aliceA, new Call[](1));
            swap.calls[0] = Call(address(pool), 200_000, abi.encode(gold, 100, round == 0 ? 500 : 90, bobA));
            Leg memory sale = legOf(bobB, Move(Wire.ERC721, address(art), 1, aliceB, bobB));
            Swap memory s = bundle(swap, sale);
            prepare(s, 0, 0);
            prepare(s, 1, 0);
            (bool committed, uint64 index) = decide(s);
            vm.assertTrue(committed == (round == 1));
            if (committed) settle(s, 0, committed, index);
            settle(s, 1, committed, index);
            vm.assertEq(art.ownerOf(1), committed ? aliceB : bobB);
            vm.assertEq(iron.balanceOf(bobA), committed ? 90 : 0);
            vm.prank(bobB);
            if (!committed) art.approve(address(VAULT), 1);
        }
    }

    /// One transaction of a bundle is taken out of it and sent alone: its vote is worth nothing, and it is given back.
    function test_a_leg_outside_its_bundle_is_given_back() external {
        Swap memory s = goldForCoin();
        prepare(s, 0, 0);
        uint64 index = hubAppend(Wire.releaseLeaf(s.id, A, 0));
        enter(A);
        HubProof memory proof = hubProof(index);
        VAULT.settle(s.bundle, 0, s.legA, AtomicVault.Decision.Release, 0, proof, 1);
        depart();
        vm.assertEq(gold.balanceOf(aliceA), 1000);
        // When the bundle comes, that leg cannot vote again, so the other is aborted.
        votes[s.id][0] = false;
        prepare(s, 0, 0);
        prepare(s, 1, 70);
        bool committed;
        (committed, index) = decide(s);
        vm.assertTrue(!committed);
        settle(s, 1, false, index);
        vm.assertEq(bobB.balance, 1000);
    }
}

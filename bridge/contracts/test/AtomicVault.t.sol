// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {AtomicVault} from "../src/AtomicVault.sol";
import {Calls} from "../src/Calls.sol";
import {Hub, HubProof} from "../src/Hub.sol";
import {VAULT} from "../src/Predeploys.sol";
import {Bundle, Call, Leg, Move, Wire} from "../src/Wire.sol";
import {Bundles, Hashes, Participant} from "./lib/Bundles.sol";
import {Refuser} from "./lib/Recipients.sol";
import {Collectible, FeeToken, HostileToken, OldToken, PlainToken} from "./lib/Tokens.sol";
import {Vm, vm} from "./lib/Vm.sol";

contract AtomicVaultTest is Bundles {
    address private immutable alice = account("alice");
    address private immutable bob = account("bob");
    PlainToken private gold;
    Collectible private art;
    Participant private participant;

    function setUp() external {
        install(HERE);
        hashes = new Hashes();
        gold = new PlainToken("Gold", "GLD", 6);
        art = new Collectible();
        participant = new Participant();
        vm.deal(alice, 1000);
        gold.mint(alice, 1000);
        art.mint(alice, 7);
        vm.startPrank(alice);
        gold.approve(address(VAULT), type(uint256).max);
        art.setApprovalForAll(address(VAULT), true);
        vm.stopPrank();
    }

    function coin(uint256 amount) private view returns (Move memory) {
        return Move(Wire.COIN, address(0), amount, bob, alice);
    }

    function erc20(address token, uint256 amount) private view returns (Move memory) {
        return Move(Wire.ERC20, token, amount, bob, alice);
    }

    /// One of each kind.
    function fullLeg() private view returns (Leg memory leg) {
        leg = emptyLeg(alice, 3, 1);
        leg.moves[0] = coin(100);
        leg.moves[1] = erc20(address(gold), 200);
        leg.moves[2] = Move(Wire.ERC721, address(art), 7, bob, alice);
        leg.calls[0] = Call(address(participant), 200_000, "data");
    }

    function oneMove(Move memory m) private view returns (Leg memory leg) {
        leg = emptyLeg(alice, 1, 0);
        leg.moves[0] = m;
    }

    function oneCall(uint64 gas) private view returns (Leg memory leg) {
        leg = emptyLeg(alice, 0, 1);
        leg.calls[0] = Call(address(participant), gas, "");
    }

    function refuse(bytes memory reason, Prepared memory p) private {
        uint256 value = coinOf(p.leg);
        vm.prank(p.leg.signer);
        vm.expectRevert(reason);
        VAULT.prepare{value: value}(p.bundle, p.index, p.leg);
    }

    function assertState(Prepared memory p, AtomicVault.Status status, uint16 held) private view {
        (AtomicVault.Status s, uint16 h) = stateOf(p);
        vm.assertEq(uint8(s), uint8(status));
        vm.assertEq(h, held);
    }

    function test_prepare_takes_everything_and_votes() external {
        Prepared memory p = bundleOf(fullLeg(), 1, 3);
        vm.expectEmit(address(VAULT));
        emit AtomicVault.Prepared(p.id, 1, alice);
        prepare(p);
        vm.assertEq(address(VAULT).balance, 100);
        vm.assertEq(gold.balanceOf(address(VAULT)), 200);
        vm.assertEq(art.ownerOf(7), address(VAULT));
        vm.assertEq(participant.lastKey(), keccak256(abi.encode(p.id, uint8(1), uint8(3))));
        vm.assertEq(participant.lastSigner(), alice);
        vm.assertEq(participant.lastData(), "data");
        assertState(p, AtomicVault.Status.Prepared, 15);
    }

    function logsOf(address caller, address origin) private returns (Vm.Log[] memory) {
        Prepared memory p = bundleOf(oneMove(coin(100)), 0, 2);
        vm.recordLogs();
        vm.prank(caller, origin);
        VAULT.prepare{value: 100}(p.bundle, p.index, p.leg);
        return vm.getRecordedLogs();
    }

    function test_what_a_contract_prepares_is_written_down() external {
        vm.assertEq(logsOf(alice, alice).length, 1);
        Vm.Log[] memory logs = logsOf(alice, bob);
        vm.assertEq(logs.length, 2);
        vm.assertEq(logs[1].topics[0], AtomicVault.PreparedByContract.selector);
        vm.assertEq(logs[1].topics[1], logs[0].topics[1]);
        (Bundle memory bundle, Leg memory leg) = abi.decode(logs[1].data, (Bundle, Leg));
        vm.assertEq(bundle.legs[0], hashes.legHash(leg));
        vm.assertEq(hashes.bundleId(bundle), logs[0].topics[1]);
        // An account with code that calls by way of itself.
        vm.etch(alice, abi.encodePacked(hex"ef0100", address(participant)));
        vm.assertEq(logsOf(alice, alice).length, 2);
    }

    function test_commit_pays_the_receiver() external {
        Prepared memory p = prepared(fullLeg());
        settle(p, true);
        vm.assertEq(bob.balance, 100);
        vm.assertEq(gold.balanceOf(bob), 200);
        vm.assertEq(art.ownerOf(7), bob);
        vm.assertEq(participant.commits(), 1);
        vm.assertEq(participant.aborts(), 0);
        assertState(p, AtomicVault.Status.Committed, 0);
    }

    function test_abort_gives_everything_back() external {
        Prepared memory p = prepared(fullLeg());
        settle(p, false);
        vm.assertEq(alice.balance, 1000);
        vm.assertEq(gold.balanceOf(alice), 1000);
        vm.assertEq(art.ownerOf(7), alice);
        vm.assertEq(participant.aborts(), 1);
        assertState(p, AtomicVault.Status.Aborted, 0);
    }

    function test_a_refund_goes_to_the_account_named_for_it() external {
        Move memory m = coin(5);
        m.refund = account("treasury");
        settle(prepared(oneMove(m)), false);
        vm.assertEq(account("treasury").balance, 5);
    }

    function test_a_leg_is_settled_once() external {
        Prepared memory p = prepared(fullLeg());
        settle(p, true);
        HubProof memory proof = decide(p.id, false);
        for (uint8 v; v < 2; v++) {
            vm.expectRevert(abi.encodeWithSelector(AtomicVault.WrongStatus.selector, AtomicVault.Status.Committed));
            VAULT.settle(p.bundle, p.index, p.leg, AtomicVault.Decision(v), 500, proof, 15);
        }
        VAULT.retry(p.bundle, p.index, p.leg, 15, 0);
        vm.assertEq(bob.balance, 100);
        vm.assertEq(participant.commits(), 1);
    }

    function test_a_leg_is_prepared_once_ever() external {
        Prepared memory p = prepared(fullLeg());
        refuse(abi.encodeWithSelector(AtomicVault.WrongStatus.selector, AtomicVault.Status.Prepared), p);
        settle(p, false);
        refuse(abi.encodeWithSelector(AtomicVault.WrongStatus.selector, AtomicVault.Status.Aborted), p);
    }

    function test_only_the_hubs_decision_settles() external {
        Prepared memory p = prepared(fullLeg());
        Prepared memory other = bundleOf(fullLeg(), 0, 2);
        HubProof memory commitOther = decide(other.id, true);
        HubProof memory abortThis = decide(p.id, false);
        // Another bundle's, the other decision, another height, no leaf at all, a release of another leg or rollup.
        vm.expectPartialRevert(Hub.NotInHub.selector);
        VAULT.settle(p.bundle, p.index, p.leg, AtomicVault.Decision.Commit, 500, commitOther, 15);
        vm.expectPartialRevert(Hub.NotInHub.selector);
        VAULT.settle(p.bundle, p.index, p.leg, AtomicVault.Decision.Commit, 500, abortThis, 15);
        vm.expectPartialRevert(Hub.NotInHub.selector);
        VAULT.settle(p.bundle, p.index, p.leg, AtomicVault.Decision.Abort, 501, abortThis, 15);
        vm.expectPartialRevert(Hub.NotInHub.selector);
        VAULT.settle(p.bundle, p.index, p.leg, AtomicVault.Decision.Release, 500, abortThis, 15);
        HubProof memory release = hubProof(hubAppend(Wire.releaseLeaf(p.id, HERE, 1)));
        vm.expectPartialRevert(Hub.NotInHub.selector);
        VAULT.settle(p.bundle, p.index, p.leg, AtomicVault.Decision.Release, 0, release, 15);
        release = hubProof(hubAppend(Wire.releaseLeaf(p.id, THERE, 0)));
        vm.expectPartialRevert(Hub.NotInHub.selector);
        VAULT.settle(p.bundle, p.index, p.leg, AtomicVault.Decision.Release, 0, release, 15);
        assertState(p, AtomicVault.Status.Prepared, 15);
    }

    function test_a_leg_outside_its_bundle_is_released_and_never_commits() external {
        Prepared memory p = prepared(fullLeg());
        HubProof memory release = hubProof(hubAppend(Wire.releaseLeaf(p.id, HERE, 0)));
        VAULT.settle(p.bundle, p.index, p.leg, AtomicVault.Decision.Release, 0, release, 15);
        vm.assertEq(alice.balance, 1000);
        assertState(p, AtomicVault.Status.Aborted, 0);
        // When its bundle comes after all, the leg reverts, which is a no.
        refuse(abi.encodeWithSelector(AtomicVault.WrongStatus.selector, AtomicVault.Status.Aborted), p);
    }

    function test_nobody_else_prepares_a_leg() external {
        Prepared memory p = bundleOf(fullLeg(), 0, 2);
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(AtomicVault.NotSigner.selector, bob));
        VAULT.prepare(p.bundle, 0, p.leg);
    }

    function test_a_leg_must_be_the_one_that_the_bundle_has_there() external {
        Prepared memory p = bundleOf(fullLeg(), 0, 2);
        p.index = 1;
        refuse(abi.encodeWithSelector(AtomicVault.WrongLeg.selector, hashes.legHash(p.leg), HERE), p);
        p.index = 2;
        refuse(abi.encodeWithSelector(AtomicVault.BadBundle.selector, 2, 2), p);
        Leg memory leg = fullLeg();
        leg.rollup = THERE;
        p = bundleOf(leg, 0, 2);
        refuse(abi.encodeWithSelector(AtomicVault.WrongLeg.selector, hashes.legHash(leg), THERE), p);
    }

    function test_a_bundle_has_2_to_16_legs() external {
        refuse(abi.encodeWithSelector(AtomicVault.BadBundle.selector, 1, 0), bundleOf(fullLeg(), 0, 1));
        refuse(abi.encodeWithSelector(AtomicVault.BadBundle.selector, 17, 0), bundleOf(fullLeg(), 0, 17));
        prepare(bundleOf(fullLeg(), 15, 16));
    }

    function test_a_leg_has_1_to_16_items() external {
        bytes memory reason = abi.encodeWithSelector(AtomicVault.BadItems.selector);
        refuse(reason, bundleOf(emptyLeg(alice, 0, 0), 0, 2));
        Leg memory leg = emptyLeg(alice, 17, 0);
        for (uint256 i; i < 17; i++) {
            leg.moves[i] = coin(1);
        }
        refuse(reason, bundleOf(leg, 0, 2));
        leg = emptyLeg(alice, 16, 0);
        for (uint256 i; i < 16; i++) {
            leg.moves[i] = coin(1);
        }
        Prepared memory p = prepared(leg);
        assertState(p, AtomicVault.Status.Prepared, type(uint16).max);
        settle(p, true);
        vm.assertEq(bob.balance, 16);
    }

    function test_bad_items_are_refused() external {
        bytes memory reason = abi.encodeWithSelector(AtomicVault.BadItems.selector);
        refuse(reason, bundleOf(oneMove(Move(3, address(gold), 1, bob, alice)), 0, 2));
        refuse(reason, bundleOf(oneMove(Move(Wire.COIN, address(gold), 1, bob, alice)), 0, 2));
        refuse(reason, bundleOf(oneCall(5_000_001), 0, 2));
    }

    function test_the_coin_must_be_what_the_moves_say() external {
        Prepared memory p = bundleOf(oneMove(coin(5)), 0, 2);
        for (uint256 value = 4; value <= 6; value += 2) {
            vm.prank(alice);
            vm.expectRevert(abi.encodeWithSelector(AtomicVault.WrongValue.selector, 5));
            VAULT.prepare{value: value}(p.bundle, 0, p.leg);
        }
    }

    function test_tokens_that_do_not_arrive_whole_are_refused() external {
        FeeToken fee = new FeeToken();
        fee.mint(alice, 100);
        vm.prank(alice);
        fee.approve(address(VAULT), 100);
        Prepared memory p = bundleOf(oneMove(erc20(address(fee), 10)), 0, 2);
        refuse(abi.encodeWithSelector(AtomicVault.NotEscrowed.selector, address(fee)), p);
    }

    /// Two bundles over the same funds: one of them votes no.
    function test_the_same_funds_are_not_given_twice() external {
        prepared(oneMove(erc20(address(gold), 600)));
        Prepared memory p = bundleOf(oneMove(erc20(address(gold), 600)), 0, 2);
        uint256 before = gold.balanceOf(alice);
        vm.prank(alice);
        vm.expectRevert();
        VAULT.prepare(p.bundle, 0, p.leg);
        vm.assertEq(gold.balanceOf(alice), before);
        Move memory m = Move(Wire.ERC721, address(art), 7, bob, alice);
        prepared(oneMove(m));
        p = bundleOf(oneMove(m), 0, 2);
        vm.prank(alice);
        vm.expectRevert();
        VAULT.prepare(p.bundle, 0, p.leg);
    }

    function test_a_token_passed_off_as_the_other_kind_takes_nothing_of_others() external {
        prepared(oneMove(erc20(address(gold), 600)));
        prepared(oneMove(Move(Wire.ERC721, address(art), 7, bob, alice)));
        gold.mint(bob, 7);
        vm.startPrank(bob);
        gold.approve(address(VAULT), 7);
        vm.stopPrank();
        Leg memory leg = emptyLeg(bob, 1, 0);
        leg.moves[0] = Move(Wire.ERC721, address(gold), 7, bob, bob);
        Prepared memory p = bundleOf(leg, 0, 2);
        vm.prank(bob);
        vm.expectRevert();
        VAULT.prepare(p.bundle, 0, leg);
        leg.moves[0] = Move(Wire.ERC20, address(art), 7, bob, bob);
        p = bundleOf(leg, 0, 2);
        vm.prank(bob);
        vm.expectRevert();
        VAULT.prepare(p.bundle, 0, leg);
    }

    function test_a_participant_that_refuses_makes_the_leg_vote_no() external {
        for (uint256 how = 1; how <= 3; how++) {
            participant.fail(Participant.How(how));
            Prepared memory p = bundleOf(fullLeg(), 0, 2);
            vm.prank(alice);
            vm.expectRevert();
            VAULT.prepare{value: 100, gas: 3_000_000}(p.bundle, 0, p.leg);
            vm.assertEq(gold.balanceOf(alice), 1000);
        }
    }

    function test_an_account_without_code_is_no_participant() external {
        Leg memory leg = emptyLeg(alice, 0, 1);
        leg.calls[0] = Call(bob, 0, "");
        Prepared memory p = bundleOf(leg, 0, 2);
        vm.prank(alice);
        vm.expectRevert();
        VAULT.prepare(p.bundle, 0, leg);
    }

    function test_a_participant_that_fails_holds_up_nobody_and_can_be_told_again() external {
        for (uint256 how = 1; how <= 3; how++) {
            for (uint256 commit; commit < 2; commit++) {
                Leg memory leg = emptyLeg(alice, 1, 2);
                leg.moves[0] = coin(5);
                leg.calls[0] = Call(address(participant), 100_000, "");
                Participant good = new Participant();
                leg.calls[1] = Call(address(good), 100_000, "");
                Prepared memory p = prepared(leg);
                participant.fail(Participant.How(how));
                uint256 before = bob.balance;
                settle(p, commit == 1);
                vm.assertEq(bob.balance - before, commit == 1 ? 5 : 0);
                vm.assertEq(good.commits() + good.aborts(), 1);
                (, uint16 held) = stateOf(p);
                vm.assertEq(held, 2);
                participant.fail(Participant.How.No);
                VAULT.retry(p.bundle, p.index, p.leg, type(uint16).max, 0);
                (, held) = stateOf(p);
                vm.assertEq(held, 0);
                vm.assertEq(good.commits() + good.aborts(), 1);
            }
        }
        vm.assertEq(participant.commits(), 3);
        vm.assertEq(participant.aborts(), 3);
    }

    function test_a_token_that_fails_holds_up_nobody() external {
        for (uint8 mood = 1; mood <= 4; mood++) {
            HostileToken hostile = new HostileToken();
            hostile.mint(alice, 100);
            vm.prank(alice);
            hostile.approve(address(VAULT), 100);
            Leg memory leg = emptyLeg(alice, 2, 0);
            leg.moves[0] = erc20(address(hostile), 10);
            leg.moves[1] = coin(5);
            Prepared memory p = prepared(leg);
            hostile.setMood(mood);
            uint256 before = bob.balance;
            settle(p, true);
            vm.assertEq(bob.balance - before, 5);
            assertState(p, AtomicVault.Status.Committed, 1);
            hostile.setMood(0);
            VAULT.retry(p.bundle, p.index, p.leg, 1, 0);
            vm.assertEq(hostile.balanceOf(bob), 10);
        }
    }

    /// More gas than a move gets, or than the leg states for its participant, only delays an item.
    function test_what_needs_more_gas_can_be_given_it() external {
        HostileToken hostile = new HostileToken();
        hostile.mint(alice, 100);
        vm.prank(alice);
        hostile.approve(address(VAULT), 100);
        Leg memory leg = emptyLeg(alice, 1, 1);
        leg.moves[0] = erc20(address(hostile), 10);
        leg.calls[0] = Call(address(participant), 0, "");
        for (uint256 round; round < 2; round++) {
            Prepared memory p = prepared(leg);
            hostile.setMood(5);
            participant.fail(Participant.How.Hungry);
            settle(p, round == 1);
            VAULT.retry(p.bundle, p.index, p.leg, 3, 450_000);
            (, uint16 held) = stateOf(p);
            vm.assertEq(held, 3);
            VAULT.retry(p.bundle, p.index, p.leg, 2, 600_000);
            vm.assertEq(participant.commits() + participant.aborts(), round + 1);
            if (round == 0) {
                VAULT.retry(p.bundle, p.index, p.leg, 1, 600_000);
                vm.assertEq(hostile.balanceOf(alice), 100);
            } else {
                vm.prank(bob);
                VAULT.redirect(p.bundle, p.index, p.leg, 0, bob, 600_000);
                vm.assertEq(hostile.balanceOf(bob), 10);
            }
            participant.fail(Participant.How.No);
        }
    }

    function test_an_old_token_without_answers_works() external {
        OldToken old = new OldToken();
        old.mint(alice, 10);
        settle(prepared(oneMove(erc20(address(old), 10))), true);
        vm.assertEq(old.balanceOf(bob), 10);
    }

    function test_who_cannot_receive_can_send_it_elsewhere_and_nobody_else_can() external {
        Refuser refuser = new Refuser();
        Move memory m = coin(5);
        m.to = address(refuser);
        Prepared memory p = prepared(oneMove(m));
        vm.prank(address(refuser));
        vm.expectRevert(abi.encodeWithSelector(AtomicVault.WrongStatus.selector, AtomicVault.Status.Prepared));
        VAULT.redirect(p.bundle, 0, p.leg, 0, bob, 0);
        settle(p, true);
        assertState(p, AtomicVault.Status.Committed, 1);
        address[2] memory others = [alice, bob];
        for (uint256 i; i < 2; i++) {
            vm.prank(others[i]);
            vm.expectRevert(abi.encodeWithSelector(AtomicVault.NotYours.selector, 0));
            VAULT.redirect(p.bundle, 0, p.leg, 0, others[i], 0);
        }
        vm.prank(address(refuser));
        vm.expectRevert(abi.encodeWithSelector(AtomicVault.PayoutFailed.selector, 0));
        VAULT.redirect(p.bundle, 0, p.leg, 0, address(refuser), 0);
        vm.prank(address(refuser));
        VAULT.redirect(p.bundle, 0, p.leg, 0, bob, 0);
        vm.assertEq(bob.balance, 5);
        vm.prank(address(refuser));
        vm.expectRevert(abi.encodeWithSelector(AtomicVault.NotYours.selector, 0));
        VAULT.redirect(p.bundle, 0, p.leg, 0, bob, 0);
        vm.prank(address(refuser));
        vm.expectRevert(abi.encodeWithSelector(AtomicVault.NotYours.selector, 16));
        VAULT.redirect(p.bundle, 0, p.leg, 16, bob, 0);
    }

    function test_items_can_be_carried_out_one_by_one() external {
        Prepared memory p = prepared(fullLeg());
        settle(p, true, 0);
        assertState(p, AtomicVault.Status.Committed, 15);
        for (uint16 bit = 8; bit > 0; bit >>= 1) {
            VAULT.retry(p.bundle, p.index, p.leg, bit, 0);
        }
        assertState(p, AtomicVault.Status.Committed, 0);
        vm.assertEq(bob.balance, 100);
    }

    function test_nothing_is_paid_before_a_decision() external {
        Prepared memory p = prepared(fullLeg());
        vm.expectRevert(abi.encodeWithSelector(AtomicVault.WrongStatus.selector, AtomicVault.Status.Prepared));
        VAULT.retry(p.bundle, p.index, p.leg, 15, 0);
        Prepared memory never = bundleOf(fullLeg(), 0, 2);
        HubProof memory proof = decide(never.id, false);
        vm.expectRevert(abi.encodeWithSelector(AtomicVault.WrongStatus.selector, AtomicVault.Status.None));
        VAULT.settle(never.bundle, 0, never.leg, AtomicVault.Decision.Abort, 500, proof, 15);
    }

    /// Whoever settles with too little gas fails; the participant does not.
    function test_too_little_gas_is_not_the_participants_failure() external {
        Prepared memory p = prepared(oneCall(1_000_000));
        HubProof memory proof = decide(p.id, true);
        vm.expectRevert(abi.encodeWithSelector(Calls.NotEnoughGas.selector, 1_000_000));
        VAULT.settle{gas: 1_000_000}(p.bundle, 0, p.leg, AtomicVault.Decision.Commit, 500, proof, 1);
        VAULT.settle{gas: 1_200_000}(p.bundle, 0, p.leg, AtomicVault.Decision.Commit, 500, proof, 1);
        vm.assertEq(participant.commits(), 1);
    }

    /// Alice's own participant tries to be paid again, to settle another bundle, and to prepare more, while it is told.
    function test_entering_again_is_refused() external {
        Prepared memory other = prepared(oneMove(coin(50)));
        HubProof memory proof = decide(other.id, true);
        for (uint256 i; i < 4; i++) {
            Participant again = new Participant();
            Leg memory leg = emptyLeg(alice, 1, 1);
            leg.moves[0] = coin(5);
            leg.calls[0] = Call(address(again), 1_000_000, "");
            Prepared memory p = prepared(leg);
            Prepared memory more = bundleOf(oneMove(coin(0)), 0, 2);
            bytes[4] memory actions = [
                abi.encodeCall(AtomicVault.retry, (p.bundle, p.index, p.leg, 1, 0)),
                abi.encodeCall(
                    AtomicVault.settle,
                    (other.bundle, other.index, other.leg, AtomicVault.Decision.Commit, 500, proof, 1)
                ),
                abi.encodeCall(AtomicVault.prepare, (more.bundle, more.index, more.leg)),
                abi.encodeCall(AtomicVault.redirect, (p.bundle, p.index, p.leg, 0, address(again), 0))
            ];
            again.arm(address(VAULT), actions[i]);
            settle(p, true, 2);
            vm.assertTrue(again.refused());
            vm.assertEq(again.commits(), 1);
            vm.assertEq(
                again.reason(), abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector)
            );
        }
        vm.assertEq(bob.balance, 0);
    }

    function test_a_token_that_calls_back_while_it_is_taken_is_counted_once() external {
        HostileToken hostile = new HostileToken();
        hostile.mint(alice, 100);
        vm.prank(alice);
        hostile.approve(address(VAULT), 100);
        Leg memory inner = emptyLeg(address(hostile), 1, 0);
        inner.moves[0] = erc20(address(hostile), 0);
        Prepared memory q = bundleOf(inner, 0, 2);
        hostile.arm(address(VAULT), abi.encodeCall(AtomicVault.prepare, (q.bundle, 0, inner)));
        prepared(oneMove(erc20(address(hostile), 10)));
        vm.assertTrue(hostile.refused());
        assertState(q, AtomicVault.Status.None, 0);
    }

    function testFuzz_each_part_of_a_leg_is_in_the_id(uint8 part) external {
        Leg memory leg = fullLeg();
        bytes32 was = hashes.legHash(leg);
        part %= 12;
        if (part == 0) leg.rollup++;
        if (part == 1) leg.signer = bob;
        if (part == 2) leg.moves[1].kind = 2;
        if (part == 3) leg.moves[1].token = bob;
        if (part == 4) leg.moves[1].amount++;
        if (part == 5) leg.moves[1].to = alice;
        if (part == 6) leg.moves[1].refund = bob;
        if (part == 7) leg.calls[0].participant = bob;
        if (part == 8) leg.calls[0].gasLimit++;
        if (part == 9) leg.calls[0].data = "date";
        if (part == 10) (leg.moves[0], leg.moves[1]) = (leg.moves[1], leg.moves[0]);
        if (part == 11) leg.calls = new Call[](0);
        vm.assertNotEq(hashes.legHash(leg), was);
        Prepared memory p = bundleOf(fullLeg(), 0, 2);
        bytes32 id = p.id;
        if (part == 0) p.bundle.deadline++;
        else if (part == 1) p.bundle.salt = ~p.bundle.salt;
        else if (part == 2) p.bundle.legs[1] = was;
        else (p.bundle.legs[0], p.bundle.legs[1]) = (p.bundle.legs[1], p.bundle.legs[0]);
        vm.assertNotEq(hashes.bundleId(p.bundle), id);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {InteroperableAddress} from "@openzeppelin/contracts/utils/draft-InteroperableAddress.sol";
import {Calls} from "../src/Calls.sol";
import {Inbox, MessageProof} from "../src/Inbox.sol";
import {INBOX, OUTBOX} from "../src/Predeploys.sol";
import {Message, Wire} from "../src/Wire.sol";
import {Remote} from "./lib/Base.sol";
import {Failing, Recipient, Reentrant} from "./lib/Recipients.sol";
import {Tree} from "./lib/Tree.sol";
import {vm, within} from "./lib/Vm.sol";

/// Delivery of messages without coin.
contract InboxTest is Remote {
    address private immutable alice = account("alice");
    address private immutable relayer = account("relayer");
    bytes private constant HI = "hi";
    Recipient private recipient;
    Failing private failing;

    function setUp() external {
        install(HERE);
        register(HERE);
        register(THERE);
        recipient = new Recipient();
        failing = new Failing();
    }

    function deliver(Message memory m, MessageProof memory p) private returns (bool) {
        vm.prank(relayer);
        return INBOX.deliver(m, HI, p, m.gasLimit);
    }

    function refuse(bytes memory reason, Message memory m, MessageProof memory p) private {
        vm.prank(relayer);
        vm.expectRevert(reason);
        INBOX.deliver(m, HI, p, m.gasLimit);
    }

    function settled(Message memory m) private pure returns (bytes memory) {
        return abi.encodeWithSelector(Inbox.AlreadySettled.selector, m.source, m.index);
    }

    function isOpen(Message memory m) private view returns (bool) {
        return INBOX.status(m.source, m.index) == Inbox.Status.Open;
    }

    function test_the_recipient_gets_what_the_sender_sent() external {
        Message memory m = message(alice, address(recipient), HI);
        MessageProof memory p = append(m);
        vm.expectEmit(address(INBOX));
        emit Inbox.MessageDelivered(Wire.messageId(m), THERE, 0);
        vm.assertTrue(deliver(m, p));
        vm.assertEq(recipient.calls(), 1);
        vm.assertEq(recipient.lastId(), Wire.messageId(m));
        vm.assertEq(recipient.lastSender(), evm(THERE, alice));
        vm.assertEq(recipient.lastPayload(), HI);
        vm.assertTrue(INBOX.status(THERE, 0) == Inbox.Status.Delivered);
    }

    /// Accounts of other kinds of rollups are longer. Cut to 20 bytes, one could pass for another.
    function test_an_account_of_more_than_20_bytes_is_not_cut() external {
        Message memory m = message(alice, address(recipient), HI);
        m.sender |= bytes32(uint256(1) << 160);
        MessageProof memory p = append(m);
        refuse(abi.encodeWithSelector(Inbox.NotAnAddress.selector), m, p);
        m = message(alice, address(recipient), HI);
        m.recipient |= bytes32(uint256(1) << 255);
        p = append(m);
        refuse(abi.encodeWithSelector(Inbox.NotAnAddress.selector), m, p);
        vm.warp(m.deadline + 1);
        INBOX.expire(m, p);
    }

    function test_a_second_delivery_is_refused_cheaply() external {
        Message memory m = message(alice, address(recipient), HI);
        MessageProof memory p = append(m);
        vm.assertTrue(deliver(m, p));
        uint256 before = gasleft();
        refuse(settled(m), m, p);
        vm.assertLe(before - gasleft(), 30_000);
        vm.assertEq(recipient.calls(), 1);
    }

    /// Delivered messages are bits: one must not stand for its neighbours.
    function testFuzz_each_message_is_delivered_once(uint256 seed) external {
        uint256 n = within(seed, 2, 9);
        Message[] memory all = new Message[](n);
        for (uint256 i; i < n; i++) {
            all[i] = message(alice, address(recipient), HI);
            append(all[i]);
        }
        for (uint256 i; i < 2 * n; i++) {
            Message memory m = all[uint256(keccak256(abi.encode(seed, i))) % n];
            MessageProof memory p = prove(THERE, m.index);
            if (isOpen(m)) vm.assertTrue(deliver(m, p));
            else refuse(settled(m), m, p);
        }
        uint256 open;
        for (uint256 i; i < n; i++) {
            if (isOpen(all[i])) open++;
        }
        vm.assertEq(recipient.calls(), n - open);
    }

    function test_a_root_that_was_proven_serves_all_messages_below_it() external {
        Message memory first = message(alice, address(recipient), HI);
        append(first);
        Message memory second = message(alice, address(recipient), HI);
        MessageProof memory p = append(second);
        for (uint256 i; i < 40; i++) {
            append(message(alice, address(recipient), abi.encode(i)));
        }
        vm.assertTrue(deliver(second, p));
        bytes32[] memory both = new bytes32[](2);
        (both[0], both[1]) = (outboxes[THERE][0], outboxes[THERE][1]);
        vm.assertTrue(deliver(first, MessageProof(2, Tree.path(both, 0))));
        vm.assertEq(recipient.calls(), 2);
    }

    /// A message counts exactly as it was sent: whoever changes a field changes its id, and has no proof.
    function testFuzz_a_changed_message_is_refused(uint8 field, uint64 other) external {
        Message memory m = message(alice, address(recipient), HI);
        append(message(alice, address(recipient), HI));
        m.index = 1;
        MessageProof memory p = append(m);
        field %= 13;
        vm.assume(other > 1 && other != THERE && other != chainOf(THERE) && other != m.deadline);
        if (field == 0) m.kind = 7;
        if (field == 1) m.source = other;
        if (field == 2) m.sourceChain = other;
        if (field == 3) m.destination = other;
        if (field == 4) m.destinationChain = other;
        if (field == 5) m.index = other;
        if (field == 6) m.previous = other;
        if (field == 7) m.deadline = m.deadline + 1;
        if (field == 8) m.gasLimit--;
        if (field == 9) m.sender = bytes32(uint256(other));
        if (field == 10) m.recipient = bytes32(uint256(other));
        if (field == 11) m.value = 1;
        if (field == 12) m.received = 1;
        vm.prank(relayer);
        vm.expectPartialRevert(Inbox.UnknownOutboxRoot.selector);
        INBOX.deliver(m, HI, p, 1_000_000);
    }

    function test_another_payload_is_refused() external {
        Message memory m = message(alice, address(recipient), HI);
        MessageProof memory p = append(m);
        vm.expectRevert(Inbox.WrongPayload.selector);
        INBOX.deliver(m, "ho", p, m.gasLimit);
    }

    function test_a_message_for_another_rollup_is_refused() external {
        Message memory m = message(alice, address(recipient), HI);
        m.destination = 3;
        MessageProof memory p = append(m);
        refuse(abi.encodeWithSelector(Inbox.WrongDestination.selector, 3, chainOf(HERE)), m, p);
        m = message(alice, address(recipient), HI);
        m.destinationChain = 3;
        p = append(m);
        refuse(abi.encodeWithSelector(Inbox.WrongDestination.selector, HERE, 3), m, p);
    }

    /// A rollup whose operators lie puts another rollup's chain id into its messages, to speak for that one's accounts.
    function test_a_rollup_cannot_speak_for_another() external {
        register(3);
        Message memory m = message(alice, address(recipient), HI);
        m.sourceChain = chainOf(3);
        MessageProof memory p = append(m);
        refuse(abi.encodeWithSelector(Inbox.WrongSource.selector, THERE, chainOf(3)), m, p);
        // Nor with the other's id: the root is not of that one's outbox.
        m = message(alice, address(recipient), HI);
        (m.source, m.sourceChain) = (3, chainOf(3));
        outboxes[THERE].push(Wire.messageId(m));
        certify(THERE, Tree.sealedRoot(outboxes[THERE]));
        p = prove(THERE, m.index);
        vm.expectPartialRevert(Inbox.UnknownOutboxRoot.selector);
        INBOX.deliver(m, HI, p, m.gasLimit);
    }

    function test_a_rollup_that_is_not_registered_is_not_heard() external {
        Message memory m = message(alice, address(recipient), HI);
        (m.source, m.sourceChain, m.index) = (9, chainOf(9), 0);
        MessageProof memory p = append(m);
        refuse(abi.encodeWithSelector(Inbox.WrongSource.selector, 9, chainOf(9)), m, p);
        m = message(alice, address(recipient), HI);
        (m.source, m.sourceChain, m.index) = (9, 0, 1);
        p = append(m);
        refuse(abi.encodeWithSelector(Inbox.WrongSource.selector, 9, 0), m, p);
    }

    function test_a_failing_recipient_changes_nothing_and_can_be_tried_again() external {
        Message memory m = message(alice, address(failing), HI);
        m.gasLimit = 300_000;
        MessageProof memory p = append(m);
        for (uint256 how = 1; how <= 6; how++) {
            failing.fail(Failing.How(how));
            bytes32 reason;
            if (how == 1) reason = bytes32(Failing.Broken.selector);
            if (how == 2) reason = bytes32(bytes4(0xdeadbeef));
            vm.expectEmit(address(INBOX));
            emit Inbox.DeliveryFailed(Wire.messageId(m), THERE, 0, reason);
            vm.assertTrue(!deliver(m, p));
            vm.assertTrue(isOpen(m));
            vm.assertEq(failing.calls(), 0);
        }
        failing.fail(Failing.How.No);
        vm.assertTrue(deliver(m, p));
        vm.assertEq(failing.calls(), 1);
        refuse(settled(m), m, p);
    }

    function test_a_return_bomb_costs_the_relayer_only_the_stated_gas() external {
        Message memory m = message(alice, address(failing), HI);
        m.gasLimit = 3_000_000;
        MessageProof memory p = append(m);
        for (uint256 how = 5; how <= 6; how++) {
            failing.fail(Failing.How(how));
            uint256 before = gasleft();
            deliver(m, p);
            vm.assertLe(before - gasleft(), 3_000_000 + 100_000);
        }
    }

    /// Whatever gas a relayer gives, the recipient gets what the message states, or nothing happens at all.
    function testFuzz_too_little_gas_is_not_the_recipients_failure(uint256 gas) external {
        Message memory m = message(alice, address(recipient), HI);
        m.gasLimit = 400_000;
        MessageProof memory p = append(m);
        gas = within(gas, 30_000, 700_000);
        vm.prank(relayer);
        try INBOX.deliver{gas: gas}(m, HI, p, m.gasLimit) returns (bool delivered) {
            vm.assertTrue(delivered);
            vm.assertGe(recipient.lastGas(), 399_000);
        } catch {
            vm.assertTrue(isOpen(m));
            vm.assertEq(recipient.calls(), 0);
        }
    }

    function testFuzz_a_recipient_that_burns_all_gas_leaves_enough_to_say_so(uint256 gas) external {
        failing.fail(Failing.How.AllGas);
        Message memory m = message(alice, address(failing), HI);
        m.gasLimit = uint64(within(gas, 0, 2_000_000));
        MessageProof memory p = append(m);
        uint256 least = uint256(m.gasLimit) + 60_000;
        for (uint256 given = least; given < least + 200_000; given += 9_001) {
            vm.prank(relayer);
            try INBOX.deliver{gas: given}(m, HI, p, m.gasLimit) returns (bool delivered) {
                vm.assertTrue(!delivered);
                return;
            } catch (bytes memory reason) {
                // Refused as a whole, with a name; or the gas did not even suffice for that.
                vm.assertTrue(
                    reason.length == 0 || bytes4(reason) == Calls.NotEnoughGas.selector || reason.length == 36
                );
            }
        }
        vm.assertTrue(false, "never tried");
    }

    function test_too_little_gas_has_a_name() external {
        Message memory m = message(alice, address(recipient), HI);
        m.gasLimit = 400_000;
        MessageProof memory p = append(m);
        vm.prank(relayer);
        vm.expectRevert(abi.encodeWithSelector(Calls.NotEnoughGas.selector, 400_000));
        INBOX.deliver{gas: 400_000}(m, HI, p, 400_000);
        vm.prank(relayer);
        vm.expectRevert(abi.encodeWithSelector(Inbox.GasBelowStated.selector, 400_000));
        INBOX.deliver(m, HI, p, 399_999);
    }

    function test_more_gas_than_stated_may_be_given() external {
        Message memory m = message(alice, address(recipient), HI);
        m.gasLimit = 1000;
        MessageProof memory p = append(m);
        vm.assertTrue(!deliver(m, p));
        vm.assertTrue(INBOX.deliver(m, HI, p, 300_000));
    }

    function test_a_recipient_without_code_fails_until_it_has_some() external {
        address later = account("later");
        Message memory m = message(alice, later, HI);
        m.gasLimit = 300_000;
        MessageProof memory p = append(m);
        vm.assertTrue(!deliver(m, p));
        vm.etch(later, address(recipient).code);
        vm.assertTrue(deliver(m, p));
    }

    function test_a_recipient_cannot_have_its_message_twice_by_entering_again() external {
        register(3);
        Reentrant reentrant = new Reentrant();
        Message memory m = message(alice, address(reentrant), HI);
        m.gasLimit = 2_000_000;
        MessageProof memory p = append(m);
        reentrant.arm(m, p, HI);
        vm.assertTrue(deliver(m, p));
        vm.assertEq(reentrant.calls(), 1);
        vm.assertEq(reentrant.refused(), 4);
        vm.assertTrue(reentrant.reply() != 0);
    }

    function test_only_the_inbox_runs_messages() external {
        Message memory m = message(alice, address(recipient), HI);
        vm.expectRevert(abi.encodeWithSelector(Inbox.NotSelf.selector, address(this)));
        INBOX.run(m, 0, HI, 0);
    }

    function test_ordered_messages_wait_for_the_one_before() external {
        Message[3] memory all;
        for (uint64 i; i < 3; i++) {
            all[i] = message(alice, address(failing), abi.encode(i));
            (all[i].payloadHash, all[i].previous, all[i].gasLimit) = (keccak256(HI), i, 300_000);
            if (i == 1) all[i].deadline = uint64(block.timestamp + 100);
            append(all[i]);
        }
        MessageProof[3] memory p;
        for (uint64 i; i < 3; i++) {
            p[i] = prove(THERE, i);
        }
        refuse(abi.encodeWithSelector(Inbox.OutOfOrder.selector, 1), all[2], p[2]);
        refuse(abi.encodeWithSelector(Inbox.OutOfOrder.selector, 0), all[1], p[1]);
        vm.assertTrue(deliver(all[0], p[0]));
        // The second fails, and keeps the third waiting only until it has expired.
        failing.fail(Failing.How.Revert);
        vm.assertTrue(!deliver(all[1], p[1]));
        failing.fail(Failing.How.No);
        refuse(abi.encodeWithSelector(Inbox.OutOfOrder.selector, 1), all[2], p[2]);
        vm.warp(block.timestamp + 101);
        INBOX.expire(all[1], p[1]);
        vm.assertTrue(deliver(all[2], p[2]));
    }

    function test_a_message_is_delivered_until_its_deadline_and_expires_after_it() external {
        Message memory m = message(alice, address(recipient), HI);
        MessageProof memory p = append(m);
        Message memory other = message(alice, address(recipient), HI);
        append(other);
        MessageProof memory q = prove(THERE, 1);
        p = prove(THERE, 0);
        vm.warp(m.deadline);
        vm.expectRevert(abi.encodeWithSelector(Inbox.DeadlineNotPassed.selector, m.deadline));
        INBOX.expire(m, p);
        vm.assertTrue(deliver(m, p));
        vm.warp(m.deadline + 1);
        vm.expectRevert(settled(m));
        INBOX.expire(m, p);
        refuse(abi.encodeWithSelector(Inbox.DeadlinePassed.selector, other.deadline), other, q);
        vm.expectEmit(address(INBOX));
        emit Inbox.MessageExpired(Wire.messageId(other), THERE, 1);
        INBOX.expire(other, q);
        vm.expectRevert(settled(other));
        INBOX.expire(other, q);
        // The clock of a chain does not run backwards; if it did, still not both.
        vm.warp(m.deadline);
        refuse(settled(other), other, q);
    }

    function test_a_message_that_was_not_sent_does_not_expire() external {
        Message memory m = message(alice, address(recipient), HI);
        MessageProof memory p = append(m);
        m.value = 1 ether;
        vm.warp(m.deadline + 1);
        vm.expectPartialRevert(Inbox.UnknownOutboxRoot.selector);
        INBOX.expire(m, p);
    }

    function test_an_expired_message_sends_a_notice_that_cannot_expire() external {
        Message memory m = message(alice, address(recipient), HI);
        MessageProof memory p = append(m);
        vm.warp(m.deadline + 1);
        INBOX.expire(m, p);
        Message memory notice;
        notice.kind = Wire.NOTICE;
        (notice.source, notice.sourceChain) = (HERE, chainOf(HERE));
        (notice.destination, notice.destinationChain) = (THERE, chainOf(THERE));
        notice.deadline = type(uint64).max;
        notice.sender = notice.recipient = notice.refund = Wire.account(address(INBOX));
        notice.payloadHash = keccak256(abi.encode(Wire.messageId(m)));
        bytes32[] memory leaves = new bytes32[](1);
        leaves[0] = Wire.messageId(notice);
        vm.assertEq(OUTBOX.root(), Tree.sealedRoot(leaves));
    }
}

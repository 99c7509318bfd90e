// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Inbox, MessageProof} from "../src/Inbox.sol";
import {INBOX, OUTBOX} from "../src/Predeploys.sol";
import {Message, Wire} from "../src/Wire.sol";
import {Remote} from "./lib/Base.sol";
import {Failing, Recipient, Reentrant, Refuser} from "./lib/Recipients.sol";
import {vm, within} from "./lib/Vm.sol";

/// Native coin that goes with messages: what stands on whose account, and what a rollup that lies can take.
contract CoinTest is Remote {
    address private immutable alice = account("alice");
    address private immutable bob = account("bob");
    bytes[] private none;

    function setUp() external {
        install(HERE);
        register(HERE);
        register(THERE);
        register(3);
        vm.deal(alice, 1000);
        vm.deal(address(this), 1000);
    }

    /// A plain transfer of coin from THERE to bob.
    function transfer(uint128 value) private view returns (Message memory m) {
        m = message(alice, bob, "");
        (m.kind, m.value) = (Wire.TRANSFER, value);
    }

    function deliver(Message memory m) private returns (bool) {
        MessageProof memory p = append(m);
        return INBOX.deliver(m, "", p, m.gasLimit);
    }

    function refuse(Message memory m, bytes memory reason) private {
        MessageProof memory p = append(m);
        vm.expectRevert(reason);
        INBOX.deliver(m, "", p, m.gasLimit);
    }

    /// Sends from here; returns the message as it stands in the outbox.
    function send(uint128 value, address refund) private returns (Message memory m) {
        m.source = HERE;
        m.sourceChain = chainOf(HERE);
        m.destination = THERE;
        m.destinationChain = chainOf(THERE);
        m.index = OUTBOX.count();
        m.deadline = uint64(block.timestamp + 7 days);
        m.gasLimit = 200_000;
        m.sender = Wire.account(refund);
        m.recipient = Wire.account(bob);
        m.refund = m.sender;
        m.value = value;
        (,, m.received,) = INBOX.accounts(THERE);
        m.payloadHash = keccak256("");
        vm.prank(refund);
        bytes32 id = OUTBOX.sendMessage{value: value}(evm(THERE, bob), "", none);
        vm.assertEq(id, Wire.messageId(m));
    }

    /// The notice from THERE that a message has expired there.
    function notice(bytes32 id) private {
        Message memory m = message(address(INBOX), address(INBOX), abi.encode(id));
        m.kind = Wire.NOTICE;
        MessageProof memory p = append(m);
        vm.assertTrue(INBOX.deliver(m, abi.encode(id), p, 0));
    }

    function accountOf(uint64 rollup) private view returns (uint128 free, uint128 inFlight) {
        (free, inFlight,,) = INBOX.accounts(rollup);
    }

    /// As a genesis may write it: docs/specs/messages.md.
    function test_an_account_can_be_written_into_a_genesis() external {
        bytes32 slot = keccak256(abi.encode(THERE, 1));
        vm.store(address(INBOX), slot, bytes32(uint256(77)));
        (uint128 free, uint128 inFlight) = accountOf(THERE);
        vm.assertEq(free, 77);
        vm.assertEq(inFlight, 0);
    }

    function test_coin_reaches_an_account_without_code() external {
        INBOX.fund{value: 10}(THERE);
        vm.assertTrue(deliver(transfer(4)));
        vm.assertEq(bob.balance, 4);
        (uint128 free,) = accountOf(THERE);
        vm.assertEq(free, 6);
    }

    function test_coin_reaches_a_wallet_that_takes_no_messages() external {
        Refuser wallet = new Refuser();
        INBOX.fund{value: 10}(THERE);
        Message memory m = transfer(4);
        m.recipient = Wire.account(address(wallet));
        MessageProof memory p = append(m);
        vm.assertTrue(!INBOX.deliver(m, "", p, m.gasLimit));
        (uint128 free,) = accountOf(THERE);
        vm.assertEq(free, 10);
        wallet.mend();
        vm.assertTrue(INBOX.deliver(m, "", p, m.gasLimit));
        vm.assertEq(address(wallet).balance, 4);
    }

    function test_coin_goes_with_a_message_and_comes_back_with_its_failure() external {
        Failing recipient = new Failing();
        INBOX.fund{value: 10}(THERE);
        Message memory m = message(alice, address(recipient), "");
        m.value = 4;
        MessageProof memory p = append(m);
        for (uint256 how = 1; how <= 6; how++) {
            recipient.fail(Failing.How(how));
            vm.assertTrue(!INBOX.deliver(m, "", p, m.gasLimit));
            vm.assertEq(address(recipient).balance, 0);
            (uint128 free,, uint128 received,) = INBOX.accounts(THERE);
            vm.assertEq(free, 10);
            vm.assertEq(received, 0);
        }
        recipient.fail(Failing.How.No);
        vm.assertTrue(INBOX.deliver(m, "", p, m.gasLimit));
        vm.assertEq(recipient.lastValue(), 4);
        vm.assertEq(address(INBOX).balance, 6);
    }

    function test_a_rollup_takes_no_more_than_stands_on_its_account() external {
        INBOX.fund{value: 10}(3);
        send(5, alice);
        Message memory m = transfer(1);
        // Nothing is free for THERE: what was sent there may yet have to be refunded.
        refuse(m, abi.encodeWithSelector(Inbox.CreditExceeded.selector, THERE, 0));
        // It says that all was delivered, and more than all.
        m = transfer(6);
        m.received = type(uint128).max;
        refuse(m, abi.encodeWithSelector(Inbox.CreditExceeded.selector, THERE, 5));
        m = transfer(5);
        m.received = type(uint128).max;
        vm.assertTrue(deliver(m));
        m = transfer(1);
        m.received = type(uint128).max;
        refuse(m, abi.encodeWithSelector(Inbox.CreditExceeded.selector, THERE, 0));
        vm.assertEq(address(INBOX).balance, 10);
    }

    function test_what_is_told_to_be_delivered_there_becomes_free_here() external {
        send(5, alice);
        Message memory m = transfer(2);
        m.received = 3;
        vm.assertTrue(deliver(m));
        (uint128 free, uint128 inFlight) = accountOf(THERE);
        vm.assertEq(free, 1);
        vm.assertEq(inFlight, 2);
        // An older message that arrives later frees nothing twice.
        m = transfer(1);
        m.received = 2;
        vm.assertTrue(deliver(m));
        (free, inFlight) = accountOf(THERE);
        vm.assertEq(free, 0);
        vm.assertEq(inFlight, 2);
    }

    function test_an_expired_message_is_refunded_once() external {
        Message memory m = send(5, alice);
        vm.expectRevert(abi.encodeWithSelector(Inbox.NothingToRefund.selector, Wire.messageId(m)));
        INBOX.refund(m);
        notice(Wire.messageId(m));
        vm.assertEq(alice.balance, 995);
        INBOX.refund(m);
        vm.assertEq(alice.balance, 1000);
        vm.assertEq(address(INBOX).balance, 0);
        vm.expectRevert(abi.encodeWithSelector(Inbox.NothingToRefund.selector, Wire.messageId(m)));
        INBOX.refund(m);
        // A second notice does not make it due again.
        notice(Wire.messageId(m));
        vm.expectRevert(abi.encodeWithSelector(Inbox.NothingToRefund.selector, Wire.messageId(m)));
        INBOX.refund(m);
    }

    function test_a_notice_counts_only_for_messages_to_the_rollup_that_gives_it() external {
        vm.prank(alice);
        OUTBOX.sendMessage{value: 7}(evm(3, bob), "", none);
        Message memory m = send(5, alice);
        // THERE says that a message to rollup 3 has expired.
        Message memory other = m;
        (other.destination, other.destinationChain, other.value, other.index) = (3, chainOf(3), 7, 0);
        notice(Wire.messageId(other));
        vm.expectRevert(abi.encodeWithSelector(Inbox.NothingToRefund.selector, Wire.messageId(other)));
        INBOX.refund(other);
    }

    function test_a_false_notice_takes_only_what_went_there() external {
        INBOX.fund{value: 10}(3);
        send(5, alice);
        // A message that was never sent, by which THERE would have its friend refunded.
        Message memory m;
        (m.source, m.sourceChain, m.destination, m.destinationChain) = (HERE, chainOf(HERE), THERE, chainOf(THERE));
        (m.refund, m.value) = (Wire.account(bob), 6);
        notice(Wire.messageId(m));
        vm.expectRevert(abi.encodeWithSelector(Inbox.CreditExceeded.selector, THERE, 5));
        INBOX.refund(m);
        m.value = 5;
        notice(Wire.messageId(m));
        INBOX.refund(m);
        vm.assertEq(address(INBOX).balance, 10);
    }

    function test_a_notice_must_come_from_an_inbox_and_name_a_message() external {
        Message memory m = message(alice, address(INBOX), abi.encode(bytes32("id")));
        m.kind = Wire.NOTICE;
        MessageProof memory p = append(m);
        vm.expectRevert(Inbox.BadNotice.selector);
        INBOX.deliver(m, abi.encode(bytes32("id")), p, 0);
        m = message(address(INBOX), address(INBOX), "short");
        m.kind = Wire.NOTICE;
        p = append(m);
        vm.expectRevert(Inbox.BadNotice.selector);
        INBOX.deliver(m, "short", p, 0);
    }

    /// A message that is delivered cannot be refunded, and the other way round, since there is no notice of the one and no
    /// delivery of the other (tests of the Inbox); a refund of what came from elsewhere is none.
    function test_what_came_from_elsewhere_is_not_refunded_here() external {
        INBOX.fund{value: 10}(THERE);
        Message memory m = transfer(4);
        MessageProof memory p = append(m);
        vm.warp(m.deadline + 1);
        INBOX.expire(m, p);
        notice(Wire.messageId(m));
        vm.expectRevert(abi.encodeWithSelector(Inbox.NothingToRefund.selector, Wire.messageId(m)));
        INBOX.refund(m);
    }

    function test_what_was_sent_from_elsewhere_is_not_refunded_here() external {
        send(5, alice);
        Message memory m;
        (m.source, m.sourceChain, m.destination, m.destinationChain) = (3, chainOf(3), THERE, chainOf(THERE));
        (m.refund, m.value) = (Wire.account(bob), 5);
        notice(Wire.messageId(m));
        vm.expectRevert(abi.encodeWithSelector(Inbox.NothingToRefund.selector, Wire.messageId(m)));
        INBOX.refund(m);
    }

    function test_who_cannot_take_a_refund_can_send_it_elsewhere() external {
        Failing stuck = new Failing();
        vm.deal(address(stuck), 5);
        Message memory m = send(5, address(stuck));
        notice(Wire.messageId(m));
        vm.expectRevert(abi.encodeWithSelector(Inbox.RefundFailed.selector, address(stuck)));
        INBOX.refund(m);
        vm.expectRevert(abi.encodeWithSelector(Inbox.NothingToRefund.selector, Wire.messageId(m)));
        INBOX.refundTo(m, bob);
        vm.prank(address(stuck));
        INBOX.refundTo(m, bob);
        vm.assertEq(bob.balance, 5);
    }

    function test_a_recipient_that_answers_with_its_value_sends_it_once() external {
        Reentrant reentrant = new Reentrant();
        INBOX.fund{value: 10}(THERE);
        Message memory m = message(alice, address(reentrant), "hi");
        (m.value, m.gasLimit) = (4, 3_000_000);
        MessageProof memory p = append(m);
        reentrant.arm(m, p, "hi");
        vm.assertTrue(INBOX.deliver(m, "hi", p, m.gasLimit));
        vm.assertEq(reentrant.refused(), 4);
        (uint128 free, uint128 inFlight, uint128 received,) = INBOX.accounts(THERE);
        vm.assertEq(free, 6);
        vm.assertEq(inFlight, 4);
        vm.assertEq(received, 4);
        vm.assertEq(address(INBOX).balance, 10);
    }

    function test_only_a_registered_rollup_is_given_coin() external {
        vm.expectRevert(abi.encodeWithSelector(Inbox.UnknownRollup.selector, 9));
        INBOX.fund{value: 1}(9);
    }

    function test_coin_cannot_be_sent_to_the_contracts_themselves() external {
        INBOX.fund{value: 10}(THERE);
        address[2] memory targets = [address(INBOX), address(OUTBOX)];
        for (uint256 i; i < 2; i++) {
            Message memory m = transfer(1);
            m.recipient = Wire.account(targets[i]);
            vm.assertTrue(!deliver(m));
        }
    }

    /// However a rollup lies, what it can take is what was given for it and what went out to it.
    function testFuzz_a_rollup_that_lies_is_bounded(uint256 seed) external {
        INBOX.fund{value: 100}(3);
        uint256 given = within(seed, 0, 20);
        INBOX.fund{value: given}(THERE);
        for (uint256 i; i < 12; i++) {
            uint256 r = uint256(keccak256(abi.encode(seed, i)));
            uint128 value = uint128(within(r >> 8, 1, 20));
            if (r % 4 == 0) {
                send(value, alice);
                given += value;
            } else if (r % 4 == 1) {
                Message memory m;
                (m.source, m.sourceChain, m.destination) = (HERE, chainOf(HERE), THERE);
                (m.refund, m.value, m.index) = (Wire.account(bob), value, uint64(i));
                notice(Wire.messageId(m));
                try INBOX.refund(m) {} catch {}
            } else {
                Message memory m = transfer(value);
                m.received = uint128(within(r >> 32, 0, r % 4 == 2 ? 30 : type(uint128).max));
                MessageProof memory p = append(m);
                try INBOX.deliver(m, "", p, m.gasLimit) {} catch {}
            }
            vm.assertLe(bob.balance, given);
            vm.assertEq(address(INBOX).balance, 100 + given - bob.balance);
            (uint128 free, uint128 inFlight) = accountOf(THERE);
            vm.assertEq(uint256(free) + inFlight, given - bob.balance);
        }
    }
}

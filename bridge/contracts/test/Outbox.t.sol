// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC7786GatewaySource} from "@openzeppelin/contracts/interfaces/draft-IERC7786.sol";
import {InteroperableAddress} from "@openzeppelin/contracts/utils/draft-InteroperableAddress.sol";
import {Inbox} from "../src/Inbox.sol";
import {IMessageAttributes, Outbox} from "../src/Outbox.sol";
import {INBOX, OUTBOX} from "../src/Predeploys.sol";
import {Message, Wire} from "../src/Wire.sol";
import {Base} from "./lib/Base.sol";
import {Tree} from "./lib/Tree.sol";
import {Vm, vm} from "./lib/Vm.sol";

contract OutboxTest is Base {
    address private immutable alice = account("alice");
    address private immutable bob = account("bob");
    bytes[] private none;

    function setUp() external {
        install(HERE);
        register(HERE);
        register(THERE);
        register(3);
        vm.deal(alice, 100 ether);
    }

    /// Sends from alice to bob on `rollup`; returns the message as the event tells it.
    function send(uint64 rollup, uint256 value, bytes memory payload, bytes[] memory attributes)
        private
        returns (bytes32 id, Message memory m)
    {
        vm.recordLogs();
        vm.prank(alice);
        id = OUTBOX.sendMessage{value: value}(evm(rollup, bob), payload, attributes);
        m = appended();
    }

    function appended() private returns (Message memory) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i; i < logs.length; i++) {
            if (logs[i].topics[0] == Outbox.MessageAppended.selector) return abi.decode(logs[i].data, (Message));
        }
        revert();
    }

    function refuse(bytes memory reason, bytes[] memory attributes) private {
        vm.prank(alice);
        vm.expectRevert(reason);
        OUTBOX.sendMessage(evm(THERE, bob), "hi", attributes);
    }

    function test_a_message_without_attributes_has_the_defaults() external {
        (bytes32 id, Message memory m) = send(THERE, 0, "hi", none);
        vm.assertEq(id, Wire.messageId(m));
        Message memory expected = Message({
            kind: 0,
            source: HERE,
            sourceChain: chainOf(HERE),
            destination: THERE,
            destinationChain: chainOf(THERE),
            index: 0,
            previous: 0,
            deadline: uint64(START + 7 days),
            gasLimit: 200_000,
            sender: Wire.account(alice),
            recipient: Wire.account(bob),
            refund: Wire.account(alice),
            value: 0,
            received: 0,
            payloadHash: keccak256("hi")
        });
        vm.assertEq(abi.encode(m), abi.encode(expected));
    }

    function test_attributes_decide_what_they_are_for() external {
        bytes[] memory list = new bytes[](4);
        list[0] = abi.encodeCall(IMessageAttributes.refundTo, (bob));
        list[1] = abi.encodeCall(IMessageAttributes.deadline, (uint64(START + 5)));
        list[2] = abi.encodeCall(IMessageAttributes.transfer, ());
        list[3] = abi.encodeCall(IMessageAttributes.gasLimit, (50_000));
        (, Message memory m) = send(THERE, 1 ether, "", list);
        vm.assertEq(m.refund, Wire.account(bob));
        vm.assertEq(m.deadline, START + 5);
        vm.assertEq(m.kind, Wire.TRANSFER);
        vm.assertEq(m.gasLimit, 50_000);
        vm.assertEq(m.value, 1 ether);
    }

    function test_the_standard_event_and_getter_are_there() external {
        bytes[] memory list = one(abi.encodeCall(IMessageAttributes.gasLimit, (1)));
        vm.recordLogs();
        vm.prank(alice);
        bytes32 id = OUTBOX.sendMessage{value: 5}(evm(THERE, bob), "hi", list);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        Vm.Log memory log = logs[logs.length - 1];
        vm.assertEq(log.topics[0], IERC7786GatewaySource.MessageSent.selector);
        vm.assertEq(log.topics[1], id);
        vm.assertEq(log.data, abi.encode(evm(HERE, alice), evm(THERE, bob), bytes("hi"), 5, list));
        vm.assertTrue(OUTBOX.supportsAttribute(IMessageAttributes.ordered.selector));
        vm.assertTrue(!OUTBOX.supportsAttribute(bytes4(0)));
    }

    /// What the node does: count in slot 0, the partial of level `h` in slot `1 + h`.
    function test_the_root_can_be_read_from_storage() external {
        bytes32[] memory leaves = new bytes32[](11);
        for (uint256 i; i < 11; i++) {
            (leaves[i],) = send(THERE, 0, abi.encode(i), none);
        }
        vm.assertEq(OUTBOX.root(), Tree.sealedRoot(leaves));
        vm.assertEq(vm.load(address(OUTBOX), 0), bytes32(uint256(11)));
        bytes32 root;
        for (uint256 h; h < 48; h++) {
            if ((11 >> h) & 1 == 0) continue;
            bytes32 part = vm.load(address(OUTBOX), bytes32(1 + h));
            root = root == 0 ? part : keccak256(abi.encodePacked(uint8(1), part, root));
        }
        vm.assertEq(root, Tree.root(leaves));
    }

    function test_ordered_messages_name_the_one_before_to_the_same_rollup() external {
        bytes[] memory ordered = one(abi.encodeCall(IMessageAttributes.ordered, ()));
        uint64[6] memory rollups = [THERE, 3, THERE, THERE, 3, THERE];
        uint64[6] memory previous = [uint64(0), 0, 1, 0, 2, 3];
        for (uint256 i; i < 6; i++) {
            (, Message memory m) = send(rollups[i], 0, "hi", i == 3 ? none : ordered);
            vm.assertEq(m.index, i);
            vm.assertEq(m.previous, previous[i]);
        }
        vm.recordLogs();
        vm.prank(bob);
        OUTBOX.sendMessage(evm(THERE, bob), "", ordered);
        vm.assertEq(appended().previous, 0);
    }

    function test_bad_attributes_are_refused() external {
        bytes4 unknown = bytes4(keccak256("executionTime(uint256)"));
        refuse(
            abi.encodeWithSelector(IERC7786GatewaySource.UnsupportedAttribute.selector, unknown),
            one(abi.encodeWithSelector(unknown, 1))
        );
        refuse(
            abi.encodeWithSelector(IERC7786GatewaySource.UnsupportedAttribute.selector, bytes4(0xaabbcc00)),
            one(hex"aabbcc")
        );
        bytes4 s = IMessageAttributes.deadline.selector;
        uint256[3] memory deadlines = [START, START + 365 days + 1, 0];
        for (uint256 i; i < 3; i++) {
            refuse(
                abi.encodeWithSelector(Outbox.BadAttribute.selector, s), one(abi.encodeWithSelector(s, deadlines[i]))
            );
        }
        refuse(abi.encodeWithSelector(Outbox.BadAttribute.selector, s), one(abi.encodePacked(s)));
        refuse(abi.encodeWithSelector(Outbox.BadAttribute.selector, s), one(abi.encodePacked(s, new bytes(33))));
        refuse("", one(abi.encodeWithSelector(s, type(uint256).max)));
        s = IMessageAttributes.gasLimit.selector;
        refuse(abi.encodeWithSelector(Outbox.BadAttribute.selector, s), one(abi.encodeWithSelector(s, 5_000_001)));
        s = IMessageAttributes.refundTo.selector;
        refuse(abi.encodeWithSelector(Outbox.BadAttribute.selector, s), one(abi.encodeWithSelector(s, 0)));
        s = IMessageAttributes.ordered.selector;
        refuse(abi.encodeWithSelector(Outbox.BadAttribute.selector, s), one(abi.encodeWithSelector(s, 0)));
        bytes[] memory twice = new bytes[](2);
        twice[0] = twice[1] = abi.encodeWithSelector(s);
        refuse(abi.encodeWithSelector(Outbox.RepeatedAttribute.selector, s), twice);
    }

    function test_a_transfer_has_no_payload() external {
        refuse(
            abi.encodeWithSelector(Outbox.BadPayload.selector, 2), one(abi.encodeCall(IMessageAttributes.transfer, ()))
        );
    }

    function test_a_payload_may_be_32_kib_and_no_longer() external {
        OUTBOX.sendMessage(evm(THERE, bob), new bytes(32_768), none);
        vm.expectRevert(abi.encodeWithSelector(Outbox.BadPayload.selector, 32_769));
        OUTBOX.sendMessage(evm(THERE, bob), new bytes(32_769), none);
    }

    function test_recipients_that_cannot_be_are_refused() external {
        // Here, not registered, above 64 bits.
        uint256[3] memory chains = [uint256(chainOf(HERE)), 1, uint256(1) << 64 | chainOf(THERE)];
        for (uint256 i; i < 3; i++) {
            vm.expectRevert(abi.encodeWithSelector(Outbox.UnknownDestination.selector, chains[i]));
            OUTBOX.sendMessage(InteroperableAddress.formatEvmV1(chains[i], bob), "", none);
        }
        vm.expectRevert(Outbox.NoRecipient.selector);
        OUTBOX.sendMessage(InteroperableAddress.formatEvmV1(chainOf(THERE)), "", none);
        vm.expectPartialRevert(InteroperableAddress.InteroperableAddressParsingError.selector);
        OUTBOX.sendMessage("bob", "", none);
        // Another kind of chain.
        vm.expectPartialRevert(InteroperableAddress.InteroperableAddressParsingError.selector);
        OUTBOX.sendMessage(hex"00010002021b5914000000000000000000000000000000000000beef", "", none);
    }

    function test_coin_goes_to_the_inbox_on_the_destinations_account() external {
        send(THERE, 3 ether, "", none);
        send(3, 1 ether, "", none);
        vm.assertEq(address(OUTBOX).balance, 0);
        vm.assertEq(address(INBOX).balance, 4 ether);
        (uint128 free, uint128 inFlight,,) = INBOX.accounts(THERE);
        vm.assertEq(free, 0);
        vm.assertEq(inFlight, 3 ether);
    }

    function test_only_outbox_and_inbox_speak_to_each_other() external {
        vm.deal(address(this), 1);
        vm.expectRevert(abi.encodeWithSelector(Inbox.NotOutbox.selector, address(this)));
        INBOX.lock{value: 1}(THERE);
        vm.expectRevert(abi.encodeWithSelector(Outbox.NotInbox.selector, address(this)));
        OUTBOX.sendNotice(THERE, chainOf(THERE), 0);
    }

    function testFuzz_each_field_of_a_message_is_in_its_id(uint8 field, Message calldata given) external pure {
        Message memory m = given;
        field %= 15;
        unchecked {
            if (field == 0) m.kind++;
            if (field == 1) m.source++;
            if (field == 2) m.sourceChain++;
            if (field == 3) m.destination++;
            if (field == 4) m.destinationChain++;
            if (field == 5) m.index++;
            if (field == 6) m.previous++;
            if (field == 7) m.deadline++;
            if (field == 8) m.gasLimit++;
            if (field == 9) m.sender = ~m.sender;
            if (field == 10) m.recipient = ~m.recipient;
            if (field == 11) m.refund = ~m.refund;
            if (field == 12) m.value++;
            if (field == 13) m.received++;
            if (field == 14) m.payloadHash = ~m.payloadHash;
        }
        vm.assertNotEq(Wire.messageId(m), Wire.messageId(given));
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {AtomicVault} from "../src/AtomicVault.sol";
import {HubProof} from "../src/Hub.sol";
import {MessageProof} from "../src/Inbox.sol";
import {BRIDGE, HUB, INBOX, OUTBOX, VAULT} from "../src/Predeploys.sol";
import {Origin, Transfer} from "../src/TokenBridge.sol";
import {Checkpoint, Leg, Message, Move, Wire} from "../src/Wire.sol";
import {Merkle} from "../src/Merkle.sol";
import {Remote} from "./lib/Base.sol";
import {Bundles, Hashes} from "./lib/Bundles.sol";
import {Recipient} from "./lib/Recipients.sol";
import {PlainToken} from "./lib/Tokens.sol";
import {vm} from "./lib/Vm.sol";

/// Takes messages and does nothing.
contract Idle {
    function receiveMessage(bytes32, bytes calldata, bytes calldata) external payable returns (bytes4) {
        return this.receiveMessage.selector;
    }
}

/// Gas of whole transactions (`forge test --isolate`), on rollups that have been used: trees of a million leaves in the hub and of a
/// thousand in the outbox, accounts and slots that are not new. The table is in docs/specs/messages.md.
contract GasTest is Remote, Bundles {
    uint64 private constant HUB_LEAVES = 1 << 20;
    uint64 private constant OUTBOX_LEAVES = 1 << 10;

    address private immutable alice = account("alice");
    address private immutable bob = account("bob");
    Idle private idle;
    PlainToken private gold;
    bytes[] private none;

    function setUp() external {
        install(HERE);
        hashes = new Hashes();
        register(HERE);
        register(THERE);
        idle = new Idle();
        gold = new PlainToken("Gold", "GLD", 6);
        gold.mint(alice, 1e9);
        gold.mint(bob, 1);
        gold.mint(address(BRIDGE), 1);
        gold.mint(address(VAULT), 1);
        vm.startPrank(alice);
        gold.approve(address(BRIDGE), 1e8);
        gold.approve(address(VAULT), 1e8);
        vm.stopPrank();
        vm.deal(alice, 1 ether);
        vm.deal(bob, 1);
        vm.deal(address(this), 1 ether);
        vm.deal(address(VAULT), 1);
        INBOX.fund{value: 1000}(THERE);
        vm.startPrank(alice);
        OUTBOX.sendMessage{value: 1}(evm(THERE, bob), "", none);
        // The next messages write partials that have been written before.
        for (uint256 i; i < 14; i++) {
            OUTBOX.sendMessage(evm(THERE, bob), "", none);
        }
        BRIDGE.crosschainTransfer(address(gold), evm(THERE, bob), 10, 0);
        vm.stopPrank();
        // An earlier message of the same 128 has been delivered.
        Message memory m = message(alice, address(idle), "");
        INBOX.deliver(m, "", big(m), m.gasLimit);
        Transfer memory t = Transfer(Origin(THERE, bob, false), alice, bob, 5, "Silver", "SLV", 8);
        m = bridgeMessage(t, 1);
        INBOX.deliver(m, abi.encode(t), big(m), m.gasLimit);
    }

    /// A tree of `count` leaves in which `leaf` is at `index`, of which nothing but the path is known.
    function treeWith(bytes32 leaf, uint64 index, uint64 count)
        private
        pure
        returns (bytes32 root, bytes32[] memory siblings)
    {
        uint256 levels;
        while (uint256(1) << levels < count) levels++;
        siblings = new bytes32[](levels);
        root = Merkle.leafHash(leaf);
        for (uint256 i; i < levels; i++) {
            siblings[i] = keccak256(abi.encode("sibling", i));
            root = (index >> i) & 1 == 0 ? Merkle.nodeHash(root, siblings[i]) : Merkle.nodeHash(siblings[i], root);
        }
        root = Merkle.seal(count, root);
    }

    function bigHubProof(bytes32 leaf) private returns (HubProof memory) {
        (bytes32 root, bytes32[] memory siblings) = treeWith(leaf, 777_777, HUB_LEAVES);
        setBeaconRoot(root);
        return HubProof(abi.encodePacked(uint64(block.timestamp)), 777_777, HUB_LEAVES, siblings);
    }

    /// The message is in a big outbox, whose root is known here.
    function big(Message memory m) private returns (MessageProof memory) {
        (bytes32 root, bytes32[] memory siblings) = treeWith(Wire.messageId(m), m.index, OUTBOX_LEAVES);
        certify(m.source, root);
        return MessageProof(OUTBOX_LEAVES, siblings);
    }

    function bridgeMessage(Transfer memory t, uint64 index) private view returns (Message memory m) {
        m = message(address(BRIDGE), address(BRIDGE), abi.encode(t));
        (m.index, m.gasLimit) = (index, 400_000);
    }

    function snap(string memory name) private {
        vm.snapshotGasLastCall("transactions", name);
    }

    function test_gas_of_sending() external {
        vm.startPrank(alice);
        OUTBOX.sendMessage(evm(THERE, bob), new bytes(32), none);
        snap("send, 32 bytes");
        OUTBOX.sendMessage{value: 1}(evm(THERE, bob), "", none);
        snap("send, with coin");
        BRIDGE.crosschainTransfer(address(gold), evm(THERE, bob), 10, 0);
        snap("send, ERC-20");
        vm.stopPrank();
    }

    function test_gas_of_proving_a_checkpoint() external {
        Checkpoint memory c;
        (c.rollup, c.outboxRoot) = (THERE, keccak256("root"));
        HubProof memory proof = bigHubProof(Wire.checkpointLeaf(c));
        HUB.proveCheckpoint(c, proof);
        snap("prove a checkpoint");
        c.outboxRoot = keccak256("another root");
        bytes32 root;
        (root, proof.path) = treeWith(Wire.checkpointLeaf(c), 777_777, HUB_LEAVES);
        proof.anchor = header(90, root);
        vm.setBlockhash(90, keccak256(proof.anchor));
        HUB.proveCheckpoint(c, proof);
        snap("prove a checkpoint, by a header");
    }

    function test_gas_of_delivering() external {
        Message memory m = message(alice, address(idle), new bytes(32));
        m.index = 2;
        MessageProof memory p = big(m);
        INBOX.deliver(m, new bytes(32), p, m.gasLimit);
        snap("deliver, 32 bytes");
        m = message(alice, bob, "");
        (m.index, m.kind, m.value) = (3, Wire.TRANSFER, 1);
        p = big(m);
        INBOX.deliver(m, "", p, m.gasLimit);
        snap("deliver, with coin");
        Transfer memory t = Transfer(Origin(THERE, bob, false), alice, bob, 5, "Silver", "SLV", 8);
        m = bridgeMessage(t, 4);
        p = big(m);
        INBOX.deliver(m, abi.encode(t), p, m.gasLimit);
        snap("deliver, ERC-20");
        t.origin.token = alice;
        m = bridgeMessage(t, 5);
        p = big(m);
        INBOX.deliver(m, abi.encode(t), p, m.gasLimit);
        snap("deliver, ERC-20 for the first time");
    }

    function test_gas_of_a_second_delivery_that_fails() external {
        Message memory m = message(alice, address(idle), "");
        MessageProof memory p = big(m);
        vm.expectRevert();
        INBOX.deliver(m, "", p, m.gasLimit);
        snap("deliver, again");
    }

    function test_gas_of_expiry() external {
        Message memory m = message(alice, address(idle), "");
        m.index = 6;
        MessageProof memory p = big(m);
        vm.warp(m.deadline + 1);
        INBOX.expire(m, p);
        snap("expire");
    }

    function leg(uint256 moves) private view returns (Leg memory l) {
        l = emptyLeg(alice, moves, 0);
        l.moves[0] = Move(Wire.ERC20, address(gold), 10, bob, alice);
        if (moves > 1) l.moves[1] = Move(Wire.COIN, address(0), 10, bob, alice);
    }

    function test_gas_of_bundles() external {
        Prepared memory p = bundleOf(leg(1), 0, 2);
        vm.prank(alice, alice);
        VAULT.prepare(p.bundle, 0, p.leg);
        snap("prepare, ERC-20, 2 legs");
        HubProof memory proof = bigHubProof(Wire.decisionLeaf(p.id, true, 500));
        VAULT.settle(p.bundle, 0, p.leg, AtomicVault.Decision.Commit, 500, proof, 1);
        snap("settle, ERC-20, 2 legs");
        p = bundleOf(leg(2), 15, 16);
        vm.prank(alice, alice);
        VAULT.prepare{value: 10}(p.bundle, 15, p.leg);
        snap("prepare, ERC-20 and coin, 16 legs");
        proof = bigHubProof(Wire.decisionLeaf(p.id, false, 500));
        VAULT.settle(p.bundle, 15, p.leg, AtomicVault.Decision.Abort, 500, proof, 3);
        snap("settle, ERC-20 and coin, 16 legs");
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {RLP} from "@openzeppelin/contracts/utils/RLP.sol";
import {InteroperableAddress} from "@openzeppelin/contracts/utils/draft-InteroperableAddress.sol";
import {AtomicVault} from "../../src/AtomicVault.sol";
import {BridgedERC20} from "../../src/BridgedERC20.sol";
import {Hub, HubProof} from "../../src/Hub.sol";
import {Inbox, MessageProof} from "../../src/Inbox.sol";
import {Outbox} from "../../src/Outbox.sol";
import {BRIDGE, BRIDGED, HUB, INBOX, OUTBOX, VAULT} from "../../src/Predeploys.sol";
import {TokenBridge} from "../../src/TokenBridge.sol";
import {Checkpoint, Message, Wire} from "../../src/Wire.sol";
import {Tree} from "./Tree.sol";
import {vm} from "./Vm.sol";

/// A rollup's genesis, and a hub whose accumulator is kept as a list of leaves.
abstract contract Base {
    using RLP for RLP.Encoder;

    address internal constant BEACON_ROOTS = 0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02;
    address internal constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;
    address internal constant SYSTEM = 0xffffFFFfFFffffffffffffffFfFFFfffFFFfFFfE;
    // As in EIP-4788 and EIP-2935.
    bytes internal constant BEACON_ROOTS_CODE =
        hex"3373fffffffffffffffffffffffffffffffffffffffe14604d57602036146024575f5ffd5b5f35801560495762001fff810690815414603c575f5ffd5b62001fff01545f5260205ff35b5f5ffd5b62001fff42064281555f359062001fff015500";
    bytes internal constant HISTORY_CODE =
        hex"3373fffffffffffffffffffffffffffffffffffffffe14604657602036036042575f35600143038111604257611fff81430311604257611fff9006545f5260205ff35b5f5ffd5b5f35611fff60014303065500";

    /// The rollup that tests run on, and the one that they send from and to.
    uint64 internal constant HERE = 1;
    uint64 internal constant THERE = 2;
    uint256 internal constant START = 1_700_000_000;

    bytes32[] internal hubLeaves;
    uint64 internal checkpoints;

    function chainOf(uint64 rollup) internal pure returns (uint64) {
        return 7000 + rollup;
    }

    /// Puts the contracts where a genesis has them.
    function install(uint64 rollup) internal {
        vm.etch(BEACON_ROOTS, BEACON_ROOTS_CODE);
        vm.etch(HISTORY, HISTORY_CODE);
        vm.etch(address(HUB), type(Hub).runtimeCode);
        vm.etch(address(OUTBOX), type(Outbox).runtimeCode);
        vm.etch(address(INBOX), type(Inbox).runtimeCode);
        vm.etch(address(BRIDGE), type(TokenBridge).runtimeCode);
        vm.etch(address(BRIDGED), type(BridgedERC20).runtimeCode);
        vm.etch(address(VAULT), type(AtomicVault).runtimeCode);
        vm.store(address(HUB), 0, bytes32(uint256(rollup)));
        vm.chainId(chainOf(rollup));
        vm.warp(START);
        vm.roll(100);
    }

    /// Registers a rollup here, by a proof.
    function register(uint64 rollup) internal {
        uint64 index = hubAppend(Wire.rollupLeaf(rollup, chainOf(rollup)));
        HubProof memory proof = hubProof(index);
        HUB.register(rollup, chainOf(rollup), proof);
    }

    function hubAppend(bytes32 leaf) internal returns (uint64 index) {
        index = uint64(hubLeaves.length);
        hubLeaves.push(leaf);
    }

    /// What the derivation does at the start of each block.
    function setBeaconRoot(bytes32 root) internal {
        vm.prank(SYSTEM);
        (bool ok,) = BEACON_ROOTS.call(abi.encode(root));
        vm.assertTrue(ok);
    }

    /// A proof of a leaf against the accumulator as it is, published in this block.
    function hubProof(uint64 index) internal returns (HubProof memory proof) {
        bytes32[] memory leaves = hubLeaves;
        setBeaconRoot(Tree.sealedRoot(leaves));
        bytes memory anchor = abi.encodePacked(uint64(block.timestamp));
        proof = HubProof(anchor, index, uint64(leaves.length), Tree.path(leaves, index));
    }

    /// Has operators certify that `rollup`'s outbox has this root, and shows it here.
    function certify(uint64 rollup, bytes32 outboxRoot) internal {
        Checkpoint memory c;
        (c.rollup, c.number, c.hubHeight, c.outboxRoot) = (rollup, ++checkpoints, 10 * checkpoints, outboxRoot);
        c.blockHash = keccak256(abi.encode("block", rollup, checkpoints));
        c.stateRoot = keccak256(abi.encode("state", rollup, checkpoints));
        HubProof memory proof = hubProof(hubAppend(Wire.checkpointLeaf(c)));
        HUB.proveCheckpoint(c, proof);
    }

    /// A Prague header of this chain.
    function header(uint256 number, bytes32 beaconRoot) internal pure returns (bytes memory) {
        RLP.Encoder memory e = RLP.encoder();
        for (uint256 i; i < 2; i++) {
            e = e.push(keccak256(abi.encode(i)));
        }
        e = e.push(address(0xfee));
        for (uint256 i; i < 3; i++) {
            e = e.push(keccak256(abi.encode(i)));
        }
        e = e.push(new bytes(256)).push(uint256(0)).push(number).push(uint256(30_000_000)).push(uint256(21_000));
        e = e.push(START).push(bytes(hex"0000000000000007")).push(keccak256("randao")).push(bytes(new bytes(8)));
        e = e.push(uint256(1_000_000_000)).push(keccak256("withdrawals")).push(uint256(0)).push(uint256(0));
        return e.push(beaconRoot).push(keccak256("requests")).encode();
    }

    function evm(uint64 rollup, address who) internal pure returns (bytes memory) {
        return InteroperableAddress.formatEvmV1(chainOf(rollup), who);
    }

    function account(string memory name) internal pure returns (address) {
        return address(uint160(uint256(keccak256(bytes(name)))));
    }

    /// The only attribute.
    function one(bytes memory attribute) internal pure returns (bytes[] memory list) {
        list = new bytes[](1);
        list[0] = attribute;
    }
}

/// The outbox of another rollup, whose operators certify whatever a test puts into it.
abstract contract Remote is Base {
    mapping(uint64 rollup => bytes32[]) internal outboxes;

    /// A message from THERE to HERE with the usual fields; `append` it after changing what a test is about.
    function message(address sender, address recipient, bytes memory payload) internal view returns (Message memory m) {
        m.source = THERE;
        m.sourceChain = chainOf(THERE);
        m.destination = HERE;
        m.destinationChain = chainOf(HERE);
        m.index = uint64(outboxes[THERE].length);
        m.deadline = uint64(block.timestamp + 1 days);
        m.gasLimit = 300_000;
        m.sender = Wire.account(sender);
        m.recipient = Wire.account(recipient);
        m.refund = m.sender;
        m.payloadHash = keccak256(payload);
    }

    /// Puts it into its source's outbox and has that certified.
    function append(Message memory m) internal returns (MessageProof memory) {
        outboxes[m.source].push(Wire.messageId(m));
        certify(m.source, Tree.sealedRoot(outboxes[m.source]));
        return prove(m.source, m.index);
    }

    function prove(uint64 source, uint64 index) internal view returns (MessageProof memory) {
        bytes32[] memory leaves = outboxes[source];
        return MessageProof(uint64(leaves.length), Tree.path(leaves, index));
    }
}

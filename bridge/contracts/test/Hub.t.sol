// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Hub, HubProof} from "../src/Hub.sol";
import {HUB} from "../src/Predeploys.sol";
import {Checkpoint, Wire} from "../src/Wire.sol";
import {Base} from "./lib/Base.sol";
import {Tree} from "./lib/Tree.sol";
import {vm} from "./lib/Vm.sol";

contract HubTest is Base {
    bytes32 private constant ROOT = keccak256("root");

    function setUp() external {
        install(HERE);
    }

    function second(uint256 timestamp) private pure returns (bytes memory) {
        return abi.encodePacked(uint64(timestamp));
    }

    function test_a_timestamp_anchors_the_root_of_its_block() external {
        setBeaconRoot(ROOT);
        vm.assertEq(HUB.root(second(START)), ROOT);
        vm.warp(START + 8190);
        vm.assertEq(HUB.root(second(START)), ROOT);
    }

    function test_a_timestamp_without_a_block_anchors_nothing() external {
        setBeaconRoot(ROOT);
        uint256[4] memory others = [START - 1, START + 1, START + 8191, 0];
        for (uint256 i; i < others.length; i++) {
            vm.expectRevert(Hub.UnknownAnchor.selector);
            HUB.root(second(others[i]));
        }
        vm.warp(START + 8191);
        setBeaconRoot(keccak256("later"));
        vm.expectRevert(Hub.UnknownAnchor.selector);
        HUB.root(second(START));
    }

    function test_a_header_anchors_the_root_it_carries() external {
        bytes memory rlp = header(90, ROOT);
        vm.setBlockhash(90, keccak256(rlp));
        vm.assertEq(HUB.root(rlp), ROOT);
    }

    /// Two blocks of one second: the ring of EIP-4788 forgets the first, its header does not.
    function testFuzz_a_header_of_any_shape_anchors_its_root(uint16 number, bytes32 root) external {
        vm.roll(uint256(number) + 1);
        bytes memory rlp = header(number, root);
        vm.setBlockhash(number, keccak256(rlp));
        vm.assertEq(HUB.root(rlp), root);
    }

    function test_bytes_that_are_no_header_have_no_other_error() external {
        bytes memory rlp = header(90, ROOT);
        for (uint256 length; length < 460; length++) {
            if (length == 8) continue;
            bytes memory short = new bytes(length);
            for (uint256 i; i < length; i++) {
                short[i] = rlp[i];
            }
            vm.expectRevert(Hub.UnknownAnchor.selector);
            HUB.root(short);
        }
        bytes1[4] memory prefixes = [bytes1(0xa1), 0xb8, 0xc0, 0xff];
        for (uint256 i; i < 4; i++) {
            rlp[449] = prefixes[i];
            vm.expectRevert(Hub.UnknownAnchor.selector);
            HUB.root(rlp);
        }
    }

    function test_a_header_anchors_a_root_that_its_second_has_lost() external {
        bytes memory rlp = header(90, ROOT);
        vm.setBlockhash(90, keccak256(rlp));
        setBeaconRoot(ROOT);
        setBeaconRoot(keccak256("next block"));
        vm.assertEq(HUB.root(second(START)), keccak256("next block"));
        vm.assertEq(HUB.root(rlp), ROOT);
    }

    function test_a_header_older_than_256_blocks_is_found_in_the_history() external {
        bytes memory rlp = header(99, ROOT);
        // EIP-2935: the hash of the parent, at the start of each block.
        vm.prank(SYSTEM);
        (bool ok,) = HISTORY.call(abi.encode(keccak256(rlp)));
        vm.assertTrue(ok);
        vm.roll(99 + 8191);
        vm.assertEq(HUB.root(rlp), ROOT);
        vm.roll(99 + 8192);
        vm.expectRevert(Hub.UnknownAnchor.selector);
        HUB.root(rlp);
    }

    function test_a_header_of_another_chain_anchors_nothing() external {
        bytes memory rlp = header(90, ROOT);
        vm.expectRevert(Hub.UnknownAnchor.selector);
        HUB.root(rlp);
        bytes memory future = header(100, ROOT);
        vm.expectRevert(Hub.UnknownAnchor.selector);
        HUB.root(future);
    }

    function testFuzz_no_other_bytes_anchor_a_root(bytes calldata junk) external {
        vm.assume(junk.length != 8 || uint64(bytes8(junk)) != START);
        setBeaconRoot(ROOT);
        vm.setBlockhash(90, keccak256(header(90, ROOT)));
        vm.expectRevert();
        HUB.root(junk);
    }

    function testFuzz_a_header_with_a_changed_byte_anchors_nothing(uint256 place, uint8 change) external {
        bytes memory rlp = header(90, ROOT);
        vm.setBlockhash(90, keccak256(rlp));
        vm.assume(change != 0);
        place %= rlp.length;
        rlp[place] = bytes1(uint8(rlp[place]) ^ change);
        vm.expectRevert();
        HUB.root(rlp);
    }

    function test_a_rollup_is_registered_once_and_by_proof_only() external {
        uint64 index = hubAppend(Wire.rollupLeaf(5, 55));
        hubAppend(Wire.rollupLeaf(5, 56));
        hubAppend(Wire.rollupLeaf(6, 55));
        HubProof memory proof = hubProof(index);
        vm.expectRevert(abi.encodeWithSelector(Hub.NotInHub.selector, Wire.rollupLeaf(5, 57)));
        HUB.register(5, 57, proof);
        HUB.register(5, 55, proof);
        vm.assertEq(HUB.chainOf(5), 55);
        vm.assertEq(HUB.rollupOf(55), 5);
        // The hub lets no two rollups have one chain id. If it did, the first would keep it.
        for (uint64 i = 0; i < 3; i++) {
            (uint64 rollup, uint64 chain) = i == 2 ? (uint64(6), uint64(55)) : (uint64(5), 55 + i);
            proof = hubProof(i);
            vm.expectRevert(abi.encodeWithSelector(Hub.AlreadyRegistered.selector, rollup, chain));
            HUB.register(rollup, chain, proof);
        }
    }

    function test_a_checkpoint_gives_its_outbox_root_for_its_rollup_alone() external {
        bytes32 root = keccak256("outbox");
        certify(THERE, root);
        vm.assertTrue(HUB.outboxRoots(THERE, root));
        vm.assertTrue(!HUB.outboxRoots(THERE + 1, root));
        vm.assertTrue(!HUB.outboxRoots(THERE, keccak256("another")));
        certify(THERE, root);
    }

    function test_a_leaf_of_one_kind_is_none_of_another() external {
        Checkpoint memory c;
        c.rollup = THERE;
        c.outboxRoot = keccak256("outbox");
        HubProof memory proof = hubProof(hubAppend(Wire.decisionLeaf(keccak256("id"), true, 7)));
        vm.expectRevert(abi.encodeWithSelector(Hub.NotInHub.selector, Wire.checkpointLeaf(c)));
        HUB.proveCheckpoint(c, proof);
        HUB.verify(Wire.decisionLeaf(keccak256("id"), true, 7), proof);
        vm.expectPartialRevert(Hub.NotInHub.selector);
        HUB.verify(Wire.decisionLeaf(keccak256("id"), false, 7), proof);
    }

    function testFuzz_each_field_of_a_checkpoint_counts(uint8 field) external {
        Checkpoint memory c = Checkpoint(THERE, 1, 2, keccak256("b"), keccak256("s"), keccak256("o"), keccak256("v"));
        HubProof memory proof = hubProof(hubAppend(Wire.checkpointLeaf(c)));
        field %= 7;
        if (field == 0) c.rollup++;
        if (field == 1) c.number++;
        if (field == 2) c.hubHeight++;
        if (field == 3) c.blockHash = ROOT;
        if (field == 4) c.stateRoot = ROOT;
        if (field == 5) c.outboxRoot = ROOT;
        if (field == 6) c.votesRoot = ROOT;
        vm.expectRevert(abi.encodeWithSelector(Hub.NotInHub.selector, Wire.checkpointLeaf(c)));
        HUB.proveCheckpoint(c, proof);
    }

    function test_a_proof_against_an_older_root_of_the_hub_holds() external {
        uint64 index = hubAppend(Wire.rollupLeaf(5, 55));
        HubProof memory proof = hubProof(index);
        for (uint256 i; i < 20; i++) {
            vm.warp(START + 1 + i);
            hubAppend(keccak256(abi.encode(i)));
            setBeaconRoot(Tree.sealedRoot(hubLeaves));
        }
        HUB.register(5, 55, proof);
    }
}

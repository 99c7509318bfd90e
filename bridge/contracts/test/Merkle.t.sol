// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Accumulator, Accumulators, Merkle} from "../src/Merkle.sol";
import {Tree} from "./lib/Tree.sol";
import {vm, within} from "./lib/Vm.sol";

contract MerkleTest {
    using Accumulators for Accumulator;

    Accumulator private tree;

    function rootFromPath(bytes32 leaf, uint64 index, uint64 count, bytes32[] calldata path)
        external
        pure
        returns (bool, bytes32)
    {
        return Merkle.rootFromPath(leaf, index, count, path);
    }

    function leafAt(uint256 i) private pure returns (bytes32) {
        return keccak256(abi.encode("leaf", i));
    }

    function leavesTo(uint256 n) private pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](n);
        for (uint256 i; i < n; i++) {
            leaves[i] = leafAt(i);
        }
    }

    function test_the_root_is_that_of_all_leaves_after_each_append() external {
        vm.assertEq(tree.sealedRoot(), Tree.sealedRoot(new bytes32[](0)));
        for (uint256 n; n < 70; n++) {
            vm.assertEq(tree.append(leafAt(n)), n);
            vm.assertEq(tree.sealedRoot(), Tree.sealedRoot(leavesTo(n + 1)));
        }
    }

    function test_an_append_writes_one_partial_and_the_count() external {
        for (uint256 n; n < 40; n++) {
            vm.record();
            tree.append(leafAt(n));
            (, bytes32[] memory writes) = vm.accesses(address(this));
            vm.assertEq(writes.length, 2);
        }
    }

    function test_a_full_tree_takes_no_more() external {
        tree.count = type(uint48).max;
        vm.expectRevert(Accumulators.AccumulatorFull.selector);
        this.appendOne();
    }

    function appendOne() external {
        tree.append(0);
    }

    function testFuzz_each_leaf_proves_itself(uint256 size, uint256 pick) external view {
        bytes32[] memory leaves = leavesTo(within(size, 1, 80));
        uint64 index = uint64(within(pick, 0, leaves.length - 1));
        (bool fits, bytes32 root) =
            this.rootFromPath(leaves[index], index, uint64(leaves.length), Tree.path(leaves, index));
        vm.assertTrue(fits);
        vm.assertEq(root, Tree.root(leaves));
    }

    /// Whatever is changed of leaf, index, count or path, the seal comes out different.
    function testFuzz_nothing_else_is_proven(uint256 size, uint256 pick, uint256 change, bytes32 other) external view {
        bytes32[] memory leaves = leavesTo(within(size, 1, 80));
        uint64 index = uint64(within(pick, 0, leaves.length - 1));
        uint64 count = uint64(leaves.length);
        bytes32 leaf = leaves[index];
        bytes32[] memory path = Tree.path(leaves, index);
        uint256 kind = change % 5;
        if (kind == 0) {
            vm.assume(other != leaf);
            leaf = other;
        } else if (kind == 1) {
            uint64 was = index;
            index = uint64(uint256(other) % 100);
            vm.assume(index != was);
        } else if (kind == 2) {
            uint64 was = count;
            count = uint64(uint256(other) % 100);
            vm.assume(count != was);
        } else if (kind == 3) {
            vm.assume(path.length > 0);
            uint256 place = uint256(other) % path.length;
            path[place] ^= bytes32(uint256(1));
        } else {
            path = new bytes32[](path.length + 1);
        }
        (bool fits, bytes32 root) = this.rootFromPath(leaf, index, count, path);
        vm.assertTrue(!fits || Merkle.seal(count, root) != Tree.sealedRoot(leaves));
    }

    /// A node cannot be passed off as a leaf, nor a root of one leaf as a leaf's hash.
    function test_a_node_is_no_leaf() external view {
        bytes32[] memory leaves = leavesTo(4);
        bytes32 left = Merkle.nodeHash(Merkle.leafHash(leaves[0]), Merkle.leafHash(leaves[1]));
        bytes32 right = Merkle.nodeHash(Merkle.leafHash(leaves[2]), Merkle.leafHash(leaves[3]));
        bytes32[] memory path = new bytes32[](1);
        path[0] = right;
        (bool fits, bytes32 root) = this.rootFromPath(left, 0, 2, path);
        vm.assertTrue(fits && root != Tree.root(leaves));
    }

    function test_an_empty_tree_proves_nothing() external view {
        (bool fits,) = this.rootFromPath(0, 0, 0, new bytes32[](0));
        vm.assertTrue(!fits);
        (fits,) = this.rootFromPath(0, type(uint64).max, type(uint64).max, new bytes32[](0));
        vm.assertTrue(!fits);
    }
}

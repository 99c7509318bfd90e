// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Merkle trees of docs/specs/blocks.md
/// @notice A leaf is hashed as `keccak(0x00 | leaf)`, a node as `keccak(0x01 | left | right)`; nodes are paired from the
/// left, and a last node without a sibling rises unchanged. A root alone does not fix the number of leaves, so what is
/// published is {seal}.
library Merkle {
    /// @notice Hash of one leaf.
    function leafHash(bytes32 leaf) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore8(at, 0)
            mstore(add(at, 1), leaf)
            hash := keccak256(at, 33)
        }
    }

    /// @notice Hash of a node with two children.
    function nodeHash(bytes32 left, bytes32 right) internal pure returns (bytes32 hash) {
        assembly ("memory-safe") {
            let at := mload(0x40)
            mstore8(at, 1)
            mstore(add(at, 1), left)
            mstore(add(at, 33), right)
            hash := keccak256(at, 65)
        }
    }

    /// @notice What is published of a tree: `keccak(count u64 | root 32)`.
    function seal(uint64 count, bytes32 root) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(count, root));
    }

    /// @notice The root that `leaf`, at `index` of `count`, leads to with the siblings `path`.
    /// @return fits false if the index or the path's length cannot belong to such a tree; `root` is then meaningless.
    function rootFromPath(bytes32 leaf, uint64 index, uint64 count, bytes32[] calldata path)
        internal
        pure
        returns (bool fits, bytes32 root)
    {
        if (index >= count) return (false, 0);
        root = leafHash(leaf);
        uint256 place = index;
        uint256 last = count - 1;
        uint256 used;
        for (; last > 0; last >>= 1) {
            if ((place ^ 1) <= last) {
                if (used == path.length) return (false, 0);
                bytes32 sibling = path[used++];
                root = place & 1 == 0 ? nodeHash(root, sibling) : nodeHash(sibling, root);
            }
            place >>= 1;
        }
        fits = used == path.length;
    }
}

/// @title Append-only tree of which only the right edge is stored
/// @notice Bit `h` of `count` says whether `partials[h]` is the root of a full subtree of `2^h` leaves; without the bit it
/// is left over and means nothing. The subtrees cover the leaves from the left, the largest first.
/// @dev Slot 0 is `count`, slots 1 to 48 are the partials. Nodes read them from storage: docs/specs/messages.md.
struct Accumulator {
    uint64 count;
    bytes32[48] partials;
}

/// @title What can be done with an {Accumulator}
library Accumulators {
    /// @notice There is room for fewer than `2^48` leaves.
    error AccumulatorFull();

    /// @notice Adds `leaf` and returns its index. Writes one partial and the count.
    function append(Accumulator storage self, bytes32 leaf) internal returns (uint64 index) {
        index = self.count;
        require(index < type(uint48).max, AccumulatorFull());
        bytes32 node = Merkle.leafHash(leaf);
        uint256 level;
        for (uint256 rest = index; rest & 1 == 1; rest >>= 1) {
            node = Merkle.nodeHash(self.partials[level++], node);
        }
        self.partials[level] = node;
        self.count = index + 1;
    }

    /// @notice The published root: {Merkle.seal} of the count and the tree's root (zero for no leaves).
    function sealedRoot(Accumulator storage self) internal view returns (bytes32) {
        uint64 count = self.count;
        bytes32 root;
        bool any;
        for (uint256 level; count >> level > 0; level++) {
            if ((count >> level) & 1 == 0) continue;
            root = any ? Merkle.nodeHash(self.partials[level], root) : self.partials[level];
            any = true;
        }
        return Merkle.seal(count, root);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// The trees of docs/specs/blocks.md from all of their leaves, by another definition than src/Merkle.sol's: a tree of more than
/// one leaf is split at the largest power of two below its size (RFC 9162, section 2.1).
library Tree {
    function root(bytes32[] memory leaves) internal pure returns (bytes32) {
        return leaves.length == 0 ? bytes32(0) : _root(leaves, 0, leaves.length);
    }

    function sealedRoot(bytes32[] memory leaves) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint64(leaves.length), root(leaves)));
    }

    /// Siblings from the leaf up.
    function path(bytes32[] memory leaves, uint256 index) internal pure returns (bytes32[] memory siblings) {
        bytes32[] memory found = new bytes32[](64);
        uint256 n = _path(leaves, 0, leaves.length, index, found);
        siblings = new bytes32[](n);
        for (uint256 i; i < n; i++) {
            siblings[i] = found[i];
        }
    }

    function _root(bytes32[] memory leaves, uint256 from, uint256 to) private pure returns (bytes32) {
        if (to - from == 1) return keccak256(abi.encodePacked(uint8(0), leaves[from]));
        uint256 middle = _middle(from, to);
        return keccak256(abi.encodePacked(uint8(1), _root(leaves, from, middle), _root(leaves, middle, to)));
    }

    function _path(bytes32[] memory leaves, uint256 from, uint256 to, uint256 index, bytes32[] memory found)
        private
        pure
        returns (uint256 n)
    {
        if (to - from == 1) return 0;
        uint256 middle = _middle(from, to);
        bool left = index < middle;
        n = left ? _path(leaves, from, middle, index, found) : _path(leaves, middle, to, index, found);
        found[n++] = left ? _root(leaves, middle, to) : _root(leaves, from, middle);
    }

    function _middle(uint256 from, uint256 to) private pure returns (uint256) {
        uint256 half = 1;
        while (half * 2 < to - from) half *= 2;
        return from + half;
    }
}

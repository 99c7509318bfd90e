// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Blockhash} from "@openzeppelin/contracts/utils/Blockhash.sol";
import {Merkle} from "./Merkle.sol";
import {Checkpoint, Wire} from "./Wire.sol";

/// @notice Shows that a leaf is in the hub's accumulator.
struct HubProof {
    /// Where the root is read: a timestamp (8 bytes) or a block header of this rollup (RLP). See {Hub.root}.
    bytes anchor;
    uint64 index;
    uint64 count;
    bytes32[] path;
}

/// @title What a rollup's contracts know of the hub
/// @notice The hub has one append-only tree for all rollups, and its root is the `parentBeaconBlockRoot` of each rollup
/// block. Everything here is checked against it: certified checkpoints, decided bundles, the list of rollups. Nobody owns
/// this contract; anyone may bring a proof.
contract Hub {
    /// EIP-4788.
    address internal constant BEACON_ROOTS = 0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02;

    /// Where a header since the merge has its number: after the prefix of the list (3 bytes), parent and ommers (33 each), fee
    /// recipient (21), three roots (33 each), bloom (259) and difficulty (1).
    uint256 private constant NUMBER_AT = 449;
    /// How many fields after the number the root is (EIP-4788). Later forks add fields behind it.
    uint256 private constant NUMBER_TO_ROOT = 11;

    /// @notice This rollup's id; written by the genesis.
    uint64 public rollup;
    /// @notice Chain id of a rollup; 0 if not registered.
    mapping(uint64 rollup => uint64) public chainOf;
    /// @notice Rollup with a chain id; 0 if not registered.
    mapping(uint64 chain => uint64) public rollupOf;
    /// @notice Outbox roots of other rollups that were shown to stand in a certified checkpoint.
    mapping(uint64 rollup => mapping(bytes32 root => bool)) public outboxRoots;

    /// @notice The list of rollups has another entry.
    event RollupRegistered(uint64 indexed rollup, uint64 chain);
    /// @notice Messages up to this root can be delivered.
    event OutboxRootProven(uint64 indexed rollup, bytes32 root, uint64 number);

    /// @notice The anchor names no block of this rollup within the last 8191 blocks (or seconds).
    error UnknownAnchor();
    /// @notice The proof does not lead from the leaf to the root at the anchor.
    error NotInHub(bytes32 leaf);
    /// @notice The rollup or the chain id is registered already.
    error AlreadyRegistered(uint64 rollup, uint64 chain);

    /// @notice The accumulator's root at `anchor`.
    /// @dev A timestamp is looked up in EIP-4788's ring of 8191 seconds, which keeps the last block of each second only:
    /// where a rollup makes several blocks a second, a root may be gone before a transaction that relies on it is
    /// executed. A header is looked up by its block number among the last 8191 block hashes (EIP-2935), one each.
    function root(bytes calldata anchor) public view returns (bytes32) {
        if (anchor.length == 8) {
            (bool found, bytes memory answer) = BEACON_ROOTS.staticcall(abi.encode(uint64(bytes8(anchor))));
            require(found && answer.length == 32, UnknownAnchor());
            return abi.decode(answer, (bytes32));
        }
        return _headerRoot(anchor);
    }

    /// @notice Reverts unless `leaf` is in the hub's accumulator.
    function verify(bytes32 leaf, HubProof calldata proof) public view {
        (bool fits, bytes32 tree) = Merkle.rootFromPath(leaf, proof.index, proof.count, proof.path);
        require(fits && Merkle.seal(proof.count, tree) == root(proof.anchor), NotInHub(leaf));
    }

    /// @notice Enters a rollup into the list.
    function register(uint64 rollup_, uint64 chain, HubProof calldata proof) external {
        require(chainOf[rollup_] == 0 && rollupOf[chain] == 0, AlreadyRegistered(rollup_, chain));
        verify(Wire.rollupLeaf(rollup_, chain), proof);
        chainOf[rollup_] = chain;
        rollupOf[chain] = rollup_;
        emit RollupRegistered(rollup_, chain);
    }

    /// @notice Remembers the outbox root of a certified checkpoint, for all messages up to it. Doing it again is harmless.
    function proveCheckpoint(Checkpoint calldata checkpoint, HubProof calldata proof) external {
        verify(Wire.checkpointLeaf(checkpoint), proof);
        outboxRoots[checkpoint.rollup][checkpoint.outboxRoot] = true;
        emit OutboxRootProven(checkpoint.rollup, checkpoint.outboxRoot, checkpoint.number);
    }

    /// @notice What {Inbox} asks for each message, in one call.
    /// @return self this rollup's id
    /// @return chain the source's chain id, 0 if it is not registered
    /// @return proven whether `outboxRoot` is known to be the source's
    function lookup(uint64 source, bytes32 outboxRoot) external view returns (uint64 self, uint64 chain, bool proven) {
        return (rollup, chainOf[source], outboxRoots[source][outboxRoot]);
    }

    /// The `parentBeaconBlockRoot` of an earlier block of this chain, from its header. Until the hash is checked, the header may be
    /// any bytes.
    function _headerRoot(bytes calldata header) private view returns (bytes32) {
        (uint256 start, uint256 end) = _item(header, NUMBER_AT);
        uint256 number = uint256(bytes32(header[start:end])) >> (256 - 8 * (end - start));
        require(Blockhash.blockHash(number) == keccak256(header), UnknownAnchor());
        for (uint256 i; i < NUMBER_TO_ROOT; i++) {
            (start, end) = _item(header, end);
        }
        return bytes32(header[start:end]);
    }

    /// Where the RLP string at `place` has its content: at most 32 bytes.
    function _item(bytes calldata rlp, uint256 place) private pure returns (uint256 start, uint256 end) {
        require(place < rlp.length, UnknownAnchor());
        uint8 prefix = uint8(rlp[place]);
        (start, end) = prefix < 0x80 ? (place, place + 1) : (place + 1, place + 1 + prefix - 0x80);
        require(prefix <= 0xa0 && end <= rlp.length, UnknownAnchor());
    }
}

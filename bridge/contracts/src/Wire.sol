// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @notice What one rollup is after one of its blocks; operators have certified it.
struct Checkpoint {
    uint64 rollup;
    uint64 number;
    uint64 hubHeight;
    bytes32 blockHash;
    bytes32 stateRoot;
    bytes32 outboxRoot;
    bytes32 votesRoot;
}

/// @notice A message between two rollups. Accounts are 32 bytes; one of 20 bytes is padded with zeros on the left.
struct Message {
    /// {Wire.CALL}, {Wire.TRANSFER} or {Wire.NOTICE}.
    uint8 kind;
    uint64 source;
    uint64 sourceChain;
    uint64 destination;
    uint64 destinationChain;
    /// Its place in the source's outbox.
    uint64 index;
    /// For an ordered message, 1 + the index of the one that it must come after; 0 for none.
    uint64 previous;
    /// Last second, by the destination's block timestamps, at which it may be delivered.
    uint64 deadline;
    /// Gas that the recipient must be given.
    uint64 gasLimit;
    bytes32 sender;
    bytes32 recipient;
    /// Who gets the value back, on the source, if the message expires.
    bytes32 refund;
    /// Native coin that goes with it, in wei.
    uint128 value;
    /// With a value: coin of all messages from the destination that were delivered at the source so far, in wei. It frees
    /// as much at the destination: see {Inbox}.
    uint128 received;
    bytes32 payloadHash;
}

/// @notice What a leg holds back: it goes to `to` on commit and to `refund` on abort.
struct Move {
    /// {Wire.COIN}, {Wire.ERC20} or {Wire.ERC721}.
    uint8 kind;
    /// The token; zero for coin.
    address token;
    /// Wei, the token's smallest unit, or the id of the ERC-721 token.
    uint256 amount;
    address to;
    address refund;
}

/// @notice A contract that takes part in a leg.
struct Call {
    address participant;
    /// Gas for its `commit` and for its `abort`.
    uint64 gasLimit;
    bytes data;
}

/// @notice What one leg of a bundle does. Its items are the moves, then the calls, numbered from 0.
struct Leg {
    uint64 rollup;
    address signer;
    Move[] moves;
    Call[] calls;
}

/// @notice What a bundle's id commits to.
struct Bundle {
    /// Hub height at which it is aborted unless it is committed below.
    uint64 deadline;
    /// Tells bundles with equal legs apart.
    bytes32 salt;
    /// {Wire.legHash} of each leg, in order.
    bytes32[] legs;
}

/// @title Byte layouts and hashes that Rust and Solidity share
/// @notice Integers are big-endian. Layouts and vectors: docs/specs/messages.md, docs/specs/bundles.md.
library Wire {
    uint8 internal constant VERSION = 1;

    /// Kind of a message: the recipient's `receiveMessage` (ERC-7786) is called.
    uint8 internal constant CALL = 0;
    /// Kind of a message: no payload; the value goes to the recipient by a call without data, as from a wallet.
    uint8 internal constant TRANSFER = 1;
    /// Kind of a message: from one Inbox to another, tells that a message has expired; the payload is its id.
    uint8 internal constant NOTICE = 2;

    uint8 internal constant COIN = 0;
    uint8 internal constant ERC20 = 1;
    uint8 internal constant ERC721 = 2;

    /// @notice Leaf of the hub's accumulator: a rollup's checkpoint is certified.
    function checkpointLeaf(Checkpoint memory c) internal pure returns (bytes32) {
        return keccak256(
            abi.encodePacked(
                uint8(1), c.rollup, c.number, c.hubHeight, c.blockHash, c.stateRoot, c.outboxRoot, c.votesRoot
            )
        );
    }

    /// @notice Leaf of the hub's accumulator: a bundle is decided.
    function decisionLeaf(bytes32 id, bool committed, uint64 height) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(2), id, committed, height));
    }

    /// @notice Leaf of the hub's accumulator: a leg was prepared outside its bundle and is to be given back.
    function releaseLeaf(bytes32 id, uint64 rollup, uint8 leg) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(3), id, rollup, leg));
    }

    /// @notice Leaf of the hub's accumulator: a rollup has this chain id, and no other rollup has it.
    function rollupLeaf(uint64 rollup, uint64 chain) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(uint8(4), rollup, chain));
    }

    /// @notice A message's id, which is also its leaf in the source's outbox: keccak of its 226 bytes.
    function messageId(Message memory m) internal pure returns (bytes32) {
        // In two parts, since the compiler's stack does not hold all fields at once.
        return keccak256(
            bytes.concat(
                abi.encodePacked(
                    VERSION,
                    m.kind,
                    m.source,
                    m.sourceChain,
                    m.destination,
                    m.destinationChain,
                    m.index,
                    m.previous,
                    m.deadline,
                    m.gasLimit
                ),
                abi.encodePacked(m.sender, m.recipient, m.refund, m.value, m.received, m.payloadHash)
            )
        );
    }

    /// @notice Hash of what a leg does, and where. The rollup stands outside the hash of the terms: the hub, which knows only
    /// that one, makes this one itself, with the rollup whose votes it counts.
    function legHash(Leg calldata leg) internal pure returns (bytes32) {
        uint256 moves = leg.moves.length;
        uint256 calls = leg.calls.length;
        bytes32[] memory items = new bytes32[](moves + calls);
        for (uint256 i; i < moves; i++) {
            Move calldata m = leg.moves[i];
            items[i] = keccak256(abi.encodePacked(m.kind, m.token, m.amount, m.to, m.refund));
        }
        for (uint256 i; i < calls; i++) {
            Call calldata c = leg.calls[i];
            items[moves + i] = keccak256(abi.encodePacked(c.participant, c.gasLimit, keccak256(c.data)));
        }
        // Counts above 255 would be cut; AtomicVault allows 16 items.
        bytes32 terms = keccak256(abi.encodePacked(leg.signer, uint8(moves), uint8(calls), items));
        return keccak256(abi.encodePacked(leg.rollup, terms));
    }

    /// @notice A bundle's id.
    function bundleId(Bundle calldata b) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(VERSION, b.deadline, b.salt, uint8(b.legs.length), b.legs));
    }

    /// @notice An account of 20 bytes as messages carry it.
    function account(address a) internal pure returns (bytes32) {
        return bytes32(uint256(uint160(a)));
    }
}

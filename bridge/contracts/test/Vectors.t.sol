// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {Accumulator, Accumulators, Merkle} from "../src/Merkle.sol";
import {Bundle, Call, Checkpoint, Leg, Message, Move, Wire} from "../src/Wire.sol";
import {Hashes} from "./lib/Bundles.sol";
import {vm} from "./lib/Vm.sol";

/// The vectors that Rust has made (bridge/core/tests/it) are what the contracts make.
contract VectorsTest {
    using Accumulators for Accumulator;

    Accumulator private tree;
    Hashes private hashes = new Hashes();
    string private json;

    function path(string memory list, uint256 i, string memory field) private pure returns (string memory) {
        return string.concat(list, "[", vm.toString(i), "]", field);
    }

    function number(string memory key) private view returns (uint256) {
        return vm.parseJsonUint(json, key);
    }

    function number64(string memory key) private view returns (uint64) {
        return uint64(number(key));
    }

    function word(string memory key) private view returns (bytes32) {
        return vm.parseJsonBytes32(json, key);
    }

    function length(string memory list) private view returns (uint256 n) {
        while (vm.keyExistsJson(json, path(list, n, ""))) n++;
    }

    function rootFromPath(bytes32 leaf, uint64 index, uint64 count, bytes32[] calldata siblings)
        external
        pure
        returns (bool, bytes32)
    {
        return Merkle.rootFromPath(leaf, index, count, siblings);
    }

    function test_accumulator() external {
        json = vm.readFile("../../docs/specs/vectors/messages.json");
        bytes32[] memory leaves = vm.parseJsonBytes32Array(json, ".accumulator.leaves");
        bytes32[] memory roots = vm.parseJsonBytes32Array(json, ".accumulator.roots");
        vm.assertEq(leaves.length, 21);
        vm.assertEq(tree.sealedRoot(), roots[0]);
        for (uint256 i; i < leaves.length; i++) {
            tree.append(leaves[i]);
            vm.assertEq(tree.sealedRoot(), roots[i + 1]);
        }
        vm.assertEq(length(".accumulator.slots"), 3);
        for (uint256 i; i < 3; i++) {
            uint256 slot = number(path(".accumulator.slots", i, ".slot"));
            vm.assertEq(tree.partials[slot - 1], word(path(".accumulator.slots", i, ".value")));
        }
        uint256 proofs = length(".accumulator.proofs");
        vm.assertEq(proofs, 10);
        for (uint256 i; i < proofs; i++) {
            uint64 index = number64(path(".accumulator.proofs", i, ".index"));
            uint64 count = number64(path(".accumulator.proofs", i, ".count"));
            bytes32[] memory siblings = vm.parseJsonBytes32Array(json, path(".accumulator.proofs", i, ".path"));
            (bool fits, bytes32 root) = this.rootFromPath(leaves[index], index, count, siblings);
            vm.assertTrue(fits);
            vm.assertEq(Merkle.seal(count, root), word(path(".accumulator.proofs", i, ".root")));
        }
    }

    function test_messages() external {
        json = vm.readFile("../../docs/specs/vectors/messages.json");
        uint256 n = length(".messages");
        vm.assertEq(n, 4);
        for (uint256 i; i < n; i++) {
            string memory at_ = path(".messages", i, "");
            Message memory m;
            m.kind = uint8(number(string.concat(at_, ".kind")));
            m.source = number64(string.concat(at_, ".source"));
            m.sourceChain = number64(string.concat(at_, ".source_chain"));
            m.destination = number64(string.concat(at_, ".destination"));
            m.destinationChain = number64(string.concat(at_, ".destination_chain"));
            m.index = number64(string.concat(at_, ".index"));
            m.previous = number64(string.concat(at_, ".previous"));
            m.deadline = number64(string.concat(at_, ".deadline"));
            m.gasLimit = number64(string.concat(at_, ".gas_limit"));
            m.sender = word(string.concat(at_, ".sender"));
            m.recipient = word(string.concat(at_, ".recipient"));
            m.refund = word(string.concat(at_, ".refund"));
            m.value = uint128(number(string.concat(at_, ".value")));
            m.received = uint128(number(string.concat(at_, ".received")));
            m.payloadHash = keccak256(vm.parseJsonBytes(json, string.concat(at_, ".payload")));
            vm.assertEq(m.payloadHash, word(string.concat(at_, ".payload_hash")));
            vm.assertEq(Wire.messageId(m), word(string.concat(at_, ".id")));
            vm.assertEq(keccak256(vm.parseJsonBytes(json, string.concat(at_, ".encoded"))), Wire.messageId(m));
        }
    }

    function test_leaves_of_the_hub() external {
        json = vm.readFile("../../docs/specs/vectors/messages.json");
        Checkpoint memory c = Checkpoint(
            number64(".hub.rollup"),
            number64(".hub.number"),
            number64(".hub.hub_height"),
            word(".hub.block_hash"),
            word(".hub.state_root"),
            word(".hub.outbox_root"),
            word(".hub.votes_root")
        );
        bytes32 bundle = word(".hub.bundle");
        uint64 height = number64(".hub.height");
        vm.assertEq(Wire.checkpointLeaf(c), word(".hub.checkpoint.leaf"));
        vm.assertEq(Wire.decisionLeaf(bundle, true, height), word(".hub.commit.leaf"));
        vm.assertEq(Wire.decisionLeaf(bundle, false, height), word(".hub.abort.leaf"));
        vm.assertEq(Wire.releaseLeaf(bundle, c.rollup, uint8(number(".hub.leg"))), word(".hub.release.leaf"));
        vm.assertEq(Wire.rollupLeaf(c.rollup, number64(".hub.chain")), word(".hub.registered.leaf"));
    }

    function legAt(uint256 i) private view returns (Leg memory leg) {
        string memory at_ = path(".legs", i, "");
        leg.rollup = number64(string.concat(at_, ".rollup"));
        leg.signer = vm.parseJsonAddress(json, string.concat(at_, ".signer"));
        leg.moves = new Move[](length(string.concat(at_, ".moves")));
        leg.calls = new Call[](length(string.concat(at_, ".calls")));
        for (uint256 j; j < leg.moves.length; j++) {
            string memory move = path(string.concat(at_, ".moves"), j, "");
            leg.moves[j] = Move(
                uint8(number(string.concat(move, ".kind"))),
                vm.parseJsonAddress(json, string.concat(move, ".token")),
                number(string.concat(move, ".amount")),
                vm.parseJsonAddress(json, string.concat(move, ".to")),
                vm.parseJsonAddress(json, string.concat(move, ".refund"))
            );
        }
        for (uint256 j; j < leg.calls.length; j++) {
            string memory call = path(string.concat(at_, ".calls"), j, "");
            leg.calls[j] = Call(
                vm.parseJsonAddress(json, string.concat(call, ".participant")),
                number64(string.concat(call, ".gas_limit")),
                vm.parseJsonBytes(json, string.concat(call, ".data"))
            );
        }
    }

    function test_bundles() external {
        json = vm.readFile("../../docs/specs/vectors/bundles.json");
        vm.assertEq(length(".legs"), 3);
        for (uint256 i; i < 3; i++) {
            vm.assertEq(hashes.legHash(legAt(i)), word(path(".legs", i, ".hash")));
        }
        vm.assertEq(length(".bundles"), 3);
        for (uint256 i; i < 3; i++) {
            Bundle memory b = Bundle(
                number64(path(".bundles", i, ".deadline")),
                word(path(".bundles", i, ".salt")),
                vm.parseJsonBytes32Array(json, path(".bundles", i, ".legs"))
            );
            vm.assertEq(hashes.bundleId(b), word(path(".bundles", i, ".id")));
        }
    }

    /// No contract checks votes yet; one on a settlement chain could.
    function test_votes() external {
        json = vm.readFile("../../docs/specs/vectors/bundles.json");
        vm.assertEq(length(".votes"), 3);
        for (uint256 i; i < 3; i++) {
            string memory list = path(".votes", i, ".votes");
            Accumulator storage votes = accumulators[i];
            for (uint256 j; j < length(list); j++) {
                bytes32 hash = keccak256(
                    abi.encodePacked(
                        word(path(list, j, ".bundle")),
                        uint8(number(path(list, j, ".leg"))),
                        uint8(number(path(list, j, ".ballot")))
                    )
                );
                vm.assertEq(hash, word(path(list, j, ".hash")));
                votes.append(hash);
            }
            vm.assertEq(votes.count == 0 ? bytes32(0) : votes.sealedRoot(), word(path(".votes", i, ".root")));
        }
    }

    Accumulator[3] private accumulators;
}

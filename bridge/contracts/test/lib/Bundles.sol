// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {AtomicVault, IBundleParticipant} from "../../src/AtomicVault.sol";
import {VAULT} from "../../src/Predeploys.sol";
import {Bundle, Call, Leg, Move, Wire} from "../../src/Wire.sol";
import {HubProof} from "../../src/Hub.sol";
import {Base} from "./Base.sol";
import {burn} from "./Recipients.sol";
import {vm} from "./Vm.sol";

/// Hashes of calldata for tests that have the values in memory.
contract Hashes {
    function legHash(Leg calldata leg) external pure returns (bytes32) {
        return Wire.legHash(leg);
    }

    function bundleId(Bundle calldata bundle) external pure returns (bytes32) {
        return Wire.bundleId(bundle);
    }
}

/// Makes bundles of which one leg is on HERE, and decides them.
abstract contract Bundles is Base {
    Hashes internal hashes;
    uint256 private salt;

    struct Prepared {
        Bundle bundle;
        uint8 index;
        Leg leg;
        bytes32 id;
    }

    function emptyLeg(address signer, uint256 moves, uint256 calls) internal pure returns (Leg memory leg) {
        (leg.rollup, leg.signer, leg.moves, leg.calls) = (HERE, signer, new Move[](moves), new Call[](calls));
    }

    /// A bundle of `legs` legs, of which `leg` is the one at `index`.
    function bundleOf(Leg memory leg, uint8 index, uint256 legs) internal returns (Prepared memory p) {
        p.bundle = Bundle(1000, bytes32(++salt), new bytes32[](legs));
        for (uint256 i; i < legs; i++) {
            p.bundle.legs[i] = i == index ? hashes.legHash(leg) : keccak256(abi.encode("other leg", i));
        }
        (p.index, p.leg, p.id) = (index, leg, hashes.bundleId(p.bundle));
    }

    function coinOf(Leg memory leg) internal pure returns (uint256 coin) {
        for (uint256 i; i < leg.moves.length; i++) {
            if (leg.moves[i].kind == Wire.COIN) coin += leg.moves[i].amount;
        }
    }

    function prepare(Prepared memory p) internal {
        vm.prank(p.leg.signer);
        VAULT.prepare{value: coinOf(p.leg)}(p.bundle, p.index, p.leg);
    }

    /// The bundle with `leg` alone worth looking at, prepared.
    function prepared(Leg memory leg) internal returns (Prepared memory p) {
        p = bundleOf(leg, 0, 2);
        prepare(p);
    }

    function decide(bytes32 id, bool committed) internal returns (HubProof memory) {
        return hubProof(hubAppend(Wire.decisionLeaf(id, committed, 500)));
    }

    function settle(Prepared memory p, bool committed) internal {
        settle(p, committed, type(uint16).max);
    }

    function settle(Prepared memory p, bool committed, uint16 items) internal {
        HubProof memory proof = decide(p.id, committed);
        AtomicVault.Decision decision = committed ? AtomicVault.Decision.Commit : AtomicVault.Decision.Abort;
        VAULT.settle(p.bundle, p.index, p.leg, decision, 500, proof, items);
    }

    function stateOf(Prepared memory p) internal view returns (AtomicVault.Status status, uint16 held) {
        return VAULT.states(p.id, p.index);
    }
}

/// Takes part, and fails as it is told to.
contract Participant is IBundleParticipant {
    enum How {
        No,
        Revert,
        AllGas,
        ReturnBomb,
        Hungry
    }

    How public how;
    uint256 public commits;
    uint256 public aborts;
    bytes32 public lastKey;
    address public lastSigner;
    bytes public lastData;
    address private target;
    bytes private action;
    bool public refused;
    bytes public reason;

    function fail(How how_) external {
        how = how_;
    }

    function arm(address target_, bytes calldata action_) external {
        (target, action) = (target_, action_);
    }

    function prepare(bytes32 id, uint8 leg, uint8 item, address signer, bytes calldata data) external returns (bytes4) {
        act();
        if (how != How.No) return bytes4(0);
        (lastKey, lastSigner, lastData) = (keccak256(abi.encode(id, leg, item)), signer, data);
        return IBundleParticipant.prepare.selector;
    }

    function commit(bytes32 id, uint8 leg, uint8 item) external {
        act();
        (commits, lastKey) = (commits + 1, keccak256(abi.encode(id, leg, item)));
    }

    function abort(bytes32 id, uint8 leg, uint8 item) external {
        act();
        (aborts, lastKey) = (aborts + 1, keccak256(abi.encode(id, leg, item)));
    }

    function act() private {
        if (target != address(0)) {
            bool ok;
            (ok, reason) = target.call(action);
            refused = !ok;
        }
        require(how != How.Revert);
        require(how != How.Hungry || gasleft() > 500_000);
        if (how == How.AllGas) burn();
        if (how == How.ReturnBomb) {
            assembly {
                revert(0, 500000)
            }
        }
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

import {Probe} from "../src/Probe.sol";

interface Vm {
    function startBroadcast() external;
    function stopBroadcast() external;
}

/// Deploys a probe and uses it: five transactions that depend on each other.
contract Deploy {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    function run() external returns (Probe probe) {
        vm.startBroadcast();
        probe = new Probe(1000);
        for (uint256 key = 1; key <= 3; key++) {
            require(probe.set(key, key * 10) == key, "count");
        }
        (bool paid,) = address(probe).call{value: 3}("");
        require(paid, "paid");
        vm.stopBroadcast();
    }
}

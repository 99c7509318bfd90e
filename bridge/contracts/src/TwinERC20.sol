// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Bridgeable} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC20Bridgeable.sol";
import {BRIDGE, HUB} from "./Predeploys.sol";

/// @title A token that is itself on every rollup (reference; ERC-7802)
/// @notice To be deployed at one address everywhere: by one CREATE2 factory, with the same arguments. The supply is issued on
/// the home rollup; elsewhere there is what the bridge has minted.
contract TwinERC20 is ERC20, ERC20Bridgeable {
    /// @notice The rollup on which the supply was issued.
    uint64 public immutable homeRollup;

    error NotBridge(address caller);

    constructor(string memory name, string memory symbol, uint64 home, address holder, uint256 supply)
        ERC20(name, symbol)
    {
        homeRollup = home;
        if (HUB.rollup() == home) _mint(holder, supply);
    }

    function _checkTokenBridge(address caller) internal pure override {
        require(caller == address(BRIDGE), NotBridge(caller));
    }
}

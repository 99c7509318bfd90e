// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Bridgeable} from "@openzeppelin/contracts/token/ERC20/extensions/draft-ERC20Bridgeable.sol";
import {BRIDGE} from "./Predeploys.sol";

/// @title Stands, on one rollup, for a plain ERC-20 token of another one (ERC-7802)
/// @notice Each is a minimal proxy (ERC-1167) of the one in the genesis, made by {TokenBridge}, which alone mints and burns.
contract BridgedERC20 is ERC20, ERC20Bridgeable {
    bytes32 private _shortName;
    bytes32 private _shortSymbol;
    uint8 private _decimals;

    error NotBridge(address caller);

    constructor() ERC20("", "") {}

    /// @notice What it is called, once, by the bridge. Up to 32 bytes, padded with zeros.
    function initialize(bytes32 shortName, bytes32 shortSymbol, uint8 decimals_) external {
        _checkTokenBridge(msg.sender);
        (_shortName, _shortSymbol, _decimals) = (shortName, shortSymbol, decimals_);
    }

    /// @inheritdoc ERC20
    function name() public view override returns (string memory) {
        return _text(_shortName);
    }

    /// @inheritdoc ERC20
    function symbol() public view override returns (string memory) {
        return _text(_shortSymbol);
    }

    /// @inheritdoc ERC20
    function decimals() public view override returns (uint8) {
        return _decimals;
    }

    function _checkTokenBridge(address caller) internal pure override {
        require(caller == address(BRIDGE), NotBridge(caller));
    }

    function _text(bytes32 padded) private pure returns (string memory) {
        uint256 length;
        while (length < 32 && padded[length] != 0) length++;
        bytes memory text = new bytes(length);
        for (uint256 i; i < length; i++) {
            text[i] = padded[i];
        }
        return string(text);
    }
}

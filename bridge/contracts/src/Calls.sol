// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

/// @title Calls to contracts that may be hostile
library Calls {
    /// Gas kept for the call itself (value, a new account: at most 36,600) and for what the caller does afterwards.
    uint256 internal constant RESERVE = 60_000;

    /// @notice There is too little gas to give the callee what it was promised, so nothing was tried.
    error NotEnoughGas(uint256 promised);

    /// @notice Calls `target` with `gasLimit` gas, no less (EIP-150 would quietly give less) and no more.
    /// @dev Copies at most 32 bytes of what comes back, whatever the callee returns.
    /// @return ok whether the call succeeded
    /// @return size number of bytes that came back
    /// @return word the first 32 of them, padded with zeros
    function attempt(address target, uint256 value, uint256 gasLimit, bytes memory data)
        internal
        returns (bool ok, uint256 size, bytes32 word)
    {
        // At most 63/64 of what is left after the costs of the call go to the callee.
        require((gasleft() * 63) / 64 >= gasLimit + RESERVE, NotEnoughGas(gasLimit));
        assembly ("memory-safe") {
            mstore(0x00, 0)
            ok := call(gasLimit, target, value, add(data, 0x20), mload(data), 0x00, 0x20)
            size := returndatasize()
            word := mload(0x00)
        }
    }
}

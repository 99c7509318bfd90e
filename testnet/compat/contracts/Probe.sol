// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

/// Something to deploy, call, watch and be refused by.
contract Probe {
    event Set(address indexed by, uint256 indexed key, uint256 value);
    event Received(address indexed from, uint256 amount);

    error AboveLimit(uint256 value, uint256 limit);

    uint256 public count;
    mapping(uint256 => uint256) public values;
    uint256 public immutable limit;

    constructor(uint256 limit_) payable {
        limit = limit_;
    }

    function set(uint256 key, uint256 value) external returns (uint256) {
        require(key != 0, "key is zero");
        if (value > limit) revert AboveLimit(value, limit);
        values[key] = value;
        emit Set(msg.sender, key, value);
        return ++count;
    }

    function divide(uint256 a, uint256 b) external pure returns (uint256) {
        return a / b;
    }

    receive() external payable {
        emit Received(msg.sender, msg.value);
    }
}

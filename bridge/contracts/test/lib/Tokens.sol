// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {burn} from "./Recipients.sol";

contract PlainToken is ERC20 {
    uint8 private immutable _decimals;

    constructor(string memory name, string memory symbol, uint8 decimals_) ERC20(name, symbol) {
        _decimals = decimals_;
    }

    function decimals() public view override returns (uint8) {
        return _decimals;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}

/// Keeps one of what is transferred.
contract FeeToken is PlainToken("Fee", "FEE", 18) {
    function _update(address from, address to, uint256 amount) internal override {
        if (from == address(0)) return super._update(from, to, amount);
        super._update(from, address(this), 1);
        super._update(from, to, amount - 1);
    }
}

/// Returns nothing from transfers, as some old tokens do, and has bytes32 for a name and no decimals.
contract OldToken {
    mapping(address who => uint256) public balanceOf;
    bytes32 public constant name = "Old";

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function transfer(address to, uint256 amount) external {
        balanceOf[msg.sender] -= amount;
        balanceOf[to] += amount;
    }

    function transferFrom(address from, address to, uint256 amount) external {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// Does something else, once, while it is transferred; can be told to refuse, to lie, and to burn gas.
contract HostileToken is PlainToken("Hostile", "HOS", 18) {
    address private target;
    bytes private action;
    bool public refused;
    uint8 public mood;

    function arm(address target_, bytes calldata action_) external {
        (target, action) = (target_, action_);
    }

    /// 0 behaves, 1 refuses, 2 returns false, 3 burns all gas, 4 returns a megabyte, 5 wants 500,000 gas.
    function setMood(uint8 mood_) external {
        mood = mood_;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (from != address(0) && target != address(0)) {
            address t = target;
            target = address(0);
            (bool ok,) = t.call(action);
            refused = !ok;
        }
        super._update(from, to, amount);
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        require(mood != 1);
        if (mood == 2) return false;
        require(mood != 5 || gasleft() > 500_000);
        if (mood == 3) burn();
        if (mood == 4) {
            assembly {
                return(0, 1000000)
            }
        }
        return super.transfer(to, amount);
    }
}

contract Collectible is ERC721("Collectible", "COL") {
    function mint(address to, uint256 id) external {
        _mint(to, id);
    }
}

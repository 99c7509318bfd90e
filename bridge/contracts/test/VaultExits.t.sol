// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {AtomicVault} from "../src/AtomicVault.sol";
import {Calls} from "../src/Calls.sol";
import {VAULT} from "../src/Predeploys.sol";
import {Leg, Move, Wire} from "../src/Wire.sol";
import {Bundles, Hashes} from "./lib/Bundles.sol";
import {burn} from "./lib/Recipients.sol";
import {Collectible, PlainToken} from "./lib/Tokens.sol";
import {vm} from "./lib/Vm.sol";

/// Says something of itself, or fails to.
contract Talker is PlainToken("Talker", "TLK", 6) {
    enum How {
        Yes,
        No,
        AllGas,
        LongAnswer,
        ShortAnswer
    }

    How private how;

    function say(How how_) external {
        how = how_;
    }

    function supportsInterface(bytes4 id) external view returns (bool) {
        if (how == How.AllGas) burn();
        bytes32 size = how == How.ShortAnswer ? bytes32(uint256(31)) : bytes32(uint256(1_000_000));
        if (how > How.AllGas) {
            assembly {
                mstore(0, not(0))
                return(0, size)
            }
        }
        return (id == 0x80ac58cd) == (how == How.Yes);
    }
}

/// What could come into the vault and not out again does not come in.
contract VaultExitsTest is Bundles {
    address private immutable alice = account("alice");
    address private immutable bob = account("bob");
    Talker private gold;
    Collectible private art;

    function setUp() external {
        install(HERE);
        hashes = new Hashes();
        gold = new Talker();
        gold.say(Talker.How.No);
        art = new Collectible();
        vm.deal(alice, 1000);
        gold.mint(alice, 1000);
        art.mint(alice, 1);
        vm.startPrank(alice);
        gold.approve(address(VAULT), type(uint256).max);
        art.setApprovalForAll(address(VAULT), true);
        vm.stopPrank();
    }

    /// One of each kind.
    function moveOf(uint8 kind) private view returns (Move memory) {
        address[3] memory tokens = [address(0), address(gold), address(art)];
        return Move(kind, tokens[kind], 1, bob, alice);
    }

    function bundleOf(Move memory m) private returns (Prepared memory) {
        Leg memory leg = emptyLeg(alice, 1, 0);
        leg.moves[0] = m;
        return bundleOf(leg, 0, 2);
    }

    function refuse(Move memory m, bytes memory reason) private {
        Prepared memory p = bundleOf(m);
        uint256 value = coinOf(p.leg);
        vm.prank(alice);
        vm.expectRevert(reason);
        VAULT.prepare{value: value}(p.bundle, p.index, p.leg);
    }

    function noExits() private pure returns (address[2] memory) {
        return [address(0), address(VAULT)];
    }

    function badReceiver(address receiver) private pure returns (bytes memory) {
        return abi.encodeWithSelector(AtomicVault.BadReceiver.selector, receiver);
    }

    function test_nothing_is_taken_for_the_zero_account_or_the_vault_itself() external {
        for (uint8 kind; kind < 3; kind++) {
            for (uint256 i; i < 2; i++) {
                address none = noExits()[i];
                Move memory m = moveOf(kind);
                m.to = none;
                refuse(m, badReceiver(none));
                m = moveOf(kind);
                m.refund = none;
                refuse(m, badReceiver(none));
            }
            prepare(bundleOf(moveOf(kind)));
        }
    }

    function test_nothing_is_redirected_to_the_zero_account_or_the_vault_itself() external {
        for (uint8 kind; kind < 3; kind++) {
            Prepared memory p = bundleOf(moveOf(kind));
            prepare(p);
            settle(p, true, 0);
            for (uint256 i; i < 2; i++) {
                vm.prank(bob);
                vm.expectRevert(badReceiver(noExits()[i]));
                VAULT.redirect(p.bundle, 0, p.leg, 0, noExits()[i], 0);
            }
            (, uint16 held) = stateOf(p);
            vm.assertEq(held, 1);
            vm.prank(bob);
            VAULT.redirect(p.bundle, 0, p.leg, 0, alice, 0);
        }
        vm.assertEq(alice.balance, 1000);
        vm.assertEq(gold.balanceOf(alice), 1000);
        vm.assertEq(art.ownerOf(1), alice);
    }

    /// The number of its tokens grows by one, as the amount says, and `transfer` does not exist.
    function test_a_collection_is_not_taken_for_an_erc20() external {
        Move memory m = moveOf(Wire.ERC721);
        m.kind = Wire.ERC20;
        refuse(m, abi.encodeWithSelector(AtomicVault.NotERC20.selector, address(art)));
        gold.say(Talker.How.Yes);
        refuse(moveOf(Wire.ERC20), abi.encodeWithSelector(AtomicVault.NotERC20.selector, address(gold)));
    }

    /// An answer that does not come for want of gas is none.
    function test_a_collection_is_not_taken_for_an_erc20_with_little_gas() external {
        Move memory m = moveOf(Wire.ERC721);
        m.kind = Wire.ERC20;
        Prepared memory p = bundleOf(m);
        for (uint256 gas = 40_000; gas < 400_000; gas += 5_000) {
            vm.prank(alice);
            (bool ok,) = address(VAULT).call{gas: gas}(abi.encodeCall(AtomicVault.prepare, (p.bundle, p.index, p.leg)));
            vm.assertTrue(!ok);
        }
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(Calls.NotEnoughGas.selector, 30_000));
        VAULT.prepare{gas: 110_000}(p.bundle, p.index, p.leg);
    }

    function test_a_token_that_does_not_say_what_it_is_is_taken() external {
        for (uint8 how = uint8(Talker.How.AllGas); how <= uint8(Talker.How.ShortAnswer); how++) {
            gold.say(Talker.How(how));
            Prepared memory p = bundleOf(moveOf(Wire.ERC20));
            prepare(p);
            settle(p, true);
        }
        vm.assertEq(gold.balanceOf(bob), 3);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {VAULT} from "../src/Predeploys.sol";
import {SwapPool} from "../src/SwapPool.sol";
import {Call, Leg} from "../src/Wire.sol";
import {Bundles, Hashes} from "./lib/Bundles.sol";
import {PlainToken} from "./lib/Tokens.sol";
import {vm, within} from "./lib/Vm.sol";

/// Does not pay one account.
contract Picky is PlainToken("Picky", "PCK", 18) {
    address public constant REFUSED = address(0xbad);

    function _update(address from, address to, uint256 amount) internal override {
        require(to != REFUSED);
        super._update(from, to, amount);
    }
}

contract SwapPoolTest is Bundles {
    address private immutable alice = account("alice");
    address private immutable bob = account("bob");
    PlainToken private gold;
    PlainToken private iron;
    SwapPool private pool;

    function setUp() external {
        install(HERE);
        hashes = new Hashes();
        gold = new PlainToken("Gold", "GLD", 18);
        iron = new PlainToken("Iron", "IRN", 18);
        pool = new SwapPool(gold, iron, address(this));
        PlainToken[2] memory both = [gold, iron];
        for (uint256 i; i < 2; i++) {
            both[i].mint(address(this), 1e9);
            both[i].approve(address(pool), type(uint256).max);
            both[i].mint(alice, 1e12);
            vm.prank(alice);
            both[i].approve(address(pool), type(uint256).max);
        }
        pool.add(1e6, 4e6);
    }

    function swap(PlainToken tokenIn, uint256 amount, uint256 least) private returns (Prepared memory p) {
        Leg memory leg = emptyLeg(alice, 0, 1);
        leg.calls[0] = Call(address(pool), 300_000, abi.encode(tokenIn, amount, least, bob));
        p = bundleOf(leg, 0, 2);
    }

    function most(PlainToken token) private view returns (uint256 m) {
        (, m) = pool.reserves(token);
    }

    function test_a_pool_has_two_tokens() external {
        vm.expectRevert(abi.encodeWithSelector(SwapPool.SameTokens.selector, gold));
        new SwapPool(gold, gold, address(this));
    }

    function test_a_swap_is_reserved_then_paid_out() external {
        uint256 out = pool.quote(gold, 1000);
        vm.assertEq(out, uint256(4e6) * 997_000 / (1e9 + 997_000));
        Prepared memory p = swap(gold, 1000, out);
        prepare(p);
        vm.assertEq(iron.balanceOf(bob), 0);
        vm.assertEq(gold.balanceOf(address(pool)), 1e6 + 1000);
        settle(p, true);
        vm.assertEq(iron.balanceOf(bob), out);
        vm.assertEq(gold.balanceOf(alice), 1e12 - 1000);
        // The vault does not tell it twice; if it did:
        vm.prank(address(VAULT));
        vm.expectRevert(SwapPool.NoReservation.selector);
        pool.abort(p.id, 0, 0);
    }

    function test_a_swap_that_is_aborted_leaves_no_trace() external {
        uint256 before = pool.quote(gold, 1000);
        Prepared memory p = swap(gold, 1000, 0);
        prepare(p);
        vm.assertTrue(pool.quote(gold, 1000) < before);
        settle(p, false);
        vm.assertEq(gold.balanceOf(alice), 1e12);
        vm.assertEq(pool.quote(gold, 1000), before);
    }

    /// A swap for an account that the token does not pay (here, zero) ends like any other.
    function test_a_receiver_that_cannot_be_paid_does_not_keep_the_reservation() external {
        Leg memory leg = emptyLeg(alice, 0, 1);
        leg.calls[0] = Call(address(pool), 300_000, abi.encode(gold, 1000, 0, address(0)));
        Prepared memory p = bundleOf(leg, 0, 2);
        uint256 out = pool.quote(gold, 1000);
        prepare(p);
        settle(p, true);
        (, uint16 held) = stateOf(p);
        vm.assertEq(held, 0);
        vm.assertEq(pool.owed(iron, address(0)), out);
        (uint256 least, uint256 all) = pool.reserves(gold);
        vm.assertEq(least, 1e6 + 1000);
        vm.assertEq(all, least);
    }

    function test_what_is_owed_can_be_claimed_once() external {
        PlainToken picky = new Picky();
        SwapPool other = new SwapPool(picky, iron, address(this));
        picky.mint(address(this), 1e6);
        picky.approve(address(other), 1e6);
        iron.approve(address(other), 1e6);
        other.add(1e6, 1e6);
        vm.prank(alice);
        iron.approve(address(other), 1000);
        Leg memory leg = emptyLeg(alice, 0, 1);
        leg.calls[0] = Call(address(other), 300_000, abi.encode(iron, 1000, 0, Picky(address(picky)).REFUSED()));
        Prepared memory p = bundleOf(leg, 0, 2);
        prepare(p);
        settle(p, true);
        uint256 due = other.owed(picky, address(0xbad));
        vm.assertTrue(due > 900);
        for (uint256 i; i < 2; i++) {
            vm.prank(address(0xbad));
            other.claim(picky, bob);
        }
        vm.assertEq(picky.balanceOf(bob), due);
    }

    function test_a_price_that_has_moved_makes_the_leg_vote_no() external {
        Prepared memory p = swap(gold, 1000, pool.quote(gold, 1000));
        prepare(swap(gold, 10, 0));
        vm.prank(alice);
        vm.expectPartialRevert(SwapPool.TooLittleOut.selector);
        VAULT.prepare(p.bundle, 0, p.leg);
    }

    function test_what_is_reserved_is_neither_sold_again_nor_taken_out() external {
        prepare(swap(gold, 1e12, 0));
        (uint256 least,) = pool.reserves(iron);
        vm.assertLe(least, 10);
        Prepared memory p = swap(gold, 1, 0);
        vm.prank(alice);
        vm.expectPartialRevert(SwapPool.TooLittleOut.selector);
        VAULT.prepare(p.bundle, 0, p.leg);
        vm.expectRevert();
        pool.remove(0, least + 1);
        pool.remove(0, least);
    }

    function test_only_the_vault_swaps_and_only_the_owner_adds_and_takes() external {
        vm.startPrank(alice);
        vm.expectPartialRevert(SwapPool.NotVault.selector);
        pool.prepare(0, 0, 0, alice, "");
        vm.expectPartialRevert(SwapPool.NotVault.selector);
        pool.commit(0, 0, 0);
        vm.expectPartialRevert(SwapPool.NotVault.selector);
        pool.abort(0, 0, 0);
        vm.expectPartialRevert(SwapPool.NotOwner.selector);
        pool.add(1, 1);
        vm.expectPartialRevert(SwapPool.NotOwner.selector);
        pool.remove(1, 1);
        vm.stopPrank();
        vm.startPrank(address(VAULT));
        vm.expectRevert(SwapPool.NoReservation.selector);
        pool.commit(0, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(SwapPool.NotInPool.selector, bob));
        pool.prepare(0, 0, 0, alice, abi.encode(bob, 1, 0, bob));
        vm.stopPrank();
    }

    /// Any swaps, in both directions, decided in any order and either way: the product of the reserves never falls, and the pool
    /// holds exactly what it counts.
    function testFuzz_the_product_never_falls(uint256 seed) external {
        uint256 product = most(gold) * most(iron);
        Prepared[] memory all = new Prepared[](8);
        uint256 n;
        for (uint256 i; i < 24; i++) {
            uint256 r = uint256(keccak256(abi.encode(seed, i)));
            if (n < 8 && r % 2 == 0) {
                uint256 amount = within(r >> 8, 1, 3e6);
                Prepared memory p = swap(r % 4 < 2 ? gold : iron, amount, 0);
                vm.prank(alice);
                try VAULT.prepare(p.bundle, 0, p.leg) {
                    all[n++] = p;
                } catch {}
            } else if (n > 0) {
                uint256 pick = (r >> 8) % n;
                settle(all[pick], (r >> 64) % 2 == 0);
                all[pick] = all[--n];
            }
            vm.assertEq(gold.balanceOf(address(pool)), most(gold));
            vm.assertEq(iron.balanceOf(address(pool)), most(iron));
        }
        while (n > 0) settle(all[--n], uint256(keccak256(abi.encode(seed, n))) % 2 == 0);
        vm.assertGe(most(gold) * most(iron), product);
        (uint256 least, uint256 all_) = pool.reserves(gold);
        vm.assertEq(least, all_);
    }
}

// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity 0.8.37;

import {AtomicVault} from "../src/AtomicVault.sol";
import {HubProof} from "../src/Hub.sol";
import {VAULT} from "../src/Predeploys.sol";
import {Bundle, Leg, Move, Wire} from "../src/Wire.sol";
import {Hashes} from "./lib/Bundles.sol";
import {Network} from "./lib/Network.sol";
import {Refuser} from "./lib/Recipients.sol";
import {HostileToken} from "./lib/Tokens.sol";
import {vm, within} from "./lib/Vm.sol";

/// Bundles of a leg on each of two rollups, which the hub decides by its rule (docs/specs/bundles.md), while users do what they can.
contract SwapsHandler is Network {
    uint256 internal constant WEALTH = 1e9;

    struct Deal {
        /// The bundle and its two legs, as bytes: structures of calldata do not go into storage.
        bytes terms;
        bytes32 id;
        /// On the hub: none, open, committed or aborted.
        AtomicVault.Status status;
        /// Of each leg: whether its own transaction was executed, and said yes.
        bool[2] heard;
        bool[2] yes;
        uint64 decision;
        /// One more than the index of each leg's release; 0 for none.
        uint64[2] releases;
    }

    Deal[] private deals;
    Hashes private hashes = new Hashes();
    HostileToken private gold = new HostileToken();
    address[3] private users;
    uint256 public commits;
    uint256 public aborts;
    uint256 public released;
    uint256 public redirected;
    uint256 public refused;

    constructor() {
        start();
        // The last one takes no coin, ever.
        users = [account("user 0"), account("user 1"), address(new Refuser())];
        separate(address(gold));
        for (uint256 i; i < 3; i++) {
            separate(users[i]);
        }
        for (uint64 rollup = A; rollup <= B; rollup++) {
            enter(rollup);
            for (uint256 i; i < 3; i++) {
                vm.deal(users[i], WEALTH);
                gold.mint(users[i], WEALTH);
                vm.prank(users[i]);
                gold.approve(address(VAULT), type(uint256).max);
            }
            depart();
        }
    }

    function termsOf(Deal storage d, uint256 leg) private view returns (Bundle memory bundle, Leg memory terms) {
        Leg[2] memory legs;
        (bundle, legs) = abi.decode(d.terms, (Bundle, Leg[2]));
        return (bundle, legs[leg]);
    }

    function rollupOf(uint256 leg) private pure returns (uint64) {
        return leg == 0 ? A : B;
    }

    function isNobody(address who) private pure returns (bool) {
        return who == address(0) || who == address(VAULT);
    }

    /// One time in `odds` somebody who can never be paid.
    function receiver(uint256 seed, uint256 odds) private view returns (address) {
        if (seed % odds == 0) return (seed >> 32) % 2 == 0 ? address(0) : address(VAULT);
        return users[(seed >> 32) % 3];
    }

    function agree(uint256 seed) public {
        Leg[2] memory legs;
        Bundle memory bundle = Bundle(100, bytes32(deals.length), new bytes32[](2));
        for (uint256 i; i < 2; i++) {
            (legs[i].rollup, legs[i].signer) = (rollupOf(i), users[(seed >> (8 * i)) % 3]);
            legs[i].moves = new Move[](1 + (seed >> (16 + i)) % 2);
            for (uint256 j; j < legs[i].moves.length; j++) {
                uint256 r = uint256(keccak256(abi.encode(seed, i, j)));
                legs[i].moves[j] = Move(
                    r % 2 == 0 ? Wire.COIN : Wire.ERC20,
                    r % 2 == 0 ? address(0) : address(gold),
                    within(r >> 8, 1, 1000),
                    receiver(r >> 32, 30),
                    receiver(r >> 128, 30)
                );
            }
            bundle.legs[i] = hashes.legHash(legs[i]);
        }
        Deal storage d = deals.push();
        (d.terms, d.id) = (abi.encode(bundle, legs), hashes.bundleId(bundle));
    }

    /// A leg's own transaction, or another one that does the same, which the hub counts as a stray; now and then with too much coin.
    function prepareLeg(uint256 pick, uint256 seed) public {
        if (deals.length == 0) return;
        Deal storage d = deals[pick % deals.length];
        uint8 leg = uint8(seed % 2);
        (Bundle memory bundle, Leg memory terms) = termsOf(d, leg);
        uint256 coin = (seed >> 16) % 8 == 0 ? 1 : 0;
        bool good = coin == 0;
        for (uint256 i; i < terms.moves.length; i++) {
            Move memory m = terms.moves[i];
            if (m.kind == Wire.COIN) coin += m.amount;
            if (isNobody(m.to) || isNobody(m.refund)) {
                (good, refused) = (false, refused + 1);
            }
        }
        enter(rollupOf(leg));
        (AtomicVault.Status before,) = VAULT.states(d.id, leg);
        vm.prank(terms.signer);
        bool ok;
        try VAULT.prepare{value: coin}(bundle, leg, terms) {
            ok = true;
        } catch {}
        depart();
        vm.assertTrue(ok == (good && before == AtomicVault.Status.None), "prepare");
        hear(d, leg, ok, (seed >> 8) % 8 == 0);
    }

    /// The hub's rule: commit when every leg's own transaction has said yes, abort at the first no or stray of an open bundle.
    function hear(Deal storage d, uint8 leg, bool ok, bool alone) private {
        if (alone || d.heard[leg]) {
            if (!ok) return;
            vm.assertTrue(d.status != AtomicVault.Status.Committed, "a stray of what is committed");
            if (d.status == AtomicVault.Status.Prepared) decide(d, false);
            else d.releases[leg] = 1 + hubAppend(Wire.releaseLeaf(d.id, rollupOf(leg), leg));
            return;
        }
        if (d.status == AtomicVault.Status.None) d.status = AtomicVault.Status.Prepared;
        (d.heard[leg], d.yes[leg]) = (true, ok);
        if (d.status != AtomicVault.Status.Prepared) return;
        if (!ok) decide(d, false);
        else if (d.yes[0] && d.yes[1]) decide(d, true);
    }

    function decide(Deal storage d, bool committed) private {
        d.status = committed ? AtomicVault.Status.Committed : AtomicVault.Status.Aborted;
        d.decision = hubAppend(Wire.decisionLeaf(d.id, committed, 42));
    }

    /// The deadline of an open bundle.
    function expireDeal(uint256 pick) public {
        if (deals.length == 0) return;
        Deal storage d = deals[pick % deals.length];
        if (d.status == AtomicVault.Status.Prepared) decide(d, false);
    }

    /// What the hub says of a leg, brought by anyone; or something else with the same proof, which must be refused.
    function settleLeg(uint256 pick, uint256 seed) public {
        if (deals.length == 0) return;
        Deal storage d = deals[pick % deals.length];
        uint8 leg = uint8(seed % 2);
        bool decided = d.status > AtomicVault.Status.Prepared;
        bool release = d.releases[leg] > 0 && (!decided || (seed >> 8) % 2 == 0);
        if (!decided && !release) return;
        AtomicVault.Decision decision = release
            ? AtomicVault.Decision.Release
            : d.status == AtomicVault.Status.Committed ? AtomicVault.Decision.Commit : AtomicVault.Decision.Abort;
        bool lie = (seed >> 16) % 4 == 0;
        if (lie) decision = AtomicVault.Decision((uint8(decision) + 1 + (seed >> 24) % 2) % 3);
        uint64 leaf = release ? d.releases[leg] - 1 : d.decision;
        (AtomicVault.Status before, bool ok) = trySettle(d, leg, decision, leaf, uint16(seed >> 32));
        vm.assertTrue(ok == (!lie && before == AtomicVault.Status.Prepared), "settle");
        if (!ok) return;
        if (release) released++;
        else if (d.status == AtomicVault.Status.Committed) commits++;
        else aborts++;
    }

    function trySettle(Deal storage d, uint8 leg, AtomicVault.Decision decision, uint64 leaf, uint16 items)
        private
        returns (AtomicVault.Status before, bool ok)
    {
        (Bundle memory bundle, Leg memory terms) = termsOf(d, leg);
        enter(rollupOf(leg));
        (before,) = VAULT.states(d.id, leg);
        HubProof memory proof = hubProof(leaf);
        try VAULT.settle(bundle, leg, terms, decision, 42, proof, items) {
            ok = true;
        } catch {}
        depart();
    }

    function retryLeg(uint256 pick, uint256 seed) public {
        if (deals.length == 0) return;
        Deal storage d = deals[pick % deals.length];
        uint8 leg = uint8(seed % 2);
        (Bundle memory bundle, Leg memory terms) = termsOf(d, leg);
        enter(rollupOf(leg));
        (AtomicVault.Status status,) = VAULT.states(d.id, leg);
        bool ok;
        try VAULT.retry(bundle, leg, terms, uint16(seed >> 8), 0) {
            ok = true;
        } catch {}
        depart();
        vm.assertTrue(ok == (status > AtomicVault.Status.Prepared), "retry");
    }

    function redirectItem(uint256 pick, uint256 seed) public {
        if (deals.length == 0) return;
        redirect(
            deals[pick % deals.length],
            uint8(seed % 2),
            uint8((seed >> 8) % 2),
            users[(seed >> 16) % 3],
            receiver(seed >> 24, 3)
        );
    }

    function redirect(Deal storage d, uint8 leg, uint8 item, address caller, address to) private {
        (Bundle memory bundle, Leg memory terms) = termsOf(d, leg);
        enter(rollupOf(leg));
        (AtomicVault.Status status, uint16 held) = VAULT.states(d.id, leg);
        vm.prank(caller);
        bool ok;
        try VAULT.redirect(bundle, leg, terms, item, to, 0) {
            ok = true;
        } catch {}
        depart();
        if (!ok) return;
        Move memory m = terms.moves[item];
        vm.assertTrue(caller == (status == AtomicVault.Status.Committed ? m.to : m.refund), "not theirs");
        vm.assertTrue(status > AtomicVault.Status.Prepared && (held >> item) & 1 == 1 && !isNobody(to), "redirect");
        redirected++;
    }

    /// On one of the rollups the token refuses, lies or behaves.
    function spoil(uint256 seed) public {
        enter(rollupOf(seed % 2));
        gold.setMood(uint8((seed >> 8) % 3));
        depart();
    }

    /// Tokens behave again. What is open ends, every leg is settled, and who cannot receive sends on what is theirs.
    function finish() external {
        for (uint256 leg; leg < 2; leg++) {
            spoil(leg);
        }
        for (uint256 i; i < deals.length; i++) {
            expireDeal(i);
            for (uint8 leg; leg < 2; leg++) {
                settleLeg(i, 0xffff00010000 + leg);
                retryLeg(i, 0xffff00 + leg);
                (, Leg memory terms) = termsOf(deals[i], leg);
                for (uint256 j; j < 2 * terms.moves.length; j++) {
                    redirect(deals[i], leg, uint8(j / 2), users[2], users[0]);
                }
            }
        }
    }

    /// Nothing is held any more, and what is committed is so on both.
    function checkEnd() external {
        for (uint256 i; i < deals.length; i++) {
            for (uint8 leg; leg < 2; leg++) {
                enter(rollupOf(leg));
                (AtomicVault.Status status, uint16 held) = VAULT.states(deals[i].id, leg);
                depart();
                vm.assertEq(held, 0, "no exit");
                vm.assertTrue(status != AtomicVault.Status.Prepared, "undecided");
                bool committed = deals[i].status == AtomicVault.Status.Committed;
                vm.assertTrue(committed == (status == AtomicVault.Status.Committed), "not everywhere, not nowhere");
            }
        }
    }

    /// On each rollup: the vault has what it holds back, no more and no less; users have all the rest; and no leg has another end
    /// than its bundle, or the other leg.
    function check() external {
        for (uint8 leg; leg < 2; leg++) {
            enter(rollupOf(leg));
            (uint256 coin, uint256 tokens) = (0, 0);
            for (uint256 i; i < deals.length; i++) {
                (AtomicVault.Status status, uint16 held) = VAULT.states(deals[i].id, leg);
                bool committed = deals[i].status == AtomicVault.Status.Committed;
                if (status == AtomicVault.Status.Committed) vm.assertTrue(committed, "committed alone");
                if (status == AtomicVault.Status.Aborted) vm.assertTrue(!committed, "aborted alone");
                if (held == 0) continue;
                (, Leg memory terms) = termsOf(deals[i], leg);
                for (uint256 j; j < terms.moves.length; j++) {
                    if ((held >> j) & 1 == 0) continue;
                    if (terms.moves[j].kind == Wire.COIN) coin += terms.moves[j].amount;
                    else tokens += terms.moves[j].amount;
                }
            }
            vm.assertEq(address(VAULT).balance, coin, "coin");
            vm.assertEq(gold.balanceOf(address(VAULT)), tokens, "tokens");
            for (uint256 i; i < 3; i++) {
                (coin, tokens) = (coin + users[i].balance, tokens + gold.balanceOf(users[i]));
            }
            vm.assertEq(coin, 3 * WEALTH, "all coin");
            vm.assertEq(tokens, 3 * WEALTH, "all tokens");
            depart();
        }
    }
}

/// All or nothing over two rollups, value conserved on each, and a way out.
contract SwapsInvariantTest {
    SwapsHandler private handler;

    function setUp() external {
        handler = new SwapsHandler();
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetContracts() external view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(handler);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory list) {
        list = new FuzzSelector[](1);
        bytes4[] memory s = new bytes4[](12);
        s[0] = s[1] = SwapsHandler.agree.selector;
        s[2] = s[3] = s[4] = s[5] = SwapsHandler.prepareLeg.selector;
        s[6] = s[7] = SwapsHandler.settleLeg.selector;
        s[8] = SwapsHandler.retryLeg.selector;
        s[9] = SwapsHandler.redirectItem.selector;
        s[10] = SwapsHandler.spoil.selector;
        s[11] = SwapsHandler.expireDeal.selector;
        list[0] = FuzzSelector(address(handler), s);
    }

    /// forge-config: default.invariant.runs = 16
    /// forge-config: default.invariant.depth = 50
    function invariant_all_of_a_bundle_or_nothing() external {
        handler.check();
    }

    function afterInvariant() external {
        handler.finish();
        handler.check();
        handler.checkEnd();
    }

    /// The handler does reach what it is meant to.
    function test_the_handler_commits_aborts_releases_redirects_and_is_refused() external {
        for (uint256 i; i < 24; i++) {
            uint256 r = uint256(keccak256(abi.encode("deal", i)));
            handler.agree(r);
            handler.spoil(r);
            for (uint256 j; j < 6; j++) {
                r = uint256(keccak256(abi.encode(i, j)));
                handler.prepareLeg(i, r);
                handler.settleLeg(i, r >> 64);
                handler.retryLeg(i, r >> 128);
                for (uint256 who; who < 3; who++) {
                    handler.redirectItem(i, (r >> 192) % 2 + ((r >> 200) % 2 << 8) + (who << 16) + (r >> 208 << 24));
                }
            }
            if (i % 5 == 0) handler.expireDeal(i);
            if (i % 4 == 3) handler.check();
        }
        vm.assertTrue(handler.commits() > 4 && handler.aborts() > 4 && handler.released() > 0, "ends");
        vm.assertTrue(handler.redirected() > 0 && handler.refused() > 0, "receivers");
        this.afterInvariant();
    }
}

//! A contract that takes part in bundles on a network of real processes: swap on one rollup, buy on another, or neither.

use crate::{
    bundles,
    traffic::{YARD_A, YARD_B, balance, executed, four, url, view},
};
use alloy::{
    primitives::{Address, B256, U256},
    signers::local::PrivateKeySigner,
    sol_types::{SolCall, SolConstructor},
};
use serde_json::json;
use switchyard_bridge_client::{BundleDraft, Call, Client as Bridge, MoveKind};
use switchyard_bridge_contracts::{SwapPool, TwinERC20};
use switchyard_bridge_core::predeploys::{ATOMIC_VAULT, INBOX};
use switchyard_node::config::Endpoints;
use switchyard_testnet_kit::{Sent, Wallet, conserved, submit_evm};
use switchyard_testnet_local::{Client, accounts::ACCOUNTS};

#[path = "../../../../bridge/client/examples/trade.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program of its own")]
mod trade;

const SUPPLY: U256 = U256::from_limbs([10_000_000, 0, 0, 0]);
/// Of the pool, gold and iron.
const LIQUIDITY: [u64; 2] = [1_000_000, 4_000_000];
const GOLD_IN: u64 = 1_000;

/// The pool, its tokens, and the network on whose first rollup they are.
struct Pool {
    client: Client,
    url: String,
    gold: Address,
    iron: Address,
    pool: Address,
}

impl Pool {
    /// Made by ordinary transactions of an account that keeps what tokens it does not give away.
    async fn deploy(client: &Client, nodes: &[Endpoints], alice: Address) -> Self {
        let chain = nodes[0].rollups.iter().find(|r| r.rollup == YARD_A).unwrap().chain_id;
        let mut owner = Wallet::new(&ACCOUNTS[5], chain).unwrap();
        let holder = owner.address();
        let token = |name: &str| {
            let (name, symbol) = (name.to_owned(), name.to_owned());
            TwinERC20::constructorCall { name, symbol, home: YARD_A.0, holder, supply: SUPPLY }.abi_encode()
        };
        let (gold, make_gold) = owner.create(&TwinERC20::BYTECODE, &token("gold")).unwrap();
        let (iron, make_iron) = owner.create(&TwinERC20::BYTECODE, &token("iron")).unwrap();
        let tokens = SwapPool::constructorCall { token0_: gold, token1_: iron, owner_: holder };
        let (pool, make_pool) = owner.create(&SwapPool::BYTECODE, &tokens.abi_encode()).unwrap();
        let allow = TwinERC20::approveCall { spender: pool, value: SUPPLY }.abi_encode();
        let [amount0, amount1] = LIQUIDITY.map(U256::from);
        let give = TwinERC20::transferCall { to: alice, value: U256::from(10 * GOLD_IN) };
        let mut raw = vec![make_gold, make_iron, make_pool];
        raw.push(owner.call(gold, allow.clone()).unwrap());
        raw.push(owner.call(iron, allow).unwrap());
        raw.push(owner.call(pool, SwapPool::addCall { amount0, amount1 }.abi_encode()).unwrap());
        raw.push(owner.call(gold, give.abi_encode()).unwrap());
        let url = url(&nodes[0], YARD_A);
        let mut keys = Vec::new();
        for raw in &raw {
            let sent = submit_evm(client, &url, YARD_A, raw).await;
            assert!(matches!(sent, Sent::Accepted(_)), "{sent:?}");
            keys.push(sent.key());
        }
        executed(client, nodes, YARD_A, &keys).await;
        Self { client: client.clone(), url, gold, iron, pool }
    }

    async fn has(&self, token: Address, account: Address) -> U256 {
        view(&self.client, (&self.url, "latest"), token, &TwinERC20::balanceOfCall { account }).await
    }

    /// What Alice's gold would be changed for after a block.
    async fn quote(&self, block: &str) -> U256 {
        let call = SwapPool::quoteCall { tokenIn: self.gold, amountIn: U256::from(GOLD_IN) };
        view(&self.client, (&self.url, block), self.pool, &call).await
    }

    /// Nothing is reserved: the pool is sure of all that it has.
    async fn is_free(&self) -> bool {
        let mut free = true;
        for token in [self.gold, self.iron] {
            let call = SwapPool::reservesCall { token };
            let reserve = view(&self.client, (&self.url, "latest"), self.pool, &call).await;
            free &= reserve.least == reserve.most && reserve.least == self.has(token, self.pool).await;
        }
        free
    }

    fn terms(&self, iron_min: U256) -> trade::Terms {
        let (gold_in, coin) = (U256::from(GOLD_IN), U256::from(77));
        trade::Terms { pool: self.pool, gold: self.gold, gold_in, iron_min, coin }
    }
}

async fn block_of(pool: &Pool, transaction: &[u8]) -> u64 {
    let params = json!([B256::from_slice(transaction)]);
    let receipt = pool.client.json_rpc(&pool.url, "eth_getTransactionReceipt", params).await.unwrap();
    receipt["blockNumber"].as_str().unwrap().parse::<U256>().unwrap().to()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_and_a_purchase_on_another_rollup_happen_both_or_neither() {
    let (dir, client) = (tempfile::tempdir().unwrap(), Client::new());
    let (mut testnet, nodes) = four(dir.path()).await;
    let [alice, bob] = [0, 1].map(|i: usize| PrivateKeySigner::from_bytes(&ACCOUNTS[i].private_key).unwrap());
    let pool = Pool::deploy(&client, &nodes, alice.address()).await;
    let grpc = &nodes[3].grpc;

    // Both.
    let coin = balance(&client, &nodes[3], YARD_B, alice.address()).await;
    let iron = pool.quote("latest").await;
    assert!(trade::trade(grpc, &alice, &bob, &pool.terms(iron)).await.unwrap());
    assert_eq!(pool.has(pool.iron, bob.address()).await, iron);
    assert_eq!(pool.has(pool.gold, alice.address()).await, U256::from(9 * GOLD_IN));
    assert_eq!(pool.has(pool.gold, pool.pool).await, U256::from(LIQUIDITY[0] + GOLD_IN));
    assert_eq!(balance(&client, &nodes[3], YARD_B, alice.address()).await, coin + U256::from(77));
    assert!(pool.is_free().await);

    // The price has moved: the pool refuses, and Bob keeps his coin but for gas.
    let quote = pool.quote("latest").await;
    assert!(quote < iron);
    let coin = balance(&client, &nodes[3], YARD_B, bob.address()).await;
    assert!(!trade::trade(grpc, &alice, &bob, &pool.terms(iron)).await.unwrap());
    assert!(coin - balance(&client, &nodes[3], YARD_B, bob.address()).await < U256::from(10).pow(U256::from(17)));
    assert!(pool.is_free().await);

    // The pool reserves, and Bob's leg reverts: the reservation is undone.
    let mut bridge = Bridge::connect(grpc).await.unwrap();
    let allowance = Call::approve(YARD_A, pool.gold, pool.pool, U256::from(GOLD_IN));
    bridge.call(&alice, allowance).await.unwrap();
    let mut legs = trade::legs(&pool.terms(quote), alice.address(), bob.address());
    (legs[1].moves[0].kind, legs[1].moves[0].token) = (MoveKind::Erc20, INBOX);
    let deadline = bridge.height().await.unwrap() + 5000;
    let draft = BundleDraft { deadline, salt: B256::repeat_byte(1), legs };
    let bundle = draft.sign(&mut bridge, &[alice.clone(), bob.clone()]).await.unwrap();
    let (end, states) = bundles::run(&mut bridge, &bundle).await;
    assert_eq!((end.state.as_str(), end.settled), ("aborted", true), "{states:?}");
    assert_eq!(end.legs.iter().map(|leg| leg.vault.as_str()).collect::<Vec<_>>(), ["aborted", "none"]);
    let prepared = block_of(&pool, &end.legs[0].transaction).await;
    assert_eq!(pool.quote(&format!("{:#x}", prepared - 1)).await, quote);
    assert!(pool.quote(&format!("{prepared:#x}")).await < quote, "it was reserved");
    assert_eq!(pool.quote("latest").await, quote);
    assert!(pool.is_free().await);
    assert_eq!(pool.has(pool.gold, alice.address()).await, U256::from(9 * GOLD_IN));

    // No token and no coin was made or lost.
    let holders = [alice.address(), bob.address(), ACCOUNTS[5].address, pool.pool, ATOMIC_VAULT];
    for token in [pool.gold, pool.iron] {
        let mut sum = U256::ZERO;
        for holder in holders {
            sum += pool.has(token, holder).await;
        }
        assert_eq!(sum, SUPPLY);
    }
    let totals = conserved(&client, &nodes[3], &testnet.dir().genesis().unwrap()).await.unwrap();
    assert_eq!((totals.in_vaults, totals.settled), (U256::ZERO, (2, 2)), "{totals:?}");
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}

//! Swap on one rollup, buy on another, or neither: Alice has gold on rollup 1 and wants coin on rollup 2, which Bob sells for iron.
//! A pool on rollup 1 changes gold for iron.
//!
//! `cargo run --example trade -- http://127.0.0.1:7100 ALICES_KEY BOBS_KEY POOL GOLD`

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, B256, U256};
use std::error::Error;
use switchyard_bridge_client::{BundleDraft, Call, Client, Leg, Move, MoveKind, Swap};
use switchyard_primitives::RollupId;

/// Where the pool is.
const POOLS: RollupId = RollupId(1);
/// Where Bob has coin.
const BOBS: RollupId = RollupId(2);
/// Hub blocks until the trade is given up.
const DEADLINE: u64 = 600;
/// How long it is waited for, milliseconds.
const TIMEOUT_MS: u32 = 60_000;

/// What Alice and Bob agree on; amounts in the smallest units.
pub struct Terms {
    /// A `SwapPool` of gold and iron.
    pub pool: Address,
    /// The token that Alice has.
    pub gold: Address,
    /// How much of it she gives.
    pub gold_in: U256,
    /// How much iron Bob gets for it, at least.
    pub iron_min: U256,
    /// Coin that she gets from Bob.
    pub coin: U256,
}

/// The swap, and the purchase.
pub fn legs(terms: &Terms, alice: Address, bob: Address) -> Vec<Leg> {
    let Terms { pool, gold, gold_in, iron_min, coin } = *terms;
    let swap = Swap { pool, token_in: gold, amount_in: gold_in, amount_out_min: iron_min, to: bob };
    let price = Move { kind: MoveKind::Coin, token: Address::ZERO, amount: coin, to: alice, refund: bob };
    vec![
        Leg { rollup: POOLS, signer: alice, moves: vec![], calls: vec![swap.call()] },
        Leg { rollup: BOBS, signer: bob, moves: vec![price], calls: vec![] },
    ]
}

/// Trades; returns whether that has happened. If it has not, both have what they had, and the pool too.
pub async fn trade(
    url: &str,
    alice: &PrivateKeySigner,
    bob: &PrivateKeySigner,
    terms: &Terms,
) -> Result<bool, Box<dyn Error>> {
    let mut client = Client::connect(url).await?;
    // The pool takes the gold itself, when her leg is prepared.
    client.call(alice, Call::approve(POOLS, terms.gold, terms.pool, terms.gold_in)).await?;
    let draft = BundleDraft {
        deadline: client.height().await? + DEADLINE,
        salt: B256::new(rand::random()),
        legs: legs(terms, alice.address(), bob.address()),
    };
    let bundle = draft.sign(&mut client, &[alice.clone(), bob.clone()]).await?;
    let id = client.submit_bundle(&bundle).await?;
    let end = client.follow_bundle(id, true, TIMEOUT_MS, |bundle| println!("{id} {}", bundle.state)).await?;
    Ok(end.state == "committed" && end.settled)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, alice, bob, pool, gold] = arguments.as_slice() else {
        return Err("trade URL ALICES_KEY BOBS_KEY POOL GOLD".into());
    };
    let (gold_in, iron_min, coin) = (U256::from(1000), U256::from(900), U256::from(5));
    let terms = Terms { pool: pool.parse()?, gold: gold.parse()?, gold_in, iron_min, coin };
    let happened = trade(url, &alice.parse()?, &bob.parse()?, &terms).await?;
    println!("{}", if happened { "traded" } else { "neither swapped nor bought" });
    Ok(())
}

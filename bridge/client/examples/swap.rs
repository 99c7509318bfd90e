//! Swaps coin between two rollups: both parties get what they were promised, or both keep what they had.
//!
//! `cargo run --example swap -- http://127.0.0.1:7100 ALICES_KEY BOBS_KEY`

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, B256, U256};
use std::error::Error;
use switchyard_bridge_client::{BundleDraft, Client, Leg, Move, MoveKind};
use switchyard_primitives::RollupId;

/// Hub blocks until the swap is given up.
const DEADLINE: u64 = 600;
/// How long it is waited for, milliseconds.
const TIMEOUT_MS: u32 = 60_000;

fn coins(amount: u64) -> U256 {
    U256::from(amount) * U256::from(10).pow(U256::from(18))
}

/// A leg that gives coin.
fn gives(rollup: u64, from: Address, to: Address, amount: U256) -> Leg {
    let coin = Move { kind: MoveKind::Coin, token: Address::ZERO, amount, to, refund: from };
    Leg { rollup: RollupId(rollup), signer: from, moves: vec![coin], calls: vec![] }
}

/// Alice gives Bob 1 coin on rollup 1, and Bob gives her 2 on rollup 2. Returns whether that has happened.
pub async fn swap(url: &str, alice: &PrivateKeySigner, bob: &PrivateKeySigner) -> Result<bool, Box<dyn Error>> {
    let mut client = Client::connect(url).await?;
    let draft = BundleDraft {
        deadline: client.height().await? + DEADLINE,
        salt: B256::new(rand::random()),
        legs: vec![
            gives(1, alice.address(), bob.address(), coins(1)),
            gives(2, bob.address(), alice.address(), coins(2)),
        ],
    };
    let bundle = draft.sign(&mut client, &[alice.clone(), bob.clone()]).await?;
    let id = client.submit_bundle(&bundle).await?;
    let tell = |bundle: &switchyard_proto::v1::Bundle| println!("{id} {} settled: {}", bundle.state, bundle.settled);
    let end = client.follow_bundle(id, true, TIMEOUT_MS, tell).await?;
    Ok(end.state == "committed" && end.settled)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, alice, bob] = arguments.as_slice() else { return Err("swap URL ALICES_KEY BOBS_KEY".into()) };
    let happened = swap(url, &alice.parse()?, &bob.parse()?).await?;
    println!("{}", if happened { "swapped" } else { "both kept what they had" });
    Ok(())
}

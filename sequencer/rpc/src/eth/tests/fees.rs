//! Gas prices and the fee history, by geth's rules.

use super::{
    Rig, error,
    fake::{BASE_FEE, GAS_LIMIT, Tx, transfer},
};
use alloy::{eips::BlockNumberOrTag, providers::Provider};
use serde_json::{Value, json};

/// Blocks 1 to 3: one transfer, none, and three with different tips and gas.
fn busy() -> Rig {
    let rig = Rig::start();
    rig.chain().extend(&[transfer(0, 7)]);
    rig.chain().extend(&[]);
    let gas = |nonce, tip, gas_used| Tx { gas_used, ..transfer(nonce, tip) };
    rig.chain().extend(&[gas(1, 30, 100_000), gas(2, 10, 200_000), gas(3, 20, 700_000)]);
    rig
}

#[tokio::test]
async fn the_history_covers_the_blocks_asked_for_and_the_next_base_fee() {
    let rig = busy();
    let history = rig.http().get_fee_history(2, BlockNumberOrTag::Latest, &[]).await.unwrap();
    assert_eq!(history.oldest_block, 2);
    assert_eq!(history.base_fee_per_gas, [2, 3, 4].map(|n| u128::from(BASE_FEE) + n));
    assert_eq!(history.gas_used_ratio, [0.0, 1_000_000.0 / GAS_LIMIT as f64]);
    assert_eq!(history.base_fee_per_blob_gas, [1, 1, 1]);
    assert_eq!(history.blob_gas_used_ratio, [0.0, 0.0]);
    assert_eq!(history.reward, None);
}

#[tokio::test]
async fn the_history_of_an_older_range_ends_with_the_base_fee_of_the_block_after_it() {
    let rig = busy();
    let history = rig.http().get_fee_history(1, BlockNumberOrTag::Number(1), &[]).await.unwrap();
    assert_eq!((history.oldest_block, history.base_fee_per_gas.len()), (1, 2));
    assert_eq!(history.base_fee_per_gas[1], u128::from(BASE_FEE) + 2);
}

#[tokio::test]
async fn rewards_are_the_tips_at_shares_of_the_gas() {
    let rig = busy();
    let percentiles = [0.0, 19.9, 20.0, 20.1, 89.9, 91.0, 100.0];
    let history = rig.http().get_fee_history(3, BlockNumberOrTag::Latest, &percentiles).await.unwrap();
    let reward = history.reward.unwrap();
    assert_eq!(reward[0], [7; 7]);
    assert_eq!(reward[1], [0; 7], "an empty block");
    // By tip: 10 up to 20 % of the gas, 20 up to 90 %, then 30.
    assert_eq!(reward[2], [10, 10, 10, 20, 20, 30, 30]);
}

#[tokio::test]
async fn the_history_is_clamped_and_its_bounds_are_checked() {
    let rig = busy();
    let history = async |params: Value| rig.rpc("eth_feeHistory", params).await;
    let all = history(json!(["0xffff", "latest", []])).await.unwrap();
    assert_eq!((&all["oldestBlock"], all["gasUsedRatio"].as_array().unwrap().len()), (&json!("0x0"), 4));
    for count in [json!("0x2"), json!(2), json!("2")] {
        assert_eq!(history(json!([count, "latest"])).await.unwrap()["oldestBlock"], "0x2", "{count}");
    }
    let none = history(json!(["0x0", "latest", []])).await.unwrap();
    assert_eq!((&none["oldestBlock"], &none["gasUsedRatio"]), (&json!("0x0"), &json!([])));
    for (params, message) in [
        (json!(["0x1", "0x9"]), "request beyond head block: requested 9, head 3"),
        (json!(["0x1", "latest", [101]]), "invalid reward percentile: 101.000000"),
        (json!(["0x1", "latest", [-1]]), "invalid reward percentile: -1.000000"),
        (json!(["0x1", "latest", [50, 20.5]]), "invalid reward percentile: #0:50.000000 >= #1:20.500000"),
        (json!(["0x1", "latest", vec![1; 101]]), "invalid reward percentile: over the query limit 100"),
    ] {
        assert_eq!(history(params).await, Err(error(-32000, message)));
    }
    for params in [json!(["many", "latest"]), json!(["0x1"]), json!([-1, "latest"]), json!([1.5, "latest"])] {
        assert_eq!(history(params.clone()).await.unwrap_err().code, -32602, "{params}");
    }
}

#[tokio::test]
async fn suggestions_follow_the_tips_that_are_paid() {
    let rig = Rig::start();
    let tip = async || rig.rpc("eth_maxPriorityFeePerGas", json!([])).await.unwrap();
    assert_eq!(tip().await, "0xf4240", "a small tip where nobody pays any");
    for nonce in 0..5 {
        rig.chain().extend(&[transfer(nonce, 2_000_000), transfer(100 + nonce, 3_000_000)]);
    }
    assert_eq!(tip().await, "0x2dc6c0", "the 60th percentile of 2 and 3 million wei");
    let head = BASE_FEE + 5;
    assert_eq!(rig.rpc("eth_gasPrice", json!([])).await.unwrap(), format!("{:#x}", head + 1 + 3_000_000));
    assert_eq!(rig.http().get_blob_base_fee().await.unwrap(), 1);
}

#[tokio::test]
async fn a_wallets_estimate_of_fees_is_accepted() {
    let rig = busy();
    let fees = rig.http().estimate_eip1559_fees().await.unwrap();
    assert!(fees.max_fee_per_gas >= u128::from(BASE_FEE));
}

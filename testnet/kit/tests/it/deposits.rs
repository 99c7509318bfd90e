//! Coin comes to a rollup of a network of real processes, by the program's own commands.

use crate::{
    traffic::{SECONDS_60, YARD_A, YARD_B, balance, four, url},
    validators::{Files, config, refused, run, text},
};
use alloy::primitives::{Address, U256, utils::parse_ether};
use serde_json::json;
use std::{path::PathBuf, time::Duration};
use switchyard_testnet_kit::{agree_on_rollup, conserved};
use switchyard_testnet_local::Client;

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_gives_coin_to_accounts_once_and_a_minority_none() {
    let folder = tempfile::tempdir().unwrap();
    let (testnet, nodes) = four(folder.path()).await;
    let (client, files, node) = (Client::new(), Files::new(), &nodes[0]);
    let somebody = Address::repeat_byte(0x5d);
    let credits = [format!("{somebody}=1.5"), format!("{somebody}=0.000000001")];
    let propose = ["deposit", "propose", "--grpc", &node.grpc, "--rollup", "1", &credits[0], &credits[1]];
    let proposal = files.write("proposal.json", &run(&testnet, &propose));
    let part = |i: usize| {
        let config = config(&testnet, i);
        let part = run(&testnet, &["deposit", "sign", "--config", text(&config), "--proposal", text(&proposal)]);
        files.write(&format!("part-{i}.json"), &part)
    };
    let parts = [part(0), part(1), part(2)];
    let submit = |parts: &[PathBuf]| {
        let mut words = vec!["deposit", "submit", "--grpc", &node.grpc, "--proposal", text(&proposal)];
        words.extend(parts.iter().flat_map(|part| ["--part", text(part)]));
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (few, all) = (submit(&parts[..2]), submit(&parts));
    assert!(refused(&testnet, &words(&few)).contains("2 seats, 3 are needed"));
    run(&testnet, &words(&all));
    // The same again has numbers that are given by now.
    assert!(refused(&testnet, &words(&all)).contains("the next one is 2"));

    for node in &nodes {
        let expected = parse_ether("1.500000001").unwrap();
        let arrived = async {
            while balance(&client, node, YARD_A, somebody).await != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SECONDS_60, arrived).await.expect("what is final is executed");
        assert_eq!(balance(&client, node, YARD_B, somebody).await, U256::ZERO);
    }
    // One block brings both, and no other one any.
    let urls: Vec<String> = nodes.iter().map(|node| url(node, YARD_A)).collect();
    let head = client.json_rpc(&urls[0], "eth_blockNumber", json!([])).await.unwrap();
    let head = head.as_str().unwrap().parse::<U256>().unwrap().to::<u64>();
    let mut brought = Vec::new();
    for number in 1..=head {
        let at = json!([format!("{number:#x}"), false]);
        let block = client.json_rpc(&urls[0], "eth_getBlockByNumber", at).await.unwrap();
        if block["withdrawals"] != json!([]) {
            brought.push((number, block["withdrawals"].clone()));
        }
    }
    let deposit = |index: &str, amount: &str| json!({ "index": index, "validatorIndex": "0x0", "address": somebody, "amount": amount });
    let [(number, withdrawals)] = &brought[..] else { panic!("{brought:?}") };
    assert_eq!(*withdrawals, json!([deposit("0x0", "0x59682f00"), deposit("0x1", "0x1")]));
    agree_on_rollup(&client, &urls, *number).await.unwrap();
    let totals = conserved(&client, node, &testnet.dir().genesis().unwrap()).await.unwrap();
    assert_eq!(totals.deposited, parse_ether("1.500000001").unwrap());
}

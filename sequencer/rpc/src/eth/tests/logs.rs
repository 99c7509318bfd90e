//! `eth_getLogs`: what a filter selects, no more and no less.

use super::{
    Rig, error,
    fake::{FakeChain, transfer},
};
use crate::eth::EthLimits;
use alloy::{
    providers::Provider,
    rpc::types::{Filter, FilterBlockOption, Log},
};
use alloy_primitives::{Address, B256, Bytes, Log as Inner};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

fn address(n: u8) -> Address {
    Address::repeat_byte(n)
}

fn topic(n: u8) -> B256 {
    B256::repeat_byte(n)
}

fn log(of: u8, topics: &[u8]) -> Inner {
    Inner::new_unchecked(address(of), topics.iter().copied().map(topic).collect(), Bytes::from_static(&[1, 2, 3]))
}

/// Appends a block for each list of transactions' logs.
fn extend(chain: &FakeChain, blocks: &[Vec<Vec<Inner>>]) {
    let mut nonce = 0;
    for block in blocks {
        let txs: Vec<_> = block
            .iter()
            .map(|logs| {
                nonce += 1;
                transfer(nonce, 1).with_logs(logs.clone())
            })
            .collect();
        chain.extend(&txs);
    }
}

/// Three blocks with logs 1..=4 of accounts 1 and 2, and an empty one.
fn sample() -> Rig {
    let rig = Rig::start();
    extend(
        rig.chain(),
        &[vec![vec![log(1, &[1, 2]), log(2, &[1])], vec![log(1, &[3])]], vec![], vec![vec![], vec![log(2, &[])]]],
    );
    rig
}

async fn positions(rig: &Rig, filter: Value) -> Vec<(u64, u64)> {
    let logs: Vec<Log> = serde_json::from_value(rig.rpc("eth_getLogs", json!([filter])).await.unwrap()).unwrap();
    logs.iter().map(|l| (l.block_number.unwrap(), l.log_index.unwrap())).collect()
}

#[tokio::test]
async fn addresses_and_topics_select() {
    let rig = sample();
    let all = json!({"fromBlock": "earliest", "toBlock": "latest"});
    let with = |extra: Value| {
        let mut filter = all.clone();
        filter.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        filter
    };
    let everything = vec![(1, 0), (1, 1), (1, 2), (3, 0)];
    for (filter, expected) in [
        (json!({}), everything.clone()),
        (json!({"address": []}), everything.clone()),
        (json!({"topics": []}), everything.clone()),
        (json!({"address": address(1)}), vec![(1, 0), (1, 2)]),
        (json!({"address": [address(1), address(2)]}), everything),
        (json!({"address": address(9)}), vec![]),
        (json!({"topics": [topic(1)]}), vec![(1, 0), (1, 1)]),
        (json!({"topics": [[topic(1), topic(3)]]}), vec![(1, 0), (1, 1), (1, 2)]),
        (json!({"topics": [null, topic(2)]}), vec![(1, 0)]),
        (json!({"topics": [topic(1), topic(2)], "address": address(1)}), vec![(1, 0)]),
        (json!({"topics": [topic(2)]}), vec![]),
    ] {
        assert_eq!(positions(&rig, with(filter.clone())).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn blocks_select_by_range_hash_and_default() {
    let rig = sample();
    let first = rig.http().get_block_by_number(1.into()).await.unwrap().unwrap().header.hash;
    for (filter, expected) in [
        (json!({}), vec![(3, 0)]),
        (json!({"fromBlock": "0x1", "toBlock": "0x2"}), vec![(1, 0), (1, 1), (1, 2)]),
        (json!({"fromBlock": "0x2"}), vec![(3, 0)]),
        (json!({"fromBlock": "0x2", "toBlock": "0xffff"}), vec![(3, 0)]),
        (json!({"fromBlock": "0x9", "toBlock": "0x10"}), vec![]),
        (json!({"fromBlock": "latest", "toBlock": "0x1"}), vec![]),
        (json!({"fromBlock": "safe", "toBlock": "finalized"}), vec![]),
        (json!({"blockHash": first}), vec![(1, 0), (1, 1), (1, 2)]),
        (json!({"blockHash": first, "address": address(2)}), vec![(1, 1)]),
    ] {
        assert_eq!(positions(&rig, filter.clone()).await, expected, "{filter}");
    }
}

#[tokio::test]
async fn a_log_says_where_it_is() {
    let rig = sample();
    let logs = rig.http().get_logs(&Filter::new().select(1u64).address(address(2))).await.unwrap();
    let block = rig.http().get_block_by_number(1.into()).await.unwrap().unwrap();
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].inner, log(2, &[1]));
    assert_eq!(logs[0].block_hash, Some(block.header.hash));
    assert_eq!(logs[0].block_timestamp, Some(block.header.timestamp));
    assert_eq!(logs[0].transaction_hash, block.transactions.hashes().next());
    assert_eq!((logs[0].transaction_index, logs[0].log_index, logs[0].removed), (Some(0), Some(1), false));
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let rig = sample();
    let refused = async |filter: Value| rig.rpc("eth_getLogs", json!([filter])).await.unwrap_err();
    assert_eq!(
        refused(json!({"fromBlock": "0x2", "toBlock": "0x1"})).await,
        error(-32602, "invalid block range params")
    );
    assert_eq!(refused(json!({"blockHash": topic(9)})).await, error(-32000, "unknown block"));
    let many: Vec<_> = (0..1001u64).map(|n| B256::from(alloy_primitives::U256::from(n))).collect();
    assert_eq!(
        refused(json!({"topics": [many]})).await,
        error(-32602, "exceed max addresses or topics per search position")
    );
    for filter in [
        json!({"blockHash": topic(9), "fromBlock": "0x1"}),
        json!({"topics": [null, null, null, null, topic(1)]}),
        json!({"topics": ["0x12"]}),
        json!({"address": "0x12"}),
        json!({"fromBlock": "first"}),
        json!("latest"),
    ] {
        assert_eq!(refused(filter.clone()).await.code, -32602, "{filter}");
    }
}

#[tokio::test]
async fn ranges_results_and_data_are_limited() {
    let limits = EthLimits { max_log_blocks: 3, max_logs: 3, max_response_bytes: 2048, ..Default::default() };
    let rig = Rig::with(limits);
    let big = Inner::new_unchecked(address(3), vec![], Bytes::from(vec![0; 300]));
    extend(
        rig.chain(),
        &[
            vec![vec![log(1, &[1]), log(1, &[1]), log(1, &[1])]],
            vec![vec![log(1, &[1])]],
            vec![vec![big.clone(), big]],
            vec![vec![log(1, &[1]); 4]],
        ],
    );
    let ask = async |from: &str, to: &str| rig.rpc("eth_getLogs", json!([{"fromBlock": from, "toBlock": to}])).await;
    assert_eq!(ask("0x0", "0x3").await, Err(error(-32005, "exceed maximum block range: 3")));
    assert_eq!(ask("0x1", "0x2").await, Err(error(-32005, "query returned more than 3 results")));
    assert_eq!(ask("0x3", "0x3").await, Err(error(-32005, "query returned logs with more than 512 bytes of data")));
    assert_eq!(ask("0x0", "0x1").await.unwrap().as_array().unwrap().len(), 3);
    assert_eq!(ask("0x4", "0x4").await.unwrap().as_array().unwrap().len(), 4, "one block is returned whole");
}

#[tokio::test]
async fn a_query_gives_its_thread_up_in_time() {
    let rig = Rig::with(EthLimits { scan_timeout: std::time::Duration::ZERO, ..Default::default() });
    let late = Err(error(-32005, "query takes longer than 0 ms: ask for fewer blocks"));
    assert_eq!(rig.rpc("eth_getLogs", json!([{}])).await, late);
    assert_eq!(rig.rpc("eth_feeHistory", json!(["0x1", "latest", []])).await, late);
}

prop_compose! {
    fn any_log()(of in 1u8..4, topics in vec(1u8..4, 0..=4)) -> Inner {
        log(of, &topics)
    }
}

prop_compose! {
    fn any_filter()(
        addresses in vec((1u8..5).prop_map(address), 0..3),
        topics in vec(vec((1u8..5).prop_map(topic), 0..3), 0..=4),
        (from, to) in select(vec![(0u64, 9u64), (1, 2), (2, 3), (3, 3), (1, 1), (4, 9)]),
    ) -> Filter {
        let mut filter = Filter::new().from_block(from).to_block(to).address(addresses);
        for (i, set) in topics.into_iter().enumerate() {
            filter.topics[i] = set.into();
        }
        filter
    }
}

/// The rule itself, over every log of the chain.
fn expected(blocks: &[Vec<Vec<Inner>>], filter: &Filter) -> Vec<(u64, u64)> {
    let FilterBlockOption::Range { from_block, to_block } = filter.block_option else { unreachable!() };
    let range = from_block.unwrap().as_number().unwrap()..=to_block.unwrap().as_number().unwrap();
    let mut positions = Vec::new();
    for (number, block) in (1u64..).zip(blocks) {
        for (index, log) in (0u64..).zip(block.iter().flatten()) {
            let address = filter.address.is_empty() || filter.address.iter().any(|a| *a == log.address);
            let topics = filter
                .topics
                .iter()
                .enumerate()
                .all(|(i, set)| set.is_empty() || log.topics().get(i).is_some_and(|t| set.iter().any(|s| s == t)));
            if range.contains(&number) && address && topics {
                positions.push((number, index));
            }
        }
    }
    positions
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_log_is_returned_if_and_only_if_the_filter_matches_it(
        blocks in vec(vec(vec(any_log(), 0..4), 0..3), 3..4),
        filters in vec(any_filter(), 8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::start();
            extend(rig.chain(), &blocks);
            for filter in filters {
                let found = positions(&rig, serde_json::to_value(&filter).unwrap()).await;
                prop_assert_eq!(found, expected(&blocks, &filter), "{:?}", filter);
            }
            Ok(())
        })?;
    }
}

//! A process that is killed at any stage of a bundle: the bundle happens all the same, and no coin is lost.

use crate::{
    bundles::Parties,
    traffic::{YARD_A, YARD_B, balance, four, tip},
};
use alloy::primitives::{Address, B256, U256, utils::parse_ether};
use std::time::Duration;
use switchyard_bridge_client::Client as Bridge;
use switchyard_proto::v1;
use switchyard_testnet_kit::conserved;
use switchyard_testnet_local::Client;

const TIMEOUT_MS: u32 = 120_000;
/// Who watches: it is not killed, and relays nothing.
const WATCHER: usize = 3;

/// How far a bundle has come, as whoever follows it sees it.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Submitted,
    Included,
    Voted,
    Decided,
    Settled,
}

impl Stage {
    fn is_reached(self, bundle: &v1::Bundle) -> bool {
        let vaults = || bundle.legs.iter().map(|leg| leg.vault.as_str());
        match self {
            Self::Submitted => true,
            Self::Included => bundle.included.is_some(),
            Self::Voted => vaults().count() > 0 && vaults().all(|vault| vault != "none"),
            Self::Decided => bundle.decided.is_some(),
            Self::Settled => vaults().any(|vault| vault == "committed"),
        }
    }
}

/// Waits until a node has heard of a bundle: a quorum may hold it that the node is not of.
async fn heard(bridge: &mut Bridge, id: B256) {
    loop {
        match bridge.bundle(id).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.code(), "unknown_bundle"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_happens_whoever_is_killed_at_whichever_stage() {
    let (dir, client) = (tempfile::tempdir().unwrap(), Client::new());
    let (mut testnet, mut nodes) = four(dir.path()).await;
    let mut bridge = Bridge::connect(&nodes[WATCHER].grpc).await.unwrap();
    let mut parties = Parties::new();
    let to = [Address::repeat_byte(0xe1), Address::repeat_byte(0xe2)];
    // Each of them is a validator, leads in its turn, and attests both rollups; 0 and 1 relay.
    let kills =
        [(Stage::Submitted, 0), (Stage::Included, 1), (Stage::Voted, 2), (Stage::Decided, 0), (Stage::Settled, 1)];
    for (stage, victim) in kills {
        let draft = parties.swap(tip(&client, &nodes[WATCHER]).await + 5000, to);
        let bundle = parties.sign(&mut bridge, &draft).await;
        // What it has accepted is kept without it.
        let mut via = Bridge::connect(&nodes[victim].grpc).await.unwrap();
        let id = via.submit_bundle(&bundle).await.unwrap();
        let mut alive = true;
        if stage.is_reached(&v1::Bundle::default()) {
            testnet.kill(victim).unwrap();
            alive = false;
        }
        heard(&mut bridge, id).await;
        let end = bridge.follow_bundle(id, true, TIMEOUT_MS, |changed| {
            if alive && stage.is_reached(changed) {
                testnet.kill(victim).unwrap();
                alive = false;
            }
        });
        let end = end.await.unwrap();
        assert!(!alive, "{stage:?} was not seen");
        assert_eq!((end.state.as_str(), end.settled), ("committed", true), "{stage:?}: {end:?}");
        testnet.start(victim).unwrap();
        nodes[victim] = testnet.ready(victim).await.unwrap();
    }
    let times = |wei: &str| parse_ether(wei).unwrap() * U256::from(kills.len());
    assert_eq!(balance(&client, &nodes[WATCHER], YARD_A, to[0]).await, times("1"));
    assert_eq!(balance(&client, &nodes[WATCHER], YARD_B, to[1]).await, times("2"));
    for node in &nodes {
        let totals = conserved(&client, node, &testnet.dir().genesis().unwrap()).await.unwrap();
        assert_eq!((totals.in_vaults, totals.settled.1), (U256::ZERO, 0), "{totals:?}");
    }
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}

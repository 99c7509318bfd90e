//! Stake is cut on a network of real processes: of one that challenges what is right, and of one that contradicts itself.

use crate::{
    traffic::{SECONDS_60, YARD_A, YARD_C, recipient, tip, url},
    validators::run,
};
use alloy::primitives::U256;
use alloy_primitives::B256;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use switchyard_bridge_core::{
    Attestation, AttestationConflict, BridgeRecord, Challenge, Checkpoint, Evidence, Signed, signers_hash,
};
use switchyard_node::{
    config::{Config, Endpoints},
    keys::{NodeKeys, read_bls},
};
use switchyard_primitives::{Block, RollupId};
use switchyard_proto::v1::{
    GetSettleableRequest, GetSettleableResponse, StreamBlocksRequest, block_service_client::BlockServiceClient,
    bridge_service_client::BridgeServiceClient,
};
use switchyard_testnet_kit::{Sent, Wallet, conserved, submit_evm, submit_raw};
use switchyard_testnet_local::{Client, Options, Testnet, accounts::ACCOUNTS};
use tonic::{Code, Response, Status};

const POLL: Duration = Duration::from_millis(100);

async fn asked(node: &Endpoints, rollup: RollupId) -> Result<GetSettleableResponse, Status> {
    let mut bridge = BridgeServiceClient::new(Client::channel(&node.grpc).unwrap());
    bridge.get_settleable(GetSettleableRequest { rollup_id: rollup.0 }).await.map(Response::into_inner)
}

async fn settleable(node: &Endpoints) -> GetSettleableResponse {
    asked(node, YARD_A).await.unwrap()
}

/// Waits until something is so of what a node says of the rollup.
async fn until(node: &Endpoints, is_so: impl Fn(&GetSettleableResponse) -> bool) -> GetSettleableResponse {
    let found = async {
        loop {
            let answer = settleable(node).await;
            if is_so(&answer) {
                return answer;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(SECONDS_60, found).await.expect("so within a minute")
}

/// An operator: its identity, and what it signs checkpoints with.
fn operator(testnet: &Testnet, index: usize) -> (B256, [u8; 32]) {
    let config = Config::load(&testnet.dir().validator(index).config).unwrap();
    let identity = NodeKeys::load(&config.keys.unwrap()).unwrap().identity_public();
    (identity, *read_bls(config.operator.unwrap().key()).unwrap())
}

/// What each operator has, by identity.
fn shown(testnet: &Testnet, node: &Endpoints, identity: B256) -> (u64, bool) {
    let shown: Value =
        serde_json::from_str(&run(testnet, &["operator", "show", "--json", "--grpc", &node.grpc])).unwrap();
    let operators = shown["operators"].as_array().unwrap();
    let own = operators.iter().find(|o| o["identity"].as_str() == Some(&identity.to_string())).unwrap();
    (own["stake"].as_u64().unwrap(), own["fallen"].as_bool().unwrap())
}

/// The newest certificate of the rollup in the log up to a height: its block, all that it certifies, and who has signed it.
async fn newest(testnet: &Testnet, node: &Endpoints, to: u64) -> (u64, Vec<(Checkpoint, Vec<B256>)>) {
    let genesis = testnet.dir().genesis().unwrap();
    let mut state = Arc::new(genesis.system_state().unwrap());
    let mut blocks = BlockServiceClient::new(Client::channel(&node.grpc).unwrap()).max_decoding_message_size(16 << 20);
    let request = StreamBlocksRequest { from_height: 1, to_height: Some(to) };
    let mut blocks = blocks.stream_blocks(request).await.unwrap().into_inner();
    let mut newest = (0, Vec::new());
    for height in 1..=to {
        let block = blocks.message().await.unwrap().unwrap().block;
        let block = Block::decode(block.into(), &genesis.limits()).unwrap();
        let certified = state.certified_by(block.transactions(RollupId::SYSTEM));
        if certified.iter().any(|(checkpoint, _)| checkpoint.rollup == YARD_A) {
            newest = (height, certified);
        }
        state = state.follow(&block).unwrap();
    }
    newest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_challenges_what_is_right_or_contradicts_itself_loses_stake_and_the_network_goes_on() {
    let (dir, client) = (tempfile::tempdir().unwrap(), Client::new());
    let mut testnet = Testnet::create(&dir.path().join("net"), Options::default()).unwrap();
    let nodes = testnet.start_all().await.unwrap();
    let chain = nodes[0].rollups.iter().find(|rollup| rollup.rollup == YARD_A).unwrap().chain_id;
    let mut wallet = Wallet::new(&ACCOUNTS[0], chain).unwrap();
    let mut pay = async || {
        let raw = wallet.transfer(recipient(YARD_A), U256::from(1)).unwrap();
        let sent = submit_evm(&client, &url(&nodes[0], YARD_A), YARD_A, &raw).await;
        assert!(matches!(sent, Sent::Accepted(_)), "{sent:?}");
    };
    pay().await;
    let settled = until(&nodes[0], |answer| !answer.checkpoint.is_empty()).await;
    assert_eq!((settled.held.as_str(), settled.challenges.len()), ("", 0));
    let opaque = asked(&nodes[0], YARD_C).await.map_err(|status| status.code());
    assert_eq!(opaque, Err(Code::NotFound), "it makes no checkpoints");

    // What all nodes have computed is said to be wrong.
    let network = testnet.dir().genesis().unwrap().id().unwrap();
    let (height, certified) = newest(&testnet, &nodes[0], tip(&client, &nodes[0]).await).await;
    let (right, signers) = certified.iter().find(|(checkpoint, _)| checkpoint.rollup == YARD_A).cloned().unwrap();
    let (challenger, secret) = operator(&testnet, 3);
    let (stake, _) = shown(&testnet, &nodes[0], challenger);
    let entry = |(checkpoint, signers): &(Checkpoint, Vec<B256>)| Signed {
        checkpoint: checkpoint.hash(),
        signers: signers_hash(signers),
    };
    let challenge = Challenge {
        height,
        entries: certified.iter().map(entry).collect(),
        certified: right,
        own: Checkpoint { state_root: B256::repeat_byte(0x66), ..right },
        signers,
        challenger,
        signature: [0; 96],
    };
    let id = challenge.id();
    let record = BridgeRecord::Challenge(challenge.sign(network, &secret).unwrap()).encode();
    let sent = submit_raw(&nodes[0].grpc, RollupId::SYSTEM, vec![record]).await.unwrap();
    assert!(matches!(sent[..], [Sent::Accepted(_)]), "{sent:?}");
    let decided = until(&nodes[1], |answer| answer.challenges.iter().any(|c| !c.verdict.is_empty())).await;
    let [dispute] = &decided.challenges[..] else { panic!("{decided:?}") };
    assert_eq!((B256::from_slice(&dispute.id), dispute.verdict.as_str(), decided.held.as_str()), (id, "right", ""));
    let left = stake - stake.div_ceil(16);
    assert_eq!(shown(&testnet, &nodes[1], challenger), (left, false));

    // Two attestations of one block that will never be.
    let (accused, secret) = operator(&testnet, 2);
    let never = Checkpoint { number: u64::MAX, ..right };
    let word = |checkpoint| Attestation::sign(network, accused, checkpoint, vec![], &secret).unwrap();
    let other = Checkpoint { state_root: B256::ZERO, ..never };
    let conflict = AttestationConflict::new(&word(never), &word(other)).unwrap();
    let record = BridgeRecord::Evidence(Evidence::Attestations(conflict)).encode();
    let sent = submit_raw(&nodes[1].grpc, RollupId::SYSTEM, vec![record]).await.unwrap();
    assert!(matches!(sent[..], [Sent::Accepted(_)]), "{sent:?}");
    let fallen = async {
        while shown(&testnet, &nodes[0], accused) != (0, true) {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(SECONDS_60, fallen).await.expect("cut within a minute");

    // The others' stake is a quorum.
    let before = settleable(&nodes[0]).await.leaf;
    pay().await;
    until(&nodes[0], |answer| answer.leaf > before).await;
    for index in [0, 1] {
        assert_eq!(shown(&testnet, &nodes[1], operator(&testnet, index).0), (stake, false));
    }
    conserved(&client, &nodes[0], &testnet.dir().genesis().unwrap()).await.unwrap();
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}

//! Atomic bundles over two rollups of a network of real processes.

use crate::traffic::{YARD_A, YARD_B, balance, four, tip};
use alloy::{
    primitives::{Address, B256, U256, utils::parse_ether},
    signers::local::PrivateKeySigner,
};
use switchyard_bridge_client::{BundleDraft, Client as Bridge, ClientError, Leg, Move, MoveKind, SignedBundle};
use switchyard_bridge_core::predeploys::{ATOMIC_VAULT, INBOX};
use switchyard_primitives::RollupId;
use switchyard_proto::v1;
use switchyard_testnet_kit::conserved;
use switchyard_testnet_local::{Client, accounts::ACCOUNTS};

const TIMEOUT_MS: u32 = 120_000;

fn coin(rollup: RollupId, signer: &PrivateKeySigner, ether: &str, to: Address) -> Leg {
    let (kind, amount) = (MoveKind::Coin, parse_ether(ether).unwrap());
    let given = Move { kind, token: Address::ZERO, amount, to, refund: signer.address() };
    Leg { rollup, signer: signer.address(), moves: vec![given], calls: vec![] }
}

/// Who takes part: one key on each rollup.
pub(crate) struct Parties {
    keys: Vec<PrivateKeySigner>,
    salt: u8,
}

impl Parties {
    pub(crate) fn new() -> Self {
        let key = |index: usize| PrivateKeySigner::from_bytes(&ACCOUNTS[index].private_key).unwrap();
        Self { keys: vec![key(0), key(1)], salt: 0 }
    }

    /// Coin of the first one on yardA against coin of the second one on yardB.
    pub(crate) fn swap(&mut self, deadline: u64, to: [Address; 2]) -> BundleDraft {
        let legs = vec![coin(YARD_A, &self.keys[0], "1", to[0]), coin(YARD_B, &self.keys[1], "2", to[1])];
        self.salt += 1;
        BundleDraft { deadline, salt: B256::repeat_byte(self.salt), legs }
    }

    pub(crate) async fn sign(&self, bridge: &mut Bridge, draft: &BundleDraft) -> SignedBundle {
        draft.sign(bridge, &self.keys).await.unwrap()
    }
}

/// Submits a bundle and follows it to its end; the states that it went through.
pub(crate) async fn run(bridge: &mut Bridge, bundle: &SignedBundle) -> (v1::Bundle, Vec<String>) {
    let id = bridge.submit_bundle(bundle).await.unwrap();
    let mut states = Vec::new();
    let end = bridge.follow_bundle(id, true, TIMEOUT_MS, |changed| {
        if states.last() != Some(&changed.state) {
            states.push(changed.state.clone());
        }
    });
    (end.await.unwrap(), states)
}

fn refusal(result: Result<B256, ClientError>) -> String {
    match result {
        Err(ClientError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_happens_on_both_rollups_or_on_none_and_nothing_stays_behind() {
    let (dir, client) = (tempfile::tempdir().unwrap(), Client::new());
    let (mut testnet, nodes) = four(dir.path()).await;
    let mut bridge = Bridge::connect(&nodes[3].grpc).await.unwrap();
    let mut parties = Parties::new();
    let to = [Address::repeat_byte(0xe1), Address::repeat_byte(0xe2)];
    let far = |tip: u64| tip + 5000;

    // Both happen.
    let deadline = far(tip(&client, &nodes[3]).await);
    let draft = parties.swap(deadline, to);
    let bundle = parties.sign(&mut bridge, &draft).await;
    let (end, states) = run(&mut bridge, &bundle).await;
    assert_eq!(end.state, "committed", "{states:?}");
    assert!(end.settled && end.legs.iter().all(|leg| leg.voted && leg.vault == "committed" && leg.held == 0));
    assert!(end.decided.unwrap().height > end.included.unwrap().height);
    assert_eq!(balance(&client, &nodes[3], YARD_A, to[0]).await, parse_ether("1").unwrap());
    assert_eq!(balance(&client, &nodes[3], YARD_B, to[1]).await, parse_ether("2").unwrap());
    // Who asks again learns the same, and it happens once.
    assert_eq!(bridge.submit_bundle(&bundle).await.unwrap(), draft.id());

    // A leg that reverts: the other one is given back.
    let before = balance(&client, &nodes[3], YARD_A, ACCOUNTS[0].address).await;
    let mut draft = parties.swap(deadline, to);
    draft.legs[1].moves[0] = Move { kind: MoveKind::Erc20, token: INBOX, ..draft.legs[1].moves[0] };
    let bundle = parties.sign(&mut bridge, &draft).await;
    let (end, states) = run(&mut bridge, &bundle).await;
    assert_eq!((end.state.as_str(), end.settled), ("aborted", true), "{states:?}");
    assert_eq!(end.legs.iter().map(|leg| leg.vault.as_str()).collect::<Vec<_>>(), ["aborted", "none"]);
    assert_eq!(balance(&client, &nodes[3], YARD_A, to[0]).await, parse_ether("1").unwrap());
    let paid = before - balance(&client, &nodes[3], YARD_A, ACCOUNTS[0].address).await;
    assert!(paid < parse_ether("0.1").unwrap(), "more than gas: {paid}");

    // Two over the same nonces: the second is refused. Other terms than were signed are too.
    let (first, second) = (parties.swap(deadline, to), parties.swap(deadline, to));
    let (first, second) = (parties.sign(&mut bridge, &first).await, parties.sign(&mut bridge, &second).await);
    let mut changed = first.clone();
    changed.deadline += 1;
    assert_eq!(refusal(bridge.submit_bundle(&changed).await), "malformed");
    let (end, _) = run(&mut bridge, &first).await;
    assert_eq!(end.state, "committed");
    assert_eq!(refusal(bridge.submit_bundle(&second).await), "leg");

    // One that cannot be included before its deadline ends as refused, and its accounts are free.
    let mut waiting = parties.swap(tip(&client, &nodes[3]).await + 5, to);
    waiting.legs[0].signer = ACCOUNTS[0].address;
    let mut ahead = bridge.account(YARD_A, ACCOUNTS[0].address).await.unwrap();
    ahead.nonce += 1;
    let legs = waiting.calls();
    let sign = |key: usize, account, call| {
        switchyard_bridge_client::sign(&parties.keys[key], account, switchyard_bridge_client::Tx::Leg(call, 400_000))
    };
    let other = bridge.account(YARD_B, ACCOUNTS[1].address).await.unwrap();
    let raw = vec![
        sign(0, &ahead, legs[0].clone()).unwrap().1.0.into(),
        sign(1, &other, legs[1].clone()).unwrap().1.0.into(),
    ];
    let gapped = switchyard_bridge_client::assemble(raw).unwrap();
    let (end, states) = run(&mut bridge, &gapped).await;
    assert_eq!(states, ["waiting", "refused"]);
    assert_eq!(end.refusal.unwrap().code, "overdue");
    assert_eq!(bridge.account(YARD_B, ACCOUNTS[1].address).await.unwrap().nonce, other.nonce);

    // A leg that is sent alone is given back, and its bundle refused.
    let draft = parties.swap(deadline, to);
    let bundle = parties.sign(&mut bridge, &draft).await;
    let before = balance(&client, &nodes[3], YARD_A, ACCOUNTS[0].address).await;
    let alone = bridge.submit(YARD_A, bundle.legs[0].transaction.clone()).await.unwrap();
    bridge.executed(YARD_A, alone).await.unwrap();
    assert_eq!(refusal(bridge.submit_bundle(&bundle).await), "sent_alone");

    // A validator that is an operator and relays first is gone: the others decide, and another one settles.
    testnet.kill(0).unwrap();
    let draft = parties.swap(deadline, to);
    let bundle = parties.sign(&mut bridge, &draft).await;
    let (end, states) = run(&mut bridge, &bundle).await;
    assert_eq!((end.state.as_str(), end.settled), ("committed", true), "{states:?}");
    assert_eq!(balance(&client, &nodes[3], YARD_B, to[1]).await, parse_ether("6").unwrap());

    // Nothing stays in the vaults, the stray leg's coin neither.
    for rollup in [YARD_A, YARD_B] {
        let mut left = balance(&client, &nodes[3], rollup, ATOMIC_VAULT).await;
        while !left.is_zero() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            left = balance(&client, &nodes[3], rollup, ATOMIC_VAULT).await;
        }
    }
    let paid = before - balance(&client, &nodes[3], YARD_A, ACCOUNTS[0].address).await;
    assert!(paid > parse_ether("1").unwrap() && paid < parse_ether("1.1").unwrap(), "one swap and gas: {paid}");
    let totals = conserved(&client, &nodes[3], &testnet.dir().genesis().unwrap()).await.unwrap();
    // Three bundles; and a leg whose other one reverted, and one that was sent alone.
    assert_eq!((totals.in_vaults, totals.settled), (U256::ZERO, (6, 2)), "{totals:?}");
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}

//! What a running network shows of itself: an atomic swap between two of its rollups, and a transfer that is refunded.

use crate::{
    Error,
    accounts::{ACCOUNTS, Account},
    rollups::ether,
};
use alloy::signers::{self, local::PrivateKeySigner};
use alloy_primitives::{Address, B256};
use std::{
    future::Future,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use switchyard_bridge_client::{BundleDraft, Client, ClientError, Leg, Move, MoveKind, Transfer};
use switchyard_bridge_core::predeploys;
use switchyard_node::config::{Endpoints, RollupEndpoint};
use switchyard_proto::v1;

/// How long each part may take.
const PART_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at the transfer.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Hub blocks until the swap's deadline.
const SWAP_BLOCKS: u64 = 600;
/// Until the transfer can only be refunded.
const TRANSFER_SECONDS: u64 = 4;
/// Who swaps; the first one sends the transfer. Nothing else of a local network sends from them.
const PARTIES: [Account; 2] = [ACCOUNTS[5], ACCOUNTS[6]];
/// Takes no coin that is sent to it.
const REFUSES: Address = predeploys::OUTBOX;

/// Why a part does not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The client, or the node.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It has come to another end.
    #[error("ended as {0}")]
    Ended(String),
    /// It takes too long.
    #[error("not done within {} s", PART_TIMEOUT.as_secs())]
    Late,
}

/// Shows both through one node, and says each stage with the seconds since its part began. Ends within two minutes.
pub async fn demo(node: &Endpoints, say: &mut dyn FnMut(String)) -> Result<(), Error> {
    let [here, there, ..] = node.rollups.as_slice() else { return Err(Error::NoRollups) };
    part("swap", swap(&node.grpc, [here, there], say)).await?;
    part("transfer", refund(&node.grpc, here, there, say)).await
}

async fn part(what: &'static str, shown: impl Future<Output = Result<(), DemoError>>) -> Result<(), Error> {
    let in_time = tokio::time::timeout(PART_TIMEOUT, shown).await;
    in_time.unwrap_or(Err(DemoError::Late)).map_err(|source| Error::Demo { what, source })
}

async fn swap(grpc: &str, rollups: [&RollupEndpoint; 2], say: &mut dyn FnMut(String)) -> Result<(), DemoError> {
    let leg = |rollup: &RollupEndpoint, from: Account, to: Account, coins| {
        let (kind, token) = (MoveKind::Coin, Address::ZERO);
        let given = Move { kind, token, amount: ether(coins), to: to.address, refund: from.address };
        Leg { rollup: rollup.rollup, signer: from.address, moves: vec![given], calls: vec![] }
    };
    let ([here, there], [alice, bob]) = (rollups, PARTIES);
    let legs = vec![leg(here, alice, bob, 1), leg(there, bob, alice, 2)];
    let mut client = Client::connect(grpc).await?;
    let deadline = client.height().await?.saturating_add(SWAP_BLOCKS);
    let draft = BundleDraft { deadline, salt: B256::new(rand::random()), legs };
    say(format!("\nswap: 1 coin of {} for 2 of {}, both or neither, bundle {}", here.name, there.name, draft.id()));
    let began = Instant::now();
    let bundle = draft.sign(&mut client, &[signer(alice)?, signer(bob)?]).await?;
    let id = client.submit_bundle(&bundle).await?;
    say(stage(began, "accepted", "a quorum of validators holds it"));
    let timeout_ms = u32::try_from(PART_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let changed = |bundle: &v1::Bundle| say(stage(began, state(bundle), &progress(bundle, rollups)));
    let last = client.follow_bundle(id, true, timeout_ms, changed).await?;
    if last.state == "committed" { Ok(()) } else { Err(DemoError::Ended(last.state)) }
}

fn state(bundle: &v1::Bundle) -> &str {
    if bundle.settled { "settled" } else { &bundle.state }
}

/// In which block it is or was decided, and what each rollup's vault says of its leg.
fn progress(bundle: &v1::Bundle, rollups: [&RollupEndpoint; 2]) -> String {
    if let Some(refusal) = &bundle.refusal {
        return format!("{}: {}", refusal.code, refusal.message);
    }
    let Some(block) = bundle.decided.or(bundle.included) else { return "for its block".into() };
    let mut text = format!("in block {}", block.height);
    for (leg, rollup) in bundle.legs.iter().zip(rollups) {
        let vault = if leg.vault == "none" { "not executed" } else { &leg.vault };
        let certified = if bundle.decided.is_none() && leg.voted { " and certified" } else { "" };
        text += &format!(", {} {vault}{certified}", rollup.name);
    }
    text
}

async fn refund(
    grpc: &str,
    here: &RollupEndpoint,
    there: &RollupEndpoint,
    say: &mut dyn FnMut(String),
) -> Result<(), DemoError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let transfer = Transfer {
        from: here.rollup,
        to_chain: there.chain_id,
        recipient: REFUSES,
        token: None,
        amount: ether(1),
        deadline: Some(now.saturating_add(TRANSFER_SECONDS)),
    };
    let mut client = Client::connect(grpc).await?;
    let began = Instant::now();
    let [sender, _] = PARTIES;
    let (_, id) = client.transfer(&signer(sender)?, &transfer).await?;
    let (from, to) = (&here.name, &there.name);
    say(format!("\ntransfer: 1 coin from {from} to a contract on {to} that takes none, message {id}"));
    let mut last = String::new();
    loop {
        if let Some(found) = client.new_message(id).await?.filter(|found| found.state != last) {
            say(stage(began, &found.state, meaning(&found.state)));
            last = found.state;
        }
        match last.as_str() {
            "refunded" => return Ok(()),
            "delivered" => return Err(DemoError::Ended(last)),
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn meaning(state: &str) -> &'static str {
    match state {
        "sent" => "the coin is locked",
        "attested" => "operators have certified that; its recipient refuses it",
        "late" => "the deadline has passed, by the clock of its rollup",
        "expired" => "where it should have gone, it cannot arrive any more",
        "returned" => "where it came from, that is known",
        "refunded" => "its sender has the coin again",
        _ => "",
    }
}

fn stage(began: Instant, stage: &str, detail: &str) -> String {
    format!("{:7.2} s  {stage:<10} {detail}", began.elapsed().as_secs_f64())
}

fn signer(account: Account) -> Result<PrivateKeySigner, ClientError> {
    Ok(PrivateKeySigner::from_bytes(&account.private_key).map_err(signers::Error::from)?)
}

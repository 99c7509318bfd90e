//! `switchyard message` and `switchyard transfer`: messages between rollups, and what they carry.

use super::{CliError, Connect, Node, Printer, account::Key};
use alloy_primitives::{Address, B256, utils::parse_ether};
use serde_json::json;
use std::{
    io::Write,
    time::{Duration, Instant},
};
use switchyard_bridge_client::Transfer;
use switchyard_primitives::RollupId;
use switchyard_proto::{to_bytes, v1};

/// Between two looks at a message.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Arguments of `switchyard message`.
#[derive(Clone, Debug, clap::Args)]
pub struct MessageArgs {
    #[command(subcommand)]
    command: MessageCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum MessageCommand {
    /// Tell where a message is and why it waits
    Status {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// The message's id
        #[arg(value_name = "ID")]
        id: B256,
        /// Bring it further: send what anyone may send, with the account of --key
        #[arg(long, requires = "key")]
        relay: bool,
        /// The account's secp256k1 key: a file of 32 bytes in hex, mode 0600
        #[arg(long, value_name = "FILE")]
        key: Option<std::path::PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Sends coin or a token to another rollup, and shows how far it has come, with times.
#[derive(Clone, Debug, clap::Args)]
pub struct TransferArgs {
    /// The node.
    #[command(flatten)]
    connect: Connect,
    /// Who pays.
    #[command(flatten)]
    key: Key,
    /// The rollup that it leaves: name or id
    #[arg(long, value_name = "ROLLUP")]
    from: String,
    /// The rollup that it goes to: name or id
    #[arg(long, value_name = "ROLLUP")]
    to: String,
    /// How much: of coin or a token with 18 decimals, such as 1.5
    #[arg(long, value_name = "AMOUNT")]
    amount: String,
    /// The token's contract on the rollup that it leaves; without it, coin
    #[arg(long, value_name = "ADDRESS")]
    token: Option<Address>,
    /// Who gets it; without it, the sender's own account there
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<Address>,
    /// Seconds until it can only be refunded
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    deadline: Option<u64>,
    /// Stop waiting after so many seconds; the transfer goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A rollup by its name or id.
pub(super) fn rollup(node: &Node, argument: &'static str, text: &str) -> Result<(RollupId, String), CliError> {
    let found = node.info.rollups.iter().find(|r| r.name == text || r.rollup_id.to_string() == text);
    let unknown = || CliError::Argument { argument: argument.into(), problem: format!("no rollup {text} here") };
    found.map(|r| (RollupId(r.rollup_id), r.name.clone())).ok_or_else(unknown)
}

/// Tells where a message is.
pub async fn message(args: MessageArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let MessageCommand::Status { connect, id, relay, key, json } = args.command;
    let mut node = connect.open().await?;
    let mut printer = Printer { out, json };
    let found = node.client.message(id).await?;
    show(&mut printer, id, &found)?;
    let Some(key) = key.filter(|_| relay) else { return Ok(()) };
    let account = Key::at(key).account()?;
    let calls = node.client.bridge.get_delivery(v1::GetDeliveryRequest { id: to_bytes(id) }).await?.into_inner().calls;
    node.client.send_all(&account, calls).await?;
    let found = node.client.message(id).await?;
    show(&mut printer, id, &found)
}

/// Why a message in this state has not arrived, and what to do.
fn waits_for(state: &str) -> &'static str {
    match state {
        "sent" => "waits for the operators of its rollup to certify the block that sent it",
        "attested" => "waits for a relayer, or for its recipient to take it; --relay brings it there",
        "late" => "its deadline has passed; once that is told at its destination (--relay), it is refunded",
        "expired" => "the notice of it is on its way back",
        "returned" => "what it carried can be paid back (--relay)",
        _ => "",
    }
}

fn show(printer: &mut Printer<'_>, id: B256, found: &v1::GetMessageResponse) -> Result<(), CliError> {
    let v1::GetMessageResponse { state, source, destination, index, block, .. } = found;
    let why = waits_for(state);
    printer.print(
        || {
            let line = format!("{state} {id}  {source} to {destination}, message {index}, of block {block}");
            if why.is_empty() { line } else { format!("{line}: {why}") }
        },
        || {
            json!({
                "id": id, "state": state, "source": source, "destination": destination, "index": index, "block": block,
                "waits_for": why,
            })
        },
    )
}

/// Sends a transfer and follows it.
pub async fn transfer(args: TransferArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let mut node = args.connect.open().await?;
    let account = args.key.account()?;
    let (from, from_name) = rollup(&node, "--from", &args.from)?;
    let (to, to_name) = rollup(&node, "--to", &args.to)?;
    let amount = parse_ether(&args.amount)
        .map_err(|e| CliError::Argument { argument: "--amount".into(), problem: e.to_string() })?;
    let transfer = Transfer {
        from,
        to_chain: node.client.account(to, account.address()).await?.chain_id,
        recipient: args.recipient.unwrap_or(account.address()),
        token: args.token,
        amount,
        deadline: args.deadline.map(in_seconds),
    };
    let mut printer = Printer { out, json: args.json };
    let began = Instant::now();
    let (sent, id) = node.client.transfer(&account, &transfer).await?;
    let mut last = String::new();
    loop {
        if let Some(found) = node.client.new_message(id).await?.filter(|found| found.state != last) {
            let seconds = began.elapsed().as_secs_f64();
            printer.print(
                || format!("{seconds:6.2} s  {:<10} {id}  {from_name} to {to_name}", found.state),
                || json!({ "seconds": seconds, "state": found.state, "id": id, "transaction": sent }),
            )?;
            last = found.state;
        }
        if matches!(last.as_str(), "delivered" | "refunded") {
            return Ok(());
        }
        if began.elapsed().as_secs() >= args.timeout {
            let state = if last.is_empty() { "not in a closed block" } else { &last };
            let message = format!("{id} is {state}: {}", waits_for(&last));
            return Err(CliError::Call { code: "watch_timeout".into(), message });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Seconds since 1970 in so many seconds.
fn in_seconds(seconds: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs()).saturating_add(seconds)
}

//! `switchyard bundle`: all legs of a bundle happen, or none does.

use super::{CliError, Connect, Node, Printer, account::Key, message::rollup, record::problem};
use alloy_primitives::{Address, B256, Bytes, U256, utils::parse_ether};
use serde::Deserialize;
use serde_json::json;
use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};
use switchyard_bridge_client::{BundleDraft, Leg, Move, MoveKind, Participant, Prepare, assemble};
use switchyard_bridge_core::predeploys::ATOMIC_VAULT;
use switchyard_proto::{hash, v1};

/// Blocks until the deadline, unless the file says otherwise.
const DEADLINE_BLOCKS: u64 = 600;
/// Longest file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Arguments of `switchyard bundle`.
#[derive(Clone, Debug, clap::Args)]
pub struct BundleArgs {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum BundleCommand {
    /// Print what each leg's signer has to sign: any wallet can
    Build {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// The bundle's terms: JSON, see docs/integrate.md
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Submit a bundle and follow it, with times
    Submit {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// The bundle: JSON with each leg's transaction, or with terms and a key file for each, see docs/integrate.md
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Stop waiting after so many seconds; the bundle goes on
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
        timeout: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell where a bundle is and why it waits
    Status {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// The bundle's id
        #[arg(value_name = "ID")]
        id: B256,
        /// Carry out what was decided: send what anyone may send, with the account of --key
        #[arg(long, requires = "key")]
        settle: bool,
        /// The account's secp256k1 key: a file of 32 bytes in hex, mode 0600
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// A bundle's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Hub height; without it, 600 blocks from now.
    deadline: Option<u64>,
    /// Without it, a random one.
    salt: Option<B256>,
    legs: Vec<FileLeg>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLeg {
    /// Signed and encoded. Then nothing else is needed.
    transaction: Option<Bytes>,
    /// Name or id.
    rollup: Option<String>,
    /// Who signs; without it, the account of `key`.
    signer: Option<Address>,
    /// The signer's secp256k1 key, relative to the bundle's file.
    key: Option<PathBuf>,
    #[serde(default)]
    moves: Vec<FileMove>,
    #[serde(default)]
    calls: Vec<FileCall>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMove {
    /// An ERC-20 token; without it and `nft`, coin.
    token: Option<Address>,
    /// An ERC-721 token's contract; `amount` is its id.
    nft: Option<Address>,
    /// In the smallest unit, or with 18 decimals: `1.5 ether`.
    amount: String,
    to: Address,
    /// Without it, the signer.
    refund: Option<Address>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCall {
    participant: Address,
    gas: u64,
    data: Bytes,
}

fn read(path: &Path) -> Result<File, CliError> {
    let length = std::fs::metadata(path).map_err(|e| problem(path, e))?.len();
    if length > FILE_BYTES_MAX {
        return Err(problem(path, format!("{length} bytes: more than {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| problem(path, e))?;
    serde_json::from_str(&text).map_err(|e| problem(path, e))
}

fn amount(text: &str) -> Result<U256, CliError> {
    let bad = |problem: String| CliError::Argument { argument: format!("amount {text}"), problem };
    match text.strip_suffix("ether") {
        Some(ether) => parse_ether(ether.trim()).map_err(|e| bad(e.to_string())),
        None => text.parse().map_err(|_| bad("neither a number nor a number of ether".into())),
    }
}

impl FileMove {
    fn terms(&self, signer: Address) -> Result<Move, CliError> {
        let (kind, token) = match (self.token, self.nft) {
            (None, None) => (MoveKind::Coin, Address::ZERO),
            (Some(token), None) => (MoveKind::Erc20, token),
            (None, Some(token)) => (MoveKind::Erc721, token),
            (Some(_), Some(_)) => {
                let problem = "is for a token or for an nft, not for both".to_owned();
                return Err(CliError::Argument { argument: "a move".into(), problem });
            }
        };
        let refund = self.refund.unwrap_or(signer);
        Ok(Move { kind, token, amount: amount(&self.amount)?, to: self.to, refund })
    }
}

impl FileLeg {
    fn terms(&self, node: &Node, folder: &Path, index: usize) -> Result<Leg, CliError> {
        let missing = |what: &str| CliError::Argument { argument: format!("leg {index}"), problem: what.into() };
        let name = self.rollup.as_deref().ok_or_else(|| missing("has neither a transaction nor a rollup"))?;
        let (rollup, _) = rollup(node, "rollup", name)?;
        let signer = match (self.signer, &self.key) {
            (Some(signer), _) => signer,
            (None, Some(key)) => Key::at(folder.join(key)).account()?.address(),
            (None, None) => return Err(missing("has neither a signer nor a key")),
        };
        let moves = self.moves.iter().map(|m| m.terms(signer)).collect::<Result<_, _>>()?;
        let call = |c: &FileCall| Participant { participant: c.participant, gas_limit: c.gas, data: c.data.clone() };
        Ok(Leg { rollup, signer, moves, calls: self.calls.iter().map(call).collect() })
    }
}

impl File {
    fn draft(&self, node: &Node, folder: &Path) -> Result<BundleDraft, CliError> {
        let legs = self.legs.iter().enumerate().map(|(index, leg)| leg.terms(node, folder, index));
        let legs = legs.collect::<Result<Vec<_>, _>>()?;
        let deadline = match self.deadline {
            Some(deadline) => deadline,
            None => node.tip()?.saturating_add(DEADLINE_BLOCKS),
        };
        Ok(BundleDraft { deadline, salt: self.salt.unwrap_or_else(|| B256::new(rand::random())), legs })
    }
}

/// Builds, submits, or tells of a bundle.
pub async fn bundle(args: BundleArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    match args.command {
        BundleCommand::Build { connect, file } => build(&mut connect.open().await?, &file, out).await,
        BundleCommand::Submit { connect, file, timeout, json } => {
            submit(&mut connect.open().await?, &file, timeout, &mut Printer { out, json }).await
        }
        BundleCommand::Status { connect, id, settle, key, json } => {
            let (mut node, mut printer) = (connect.open().await?, Printer { out, json });
            let found = node.client.bundle(id).await?;
            show(&mut printer, &node, id, &found, None)?;
            let Some(key) = key.filter(|_| settle) else { return Ok(()) };
            let account = Key::at(key).account()?;
            let calls = node.client.settlement(id).await?;
            node.client.send_all(&account, calls).await?;
            let found = node.client.bundle(id).await?;
            show(&mut printer, &node, id, &found, None)
        }
    }
}

async fn build(node: &mut Node, file: &Path, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let draft = read(file)?.draft(node, folder)?;
    draft.check().map_err(switchyard_bridge_client::ClientError::from)?;
    let mut legs = Vec::new();
    for call in draft.calls() {
        let account = node.client.account(call.leg.rollup, call.leg.signer).await?;
        legs.push(to_sign(&call, account.chain_id));
    }
    let text = json!({ "id": draft.id(), "deadline": draft.deadline, "salt": draft.salt, "legs": legs });
    writeln!(out, "{text:#}")?;
    Ok(())
}

fn to_sign(call: &Prepare, chain: u64) -> serde_json::Value {
    json!({
        "rollup": call.leg.rollup, "chainId": chain, "from": call.leg.signer, "to": ATOMIC_VAULT,
        "value": call.value(), "data": call.calldata(),
    })
}

async fn submit(node: &mut Node, file: &Path, timeout: u32, printer: &mut Printer<'_>) -> Result<(), CliError> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let terms = read(file)?;
    let signed: Option<Vec<Bytes>> = terms.legs.iter().map(|leg| leg.transaction.clone()).collect();
    let bundle = match signed {
        Some(transactions) => assemble(transactions).map_err(switchyard_bridge_client::ClientError::from)?,
        None => {
            let draft = terms.draft(node, folder)?;
            let keys = terms.legs.iter().filter_map(|leg| leg.key.as_ref());
            let signers = keys.map(|key| Key::at(folder.join(key)).account()).collect::<Result<Vec<_>, _>>()?;
            draft.sign(&mut node.client, &signers).await?
        }
    };
    let began = Instant::now();
    let id = bundle.id();
    node.client.submit_bundle(&bundle).await?;
    let (mut client, mut failed) = (node.client.clone(), None);
    let last = client.follow_bundle(id, true, timeout.saturating_mul(1000), |changed| {
        let shown = show(printer, node, id, changed, Some(began.elapsed().as_secs_f64()));
        failed = shown.err().or(failed.take());
    });
    let last = last.await?;
    if let Some(error) = failed {
        return Err(error);
    }
    verdict(id, last)
}

/// How a bundle that was followed has ended.
fn verdict(id: B256, last: v1::Bundle) -> Result<(), CliError> {
    match last.refusal {
        Some(v1::Rejection { code, message, .. }) => Err(CliError::RefusedAs { code, message }),
        None if last.state == "aborted" => Err(CliError::Aborted(id)),
        None => Ok(()),
    }
}

/// Why a bundle in this state is not settled.
fn waits_for(bundle: &v1::Bundle) -> &'static str {
    match bundle.state.as_str() {
        "waiting" => "waits for a block in which each leg has its sender's next nonce",
        "open" => "waits for each rollup's operators to certify its vote",
        "committed" | "aborted" if !bundle.settled => "waits for a relayer to tell the vaults; --settle does it",
        _ => "",
    }
}

fn show(
    printer: &mut Printer<'_>,
    node: &Node,
    id: B256,
    bundle: &v1::Bundle,
    seconds: Option<f64>,
) -> Result<(), CliError> {
    let state = if bundle.settled { "settled" } else { bundle.state.as_str() };
    let name =
        |id: u64| node.info.rollups.iter().find(|r| r.rollup_id == id).map_or(id.to_string(), |r| r.name.clone());
    let leg = |leg: &v1::BundleLeg| {
        let vote = if leg.voted { "yes" } else { "-" };
        format!("{} {vote}/{}", name(leg.rollup_id), if leg.vault.is_empty() { "?" } else { &leg.vault })
    };
    let at = |moment: &Option<v1::Moment>| moment.as_ref().map(|m| m.height);
    printer.print(
        || {
            let time = seconds.map_or(String::new(), |seconds| format!("{seconds:6.2} s  "));
            let mut line = format!("{time}{state:<10} {id}");
            if let Some(height) = at(&bundle.included) {
                line += &format!("  in block {height}");
            }
            if let Some(height) = at(&bundle.decided) {
                line += &format!(", {} in {height}", bundle.state);
            }
            if !bundle.legs.is_empty() {
                line += &format!("  [{}]", bundle.legs.iter().map(leg).collect::<Vec<_>>().join(", "));
            }
            match &bundle.refusal {
                Some(refusal) => line += &format!(" {}: {}", refusal.code, refusal.message),
                None if seconds.is_none() && !waits_for(bundle).is_empty() => line += &format!(": {}", waits_for(bundle)),
                None => {}
            }
            line
        },
        || {
            let legs = bundle.legs.iter().map(|leg| {
                json!({
                    "rollup": leg.rollup_id, "leg": hash("leg", &leg.leg).ok(), "voted": leg.voted, "vault": leg.vault,
                    "transaction": hash("transaction", &leg.transaction).ok(), "held": leg.held,
                })
            });
            json!({
                "id": id, "seconds": seconds, "state": bundle.state, "settled": bundle.settled, "deadline": bundle.deadline,
                "included": at(&bundle.included), "decided": at(&bundle.decided), "legs": legs.collect::<Vec<_>>(),
                "refusal": bundle.refusal.as_ref().map(super::rejection_json), "waits_for": waits_for(bundle),
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bundle_that_happens_is_a_success() {
        let ended = |state: &str, refusal| {
            verdict(B256::ZERO, v1::Bundle { state: state.into(), refusal, ..v1::Bundle::default() })
        };
        let code = |result: Result<(), CliError>| result.map_err(|error| error.exit_code());
        assert_eq!(code(ended("committed", None)), Ok(()));
        assert_eq!(code(ended("aborted", None)), Err(1));
        assert_eq!(code(ended("refused", Some(v1::Rejection::default()))), Err(2));
    }
}

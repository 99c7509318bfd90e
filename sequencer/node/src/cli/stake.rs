//! `switchyard stake`: who validates, and the records that change it.
//!
//! A change of the stake table goes from hand to hand as files: one operator makes a proposal, those of a quorum of seats sign
//! it, anyone sends it.

use super::{
    CliError, Connect, Printer,
    record::{By, Keys, Part, SignArgs, SubmitArgs, open, problem, read, read_parts, send},
};
use crate::{config::Config, keys::read_bls};
use alloy_primitives::FixedBytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use switchyard_consensus_core::{
    HubState,
    keys::{bls_public_key, prove_possession},
    record::{Change, Record, StakeChange, Update, UpdateKind},
};
use switchyard_primitives::B256;
use switchyard_proto::hash;

/// Arguments of `switchyard stake`.
#[derive(Clone, Debug, clap::Args)]
pub struct StakeArgs {
    #[command(subcommand)]
    command: StakeCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum StakeCommand {
    /// Print the epoch, the validators, their stake and their seats
    Show {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a proposal of changes, to be signed by validators with a quorum of the seats before the next epoch ends
    Propose {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// The changes, a JSON list: {"identity", "stake"} or {"identity", "remove": true}, or the output of `keys show` with
        /// "stake" and "address" for a validator that joins
        #[arg(long, value_name = "FILE")]
        changes: PathBuf,
    },
    /// Sign a proposal with this validator's BLS key
    Sign(SignArgs),
    /// Send a proposal with the parts that validators have signed, and wait until it is final
    Submit(SubmitArgs),
    /// Change something of this validator's own, and wait until it is final
    Update {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// Whose key.
        #[command(flatten)]
        by: By,
        #[command(subcommand)]
        what: UpdateCommand,
    },
}

#[derive(Clone, Debug, clap::Subcommand)]
enum UpdateCommand {
    /// Where this validator listens, from now on
    Address {
        /// IP:PORT
        address: SocketAddr,
    },
    /// Vote with the configuration's [keys.next] from the epoch after next on
    Keys,
    /// Have no seats from the epoch after next on
    Leave,
}

/// One validator's change, as files have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeEntry {
    identity: B256,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    remove: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stake: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bls: Option<FixedBytes<48>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    possession: Option<FixedBytes<96>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposal {
    network: B256,
    epoch: u64,
    serial: u64,
    changes: Vec<ChangeEntry>,
}

impl TryFrom<ChangeEntry> for (B256, Change) {
    type Error = String;

    fn try_from(entry: ChangeEntry) -> Result<Self, String> {
        let ChangeEntry { identity, remove, stake, bls, possession, address } = entry;
        let change = match (remove, stake, bls, possession, address) {
            (true, None, None, None, None) => Change::Remove,
            (false, Some(stake), None, None, None) => Change::Stake(stake),
            (false, Some(stake), Some(bls), Some(possession), Some(address)) => {
                Change::Join { bls, possession, stake, address }
            }
            _ => {
                return Err(format!(
                    "{identity}: must have either remove, or stake, or stake, bls, possession and address"
                ));
            }
        };
        Ok((identity, change))
    }
}

/// The changes in the order that a record has.
fn changes(entries: Vec<ChangeEntry>, path: &Path) -> Result<Vec<(B256, Change)>, CliError> {
    let mut changes: Vec<(B256, Change)> =
        entries.into_iter().map(TryInto::try_into).collect::<Result<_, _>>().map_err(|e: String| problem(path, e))?;
    changes.sort_by_key(|(identity, _)| *identity);
    if let Some([(twice, _), _]) = changes.array_windows().find(|[a, b]| a.0 == b.0) {
        return Err(problem(path, format!("{twice} appears twice")));
    }
    Ok(changes)
}

/// Shows, makes, signs and sends changes of who validates.
pub async fn stake(args: StakeArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    match args.command {
        StakeCommand::Show { connect, json } => {
            let (_, state) = open(&connect).await?;
            Printer { out, json }.print(|| show(&state), || shown(&state))
        }
        StakeCommand::Propose { connect, changes: path } => {
            let (node, state) = open(&connect).await?;
            let entries: Vec<ChangeEntry> = read(&path)?;
            changes(entries.clone(), &path)?;
            let network = hash("network_id", &node.info.network_id)?;
            let (epoch, serial) = (state.current().epoch(), state.serial());
            let proposal = Proposal { network, epoch, serial, changes: entries };
            Printer { out, json: true }.print(String::new, || json!(proposal))
        }
        StakeCommand::Sign(SignArgs { by, proposal: path }) => {
            let proposal: Proposal = read(&path)?;
            let Keys { identity, bls } = by.keys()?;
            let Proposal { network, epoch, serial, .. } = proposal;
            let changes = changes(proposal.changes, &path)?;
            let signature = StakeChange::sign_part(network, epoch, serial, &changes, &bls);
            let signature = signature.map_err(|e| problem(&by.config, e))?.into();
            let part = Part { identity, signature };
            Printer { out, json: true }.print(String::new, || json!(part))
        }
        StakeCommand::Submit(SubmitArgs { connect, proposal: path, part }) => {
            let (mut node, state) = open(&connect).await?;
            let proposal: Proposal = read(&path)?;
            let parts = read_parts(&part)?;
            let Proposal { network, epoch, serial, .. } = proposal;
            let committee = state.committee(epoch);
            let committee = committee.ok_or_else(|| problem(&path, format!("epoch {epoch} is past: propose anew")))?;
            let changes = changes(proposal.changes, &path)?;
            let record = StakeChange::combine(network, committee, serial, changes, &parts);
            let record = Record::Stake(record.map_err(|e| problem(&path, e))?);
            send(&mut node, &state, record.encode(), out).await
        }
        StakeCommand::Update { connect, by, what } => {
            let (mut node, state) = open(&connect).await?;
            let Keys { identity, bls } = by.keys()?;
            let config = &by.config;
            let kind = match what {
                UpdateCommand::Address { address } => UpdateKind::Address(address),
                UpdateCommand::Leave => UpdateKind::Leave,
                UpdateCommand::Keys => {
                    let next = Config::load(config).map_err(|e| problem(config, e))?.keys.and_then(|keys| keys.next);
                    let next = next.ok_or_else(|| problem(config, "names no new key in [keys.next]"))?;
                    let secret = read_bls(&next).map_err(|e| problem(config, e))?;
                    let bls = bls_public_key(&secret).map_err(|e| problem(config, e))?;
                    let possession = prove_possession(&secret, identity).map_err(|e| problem(config, e))?;
                    UpdateKind::Keys { bls, possession }
                }
            };
            let known = state.validators().get(&identity);
            let known = known.ok_or_else(|| problem(config, format!("{identity} is not in the stake table")))?;
            let network = hash("network_id", &node.info.network_id)?;
            let update = Update::sign(network, identity, known.serial, kind, &bls);
            let update = Record::Update(update.map_err(|e| problem(config, e))?);
            send(&mut node, &state, update.encode(), out).await
        }
    }
}

fn show(state: &HubState) -> String {
    let (epoch, rules) = (state.current().epoch(), state.rules());
    let last = rules.last_of(epoch);
    let mut text = format!(
        "epoch {epoch}, blocks {} to {last}; the next block is {}",
        last + 1 - rules.blocks.get(),
        state.next_height()
    );
    text += &format!("\nchanges so far {}", state.serial());
    for (identity, v) in state.validators() {
        let seats = |c: &switchyard_consensus_core::Committee| c.member(identity).map_or(0, |m| m.seats);
        let address = v.address.map_or_else(|| "no address".to_owned(), |a| a.to_string());
        let (now, next) = (seats(state.current()), seats(state.following()));
        text += &format!("\n{identity} stake {} seats {now} now, {next} next, {address}", v.stake);
    }
    text
}

fn shown(state: &HubState) -> serde_json::Value {
    let validators = state.validators().iter().map(|(identity, v)| {
        let seats = |c: &switchyard_consensus_core::Committee| c.member(identity).map_or(0, |m| m.seats);
        json!({
            "identity": identity,
            "bls": v.bls,
            "stake": v.stake,
            "address": v.address,
            "updates": v.serial,
            "seats": seats(state.current()),
            "next_seats": seats(state.following()),
        })
    });
    json!({
        "epoch": state.current().epoch(),
        "epoch_blocks": state.rules().blocks,
        "next_height": state.next_height(),
        "changes": state.serial(),
        "root": state.root(),
        "validators": validators.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Result<(B256, Change), String> {
        serde_json::from_str::<ChangeEntry>(text).map_err(|e| e.to_string())?.try_into()
    }

    #[test]
    fn a_change_says_one_thing() {
        let id = B256::repeat_byte(1);
        assert_eq!(entry(&format!(r#"{{"identity":"{id}","stake":5}}"#)), Ok((id, Change::Stake(5))));
        assert_eq!(entry(&format!(r#"{{"identity":"{id}","remove":true}}"#)), Ok((id, Change::Remove)));
        for bad in
            [r#""stake":5,"remove":true"#, r#""bls":"0x00""#, r#""address":"127.0.0.1:1","stake":4"#, r#""stakes":1"#]
        {
            assert!(entry(&format!(r#"{{"identity":"{id}",{bad}}}"#)).is_err(), "{bad}");
        }
        assert!(entry(&format!(r#"{{"identity":"{id}"}}"#)).is_err());
    }
}

//! `switchyard upgrade`: which version of the protocol the network follows, and when another one begins.
//!
//! As with changes of the stake table one operator makes a proposal, those of a quorum of seats sign it, anyone sends it.

use super::{
    CliError, Connect, Printer,
    record::{Keys, Part, SignArgs, SubmitArgs, open, problem, read, read_parts, send},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write;
use switchyard_consensus_core::{
    HubState,
    record::{Activation, Record, Upgrade},
};
use switchyard_primitives::{B256, NEWEST_PROTOCOL};
use switchyard_proto::hash;

/// Arguments of `switchyard upgrade`.
#[derive(Clone, Debug, clap::Args)]
pub struct UpgradeArgs {
    #[command(subcommand)]
    command: UpgradeCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum UpgradeCommand {
    /// Print which protocol version is in force, which is decided, and which this program knows
    Show {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a proposal that another version begins, to be signed by validators with a quorum of the seats before the next epoch
    /// ends
    Propose {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// The version: the one after that in force; or the one in force, to withdraw an upgrade that has not begun
        #[arg(long, value_name = "VERSION")]
        protocol: u8,
        /// The first block that follows it: an epoch's first. Absent: that of the third epoch from now
        #[arg(long, value_name = "HEIGHT")]
        height: Option<u64>,
    },
    /// Sign a proposal with this validator's BLS key
    Sign(SignArgs),
    /// Send a proposal with the parts that validators have signed, and wait until it is final
    Submit(SubmitArgs),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposal {
    network: B256,
    epoch: u64,
    serial: u64,
    protocol: u8,
    height: u64,
}

impl Proposal {
    fn activation(&self) -> Activation {
        Activation { protocol: self.protocol, height: self.height }
    }
}

/// Shows, makes, signs and sends decisions of which protocol version begins when.
pub async fn upgrade(args: UpgradeArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    match args.command {
        UpgradeCommand::Show { connect, json } => {
            let (_, state) = open(&connect).await?;
            Printer { out, json }.print(|| show(&state), || shown(&state))
        }
        UpgradeCommand::Propose { connect, protocol, height } => {
            let (node, state) = open(&connect).await?;
            let (epoch, serial) = (state.current().epoch(), state.serial());
            let withdraws = protocol == state.protocol();
            // An epoch more than must be, in which to sign it.
            let first = || if withdraws { 0 } else { state.rules().last_of(epoch + 2) + 1 };
            let height = height.unwrap_or_else(first);
            let refused = |e| CliError::Argument { argument: "--protocol".into(), problem: format!("{e}") };
            state.check_activation(&Activation { protocol, height }).map_err(refused)?;
            let network = hash("network_id", &node.info.network_id)?;
            let proposal = Proposal { network, epoch, serial, protocol, height };
            Printer { out, json: true }.print(String::new, || json!(proposal))
        }
        UpgradeCommand::Sign(SignArgs { by, proposal }) => {
            let proposal: Proposal = read(&proposal)?;
            let Keys { identity, bls } = by.keys()?;
            let Proposal { network, epoch, serial, .. } = proposal;
            let signature = Upgrade::sign_part(network, epoch, serial, proposal.activation(), &bls);
            let signature = signature.map_err(|e| problem(&by.config, e))?.into();
            let part = Part { identity, signature };
            Printer { out, json: true }.print(String::new, || json!(part))
        }
        UpgradeCommand::Submit(SubmitArgs { connect, proposal: path, part }) => {
            let (mut node, state) = open(&connect).await?;
            let proposal: Proposal = read(&path)?;
            let parts = read_parts(&part)?;
            let Proposal { network, epoch, serial, .. } = proposal;
            let committee = state.committee(epoch);
            let committee = committee.ok_or_else(|| problem(&path, format!("epoch {epoch} is past: propose anew")))?;
            let record = Upgrade::combine(network, committee, serial, proposal.activation(), &parts);
            let record = Record::Upgrade(record.map_err(|e| problem(&path, e))?);
            send(&mut node, &state, record.encode(), out).await
        }
    }
}

fn show(state: &HubState) -> String {
    let decided = match state.upgrade() {
        Some(Activation { protocol, height }) => format!("protocol {protocol} begins with block {height}"),
        None => "no other protocol is decided".to_owned(),
    };
    let (protocol, next) = (state.protocol(), state.next_height());
    format!("block {next} follows protocol {protocol}; {decided}; this program knows 1 to {NEWEST_PROTOCOL}")
}

fn shown(state: &HubState) -> serde_json::Value {
    json!({
        "next_height": state.next_height(),
        "protocol": state.protocol(),
        "decided": state.upgrade().map(|Activation { protocol, height }| json!({"protocol": protocol, "height": height})),
        "known": NEWEST_PROTOCOL,
    })
}

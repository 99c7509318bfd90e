//! `switchyard operator`: who attests which rollups, and the records by which an operator says so.

use super::{
    CliError, Connect, Printer,
    record::{By, Keys, open, problem, send},
};
use crate::{config::Config, keys::read_bls};
use serde_json::json;
use std::{collections::BTreeSet, io::Write};
use switchyard_bridge_core::{
    BridgeRecord, Checkpoint, Held, Operator, OperatorChange, OperatorKind, Ruling, SystemState,
};
use switchyard_consensus_core::keys::{bls_public_key, prove_possession};
use switchyard_primitives::RollupId;
use switchyard_proto::hash;

/// Arguments of `switchyard operator`.
#[derive(Clone, Debug, clap::Args)]
pub struct OperatorArgs {
    #[command(subcommand)]
    command: OperatorCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum OperatorCommand {
    /// Print the operators, their stake and their rollups, what is certified, and what is challenged
    Show {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Become an operator with the configuration's [operator] key, and wait until it is final
    Register {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// Whose key.
        #[command(flatten)]
        by: By,
    },
    /// Attest these rollups from now on and no others, and wait until it is final
    Serve {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// Whose key.
        #[command(flatten)]
        by: By,
        /// Ids of rollups
        #[arg(value_name = "ROLLUP", required = true)]
        rollups: Vec<u64>,
    },
    /// Attest nothing from now on; what was signed can be held against the operator for two more epochs
    Leave {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// Whose key.
        #[command(flatten)]
        by: By,
    },
}

/// Shows operators, and sends an operator's changes.
pub async fn operator(args: OperatorArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    match args.command {
        OperatorCommand::Show { connect, json } => {
            let (_, state) = open(&connect).await?;
            Printer { out, json }.print(|| show(&state), || shown(&state))
        }
        OperatorCommand::Register { connect, by } => {
            let config = Config::load(&by.config).map_err(|e| problem(&by.config, e))?;
            let key = config.operator.ok_or_else(|| problem(&by.config, "has no [operator] key"))?;
            let secret = read_bls(key.key()).map_err(|e| problem(&by.config, e))?;
            let identity = by.keys()?.identity;
            let bls = bls_public_key(&secret).map_err(|e| problem(&by.config, e))?;
            let possession = prove_possession(&secret, identity).map_err(|e| problem(&by.config, e))?;
            change(&connect, &by, OperatorKind::Register { bls, possession }, out).await
        }
        OperatorCommand::Serve { connect, by, rollups } => {
            let rollups: BTreeSet<RollupId> = rollups.into_iter().map(RollupId).collect();
            change(&connect, &by, OperatorKind::Serve(rollups.into_iter().collect()), out).await
        }
        OperatorCommand::Leave { connect, by } => change(&connect, &by, OperatorKind::Leave, out).await,
    }
}

async fn change(connect: &Connect, by: &By, kind: OperatorKind, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let (mut node, state) = open(connect).await?;
    let Keys { identity, bls } = by.keys()?;
    let known = state.bridge().and_then(|bridge| bridge.operators().get(&identity));
    let serial = known.map_or_else(|| Operator::first_serial(state.current().epoch()), |operator| operator.serial);
    let network = hash("network_id", &node.info.network_id)?;
    let change = OperatorChange::sign(network, identity, serial, kind, &bls).map_err(|e| problem(&by.config, e))?;
    send(&mut node, &state, BridgeRecord::Operator(change).encode(), out).await
}

fn show(state: &SystemState) -> String {
    let Some(bridge) = state.bridge() else {
        return format!("protocol {} has no operators; the bridge begins with protocol 3", state.protocol());
    };
    let stake = |identity| state.validators().get(identity).map_or(0, |v| v.stake);
    let operators = bridge.operators().iter().map(|(identity, operator)| {
        let rollups: Vec<String> = operator.rollups.iter().map(ToString::to_string).collect();
        let what = match operator.gone_at {
            _ if bridge.has_fallen(identity) => "has contradicted itself".into(),
            Some(height) => format!("leaving, forgotten at block {height}"),
            None if rollups.is_empty() => "attests nothing".into(),
            None => format!("attests {}", rollups.join(" ")),
        };
        format!("operator {identity}  stake {}  {what}", stake(identity))
    });
    let rollups = bridge.rollups().iter().map(|(id, rollup)| {
        let certified = rollup.certified.map_or("nothing certified".into(), |certified| {
            format!("certified {}  {}", certified.checkpoint.number, certified.checkpoint.block_hash)
        });
        let held = match bridge.held(state, *id) {
            None => String::new(),
            Some(Held::Challenged { until }) => {
                format!("  settlement held: challenged, until block {until} at the most")
            }
            Some(Held::Refuted) => "  settlement held: found wrong, nothing certified since".into(),
        };
        format!("rollup {id}  {certified}{held}")
    });
    let challenges = bridge.disputes().map(|dispute| {
        let Checkpoint { rollup, number, .. } = dispute.certified;
        let verdict = match dispute.ruling {
            Some(Ruling { is_right: true, height }) => format!("found right in block {height}"),
            Some(Ruling { height, .. }) => format!("found wrong in block {height}"),
            None if dispute.is_open(state.next_height()) => "not decided yet".into(),
            None => "not decided in time".into(),
        };
        format!("challenge of rollup {rollup} block {number} by {}  {verdict}", dispute.challenger)
    });
    operators.chain(rollups).chain(challenges).collect::<Vec<_>>().join("\n")
}

fn shown(state: &SystemState) -> serde_json::Value {
    let Some(bridge) = state.bridge() else { return json!({ "operators": [], "rollups": [] }) };
    let operators = bridge.operators().iter().map(|(identity, operator)| {
        json!({
            "identity": identity,
            "bls": operator.bls,
            "stake": state.validators().get(identity).map_or(0, |v| v.stake),
            "rollups": operator.rollups,
            "serial": operator.serial,
            "gone_at": operator.gone_at,
            "fallen": bridge.has_fallen(identity),
        })
    });
    let rollups = bridge.rollups().iter().map(|(id, rollup)| {
        let certified = rollup.certified.map(|certified| {
            let mut shown = checkpoint(&certified.checkpoint);
            shown["leaf"] = certified.index.into();
            shown
        });
        let held = match bridge.held(state, *id) {
            None => json!(null),
            Some(Held::Challenged { until }) => json!({ "why": "challenged", "until": until }),
            Some(Held::Refuted) => json!({ "why": "refuted" }),
        };
        json!({ "rollup": id, "chain": rollup.chain, "certified": certified, "held": held })
    });
    let challenges = bridge.disputes().map(|dispute| {
        json!({
            "id": dispute.id,
            "rollup": dispute.certified.rollup,
            "certified": checkpoint(&dispute.certified),
            "own": checkpoint(&dispute.own),
            "challenger": dispute.challenger,
            "opened": dispute.opened,
            "closes_at": dispute.closes_at(),
            "verdict": dispute.ruling.map(|ruling| json!({ "right": ruling.is_right, "height": ruling.height })),
        })
    });
    json!({
        "operators": operators.collect::<Vec<_>>(),
        "rollups": rollups.collect::<Vec<_>>(),
        "challenges": challenges.collect::<Vec<_>>(),
        "leaves": bridge.tree().count(),
        "root": bridge.tree().root(),
    })
}

fn checkpoint(checkpoint: &Checkpoint) -> serde_json::Value {
    json!({
        "number": checkpoint.number,
        "hub_height": checkpoint.hub_height,
        "block_hash": checkpoint.block_hash,
        "state_root": checkpoint.state_root,
        "outbox_root": checkpoint.outbox_root,
        "votes_root": checkpoint.votes_root,
    })
}

//! `switchyard status`: how a node is doing, or where a transaction is.

use super::{CliError, Connect, Node, Printer, ShownStatus, record::open};
use serde_json::{Value, json};
use std::io::Write;
use switchyard_consensus_core::HubState;
use switchyard_primitives::{B256, RollupId, TxHash};
use switchyard_proto::{ConvertError, hash, to_bytes, v1};

/// A node: its tip, epoch and rollups. With a transaction, where that is: its level, its place in the log, and what execution
/// made of it.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// The node.
    #[command(flatten)]
    pub connect: Connect,
    /// The transaction's rollup
    #[arg(long, value_name = "ID", requires = "hash")]
    pub rollup: Option<RollupId>,
    /// The transaction's hash
    #[arg(requires = "rollup")]
    pub hash: Option<TxHash>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the status. Of a transaction: exit code 2 if it was refused or dropped, 3 if the node knows nothing of it.
pub async fn status(args: StatusArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let mut printer = Printer { out, json: args.json };
    let (Some(rollup), Some(hash)) = (args.rollup, args.hash) else {
        let (mut node, state) = open(&args.connect).await?;
        let shown = ShownNode::ask(&mut node, &state).await?;
        return printer.print(|| shown.human(), || shown.json());
    };
    let mut node = args.connect.open().await?;
    let request = v1::GetTransactionStatusRequest { rollup_id: rollup.0, hash: to_bytes(hash) };
    let answer = node.sequencer.get_transaction_status(request).await?.into_inner();
    let shown = ShownStatus::new(hash, answer.status)?;
    printer.print(|| shown.human(), || shown.json())?;
    shown.verdict()
}

/// What a node says of itself.
struct ShownNode<'a> {
    status: v1::GetStatusResponse,
    network: B256,
    tip: B256,
    state: &'a HubState,
}

impl<'a> ShownNode<'a> {
    async fn ask(node: &mut Node, state: &'a HubState) -> Result<Self, CliError> {
        let status = node.status.get_status(v1::GetStatusRequest {}).await?.into_inner();
        let network = hash("network_id", &node.info.network_id)?;
        let tip = status.tip.as_ref().ok_or(ConvertError::Missing { field: "tip" })?;
        let tip = hash("tip.hash", &tip.hash)?;
        Ok(Self { status, network, tip, state })
    }

    fn height(&self) -> u64 {
        self.status.tip.as_ref().map_or(0, |tip| tip.height)
    }

    fn human(&self) -> String {
        let v1::GetStatusResponse { network, client_version, tip_age_ms, signers, seats, .. } = &self.status;
        let (state, height) = (self.state, self.height());
        let (epoch, protocol) = (state.current().epoch(), state.protocol());
        let signed = signers.map_or_else(String::new, |signers| format!(", signed for {signers} of {seats} seats"));
        let mut text = format!("network  {network} {}, {client_version}", self.network);
        text += &format!("\nblock    {height} {}, {tip_age_ms} ms old{signed}", self.tip);
        text += &format!("\nepoch    {epoch}, to block {}, protocol {protocol}", state.rules().last_of(epoch));
        text += &format!("\nlog      from block {}", self.status.earliest_height);
        for v1::RollupHead { rollup_id, name, number, hub_height, safe_number, finalized_number, .. } in
            &self.status.rollups
        {
            let behind = height.saturating_sub(*hub_height);
            text += &format!(
                "\nrollup   {rollup_id} {name} block {number} of hub block {hub_height} ({behind} before the newest), safe \
                 {safe_number}, finalized {finalized_number}"
            );
        }
        for error in &self.status.recent_errors {
            text += &format!("\nerror    {error}");
        }
        text
    }

    fn json(&self) -> Value {
        let rollups = self.status.rollups.iter().map(|head| {
            json!({
                "rollup": head.rollup_id,
                "name": head.name,
                "chain_id": head.chain_id,
                "number": head.number,
                "hub_height": head.hub_height,
                "safe": head.safe_number,
                "finalized": head.finalized_number,
            })
        });
        json!({
            "network": self.status.network,
            "network_id": self.network,
            "client_version": self.status.client_version,
            "height": self.height(),
            "hash": self.tip,
            "tip_age_ms": self.status.tip_age_ms,
            "view": self.status.view,
            "signers": self.status.signers,
            "seats": self.status.seats,
            "epoch": self.state.current().epoch(),
            "protocol": self.state.protocol(),
            "earliest_height": self.status.earliest_height,
            "rollups": rollups.collect::<Vec<_>>(),
            "recent_errors": self.status.recent_errors,
        })
    }
}

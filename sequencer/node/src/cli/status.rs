//! `switchyard status`: where a transaction is.

use super::{CliError, Connect, Printer, ShownStatus};
use std::io::Write;
use switchyard_primitives::{RollupId, TxHash};
use switchyard_proto::{to_bytes, v1};

/// Where a transaction is: its level, its place in the log, and what execution made of it.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusArgs {
    /// The node.
    #[command(flatten)]
    pub connect: Connect,
    /// The rollup's id
    #[arg(long, value_name = "ID")]
    pub rollup: RollupId,
    /// The transaction's hash
    pub hash: TxHash,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the status. Exit code 2 if the transaction was refused or dropped, 3 if the node knows nothing of it.
pub async fn status(args: StatusArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let mut node = args.connect.open().await?;
    let request = v1::GetTransactionStatusRequest { rollup_id: args.rollup.0, hash: to_bytes(args.hash) };
    let answer = node.sequencer.get_transaction_status(request).await?.into_inner();
    let shown = ShownStatus::new(args.hash, answer.status)?;
    Printer { out, json: args.json }.print(|| shown.human(), || shown.json())?;
    shown.verdict()
}

//! `switchyard verify`: proves a rollup's part of the log against the validator set.

use super::{
    CliError, Connect, Node, Printer,
    light::{Follower, Trust, Verified, verify_segment},
};
use crate::genesis::Genesis;
use serde_json::json;
use std::{io::Write, path::PathBuf};
use switchyard_primitives::{B256, RollupId};
use switchyard_proto::v1;

/// Checks that what a node serves for a rollup is final, complete and in order. Trusts nothing but the genesis file.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// The node.
    #[command(flatten)]
    pub connect: Connect,
    /// The network's genesis file, which names the validators
    #[arg(long, value_name = "FILE")]
    pub genesis: PathBuf,
    /// The rollup's id
    #[arg(long, value_name = "ID")]
    pub rollup: RollupId,
    /// One block; without it and without --from, the newest one of the node
    #[arg(long, value_name = "HEIGHT", conflicts_with_all = ["from", "to"])]
    pub height: Option<u64>,
    /// The first of many blocks
    #[arg(long, value_name = "HEIGHT")]
    pub from: Option<u64>,
    /// The last of many blocks; without it the newest one of the node
    #[arg(long, value_name = "HEIGHT", requires = "from")]
    pub to: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was proven about a range of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Summary {
    first: Option<u64>,
    last: Option<(u64, B256)>,
    transactions: usize,
    bytes: usize,
    /// Blocks that hold something for the rollup.
    full: u64,
    /// Blocks that hold nothing for it.
    empty: u64,
    /// Fewest seats that signed for a block.
    signers_min: Option<usize>,
}

impl Summary {
    fn add(&mut self, block: &Verified) {
        self.first.get_or_insert(block.header.height);
        self.last = Some((block.header.height, block.hash));
        self.transactions += block.transactions.len();
        self.bytes += block.transactions.iter().map(|tx| tx.len()).sum::<usize>();
        *(if block.transactions.is_empty() { &mut self.empty } else { &mut self.full }) += 1;
        self.signers_min = Some(self.signers_min.unwrap_or(usize::MAX).min(block.signers));
    }
}

/// Verifies and prints what was proven. A node's lie is an error that names it: exit code 1.
pub async fn verify(args: VerifyArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let genesis = Genesis::load(&args.genesis)?;
    let mut trust = Trust::new(&genesis)?;
    let mut node = args.connect.open().await?;
    node.check_network(&trust)?;
    let mut summary = Summary::default();
    match args.from {
        Some(from) => {
            let to = args.to.map_or_else(|| node.tip(), Ok)?;
            node.follow_to(&mut trust, from).await?;
            trust = verify_range(&mut node, trust, args.rollup, from, to, &mut summary).await?;
        }
        None => {
            let height = args.height.map_or_else(|| node.tip(), Ok)?;
            let request = v1::GetSegmentRequest { rollup_id: args.rollup.0, height };
            node.follow_to(&mut trust, height).await?;
            let answer = node.blocks.get_segment(request).await?.into_inner();
            summary.add(&verify_segment(&trust, args.rollup, height, answer)?);
        }
    }
    print(&mut Printer { out, json: args.json }, &genesis.name, &trust, args.rollup, &summary)
}

async fn verify_range(
    node: &mut Node,
    trust: Trust,
    rollup: RollupId,
    from: u64,
    to: u64,
    summary: &mut Summary,
) -> Result<Trust, CliError> {
    let request = v1::StreamSegmentsRequest {
        rollup_id: rollup.0,
        from_height: from,
        to_height: Some(to),
        level: v1::Level::Final.into(),
        merge_empty: true,
    };
    let mut messages = node.blocks.stream_segments(request).await?.into_inner();
    let mut follower = Follower::new(trust, rollup, from);
    // Stops at the last block asked for, whatever the node goes on to send.
    while summary.last.is_none_or(|(last, _)| last < to) {
        let Some(message) = messages.message().await? else { break };
        for block in node.accept(&mut follower, message).await? {
            summary.add(&block);
        }
    }
    if summary.last.is_none_or(|(last, _)| last < to) {
        let message = format!("the node ended the stream before block {}", follower.next());
        return Err(CliError::Call { code: "ended".to_owned(), message });
    }
    Ok(follower.into_trust())
}

fn print(
    printer: &mut Printer<'_>,
    network: &str,
    trust: &Trust,
    rollup: RollupId,
    summary: &Summary,
) -> Result<(), CliError> {
    let (first, (last, hash)) = (summary.first.unwrap_or_default(), summary.last.unwrap_or_default());
    let seats = trust.client.seats(trust.client.newest()).map_or(0, |seats| seats.seats().len());
    let (seats, signers) = (seats, summary.signers_min.unwrap_or_default());
    let human = || {
        let Summary { transactions, bytes, full, empty, .. } = *summary;
        [
            format!("network  {network} {}", trust.network),
            format!("blocks   {first} to {last}: one chain, final, signed by at least {signers} of {seats} seats"),
            format!("rollup   {rollup}: {transactions} transactions of {bytes} bytes in {full} blocks, complete"),
            format!("absence  nothing for the rollup in {empty} blocks"),
            format!("last     {hash}"),
        ]
        .join("\n")
    };
    let json = || {
        json!({
            "network": { "name": network, "id": trust.network },
            "rollup": rollup,
            "from": first,
            "to": last,
            "last_hash": hash,
            "transactions": summary.transactions,
            "bytes": summary.bytes,
            "blocks_with_transactions": summary.full,
            "blocks_without": summary.empty,
            "signers_min": signers,
            "seats": seats,
        })
    };
    printer.print(human, json)
}

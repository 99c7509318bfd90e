//! `switchyard stream`: a rollup's segments from a height on.

use super::{
    CliError, Connect, Node, Printer,
    light::{Follower, Trust},
};
use crate::genesis::Genesis;
use serde_json::json;
use std::{io::Write, path::PathBuf};
use switchyard_primitives::{B256, Bytes, Header, RollupId, TxHash, keccak256};
use switchyard_proto::{ConvertError, ProvenSegment, v1};

/// Prints a rollup's segments from a height on, then follows the tip.
#[derive(Clone, Debug, clap::Args)]
pub struct StreamArgs {
    /// The node.
    #[command(flatten)]
    pub connect: Connect,
    /// The rollup's id
    #[arg(long, value_name = "ID")]
    pub rollup: RollupId,
    /// The first block's height
    #[arg(long, value_name = "HEIGHT")]
    pub from: u64,
    /// The last block's height; without it the stream follows the tip
    #[arg(long, value_name = "HEIGHT")]
    pub to: Option<u64>,
    /// Print blocks that hold nothing for the rollup too
    #[arg(long)]
    pub all: bool,
    /// Check every block's proofs against the genesis file's validators
    #[arg(long, requires = "genesis")]
    pub verify: bool,
    /// The network's genesis file
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// Print JSON, with the transactions' bytes in hex
    #[arg(long)]
    pub json: bool,
}

/// Streams until the last block, forever without one. When the stream breaks, the error says from where to go on.
pub async fn stream(args: StreamArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let trust = trust(&args)?;
    let mut node = args.connect.open().await?;
    let trust = match trust {
        Some(mut trust) => {
            node.check_network(&trust)?;
            node.follow_to(&mut trust, args.from).await?;
            Some(trust)
        }
        None => None,
    };
    let mut blocks = Blocks { next: args.from, follower: trust.map(|t| Follower::new(t, args.rollup, args.from)) };
    let mut printer = Printer { out, json: args.json };
    let request = v1::StreamSegmentsRequest {
        rollup_id: args.rollup.0,
        from_height: args.from,
        to_height: args.to,
        level: v1::Level::Final.into(),
        merge_empty: !args.all,
    };
    let mut messages = node.blocks.stream_segments(request).await?.into_inner();
    let ended = |blocks: &Blocks, source: CliError| CliError::Stream { next: blocks.next, source: Box::new(source) };
    while args.to.is_none_or(|to| blocks.next <= to) {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            Ok(None) => {
                let message = "the node ended the stream early".to_owned();
                return Err(ended(&blocks, CliError::Call { code: "ended".to_owned(), message }));
            }
            Err(status) => return Err(ended(&blocks, status.into())),
        };
        for block in blocks.accept(&mut node, message).await? {
            if args.all || !block.transactions.is_empty() {
                printer.print(|| block.human(), || block.json())?;
            }
        }
    }
    Ok(())
}

fn trust(args: &StreamArgs) -> Result<Option<Trust>, CliError> {
    match &args.genesis {
        Some(path) if args.verify => Ok(Some(Trust::new(&Genesis::load(path)?)?)),
        _ => Ok(None),
    }
}

/// Where the stream is, and what checks it.
struct Blocks {
    next: u64,
    follower: Option<Follower>,
}

impl Blocks {
    async fn accept(
        &mut self,
        node: &mut Node,
        message: v1::StreamSegmentsResponse,
    ) -> Result<Vec<ShownBlock>, CliError> {
        let blocks: Vec<ShownBlock> = match &mut self.follower {
            Some(follower) => {
                let verified = node.accept(follower, message).await?;
                let shown = |v: super::light::Verified| ShownBlock::new(v.header, v.transactions, true);
                verified.into_iter().map(shown).collect()
            }
            None => {
                let segments = message.blocks.into_iter().map(ProvenSegment::try_from);
                let shown = |s: ProvenSegment| ShownBlock::new(s.header, s.transactions, false);
                segments.map(|segment| segment.map(shown)).collect::<Result<_, ConvertError>>()?
            }
        };
        if let Some(last) = blocks.last() {
            self.next = last.header.height.saturating_add(1);
        }
        Ok(blocks)
    }
}

struct ShownBlock {
    header: Header,
    hash: B256,
    transactions: Vec<(TxHash, Bytes)>,
    verified: bool,
}

impl ShownBlock {
    fn new(header: Header, transactions: Vec<Bytes>, verified: bool) -> Self {
        let transactions = transactions.into_iter().map(|tx| (keccak256(&tx), tx)).collect();
        Self { header, hash: header.hash(), transactions, verified }
    }

    fn human(&self) -> String {
        let verified = if self.verified { " verified" } else { "" };
        let (height, at, count) = (self.header.height, self.header.timestamp_ms, self.transactions.len());
        let mut text = format!("block {height} {} at {at} ms: {count} transactions{verified}", self.hash);
        for (hash, bytes) in &self.transactions {
            text += &format!("\n  {hash} {} bytes", bytes.len());
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let transactions: Vec<_> =
            self.transactions.iter().map(|(hash, bytes)| json!({ "hash": hash, "bytes": bytes })).collect();
        json!({
            "height": self.header.height,
            "hash": self.hash,
            "timestamp_ms": self.header.timestamp_ms,
            "transactions": transactions,
            "verified": self.verified,
        })
    }
}

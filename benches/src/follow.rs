//! Watches final blocks.

use crate::{ledger::Ledger, payload, target::Target};
use alloy_primitives::keccak256;
use std::{sync::Arc, time::Instant};
use switchyard_primitives::{Header, RollupId};
use switchyard_proto::v1::{Level, StreamSegmentsRequest, StreamSegmentsResponse};
use tokio::time::{Duration, sleep};

const RECONNECT: Duration = Duration::from_millis(100);

/// How a transaction of the run is known.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// By the number in its payload; the run's mark.
    Number(u64),
    /// By its hash.
    Hash,
}

/// Tells the ledger of each transaction in a rollup's final segments from `height` on. Goes to the next validator where
/// one ends its stream. Never returns.
pub async fn follow(target: Target, rollup: RollupId, mut height: u64, known: Known, ledger: Arc<Ledger>) {
    for validator in usize::try_from(rollup.0).unwrap_or(0).. {
        let request = StreamSegmentsRequest {
            rollup_id: rollup.0,
            from_height: height,
            to_height: None,
            level: Level::Final.into(),
            merge_empty: true,
        };
        if let Ok(stream) = target.blocks(validator).stream_segments(request).await {
            let mut stream = stream.into_inner();
            while let Ok(Some(message)) = stream.message().await {
                height = note(&message, known, &ledger, height);
            }
        }
        sleep(RECONNECT).await;
    }
}

/// Notes a message's transactions; returns the height to go on from.
fn note(message: &StreamSegmentsResponse, known: Known, ledger: &Ledger, mut height: u64) -> u64 {
    let now = Instant::now();
    for block in &message.blocks {
        for transaction in &block.transactions {
            match known {
                Known::Number(run) => {
                    if let Some(seq) = payload::number(run, transaction) {
                        ledger.finalised(seq, now);
                    }
                }
                Known::Hash => ledger.finalised_hash(&keccak256(transaction), now),
            }
        }
        if let Ok(header) = Header::decode(&block.header) {
            height = header.height + 1;
        }
    }
    height
}

//! Blocks of verified headers, in chunks from all sources at a time.

use super::{
    Shared,
    fault::{Fault, pruned},
    plan::Fetched,
    sources::Source,
    trust::Judge,
};
use std::{ops::RangeInclusive, sync::Arc};
use switchyard_primitives::{Block, FinalityCertificate, Header, Limits};
use switchyard_proto::v1;
use tokio::{sync::mpsc, time::Instant};

/// Blocks of one chunk that were received and wait to be checked.
const UNCHECKED: usize = 4;

/// Takes chunks from the plan for one source, number `index`, for ever.
pub(super) async fn fetch(shared: Arc<Shared>, source: Arc<Source>, index: usize) {
    loop {
        shared.sources.usable(&source).await;
        let more = shared.work.notified();
        tokio::pin!(more);
        more.as_mut().enable();
        let patience = shared.timing.patience;
        let Some(heights) = shared.plan.take(&shared.skeleton, index, source.earliest(), patience) else {
            // A second source may be asked for a chunk although nothing has changed: look again after a while.
            let _ = tokio::time::timeout(patience, more).await;
            continue;
        };
        let fetched = tokio::time::timeout(shared.timing.chunk, chunk(&shared, &source, heights.clone())).await;
        let fetched = fetched.unwrap_or_else(|_| Err(Fault::slow("a chunk", shared.timing.chunk)));
        shared.plan.end(index, &heights);
        if let Err(fault) = fetched {
            shared.sources.leave_alone(&source, &fault);
        }
        shared.work.notify_waiters();
    }
}

/// Reads a chunk; each block is taken in as soon as it is checked. Checking runs beside receiving.
async fn chunk(shared: &Arc<Shared>, source: &Source, heights: RangeInclusive<u64>) -> Result<(), Fault> {
    let request = v1::StreamBlocksRequest { from_height: *heights.start(), to_height: Some(*heights.end()) };
    let mut client = source.blocks();
    let failed = |status: tonic::Status| match pruned(&status) {
        // No fault: it tells what it has, and is not asked for it again.
        Some(earliest) => {
            source.keeps_from(earliest.max(heights.start().saturating_add(1)));
            Fault::away("pruned", format!("keeps blocks from {earliest} on"))
        }
        None => status.into(),
    };
    let opened = tokio::time::timeout(shared.timing.answer, client.stream_blocks(request)).await;
    let opened = opened.map_err(|_| Fault::slow("StreamBlocks", shared.timing.answer))?;
    let mut blocks = opened.map_err(&failed)?.into_inner();
    let (unchecked, mut received) = mpsc::channel::<(u64, v1::StreamBlocksResponse)>(UNCHECKED);
    let worker = shared.clone();
    let checking = tokio::task::spawn_blocking(move || {
        while let Some((height, answer)) = received.blocking_recv() {
            let Some(header) = worker.skeleton.header(height) else {
                // Delivered by now: another source was faster.
                continue;
            };
            let fetched = check(&worker.judge, &worker.limits, &header, worker.skeleton.certificate(height), answer)?;
            worker.plan.put(height, fetched);
            worker.arrived.notify_one();
        }
        Ok(())
    });
    let since = Instant::now();
    let receive = async {
        // Stops at the last block asked for, whatever the source goes on to send.
        for height in heights.clone() {
            match blocks.message().await.map_err(&failed)? {
                Some(answer) => {
                    // Closed where the check has failed: it says why.
                    if unchecked.send((height, answer)).await.is_err() {
                        break;
                    }
                }
                None => return Err(Fault::bad("gap", format!("the stream ended before block {height}"))),
            }
        }
        Ok(())
    };
    let received = receive.await;
    drop(unchecked);
    let checked: Result<(), Fault> = checking.await.map_err(|e| Fault::away("stopping", e.to_string()))?;
    tracing::trace!(source = source.url(), ?heights, took_ms = since.elapsed().as_millis(), "a chunk");
    checked.and(received)
}

/// That an answer is the block of a verified header. `known` is a certificate that was checked already.
fn check(
    judge: &Judge,
    limits: &Limits,
    header: &Header,
    known: Option<FinalityCertificate>,
    answer: v1::StreamBlocksResponse,
) -> Result<Fetched, Fault> {
    let block = Block::decode(answer.block.into(), limits)?;
    if block.header != *header {
        let (expected, found) = (header.hash(), block.hash());
        return Err(Fault::bad("wrong_block", format!("block {} is {expected}, got {found}", header.height)));
    }
    block.check_commitments()?;
    let certificate = match known {
        Some(certificate) => Some(certificate),
        None if answer.certificate.is_empty() => None,
        None => {
            let certificate = FinalityCertificate::decode(&answer.certificate)?;
            judge.check_certificate(header, &certificate)?;
            Some(certificate)
        }
    };
    Ok(Fetched { block: Arc::new(block), certificate })
}

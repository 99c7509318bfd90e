//! Proofs of finality from one source. Every source is asked for them all the time, so that none can hide the tip; the first
//! that brings a proof is the one whose proof is checked.

use super::{Shared, fault::Fault, fault::pruned, sources::Source};
use std::sync::Arc;
use switchyard_primitives::FinalityProof;
use switchyard_proto::{ConvertError, v1};
use tokio::time::Instant;
use tonic::Streaming;

/// A stream that is further behind than this begins again at the tip.
const BEHIND_BLOCKS: u64 = 1024;

/// Follows a source for ever.
pub(super) async fn follow(shared: Arc<Shared>, source: Arc<Source>) {
    loop {
        shared.sources.usable(&source).await;
        if let Err(fault) = follow_once(&shared, &source).await {
            shared.sources.leave_alone(&source, &fault);
        }
    }
}

/// Until the stream should be opened anew, or a fault.
async fn follow_once(shared: &Arc<Shared>, source: &Source) -> Result<(), Fault> {
    let timing = &shared.timing;
    source.greet(shared.judge.network(), timing).await?;
    shared.sources.refresh();
    let mut next = shared.skeleton.tip().height.saturating_add(1);
    let request = v1::StreamFinalityRequest { from_height: next, to_height: None };
    let mut client = source.blocks();
    let opened = tokio::time::timeout(timing.answer, client.stream_finality(request)).await;
    let mut proofs = match opened.map_err(|_| Fault::slow("StreamFinality", timing.answer))? {
        Ok(response) => response.into_inner(),
        Err(status) => return Err(status.into()),
    };
    loop {
        shared.skeleton.room().await;
        let Some(proof) = message(shared, source, &mut proofs, next).await? else { return Ok(()) };
        let (Some(first), Some(last)) = (proof.headers.first(), proof.headers.last()) else {
            return Err(ConvertError::Missing { field: "finality.headers" }.into());
        };
        if first.height != next {
            return Err(Fault::bad("wrong_height", format!("expected block {next}, got {}", first.height)));
        }
        let (last, tip) = (last.height, shared.skeleton.tip().height);
        if last < next {
            return Err(Fault::bad("wrong_height", format!("a proof from {next} to {last}")));
        }
        next = last.saturating_add(1);
        if last <= tip {
            // Another source was faster.
            if tip - last > BEHIND_BLOCKS {
                return Ok(());
            }
            continue;
        }
        shared.seats_for(proof.certificate.epoch).await;
        let judge = shared.judge.clone();
        let checked = tokio::task::spawn_blocking(move || judge.check_proof(&proof).map(|()| proof)).await;
        let proof = checked.map_err(|e| Fault::away("stopping", e.to_string()))??;
        if shared.skeleton.extend(proof)? {
            shared.work.notify_waiters();
        }
    }
}

/// The next proof; none if the source is to be asked anew. Waits as long as it has nothing to bring.
async fn message(
    shared: &Shared,
    source: &Source,
    proofs: &mut Streaming<v1::StreamFinalityResponse>,
    next: u64,
) -> Result<Option<FinalityProof>, Fault> {
    let timing = &shared.timing;
    let (claimed, since) = (source.claimed(), Instant::now());
    // When others had what this one should have brought.
    let mut missed: Option<Instant> = None;
    loop {
        let tick = tokio::time::sleep(timing.tick);
        tokio::select! {
            message = proofs.message() => {
                return match message {
                    Ok(Some(message)) => {
                        let finality = message.finality.ok_or(ConvertError::Missing { field: "finality" })?;
                        Ok(Some((&finality).try_into()?))
                    }
                    Ok(None) => Err(Fault::away("ended", "the stream ended")),
                    Err(status) => match pruned(&status) {
                        Some(earliest) => Err(Fault::bad("pruned", format!("has no headers below {earliest}"))),
                        None => Err(status.into()),
                    },
                };
            }
            () = tick => {}
        }
        if source.is_dropped() {
            return Ok(None);
        }
        if shared.skeleton.tip().height >= next {
            let missed = *missed.get_or_insert_with(Instant::now);
            if missed.elapsed() > timing.silent {
                return Err(Fault::bad("stale", format!("others have proven block {next}, this one has not")));
            }
        } else if claimed >= next && since.elapsed() > timing.silent {
            return Err(Fault::bad(
                "unproven",
                format!("says that its tip is {claimed} and does not prove block {next}"),
            ));
        }
    }
}

//! What the sources' clocks show: a source's status says its tip's timestamp and age.

use super::{Timing, sources::Sources};
use crate::{
    clock::{INTERVAL, Offset, agreed},
    machine::{Machine as _, Tokio},
    metrics::Metrics,
};
use std::sync::Arc;
use switchyard_proto::v1::GetStatusRequest;
use tokio::time::Instant;

/// Asks every source every few seconds. What more than half of all sources agree on counts: none of them is trusted. Never
/// returns.
pub async fn watch_clocks(sources: Arc<Sources>, timing: Timing, metrics: Arc<Metrics>) {
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tick.tick().await;
        let asked = sources.all().iter().map(|source| async {
            let sent = Instant::now();
            let answer = tokio::time::timeout(timing.answer, source.status().get_status(GetStatusRequest {})).await;
            let (status, took) = (answer.ok()?.ok()?.into_inner(), sent.elapsed());
            // With an age of 0 it does not know its own clock.
            let shown_ms = status.tip?.timestamp_ms.saturating_add(status.tip_age_ms);
            (status.tip_age_ms > 0).then(|| (Offset::of_answer(shown_ms, Tokio.now_ms(), took), 1))
        });
        let heard: Vec<_> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        metrics.heard_clocks(agreed(&heard, sources.all().len() / 2 + 1));
    }
}

//! This machine's clock against those of other validators.

use super::node::{Seen, connect, network_of, now_ms};
use crate::operate::{Finding, Level};
use std::time::Instant;
use switchyard_primitives::B256;
use switchyard_proto::v1::{GetStatusRequest, status_service_client::StatusServiceClient};

/// Validators wait with their votes for blocks that are further ahead of their clocks than this.
const ERROR_MS: i64 = 500;
/// What NTP keeps with ease.
const WARNING_MS: i64 = 100;
/// A block that is final this long after its leader's timestamp was slow, or the clocks differ.
const LATE_MS: i64 = 5_000;

/// How far this clock is ahead of another validator's, in milliseconds, and how exact that is.
struct Offset {
    ahead_ms: i64,
    exact_ms: i64,
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A status says the tip's timestamp and its age: together the other's clock.
async fn offset(url: &str, network: Option<B256>) -> Result<Offset, String> {
    let channel = connect(url).await?;
    let found = network_of(channel.clone()).await?;
    if network.is_some_and(|expected| expected != found) {
        return Err(format!("serves another network, {found}"));
    }
    let mut client = StatusServiceClient::new(channel);
    let (before_ms, started) = (now_ms(), Instant::now());
    let status =
        client.get_status(GetStatusRequest {}).await.map_err(|status| status.message().to_owned())?.into_inner();
    let round_trip_ms = signed(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    let tip = status.tip.ok_or("has no tip")?;
    if status.tip_age_ms == 0 {
        return Err("its own tip is ahead of its clock".into());
    }
    let theirs = signed(tip.timestamp_ms.saturating_add(status.tip_age_ms));
    let ours = signed(before_ms).saturating_add(round_trip_ms / 2);
    Ok(Offset { ahead_ms: ours.saturating_sub(theirs), exact_ms: round_trip_ms / 2 + 1 })
}

fn direction(ahead_ms: i64) -> &'static str {
    if ahead_ms >= 0 { "ahead of" } else { "behind" }
}

fn judge(ahead_ms: i64, found: String) -> Finding {
    let remedy = "run chrony or systemd-timesyncd and check it with `timedatectl`";
    let means = "validators wait with their votes for blocks from the future, and this one's are late or early";
    match ahead_ms.unsigned_abs() {
        off if off >= ERROR_MS.unsigned_abs() => Finding::new("clock", Level::Error, found, means, remedy),
        off if off >= WARNING_MS.unsigned_abs() => Finding::new("clock", Level::Warning, found, means, remedy),
        _ => Finding::ok("clock", found),
    }
}

/// By other validators' answers; else by what the running node has heard of others; else by the timestamps of the blocks that
/// became final meanwhile; else unknown.
pub(super) async fn compare(
    against: &[String],
    network: Option<B256>,
    heard_ms: Option<i64>,
    blocks: &[Seen],
) -> Finding {
    let (mut offsets, mut failed) = (Vec::new(), Vec::new());
    for url in against {
        match offset(url, network).await {
            Ok(offset) => offsets.push(offset),
            Err(error) => failed.push(format!("{url}: {error}")),
        }
    }
    offsets.sort_by_key(|offset| offset.ahead_ms);
    if let Some(Offset { ahead_ms, exact_ms }) = offsets.get(offsets.len() / 2) {
        let off = ahead_ms.unsigned_abs();
        let found = format!(
            "{off} ms (give or take {exact_ms}) {} the median of {} validators",
            direction(*ahead_ms),
            offsets.len()
        );
        return judge(*ahead_ms, found);
    }
    // Where others agree with this clock, or are too few, the node says 0.
    if let Some(ahead_ms) = heard_ms.filter(|ms| ms.abs() >= WARNING_MS) {
        let off = ahead_ms.unsigned_abs();
        return judge(ahead_ms, format!("{off} ms {} more nodes' clocks than may lie", direction(ahead_ms)));
    }
    match by_blocks(blocks) {
        Some(finding) => finding,
        None => {
            let found = if failed.is_empty() { "nothing to compare with".into() } else { failed.join("; ") };
            let remedy = "run `timedatectl`, or name validators with --against URL";
            Finding::new("clock", Level::Unknown, found, "whether this clock is right is not known", remedy)
        }
    }
}

/// A block is final some time after its leader's clock said so: never before, and not seconds after.
fn by_blocks(blocks: &[Seen]) -> Option<Finding> {
    let lags: Vec<i64> =
        blocks.iter().map(|seen| signed(seen.now_ms).saturating_sub(signed(seen.timestamp_ms))).collect();
    let (least, most) = (*lags.iter().min()?, *lags.iter().max()?);
    let found = format!("blocks became final {least} to {most} ms after their leaders' clocks, by this one");
    if least < -WARNING_MS {
        return Some(judge(least, found));
    }
    if least > LATE_MS {
        let means = "this clock is ahead, or this node is catching up";
        let remedy = "run `timedatectl`; run this again when the node has caught up";
        return Some(Finding::new("clock", Level::Warning, found, means, remedy));
    }
    Some(Finding::ok("clock", found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(lags: &[i64]) -> Option<Level> {
        let base = 1_000_000_i64;
        let seen = |lag: &i64| Seen { timestamp_ms: 1_000_000, now_ms: (base + lag).try_into().unwrap() };
        by_blocks(&lags.iter().map(seen).collect::<Vec<_>>()).map(|finding| finding.level)
    }

    #[test]
    fn blocks_from_the_future_and_from_long_ago_tell_of_a_wrong_clock() {
        assert_eq!(level(&[]), None);
        assert_eq!(level(&[40, 60, 1200]), Some(Level::Ok));
        assert_eq!(level(&[-300, 60]), Some(Level::Warning));
        assert_eq!(level(&[-700, 60]), Some(Level::Error));
        assert_eq!(level(&[6_000, 7_000]), Some(Level::Warning));
    }
}

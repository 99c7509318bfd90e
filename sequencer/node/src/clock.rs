//! This node's clock against those of the leaders, by the blocks that become final.
//!
//! A block is final here some time after its leader's clock said its timestamp. If the newest ones all come from the future,
//! this clock is behind. One that is ahead makes every block look old, which readiness tells by the head's age.

use std::collections::VecDeque;

/// Blocks that are looked at: those of several leaders.
const BLOCKS: usize = 16;
/// As far behind, this validator waits with its votes (`builder::MAX_CLOCK_AHEAD_MS`).
pub(crate) const BEHIND_MS: i64 = 500;

/// The newest blocks' ages.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    lags_ms: VecDeque<i64>,
    is_behind: bool,
}

impl ClockWatch {
    /// Takes note of a block that has become final; returns the least age of the newest ones.
    pub(crate) fn saw(&mut self, timestamp_ms: u64, now_ms: u64) -> i64 {
        let signed = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
        if self.lags_ms.len() == BLOCKS {
            self.lags_ms.pop_front();
        }
        self.lags_ms.push_back(signed(now_ms).saturating_sub(signed(timestamp_ms)));
        let least = self.lags_ms.iter().copied().min().unwrap_or_default();
        let was_behind = std::mem::replace(&mut self.is_behind, least <= -BEHIND_MS);
        if self.is_behind && !was_behind {
            let behind_ms = least.unsigned_abs();
            tracing::error!(
                behind_ms,
                "this machine's clock is behind those of the leaders: votes are late; run chrony or systemd-timesyncd"
            );
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_behind_while_a_new_block_comes_from_the_future() {
        let mut watch = ClockWatch::default();
        assert_eq!((watch.saw(1_000, 1_040), watch.is_behind), (40, false));
        assert_eq!((watch.saw(10_900, 1_100), watch.is_behind), (-9_800, true));
        for _ in 1..BLOCKS {
            assert_eq!(watch.saw(2_000, 2_030), -9_800);
        }
        assert_eq!((watch.saw(2_000, 2_030), watch.is_behind), (30, false));
        assert_eq!(watch.saw(u64::MAX, 0), -i64::MAX);
    }
}

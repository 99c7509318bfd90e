//! This node's clock against other nodes'.
//!
//! - By what they say ([`Offset`]): each is asked what its clock shows, and what more of them agree on than may lie is held
//!   against this clock ([`agreed`]). Fewer liars than that change nothing, whatever they say or keep to themselves.
//! - By the blocks that become final ([`ClockWatch`]): a quorum has voted for none that was further ahead of its clocks than
//!   [`OFF_MS`]. If the newest ones come from the future, this clock is behind.
//!
//! Nothing is corrected by it: a node believes its own clock, and tells its operator.

use std::{collections::VecDeque, time::Duration};
use switchyard_rpc::http::Problem;

/// Blocks that are looked at: those of several leaders.
const BLOCKS: usize = 16;
/// So far behind, this validator's votes are late (`builder::MAX_CLOCK_AHEAD_MS`); so far ahead, its proposals are.
pub(crate) const OFF_MS: i64 = 500;
/// How often other nodes are asked.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer counts.
pub(crate) const FRESH: Duration = Duration::from_secs(30);
const REMEDY: &str = "run chrony or systemd-timesyncd";

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// How far this clock is ahead of another one, in milliseconds: no less than `least` and no more than `most`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offset {
    least: i64,
    most: i64,
}

impl Offset {
    /// The other clock has shown `theirs_ms` at some time between a question and its answer, which came after `took`, at
    /// `ours_ms`.
    pub(crate) fn of_answer(theirs_ms: u64, ours_ms: u64, took: Duration) -> Self {
        let most = signed(ours_ms).saturating_sub(signed(theirs_ms));
        Self { least: most.saturating_sub(i64::try_from(took.as_millis()).unwrap_or(i64::MAX)), most }
    }
}

/// How far this clock is ahead of others', or behind them where it is below 0: the most that `need` of them say, by their
/// weights, each at the least. 0 where fewer say that it is wrong.
pub(crate) fn agreed(offsets: &[(Offset, usize)], need: usize) -> i64 {
    let by_need = |mut claims: Vec<(i64, usize)>| {
        claims.sort_unstable_by_key(|(ms, _)| std::cmp::Reverse(*ms));
        let mut sum = 0;
        let enough = claims.into_iter().find(|(_, weight)| {
            sum += weight;
            sum >= need
        });
        enough.map_or(0, |(ms, _)| ms.max(0))
    };
    let ahead = by_need(offsets.iter().map(|(offset, weight)| (offset.least, *weight)).collect());
    let behind = by_need(offsets.iter().map(|(offset, weight)| (offset.most.saturating_neg(), *weight)).collect());
    if ahead >= behind { ahead } else { -behind }
}

/// What is wrong with this clock, by what others agree on and by the newest final blocks.
pub(crate) fn problem(offset_ms: i64, lag_ms: i64) -> Option<Problem> {
    let off = offset_ms.unsigned_abs();
    let told =
        |direction: &str| format!("this clock is {off} ms {direction} more nodes' clocks than may lie: {REMEDY}");
    let (code, message) = if offset_ms >= OFF_MS {
        ("clock_ahead", told("ahead of"))
    } else if offset_ms <= -OFF_MS {
        ("clock_behind", told("behind"))
    } else if lag_ms <= -OFF_MS {
        let behind = lag_ms.unsigned_abs();
        ("clock_behind", format!("this clock is at least {behind} ms behind a leader's: {REMEDY}"))
    } else {
        return None;
    };
    Some(Problem { code, message })
}

/// What is known of this clock; says in the log when it becomes wrong, and when it is right again.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    lags_ms: VecDeque<i64>,
    offset_ms: i64,
    is_wrong: bool,
}

impl ClockWatch {
    /// Takes note of a block that has become final; returns the least age of the newest ones.
    pub(crate) fn saw(&mut self, timestamp_ms: u64, now_ms: u64) -> i64 {
        if self.lags_ms.len() == BLOCKS {
            self.lags_ms.pop_front();
        }
        self.lags_ms.push_back(signed(now_ms).saturating_sub(signed(timestamp_ms)));
        self.judge();
        self.lag_ms()
    }

    /// Takes note of what other nodes agree on.
    pub(crate) fn heard(&mut self, offset_ms: i64) {
        self.offset_ms = offset_ms;
        self.judge();
    }

    fn lag_ms(&self) -> i64 {
        self.lags_ms.iter().copied().min().unwrap_or_default()
    }

    fn judge(&mut self) {
        let problem = problem(self.offset_ms, self.lag_ms());
        match (&problem, self.is_wrong) {
            (Some(Problem { code, message }), false) => tracing::error!(code, "{message}"),
            (None, true) => tracing::info!("this clock agrees with others again"),
            _ => {}
        }
        self.is_wrong = problem.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_clock_is_behind_while_a_new_block_comes_from_the_future() {
        let mut watch = ClockWatch::default();
        assert_eq!((watch.saw(1_000, 1_040), watch.is_wrong), (40, false));
        assert_eq!((watch.saw(10_900, 1_100), watch.is_wrong), (-9_800, true));
        for _ in 1..BLOCKS {
            assert_eq!(watch.saw(2_000, 2_030), -9_800);
        }
        assert_eq!((watch.saw(2_000, 2_030), watch.is_wrong), (30, false));
        assert_eq!(watch.saw(u64::MAX, 0), -i64::MAX);
    }

    #[test]
    fn a_clock_is_wrong_while_others_agree_that_it_is() {
        let mut watch = ClockWatch::default();
        watch.heard(OFF_MS - 1);
        assert!(!watch.is_wrong);
        watch.heard(-10_000);
        watch.saw(1_000, 1_040);
        assert!(watch.is_wrong);
        watch.heard(0);
        assert!(!watch.is_wrong);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_direction_and_a_remedy() {
        let code = |offset_ms, lag_ms| problem(offset_ms, lag_ms).map(|problem| problem.code);
        assert_eq!((code(0, 40), code(499, 40), code(-499, -499)), (None, None, None));
        assert_eq!(
            (code(500, 40), code(-500, 40), code(0, -500)),
            (Some("clock_ahead"), Some("clock_behind"), Some("clock_behind"))
        );
        // A clock that is ahead cannot be behind a leader's that is right.
        assert_eq!(code(10_000, -600), Some("clock_ahead"));
        let told = problem(9_980, 40).unwrap().message;
        assert!(told.contains("9980 ms ahead of") && told.contains("chrony"), "{told}");
    }

    /// Exact to the millisecond.
    fn exact(ahead_ms: i64) -> Offset {
        Offset { least: ahead_ms, most: ahead_ms }
    }

    #[test]
    fn an_answer_is_no_more_exact_than_its_way_was_long() {
        let offset = Offset::of_answer(1_000, 11_000, Duration::from_millis(80));
        assert_eq!(offset, Offset { least: 9_920, most: 10_000 });
        assert_eq!(agreed(&[(offset, 1)], 1), 9_920);
        let slow = Offset::of_answer(1_000, 2_500, Duration::from_secs(2));
        assert_eq!(agreed(&[(slow, 1)], 1), 0, "it may all have been the way");
        assert_eq!(agreed(&[(Offset::of_answer(u64::MAX, 0, Duration::MAX), 1)], 1), -i64::MAX);
    }

    #[test]
    fn of_four_validators_one_cannot_lie_and_two_are_believed() {
        let liar = exact(-3_600_000);
        assert_eq!(agreed(&[(liar, 1), (exact(2), 1), (exact(-1), 1)], 2), -1, "what the next one says");
        assert_eq!(agreed(&[(liar, 1), (exact(10_002), 1), (exact(9_999), 1)], 2), 9_999, "nor can it hide the truth");
        assert_eq!(agreed(&[(liar, 1), (exact(-10_002), 1), (exact(-9_999), 1)], 2), -10_002);
        assert_eq!(agreed(&[(exact(9_000), 1)], 2), 0, "one alone says nothing");
        assert_eq!(agreed(&[(exact(9_000), 2)], 2), 9_000, "unless it has the seats");
    }

    proptest! {
        /// `f` liars say what they want, the `2 f` others that are not this one are right within 50 ms.
        #[test]
        fn a_minority_moves_it_no_further_than_an_honest_clock_is(
            lies in proptest::collection::vec(-100_000_000_i64..100_000_000, 0..8),
            truths in proptest::collection::vec(-50_i64..50, 16),
            ahead_ms in -20_000_i64..20_000,
        ) {
            let f = lies.len();
            let honest = &truths[..2 * f];
            let all = lies.iter().copied().chain(honest.iter().map(|error| ahead_ms + error));
            let all: Vec<_> = all.map(|ms| (exact(ms), 1)).collect();
            let found = agreed(&all, f + 1);
            prop_assert!(f == 0 && found == 0 || (found - ahead_ms).abs() <= 50, "{found} for {ahead_ms}");
        }
    }
}

//! How much somebody may do in a time.

use std::time::Duration;
use tokio::time::Instant;

/// So much at once, given back at so much a second (the generic cell rate algorithm, ITU-T I.371: one point in time a
/// user).
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// The time in which one unit is given back.
    each: Duration,
    /// The time in which everything is.
    whole: Duration,
    /// When everything will be there again.
    full_at: Instant,
}

impl Allowance {
    pub(super) fn new(per_second: u32, at_once: u32) -> Self {
        let each = Duration::from_secs(1) / per_second.max(1);
        Self { each, whole: each * at_once, full_at: Instant::now() }
    }

    /// Takes `cost`; otherwise takes nothing and says how long until it can.
    pub(super) fn take(&mut self, cost: u32, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + self.each * cost;
        let beyond = (full_at - now).saturating_sub(self.whole);
        if !beyond.is_zero() {
            return Err(beyond);
        }
        self.full_at = full_at;
        Ok(())
    }

    /// Takes `cost` whether it is there or not; says how long until it would have been.
    pub(super) fn owe(&mut self, cost: u32, now: Instant) -> Option<Duration> {
        self.full_at = self.full_at.max(now) + self.each * cost;
        Some((self.full_at - now).saturating_sub(self.whole)).filter(|wait| !wait.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_with_time_and_never_more() {
        let mut allowance = Allowance::new(10, 20);
        let now = Instant::now();
        let after = |ms| now + Duration::from_millis(ms);
        assert_eq!(allowance.take(21, now), Err(Duration::from_millis(100)));
        assert_eq!(allowance.take(15, now), Ok(()));
        assert_eq!(allowance.take(5, now), Ok(()));
        assert_eq!(allowance.take(3, now), Err(Duration::from_millis(300)));
        assert!(allowance.take(3, after(299)).is_err());
        assert_eq!(allowance.take(3, after(300)), Ok(()));
        assert!(allowance.take(1, after(300)).is_err());
        assert_eq!(allowance.take(20, after(1_000_000)), Ok(()));
        assert!(allowance.take(1, after(1_000_000)).is_err());
    }

    #[test]
    fn what_is_owed_is_waited_for() {
        let mut allowance = Allowance::new(10, 20);
        let now = Instant::now();
        assert_eq!(allowance.owe(20, now), None);
        assert_eq!(allowance.owe(5, now), Some(Duration::from_millis(500)));
        assert_eq!(allowance.owe(5, now), Some(Duration::from_secs(1)));
        assert_eq!(allowance.owe(1, now + Duration::from_secs(2)), None);
    }
}

//! Once the network is well again, every honest validator goes on within a stated simulated time.

use super::{Verdict, violated};
use std::time::Duration;

/// Simulated time from the end of all faults to the end of a run.
pub const WITHIN: Duration = Duration::from_secs(20);
/// Blocks that every honest validator gets in this time, above the highest there was.
pub const BLOCKS: u64 = 5;

/// At the end of a run: `before` is the highest block when the faults ended, `heights` those of the honest validators' stores.
pub fn check(before: u64, heights: &[(usize, u64)]) -> Verdict {
    for (validator, height) in heights {
        if *height < before + BLOCKS {
            return violated(
                "progress",
                format!("validator {validator} is at {height}, {WITHIN:?} after the faults ended at {before}"),
            );
        }
    }
    Ok(())
}

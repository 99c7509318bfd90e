//! Where the power is cut, and what each validator's disk keeps.

use super::{
    disk::{Broken, Keep, Model},
    image::Image,
    record::Recording,
    trace::{Op, Trace},
};
use eyre::{Context as _, OptionExt as _};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{fmt, str::FromStr};

/// A case's name: the seed of a run, and the case's number in it. With a trace it says everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaseId {
    /// The run's seed.
    pub seed: u64,
    /// The number.
    pub index: u64,
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seed, self.index)
    }
}

impl FromStr for CaseId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').and_then(|(seed, index)| Some((seed.parse().ok()?, index.parse().ok()?)));
        parts.map(|(seed, index)| Self { seed, index }).ok_or("a case is SEED:NUMBER")
    }
}

impl CaseId {
    pub(super) fn rng(self) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.index))
    }
}

/// What becomes of one validator's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The process ends, the machine goes on.
    Killed,
    /// The power is cut.
    Cut(Model, Keep),
}

/// A cut.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// The last record before it.
    pub(super) record: usize,
    /// Of each validator.
    pub(super) fates: Vec<Fate>,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after record {}", self.record)?;
        for (index, fate) in self.fates.iter().enumerate() {
            match fate {
                Fate::Killed => write!(f, ", validator {index} killed")?,
                Fate::Cut(model, keep) => write!(f, ", validator {index} {model:?} {keep:?}")?,
            }
        }
        Ok(())
    }
}

/// Whether a file system has more to lose around it than in the middle of writes.
fn is_delicate(op: &Op) -> bool {
    match op {
        Op::Open { create, truncate, .. } => *create || *truncate,
        Op::Write { .. } | Op::Close { .. } | Op::Dup { .. } | Op::SyncBegins { .. } => false,
        Op::Voted(_) | Op::Final { .. } => false,
        Op::Truncate { .. } | Op::Rename { .. } | Op::Link { .. } | Op::Unlink { .. } => true,
        Op::Start(_) | Op::RemoveFolder { .. } | Op::MakeFolder { .. } | Op::SyncEnds { .. } => true,
    }
}

impl Cut {
    /// One of a trace's cuts. Half of them are where names change or syncs end.
    pub(super) fn choose(trace: &Trace, rng: &mut StdRng) -> eyre::Result<Self> {
        let all = 0..trace.0.len();
        let delicate: Vec<usize> = all.clone().filter(|at| is_delicate(&trace.0[*at].op)).collect();
        let mut record = match rng.random_bool(0.5) {
            true => delicate[rng.random_range(0..delicate.len())].saturating_sub(rng.random_range(0..2)),
            false => rng.random_range(all),
        };
        // What left the processes before they changed anything more belongs before the cut.
        while trace.0.get(record + 1).is_some_and(|next| next.op.is_mark()) {
            record += 1;
        }
        let nodes = trace.nodes();
        let whole = nodes == 1 || rng.random_bool(0.5);
        let victim = rng.random_range(0..nodes);
        let fates = (0..nodes).map(|index| match whole || index == victim {
            true => fate(rng),
            false => Fate::Killed,
        });
        Ok(Self { record, fates: fates.collect() })
    }

    /// The folders after it.
    pub(super) fn images(
        &self,
        recording: &Recording,
        broken: Option<&Broken>,
        rng: &mut StdRng,
    ) -> eyre::Result<Vec<Image>> {
        let mut disks = recording.disks();
        if let Some(broken) = broken {
            disks.iter_mut().for_each(|disk| disk.break_syncs(broken));
        }
        for (place, record) in recording.trace.0[..=self.record].iter().enumerate() {
            let disk = disks.get_mut(record.node).ok_or_eyre("a process that is no validator's")?;
            disk.apply(&record.op).wrap_err_with(|| format!("record {place}"))?;
        }
        let after = disks.iter().zip(&self.fates).map(|(disk, fate)| match fate {
            Fate::Killed => disk.seen(),
            Fate::Cut(model, keep) => disk.cut(*model, *keep, rng),
        });
        Ok(after.collect())
    }
}

fn fate(rng: &mut StdRng) -> Fate {
    let model = [Model::Ordered, Model::Posix][rng.random_range(0..2)];
    let keep = match rng.random_range(0..8) {
        0 => Keep::Nothing,
        1 => Keep::All,
        2 | 3 => Keep::Prefix,
        4 | 5 => Keep::Sectors,
        _ => Keep::Mixed,
    };
    Fate::Cut(model, keep)
}

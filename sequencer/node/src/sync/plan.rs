//! Which blocks are asked for next, and those that came before their turn.

use super::skeleton::Skeleton;
use parking_lot::Mutex;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};
use switchyard_primitives::{Block, FinalityCertificate};
use tokio::time::Instant;

/// Blocks in one request.
const CHUNK_BLOCKS: u64 = 64;
/// Bytes of bodies in one request, unless one block has more.
const CHUNK_BYTES: u64 = 4 << 20;
/// Bytes of bodies that are asked for or wait for their turn, unless one chunk has more.
const WINDOW_BYTES: u64 = 48 << 20;
/// The same in blocks.
const WINDOW_BLOCKS: u64 = 2048;

/// A block that was checked against its header.
pub(super) struct Fetched {
    pub(super) block: Arc<Block>,
    pub(super) certificate: Option<FinalityCertificate>,
}

/// A range that was given out.
struct Out {
    heights: RangeInclusive<u64>,
    to: usize,
    since: Instant,
}

struct Inner {
    /// The first height that was never given out.
    fresh: u64,
    /// Ranges that came back, by their first height.
    back: BTreeMap<u64, u64>,
    out: Vec<Out>,
    ready: BTreeMap<u64, Fetched>,
    /// The next height to deliver.
    deliver: u64,
}

/// The plan.
pub(super) struct Plan(Mutex<Inner>);

impl Plan {
    /// Delivery begins above `tip`.
    pub(super) fn new(tip: u64) -> Self {
        let next = tip.saturating_add(1);
        let (back, ready) = (BTreeMap::new(), BTreeMap::new());
        Self(Mutex::new(Inner { fresh: next, back, out: Vec::new(), ready, deliver: next }))
    }

    /// Heights for source number `to`, which keeps blocks from `earliest` on. What holds everything up and does not come is
    /// given out a second time after `patience`.
    pub(super) fn take(
        &self,
        skeleton: &Skeleton,
        to: usize,
        earliest: u64,
        patience: Duration,
    ) -> Option<RangeInclusive<u64>> {
        let mut inner = self.0.lock();
        let heights = inner.returned(earliest).or_else(|| inner.fresh(skeleton, earliest));
        let heights = heights.or_else(|| inner.overdue(to, earliest, patience))?;
        inner.out.push(Out { heights: heights.clone(), to, since: Instant::now() });
        Some(heights)
    }

    /// Takes in a block; those that are there already are left.
    pub(super) fn put(&self, height: u64, fetched: Fetched) {
        let mut inner = self.0.lock();
        if height >= inner.deliver {
            inner.ready.entry(height).or_insert(fetched);
        }
    }

    /// Source number `to` is done with a range; what it has not brought is given to others.
    pub(super) fn end(&self, to: usize, heights: &RangeInclusive<u64>) {
        let mut inner = self.0.lock();
        if let Some(at) = inner.out.iter().position(|out| out.to == to && out.heights == *heights) {
            inner.out.swap_remove(at);
        }
        let missing: Vec<u64> = heights
            .clone()
            .filter(|height| *height >= inner.deliver && !inner.ready.contains_key(height))
            .filter(|height| !inner.out.iter().any(|out| out.heights.contains(height)))
            .collect();
        for run in missing.chunk_by(|a, b| a + 1 == *b) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                inner.back.insert(*first, *last);
            }
        }
    }

    /// The next block in order, if it is there.
    pub(super) fn next(&self) -> Option<(u64, Fetched)> {
        let mut inner = self.0.lock();
        let height = inner.deliver;
        let fetched = inner.ready.remove(&height)?;
        inner.deliver = height.saturating_add(1);
        Some((height, fetched))
    }

    /// The next height to deliver.
    pub(super) fn deliver(&self) -> u64 {
        self.0.lock().deliver
    }
}

impl Inner {
    fn returned(&mut self, earliest: u64) -> Option<RangeInclusive<u64>> {
        let (first, last) = self.back.iter().find(|(first, _)| **first >= earliest).map(|(f, l)| (*f, *l))?;
        self.back.remove(&first);
        Some(first..=last)
    }

    fn fresh(&mut self, skeleton: &Skeleton, earliest: u64) -> Option<RangeInclusive<u64>> {
        let first = self.fresh;
        if first < earliest || first - self.deliver >= WINDOW_BLOCKS || self.window_bytes(skeleton) >= WINDOW_BYTES {
            return None;
        }
        let (mut last, mut bytes) = (None, 0);
        for height in first..first.saturating_add(CHUNK_BLOCKS) {
            let Some(header) = skeleton.header(height) else { break };
            bytes += u64::from(header.body_bytes);
            if last.is_some() && bytes > CHUNK_BYTES {
                break;
            }
            last = Some(height);
        }
        let last = last?;
        self.fresh = last + 1;
        Some(first..=last)
    }

    /// Bytes of bodies between the next block to deliver and the first that was never given out.
    fn window_bytes(&self, skeleton: &Skeleton) -> u64 {
        let headers = (self.deliver..self.fresh).filter_map(|height| skeleton.header(height));
        headers.map(|header| u64::from(header.body_bytes)).sum()
    }

    fn overdue(&self, to: usize, earliest: u64, patience: Duration) -> Option<RangeInclusive<u64>> {
        let first = self.deliver;
        if first < earliest || self.ready.contains_key(&first) {
            return None;
        }
        let mut holders = self.out.iter().filter(|out| out.heights.contains(&first)).peekable();
        let last = *holders.peek()?.heights.end();
        holders.all(|out| out.to != to && out.since.elapsed() > patience).then_some(first..=last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchyard_primitives::{B256, FinalityProof, Header, SignerBitmap};

    const NOW: Duration = Duration::ZERO;
    const LATER: Duration = Duration::from_secs(3600);

    /// A chain of empty blocks above genesis with bodies of `body_bytes`, and its headers.
    fn chain(count: u64, body_bytes: u32) -> Skeleton {
        let genesis = Header::genesis(B256::ZERO, 0, B256::ZERO);
        let skeleton = Skeleton::new(&genesis, genesis.hash());
        let mut headers = vec![];
        let mut parent = genesis;
        for height in 1..=count {
            parent = Header { parent: parent.hash(), height, body_bytes, ..parent };
            headers.push(parent);
        }
        let signers = SignerBitmap::new(1, [0]);
        let (block, signature) = (parent.hash(), [0; 96]);
        let certificate = FinalityCertificate { epoch: 0, view: 1, parent_view: 0, block, signers, signature };
        assert_eq!(skeleton.extend(FinalityProof { headers, certificate }), Ok(true));
        skeleton
    }

    fn fetched(skeleton: &Skeleton, height: u64) -> Fetched {
        let block = Arc::new(Block::genesis(skeleton.header(height).unwrap()));
        Fetched { block, certificate: None }
    }

    #[test]
    fn chunks_are_bounded_by_blocks_and_by_bytes_and_so_is_all_that_is_out() {
        let small = chain(5000, 4);
        let plan = Plan::new(0);
        let taken: Vec<_> = std::iter::from_fn(|| plan.take(&small, 0, 0, LATER)).collect();
        assert_eq!((taken[0].clone(), taken.len() as u64), (1..=64, WINDOW_BLOCKS / CHUNK_BLOCKS));
        let large = chain(100, 2 << 20);
        let plan = Plan::new(0);
        let taken: Vec<_> = std::iter::from_fn(|| plan.take(&large, 0, 0, LATER)).collect();
        assert_eq!((taken[0].clone(), taken.len()), (1..=2, 12));
        let huge = chain(3, 64 << 20);
        let plan = Plan::new(0);
        assert_eq!((plan.take(&huge, 0, 0, LATER), plan.take(&huge, 0, 0, LATER)), (Some(1..=1), None));
    }

    #[test]
    fn blocks_leave_in_order_whoever_brings_them_and_what_one_does_not_bring_goes_to_another() {
        let skeleton = chain(100, 4);
        let plan = Plan::new(0);
        let (one, two) = (plan.take(&skeleton, 0, 0, LATER).unwrap(), plan.take(&skeleton, 1, 0, LATER).unwrap());
        assert_eq!((one.clone(), two.clone(), plan.take(&skeleton, 2, 0, LATER)), (1..=64, 65..=100, None));
        for height in two.clone() {
            plan.put(height, fetched(&skeleton, height));
        }
        plan.end(1, &two);
        assert!(plan.next().is_none());
        for height in (1..=10).chain(20..=30) {
            plan.put(height, fetched(&skeleton, height));
        }
        plan.end(0, &one);
        // A source that keeps nothing so old gets nothing.
        assert_eq!(plan.take(&skeleton, 2, 70, LATER), None);
        let back: Vec<_> = std::iter::from_fn(|| plan.take(&skeleton, 2, 0, LATER)).collect();
        assert_eq!(back, [11..=19, 31..=64]);
        for height in (11..=19).chain(31..=64) {
            plan.put(height, fetched(&skeleton, height));
        }
        let delivered: Vec<u64> = std::iter::from_fn(|| plan.next()).map(|(height, _)| height).collect();
        assert_eq!(delivered, (1..=100).collect::<Vec<_>>());
        // What comes again is of no use.
        plan.put(5, fetched(&skeleton, 5));
        assert!(plan.next().is_none());
    }

    #[test]
    fn what_holds_everything_up_is_asked_of_a_second_source() {
        let skeleton = chain(64, 4);
        let plan = Plan::new(0);
        assert_eq!(plan.take(&skeleton, 0, 0, LATER), Some(1..=64));
        for height in 1..=9 {
            plan.put(height, fetched(&skeleton, height));
            plan.next().unwrap();
        }
        assert_eq!((plan.take(&skeleton, 1, 0, LATER), plan.take(&skeleton, 0, 0, NOW)), (None, None));
        assert_eq!(plan.take(&skeleton, 1, 0, NOW), Some(10..=64));
        // While the second one is at it, the first one's end gives nothing back.
        plan.end(0, &(1..=64));
        assert_eq!(plan.take(&skeleton, 2, 0, LATER), None);
        plan.end(1, &(10..=64));
        assert_eq!(plan.take(&skeleton, 2, 0, LATER), Some(10..=64));
    }
}

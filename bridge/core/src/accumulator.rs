//! Append-only Merkle trees of which only the right edge is needed to append and to know the root.
//!
//! The tree is that of `docs/specs/blocks.md` ([`switchyard_primitives::merkle`]); here is how it grows. A
//! *full* node covers `2^level` leaves and never changes again. Bit `level` of the count says whether the edge has a full
//! node of that level; from the left to the right these cover all leaves, the largest first.

use alloy_primitives::{B256, keccak256};
use switchyard_primitives::{DecodeError, Reader, Writer, merkle};

/// What is published of a tree, since a root alone does not fix the number of leaves: keccak-256 of
/// `count u64 | root 32`.
pub fn seal(count: u64, root: B256) -> B256 {
    let mut w = Writer::with_capacity(40);
    w.u64(count);
    w.raw(root.as_slice());
    keccak256(w.into_vec())
}

/// A full node: the one over the leaves from `position << level` on, `1 << level` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Height above the leaves' hashes, which are level 0.
    pub level: u8,
    /// Place among the nodes of the level, from the left.
    pub position: u64,
}

/// The tree holds [`Accumulator::COUNT_MAX`] leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an accumulator holds no more than {} leaves", Accumulator::COUNT_MAX)]
pub struct AccumulatorFull;

/// The right edge of an append-only tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accumulator {
    count: u64,
    /// The edge's full nodes by level; where the count has no bit, what is left over from before.
    partials: Vec<B256>,
}

impl Accumulator {
    /// Most leaves that a tree holds; so a path has at most 48 siblings.
    pub const COUNT_MAX: u64 = (1 << 48) - 1;
    /// Number of levels of the edge.
    pub const LEVELS: u64 = 48;

    /// Reads the edge from where a contract keeps it: the count in slot 0, the partial of level `l` in slot `1 + l`. Asks
    /// for the slots that matter and no others. `None` if the count is above [`Self::COUNT_MAX`].
    pub fn from_slots(mut slot: impl FnMut(u64) -> B256) -> Option<Self> {
        let word = slot(0);
        let (high, low) = word.split_at(24);
        let count = u64::from_be_bytes(low.try_into().ok()?);
        if high.iter().any(|byte| *byte != 0) || count > Self::COUNT_MAX {
            return None;
        }
        let levels = u64::from(u64::BITS - count.leading_zeros());
        let partials =
            (0..levels).map(|level| if count >> level & 1 == 1 { slot(1 + level) } else { B256::ZERO }).collect();
        Some(Self { count, partials })
    }

    /// The edge of a tree when it had `count` leaves, from its full nodes; `None` if one is missing.
    pub fn at(count: u64, mut node: impl FnMut(NodeId) -> Option<B256>) -> Option<Self> {
        let mut partials = Vec::new();
        for level in 0..u64::BITS - count.leading_zeros() {
            let position = (count >> level).wrapping_sub(1);
            let id = NodeId { level: u8::try_from(level).ok()?, position };
            partials.push(if count >> level & 1 == 1 { node(id)? } else { B256::ZERO });
        }
        Some(Self { count, partials })
    }

    /// The full nodes of the edge, the lowest first: all that is needed to go on.
    pub fn edge(&self) -> Vec<(NodeId, B256)> {
        let full = (0u8..).zip(&self.partials).filter(|(level, _)| self.count >> level & 1 == 1);
        full.map(|(level, node)| (NodeId { level, position: (self.count >> level) - 1 }, *node)).collect()
    }

    /// `count u64`, then the edge's nodes, the lowest first: one for each bit of the count.
    pub fn write(&self, w: &mut Writer) {
        w.u64(self.count);
        let full = self.partials.iter().enumerate().filter(|(level, _)| self.count >> level & 1 == 1);
        full.for_each(|(_, node)| w.raw(node.as_slice()));
    }

    /// Reads [`Self::write`]'s layout.
    pub fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let count = r.u64("accumulator.count")?;
        if count > Self::COUNT_MAX {
            return Err(DecodeError::TooLarge { field: "accumulator.count", value: count, limit: Self::COUNT_MAX });
        }
        let levels = 0..u64::BITS - count.leading_zeros();
        let node = |level| if count >> level & 1 == 1 { r.b256("accumulator.node") } else { Ok(B256::ZERO) };
        Ok(Self { count, partials: levels.map(node).collect::<Result<_, _>>()? })
    }

    /// Number of leaves.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds a leaf and returns its index. Tells of each full node that this makes, lowest first: kept, they are what
    /// [`path`] needs.
    pub fn append(&mut self, leaf: B256, mut made: impl FnMut(NodeId, B256)) -> Result<u64, AccumulatorFull> {
        let index = self.count;
        if index >= Self::COUNT_MAX {
            return Err(AccumulatorFull);
        }
        let mut hash = merkle::leaf_hash(leaf);
        let mut level = 0;
        made(NodeId { level, position: index }, hash);
        for partial in self.partials.iter().take(index.trailing_ones() as usize) {
            hash = merkle::node_hash(*partial, hash);
            level += 1;
            made(NodeId { level, position: index >> level }, hash);
        }
        match self.partials.get_mut(usize::from(level)) {
            Some(partial) => *partial = hash,
            None => self.partials.push(hash),
        }
        self.count += 1;
        Ok(index)
    }

    /// The tree's root; zero for no leaves.
    pub fn tree_root(&self) -> B256 {
        let full = self.partials.iter().enumerate().filter(|(level, _)| self.count >> level & 1 == 1);
        full.fold(None, |right, (_, left)| Some(join(*left, right))).unwrap_or_default()
    }

    /// What is published: [`seal`] of the count and the tree's root.
    pub fn root(&self) -> B256 {
        seal(self.count, self.tree_root())
    }
}

fn join(left: B256, right: Option<B256>) -> B256 {
    right.map_or(left, |right| merkle::node_hash(left, right))
}

/// The siblings of leaf `index` in the tree as it was when it had `count` leaves, from the leaf up: what
/// [`merkle::root_from_path`] takes. `node` looks up full nodes, of which about two for each level are asked for. `None`
/// if there is no such leaf or a node is missing.
pub fn path(index: u64, count: u64, mut node: impl FnMut(NodeId) -> Option<B256>) -> Option<Vec<B256>> {
    if index >= count {
        return None;
    }
    let mut siblings = Vec::new();
    let last = count - 1;
    for level in 0..u64::BITS - last.leading_zeros() {
        let sibling = (index >> level) ^ 1;
        if sibling > last >> level {
            continue;
        }
        let id = NodeId { level: u8::try_from(level).ok()?, position: sibling };
        let full = sibling < count >> level;
        siblings.push(if full { node(id)? } else { edge(id.level, count, &mut node)? });
    }
    Some(siblings)
}

/// The node of `level` that is not full: over the leaves that are left after the full nodes of that level.
fn edge(level: u8, count: u64, node: &mut impl FnMut(NodeId) -> Option<B256>) -> Option<B256> {
    let mut hash = None;
    for level in (0..level).filter(|level| count >> level & 1 == 1) {
        // The full node of the edge comes after all that larger ones cover, which is an even number of its size.
        let id = NodeId { level, position: (count >> level) - 1 };
        hash = Some(join(node(id)?, hash));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn leaves() -> impl Strategy<Value = Vec<B256>> {
        proptest::collection::vec(any::<[u8; 32]>().prop_map(B256::new), 1..100)
    }

    fn grown(leaves: &[B256]) -> (Accumulator, BTreeMap<NodeId, B256>) {
        let (mut tree, mut nodes) = (Accumulator::default(), BTreeMap::new());
        for leaf in leaves {
            tree.append(*leaf, |id, hash| assert_eq!(nodes.insert(id, hash), None)).unwrap();
        }
        (tree, nodes)
    }

    proptest! {
        #[test]
        fn the_root_is_that_of_all_leaves(leaves in leaves()) {
            let (tree, _) = grown(&leaves);
            prop_assert_eq!(tree.count(), leaves.len() as u64);
            prop_assert_eq!(tree.tree_root(), merkle::root(leaves.iter().copied()));
            prop_assert_eq!(tree.root(), seal(leaves.len() as u64, tree.tree_root()));
        }

        #[test]
        fn each_leaf_has_the_path_of_any_time_since_it_is_there(
            leaves in leaves(),
            index in any::<prop::sample::Index>(),
            count in any::<prop::sample::Index>(),
        ) {
            let (_, nodes) = grown(&leaves);
            let count = count.index(leaves.len()) + 1;
            let index = index.index(count);
            let found = path(index as u64, count as u64, |id| nodes.get(&id).copied());
            prop_assert_eq!(found, merkle::prove(&leaves[..count], index));
        }

        #[test]
        fn the_edge_is_written_and_found_again(leaves in leaves(), count in any::<prop::sample::Index>()) {
            let (tree, nodes) = grown(&leaves);
            let mut w = Writer::default();
            tree.write(&mut w);
            let mut r = Reader::new(w.into_bytes());
            prop_assert_eq!(Accumulator::read(&mut r).unwrap().root(), tree.root());
            prop_assert_eq!(r.finish(), Ok(()));
            let count = count.index(leaves.len() + 1);
            let found = Accumulator::at(count as u64, |id| nodes.get(&id).copied()).unwrap();
            prop_assert_eq!(found.root(), grown(&leaves[..count]).0.root());
        }

        #[test]
        fn a_missing_node_is_no_path_and_no_panic(leaves in leaves(), index: u64, count: u64, missing: usize) {
            let (_, mut nodes) = grown(&leaves);
            let gone = nodes.keys().nth(missing % nodes.len()).copied().unwrap();
            nodes.remove(&gone);
            let lookup = |id: NodeId| nodes.get(&id).copied();
            if let Some(path) = path(index % 120, count % 120, lookup) {
                let count = (count % 120) as usize;
                prop_assert_eq!(Some(path), merkle::prove(&leaves[..count], (index % 120) as usize));
            }
            prop_assert_eq!(super::path(index | 1 << 60, index | 1 << 61, lookup), None);
        }

        #[test]
        fn the_edge_can_be_read_from_a_contracts_slots(leaves in leaves(), junk: [u8; 32]) {
            let (mut tree, _) = grown(&leaves);
            // A level without a bit in the count holds what is left over.
            let slots = |slot: u64| match slot {
                0 => B256::left_padding_from(&tree.count.to_be_bytes()),
                _ if tree.count >> (slot - 1) & 1 == 1 => tree.partials[usize::try_from(slot).unwrap() - 1],
                _ => B256::new(junk),
            };
            let mut read = Accumulator::from_slots(slots).unwrap();
            prop_assert_eq!(read.root(), tree.root());
            for leaf in leaves {
                read.append(leaf, |_, _| ()).unwrap();
                tree.append(leaf, |_, _| ()).unwrap();
                prop_assert_eq!(read.root(), tree.root());
            }
        }
    }

    #[test]
    fn the_tree_of_no_leaves_has_root_zero() {
        assert_eq!(Accumulator::default().tree_root(), B256::ZERO);
        assert_eq!(Accumulator::default().root(), seal(0, B256::ZERO));
        assert_eq!(path(0, 0, |_| Some(B256::ZERO)), None);
    }

    #[test]
    fn a_full_tree_takes_no_more() {
        let count = |n: u64| B256::left_padding_from(&n.to_be_bytes());
        let slots = |slot| if slot == 0 { count(Accumulator::COUNT_MAX) } else { B256::ZERO };
        let mut tree = Accumulator::from_slots(slots).unwrap();
        assert_eq!(tree.append(B256::ZERO, |_, _| ()), Err(AccumulatorFull));
        assert_eq!(Accumulator::from_slots(|_| count(Accumulator::COUNT_MAX + 1)), None);
        assert_eq!(Accumulator::from_slots(|_| B256::repeat_byte(1)), None);
    }
}

//! Binary Merkle trees over keccak-256, cheap to check in Solidity.
//!
//! A leaf is hashed as `keccak(0x00 | leaf)` and a node as `keccak(0x01 | left | right)`, so that neither can be
//! taken for the other. A node without a sibling rises unchanged. The tree of no leaves has root zero. A tree's
//! root alone does not fix its number of leaves: whoever commits to a root hashes the count beside it.

use crate::{B256, keccak256};

/// Hash of one leaf.
pub fn leaf_hash(leaf: B256) -> B256 {
    let mut buf = [0; 33];
    buf[1..].copy_from_slice(leaf.as_slice());
    keccak256(buf)
}

/// Hash of a node with two children.
pub fn node_hash(left: B256, right: B256) -> B256 {
    let mut buf = [1; 65];
    buf[1..33].copy_from_slice(left.as_slice());
    buf[33..].copy_from_slice(right.as_slice());
    keccak256(buf)
}

fn parents(level: &[B256]) -> Vec<B256> {
    level
        .chunks(2)
        .map(|pair| match *pair {
            [left, right] => node_hash(left, right),
            [only] => only,
            _ => B256::ZERO,
        })
        .collect()
}

/// Root over `leaves` (values, not yet hashed).
pub fn root(leaves: impl IntoIterator<Item = B256>) -> B256 {
    let mut level: Vec<B256> = leaves.into_iter().map(leaf_hash).collect();
    while level.len() > 1 {
        level = parents(&level);
    }
    level.first().copied().unwrap_or(B256::ZERO)
}

/// Siblings from the leaf at `index` up to the root; levels at which the node has no sibling add nothing.
/// `None` if there is no such leaf.
pub fn prove(leaves: &[B256], index: usize) -> Option<Vec<B256>> {
    if index >= leaves.len() {
        return None;
    }
    let mut level: Vec<B256> = leaves.iter().copied().map(leaf_hash).collect();
    let (mut at, mut path) = (index, Vec::new());
    while level.len() > 1 {
        path.extend(level.get(at ^ 1));
        level = parents(&level);
        at /= 2;
    }
    Some(path)
}

/// The root that `leaf` at `index` of `count` leaves has with the siblings `path`; `None` if the path's length or the
/// index cannot belong to such a tree.
pub fn root_from_path(leaf: B256, index: u64, count: u64, path: &[B256]) -> Option<B256> {
    if index >= count {
        return None;
    }
    let (mut hash, mut at, mut width) = (leaf_hash(leaf), index, count);
    let mut siblings = path.iter();
    while width > 1 {
        if at ^ 1 < width {
            let sibling = *siblings.next()?;
            hash = if at % 2 == 0 { node_hash(hash, sibling) } else { node_hash(sibling, hash) };
        }
        at /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none().then_some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_leaf_proves_itself_and_nothing_else(
            leaves in proptest::collection::vec(any::<[u8; 32]>().prop_map(B256::new), 1..40),
            pick in any::<prop::sample::Index>(),
            other in any::<[u8; 32]>().prop_map(B256::new),
        ) {
            let index = pick.index(leaves.len());
            let path = prove(&leaves, index).unwrap();
            let (i, n) = (index as u64, leaves.len() as u64);
            prop_assert_eq!(root_from_path(leaves[index], i, n, &path), Some(root(leaves.iter().copied())));
            if other != leaves[index] {
                prop_assert_ne!(root_from_path(other, i, n, &path), Some(root(leaves.iter().copied())));
            }
            let mut long = path.clone();
            long.push(B256::ZERO);
            prop_assert_eq!(root_from_path(leaves[index], i, n, &long), None);
        }
    }

    #[test]
    fn no_leaves_have_root_zero_and_no_proof() {
        assert_eq!(root([]), B256::ZERO);
        assert_eq!(prove(&[], 0), None);
        assert_eq!(root_from_path(B256::ZERO, 0, 0, &[]), None);
    }
}

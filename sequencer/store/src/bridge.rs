//! What is kept of the bridge beside the log: rows by a key whose first byte says of what.

use crate::StoreError;
use switchyard_primitives::B256;

/// What follows from the states of so many heights stays: more than a crash can take back.
pub const STATES_KEPT: u64 = 512;

/// What a block changes of the bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgeRows {
    /// The state after it, encoded; none where it is to follow from an earlier one and the blocks since.
    pub state: Option<Vec<u8>>,
    /// Blocks of an epoch: the state at each one's end stays for those who begin there.
    pub epoch_blocks: u64,
    /// Leaves of the hub's accumulator after it.
    pub count: u64,
    /// The leaves that it adds, encoded, by index.
    pub leaves: Vec<(u64, Vec<u8>)>,
    /// The full nodes that they make, by level and position.
    pub nodes: Vec<((u8, u64), B256)>,
    /// The bundles of which it has changed something, encoded, by id.
    pub bundles: Vec<(B256, Vec<u8>)>,
    /// The records of the bundles that it includes, encoded, by id.
    pub records: Vec<(B256, Vec<u8>)>,
}

/// Heights between two looks at what may go.
const SWEEP_EVERY: u64 = 64;

const STATE: u8 = b's';
const COUNT: u8 = b'c';
const LEAF: u8 = b'l';
const NODE: u8 = b'n';
const BUNDLE: u8 = b'b';
const RECORD: u8 = b'r';

pub(crate) type Key = Vec<u8>;

fn key(kind: u8, number: u64) -> Key {
    [&[kind], number.to_be_bytes().as_slice()].concat()
}

pub(crate) fn state_key(height: u64) -> Key {
    key(STATE, height)
}

pub(crate) fn count_key(height: u64) -> Key {
    key(COUNT, height)
}

pub(crate) fn leaf_key(index: u64) -> Key {
    key(LEAF, index)
}

pub(crate) fn node_key(level: u8, position: u64) -> Key {
    [&[NODE, level], position.to_be_bytes().as_slice()].concat()
}

pub(crate) fn bundle_key(id: &B256) -> Key {
    [&[BUNDLE], id.as_slice()].concat()
}

pub(crate) fn record_key(id: &B256) -> Key {
    [&[RECORD], id.as_slice()].concat()
}

/// The height of a state's key; none for another key.
pub(crate) fn height_of(key: &[u8]) -> Option<u64> {
    match key {
        [STATE, height @ ..] => height.try_into().ok().map(u64::from_be_bytes),
        _ => None,
    }
}

/// A count's row.
pub(crate) fn count_of(row: &[u8]) -> Result<u64, StoreError> {
    let count = row.try_into().map(u64::from_be_bytes);
    count.map_err(|_| corrupt(format!("count of {} bytes", row.len())))
}

/// A node's row.
pub(crate) fn node_of(row: &[u8]) -> Result<B256, StoreError> {
    B256::try_from(row).map_err(|_| corrupt(format!("node of {} bytes", row.len())))
}

fn corrupt(detail: String) -> StoreError {
    StoreError::Corrupt { column: "bridge", detail }
}

impl BridgeRows {
    /// Every row to put.
    pub(crate) fn puts(&self, height: u64) -> impl Iterator<Item = (Key, Vec<u8>)> + '_ {
        let leaves = self.leaves.iter().map(|(index, leaf)| (leaf_key(*index), leaf.clone()));
        let nodes = self.nodes.iter().map(|((level, position), hash)| (node_key(*level, *position), hash.to_vec()));
        let count = (count_key(height), self.count.to_be_bytes().to_vec());
        let bundles = self.bundles.iter().map(|(id, bundle)| (bundle_key(id), bundle.clone()));
        let records = self.records.iter().map(|(id, record)| (record_key(id), record.clone()));
        let state = self.state.iter().map(move |state| (state_key(height), state.clone()));
        state.chain([count]).chain(leaves).chain(nodes).chain(bundles).chain(records)
    }

    /// Of the heights that have states, from the newest down, those whose states go once there is one at `height`.
    pub(crate) fn forgotten(&self, height: u64, states: impl IntoIterator<Item = u64>) -> Vec<u64> {
        if self.state.is_none() {
            return Vec::new();
        }
        let mut newer: Option<u64> = None;
        let mut gone = Vec::new();
        for state in states {
            let Some(after) = newer.replace(state) else { continue };
            if after == height && state / SWEEP_EVERY == height / SWEEP_EVERY {
                break;
            }
            // It is still the one at a height that is not old enough.
            if after.saturating_add(STATES_KEPT) > height {
                continue;
            }
            let end = (state / self.epoch_blocks.max(1) + 1).saturating_mul(self.epoch_blocks.max(1)) - 1;
            match end < after {
                false => gone.push(state),
                // Below it this was done before.
                true if after.saturating_add(STATES_KEPT + 2 * SWEEP_EVERY) <= height => break,
                true => {}
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_states_and_those_of_epochs_ends_stay() {
        let rows = BridgeRows { epoch_blocks: 100, state: Some(Vec::new()), ..BridgeRows::default() };
        let mut kept: Vec<u64> = Vec::new();
        for height in (7..5_000).step_by(7) {
            kept.push(height);
            let gone = rows.forgotten(height, kept.iter().rev().copied());
            kept.retain(|state| !gone.contains(state));
            let at = |height: u64| kept.iter().rev().find(|state| **state <= height).copied();
            let newest_at = |height: u64| height - height % 7;
            for asked in (height.saturating_sub(STATES_KEPT) + 1).max(7)..=height {
                assert_eq!(at(asked), Some(newest_at(asked)), "{asked} of {height}");
            }
            for end in (99..height).step_by(100) {
                assert_eq!(at(end), Some(newest_at(end)), "{end} of {height}");
            }
        }
        assert!(kept.len() < 50 + (512 + 64) / 7 + 3, "{}", kept.len());
    }

    #[test]
    fn keys_of_different_kinds_differ_and_sort_by_number() {
        assert!(state_key(1) < state_key(256));
        assert_eq!(height_of(&state_key(7)), Some(7));
        assert_eq!(height_of(&count_key(7)), None);
        assert_eq!(height_of(b"s7"), None);
        assert!(count_of(b"1").is_err() && node_of(b"1").is_err());
    }
}

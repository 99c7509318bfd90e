//! The segment table: which rollups have something in a block, and proofs of it.

use crate::{B256, DecodeError, Reader, RollupId, Segment, Writer, keccak256, merkle};

/// One row: a rollup and the commitment of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableEntry {
    /// The rollup.
    pub rollup: RollupId,
    /// [`Segment::commitment`].
    pub commitment: B256,
}

impl TableEntry {
    fn leaf(&self) -> B256 {
        let mut w = Writer::with_capacity(40);
        w.u64(self.rollup.0);
        w.raw(self.commitment.as_slice());
        keccak256(w.into_vec())
    }

    fn write(&self, w: &mut Writer) {
        w.u64(self.rollup.0);
        w.raw(self.commitment.as_slice());
    }

    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { rollup: RollupId(r.u64("entry.rollup")?), commitment: r.b256("entry.commitment")? })
    }
}

/// All rows of a block, sorted by rollup id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentTable(Vec<TableEntry>);

/// Why a segment proof does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The proof leads to another root than the header's.
    #[error("the proof does not lead to the header's segment root")]
    Root,
    /// The proof is about another rollup, or its neighbours do not enclose the rollup.
    #[error("the proof does not speak of rollup {0}")]
    Rollup(RollupId),
    /// The transactions are not the ones that the table commits to.
    #[error("the transactions of rollup {0} are not the ones that the block commits to")]
    Transactions(RollupId),
}

/// A row with its position in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedEntry {
    entry: TableEntry,
    index: u32,
    path: Vec<B256>,
}

/// Shows that a rollup's segment is all that the block holds for it, or that the block holds nothing for it.
/// Checked against `segment_root` of a final header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentProof {
    /// The rollup has this row.
    Present {
        /// Rows in the table.
        count: u32,
        /// The row.
        entry: PlacedEntry,
    },
    /// The rollup has no row: these neighbours would enclose it.
    Absent {
        /// Rows in the table.
        count: u32,
        /// The last row below the rollup's id, if any.
        left: Option<PlacedEntry>,
        /// The first row above the rollup's id, if any.
        right: Option<PlacedEntry>,
    },
}

fn table_root(count: u32, tree: B256) -> B256 {
    let mut w = Writer::with_capacity(36);
    w.u32(count);
    w.raw(tree.as_slice());
    keccak256(w.into_vec())
}

impl SegmentTable {
    /// Root of a table without rows: `keccak(0u32 | zero 32)`.
    pub const EMPTY_ROOT: B256 =
        alloy_primitives::b256!("74723bc3efaf59d897623890ae3912b9be3c4c67ccee3ffcf10b36406c722c1b");

    /// The table of `segments`, which must be sorted by rollup id.
    pub fn new(segments: &[Segment]) -> Self {
        Self(segments.iter().map(|s| TableEntry { rollup: s.rollup, commitment: s.commitment() }).collect())
    }

    /// A table from its rows, which must be sorted by rollup id.
    pub fn from_entries(entries: Vec<TableEntry>) -> Self {
        Self(entries)
    }

    /// The rows.
    pub fn entries(&self) -> &[TableEntry] {
        &self.0
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// `keccak(count u32 | Merkle root over keccak(rollup u64 | commitment 32))`.
    pub fn root(&self) -> B256 {
        table_root(self.count(), merkle::root(self.0.iter().map(TableEntry::leaf)))
    }

    /// The proof of presence or absence of `rollup`.
    pub fn prove(&self, rollup: RollupId) -> SegmentProof {
        let leaves: Vec<B256> = self.0.iter().map(TableEntry::leaf).collect();
        let place = |index: usize| -> Option<PlacedEntry> {
            Some(PlacedEntry {
                entry: *self.0.get(index)?,
                index: u32::try_from(index).ok()?,
                path: merkle::prove(&leaves, index)?,
            })
        };
        let count = self.count();
        let at = self.0.partition_point(|e| e.rollup < rollup);
        match place(at) {
            Some(entry) if entry.entry.rollup == rollup => SegmentProof::Present { count, entry },
            right => SegmentProof::Absent { count, left: at.checked_sub(1).and_then(place), right },
        }
    }
}

impl PlacedEntry {
    fn check(&self, count: u32, segment_root: B256) -> Result<(), ProofError> {
        merkle::root_from_path(self.entry.leaf(), self.index.into(), count.into(), &self.path)
            .filter(|tree| table_root(count, *tree) == segment_root)
            .map(|_| ())
            .ok_or(ProofError::Root)
    }

    fn write(&self, w: &mut Writer) {
        self.entry.write(w);
        w.u32(self.index);
        w.u8(u8::try_from(self.path.len()).unwrap_or(u8::MAX));
        for sibling in &self.path {
            w.raw(sibling.as_slice());
        }
    }

    fn read(r: &mut Reader) -> Result<Self, DecodeError> {
        let entry = TableEntry::read(r)?;
        let index = r.u32("proof.index")?;
        let len = r.u8("proof.path")?;
        if len > 32 {
            return Err(DecodeError::TooLarge { field: "proof.path", value: len.into(), limit: 32 });
        }
        let path = (0..len).map(|_| r.b256("proof.sibling")).collect::<Result<_, _>>()?;
        Ok(Self { entry, index, path })
    }
}

impl SegmentProof {
    /// Checks that `transactions` are all that the block with `segment_root` holds for `rollup`, in order. An empty
    /// slice asks for the proof of absence.
    pub fn verify(
        &self,
        segment_root: B256,
        rollup: RollupId,
        transactions: &[crate::Bytes],
    ) -> Result<(), ProofError> {
        match self {
            Self::Present { count, entry } => {
                entry.check(*count, segment_root)?;
                if entry.entry.rollup != rollup {
                    return Err(ProofError::Rollup(rollup));
                }
                let segment = Segment { rollup, transactions: transactions.to_vec() };
                if segment.commitment() != entry.entry.commitment {
                    return Err(ProofError::Transactions(rollup));
                }
                Ok(())
            }
            Self::Absent { count, left, right } => {
                for side in [left, right].into_iter().flatten() {
                    side.check(*count, segment_root)?;
                }
                if !transactions.is_empty() {
                    return Err(ProofError::Transactions(rollup));
                }
                let below = left.as_ref().map(|l| (l.entry.rollup, l.index));
                let above = right.as_ref().map(|r| (r.entry.rollup, r.index));
                let encloses = match (below, above) {
                    (None, None) => {
                        return if *count == 0 && table_root(0, B256::ZERO) == segment_root {
                            Ok(())
                        } else {
                            Err(ProofError::Root)
                        };
                    }
                    (None, Some((id, index))) => rollup < id && index == 0,
                    (Some((id, index)), None) => id < rollup && u64::from(index) + 1 == u64::from(*count),
                    (Some((l, i)), Some((r, j))) => l < rollup && rollup < r && i.checked_add(1) == Some(j),
                };
                encloses.then_some(()).ok_or(ProofError::Rollup(rollup))
            }
        }
    }

    /// `kind u8 (1 present, 0 absent) | count u32 | rows`; each optional row of an absence proof follows a presence byte.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Self::Present { count, entry } => {
                w.u8(1);
                w.u32(*count);
                entry.write(&mut w);
            }
            Self::Absent { count, left, right } => {
                w.u8(0);
                w.u32(*count);
                for side in [left, right] {
                    w.u8(side.is_some().into());
                    if let Some(side) = side {
                        side.write(&mut w);
                    }
                }
            }
        }
        w.into_vec()
    }

    /// Reads [`Self::encode`]'s layout.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(crate::Bytes::copy_from_slice(bytes));
        let kind = r.u8("proof.kind")?;
        let count = r.u32("proof.count")?;
        let proof = match kind {
            1 => Self::Present { count, entry: PlacedEntry::read(&mut r)? },
            0 => {
                let mut side = || match r.u8("proof.side")? {
                    0 => Ok(None),
                    1 => PlacedEntry::read(&mut r).map(Some),
                    _ => Err(DecodeError::Invalid { field: "proof.side", reason: "neither 0 nor 1" }),
                };
                Self::Absent { count, left: side()?, right: side()? }
            }
            value => return Err(DecodeError::Version { field: "segment proof", value }),
        };
        r.finish()?;
        Ok(proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bytes;
    use proptest::prelude::*;

    fn segments() -> impl Strategy<Value = Vec<Segment>> {
        proptest::collection::btree_map(
            1u64..60,
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from), 1..5),
            0..20,
        )
        .prop_map(|m| m.into_iter().map(|(id, transactions)| Segment { rollup: RollupId(id), transactions }).collect())
    }

    #[test]
    fn the_empty_root_is_the_root_of_an_empty_table() {
        assert_eq!(SegmentTable::default().root(), SegmentTable::EMPTY_ROOT);
    }

    proptest! {
        #[test]
        fn a_proof_holds_for_exactly_what_the_block_has(segments in segments(), id in 0u64..62) {
            let table = SegmentTable::new(&segments);
            let rollup = RollupId(id);
            let proof = SegmentProof::decode(&table.prove(rollup).encode()).unwrap();
            let held = segments.iter().find(|s| s.rollup == rollup).map(|s| s.transactions.clone()).unwrap_or_default();
            prop_assert_eq!(proof.verify(table.root(), rollup, &held), Ok(()));

            let mut more = held.clone();
            more.push(Bytes::from_static(b"one more"));
            prop_assert!(proof.verify(table.root(), rollup, &more).is_err());
            if !held.is_empty() {
                prop_assert!(proof.verify(table.root(), rollup, &held[1..]).is_err());
                prop_assert!(proof.verify(table.root(), rollup, &[]).is_err());
            }
            for other in &segments {
                if other.rollup != rollup {
                    prop_assert!(proof.verify(table.root(), other.rollup, &other.transactions).is_err());
                    prop_assert!(proof.verify(table.root(), other.rollup, &[]).is_err());
                }
            }
            prop_assert!(proof.verify(B256::repeat_byte(7), rollup, &held).is_err());
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SegmentProof::decode(&bytes);
        }
    }
}

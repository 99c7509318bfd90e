//! Keys and values as they are on disk. All numbers are big-endian, so that keys sort by height.

use switchyard_primitives::{Bytes, DecodeError, Reader, RollupId, TableEntry, TxKey, Writer};

/// Where a transaction is: height and position in the rollup's segment.
pub(crate) type Location = (u64, u32);

/// `height u64 | rollup u64`. Height first: the log grows at one end of the key space, so that compaction moves files
/// instead of rewriting them, and pruning drops whole files.
pub(crate) fn segment_key(height: u64, rollup: RollupId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&height.to_be_bytes());
    key[8..].copy_from_slice(&rollup.0.to_be_bytes());
    key
}

/// `rollup u64 | hash 32`.
pub(crate) fn tx_key(key: &TxKey) -> [u8; 40] {
    let mut out = [0; 40];
    out[..8].copy_from_slice(&key.rollup.0.to_be_bytes());
    out[8..].copy_from_slice(key.hash.as_slice());
    out
}

/// `count u32 | (length u32 | bytes)*`.
pub(crate) fn encode_transactions(transactions: &[Bytes]) -> Vec<u8> {
    let len = 4 + transactions.iter().map(|tx| 4 + tx.len()).sum::<usize>();
    let mut w = Writer::with_capacity(len);
    w.count(transactions.len());
    for tx in transactions {
        w.count(tx.len());
        w.raw(tx);
    }
    w.into_vec()
}

/// Reads [`encode_transactions`]' layout; the transactions share the record's storage.
pub(crate) fn decode_transactions(record: Vec<u8>) -> Result<Vec<Bytes>, DecodeError> {
    let mut r = Reader::new(record.into());
    let count = r.count("transactions", r.remaining() / 4)?;
    let transactions = (0..count)
        .map(|_| {
            let len = r.count("transaction", r.remaining())?;
            r.bytes("transaction", len)
        })
        .collect::<Result<_, _>>()?;
    r.finish()?;
    Ok(transactions)
}

/// `(rollup u64 | commitment 32)*`.
pub(crate) fn encode_table(rows: &[TableEntry]) -> Vec<u8> {
    let mut w = Writer::with_capacity(rows.len() * 40);
    for row in rows {
        w.u64(row.rollup.0);
        w.raw(row.commitment.as_slice());
    }
    w.into_vec()
}

/// Reads [`encode_table`]'s layout.
pub(crate) fn decode_table(record: Vec<u8>) -> Result<Vec<TableEntry>, DecodeError> {
    let mut r = Reader::new(record.into());
    let mut rows = Vec::with_capacity(r.remaining() / 40);
    while r.remaining() > 0 {
        rows.push(TableEntry { rollup: RollupId(r.u64("entry.rollup")?), commitment: r.b256("entry.commitment")? });
    }
    Ok(rows)
}

/// `height u64 | index u32`.
pub(crate) fn encode_location((height, index): Location) -> [u8; 12] {
    let mut out = [0; 12];
    out[..8].copy_from_slice(&height.to_be_bytes());
    out[8..].copy_from_slice(&index.to_be_bytes());
    out
}

/// Reads [`encode_location`]'s layout; none for another length.
pub(crate) fn decode_location(record: &[u8]) -> Option<Location> {
    let record: &[u8; 12] = record.try_into().ok()?;
    let (height, index) = record.split_at(8);
    Some((u64::from_be_bytes(height.try_into().ok()?), u32::from_be_bytes(index.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_never_panics(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_transactions(record.clone());
            let _ = decode_table(record.clone());
            let _ = decode_location(&record);
        }

        #[test]
        fn transactions_survive_their_encoding_and_a_cut_is_noticed(
            transactions in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from), 0..8),
            at in any::<prop::sample::Index>(),
        ) {
            let record = encode_transactions(&transactions);
            prop_assert!(decode_transactions(record[..at.index(record.len())].to_vec()).is_err());
            prop_assert_eq!(decode_transactions(record).unwrap(), transactions);
        }

        #[test]
        fn segment_keys_sort_by_height_then_rollup(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
            let key = |(height, rollup)| segment_key(height, RollupId(rollup));
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }
    }
}

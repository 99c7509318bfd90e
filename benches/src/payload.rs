//! Opaque payloads that carry their own number, so that whoever reads them back knows which they are without hashing.

use bytes::Bytes;

/// Length of what every payload begins with: the run's mark and the number.
pub const PAYLOAD_BYTES_MIN: usize = 16;

/// The payload with number `seq` of the run marked `run`: `run u64 | seq u64 | bytes that do not compress`.
pub fn payload(run: u64, seq: u64, size: usize) -> Bytes {
    let mut out = Vec::with_capacity(size.max(PAYLOAD_BYTES_MIN) + 8);
    out.extend_from_slice(&run.to_be_bytes());
    out.extend_from_slice(&seq.to_be_bytes());
    // splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    let mut state = run ^ seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while out.len() < size {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_be_bytes());
    }
    out.truncate(size.max(PAYLOAD_BYTES_MIN));
    out.into()
}

/// The number of a payload of the run marked `run`; none for any other bytes.
pub fn number(run: u64, payload: &[u8]) -> Option<u64> {
    let (mark, rest) = payload.split_first_chunk::<8>()?;
    let seq = rest.first_chunk::<8>()?;
    (u64::from_be_bytes(*mark) == run).then(|| u64::from_be_bytes(*seq))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_and_gives_its_number_back() {
        for size in [16, 17, 1024] {
            let bytes = payload(7, 42, size);
            assert_eq!(bytes.len(), size);
            assert_eq!(number(7, &bytes), Some(42));
            assert_eq!(number(8, &bytes), None);
            assert_ne!(bytes, payload(7, 43, size));
        }
        assert_eq!(number(7, &[0; 15]), None);
    }
}

//! Fixed big-endian layouts: a bounded reader and a writer.

use crate::{B256, Bytes};

/// Why bytes were refused. Values are named so that a log line is enough to find the sender's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends inside a field.
    #[error("{field}: needs {need} bytes, {have} left")]
    Truncated {
        /// The field being read.
        field: &'static str,
        /// Bytes the field needs.
        need: usize,
        /// Bytes that were left.
        have: usize,
    },
    /// Bytes follow the last field.
    #[error("{0} bytes after the end")]
    Trailing(usize),
    /// A count or length is above its limit.
    #[error("{field}: {value} is above the limit of {limit}")]
    TooLarge {
        /// The field being read.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// A version that this software does not know.
    #[error("unknown {field} version {value}; a newer switchyard may know it")]
    Version {
        /// What carries the version.
        field: &'static str,
        /// The version found.
        value: u8,
    },
    /// A value that the layout does not allow.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field being read.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Reads a layout from shared bytes; variable-length fields are slices of the input, not copies.
#[derive(Debug)]
pub struct Reader {
    buf: Bytes,
    at: usize,
}

impl Reader {
    /// Starts at the first byte.
    pub fn new(buf: Bytes) -> Self {
        Self { buf, at: 0 }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.at
    }

    /// The next `len` bytes, sharing the input's storage.
    pub fn bytes(&mut self, field: &'static str, len: usize) -> Result<Bytes, DecodeError> {
        let have = self.remaining();
        if have < len {
            return Err(DecodeError::Truncated { field, need: len, have });
        }
        let out = self.buf.slice(self.at..self.at + len);
        self.at += len;
        Ok(out)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let have = self.remaining();
        let Some(chunk) = self.buf[self.at..].first_chunk::<N>() else {
            return Err(DecodeError::Truncated { field, need: N, have });
        };
        let out = *chunk;
        self.at += N;
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[b]| b)
    }

    /// A big-endian `u32`.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// A big-endian `u64`.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A 32-byte hash.
    pub fn b256(&mut self, field: &'static str) -> Result<B256, DecodeError> {
        self.array(field).map(B256::new)
    }

    /// A `u32` that counts something and may not be above `limit`.
    pub fn count(&mut self, field: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let value = self.u32(field)?;
        match usize::try_from(value) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(DecodeError::TooLarge { field, value: value.into(), limit: limit as u64 }),
        }
    }

    /// `count` flags, least significant bit of each byte first; bits past the last one are not looked at.
    pub fn flags(&mut self, field: &'static str, count: usize) -> Result<Vec<bool>, DecodeError> {
        let bits = self.bytes(field, count.div_ceil(8))?;
        Ok((0..count).map(|i| bits[i / 8] & (1 << (i % 8)) != 0).collect())
    }

    /// Succeeds when every byte was read.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }
}

/// Writes a layout.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }
    /// Appends one byte.
    pub fn u8(&mut self, v: u8) {
        self.0.push(v);
    }
    /// Appends a big-endian `u32`.
    pub fn u32(&mut self, v: u32) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    /// Appends a count or length as a big-endian `u32`, saturating: decoders refuse such counts by their limits.
    pub fn count(&mut self, v: usize) {
        self.u32(u32::try_from(v).unwrap_or(u32::MAX));
    }
    /// Appends a big-endian `u64`.
    pub fn u64(&mut self, v: u64) {
        self.0.extend_from_slice(&v.to_be_bytes());
    }
    /// Appends bytes as they are.
    pub fn raw(&mut self, v: &[u8]) {
        self.0.extend_from_slice(v);
    }
    /// Appends flags, least significant bit of each byte first, zeros past the last one; their number is not written.
    pub fn flags(&mut self, flags: &[bool]) {
        for flags in flags.chunks(8) {
            self.u8(flags.iter().enumerate().fold(0, |byte, (i, flag)| byte | u8::from(*flag) << i));
        }
    }
    /// What was written.
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
    /// What was written, as shared bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0.into()
    }
}

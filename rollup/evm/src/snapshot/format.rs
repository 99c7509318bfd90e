//! The file's bytes: a magic number, then records, each a tag and its fields; all numbers are big-endian.
//!
//! | tag | record | fields |
//! |---|---|---|
//! | 1 | rollup, first | rollup u64, chain id u64, genesis hash 32, sealing u8 |
//! | 2 | head | header length u32, header (RLP), body length u32, body (RLP) |
//! | 3 | ancestor, newest first | length u32, header (RLP) |
//! | 4 | code, ascending by hash | length u32, code |
//! | 5 | account, ascending by address | address 20, nonce u64, balance 32, code hash 32 |
//! | 6 | slot of the account before, ascending | slot 32, value 32 |
//! | 0 | end | keccak-256 of all before it, this tag included |

use super::SnapshotError;
use crate::records::BodyRecord;
use alloy::consensus::Header;
use alloy_primitives::{Address, B256, Bytes, Keccak256, U256};
use alloy_rlp::Decodable;
use std::io::{Read, Write};

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"SWYSNAP\x01";
/// An Ethereum header has about 600 bytes; extra data adds 32 at the most.
const HEADER_BYTES_MAX: u32 = 4 << 10;
/// Transactions, senders and receipts of one block.
const BODY_BYTES_MAX: u32 = 256 << 20;
/// Above any code that can be deployed (EIP-170) or stands in a genesis.
const CODE_BYTES_MAX: u32 = 1 << 20;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Rollup { rollup: u64, chain_id: u64, genesis: B256, sealing: u8 },
    Head(Box<(Header, BodyRecord)>),
    Ancestor(Box<Header>),
    Code(Bytes),
    Account { address: Address, nonce: u64, balance: U256, code_hash: B256 },
    Slot { slot: U256, value: U256 },
    End,
}

/// Writes records.
pub(super) struct Writer<W> {
    out: W,
    hasher: Keccak256,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Result<Self, SnapshotError> {
        let mut writer = Self { out, hasher: Keccak256::new() };
        writer.raw(&MAGIC)?;
        Ok(writer)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.hasher.update(bytes);
        Ok(self.out.write_all(bytes)?)
    }

    fn sized(&mut self, bytes: &[u8], bytes_max: u32) -> Result<(), SnapshotError> {
        let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= bytes_max);
        let length = length.ok_or_else(|| SnapshotError::Invalid(format!("a field of {} bytes", bytes.len())))?;
        self.raw(&length.to_be_bytes())?;
        self.raw(bytes)
    }

    pub(super) fn record(&mut self, record: &Record) -> Result<(), SnapshotError> {
        match record {
            Record::End => {
                self.raw(&[0])?;
                let digest = self.hasher.clone().finalize();
                self.out.write_all(digest.as_slice())?;
                Ok(self.out.flush()?)
            }
            Record::Rollup { rollup, chain_id, genesis, sealing } => {
                self.raw(&[1])?;
                self.raw(&rollup.to_be_bytes())?;
                self.raw(&chain_id.to_be_bytes())?;
                self.raw(genesis.as_slice())?;
                self.raw(&[*sealing])
            }
            Record::Head(head) => {
                self.raw(&[2])?;
                self.sized(&alloy_rlp::encode(&head.0), HEADER_BYTES_MAX)?;
                self.sized(&alloy_rlp::encode(&head.1), BODY_BYTES_MAX)
            }
            Record::Ancestor(header) => {
                self.raw(&[3])?;
                self.sized(&alloy_rlp::encode(header), HEADER_BYTES_MAX)
            }
            Record::Code(code) => {
                self.raw(&[4])?;
                self.sized(code, CODE_BYTES_MAX)
            }
            Record::Account { address, nonce, balance, code_hash } => {
                self.raw(&[5])?;
                self.raw(address.as_slice())?;
                self.raw(&nonce.to_be_bytes())?;
                self.raw(&balance.to_be_bytes::<32>())?;
                self.raw(code_hash.as_slice())
            }
            Record::Slot { slot, value } => {
                self.raw(&[6])?;
                self.raw(&slot.to_be_bytes::<32>())?;
                self.raw(&value.to_be_bytes::<32>())
            }
        }
    }
}

/// Reads records; takes no more memory than one record has bytes.
pub(super) struct Reader<R> {
    input: R,
    hasher: Keccak256,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R) -> Result<Self, SnapshotError> {
        let mut reader = Self { input, hasher: Keccak256::new() };
        let magic: [u8; 8] = reader.array().map_err(|_| SnapshotError::Format("it is too short"))?;
        match magic.split_last() {
            Some((version, name)) if MAGIC.starts_with(name) => {
                if MAGIC.last() == Some(version) {
                    Ok(reader)
                } else {
                    Err(SnapshotError::Format("another version"))
                }
            }
            _ => Err(SnapshotError::Format("it does not begin like one")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut bytes = [0; N];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(SnapshotError::Invalid("it ends early".into()));
            }
            Err(e) => return Err(e.into()),
        }
        self.hasher.update(bytes);
        Ok(bytes)
    }

    fn sized(&mut self, bytes_max: u32) -> Result<Vec<u8>, SnapshotError> {
        let length = u32::from_be_bytes(self.array()?);
        if length > bytes_max {
            return Err(SnapshotError::Invalid(format!("a field of {length} bytes, at most {bytes_max}")));
        }
        // Grows with what is there, so that a length alone reserves nothing.
        let mut bytes = Vec::new();
        (&mut self.input).take(length.into()).read_to_end(&mut bytes)?;
        if u32::try_from(bytes.len()) != Ok(length) {
            return Err(SnapshotError::Invalid("it ends early".into()));
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn rlp<T: Decodable>(&mut self, what: &str, bytes_max: u32) -> Result<T, SnapshotError> {
        let bytes = self.sized(bytes_max)?;
        alloy_rlp::decode_exact(&bytes).map_err(|e| SnapshotError::Invalid(format!("{what}: {e}")))
    }

    /// The next record; [`Record::End`] once, if the digest is right and nothing follows.
    pub(super) fn record(&mut self) -> Result<Record, SnapshotError> {
        let [tag] = self.array()?;
        Ok(match tag {
            0 => {
                let expected = self.hasher.clone().finalize();
                let found = B256::new(self.array()?);
                if found != expected {
                    return Err(SnapshotError::Invalid("its bytes are not those that were written".into()));
                }
                let mut more = [0];
                if self.input.read(&mut more)? > 0 {
                    return Err(SnapshotError::Invalid("something follows its end".into()));
                }
                Record::End
            }
            1 => Record::Rollup {
                rollup: u64::from_be_bytes(self.array()?),
                chain_id: u64::from_be_bytes(self.array()?),
                genesis: B256::new(self.array()?),
                sealing: u8::from_be_bytes(self.array()?),
            },
            2 => {
                let header = self.rlp("head", HEADER_BYTES_MAX)?;
                Record::Head(Box::new((header, self.rlp("body", BODY_BYTES_MAX)?)))
            }
            3 => Record::Ancestor(Box::new(self.rlp("ancestor", HEADER_BYTES_MAX)?)),
            4 => Record::Code(self.sized(CODE_BYTES_MAX)?.into()),
            5 => Record::Account {
                address: Address::new(self.array()?),
                nonce: u64::from_be_bytes(self.array()?),
                balance: U256::from_be_bytes(self.array::<32>()?),
                code_hash: B256::new(self.array()?),
            },
            6 => Record::Slot {
                slot: U256::from_be_bytes(self.array::<32>()?),
                value: U256::from_be_bytes(self.array::<32>()?),
            },
            other => return Err(SnapshotError::Invalid(format!("a record of kind {other}"))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        let word = || any::<[u8; 32]>();
        prop_oneof![
            (any::<u64>(), any::<u64>(), word(), any::<u8>()).prop_map(|(rollup, chain_id, genesis, sealing)| {
                Record::Rollup { rollup, chain_id, genesis: B256::new(genesis), sealing }
            }),
            any::<u64>().prop_map(|number| Record::Ancestor(Box::new(Header { number, ..Default::default() }))),
            any::<u64>().prop_map(|number| {
                let body = BodyRecord { transactions: vec![], senders: vec![], receipts: vec![], withdrawals: None };
                Record::Head(Box::new((Header { number, ..Default::default() }, body)))
            }),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(|code| Record::Code(code.into())),
            (any::<[u8; 20]>(), any::<u64>(), word(), word()).prop_map(|(address, nonce, balance, code_hash)| {
                let balance = U256::from_be_bytes(balance);
                Record::Account { address: Address::new(address), nonce, balance, code_hash: B256::new(code_hash) }
            }),
            (word(), word()).prop_map(|(slot, value)| Record::Slot {
                slot: U256::from_be_bytes(slot),
                value: U256::from_be_bytes(value),
            }),
        ]
    }

    fn written(records: &[Record]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes).unwrap();
        records.iter().chain([&Record::End]).for_each(|record| writer.record(record).unwrap());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, SnapshotError> {
        let mut reader = Reader::new(bytes)?;
        let mut records = vec![];
        loop {
            match reader.record()? {
                Record::End => return Ok(records),
                record => records.push(record),
            }
        }
    }

    proptest! {
        #[test]
        fn records_survive_the_file_and_any_change_of_it_is_noticed(
            records in proptest::collection::vec(record(), 0..12), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let bytes = written(&records);
            prop_assert_eq!(read(&bytes).unwrap(), records);
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] ^= 1 << bit;
            prop_assert!(read(&changed).is_err());
            prop_assert!(read(&bytes[..at.index(bytes.len())]).is_err());
            prop_assert!(read(&[bytes.as_slice(), &[0]].concat()).is_err());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
            let _ = read(&[MAGIC.as_slice(), &bytes].concat());
        }
    }
}

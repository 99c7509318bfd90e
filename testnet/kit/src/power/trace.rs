//! What was recorded: the changes that processes made to their folders, in one order, and what of them left the processes.
//!
//! `shim/shim.c` writes the former; the harness adds the latter to the same file with [`Marks`]. Both append one record at a
//! time, so a record stands behind everything that had happened before it.

use bytes::{Buf, Bytes};
use eyre::{Context as _, OptionExt as _, bail, ensure};
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};
use switchyard_consensus_core::{Proposal, Vote};
use switchyard_primitives::B256;

/// `length u32 | node u16 | kind u16 | fd i32 | flags u32 | a u64 | b u64`, little-endian.
const HEAD: usize = 32;
/// The kinds are those of `shim.c`; the harness's own begin at 100.
const START: u16 = 1;
const VOTED: u16 = 100;
const FINAL: u16 = 101;

/// Of `open`, on Linux.
const CREATE: u32 = 0o100;
const TRUNCATE: u32 = 0o1000;

/// What a sync is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// `fsync`.
    Whole,
    /// `fdatasync`.
    Data,
    /// A write that waits for itself (`RWF_DSYNC`): offset and length.
    Range(u64, u64),
    /// `syncfs`.
    FileSystem,
}

/// One change, or one thing that left a process. Paths are relative to the process's folder; the folder's own is empty.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// A process begins; its folder.
    Start(PathBuf),
    /// A file or folder is opened.
    Open {
        /// Below 0 for a file whose content is not recorded (C streams: RocksDB's own log).
        fd: i32,
        /// Made if it is missing.
        create: bool,
        /// Emptied.
        truncate: bool,
        /// Its path.
        path: String,
    },
    /// Its number may be another file's from now on.
    Close {
        /// The number.
        fd: i32,
    },
    /// One file has two numbers.
    Dup {
        /// The first.
        from: i32,
        /// The second.
        to: i32,
    },
    /// A write.
    Write {
        /// The file.
        fd: i32,
        /// Where.
        offset: u64,
        /// What.
        data: Bytes,
    },
    /// A new length.
    Truncate {
        /// The file.
        fd: i32,
        /// Bytes.
        len: u64,
    },
    /// Another name, in place of what has it.
    Rename {
        /// The old one.
        from: String,
        /// The new one.
        to: String,
    },
    /// A further name.
    Link {
        /// The old one.
        from: String,
        /// The new one.
        to: String,
    },
    /// A file's name goes.
    Unlink {
        /// The name.
        path: String,
    },
    /// A folder goes.
    RemoveFolder {
        /// Its path.
        path: String,
    },
    /// A folder is made.
    MakeFolder {
        /// Its path.
        path: String,
    },
    /// What was changed before this is asked to be durable.
    SyncBegins {
        /// The file or folder.
        fd: i32,
        /// Names the sync.
        id: u64,
        /// Of what.
        extent: Extent,
    },
    /// It is.
    SyncEnds {
        /// The sync.
        id: u64,
    },
    /// The validator has asked its signer for this vote: whoever is asked may use it.
    Voted(Vote),
    /// A client was told that this block is final.
    Final {
        /// Its height.
        height: u64,
        /// Its hash.
        hash: B256,
    },
}

impl Op {
    /// Whether it left the process, instead of changing its folder.
    pub fn is_mark(&self) -> bool {
        matches!(self, Self::Voted(_) | Self::Final { .. })
    }
}

/// A change, or a mark, of one of the processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The process's number.
    pub node: usize,
    /// What it did.
    pub op: Op,
}

/// Everything that was recorded, in order.
#[derive(Clone, Debug, Default)]
pub struct Trace(
    /// The records.
    pub Vec<Record>,
);

impl Trace {
    /// Reads a file that the processes do not write to any more.
    pub fn read(path: &Path) -> eyre::Result<Self> {
        let mut rest = Bytes::from(std::fs::read(path).wrap_err_with(|| path.display().to_string())?);
        let (mut records, mut roots) = (Vec::new(), Vec::<String>::new());
        while !rest.is_empty() {
            ensure!(rest.len() >= HEAD, "the trace ends within a record");
            let len = rest.clone().get_u32_le() as usize;
            ensure!((HEAD..=rest.len()).contains(&len), "a record of {len} bytes at {} before the end", rest.len());
            let mut record = rest.split_to(len);
            record.advance(4);
            let (node, kind) = (usize::from(record.get_u16_le()), record.get_u16_le());
            if roots.len() <= node {
                roots.resize(node + 1, String::new());
            }
            let op = read(kind, record, &mut roots[node]).wrap_err_with(|| format!("record {}", records.len()))?;
            records.push(Record { node, op });
        }
        Ok(Self(records))
    }

    /// Number of changes, marks left out.
    pub fn changes(&self) -> usize {
        self.0.iter().filter(|record| !record.op.is_mark()).count()
    }

    /// Number of processes.
    pub fn nodes(&self) -> usize {
        self.0.iter().map(|record| record.node + 1).max().unwrap_or(0)
    }
}

fn read(kind: u16, mut record: Bytes, root: &mut String) -> eyre::Result<Op> {
    let (fd, flags, a) = (record.get_i32_le(), record.get_u32_le(), record.get_u64_le());
    record.advance(8);
    if kind == START {
        *root = std::str::from_utf8(&record)?.to_owned();
        return Ok(Op::Start(PathBuf::from(root.as_str())));
    }
    let text = || Ok::<_, eyre::Report>(std::str::from_utf8(&record)?.to_owned());
    let relative = |path: &str| {
        let rest = path.strip_prefix(root.as_str()).ok_or_eyre("a path outside of the folder")?;
        Ok::<_, eyre::Report>(rest.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/"))
    };
    let path = || relative(&text()?);
    let pair = || {
        let both = text()?;
        let (from, to) = both.split_once('\0').ok_or_eyre("one path where two belong")?;
        Ok::<_, eyre::Report>((relative(from)?, relative(to)?))
    };
    Ok(match kind {
        2 => Op::Open { fd, create: flags & CREATE != 0, truncate: flags & TRUNCATE != 0, path: path()? },
        3 => Op::Close { fd },
        4 => Op::Dup { from: fd, to: i32::try_from(a)? },
        5 => Op::Write { fd, offset: a, data: record },
        6 => Op::Truncate { fd, len: a },
        7 => pair().map(|(from, to)| Op::Rename { from, to })?,
        8 => pair().map(|(from, to)| Op::Link { from, to })?,
        9 => Op::Unlink { path: path()? },
        10 => Op::RemoveFolder { path: path()? },
        11 => Op::MakeFolder { path: path()? },
        12 => {
            let extent = match flags {
                0 => Extent::Whole,
                1 => Extent::Data,
                2 => Extent::Range(record.get_u64_le(), record.get_u64_le()),
                3 => Extent::FileSystem,
                other => bail!("a sync of kind {other}"),
            };
            Op::SyncBegins { fd, id: a, extent }
        }
        13 => Op::SyncEnds { id: a },
        14 => bail!("a change that the recorder does not follow: {}", text()?),
        VOTED => Op::Voted(read_vote(record)?),
        FINAL => Op::Final { height: a, hash: B256::try_from(record.as_ref())? },
        other => bail!("kind {other} is not known"),
    })
}

fn read_vote(mut record: Bytes) -> eyre::Result<Vote> {
    ensure!(record.len() == 1 + 3 * 8 + 32, "a vote of {} bytes", record.len());
    let kind = record.get_u8();
    let (epoch, view, parent_view) = (record.get_u64_le(), record.get_u64_le(), record.get_u64_le());
    let proposal = Proposal { epoch, view, parent_view, block: B256::try_from(record.as_ref())? };
    Ok(match kind {
        1 => Vote::Notarize(proposal),
        2 => Vote::Nullify { epoch, view },
        3 => Vote::Finalize(proposal),
        other => bail!("a vote of kind {other}"),
    })
}

/// The harness's end of a trace.
#[derive(Debug)]
pub struct Marks(File);

impl Marks {
    /// Appends to a trace that may be there already.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self(File::options().append(true).create(true).open(path)?))
    }

    /// A vote of validator `node` has arrived elsewhere.
    pub fn voted(&self, node: usize, vote: &Vote) -> std::io::Result<()> {
        let (kind, proposal) = match vote {
            Vote::Notarize(proposal) => (1, Some(proposal)),
            Vote::Nullify { .. } => (2, None),
            Vote::Finalize(proposal) => (3, Some(proposal)),
        };
        let (epoch, view) = vote.round();
        let numbers = [epoch, view, proposal.map_or(0, |p| p.parent_view)].map(u64::to_le_bytes).concat();
        let block = proposal.map_or(B256::ZERO, |p| p.block);
        self.append(node, VOTED, 0, &[&[kind], numbers.as_slice(), block.as_slice()].concat())
    }

    /// A client of node `node` was told that a block is final.
    pub fn final_block(&self, node: usize, height: u64, hash: B256) -> std::io::Result<()> {
        self.append(node, FINAL, height, hash.as_slice())
    }

    fn append(&self, node: usize, kind: u16, a: u64, bytes: &[u8]) -> std::io::Result<()> {
        let too_long = |_| std::io::Error::other("a record is too long");
        let len = u32::try_from(HEAD + bytes.len()).map_err(too_long)?;
        let node = u16::try_from(node).map_err(too_long)?;
        let mut record = len.to_le_bytes().to_vec();
        record.extend(node.to_le_bytes());
        record.extend(kind.to_le_bytes());
        record.extend([0xff; 4]);
        record.extend([0; 4]);
        record.extend(a.to_le_bytes());
        record.extend([0; 8]);
        record.extend(bytes);
        // One call, so that it is one piece beside the processes' records.
        (&self.0).write_all(&record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let marks = Marks::open(&path).unwrap();
        let proposal = Proposal { epoch: 1, view: 700, parent_view: 699, block: B256::repeat_byte(7) };
        let votes = [Vote::Notarize(proposal), Vote::Nullify { epoch: 2, view: 3 }, Vote::Finalize(proposal)];
        for (node, vote) in votes.iter().enumerate() {
            marks.voted(node, vote).unwrap();
        }
        marks.final_block(1, 9, B256::repeat_byte(9)).unwrap();
        let read = Trace::read(&path).unwrap();
        let voted = votes.iter().enumerate().map(|(node, vote)| Record { node, op: Op::Voted(*vote) });
        let told = Record { node: 1, op: Op::Final { height: 9, hash: B256::repeat_byte(9) } };
        assert_eq!(read.0, voted.chain([told]).collect::<Vec<_>>());
        assert_eq!(read.nodes(), 3);
    }

    #[test]
    fn a_trace_that_was_cut_off_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        Marks::open(&path).unwrap().final_block(0, 9, B256::ZERO).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 1..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(Trace::read(&path).is_err(), "{len} bytes");
        }
    }
}

//! The record on disk: a header and entries of one length, appended and synced one by one.

use crate::{
    Key,
    history::{History, KEPT},
    statement::{Family, Kind, Position, Statement},
};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use switchyard_primitives::{B256, Bytes, Reader, Writer, keccak256};
use tracing::warn;

const MAGIC: [u8; 8] = *b"SWYGUARD";
const VERSION: u8 = 2;
/// In this version zeros stood behind the last entry, as many as there were: where such a file ends says nothing.
const VERSION_OF_ZEROS: u8 = 1;
/// `magic 8 | version u8 | network 32 | key 48 | checksum 4`.
const HEADER: usize = 8 + 1 + 32 + 48 + CHECKSUM;
/// `kind u8 | scope u64 | epoch u64 | number u64 | digest 32 | checksum 4`.
const ENTRY: usize = 1 + 8 * 3 + 32 + CHECKSUM;
const CHECKSUM: usize = 4;
/// Kinds of the entries that are low-water marks instead of statements.
const MARK_CONSENSUS: u8 = 0x81;
const MARK_CHECKPOINTS: u8 = 0x82;
const MARK_DISPUTES: u8 = 0x83;
/// The digest of a mark above which there is no slot; zero in others.
const NO_SLOT: B256 = B256::repeat_byte(0xff);
/// What a disk writes at once.
const SECTOR: usize = 512;
/// What stands behind the last entry; what a disk has lost reads as zeros.
const FILL: u8 = 0xa5;
/// Room made ahead of the entries, so that a sync has no file length to write, and one that was cut off is known by it.
const ROOM: usize = 64 << 10;
/// Entries after which the file is written anew without what is forgotten.
const ENTRIES_MAX: usize = 8 * KEPT;
/// No record is longer: several rollups' checkpoints at their bounds.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The system refused.
    #[error("sign record {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open: two nodes with one key.
    #[error("sign record {path} is in use by another process; one key signs in one process only")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The record belongs to another key or network.
    #[error("sign record {path} is of {found}, expected {expected}")]
    Other {
        /// The file.
        path: PathBuf,
        /// Network and key that it names.
        found: String,
        /// Network and key that were expected.
        expected: String,
    },
    /// Bytes that were never written so. What was signed is in doubt.
    #[error(
        "sign record {path} is damaged at byte {at}: {detail}. What this key has signed is not certain any more: restore \
         the newest export of the record, or retire the key"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
        /// How.
        detail: String,
    },
    /// An export that is not for this record.
    #[error("the export's {field} is {found}, expected {expected}")]
    Import {
        /// What differs.
        field: &'static str,
        /// What the export says.
        found: String,
        /// What it should say.
        expected: String,
    },
}

/// The open file.
pub(crate) struct Record {
    path: PathBuf,
    /// Next to the file, since the file itself is replaced.
    _lock: File,
    file: File,
    network: B256,
    key: Key,
    entries: usize,
    /// Bytes that the file has room for, durably.
    room: usize,
}

fn sealed(w: Writer) -> Vec<u8> {
    let mut bytes = w.into_vec();
    let checksum = keccak256(&bytes);
    bytes.extend_from_slice(&checksum[..CHECKSUM]);
    bytes
}

fn unsealed(bytes: &[u8]) -> Option<Reader> {
    let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM)?)?;
    (keccak256(body)[..CHECKSUM] == *checksum).then(|| Reader::new(body.to_vec().into()))
}

fn header(network: B256, key: &Key) -> Vec<u8> {
    let mut w = Writer::with_capacity(HEADER);
    w.raw(&MAGIC);
    w.u8(VERSION);
    w.raw(network.as_slice());
    w.raw(key);
    sealed(w)
}

fn entry(kind: u8, scope: u64, position: Position, digest: B256) -> Vec<u8> {
    let mut w = Writer::with_capacity(ENTRY);
    w.u8(kind);
    w.u64(scope);
    w.u64(position.epoch);
    w.u64(position.number);
    w.raw(digest.as_slice());
    sealed(w)
}

fn statement_entry(s: &Statement) -> Vec<u8> {
    entry(s.kind as u8, s.scope, s.position, s.digest)
}

fn mark_entry(family: Family, scope: u64, low: Option<Position>) -> Vec<u8> {
    let kind = match family {
        Family::Consensus => MARK_CONSENSUS,
        Family::Checkpoints => MARK_CHECKPOINTS,
        Family::Disputes => MARK_DISPUTES,
    };
    match low {
        Some(low) => entry(kind, scope, low, B256::ZERO),
        None => entry(kind, scope, Position::default(), NO_SLOT),
    }
}

/// Adds an entry to the history; why not, if it is none.
fn replay(history: &mut History, bytes: &[u8]) -> Result<(), String> {
    let mut r = unsealed(bytes).ok_or("the checksum does not fit")?;
    let mut read = || -> Result<_, switchyard_primitives::DecodeError> {
        let (kind, scope) = (r.u8("kind")?, r.u64("scope")?);
        Ok((kind, scope, Position { epoch: r.u64("epoch")?, number: r.u64("number")? }, r.b256("digest")?))
    };
    let (kind, scope, position, digest) = read().map_err(|e| e.to_string())?;
    let family = match kind {
        MARK_CONSENSUS => Some(Family::Consensus),
        MARK_CHECKPOINTS => Some(Family::Checkpoints),
        MARK_DISPUTES => Some(Family::Disputes),
        _ => None,
    };
    if let Some(family) = family {
        history.raise(family, scope, (digest != NO_SLOT).then_some(position));
        return Ok(());
    }
    let known = Kind::ALL.into_iter().find(|k| *k as u8 == kind).ok_or_else(|| format!("unknown kind {kind}"))?;
    history.add(&Statement { kind: known, scope, position, digest });
    Ok(())
}

impl Record {
    /// Opens or begins the record at `path`, and reads what it holds.
    pub(crate) fn open(path: &Path, network: B256, key: Key) -> Result<(Self, History), GuardError> {
        let failed = |source| GuardError::Io { path: path.to_path_buf(), source };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path.with_extension("lock")).map_err(failed)?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => GuardError::InUse { path: path.to_path_buf() },
            TryLockError::Error(source) => failed(source),
        })?;
        let history = match path.try_exists().map_err(failed)? {
            true => load(path, network, &key)?,
            false => History::default(),
        };
        // Without what was cut off and what is forgotten.
        let (file, entries, room) = replace(path, network, &key, &history)?;
        Ok((Self { path: path.to_path_buf(), _lock: lock, file, network, key, entries, room }, history))
    }

    /// Appends a statement, which `history` holds already, and waits for the disk.
    pub(crate) fn write(&mut self, statement: &Statement, history: &History) -> Result<(), GuardError> {
        if self.entries >= ENTRIES_MAX && self.entries >= 2 * history.statements().count() {
            return self.rewrite(history);
        }
        let at = HEADER + self.entries * ENTRY;
        let write = || -> io::Result<usize> {
            let mut room = self.room;
            // Before the entry: each has room for one more behind it at any time.
            if at + 2 * ENTRY > room {
                self.file.write_all_at(&[FILL; ROOM], room as u64)?;
                self.file.sync_data()?;
                room += ROOM;
            }
            self.file.write_all_at(&statement_entry(statement), at as u64)?;
            self.file.sync_data()?;
            Ok(room)
        };
        self.room = write().map_err(|source| GuardError::Io { path: self.path.clone(), source })?;
        self.entries += 1;
        Ok(())
    }

    /// Writes the whole history to a new file that takes the place of the old one.
    pub(crate) fn rewrite(&mut self, history: &History) -> Result<(), GuardError> {
        (self.file, self.entries, self.room) = replace(&self.path, self.network, &self.key, history)?;
        Ok(())
    }
}

/// What the record at `path` holds.
fn load(path: &Path, network: B256, key: &Key) -> Result<History, GuardError> {
    let failed = |source| GuardError::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    read(path, &bytes, network, key)
}

/// What a record of these bytes holds; `path` is for errors.
fn read(path: &Path, bytes: &[u8], network: B256, key: &Key) -> Result<History, GuardError> {
    let damaged = |at, detail: String| GuardError::Damaged { path: path.to_path_buf(), at, detail };
    let mut history = History::default();
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(damaged(0, format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    let (head, entries) = bytes.split_at_checked(HEADER).ok_or_else(|| damaged(0, "no whole header".into()))?;
    let fill = check_header(path, head, network, key)?;
    let is_room = |bytes: &[u8]| bytes.iter().all(|byte| *byte == fill || *byte == 0);
    for index in 0.. {
        let at = HEADER + index * ENTRY;
        let rest = entries.get(index * ENTRY..).unwrap_or_default();
        let Some((entry, behind)) = rest.split_at_checked(ENTRY).or((fill == 0).then_some((rest, &[]))) else {
            return Err(damaged(at, "the file ends where it should have room: it was cut off".into()));
        };
        if entry.iter().all(|byte| *byte == fill) && is_room(behind) {
            break;
        }
        match replay(&mut history, entry) {
            Ok(()) => {}
            // A write that was cut off: its signature never left, because nobody waited for the sync.
            Err(_) if is_room(behind) && is_cut_off(at, entry, fill) => {
                warn!(path = %path.display(), at, "the sign record ends with an entry that was not written whole");
                break;
            }
            Err(detail) => return Err(damaged(at, detail)),
        }
    }
    Ok(history)
}

/// Returns what stands behind the last entry.
fn check_header(path: &Path, head: &[u8], network: B256, key: &Key) -> Result<u8, GuardError> {
    let damaged = |detail: String| GuardError::Damaged { path: path.to_path_buf(), at: 0, detail };
    let mut r = unsealed(head).ok_or_else(|| damaged("the header's checksum does not fit".into()))?;
    let mut read = || Some((r.array::<8>("magic").ok()?, r.u8("version").ok()?, r.b256("network").ok()?));
    let Some((magic, version, found)) = read() else { return Err(damaged("no header".into())) };
    let fill = match version {
        VERSION if magic == MAGIC => FILL,
        VERSION_OF_ZEROS if magic == MAGIC => 0,
        _ => return Err(damaged(format!("version {version} is not known"))),
    };
    let of = r.bytes("key", key.len()).unwrap_or_default();
    if found == network && of.as_ref() == key {
        return Ok(fill);
    }
    let name = |network: B256, key: Bytes| format!("key {key} on network {network}");
    Err(GuardError::Other {
        path: path.to_path_buf(),
        found: name(found, of),
        expected: name(network, Bytes::from(*key)),
    })
}

/// A record's bytes without the room for more, and how many entries they hold.
fn image(network: B256, key: &Key, history: &History) -> (Vec<u8>, usize) {
    let marks: Vec<Vec<u8>> = history.marks().map(|m| mark_entry(m.family, m.scope, m.low)).collect();
    let statements: Vec<Vec<u8>> = history.statements().map(|s| statement_entry(&s)).collect();
    ([header(network, key), marks.concat(), statements.concat()].concat(), marks.len() + statements.len())
}

/// Writes a history to a new file that takes the place of the one at `path`; returns it with its entries and the bytes that it
/// has room for.
fn replace(path: &Path, network: B256, key: &Key, history: &History) -> Result<(File, usize, usize), GuardError> {
    let (mut bytes, entries) = image(network, key, history);
    bytes.resize(bytes.len() + ROOM, FILL);
    let replace = || -> io::Result<File> {
        let new = path.with_extension("new");
        let mut options = File::options();
        let mut file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(file)
    };
    let file = replace().map_err(|source| GuardError::Io { path: path.to_path_buf(), source })?;
    Ok((file, entries, bytes.len()))
}

/// What a write that was cut off leaves of an entry: its beginning, or, where it lies in two sectors, one of its parts.
fn is_cut_off(at: usize, bytes: &[u8], fill: u8) -> bool {
    let empty = |part: &[u8]| part.iter().all(|byte| *byte == fill);
    let first = at.next_multiple_of(SECTOR) - at;
    bytes.len() < ENTRY || empty(&bytes[ENTRY - CHECKSUM..]) || (1..ENTRY).contains(&first) && empty(&bytes[..first])
}

/// For `testnet/fuzz`: a record of key and network zero, read and written anew.
pub(crate) fn rewritten(bytes: &[u8]) -> Option<Vec<u8>> {
    let history = read(Path::new("record"), bytes, B256::ZERO, &[0; 48]).ok()?;
    Some([image(B256::ZERO, &[0; 48], &history).0, vec![FILL; 2 * ENTRY]].concat())
}

/// For `testnet/fuzz`: such a record of these entries' bodies, each with the checksum that it must have.
pub(crate) fn of_bodies(bodies: &[u8]) -> Vec<u8> {
    let seal = |body: &[u8]| {
        let mut w = Writer::with_capacity(ENTRY);
        w.raw(body);
        sealed(w)
    };
    let entries: Vec<Vec<u8>> = bodies.chunks_exact(ENTRY - CHECKSUM).map(seal).collect();
    [header(B256::ZERO, &[0; 48]), entries.concat(), vec![FILL; 2 * ENTRY]].concat()
}

//! A disk under a folder: what a process has written, what of it is durable, and what a power cut may leave.
//!
//! Two models of what a file system promises, from what Linux documents:
//!
//! - [`Model::Ordered`], ext4 with `data=ordered`. Changes of names and truncations go through one journal, in order, and
//!   any `fsync`, or an `fdatasync` of a file whose length or name has changed, commits the journal up to there. A power cut
//!   leaves a beginning of the journal that holds at least what was committed. File data is durable when it was synced.
//! - [`Model::Posix`], which promises as little as the standard does. A sync of a file makes its data and length durable and
//!   nothing else; a name is durable when its folder was synced; names that were not are kept or lost one by one.
//!
//! In both, data that was not synced may have reached the disk or not, sector by sector, in any order, each sector as it was
//! at any moment since its last sync. What was never written reads as zeros. A sector of 512 bytes is written whole or not at
//! all.

use super::{
    image::Image,
    trace::{Extent, Op},
};
use eyre::{OptionExt as _, bail, ensure};
use rand::{RngExt as _, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the file system promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// ext4, `data=ordered`.
    Ordered,
    /// The least that POSIX lets one rely on.
    Posix,
}

/// What of the changes that were not durable a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Everything, as when the process is killed.
    All,
    /// Of each file a beginning of its changes, the last of them torn.
    Prefix,
    /// Any sectors.
    Sectors,
    /// For each file one of the others.
    Mixed,
}

impl Keep {
    const OF_A_FILE: [Self; 4] = [Self::Nothing, Self::All, Self::Prefix, Self::Sectors];
}

/// Syncs that do less than they say, to see that somebody notices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Of files whose path contains this.
    pub part: String,
    /// What they do.
    pub how: Lie,
}

/// What a sync that lies does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    Never,
    /// It keeps what the sync before it was of.
    Late,
}

type Id = usize;

/// A change of a file's content that is not durable.
#[derive(Clone, Debug)]
enum Pending {
    Write(u64, bytes::Bytes),
    Truncate(u64),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    is_folder: bool,
    /// Of a file whose content is not recorded.
    is_opaque: bool,
    /// Where it was made, for those who leave out syncs.
    path: String,
    durable: Vec<u8>,
    /// With the time of each, in order.
    pending: Vec<(u64, Pending)>,
    /// The length that the process sees.
    len: u64,
    /// When its length or its name first and last changed that the journal does not hold.
    described: (u64, u64),
    /// When its last sync began.
    asked: u64,
}

/// A change of a name that the journal or the folder holds.
#[derive(Clone, Debug)]
struct Change {
    at: u64,
    folder: Id,
    kind: Renaming,
    /// The folder was synced since.
    is_durable: bool,
}

#[derive(Clone, Debug)]
enum Renaming {
    Set(String, Id),
    Remove(String),
    Move { from: String, to_folder: Id, to: String, id: Id },
}

type Names = BTreeMap<(Id, String), Id>;

impl Renaming {
    fn apply(&self, folder: Id, names: &mut Names) {
        match self {
            Self::Set(name, id) => drop(names.insert((folder, name.clone()), *id)),
            Self::Remove(name) => drop(names.remove(&(folder, name.clone()))),
            Self::Move { from, to_folder, to, id } => {
                names.remove(&(folder, from.clone()));
                names.insert((*to_folder, to.clone()), *id);
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Sync {
    /// None: the whole file system.
    id: Option<Id>,
    extent: Extent,
    began: u64,
}

/// The disk. Time counts the changes.
#[derive(Clone, Debug)]
pub struct Disk {
    inodes: Vec<Inode>,
    /// The names before anything was recorded.
    first: Names,
    /// As the process sees them.
    names: Names,
    changes: Vec<Change>,
    fds: HashMap<i32, Id>,
    syncs: HashMap<u64, Sync>,
    /// The journal is durable up to here.
    committed: u64,
    time: u64,
    broken: Option<Broken>,
}

const ROOT: Id = 0;

impl Disk {
    /// A disk with a folder that is durable.
    pub fn new(image: &Image) -> Self {
        let mut disk = Self {
            inodes: vec![Inode { is_folder: true, ..Inode::default() }],
            first: Names::new(),
            names: Names::new(),
            changes: Vec::new(),
            fds: HashMap::new(),
            syncs: HashMap::new(),
            committed: 0,
            time: 0,
            broken: None,
        };
        for path in &image.folders {
            disk.preset(path, Inode { is_folder: true, path: path.clone(), ..Inode::default() });
        }
        for (path, content) in &image.files {
            let (len, durable) = (content.len() as u64, content.clone());
            disk.preset(path, Inode { path: path.clone(), durable, len, ..Inode::default() });
        }
        disk.names = disk.first.clone();
        disk
    }

    fn preset(&mut self, path: &str, inode: Inode) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut id = ROOT;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            // A folder sorts before what is in it.
            id = self.first.get(&(id, part.to_owned())).copied().unwrap_or(ROOT);
        }
        self.inodes.push(inode);
        self.first.insert((id, name.to_owned()), self.inodes.len() - 1);
    }

    /// Breaks some files' syncs.
    pub fn break_syncs(&mut self, broken: &Broken) {
        self.broken = Some(broken.clone());
    }

    fn find(&self, path: &str) -> Option<Id> {
        path.split('/')
            .filter(|part| !part.is_empty())
            .try_fold(ROOT, |id, part| self.names.get(&(id, part.to_owned())).copied())
    }

    /// The folder of a path, and the path's own name in it.
    fn place(&self, path: &str) -> eyre::Result<(Id, String)> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let id = self.find(folder).filter(|id| self.inodes[*id].is_folder);
        Ok((id.ok_or_else(|| eyre::eyre!("{path}: its folder is not known"))?, name.to_owned()))
    }

    fn known(&self, path: &str) -> eyre::Result<Id> {
        self.find(path).ok_or_else(|| eyre::eyre!("{path} is not known"))
    }

    fn opened(&self, fd: i32) -> eyre::Result<Id> {
        self.fds.get(&fd).copied().ok_or_else(|| eyre::eyre!("file {fd} is not open"))
    }

    fn change(&mut self, folder: Id, kind: Renaming) {
        kind.apply(folder, &mut self.names);
        self.changes.push(Change { at: self.time, folder, kind, is_durable: false });
    }

    fn make(&mut self, path: &str, is_folder: bool, is_opaque: bool) -> eyre::Result<Id> {
        let (folder, name) = self.place(path)?;
        let described = (self.time, self.time);
        self.inodes.push(Inode { is_folder, is_opaque, path: path.into(), described, ..Inode::default() });
        let id = self.inodes.len() - 1;
        self.change(folder, Renaming::Set(name, id));
        Ok(id)
    }

    fn alter(&mut self, id: Id, change: Pending) {
        let (inode, time, committed) = (&mut self.inodes[id], self.time, self.committed);
        let len = match &change {
            Pending::Write(offset, data) => inode.len.max(offset + data.len() as u64),
            Pending::Truncate(len) => *len,
        };
        if len != inode.len {
            inode.len = len;
            inode.describe(time, committed);
        }
        inode.pending.push((time, change));
    }

    /// Takes note of a change.
    ///
    /// # Errors
    /// A change of something that was never made: the records are not complete.
    pub fn apply(&mut self, op: &Op) -> eyre::Result<()> {
        self.time += 1;
        match op {
            Op::Start(_) => {
                self.fds.clear();
                self.syncs.clear();
                if self.find("").is_none() {
                    bail!("no root");
                }
            }
            Op::Open { fd, create, truncate, path } => self.open(*fd, *create, *truncate, path)?,
            Op::Close { fd } => drop(self.fds.remove(fd)),
            Op::Dup { from, to } => {
                let id = self.opened(*from)?;
                self.fds.insert(*to, id);
            }
            Op::Write { fd, offset, data } => self.alter(self.opened(*fd)?, Pending::Write(*offset, data.clone())),
            Op::Truncate { fd, len } => self.alter(self.opened(*fd)?, Pending::Truncate(*len)),
            Op::Rename { from, to } => {
                let (id, (folder, from), (to_folder, to)) = (self.known(from)?, self.place(from)?, self.place(to)?);
                self.inodes[id].describe(self.time, self.committed);
                self.change(folder, Renaming::Move { from, to_folder, to, id });
            }
            Op::Link { from, to } => {
                let (id, (folder, name)) = (self.known(from)?, self.place(to)?);
                self.change(folder, Renaming::Set(name, id));
            }
            Op::Unlink { path } | Op::RemoveFolder { path } => {
                self.known(path)?;
                let (folder, name) = self.place(path)?;
                self.change(folder, Renaming::Remove(name));
            }
            // The folder itself may be made by the process too.
            Op::MakeFolder { path } if path.is_empty() => {}
            Op::MakeFolder { path } => drop(self.make(path, true, false)?),
            Op::SyncBegins { fd, id, extent } => {
                let of = if *extent == Extent::FileSystem { None } else { Some(self.opened(*fd)?) };
                self.syncs.insert(*id, Sync { id: of, extent: *extent, began: self.time });
            }
            Op::SyncEnds { id } => {
                let sync = self.syncs.remove(id).ok_or_eyre("a sync ends that has not begun")?;
                self.synced(sync);
            }
            Op::Voted(_) | Op::Final { .. } => {}
        }
        Ok(())
    }

    fn open(&mut self, fd: i32, create: bool, truncate: bool, path: &str) -> eyre::Result<()> {
        let id = match self.find(path) {
            Some(id) => id,
            None => {
                ensure!(create, "{path} was opened and is not known");
                self.make(path, false, fd < 0)?
            }
        };
        if truncate && self.inodes[id].len > 0 {
            self.alter(id, Pending::Truncate(0));
        }
        if fd >= 0 {
            self.fds.insert(fd, id);
        }
        Ok(())
    }

    fn synced(&mut self, sync: Sync) {
        let ids = match sync.id {
            Some(id) => id..id + 1,
            None => 0..self.inodes.len(),
        };
        for id in ids {
            let inode = &mut self.inodes[id];
            let asked = std::mem::replace(&mut inode.asked, sync.began);
            let began = match self.broken.as_ref().filter(|broken| inode.path.contains(&broken.part)) {
                None => sync.began,
                Some(Broken { how: Lie::Late, .. }) => asked,
                Some(Broken { how: Lie::Never, .. }) => continue,
            };
            let is_described = (self.committed + 1..began).contains(&inode.described.0);
            if !matches!(sync.extent, Extent::Data | Extent::Range(..)) || is_described {
                self.committed = self.committed.max(began);
                // Something of it may have come since.
                inode.described.0 =
                    inode.described.0.max(if inode.described.1 > began { inode.described.1 } else { 0 });
            }
            inode.settle(Sync { began, ..sync });
            for change in self.changes.iter_mut().filter(|change| change.at < began && change.folder == id) {
                change.is_durable = true;
            }
        }
    }

    /// The folder as the process sees it.
    pub fn seen(&self) -> Image {
        self.image(&self.names, |inode| inode.all())
    }

    /// Files whose content was not recorded.
    pub fn opaque(&self) -> BTreeSet<String> {
        let paths = self.paths(&self.names);
        paths.into_iter().filter(|(_, id)| self.inodes[*id].is_opaque).map(|(path, _)| path).collect()
    }

    /// A folder that a power cut may leave at this moment.
    pub fn cut(&self, model: Model, keep: Keep, rng: &mut StdRng) -> Image {
        let journal = self.journal_end(keep, rng);
        let mut names = self.first.clone();
        let in_order = rng.random_bool(0.5);
        for change in &self.changes {
            let is_kept = match (model, keep) {
                (Model::Ordered, _) => change.at < journal,
                (Model::Posix, Keep::All) => true,
                (Model::Posix, Keep::Nothing) => change.is_durable,
                (Model::Posix, _) if in_order => change.is_durable || change.at < journal,
                (Model::Posix, _) => change.is_durable || rng.random_bool(0.5),
            };
            if is_kept {
                change.kind.apply(change.folder, &mut names);
            }
        }
        let mut contents = HashMap::new();
        for id in self.paths(&names).into_values() {
            // In the order of paths, so that a seed always says the same.
            contents.entry(id).or_insert_with(|| self.inodes[id].after_cut(model, keep, journal, rng));
        }
        self.image(&names, |inode| {
            let id = self.inodes.iter().position(|other| std::ptr::eq(other, inode));
            id.and_then(|id| contents.get(&id)).cloned().unwrap_or_default()
        })
    }

    /// Where the journal ends: what happened before this time is in it.
    fn journal_end(&self, keep: Keep, rng: &mut StdRng) -> u64 {
        match keep {
            Keep::Nothing => self.committed,
            Keep::All => u64::MAX,
            Keep::Prefix | Keep::Sectors | Keep::Mixed => {
                let times = self.changes.iter().map(|change| change.at).filter(|at| *at >= self.committed);
                let truncated = self.inodes.iter().flat_map(|inode| &inode.pending);
                let truncated = truncated.filter(|(at, p)| matches!(p, Pending::Truncate(_)) && *at >= self.committed);
                let mut ends: Vec<u64> = times.chain(truncated.map(|(at, _)| *at)).collect();
                ends.sort_unstable();
                ends.push(u64::MAX);
                ends[rng.random_range(0..ends.len())]
            }
        }
    }

    /// Everything that can be reached, by path.
    fn paths(&self, names: &Names) -> BTreeMap<String, Id> {
        let (mut paths, mut folders) = (BTreeMap::new(), vec![(ROOT, String::new())]);
        while let Some((folder, prefix)) = folders.pop() {
            for ((_, name), id) in names.range((folder, String::new())..(folder + 1, String::new())) {
                let path = format!("{prefix}{name}");
                if self.inodes[*id].is_folder {
                    folders.push((*id, format!("{path}/")));
                }
                paths.insert(path, *id);
            }
        }
        paths
    }

    fn image(&self, names: &Names, content: impl Fn(&Inode) -> Vec<u8>) -> Image {
        let mut image = Image::default();
        for (path, id) in self.paths(names) {
            match self.inodes[id].is_folder {
                true => drop(image.folders.insert(path)),
                false => drop(image.files.insert(path, content(&self.inodes[id]))),
            }
        }
        image
    }
}

fn write_at(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// The part of a write that lies in a range of its file.
fn part_of(offset: u64, data: &[u8], from: u64, to: u64) -> Option<(u64, &[u8])> {
    let (start, end) = (offset.max(from), (offset + data.len() as u64).min(to));
    let place = |at: u64| usize::try_from(at - offset).ok();
    (start < end).then(|| Some((start, data.get(place(start)?..place(end)?)?))).flatten()
}

impl Pending {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => write_at(content, *offset, data),
            Self::Truncate(len) => content.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
        }
    }
}

/// Pages are what a system writes, sectors what a disk does.
const PAGE: u64 = 4096;
const SECTOR: u64 = 512;

impl Inode {
    fn all(&self) -> Vec<u8> {
        let mut content = self.durable.clone();
        for (_, change) in &self.pending {
            change.apply(&mut content);
        }
        content
    }

    /// Takes note that the journal has something of it.
    fn describe(&mut self, time: u64, committed: u64) {
        let first = if self.described.0 > committed { self.described.0 } else { time };
        self.described = (first, time);
    }

    /// Makes durable what a sync is of.
    fn settle(&mut self, sync: Sync) {
        let range = match sync.extent {
            Extent::Range(offset, len) => Some((offset - offset % PAGE, (offset + len).next_multiple_of(PAGE))),
            _ => None,
        };
        let mut left = Vec::new();
        for (at, change) in std::mem::take(&mut self.pending) {
            match (&change, range) {
                _ if at >= sync.began => left.push((at, change)),
                (Pending::Write(offset, data), Some((from, to))) => {
                    if let Some((start, part)) = part_of(*offset, data, from, to) {
                        write_at(&mut self.durable, start, part);
                    }
                    for (from, to) in [(0, from), (to, u64::MAX)] {
                        if let Some((start, part)) = part_of(*offset, data, from, to) {
                            left.push((at, Pending::Write(start, data.slice_ref(part))));
                        }
                    }
                }
                _ => change.apply(&mut self.durable),
            }
        }
        self.pending = left;
    }

    fn after_cut(&self, model: Model, keep: Keep, journal: u64, rng: &mut StdRng) -> Vec<u8> {
        let keep = match keep {
            Keep::Mixed => Keep::OF_A_FILE[rng.random_range(0..Keep::OF_A_FILE.len())],
            keep => keep,
        };
        let prefix = rng.random_range(0..=self.pending.len());
        let tear = if rng.random_bool(0.5) { PAGE } else { SECTOR };
        // Each sector as it was at one moment.
        let mut moments = HashMap::<u64, usize>::new();
        let mut content = self.durable.clone();
        for (index, (at, change)) in self.pending.iter().enumerate() {
            match change {
                Pending::Truncate(_) => {
                    let is_kept = match model {
                        // Nothing that was written after a truncation is in the file without it.
                        Model::Ordered if *at >= journal => break,
                        Model::Ordered => true,
                        Model::Posix => match keep {
                            Keep::Nothing => false,
                            Keep::All => true,
                            Keep::Prefix => index < prefix,
                            Keep::Sectors | Keep::Mixed => rng.random_bool(0.5),
                        },
                    };
                    if is_kept {
                        change.apply(&mut content);
                    }
                }
                Pending::Write(offset, data) => match keep {
                    Keep::Nothing => {}
                    Keep::All => change.apply(&mut content),
                    Keep::Prefix if index < prefix => change.apply(&mut content),
                    Keep::Prefix if index == prefix => {
                        let kept = rng.random_range(0..=data.len());
                        // As far as a sector's end.
                        let end = (offset + kept as u64) / tear * tear;
                        if let Some((start, part)) = part_of(*offset, data, 0, end) {
                            write_at(&mut content, start, part);
                        }
                    }
                    Keep::Prefix => {}
                    Keep::Sectors | Keep::Mixed => {
                        let last = (offset + data.len() as u64).saturating_sub(1) / tear;
                        for sector in offset / tear..=last {
                            let moment = *moments.entry(sector).or_insert_with(|| match rng.random_range(0..3) {
                                0 => 0,
                                1 => usize::MAX,
                                _ => rng.random_range(index..=self.pending.len()),
                            });
                            let part = part_of(*offset, data, sector * tear, (sector + 1) * tear);
                            if let Some((start, part)) = part.filter(|_| index < moment) {
                                write_at(&mut content, start, part);
                            }
                        }
                    }
                },
            }
        }
        // A length that is durable before the data: what is not there reads as zeros.
        let longest = self.pending.iter().filter_map(|(_, change)| match change {
            Pending::Write(offset, data) => usize::try_from(offset + data.len() as u64).ok(),
            Pending::Truncate(_) => None,
        });
        if let (Model::Posix, Keep::Prefix | Keep::Sectors, Some(longest)) = (model, keep, longest.max())
            && longest > content.len()
            && rng.random_bool(0.25)
        {
            content.resize(longest, 0);
        }
        content
    }
}

#[cfg(test)]
mod tests;

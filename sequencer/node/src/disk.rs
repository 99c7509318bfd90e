//! What to say when the disk is the trouble, wherever it was met.

use std::{error::Error, fs, io, path::Path};

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It takes no more: ENOSPC, EDQUOT, EFBIG.
    Full,
    /// It takes no writes: EROFS.
    ReadOnly,
    /// It fails: EIO.
    Broken,
    /// The process may not open more files: EMFILE, ENFILE.
    Files,
}

/// What the system says. RocksDB and the engine's library pass on no more than this.
const SAID: [(&str, Trouble); 6] = [
    ("No space left on device", Trouble::Full),
    ("Disk quota exceeded", Trouble::Full),
    ("File too large", Trouble::Full),
    ("Read-only file system", Trouble::ReadOnly),
    ("Input/output error", Trouble::Broken),
    ("Too many open files", Trouble::Files),
];
const EIO: i32 = 5;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
/// The file that is written to see whether the disk takes one.
const PROBE: &str = "disk-probe";
const PROBE_BYTES: usize = 64 << 10;

impl Trouble {
    /// The trouble that an error of this machine's comes from, anywhere among its sources.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let by_kind = |error: &io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Some(Self::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly),
            _ => match error.raw_os_error() {
                Some(EIO) => Some(Self::Broken),
                Some(ENFILE | EMFILE) => Some(Self::Files),
                _ => None,
            },
        };
        let by_text = |text: &str| SAID.iter().find(|(said, _)| text.contains(said)).map(|(_, trouble)| *trouble);
        let mut next = Some(error);
        while let Some(error) = next {
            let found = error.downcast_ref().and_then(by_kind).or_else(|| by_text(&error.to_string()));
            if found.is_some() {
                return found;
            }
            next = error.source();
        }
        None
    }

    /// What a small write into `folder` meets, for errors that do not say why.
    pub(crate) fn found_in(folder: &Path) -> Option<Self> {
        let path = folder.join(PROBE);
        let written = fs::write(&path, [0; PROBE_BYTES]).and_then(|()| fs::File::open(&path)?.sync_all());
        let _ = fs::remove_file(&path);
        Self::of(&written.err()?)
    }

    /// What to do about the disk of `folder`.
    pub(crate) fn advice(self, folder: &Path) -> String {
        let folder = folder.display();
        match self {
            Self::Full => format!("the disk of {folder} is full, or a quota is: make room there and start again"),
            Self::ReadOnly => format!("the disk of {folder} takes no writes: mount it for writing and start again"),
            Self::Files => "no more files may be opened here: raise the limit (LimitNOFILE) and start again".into(),
            Self::Broken => {
                format!("the disk of {folder} fails: see the system's log, and mend it or take another one")
            }
        }
    }
}

/// An error as one line, with what to do where the disk of `folder` is the trouble.
pub fn line(error: &(dyn Error + 'static), folder: &Path) -> String {
    match Trouble::of(error) {
        Some(trouble) => format!("{error}; {}", trouble.advice(folder)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::NodeError;
    use switchyard_store::StoreError;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Box<dyn Error>);

    #[test]
    fn the_trouble_is_found_anywhere_among_the_sources() {
        let nested = |error: Box<dyn Error>| Trouble::of(&Outer(Box::new(Outer(error))));
        for (errno, trouble) in [
            (28, Some(Trouble::Full)),
            (122, Some(Trouble::Full)),
            (27, Some(Trouble::Full)),
            (30, Some(Trouble::ReadOnly)),
            (5, Some(Trouble::Broken)),
            (24, Some(Trouble::Files)),
            (13, None),
        ] {
            let error = || io::Error::from_raw_os_error(errno);
            assert_eq!(nested(Box::new(error())), trouble);
            assert_eq!(nested(Box::new(io::Error::other(error()))), trouble, "wrapped");
            let told = StoreError::Database(format!("IO error: while appending to 7.sst: {}", error()));
            assert_eq!(nested(Box::new(NodeError::from(told))), trouble, "in words");
            assert_eq!(nested(format!("panicked: {:?}", error()).into()), trouble, "in a panic's words");
        }
        assert_eq!(nested(Box::new(io::Error::from(io::ErrorKind::StorageFull))), Some(Trouble::Full));
    }

    #[test]
    fn a_disk_that_takes_a_write_is_no_trouble_and_keeps_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Trouble::found_in(dir.path()), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(Trouble::found_in(&dir.path().join("missing")), None);
    }

    #[test]
    fn a_line_names_the_folder_and_what_to_do_where_the_disk_is_the_trouble() {
        let full = Outer(Box::new(io::Error::from_raw_os_error(28)));
        let said = line(&full, Path::new("/data"));
        assert_eq!(said, "outer; the disk of /data is full, or a quota is: make room there and start again");
        let other = Outer(Box::new(io::Error::from_raw_os_error(13)));
        assert_eq!(line(&other, Path::new("/data")), "outer");
    }
}

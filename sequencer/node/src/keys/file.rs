//! Files that hold secrets: whole or not there, never over another one, and never readable by others, not for a moment.

use super::KeyError;
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

fn read_error(path: &Path) -> impl FnOnce(std::io::Error) -> KeyError + '_ {
    |source| KeyError::Read { path: path.display().to_string(), source }
}

fn write_error(path: &Path) -> impl FnOnce(std::io::Error) -> KeyError + '_ {
    |source| match source.kind() {
        ErrorKind::AlreadyExists => KeyError::Exists { path: path.display().to_string() },
        _ => KeyError::Write { path: path.display().to_string(), source },
    }
}

/// Reads a file of at most `bytes_max` bytes that its owner alone may read.
pub fn read_private(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (bytes, mode) = read_any(path, bytes_max)?;
    match mode & OTHERS {
        0 => Ok(bytes),
        _ => Err(KeyError::Mode { path: path.display().to_string(), mode }),
    }
}

/// Reads a file of at most `bytes_max` bytes, and its permission bits.
pub fn read_any(path: &Path, bytes_max: u64) -> Result<(Zeroizing<Vec<u8>>, u32), KeyError> {
    let size = || KeyError::Size { path: path.display().to_string(), bytes_max };
    // Before it is opened: opening a named pipe would wait for a writer.
    if !fs::metadata(path).map_err(read_error(path))?.is_file() {
        return Err(size());
    }
    let file = File::open(path).map_err(read_error(path))?;
    // Of what is open now, not of what the path may have become.
    let mode = file.metadata().map_err(read_error(path))?.permissions().mode() & 0o777;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(read_error(path))?;
    if bytes.len() as u64 > bytes_max { Err(size()) } else { Ok((bytes, mode)) }
}

/// Makes a file with mode 0600. It appears under its name with all of its content, durable, or not at all.
///
/// # Errors
///
/// [`KeyError::Exists`] where there is something of this name.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_folder(folder)?;
    let draft = Draft(folder.join(format!(".draft-{:016x}", rand::random::<u64>())));
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.0).map_err(write_error(&draft.0))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(write_error(path))?;
    // A link is refused where the name is taken; a rename would replace what is there.
    fs::hard_link(&draft.0, path).map_err(write_error(path))?;
    drop(draft);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(write_error(path))
}

/// Makes a folder with mode 0700, and those above it; one that exists stays as it is.
pub fn create_folder(path: &Path) -> Result<(), KeyError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(write_error(path))
}

/// Removed when dropped: under its final name the content stays.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Nothing is to be done about a draft that stays: it is as private as the file.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_file_and_its_folder_are_the_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/key");
        create_private(&path, b"secret").unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(read_private(&path, 6).unwrap().as_slice(), b"secret");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a draft has stayed");
        assert!(matches!(read_private(&path, 5), Err(KeyError::Size { .. })));
        assert!(matches!(read_private(root.path(), 5), Err(KeyError::Size { .. })));
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("key");
        fs::write(&path, "first").unwrap();
        assert!(matches!(create_private(&path, b"second"), Err(KeyError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let dangling = root.path().join("link");
        std::os::unix::fs::symlink("/nonexistent", &dangling).unwrap();
        assert!(matches!(create_private(&dangling, b"second"), Err(KeyError::Exists { .. })));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "a draft has stayed");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("key");
        create_private(&path, b"secret").unwrap();
        for bits in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            let error = read_private(&path, 100).unwrap_err();
            assert!(matches!(error, KeyError::Mode { mode, .. } if mode == bits), "{error}");
        }
    }
}

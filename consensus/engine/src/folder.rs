//! The engine's folder: one process at a time, one network for ever.

use crate::{EngineConfig, EngineError};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};
use switchyard_primitives::Block;

/// Version of what is in the folder.
const FORMAT: u32 = 1;

/// Held while an engine runs in the folder; the lock ends with the process at the latest.
pub(crate) struct Folder {
    pub(crate) storage: PathBuf,
    _lock: File,
}

/// Makes the engine's folder for a validator that will copy the log before it takes part: then a folder that is missing
/// although there are blocks still means that it was lost.
pub fn prepare(config: &EngineConfig) -> Result<(), EngineError> {
    Folder::open(config).map(drop)
}

impl Folder {
    /// Makes the folder where it is missing, locks it and checks whose it is.
    pub(crate) fn open(config: &EngineConfig) -> Result<Self, EngineError> {
        let path = &config.data_dir;
        let failed = |source| EngineError::Folder { path: path.clone(), source };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = File::options().write(true).create(true).truncate(false).open(path.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => EngineError::FolderInUse { path: path.clone() },
            TryLockError::Error(source) => failed(source),
        })?;
        let genesis = Block::genesis(config.genesis).hash();
        let expected = format!("format {FORMAT} network {} genesis {genesis}", config.network_id);
        match fs::read_to_string(path.join("network")) {
            Ok(found) if found.trim_end() == expected => {}
            Ok(found) => return Err(EngineError::OtherNetwork { path: path.clone(), found, expected }),
            Err(e) if e.kind() == io::ErrorKind::NotFound && config.acknowledged_height > 0 => {
                return Err(EngineError::FolderLost { path: path.clone(), height: config.acknowledged_height });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => write_durably(path, &expected).map_err(failed)?,
            Err(source) => return Err(failed(source)),
        }
        Ok(Self { storage: path.join("storage"), _lock: lock })
    }
}

/// Under another name first, so that a crash leaves either nothing or all of it.
fn write_durably(folder: &Path, text: &str) -> io::Result<()> {
    let new = folder.join("network.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&new, folder.join("network"))?;
    File::open(folder)?.sync_all()
}

//! The files of a folder, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// Files and folders by relative path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Each file's content.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Every folder below the image's own.
    pub folders: BTreeSet<String>,
}

impl Image {
    /// Reads a folder; one that is not there is empty.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut image = Self::default();
        if root.try_exists()? {
            image.add(root, "")?;
        }
        Ok(image)
    }

    fn add(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.add(&entry.path(), &format!("{name}/"))?;
                self.folders.insert(name);
            } else {
                self.files.insert(name, fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    /// Makes a folder that holds this and nothing else.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        if root.try_exists()? {
            fs::remove_dir_all(root)?;
        }
        fs::create_dir_all(root)?;
        // A folder sorts before what is in it.
        for folder in &self.folders {
            fs::create_dir(root.join(folder))?;
        }
        for (path, content) in &self.files {
            fs::write(root.join(path), content)?;
        }
        Ok(())
    }
}

//! The library between a program and the C library: `shim/shim.c`, compiled when it is first needed.

use eyre::{Context as _, ensure};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/shim/shim.c");

/// The compiled library.
#[derive(Debug)]
pub struct Shim {
    folder: TempDir,
}

/// What is done to a process: each is off by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Record what the process number `node` changes in the folder `root` to the file `trace`; both paths are absolute.
    pub record: Option<Recorded>,
    /// How far the process's clock is ahead, in milliseconds.
    pub clock_ms: i64,
    /// Writes to files that are full.
    pub full: Option<Full>,
}

/// Where changes are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The process's number.
    pub node: usize,
    /// Where it is told. Other processes may be told there too.
    pub trace: PathBuf,
    /// How long a sync takes, in microseconds; the real one is left out.
    pub sync_us: u64,
}

/// A disk that takes no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// Files whose path contains this.
    pub part: String,
    /// Bytes that they still take, all together.
    pub after: u64,
    /// What the process is told then: 28 for ENOSPC, 122 for EDQUOT, 27 for EFBIG, 5 for EIO.
    pub errno: i32,
}

impl Shim {
    /// Compiles it, with `$CC` or clang.
    pub fn build() -> eyre::Result<Self> {
        let folder = tempfile::tempdir()?;
        let compiler = std::env::var("CC").unwrap_or_else(|_| "clang".into());
        let arguments = ["-std=gnu11", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o"];
        let made = Command::new(&compiler).args(arguments).arg(folder.path().join("shim.so")).arg(SOURCE).output();
        let made = made.wrap_err_with(|| format!("{compiler}: `make setup` installs it"))?;
        ensure!(made.status.success(), "{compiler}: {}", String::from_utf8_lossy(&made.stderr));
        Ok(Self { folder })
    }

    /// The variables with which a process is started to have this done to it; `root` is its data folder.
    pub fn environment(&self, root: &Path, settings: &Settings) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        let mut all = vec![("LD_PRELOAD", text(&self.folder.path().join("shim.so"))), ("SHIM_ROOT", text(root))];
        if let Some(Recorded { node, trace, sync_us }) = &settings.record {
            all.push(("SHIM_NODE", node.to_string()));
            all.push(("SHIM_TRACE", text(trace)));
            all.push(("SHIM_SYNC_US", sync_us.to_string()));
        }
        if let Some(Full { part, after, errno }) = &settings.full {
            all.push(("SHIM_FULL", part.clone()));
            all.push(("SHIM_FULL_AFTER", after.to_string()));
            all.push(("SHIM_ERRNO", errno.to_string()));
        }
        all.push(("SHIM_CLOCK_MS", settings.clock_ms.to_string()));
        all
    }

    /// A program that becomes `program` with this done to it.
    pub fn wrap(&self, program: &Path, root: &Path, settings: &Settings) -> eyre::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let variables = self.environment(root, settings);
        let variables: Vec<_> = variables.iter().map(|(name, value)| format!("{name}='{value}'")).collect();
        let script = format!("#!/bin/sh\nexec env {} '{}' \"$@\"\n", variables.join(" "), program.display());
        let file = tempfile::Builder::new().prefix("wrapped").tempfile_in(self.folder.path())?;
        let (_, path) = file.keep()?;
        std::fs::write(&path, script)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// A command that starts `program` with this done to it.
    pub fn command(&self, program: &Path, root: &Path, settings: &Settings) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(program);
        command.envs(self.environment(root, settings)).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

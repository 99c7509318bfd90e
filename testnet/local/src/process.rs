//! Processes of validators: found by their pid files, checked by what they run, told to stop.

use crate::{Error, dir::ValidatorFiles};
use rustix::process::{Pid, Signal};
use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::time::Instant;

/// How long a validator may take to stop before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A log above this is set aside as `node.log.old` at the next start.
const LOG_BYTES_MAX: u64 = 16 << 20;
const POLL: Duration = Duration::from_millis(20);

/// The binary `name`: beside this program, or one folder up (tests run in `deps`). `SWITCHYARD_BIN_DIR` overrides.
pub fn find_binary(name: &'static str) -> Result<PathBuf, Error> {
    let mut folders = Vec::new();
    if let Some(dir) = std::env::var_os("SWITCHYARD_BIN_DIR") {
        folders.push(PathBuf::from(dir));
    } else if let Ok(exe) = std::env::current_exe() {
        folders.extend(exe.ancestors().skip(1).take(2).map(Path::to_path_buf));
    }
    let looked: Vec<PathBuf> = folders.iter().map(|f| f.join(name)).collect();
    let found = looked.iter().find(|path| path.is_file()).cloned();
    found.ok_or_else(|| Error::NoBinary {
        name,
        looked: looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

/// The pid of the validator's process, if it runs: the pid file names a live process that was started with this
/// validator's configuration. A pid that has gone to another program does not count.
pub fn running(files: &ValidatorFiles) -> Option<u32> {
    let pid: u32 = fs::read_to_string(&files.pid).ok()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let config = files.config.to_str()?.as_bytes();
    command.split(|b| *b == 0).any(|argument| argument == config).then_some(pid)
}

/// Starts `switchyard run` for a validator in a process group of its own, so that Ctrl-C on a terminal reaches only
/// the launcher. With `session`, the path of `switchyard-testnet`, it gets a session of its own and outlives the
/// terminal too.
pub(crate) fn spawn(
    binary: &Path,
    files: &ValidatorFiles,
    arguments: &[&str],
    session: Option<&Path>,
) -> Result<Child, Error> {
    let log = open_log(&files.log)?;
    let errors = log.try_clone().map_err(Error::file("open", &files.log))?;
    let mut command = match session {
        Some(launcher) => {
            let mut command = Command::new(launcher);
            command.arg("in-session").arg(binary);
            command
        }
        None => {
            let mut command = Command::new(binary);
            command.process_group(0);
            command
        }
    };
    let child = command
        .arg("run")
        .arg("--config")
        .arg(&files.config)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|source| Error::Spawn { program: binary.to_path_buf(), source })?;
    fs::write(&files.pid, format!("{}\n", child.id())).map_err(Error::file("write", &files.pid))?;
    Ok(child)
}

/// Runs `command` in a new session, in place of this process. Returns only if that fails.
pub fn exec_in_session(command: &[std::ffi::OsString]) -> std::io::Error {
    let Some((program, arguments)) = command.split_first() else {
        return std::io::Error::other("no command");
    };
    // Fails only for the leader of a process group, whose children this process is never started as.
    let _ = rustix::process::setsid();
    Command::new(program).args(arguments).exec()
}

fn open_log(path: &Path) -> Result<fs::File, Error> {
    if fs::metadata(path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        fs::rename(path, path.with_extension("log.old")).map_err(Error::file("rename", path))?;
    }
    fs::OpenOptions::new().create(true).append(true).open(path).map_err(Error::file("open", path))
}

/// Sends a signal; a process that is gone is not an error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Asks the validators to stop, waits for up to [`STOP_TIMEOUT`], and kills those that are still there. Returns the
/// pids that had to be killed. `reap` is called between looks, for the parent of the processes.
pub(crate) async fn stop(all: &[ValidatorFiles], mut reap: impl FnMut()) -> Vec<u32> {
    let started: Vec<(&ValidatorFiles, u32)> = all.iter().filter_map(|f| Some((f, running(f)?))).collect();
    for (_, pid) in &started {
        signal(*pid, Signal::TERM);
    }
    let left = |started: &[(&ValidatorFiles, u32)]| -> Vec<u32> {
        started.iter().filter(|(files, pid)| running(files) == Some(*pid)).map(|(_, pid)| *pid).collect()
    };
    let mut killed = Vec::new();
    let deadline = Instant::now() + STOP_TIMEOUT;
    loop {
        reap();
        let still = left(&started);
        if still.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            still.iter().for_each(|pid| signal(*pid, Signal::KILL));
            killed = still;
        }
        // A process that not even SIGKILL ends hangs in the kernel.
        if Instant::now() >= deadline + STOP_TIMEOUT {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    for (files, _) in &started {
        let _ = fs::remove_file(&files.pid);
    }
    killed
}

/// The last `lines` lines of a file, at most 8 KiB.
pub fn tail(path: &Path, lines: usize) -> String {
    const BYTES_MAX: u64 = 8 << 10;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> ValidatorFiles {
        ValidatorFiles {
            dir: dir.into(),
            config: dir.join("config.toml"),
            log: dir.join("node.log"),
            pid: dir.join("pid"),
            endpoints: dir.join("endpoints.json"),
        }
    }

    #[test]
    fn a_pid_of_another_program_does_not_count_as_running() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        assert_eq!(running(&files), None, "no pid file");
        fs::write(&files.pid, std::process::id().to_string()).unwrap();
        assert_eq!(running(&files), None, "this test was not started with the validator's configuration");
        fs::write(&files.pid, "not a number").unwrap();
        assert_eq!(running(&files), None);
    }

    #[test]
    fn a_tail_has_the_last_lines_of_short_and_long_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(tail(&path, 3), "");
        fs::write(&path, "a\nb\n").unwrap();
        assert_eq!(tail(&path, 3), "a\nb");
        let long: String = (0..5000).map(|i| format!("line {i}\n")).collect();
        fs::write(&path, long).unwrap();
        assert_eq!(tail(&path, 2), "line 4998\nline 4999");
    }
}

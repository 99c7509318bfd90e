//! What can go wrong with a local network.

use crate::DemoError;
use std::{io, path::PathBuf};

/// Why a local network cannot be made, started or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file that does not hold what it should.
    #[error("{path}: {detail}; remove the folder to start a new network")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Keys or genesis could not be made.
    #[error("cannot make the genesis: {0}")]
    Genesis(String),
    /// No network in the folder.
    #[error("no local network in {0}; `switchyard testnet up --dir {0}` makes one", dir.display())]
    NoNetwork {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder holds a network already, whose state belongs to its genesis.
    #[error("{0} holds a network already; open it, or take another folder", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder holds a network of another size.
    #[error(
        "{dir} holds a network of {found} validators, not {wanted}; leave --validators out, take another --dir, or \
         remove the folder",
        dir = dir.display()
    )]
    OtherSize {
        /// The folder.
        dir: PathBuf,
        /// Its validators.
        found: usize,
        /// Validators asked for.
        wanted: usize,
    },
    /// The folder's EVM rollups have a block for each hub block.
    #[error(
        "{dir} holds a network whose EVM rollups have a block for each hub block; leave --one-second out, take another \
         --dir, or remove the folder",
        dir = dir.display()
    )]
    OtherSealing {
        /// The folder.
        dir: PathBuf,
    },
    /// Too few or too many validators.
    #[error("{0} validators: a local network has 1 to 64")]
    Size(usize),
    /// A port that a server needs is in use.
    #[error(
        "port {port} ({what} of validator {validator}) is in use by another program; stop that program, or choose \
         others with --base-port, for example --base-port {suggestion}"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// The server that needs it.
        what: String,
        /// The validator.
        validator: usize,
        /// A base that is free.
        suggestion: u16,
    },
    /// Ports above 65535.
    #[error("base port {base} leaves no room for {needed} ports below 65536; choose a smaller --base-port")]
    PortRange {
        /// The base.
        base: u16,
        /// Ports needed from there.
        needed: usize,
    },
    /// No free port to reserve.
    #[error("cannot reserve a port on 127.0.0.1: {0}")]
    NoPort(io::Error),
    /// The network runs already.
    #[error(
        "the network in {dir} runs already (pids {pids}); see `switchyard testnet status --dir {dir}`, stop it with \
         `switchyard testnet down --dir {dir}`",
        dir = dir.display()
    )]
    Running {
        /// The folder.
        dir: PathBuf,
        /// Its processes.
        pids: String,
    },
    /// The node's binary is not where it should be.
    #[error("cannot find the `{name}` binary (looked at {looked}); build it with `cargo build --workspace --bins`")]
    NoBinary {
        /// Its name.
        name: &'static str,
        /// Where it was looked for.
        looked: String,
    },
    /// A process could not be started.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such validator.
    #[error("no validator {index}: the network has {count}")]
    NoValidator {
        /// The index asked for.
        index: usize,
        /// Validators there are.
        count: usize,
    },
    /// A validator ended while it was starting.
    #[error("validator {index} ended ({how}) while starting; the end of {log}:\n{tail}", log = log.display())]
    Died {
        /// The validator.
        index: usize,
        /// Its exit status.
        how: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A validator did not answer in time.
    #[error(
        "validator {index} did not answer within {seconds} s: {waiting_for}; the end of {log}:\n{tail}",
        log = log.display()
    )]
    NotReady {
        /// The validator.
        index: usize,
        /// How long it had.
        seconds: u64,
        /// The server that did not answer.
        waiting_for: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// A server answered with an error, or not at all.
    #[error("{url}: {detail}")]
    Call {
        /// The server.
        url: String,
        /// What it said.
        detail: String,
    },
    /// No validator to ask.
    #[error("no validator of the network in {0} runs; start it with `switchyard testnet up --dir {0}`", dir.display())]
    Stopped {
        /// The folder.
        dir: PathBuf,
    },
    /// Fewer than two rollups with accounts.
    #[error("the network has fewer than two EVM rollups")]
    NoRollups,
    /// A part of what a network shows of itself.
    #[error("the {what}: {source}")]
    Demo {
        /// Which one.
        what: &'static str,
        /// Why.
        source: DemoError,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// The process exit code: 2 where the caller must choose other arguments, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::PortTaken { .. }
            | Self::PortRange { .. }
            | Self::OtherSize { .. }
            | Self::OtherSealing { .. }
            | Self::Size(_) => 2,
            _ => 1,
        }
    }
}

//! The shell's commands for operators: keys, a new node's folder, checks of a configuration and of a machine.
//!
//! Exit codes, by [`OperateError::exit_code`]: 0 done; 1 `doctor` has found errors, or output is closed; 2 for what the
//! operator must change first.

mod check;
mod doctor;
mod finding;
mod init;
mod keys;

pub use check::{ConfigCommand, config};
pub use doctor::{DoctorArgs, doctor};
pub use finding::{Finding, Level};
pub use init::{InitArgs, init};
pub use keys::{KeysCommand, keys};

use crate::{config::ConfigError, genesis::GenesisError, keys::KeyError};

/// Why a command ends with another code than 0.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// A key, its file or its password.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// An argument cannot be used.
    #[error("{argument}: {problem}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The configuration was read, and a node would not start with it, or not work.
    #[error("{0} of the configuration's errors must be mended before the node starts")]
    Unusable(usize),
    /// Something on this machine is wrong.
    #[error("{0} errors found")]
    Sick(usize),
    /// The output is closed or full.
    #[error("cannot write output: {0}")]
    Output(#[from] std::io::Error),
}

impl OperateError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Sick(_) | Self::Output(_) => 1,
            _ => 2,
        }
    }
}

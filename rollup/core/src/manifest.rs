//! The rollup manifest: what a rollup is, as the network's genesis or a system record states it.

use serde::{Deserialize, Serialize};
use switchyard_primitives::RollupId;

/// What a rollup is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollupManifest {
    /// Its id; 0 is reserved for the hub.
    pub id: RollupId,
    /// Its name: 1 to 32 characters of `A-Z a-z 0-9 - _`.
    pub name: String,
    /// Who executes its transactions.
    pub vm: Vm,
    /// When a rollup block is closed.
    #[serde(default)]
    pub sealing: Sealing,
}

/// Who executes a rollup's transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", from = "VmFields")]
pub enum Vm {
    /// The embedded EVM.
    Evm {
        /// Genesis in geth's JSON format, chain id included.
        genesis: serde_json::Value,
    },
    /// The rollup's own nodes: the hub orders bytes and does not look into them.
    Opaque,
}

/// [`Vm`] as it is read: serde refuses unknown keys beside a tag only where a variant has braces.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum VmFields {
    Evm { genesis: serde_json::Value },
    Opaque {},
}

impl From<VmFields> for Vm {
    fn from(fields: VmFields) -> Self {
        match fields {
            VmFields::Evm { genesis } => Self::Evm { genesis },
            VmFields::Opaque {} => Self::Opaque,
        }
    }
}

/// When a rollup block is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sealing {
    /// One rollup block for each hub block that holds something for the rollup.
    #[default]
    HubBlock,
    /// One rollup block for each second in which hub blocks hold something for it.
    OneSecond,
}

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Id 0 is the hub's.
    #[error("rollup {name}: id 0 is reserved for the system rollup")]
    SystemId {
        /// The rollup's name.
        name: String,
    },
    /// The name is empty, too long, or has other characters.
    #[error("rollup {id}: name {name:?} must be 1 to 32 of A-Z a-z 0-9 - _")]
    Name {
        /// The rollup's id.
        id: RollupId,
        /// The refused name.
        name: String,
    },
}

impl RollupManifest {
    /// Checks what can be checked without running the VM.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.id == RollupId::SYSTEM {
            return Err(ManifestError::SystemId { name: self.name.clone() });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.chars().all(allowed) {
            return Err(ManifestError::Name { id: self.id, name: self.name.clone() });
        }
        Ok(())
    }
}

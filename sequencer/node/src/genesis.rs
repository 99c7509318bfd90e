//! The network's genesis: what every node must have the same, and whose hash is the network's id.

use alloy_primitives::{B256, FixedBytes, keccak256};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, num::NonZeroU64, path::Path, sync::Arc};
use switchyard_bridge_core::{BRIDGE_FROM, Founding, Operator, SystemState};
use switchyard_consensus_core::{
    EpochRules, HubState, Seat, SeatSet, keys,
    stake::{Registration, VALIDATORS_MAX},
};
use switchyard_primitives::{Header, Limits, NEWEST_PROTOCOL, RollupId};
use switchyard_rollup_core::{RollupManifest, Vm};

/// Fewest blocks of an epoch: the next one's seats are known one epoch ahead, and validators need that time to connect.
pub const EPOCH_BLOCKS_MIN: u64 = 8;

/// Longest transaction that a gossip batch can carry beside its others.
pub const TRANSACTION_BYTES_MAX: usize = 128 << 10;

/// The network's genesis, a JSON file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// The network's name.
    pub name: String,
    /// Timestamp of the genesis block in milliseconds.
    pub timestamp_ms: u64,
    /// The protocol version that the blocks begin with. Version 1 is not written: it stood for itself before there was another.
    #[serde(default = "first_protocol", skip_serializing_if = "is_first_protocol")]
    pub protocol: u8,
    /// The validators.
    pub validators: Vec<GenesisValidator>,
    /// How the log is cut into epochs.
    #[serde(default)]
    pub epochs: GenesisEpochs,
    /// The rollups.
    pub rollups: Vec<RollupManifest>,
    /// The first operators; from protocol 3 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operators: Vec<GenesisOperator>,
    /// Block limits.
    #[serde(default)]
    pub limits: GenesisLimits,
    /// A transaction may not be in the log twice within this many blocks.
    #[serde(default = "default_replay_window")]
    pub replay_window_blocks: u64,
}

/// [`EpochRules`] as the file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenesisEpochs {
    /// Blocks of an epoch.
    pub blocks: u64,
    /// Seats for each validator with stake, on average.
    pub seats_per_validator: u32,
}

impl Default for GenesisEpochs {
    /// An hour of a hub that makes four blocks a second, which is between an idle one's and a busy one's pace. A seat each,
    /// where stakes are equal.
    fn default() -> Self {
        Self { blocks: 14_400, seats_per_validator: 1 }
    }
}

fn first_protocol() -> u8 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first_protocol(protocol: &u8) -> bool {
    *protocol == first_protocol()
}

fn default_replay_window() -> u64 {
    8192
}

/// A validator at genesis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisValidator {
    /// Its seat.
    #[serde(flatten)]
    pub seat: Seat,
    /// Proof of possession of the BLS key, compressed G2, 96 bytes.
    pub possession: FixedBytes<96>,
    /// Its stake: seats are allotted by it.
    #[serde(default = "one")]
    pub stake: u64,
    /// Where it listens; without it, the others' configuration says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
}

fn one() -> u64 {
    1
}

/// An operator at genesis: of those that register later, records say the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisOperator {
    /// Its identity, and what it signs checkpoints with.
    #[serde(flatten)]
    pub seat: Seat,
    /// Proof of possession of the BLS key, compressed G2, 96 bytes.
    pub possession: FixedBytes<96>,
    /// The rollups that it attests.
    pub rollups: Vec<RollupId>,
}

/// [`Limits`] as the file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenesisLimits {
    /// Encoded body of a block, in bytes.
    pub body_bytes: usize,
    /// Rollups with a segment in one block.
    pub segments: usize,
    /// Transactions in one block.
    pub transactions: usize,
    /// One transaction, in bytes.
    pub transaction_bytes: usize,
}

impl Default for GenesisLimits {
    fn default() -> Self {
        let Limits { body_bytes, segments, transactions, transaction_bytes } = Limits::default();
        Self { body_bytes, segments, transactions, transaction_bytes }
    }
}

/// Why a genesis is refused.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The file cannot be read.
    #[error("cannot read genesis {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a genesis.
    #[error("genesis {path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Its values contradict each other.
    #[error("genesis: {0}")]
    Invalid(String),
}

impl GenesisValidator {
    /// A validator with stake 1 whose address the others' configuration tells.
    pub fn new(seat: Seat, possession: FixedBytes<96>) -> Self {
        Self { seat, possession, stake: one(), address: None }
    }
}

impl Genesis {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, GenesisError> {
        let name = path.display().to_string();
        let text = std::fs::read(path).map_err(|source| GenesisError::Read { path: name.clone(), source })?;
        Self::parse(name, &text)
    }

    /// Checks a file's text; errors name the file.
    pub fn parse(path: String, text: &[u8]) -> Result<Self, GenesisError> {
        let genesis: Self = serde_json::from_slice(text).map_err(|source| GenesisError::Parse { path, source })?;
        genesis.check()?;
        Ok(genesis)
    }

    fn check(&self) -> Result<(), GenesisError> {
        if self.epochs.blocks < EPOCH_BLOCKS_MIN {
            let text = format!("epochs.blocks is {}, at least {EPOCH_BLOCKS_MIN} are needed", self.epochs.blocks);
            return Err(GenesisError::Invalid(text));
        }
        if !(1..=NEWEST_PROTOCOL).contains(&self.protocol) {
            let text = format!("protocol is {}, this program knows 1 to {NEWEST_PROTOCOL}", self.protocol);
            return Err(GenesisError::Invalid(text));
        }
        if self.validators.len() > VALIDATORS_MAX {
            return Err(GenesisError::Invalid(format!("more than {VALIDATORS_MAX} validators")));
        }
        SeatSet::new(self.validators.iter().map(|v| v.seat.clone()).collect())
            .map_err(|e| GenesisError::Invalid(e.to_string()))?;
        self.hub_state()?;
        for validator in &self.validators {
            keys::verify_possession(&validator.seat, &validator.possession)
                .map_err(|e| GenesisError::Invalid(e.to_string()))?;
        }
        if self.replay_window_blocks == 0 {
            let reason = "replay_window_blocks must be at least 1, or the log could hold a transaction twice";
            return Err(GenesisError::Invalid(reason.into()));
        }
        if self.limits.transaction_bytes > TRANSACTION_BYTES_MAX {
            let found = self.limits.transaction_bytes;
            let text = format!("limits.transaction_bytes is {found}, at most {TRANSACTION_BYTES_MAX} are possible");
            return Err(GenesisError::Invalid(text));
        }
        if self.limits.body_bytes < self.limits.transaction_bytes + 32 {
            return Err(GenesisError::Invalid("limits.body_bytes has no room for a whole transaction".into()));
        }
        self.check_operators()?;
        let mut ids = std::collections::HashSet::new();
        let mut names = std::collections::HashSet::new();
        for rollup in &self.rollups {
            rollup.check().map_err(|e| GenesisError::Invalid(e.to_string()))?;
            if !ids.insert(rollup.id) || !names.insert(&rollup.name) {
                return Err(GenesisError::Invalid(format!("rollup {} ({}) appears twice", rollup.id, rollup.name)));
            }
        }
        Ok(())
    }

    fn check_operators(&self) -> Result<(), GenesisError> {
        let invalid = |text: String| Err(GenesisError::Invalid(text));
        let founding = self.founding();
        if founding.operators.len() != self.operators.len() {
            return invalid("an operator appears twice".into());
        }
        let mut keys = std::collections::HashSet::new();
        for GenesisOperator { seat, possession, rollups } in &self.operators {
            let identity = seat.identity;
            if !self.validators.iter().any(|validator| validator.seat.identity == identity) {
                return invalid(format!("operator {identity} is no validator, so it has no stake"));
            }
            if !keys.insert(seat.bls) {
                return invalid(format!("operators have the same BLS key {}", seat.bls));
            }
            keys::verify_possession(seat, possession).map_err(|e| GenesisError::Invalid(e.to_string()))?;
            if let Some(rollup) = rollups.iter().find(|rollup| !founding.rollups.contains_key(rollup)) {
                return invalid(format!("operator {identity}: rollup {rollup} makes no checkpoints"));
            }
        }
        let chains: std::collections::HashSet<_> = founding.rollups.values().collect();
        match chains.len() == founding.rollups.len() {
            true => Ok(()),
            // Checked where it matters: below protocol 3 nothing tells them apart by it.
            false if self.protocol < BRIDGE_FROM => Ok(()),
            false => invalid("two rollups have the same chain id".into()),
        }
    }

    /// What the bridge begins with.
    pub fn founding(&self) -> Founding {
        let chain = |manifest: &RollupManifest| match &manifest.vm {
            Vm::Evm { genesis } => Some((manifest.id, genesis.pointer("/config/chainId")?.as_u64()?)),
            Vm::Opaque => None,
        };
        let operator = |operator: &GenesisOperator| {
            let GenesisOperator { seat, rollups, .. } = operator;
            let rollups = rollups.iter().copied().collect();
            (seat.identity, Operator { bls: seat.bls, rollups, serial: 0, gone_at: None })
        };
        Founding {
            rollups: self.rollups.iter().filter_map(chain).collect(),
            operators: self.operators.iter().map(operator).collect(),
        }
    }

    /// All of the hub's state after the genesis block.
    pub fn system_state(&self) -> Result<SystemState, GenesisError> {
        let state = SystemState::new(self.hub_state()?, Arc::new(self.founding()));
        state.map_err(|e| GenesisError::Invalid(e.to_string()))
    }

    /// The seat set of epoch 0.
    pub fn seats(&self) -> Result<SeatSet, GenesisError> {
        Ok(self.hub_state()?.current().seats().clone())
    }

    /// How the log is cut into epochs.
    pub fn epoch_rules(&self) -> Result<EpochRules, GenesisError> {
        let GenesisEpochs { blocks, seats_per_validator } = self.epochs;
        let blocks = NonZeroU64::new(blocks).ok_or_else(|| GenesisError::Invalid("epochs.blocks is 0".into()))?;
        Ok(EpochRules { blocks, seats_per_validator })
    }

    /// The hub's state after the genesis block.
    pub fn hub_state(&self) -> Result<HubState, GenesisError> {
        let registered = |v: &GenesisValidator| {
            let registration = Registration { bls: v.seat.bls, stake: v.stake, address: v.address, serial: 0 };
            (v.seat.identity, registration)
        };
        let state = HubState::genesis(self.id()?, self.epoch_rules()?, self.validators.iter().map(registered));
        Ok(state.map_err(|e| GenesisError::Invalid(e.to_string()))?.with_protocol(self.protocol))
    }

    /// The network's id: keccak-256 of the compact JSON with object keys in order.
    pub fn id(&self) -> Result<B256, GenesisError> {
        let value = serde_json::to_value(self).map_err(|e| GenesisError::Invalid(e.to_string()))?;
        Ok(keccak256(value.to_string()))
    }

    /// The genesis header.
    pub fn header(&self) -> Result<Header, GenesisError> {
        Ok(Header::genesis(self.id()?, self.timestamp_ms, self.seats()?.hash()))
    }

    /// The rollups' ids.
    pub fn rollup_ids(&self) -> Vec<RollupId> {
        self.rollups.iter().map(|m| m.id).collect()
    }

    /// Block limits.
    pub fn limits(&self) -> Limits {
        let GenesisLimits { body_bytes, segments, transactions, transaction_bytes } = self.limits;
        Limits { body_bytes, segments, transactions, transaction_bytes }
    }
}

#[cfg(test)]
mod tests;

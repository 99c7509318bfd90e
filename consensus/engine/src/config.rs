//! What the engine is told at its start, and why it may refuse.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};
use switchyard_consensus_core::{Committees, EpochRules, History, keys};
use switchyard_consensus_guard::{Kind, Refusal, VoteSigner};
use switchyard_consensus_network::{NetworkError, Transport};
use switchyard_primitives::{B256, Header, Limits};

/// What the engine is told at its start.
#[derive(Clone)]
pub struct EngineConfig {
    /// The network's id: the domain of every signature.
    pub network_id: B256,
    /// Who signs in each epoch. Their proofs of possession have been checked.
    pub committees: Arc<dyn Committees>,
    /// How the log is cut into epochs.
    pub epochs: EpochRules,
    /// The block of height 0.
    pub genesis: Header,
    /// Bounds of a block; the same on every validator.
    pub limits: Limits,
    /// Seed of the ed25519 key.
    pub identity_secret: [u8; 32],
    /// Signs the votes where a seat has its key and this validator's identity; its record is of this network.
    pub signer: Arc<dyn VoteSigner>,
    /// Signs in `signer`'s place where the seat has this one's key: while a validator changes its key.
    pub next_signer: Option<Arc<dyn VoteSigner>>,
    /// Whether to listen before the first vote for another process that signs with the key: some seconds in which this
    /// validator does not vote. Not with one seat, where there is nobody to listen to.
    pub doppelganger_check: bool,
    /// Where to listen for the other validators.
    pub listen: SocketAddr,
    /// What carries messages between the validators; the same on all of them.
    pub transport: Transport,
    /// Addresses of other validators, for those of which the log tells none.
    pub peers: Vec<(B256, SocketAddr)>,
    /// A folder of the engine's own. Losing it and starting again may make this validator sign twice.
    pub data_dir: PathBuf,
    /// How long a leader may take to propose, the builder's waiting for its pace included.
    pub leader_timeout: Duration,
    /// How long a view may take from its start to a certificate; above `leader_timeout`.
    pub certification_timeout: Duration,
    /// A leader from which nothing was heard for this long is skipped at once; above `certification_timeout`, and best
    /// just above it: then a leader that dies costs one `leader_timeout`, and nothing the next time it is its turn.
    pub skip_timeout: Duration,
    /// Threads that run consensus and the network. Disk access has threads of its own.
    pub worker_threads: NonZeroUsize,
    /// The node's durable tip: final blocks are reported from the next height on.
    pub acknowledged_height: u64,
    /// The node's store, from which peers are served what is older than the engine's own archive. Without it the archive
    /// keeps every block.
    pub history: Option<Arc<dyn History>>,
    /// With a `history`: how many of the newest blocks stay in the engine's own archive, for peers that were away for a
    /// moment. [`Self::ARCHIVE_BLOCKS`] is a good value.
    pub archive_blocks: u64,
    /// Proposed blocks of at least this length are sent by their transactions' hashes, and what a validator lacks of them
    /// on request. [`Self::COMPACT_FROM_BYTES`] is a good value.
    pub compact_from_bytes: usize,
}

/// Why the engine does not start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The timeouts are out of order.
    #[error(
        "timeouts must grow: leader {leader_ms} ms < certification {certification_ms} ms < skip {skip_ms} ms, none zero"
    )]
    Timeouts {
        /// `leader_timeout`.
        leader_ms: u128,
        /// `certification_timeout`.
        certification_ms: u128,
        /// `skip_timeout`.
        skip_ms: u128,
    },
    /// The BLS secret is out of range, or a seat's key is not one.
    #[error(transparent)]
    Key(#[from] keys::KeyError),
    /// The genesis header is not one of height 0 and epoch 0, or does not name this network.
    #[error("the genesis header does not belong to network {network}")]
    Genesis {
        /// The configured network.
        network: B256,
    },
    /// The network cannot start.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The folder cannot be used.
    #[error("consensus folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder is empty although the node has blocks, so what this validator has signed is not known any more.
    #[error(
        "consensus folder {path} is empty, but the node's store is at height {height}: starting could sign a second vote \
         for a view and be slashed. Restore the folder; or, once the network has moved on without this validator, remove \
         the node's whole data directory to start over"
    )]
    FolderLost {
        /// The folder.
        path: PathBuf,
        /// The node's durable tip.
        height: u64,
    },
    /// Another process runs an engine in the folder.
    #[error("consensus folder {path} is in use by another process; stop it first")]
    FolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder belongs to another network, genesis or format.
    #[error("consensus folder {path} was written for {found:?}, expected {expected:?}; use another data directory")]
    OtherNetwork {
        /// The folder.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// The archives on disk do not open.
    #[error("consensus archive {name}: {detail}")]
    Archive {
        /// Which archive.
        name: &'static str,
        /// Why.
        detail: String,
    },
    /// The node is behind the archive, and the archive no longer holds what it lacks.
    #[error("the node's store lacks block {height}, and so does the consensus archive; restore the store")]
    MissingBlock {
        /// The lowest missing height.
        height: u64,
    },
    /// The record of what this validator signs cannot be written, so it signs nothing.
    #[error(transparent)]
    SignRecord(#[from] Refusal),
    /// A certificate holds a vote of this validator's key that this validator has not made.
    #[error(
        "another process signs with this validator's BLS key, or its sign record is not the key's: the certificate of view \
         {view} holds a {kind} that is not in the record. Stop the other process; if there is none, restore the record, or \
         see `switchyard sign-record`"
    )]
    Twin {
        /// What was signed.
        kind: Kind,
        /// In which view.
        view: u64,
    },
    /// A part of the engine has ended by itself, which is a defect or a broken disk.
    #[error("consensus has stopped: {0}; what was final or signed is kept, and is there after another start")]
    Failed(String),
}

impl EngineConfig {
    /// Under a minute of a busy hub; at the most 2 GiB with blocks of 2 MiB.
    pub const ARCHIVE_BLOCKS: u64 = 1024;

    /// Below it a block travels as fast as its transactions' hashes, and holds some that have not reached everyone yet.
    pub const COMPACT_FROM_BYTES: usize = 64 << 10;

    /// Checks what can be checked without touching disk or network.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let (leader, certification, skip) = (self.leader_timeout, self.certification_timeout, self.skip_timeout);
        if leader.is_zero() || certification <= leader || skip <= certification {
            return Err(EngineError::Timeouts {
                leader_ms: leader.as_millis(),
                certification_ms: certification.as_millis(),
                skip_ms: skip.as_millis(),
            });
        }
        let genesis = &self.genesis;
        if genesis.height != 0 || genesis.epoch != 0 || genesis.parent != self.network_id {
            return Err(EngineError::Genesis { network: self.network_id });
        }
        Ok(())
    }
}

//! What a node finds on its disk before anything runs: configuration, genesis, keys, log, rollups.

use crate::{
    builder::Rules,
    config::{BlsKey, Config},
    error::{NodeError, io},
    genesis::Genesis,
    keys::{self, KeyError},
    metrics::Metrics,
    signer::RemoteSigner,
};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};
use switchyard_consensus_core::{History, SeatSet, keys::bls_public_key};
use switchyard_consensus_engine::EngineConfig;
use switchyard_consensus_guard::{Key, LocalSigner, SignGuard, VoteSigner};
use switchyard_consensus_network::identity;
use switchyard_mempool::{Mempool, MempoolConfig};
use switchyard_primitives::{B256, Block, FinalityCertificate, Header};
use switchyard_rollup_core::{Admission, RollupManifest, Vm};
use switchyard_rollup_evm::{EvmConfig, EvmDriver, EvmReader, EvmRollup};
use switchyard_rpc::NetworkInfo;
use switchyard_store::{Journal, RocksOptions, RocksStore, Store, StoreError};
use zeroize::Zeroizing;

/// Threads of consensus and its network.
const ENGINE_THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");

/// The engine's archive is durable before it delivers a block, and fills a store that has lost its newest ones in a crash:
/// as long as it keeps more than those.
const FLUSH_EVERY_BLOCKS: NonZeroU64 = NonZeroU64::new(256).expect("not zero");
const _: () = assert!(FLUSH_EVERY_BLOCKS.get() * 2 <= EngineConfig::ARCHIVE_BLOCKS);

/// The store, as the engine serves it to validators that catch up.
struct StoreHistory(Arc<dyn Store>);

impl StoreHistory {
    /// What cannot be read cannot be served; the peer asks another validator.
    fn read<T>(&self, read: impl FnOnce(&dyn Store) -> Result<Option<T>, StoreError>) -> Option<T> {
        read(self.0.as_ref()).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot serve the log to a peer");
            None
        })
    }
}

impl History for StoreHistory {
    fn block(&self, height: u64) -> Option<Block> {
        self.read(|store| store.block(height))
    }

    fn certificate(&self, height: u64) -> Option<FinalityCertificate> {
        self.read(|store| store.certificate_from(height)).filter(|(at, _)| *at == height).map(|(_, found)| found)
    }

    fn height_of(&self, hash: B256) -> Option<u64> {
        self.read(|store| store.height_of(hash))
    }
}

/// A rollup that this node runs.
pub(crate) struct OpenRollup {
    pub(crate) manifest: RollupManifest,
    pub(crate) driver: EvmDriver,
    pub(crate) reader: Arc<EvmReader>,
}

/// Everything checked and open.
pub(crate) struct Opened {
    pub(crate) config: Config,
    pub(crate) genesis: Genesis,
    pub(crate) network: B256,
    pub(crate) header: Header,
    pub(crate) seats: SeatSet,
    identity_secret: Zeroizing<[u8; 32]>,
    /// None with a remote signer.
    bls_secret: Option<Zeroizing<[u8; 32]>>,
    guard: Arc<SignGuard>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rollups: Vec<OpenRollup>,
}

impl Opened {
    /// Reads, checks and opens. Blocking.
    pub(crate) fn open(config: Config) -> Result<Self, NodeError> {
        let genesis = Genesis::load(&config.genesis)?;
        let (network, header, seats) = (genesis.id()?, genesis.header()?, genesis.seats()?);
        let identity_secret = keys::read_plain(&config.keys.identity)?;
        let bls_secret = match &config.keys.bls {
            BlsKey::Remote(_) => None,
            here => Some(keys::read_bls(here)?),
        };
        let key = check_seat(&seats, identity(&identity_secret), bls_secret.as_deref())?;
        check_servers(&config, &genesis)?;
        std::fs::create_dir_all(&config.data_dir).map_err(io(&config.data_dir))?;
        let journal = Journal::Elsewhere { flush_every_blocks: FLUSH_EVERY_BLOCKS };
        let options = RocksOptions { journal, ..RocksOptions::default() };
        let store = RocksStore::open(&config.data_dir.join("store"), network, header, options)?;
        let guard = Arc::new(open_guard(&config, network, key, store.tip().0.height)?);
        let rollups = open_rollups(&config, &genesis)?;
        let store = Arc::new(store);
        Ok(Self { config, genesis, network, header, seats, identity_secret, bls_secret, guard, store, rollups })
    }

    /// What servers tell of the network.
    pub(crate) fn network_info(&self) -> NetworkInfo {
        NetworkInfo {
            name: self.genesis.name.clone(),
            id: self.network,
            genesis_hash: self.header.hash(),
            seats: self.seats.clone(),
            rollups: self.genesis.rollups.clone(),
            limits: self.genesis.limits(),
            client_version: concat!("switchyard/", env!("CARGO_PKG_VERSION")).into(),
        }
    }

    /// The rules of blocks.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            limits: self.genesis.limits(),
            rollups: self.genesis.rollup_ids().into_iter().collect(),
            replay_window_blocks: self.genesis.replay_window_blocks,
        }
    }

    /// An empty mempool for all rollups.
    pub(crate) fn mempool(&self) -> Mempool {
        let config = &self.config.mempool;
        let bounds = MempoolConfig {
            bytes: config.bytes,
            transactions: config.transactions,
            rollup_bytes: config.rollup_bytes,
            rollup_transactions: config.rollup_transactions,
            sender_transactions: config.sender_transactions,
            ttl: Duration::from_secs(config.ttl_seconds),
        };
        let admission = |id| {
            let rollup = self.rollups.iter().find(|r| r.manifest.id == id);
            rollup.map(|r| r.reader.clone() as Arc<dyn Admission>)
        };
        Mempool::new(bounds, self.genesis.limits(), self.genesis.rollups.iter().map(|m| (m.id, admission(m.id))))
    }

    /// What signs the votes. Waits for a remote signer for some seconds.
    pub(crate) async fn signer(&self, metrics: &Metrics) -> Result<Arc<dyn VoteSigner>, NodeError> {
        let guard = self.guard.clone();
        match (&self.config.keys.bls, &self.bls_secret) {
            (BlsKey::Remote(signer), _) => {
                let signer = RemoteSigner::connect(signer, guard, metrics.signer.clone()).await.map_err(Box::new)?;
                Ok(Arc::new(signer))
            }
            (_, Some(secret)) => Ok(Arc::new(LocalSigner::new(**secret, guard).map_err(|_| KeyError::Bls)?)),
            (_, None) => Err(KeyError::Bls.into()),
        }
    }

    /// The engine's configuration.
    pub(crate) fn engine(&self, signer: Arc<dyn VoteSigner>) -> EngineConfig {
        let (pace, network) = (&self.config.consensus, &self.config.network);
        EngineConfig {
            network_id: self.network,
            seats: self.seats.clone(),
            genesis: self.header,
            limits: self.genesis.limits(),
            identity_secret: *self.identity_secret,
            signer,
            doppelganger_check: pace.doppelganger_check,
            listen: network.listen,
            transport: network.transport,
            peers: network.peers.iter().map(|p| (p.identity, p.address)).collect(),
            data_dir: self.config.data_dir.join("consensus"),
            leader_timeout: Duration::from_millis(pace.leader_timeout_ms),
            certification_timeout: Duration::from_millis(pace.certification_timeout_ms),
            skip_timeout: Duration::from_millis(pace.skip_timeout_ms),
            worker_threads: ENGINE_THREADS,
            acknowledged_height: self.store.tip().0.height,
            history: Some(Arc::new(StoreHistory(self.store.clone()))),
            archive_blocks: EngineConfig::ARCHIVE_BLOCKS,
            compact_from_bytes: EngineConfig::COMPACT_FROM_BYTES,
        }
    }
}

/// Opens the sign record, or begins one for a node that has taken part in nothing.
fn open_guard(config: &Config, network: B256, key: Key, height: u64) -> Result<SignGuard, NodeError> {
    let path = config.sign_record();
    if height > 0 && !SignGuard::exists(&path) {
        return Err(NodeError::SignRecordLost { path: path.display().to_string(), height });
    }
    Ok(SignGuard::open(&path, network, key)?)
}

/// The identity must have a seat, and the BLS secret, if it is here, be that seat's. Returns the seat's BLS key.
pub(crate) fn check_seat(seats: &SeatSet, identity: B256, bls: Option<&[u8; 32]>) -> Result<Key, NodeError> {
    let refuse = |text: String| Err(NodeError::NotAValidator(text));
    let Some(seat) = seats.seats().iter().find(|seat| seat.identity == identity) else {
        return refuse(format!("identity {identity} has no seat in this network's genesis"));
    };
    if let Some(secret) = bls {
        let bls = bls_public_key(secret).map_err(|_| KeyError::Bls)?;
        if bls != seat.bls {
            return refuse(format!("BLS key {bls} is not the one of this identity's seat, which is {}", seat.bls));
        }
    }
    Ok(seat.bls.0)
}

/// JSON-RPC is for EVM rollups of the network.
pub(crate) fn check_servers(config: &Config, genesis: &Genesis) -> Result<(), NodeError> {
    let evm = |id| genesis.rollups.iter().any(|m| m.id == id && matches!(m.vm, Vm::Evm { .. }));
    match config.rpc.iter().find(|server| !evm(server.rollup)) {
        Some(server) => {
            Err(NodeError::Config(format!("rpc: rollup {} is not an EVM rollup of this network", server.rollup)))
        }
        None => Ok(()),
    }
}

fn open_rollups(config: &Config, genesis: &Genesis) -> Result<Vec<OpenRollup>, NodeError> {
    let mut open = Vec::new();
    for manifest in &genesis.rollups {
        let Vm::Evm { genesis } = &manifest.vm else { continue };
        let path = config.data_dir.join("rollups").join(manifest.id.to_string());
        std::fs::create_dir_all(&path).map_err(io(&path))?;
        let evm = EvmConfig { rollup: manifest.id, genesis: genesis.clone(), sealing: manifest.sealing };
        let (driver, reader) = EvmRollup::open(&path, evm)
            .map_err(|source| NodeError::Rollup { rollup: manifest.id, source: Box::new(source) })?;
        open.push(OpenRollup { manifest: manifest.clone(), driver, reader });
    }
    Ok(open)
}

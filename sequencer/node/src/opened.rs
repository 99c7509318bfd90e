//! What a node finds on its disk before anything runs: configuration, genesis, keys, log, rollups.

use crate::{
    attest::Operator,
    builder::Rules,
    config::{BlsKey, Config, Keys, Network},
    error::{NodeError, io},
    genesis::Genesis,
    hub::{HubStates, SystemAdmission},
    keys::{self, KeyError},
    metrics::Metrics,
    signer::{self, RemoteSigner},
    sync::trust::Judge,
};
use alloy_primitives::FixedBytes;
use std::{
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};
use switchyard_consensus_core::{History, HubState, keys::bls_public_key};
use switchyard_consensus_engine::EngineConfig;
use switchyard_consensus_guard::{Key, LocalSigner, SignGuard, VoteSigner};
use switchyard_consensus_network::identity;
use switchyard_mempool::{Mempool, MempoolConfig};
use switchyard_primitives::{B256, Block, FinalityCertificate, Header, RollupId};
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
pub struct StoreHistory(pub Arc<dyn Store>);

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

    fn hash_of(&self, height: u64) -> Option<B256> {
        self.read(|store| Ok(store.header(height)?.map(|header| header.hash())))
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

/// What a validator has besides.
struct OpenSeat {
    identity_secret: Zeroizing<[u8; 32]>,
    /// None with a remote signer.
    bls_secret: Option<Zeroizing<[u8; 32]>>,
    /// That of `[keys.next]`.
    next_secret: Option<Zeroizing<[u8; 32]>>,
    keys: Keys,
    network: Network,
}

impl OpenSeat {
    /// Reads the keys; none for a follower.
    fn read(config: &Config) -> Result<Option<Self>, NodeError> {
        let (Some(keys), Some(network)) = (config.keys.clone(), config.network.clone()) else { return Ok(None) };
        let identity_secret = keys::read_plain(&keys.identity)?;
        let bls_secret = match &keys.bls {
            BlsKey::Remote(_) => None,
            here => Some(keys::read_bls(here)?),
        };
        let next_secret = keys.next.as_ref().map(keys::read_bls).transpose()?;
        Ok(Some(Self { identity_secret, bls_secret, next_secret, keys, network }))
    }

    /// The keys must be a validator's.
    fn check(&self, state: &HubState) -> Result<(), NodeError> {
        let secrets = self.bls_secret.iter().chain(&self.next_secret);
        let bls: Vec<_> = secrets.map(|s| bls_public_key(s)).collect::<Result<_, _>>().map_err(|_| KeyError::Bls)?;
        check_seat(state, identity(&self.identity_secret), &bls, self.network.joining)
    }
}

/// Everything checked and open.
pub(crate) struct Opened {
    pub(crate) config: Config,
    pub(crate) genesis: Genesis,
    pub(crate) network: B256,
    pub(crate) header: Header,
    pub(crate) hub: HubStates,
    /// None for a follower.
    seat: Option<OpenSeat>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) rollups: Vec<OpenRollup>,
}

impl Opened {
    /// Reads, checks and opens. Blocking.
    pub(crate) fn open(config: Config) -> Result<Self, NodeError> {
        let genesis = Genesis::load(&config.genesis)?;
        let (network, header) = (genesis.id()?, genesis.header()?);
        let seat = OpenSeat::read(&config)?;
        check_servers(&config, &genesis)?;
        let path = config.data_dir.join("store");
        if let (false, Some(seat)) = (path.exists(), &seat) {
            // Nothing is made for a node that may not run.
            seat.check(&genesis.hub_state()?)?;
        }
        std::fs::create_dir_all(&config.data_dir).map_err(io(&config.data_dir))?;
        let journal = Journal::Elsewhere { flush_every_blocks: FLUSH_EVERY_BLOCKS };
        let options = RocksOptions { journal, ..RocksOptions::default() };
        let store = RocksStore::open(&path, network, header, options)?;
        let store: Arc<dyn Store> = Arc::new(store);
        let hub = HubStates::open_knowing(config.newest_protocol, store.clone(), network, genesis.system_state()?)?;
        if let Some(seat) = &seat {
            seat.check(&hub.tip())?;
        }
        let rollups = open_rollups(&config, &genesis)?;
        Ok(Self { config, genesis, network, header, hub, seat, store, rollups })
    }

    /// What servers tell of the network.
    pub(crate) fn network_info(&self) -> NetworkInfo {
        NetworkInfo {
            name: self.genesis.name.clone(),
            id: self.network,
            genesis_hash: self.header.hash(),
            rollups: self.genesis.rollups.clone(),
            limits: self.genesis.limits(),
            client_version: concat!("switchyard/", env!("CARGO_PKG_VERSION")).into(),
            forwards_submissions: self.seat.is_none(),
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
        let system: Arc<dyn Admission> = Arc::new(SystemAdmission(self.hub.clone()));
        let rollups = self.genesis.rollups.iter().map(|m| (m.id, admission(m.id)));
        Mempool::new(bounds, self.genesis.limits(), rollups.chain([(RollupId::SYSTEM, Some(system))]))
    }

    /// What makes a block of another node's log final.
    pub(crate) fn judge(&self) -> Judge {
        Judge::new(self.network, Arc::new(self.hub.clone()), self.config.sync.checkpoint)
    }

    /// What signs the votes, with the record of what it has signed; none for a follower. Waits for a remote signer for some
    /// seconds.
    pub(crate) async fn signer(&self, metrics: &Metrics) -> Result<Option<Arc<dyn VoteSigner>>, NodeError> {
        let Some(seat) = &self.seat else { return Ok(None) };
        let guard = |key| open_guard(&self.config, self.network, key, self.store.tip().0.height).map(Arc::new);
        match (&seat.keys.bls, &seat.bls_secret) {
            (BlsKey::Remote(remote), _) => {
                // A validator that is about to join finds its key nowhere else.
                let key = signer::probe(remote).await.map_err(Box::new)?.key;
                check_seat(&self.hub.tip(), identity(&seat.identity_secret), &[key], seat.network.joining)?;
                let signer = RemoteSigner::connect(remote, guard(key.0)?, metrics.signer.clone()).await;
                Ok(Some(Arc::new(signer.map_err(Box::new)?)))
            }
            (_, Some(secret)) => {
                let key = bls_public_key(secret).map_err(|_| KeyError::Bls)?;
                Ok(Some(Arc::new(LocalSigner::new(**secret, guard(key.0)?).map_err(|_| KeyError::Bls)?)))
            }
            (_, None) => Err(KeyError::Bls.into()),
        }
    }

    /// What signs in the signer's place once `[keys.next]` has the seats.
    fn next_signer(&self) -> Result<Option<Arc<dyn VoteSigner>>, NodeError> {
        let Some(secret) = self.seat.as_ref().and_then(|seat| seat.next_secret.as_ref()) else { return Ok(None) };
        let key = bls_public_key(secret).map_err(|_| KeyError::Bls)?;
        let path = self.config.next_sign_record();
        let (state, height) = (self.hub.tip(), self.store.tip().0.height);
        let mut seats = [state.current(), state.following()].into_iter().flat_map(|committee| committee.members());
        if !SignGuard::exists(&path) && seats.any(|member| member.seat.bls == key) {
            return Err(NodeError::SignRecordLost { path: path.display().to_string(), height });
        }
        let guard = SignGuard::open(&path, self.network, key.0)?;
        let signer = LocalSigner::new(**secret, Arc::new(guard)).map_err(|_| KeyError::Bls)?;
        Ok(Some(Arc::new(signer)))
    }

    /// The operator's secret and record; none where this node has none.
    pub(crate) fn operator(&self) -> Result<Option<Operator>, NodeError> {
        let (Some(operator), Some(seat)) = (&self.config.operator, &self.seat) else { return Ok(None) };
        let secret = keys::read_bls(operator.key())?;
        let key = bls_public_key(&secret).map_err(|_| KeyError::Bls)?;
        let (path, me) = (self.config.operator_sign_record(), identity(&seat.identity_secret));
        let state = self.hub.tip();
        let known = state.bridge().and_then(|bridge| bridge.operators().get(&me));
        if let Some(known) = known.filter(|known| known.bls != key) {
            let text = format!("[operator] has the key {key}, but this operator has registered {}", known.bls);
            return Err(NodeError::Config(text));
        }
        let height = self.store.tip().0.height;
        if !SignGuard::exists(&path) && known.is_some() && self.config.consensus_dir().exists() {
            return Err(NodeError::SignRecordLost { path: path.display().to_string(), height });
        }
        let guard = SignGuard::open(&path, self.network, key.0)?;
        Ok(Some(Operator { identity: me, secret, guard }))
    }

    /// The engine's configuration; none for a follower.
    pub(crate) fn engine(&self, signer: Arc<dyn VoteSigner>) -> Result<Option<EngineConfig>, NodeError> {
        let pace = &self.config.consensus;
        let Some(OpenSeat { identity_secret, network, .. }) = &self.seat else { return Ok(None) };
        let next_signer = self.next_signer()?;
        Ok(Some(EngineConfig {
            network_id: self.network,
            committees: Arc::new(self.hub.clone()),
            epochs: *self.hub.tip().rules(),
            genesis: self.header,
            limits: self.genesis.limits(),
            identity_secret: **identity_secret,
            signer,
            next_signer,
            doppelganger_check: pace.doppelganger_check,
            listen: network.listen,
            transport: network.transport,
            peers: network.peers.iter().map(|p| (p.identity, p.address)).collect(),
            data_dir: self.config.consensus_dir(),
            leader_timeout: Duration::from_millis(pace.leader_timeout_ms),
            certification_timeout: Duration::from_millis(pace.certification_timeout_ms),
            skip_timeout: Duration::from_millis(pace.skip_timeout_ms),
            worker_threads: ENGINE_THREADS,
            acknowledged_height: self.store.tip().0.height,
            history: Some(Arc::new(StoreHistory(self.store.clone()))),
            archive_blocks: EngineConfig::ARCHIVE_BLOCKS,
            compact_from_bytes: EngineConfig::COMPACT_FROM_BYTES,
        }))
    }
}

/// Opens the sign record, or begins one for a node that has taken part in nothing. The engine's folder is made after the
/// record; the store may not have a block yet when the first votes have left.
fn open_guard(config: &Config, network: B256, key: Key, height: u64) -> Result<SignGuard, NodeError> {
    let path = config.sign_record();
    let has_taken_part = height > 0 || config.consensus_dir().exists();
    if has_taken_part && !SignGuard::exists(&path) {
        return Err(NodeError::SignRecordLost { path: path.display().to_string(), height });
    }
    Ok(SignGuard::open(&path, network, key)?)
}

/// The identity must be a validator's, in the stake table as far as the log is known here, or with a seat in an epoch that runs;
/// and one of the BLS keys, where any is known, that validator's. One that joins is in neither until it has the log.
pub(crate) fn check_seat(
    state: &HubState,
    identity: B256,
    bls: &[FixedBytes<48>],
    joining: bool,
) -> Result<(), NodeError> {
    let refuse = |text: String| Err(NodeError::NotAValidator(text));
    let committees = [state.current(), state.following()];
    let seated = committees.iter().filter_map(|c| c.member(&identity)).map(|m| m.seat.bls);
    let known: Vec<_> = state.validators().get(&identity).map(|v| v.bls).into_iter().chain(seated).collect();
    let Some(first) = known.first() else {
        if joining {
            return Ok(());
        }
        return refuse(format!(
            "identity {identity} has no seat in this network and is not in its stake table; a validator that is about to join sets \
             network.joining = true"
        ));
    };
    if let Some(bls) = bls.first().filter(|_| !bls.iter().any(|bls| known.contains(bls))) {
        return refuse(format!("BLS key {bls} is not the one of this identity's seat, which is {first}"));
    }
    Ok(())
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
        let path = config.rollup_state(manifest.id);
        std::fs::create_dir_all(&path).map_err(io(&path))?;
        let evm = EvmConfig { rollup: manifest.id, genesis: genesis.clone(), sealing: manifest.sealing };
        let (driver, reader) = EvmRollup::open(&path, evm)
            .map_err(|source| NodeError::Rollup { rollup: manifest.id, source: Box::new(source) })?;
        open.push(OpenRollup { manifest: manifest.clone(), driver, reader });
    }
    Ok(open)
}

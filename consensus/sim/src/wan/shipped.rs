//! The engine as it is shipped, with blocks that are ready-made.

use super::{Dissemination, Run, Seat, TIMEOUTS, TRANSACTION_BYTES, Watch, post::address};
use crate::{context::Context, world::OPAQUE};
use commonware_runtime::{Clock as _, Spawner as _, Supervisor as _};
use std::{
    collections::HashMap,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use switchyard_consensus_core::{Ancestors, BlockBuilder, EngineEvent, InvalidBlock, SingleEpoch};
use switchyard_consensus_engine::{Embedded, EngineConfig, GossipHandle, embedded};
use switchyard_consensus_guard::{LocalSigner, SignGuard};
use switchyard_consensus_network::Transport;
use switchyard_primitives::{B256, Block, Bytes, Header, Segment, TxHash, TxKey};
use tokio::sync::oneshot;

/// What all builders share: every block holds the same transactions, which nobody executes.
pub(super) struct Load {
    transactions: Vec<Bytes>,
    hashes: Vec<TxHash>,
    by_key: HashMap<TxKey, Bytes>,
    watch: Arc<Watch>,
    dissemination: Dissemination,
}

impl Load {
    pub(super) fn new(block_bytes: usize, watch: Arc<Watch>, dissemination: Dissemination) -> Arc<Self> {
        let transaction = |i: usize| {
            let mut payload = vec![0xa5; TRANSACTION_BYTES];
            payload[..8].copy_from_slice(&i.to_be_bytes());
            payload.into()
        };
        let transactions: Vec<Bytes> = (0..block_bytes / TRANSACTION_BYTES).map(transaction).collect();
        let keys: Vec<TxKey> = transactions.iter().map(|tx| TxKey::of(OPAQUE, tx)).collect();
        let hashes = keys.iter().map(|key| key.hash).collect();
        let by_key = keys.into_iter().zip(transactions.iter().cloned()).collect();
        Arc::new(Self { transactions, hashes, by_key, watch, dissemination })
    }
}

#[derive(Clone)]
struct Filler {
    load: Arc<Load>,
    context: Arc<Context>,
}

impl BlockBuilder for Filler {
    async fn build(&self, parent: Arc<Block>, _: Ancestors) -> Option<Block> {
        let now = self.context.current();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let height = parent.header.height + 1;
        let header = Header {
            parent: parent.hash(),
            height,
            timestamp_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            ..Header::genesis(B256::ZERO, 0, B256::ZERO)
        };
        let Load { transactions, hashes, watch, .. } = &*self.load;
        let block = match transactions.is_empty() {
            true => Block::new(header, Vec::new()),
            false => {
                let segment = Segment { rollup: OPAQUE, transactions: transactions.clone() };
                Block::with_hashes(header, vec![segment], vec![hashes.clone()])
            }
        };
        watch.proposed(block.hash(), height, now);
        Some(block)
    }

    async fn judge(&self, _: Arc<Block>, _: Arc<Block>, _: Ancestors) -> Result<(), InvalidBlock> {
        Ok(())
    }

    fn held(&self, keys: &[TxKey]) -> Vec<Option<Bytes>> {
        let held = self.load.dissemination == Dissemination::ByHash;
        keys.iter().map(|key| self.load.by_key.get(key).filter(|_| held).cloned()).collect()
    }
}

/// What keeps a validator running.
pub(super) type Running = (oneshot::Sender<()>, GossipHandle);

/// Starts a validator.
pub(super) fn start(run: &Run, seat: Seat, load: &Arc<Load>, folder: &Path) -> Running {
    let Seat { index, context, channels } = seat;
    let builder = Filler { load: load.clone(), context: Arc::new(context.child("builder")) };
    let config = config(run, index, folder);
    let Embedded { mut events, gossip, stop, run, .. } = embedded(context.child("engine"), config, builder, channels);
    context.child("run").spawn(move |_| run);
    let watch = load.watch.clone();
    context.child("events").spawn(move |context| async move {
        while let Some(event) = events.recv().await {
            let EngineEvent::Final { block, ack, .. } = event else { continue };
            // The simulation may be over.
            let _ = ack.send(());
            watch.last_seen(block.hash(), context.current());
        }
    });
    (stop, gossip)
}

fn config(run: &Run, index: usize, folder: &Path) -> EngineConfig {
    let (world, by_hash) = (&run.world, run.case.dissemination == Dissemination::ByHash);
    let (secrets, seat) = (world.secrets[index], &world.validators[index]);
    let record = SignGuard::open(&folder.join(index.to_string()), world.network, seat.bls.0);
    let record = Arc::new(record.expect("the run's own folder"));
    let [leader_timeout, certification_timeout, skip_timeout] = TIMEOUTS;
    EngineConfig {
        network_id: world.network,
        committees: Arc::new(SingleEpoch::new(world.seats.clone()).expect("the network's own seats")),
        epochs: world.epochs,
        genesis: world.genesis,
        limits: world.limits,
        identity_secret: secrets.identity,
        signer: Arc::new(LocalSigner::new(secrets.bls[0], record).expect("the validator's own key")),
        next_signer: None,
        doppelganger_check: false,
        listen: SocketAddr::from(([0, 0, 0, 0], 0)),
        transport: Transport::default(),
        peers: world.validators.iter().enumerate().map(|(i, seat)| (seat.identity, address(i))).collect(),
        data_dir: PathBuf::new(),
        leader_timeout,
        certification_timeout,
        skip_timeout,
        worker_threads: NonZeroUsize::MIN,
        acknowledged_height: 0,
        history: None,
        archive_blocks: EngineConfig::ARCHIVE_BLOCKS,
        compact_from_bytes: if by_hash { EngineConfig::COMPACT_FROM_BYTES } else { usize::MAX },
    }
}

//! A gateway over real blocks with real certificates, made by seats whose keys the test holds.

use alloy_primitives::{Address, B256, Bytes, FixedBytes};
use blst::min_pk::{AggregateSignature, SecretKey, Signature};
use futures::{FutureExt, future::BoxFuture};
use std::num::NonZeroU64;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use switchyard_bridge_core::SystemState;
use switchyard_consensus_core::{EpochRules, HubState, Seat, SeatSet, VOTE_DST, finalize_message, stake::Registration};
use switchyard_primitives::{
    Block, FinalityCertificate, FinalityProof, Header, Limits, RollupId, Segment, SegmentTable, SignerBitmap, TxHash,
    TxKey,
};
use switchyard_rollup_core::{Rejection, RollupManifest, Sealing, Vm, evm::EvmChain};
use switchyard_rpc::{BlockAt, EpochAt, Gateway, GatewayError, HubTip, NetworkInfo, SegmentAt, TxStatus};
use tokio::sync::{Semaphore, broadcast, watch};

/// Nothing is known of the transaction.
pub(crate) const UNKNOWN: TxStatus = TxStatus { level: None, included: None, outcome: None, rejection: None };
/// The rollups of the fake network.
pub(crate) const ROLLUPS: [u64; 2] = [7, 9];

/// The secret keys of four seats, in the order of their identities.
pub(crate) fn secrets() -> Vec<SecretKey> {
    (1..=4).map(|i| SecretKey::key_gen(&[i; 32], &[]).unwrap()).collect()
}

/// The seats of [`secrets`].
pub(crate) fn seats(secrets: &[SecretKey]) -> Vec<Seat> {
    let seat = |(i, key): (u8, &SecretKey)| Seat {
        identity: B256::repeat_byte(i),
        bls: FixedBytes(key.sk_to_pk().compress()),
    };
    (1..).zip(secrets).map(seat).collect()
}

/// The finality certificate of `header`, signed by the first `signers` seats.
pub(crate) fn certify(network: B256, secrets: &[SecretKey], header: &Header, signers: usize) -> FinalityCertificate {
    let (epoch, view, parent_view, block) = (header.epoch, header.height + 10, header.height + 9, header.hash());
    let message = finalize_message(network, epoch, view, parent_view, block);
    let votes: Vec<Signature> = secrets[..signers].iter().map(|key| key.sign(&message, VOTE_DST, &[])).collect();
    let aggregate = AggregateSignature::aggregate(&votes.iter().collect::<Vec<_>>(), false).unwrap();
    let signers = SignerBitmap::new(secrets.len() as u32, 0..signers as u32);
    FinalityCertificate { epoch, view, parent_view, block, signers, signature: aggregate.to_signature().compress() }
}

/// A manifest without a VM.
pub(crate) fn opaque(id: u64) -> RollupManifest {
    RollupManifest { id: RollupId(id), name: format!("rollup-{id}"), vm: Vm::Opaque, sealing: Sealing::HubBlock }
}

/// A segment of a block to be.
pub(crate) fn segment(rollup: u64, transactions: &[&[u8]]) -> Segment {
    let transactions = transactions.iter().map(|tx| Bytes::copy_from_slice(tx)).collect();
    Segment { rollup: RollupId(rollup), transactions }
}

#[derive(Default)]
struct State {
    blocks: Vec<Block>,
    tables: Vec<SegmentTable>,
    certificates: BTreeMap<u64, FinalityCertificate>,
    statuses: HashMap<TxKey, TxStatus>,
    submitted: Vec<(RollupId, Bytes)>,
}

/// The gateway.
pub(crate) struct FakeHub {
    info: NetworkInfo,
    pub(crate) seats: SeatSet,
    secrets: Vec<SecretKey>,
    state: Mutex<State>,
    tip: watch::Sender<HubTip>,
    /// The lowest height kept.
    pub(crate) earliest: AtomicU64,
    /// The chain of the first rollup, if this node runs it.
    pub(crate) evm: Mutex<Option<Arc<dyn EvmChain>>>,
    /// Whether the store fails.
    pub(crate) fail_reads: AtomicBool,
    /// Calls of [`Gateway::segment`].
    pub(crate) segment_reads: AtomicUsize,
    /// Submissions that wait for [`Self::admit`].
    pub(crate) submitting: AtomicUsize,
    /// The most submissions that waited at a time.
    pub(crate) submitting_max: AtomicUsize,
    /// A submission takes a permit for good; plenty unless the test takes them away.
    pub(crate) admit: Semaphore,
}

impl FakeHub {
    /// A network at its genesis.
    pub(crate) fn new() -> Arc<Self> {
        let secrets = secrets();
        let seats = SeatSet::new(seats(&secrets)).unwrap();
        let network = B256::repeat_byte(0xaa);
        Self::of(network, Header::genesis(network, 1_000, seats.hash()), seats, secrets)
    }

    /// A network with a genesis of its own.
    pub(crate) fn of(network: B256, genesis: Header, seats: SeatSet, secrets: Vec<SecretKey>) -> Arc<Self> {
        let info = NetworkInfo {
            name: "fake".to_owned(),
            id: network,
            genesis_hash: genesis.hash(),
            rollups: ROLLUPS.map(opaque).into(),
            limits: Limits::default(),
            client_version: "switchyard/test".to_owned(),
            forwards_submissions: false,
        };
        let tip = HubTip { height: 0, hash: genesis.hash(), timestamp_ms: genesis.timestamp_ms };
        let (blocks, tables) = (vec![Block::genesis(genesis)], vec![SegmentTable::default()]);
        let state = State { blocks, tables, ..State::default() };
        Arc::new(Self {
            info,
            seats,
            secrets,
            state: Mutex::new(state),
            tip: watch::channel(tip).0,
            earliest: AtomicU64::new(0),
            evm: Mutex::new(None),
            fail_reads: AtomicBool::new(false),
            segment_reads: AtomicUsize::new(0),
            submitting: AtomicUsize::new(0),
            submitting_max: AtomicUsize::new(0),
            admit: Semaphore::new(1_000_000),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seats.
    pub(crate) fn seats(&self) -> &SeatSet {
        &self.seats
    }

    /// Makes a block with a certificate the tip; returns its height.
    pub(crate) fn push(&self, segments: Vec<Segment>) -> u64 {
        self.push_block(segments, true)
    }

    /// Makes a block the tip, with a certificate of its own or without; returns its height.
    pub(crate) fn push_block(&self, segments: Vec<Segment>, certified: bool) -> u64 {
        let mut state = self.state();
        let parent = state.blocks.last().unwrap().header;
        let timestamp_ms = parent.timestamp_ms + 50;
        let height = parent.height + 1;
        let header = Header { parent: parent.hash(), height, timestamp_ms, next_seats_hash: B256::ZERO, ..parent };
        let block = Block::new(header, segments);
        if certified {
            let certificate = certify(self.info.id, &self.secrets, &block.header, 3);
            state.certificates.insert(height, certificate);
        }
        let tip = HubTip { height, hash: block.hash(), timestamp_ms };
        state.tables.push(SegmentTable::new(block.segments()));
        state.blocks.push(block);
        drop(state);
        self.tip.send_replace(tip);
        height
    }

    /// Sets what [`Gateway::status`] answers, and wakes who waits for a tip.
    pub(crate) fn set_status(&self, key: TxKey, status: TxStatus) {
        self.state().statuses.insert(key, status);
        self.tip.send_modify(|_| ());
    }

    /// What was submitted and accepted, in order.
    pub(crate) fn submitted(&self) -> Vec<(RollupId, Bytes)> {
        self.state().submitted.clone()
    }

    /// A block.
    pub(crate) fn block(&self, height: u64) -> Block {
        self.state().blocks[height as usize].clone()
    }

    async fn take(&self, rollup: RollupId, payloads: Vec<Bytes>) -> Vec<Result<TxHash, Rejection>> {
        let waiting = self.submitting.fetch_add(1, Ordering::SeqCst) + 1;
        self.submitting_max.fetch_max(waiting, Ordering::SeqCst);
        self.admit.acquire().await.unwrap().forget();
        self.submitting.fetch_sub(1, Ordering::SeqCst);
        payloads
            .into_iter()
            .map(|payload| match payload.first() {
                None => Err(Rejection::Empty),
                Some(b'!') => Err(Rejection::Malformed("starts with !".to_owned())),
                Some(_) => {
                    let hash = TxKey::of(rollup, &payload).hash;
                    self.state().submitted.push((rollup, payload));
                    Ok(hash)
                }
            })
            .collect()
    }
}

impl Gateway for FakeHub {
    fn info(&self) -> &NetworkInfo {
        &self.info
    }

    fn submit(&self, rollup: RollupId, payloads: Vec<Bytes>) -> BoxFuture<'_, Vec<Result<TxHash, Rejection>>> {
        self.take(rollup, payloads).boxed()
    }

    fn status(&self, key: TxKey) -> Result<TxStatus, GatewayError> {
        Ok(self.state().statuses.get(&key).cloned().unwrap_or(UNKNOWN))
    }

    fn tip(&self) -> watch::Receiver<HubTip> {
        self.tip.subscribe()
    }

    fn earliest(&self) -> u64 {
        self.earliest.load(Ordering::SeqCst)
    }

    fn header(&self, height: u64) -> Result<Option<Header>, GatewayError> {
        Ok(self.state().blocks.get(height as usize).map(|block| block.header))
    }

    fn segment(&self, rollup: RollupId, height: u64) -> Result<Option<SegmentAt>, GatewayError> {
        self.segment_reads.fetch_add(1, Ordering::SeqCst);
        if height < self.earliest() {
            return Err(GatewayError::Pruned { height, earliest: self.earliest() });
        }
        if self.fail_reads.load(Ordering::SeqCst) {
            return Err(GatewayError::Store("disk on fire".to_owned()));
        }
        let state = self.state();
        let at = height as usize;
        Ok(state.blocks.get(at).zip(state.tables.get(at)).map(|(block, table)| SegmentAt {
            header: block.header,
            transactions: block.transactions(rollup).to_vec(),
            proof: table.prove(rollup),
        }))
    }

    fn finality(&self, height: u64) -> Result<Option<FinalityProof>, GatewayError> {
        let state = self.state();
        Ok(state.certificates.range(height..).next().map(|(certified, certificate)| FinalityProof {
            headers: (height..=*certified).map(|h| state.blocks[h as usize].header).collect(),
            certificate: certificate.clone(),
        }))
    }

    fn hub_state_at(&self, _: u64) -> Result<Vec<u8>, GatewayError> {
        Ok(Vec::new())
    }

    fn finality_run(&self, from: u64) -> Result<Option<FinalityProof>, GatewayError> {
        let state = self.state();
        let reach = from.saturating_add(FinalityProof::MAX_HEADERS as u64 - 1);
        let found = state.certificates.range(from..=reach).next_back();
        Ok(found.map(|(certified, certificate)| FinalityProof {
            headers: (from..=*certified).map(|h| state.blocks[h as usize].header).collect(),
            certificate: certificate.clone(),
        }))
    }

    fn block(&self, height: u64) -> Result<Option<BlockAt>, GatewayError> {
        if height < self.earliest() {
            return Err(GatewayError::Pruned { height, earliest: self.earliest() });
        }
        let state = self.state();
        Ok(state.blocks.get(height as usize).map(|block| BlockAt {
            block: block.encode().into(),
            certificate: state.certificates.get(&height).cloned(),
        }))
    }

    fn hub_state(&self) -> Arc<SystemState> {
        let rules = EpochRules { blocks: NonZeroU64::MAX, seats_per_validator: 1 };
        let registered =
            |seat: &Seat| (seat.identity, Registration { bls: seat.bls, stake: 1, address: None, serial: 0 });
        let hub = HubState::genesis(self.info.id, rules, self.seats.seats().iter().map(registered)).unwrap();
        Arc::new(SystemState::new(hub, Arc::default()).unwrap())
    }

    fn epoch(&self, epoch: u64) -> Result<Option<EpochAt>, GatewayError> {
        Ok((epoch == 0).then(|| EpochAt { epoch, first_height: 0, seats: self.seats.clone(), boundary: None }))
    }

    fn pending(&self, _: TxKey) -> Option<Bytes> {
        None
    }

    fn pending_nonce(&self, _: RollupId, _: Address) -> Option<u64> {
        None
    }

    fn subscribe_pending(&self, _: RollupId) -> broadcast::Receiver<TxHash> {
        broadcast::channel(1).1
    }

    fn evm(&self, rollup: RollupId) -> Option<Arc<dyn EvmChain>> {
        if rollup.0 == ROLLUPS[0] { self.evm.lock().unwrap().clone() } else { None }
    }

    fn recent_errors(&self) -> Vec<String> {
        vec!["peer 3 is silent".to_owned()]
    }
}

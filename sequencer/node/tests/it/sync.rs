//! Copying the log from sources of which some lie: a fake that serves real blocks and alters what it says.

use crate::fake::{FakeHub, certify, seats, secrets, segment};
use futures::{StreamExt, stream, stream::BoxStream};
use std::{num::NonZeroU64, sync::Arc, time::Duration};
use switchyard_bridge_core::SystemState;
use switchyard_consensus_core::{EngineEvent, EpochRules, HubState, Seat, SeatSet, SingleEpoch, stake::Registration};
use switchyard_node::{
    config::Checkpoint,
    error::NodeError,
    hub::HubStates,
    metrics::{Metrics, ReasonLabel},
    sync::{self, Begin, Sources, SyncParts, SyncStatus, Timing, trust::Judge},
};
use switchyard_primitives::{B256, Block, Header, Limits};
use switchyard_proto::{to_bytes, v1};
use switchyard_rpc::{
    Gateway, HubTip, RpcMetrics,
    grpc::{GrpcLimits, GrpcOptions, serve},
};
use switchyard_store::{MemoryStore, Store};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};
use v1::block_service_server::{BlockService, BlockServiceServer};

/// Far more than anything takes.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Short enough for a test; honest sources come back at once should the machine be too slow for it.
fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        answer: ms(2000),
        chunk: ms(2000),
        patience: ms(100),
        silent: ms(400),
        tick: ms(20),
        away: ms(20),
        bad: ms(50),
        bad_max: ms(200),
        checkpoint: ms(500),
    }
}

/// A chain of `count` blocks; the same each time.
fn hub(count: u64) -> Arc<FakeHub> {
    let hub = FakeHub::new();
    extend(&hub, count);
    hub
}

/// Grows a chain to `count` blocks. Every third block has no certificate of its own, but the last one always has.
fn extend(hub: &FakeHub, count: u64) {
    let tip = hub.tip().borrow().height;
    for height in tip + 1..=count {
        let transaction = height.to_be_bytes();
        hub.push_block(vec![segment(7, &[&transaction])], height % 3 != 0 || height == count);
    }
}

/// An honest source.
struct Honest {
    url: String,
    _stop: DropGuard,
}

async fn honest(hub: &Arc<FakeHub>) -> Honest {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let limits = GrpcLimits::default();
    let options = GrpcOptions { limits, metrics: RpcMetrics::default(), ready: Arc::new(|| Ok(())) };
    tokio::spawn(serve(listener, hub.clone(), options, stop.clone()));
    Honest { url, _stop: stop.drop_guard() }
}

type Finality = v1::StreamFinalityResponse;
type Blocks = v1::StreamBlocksResponse;

/// A source that says what a real one says, altered.
struct Liar {
    hub: Arc<FakeHub>,
    info: fn(&mut v1::GetInfoResponse),
    finality: fn(&FakeHub, &mut v1::FinalityProof),
    block: fn(&FakeHub, &mut Blocks),
    /// Proofs after which none comes any more.
    proofs: usize,
    /// Blocks of a stream after which none comes any more.
    blocks: usize,
    /// Goes on with the first block for ever.
    endless: bool,
    hub_state: bytes::Bytes,
}

impl Liar {
    fn of(hub: &Arc<FakeHub>) -> Self {
        Self {
            hub: hub.clone(),
            info: |_| (),
            finality: |_, _| (),
            block: |_, _| (),
            proofs: usize::MAX,
            blocks: usize::MAX,
            endless: false,
            hub_state: bytes::Bytes::new(),
        }
    }

    async fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(connection, _)| connection);
            Some((accepted, listener))
        });
        let service = BlockServiceServer::from_arc(Arc::new(self)).max_encoding_message_size(usize::MAX);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming.boxed()));
        url
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// These, and then nothing more, without an end.
fn silent_after<T: Send + 'static>(messages: Vec<T>) -> Answers<T> {
    stream::iter(messages.into_iter().map(Ok)).chain(stream::pending()).boxed()
}

#[tonic::async_trait]
impl BlockService for Liar {
    async fn get_info(self: Arc<Self>, _: Request<v1::GetInfoRequest>) -> Answer<v1::GetInfoResponse> {
        let tip = *self.hub.tip().borrow();
        let mut info = v1::GetInfoResponse {
            network_id: to_bytes(self.hub.info().id),
            tip: Some(v1::BlockRef { height: tip.height, hash: to_bytes(tip.hash), timestamp_ms: 0 }),
            ..Default::default()
        };
        (self.info)(&mut info);
        Ok(Response::new(info))
    }

    async fn get_header(self: Arc<Self>, _: Request<v1::GetHeaderRequest>) -> Answer<v1::GetHeaderResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_finality_proof(
        self: Arc<Self>,
        _: Request<v1::GetFinalityProofRequest>,
    ) -> Answer<v1::GetFinalityProofResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_segment(self: Arc<Self>, _: Request<v1::GetSegmentRequest>) -> Answer<v1::GetSegmentResponse> {
        Err(Status::unimplemented(""))
    }

    type StreamSegmentsStream = Answers<v1::StreamSegmentsResponse>;

    async fn stream_segments(
        self: Arc<Self>,
        _: Request<v1::StreamSegmentsRequest>,
    ) -> Answer<Self::StreamSegmentsStream> {
        Err(Status::unimplemented(""))
    }

    async fn get_hub_state(self: Arc<Self>, _: Request<v1::GetHubStateRequest>) -> Answer<v1::GetHubStateResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_epoch(self: Arc<Self>, _: Request<v1::GetEpochRequest>) -> Answer<v1::GetEpochResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_hub_state_at(
        self: Arc<Self>,
        _: Request<v1::GetHubStateAtRequest>,
    ) -> Answer<v1::GetHubStateAtResponse> {
        Ok(Response::new(v1::GetHubStateAtResponse { state: self.hub_state.clone() }))
    }

    type StreamSnapshotStream = Answers<v1::StreamSnapshotResponse>;

    async fn stream_snapshot(
        self: Arc<Self>,
        _: Request<v1::StreamSnapshotRequest>,
    ) -> Answer<Self::StreamSnapshotStream> {
        Err(Status::unimplemented(""))
    }

    type StreamFinalityStream = Answers<Finality>;

    async fn stream_finality(
        self: Arc<Self>,
        request: Request<v1::StreamFinalityRequest>,
    ) -> Answer<Self::StreamFinalityStream> {
        let (mut next, mut messages) = (request.into_inner().from_height, vec![]);
        while let Some(proof) = self.hub.finality_run(next).unwrap().filter(|_| messages.len() < self.proofs) {
            next += proof.headers.len() as u64;
            let mut proof = (&proof).into();
            (self.finality)(&self.hub, &mut proof);
            messages.push(Finality { finality: Some(proof) });
        }
        Ok(Response::new(silent_after(messages)))
    }

    type StreamBlocksStream = Answers<Blocks>;

    async fn stream_blocks(
        self: Arc<Self>,
        request: Request<v1::StreamBlocksRequest>,
    ) -> Answer<Self::StreamBlocksStream> {
        let v1::StreamBlocksRequest { from_height, to_height } = request.into_inner();
        let heights = from_height..=to_height.unwrap();
        let block = |height: u64| {
            let at = Gateway::block(self.hub.as_ref(), height).unwrap().unwrap();
            let certificate = at.certificate.map(|c| c.encode().into()).unwrap_or_default();
            let mut block = Blocks { block: at.block.0, certificate };
            (self.block)(&self.hub, &mut block);
            block
        };
        // A node that has not come so far waits.
        let tip = self.hub.tip().borrow().height;
        let messages: Vec<_> = heights.take_while(|height| *height <= tip).take(self.blocks).map(block).collect();
        if self.endless {
            let first = messages[0].clone();
            let rest = stream::iter(messages.into_iter().skip(1).map(Ok));
            let answers = stream::iter([Ok(first.clone())]).chain(rest).chain(stream::repeat(Ok(first)));
            return Ok(Response::new(answers.boxed()));
        }
        Ok(Response::new(silent_after(messages)))
    }
}

/// A node that copies into a store in memory.
struct Copier {
    store: Arc<MemoryStore>,
    metrics: Arc<Metrics>,
    sources: Arc<Sources>,
    status: watch::Receiver<SyncStatus>,
    tip: watch::Receiver<HubTip>,
    run: JoinHandle<()>,
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.run.abort();
    }
}

fn judge(hub: &FakeHub, checkpoint: Option<Checkpoint>) -> Judge {
    let info = hub.info();
    Judge::new(info.id, Arc::new(SingleEpoch::new(hub.seats.clone()).unwrap()), checkpoint)
}

fn sources(urls: &[String], metrics: &Arc<Metrics>) -> Arc<Sources> {
    Arc::new(Sources::new(urls, &Limits::default(), timing(), metrics.clone()).unwrap())
}

impl Copier {
    fn start(hub: &FakeHub, urls: &[String]) -> Self {
        Self::start_on(Arc::new(MemoryStore::new(hub.block(0).header)), hub, urls, None)
    }

    fn start_on(store: Arc<MemoryStore>, hub: &FakeHub, urls: &[String], checkpoint: Option<Checkpoint>) -> Self {
        let metrics = Arc::new(Metrics::default());
        let sources = sources(urls, &metrics);
        let (header, hash) = store.tip();
        let first = HubTip { height: header.height, hash, timestamp_ms: header.timestamp_ms };
        let (announce, tip) = watch::channel(first);
        let sync::Sync { mut events, status, run } = sync::start(SyncParts {
            sources: sources.clone(),
            judge: judge(hub, checkpoint),
            limits: Limits::default(),
            header,
            tip: tip.clone(),
            timing: timing(),
            metrics: metrics.clone(),
        });
        let log = store.clone();
        std::thread::spawn(move || {
            while let Some(event) = events.blocking_recv() {
                let EngineEvent::Final { block, certificate, .. } = event else { panic!("{event:?}") };
                log.append(&block, certificate.as_ref()).unwrap();
                let (height, timestamp_ms) = (block.header.height, block.header.timestamp_ms);
                announce.send_replace(HubTip { height, hash: block.hash(), timestamp_ms });
            }
        });
        Self { store, metrics, sources, status, tip, run: tokio::spawn(run) }
    }

    /// Waits until the log is as high, and checks that it is the hub's.
    async fn reaches(&mut self, hub: &FakeHub, height: u64) {
        let reached = self.tip.wait_for(|tip| tip.height >= height);
        tokio::time::timeout(TIMEOUT, reached).await.expect("does not get there").unwrap();
        for at in self.store.earliest().max(1)..=height {
            assert_eq!(self.store.block(at).unwrap(), Some(hub.block(at)));
        }
    }

    /// Waits until a source was left alone for this reason.
    async fn drops(&self, reason: &'static str) {
        let dropped = async {
            while self.metrics.sync_dropped.get_or_create(&ReasonLabel { reason }).get() == 0 {
                tokio::time::sleep(POLL).await;
            }
        };
        let timeout = tokio::time::timeout(TIMEOUT, dropped).await;
        assert!(timeout.is_ok(), "not left alone for {reason}: {}", self.metrics.render());
    }
}

#[tokio::test]
async fn what_all_sources_hold_is_copied_with_its_certificates_and_then_followed() {
    let (one, two, three) = (hub(3000), hub(3000), hub(3000));
    let servers = [honest(&one).await, honest(&two).await, honest(&three).await];
    let mut copier = Copier::start(&one, &servers.each_ref().map(|server| server.url.clone()));
    copier.reaches(&one, 3000).await;
    for height in 1..=3000 {
        let own = copier.store.certificate_from(height).unwrap().is_some_and(|(at, _)| at == height);
        assert!(own || height % 3 == 0, "the certificate of block {height} was left behind");
    }
    for hub in [&one, &two, &three] {
        extend(hub, 3010);
    }
    copier.reaches(&one, 3010).await;
    let caught_up = sync::caught_up(&copier.sources, &mut copier.status, &mut copier.tip, TIMEOUT).await;
    assert!(caught_up);
    let status = *copier.status.borrow();
    assert_eq!((status.proven_height, status.sources), (3010, 3));
}

/// A liar that has `20` blocks beside an honest source that has none: the liar is found out, and nothing that it said is
/// left once the honest source has the blocks.
async fn check_lie(reason: &'static str, lie: impl FnOnce(&mut Liar)) {
    const COUNT: u64 = 20;
    let (full, late) = (hub(COUNT), hub(0));
    let mut liar = Liar::of(&full);
    lie(&mut liar);
    let (liar, truth) = (liar.serve().await, honest(&late).await);
    let mut copier = Copier::start(&full, &[liar, truth.url.clone()]);
    copier.drops(reason).await;
    extend(&late, COUNT);
    copier.reaches(&full, COUNT).await;
}

#[tokio::test]
async fn a_source_that_says_what_is_not_final_is_left_alone() {
    check_lie("bad_certificate", |liar| {
        liar.finality = |hub, proof| {
            let certificate = certify(hub.info().id, &secrets(), &hub.block(20).header, 2);
            proof.certificate = certificate.encode().into();
        };
    })
    .await;
    check_lie("bad_certificate", |liar| {
        liar.finality = |hub, proof| {
            proof.headers.pop();
            let other = certify(hub.info().id, &secrets(), &hub.block(20).header, 3);
            proof.certificate = other.encode().into();
        };
    })
    .await;
    check_lie("unknown_epoch", |liar| {
        liar.finality = |hub, proof| {
            let mut certificate = certify(hub.info().id, &secrets(), &hub.block(20).header, 3);
            certificate.epoch = 1;
            proof.certificate = certificate.encode().into();
        };
    })
    .await;
}

#[tokio::test]
async fn a_source_that_leaves_something_out_is_left_alone() {
    check_lie("wrong_height", |liar| {
        liar.finality = |_, proof| {
            proof.headers.remove(0);
        };
    })
    .await;
    check_lie("bad_certificate", |liar| {
        liar.finality = |_, proof| {
            proof.headers.remove(5);
        };
    })
    .await;
    // The last proof is never given, although the tip that it says it has lies there.
    check_lie("unproven", |liar| liar.proofs = 0).await;
    check_lie("slow", |liar| liar.blocks = 7).await;
}

#[tokio::test]
async fn a_source_that_serves_other_blocks_is_left_alone() {
    fn altered(answer: &Blocks, alter: impl FnOnce(Block) -> Block) -> bytes::Bytes {
        alter(Block::decode(answer.block.clone().into(), &Limits::default()).unwrap()).encode().into()
    }
    check_lie("wrong_block", |liar| liar.block = |hub, answer| answer.block = hub.block(3).encode().into()).await;
    check_lie("wrong_body", |liar| {
        liar.block = |_, answer| {
            let other = |block: Block| Block::from_parts(block.header, vec![segment(7, &[b"12345678"])]);
            answer.block = altered(answer, other);
        };
    })
    .await;
    check_lie("wrong_block", |liar| {
        liar.block = |_, answer| {
            let other = |block: Block| Block::new(block.header, vec![segment(7, &[b"12345678"])]);
            answer.block = altered(answer, other);
        };
    })
    .await;
    check_lie("bad_certificate", |liar| {
        liar.block = |hub, answer| {
            let header = Block::decode(answer.block.clone().into(), &Limits::default()).unwrap().header;
            let certificate = certify(hub.info().id, &secrets(), &header, 2);
            answer.certificate = certificate.encode().into();
        };
    })
    .await;
}

#[tokio::test]
async fn a_source_that_sends_garbage_or_without_end_is_left_alone_or_does_no_harm() {
    check_lie("garbage", |liar| liar.finality = |_, proof| proof.headers[0] = bytes::Bytes::from_static(&[1; 188]))
        .await;
    check_lie("garbage", |liar| liar.finality = |_, proof| proof.headers.clear()).await;
    check_lie("garbage", |liar| liar.block = |_, answer| answer.block = answer.block.slice(1..)).await;
    check_lie("garbage", |liar| liar.block = |_, answer| answer.block = vec![0; 8 << 20].into()).await;
    check_lie("garbage", |liar| liar.block = |_, answer| answer.certificate = answer.block.clone()).await;
    check_lie("other_network", |liar| liar.info = |info| info.network_id = vec![7; 32].into()).await;
    check_lie("unproven", |liar| {
        liar.info = |info| info.tip = Some(v1::BlockRef { height: u64::MAX, ..Default::default() });
    })
    .await;

    let full = hub(20);
    let liar = Liar { endless: true, ..Liar::of(&full) };
    let mut copier = Copier::start(&full, &[liar.serve().await]);
    copier.reaches(&full, 20).await;
}

#[tokio::test]
async fn a_source_that_hides_new_blocks_is_left_alone_once_another_has_proven_them() {
    let (old, live) = (hub(10), hub(10));
    let (stale, truth) = (Liar::of(&old).serve().await, honest(&live).await);
    let mut copier = Copier::start(&live, &[stale, truth.url.clone()]);
    copier.reaches(&live, 10).await;
    extend(&live, 12);
    copier.reaches(&live, 12).await;
    copier.drops("stale").await;
}

#[tokio::test]
async fn a_source_that_does_not_answer_or_is_no_node_at_all_keeps_nobody_from_going_on() {
    let full = hub(20);
    let truth = honest(&full).await;
    // Takes connections and says nothing; says something that is no HTTP/2; takes no connection.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let noisy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut urls = [&silent, &noisy, &gone].map(|l| format!("http://{}", l.local_addr().unwrap())).to_vec();
    drop(gone);
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = noisy.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut connection, &[0xab; 1000]).await;
        }
    });
    let mut alone = Copier::start(&full, &urls);
    let patience = Duration::from_millis(200);
    assert!(!sync::caught_up(&alone.sources, &mut alone.status, &mut alone.tip, patience).await);
    assert_eq!((alone.status.borrow().good_sources, alone.store.tip().0.height), (0, 0));
    urls.push(truth.url.clone());
    Copier::start(&full, &urls).reaches(&full, 20).await;
    drop(silent);
}

#[tokio::test]
async fn a_source_that_keeps_only_the_newest_blocks_is_asked_for_those_alone() {
    let (archive, pruned) = (hub(200), hub(200));
    pruned.earliest.store(150, std::sync::atomic::Ordering::SeqCst);
    let (whole, part) = (honest(&archive).await, honest(&pruned).await);
    let mut copier = Copier::start(&archive, &[part.url.clone(), whole.url.clone()]);
    copier.reaches(&archive, 200).await;
}

/// A chain whose headers commit to the hub's state, and that state.
fn stateful() -> (Arc<FakeHub>, HubState) {
    let (secrets, network) = (secrets(), B256::repeat_byte(0xaa));
    let seats = seats(&secrets);
    let rules = EpochRules { blocks: NonZeroU64::new(1 << 40).unwrap(), seats_per_validator: 1 };
    let registered = |seat: &Seat| (seat.identity, Registration { bls: seat.bls, stake: 1, address: None, serial: 0 });
    let state = HubState::genesis(network, rules, seats.iter().map(registered)).unwrap();
    let seats = SeatSet::new(seats).unwrap();
    // The blocks take over what genesis has.
    let genesis = Header { system_root: state.root(), ..Header::genesis(network, 1_000, seats.hash()) };
    (FakeHub::of(network, genesis, seats, secrets), state)
}

fn system(hub: &HubState) -> SystemState {
    SystemState::new(hub.clone(), Arc::default()).unwrap()
}

#[tokio::test]
async fn a_log_begins_at_the_block_that_the_operator_trusts_and_no_other() {
    let (full, state) = stateful();
    extend(&full, 40);
    let (truth, metrics) = (honest(&full).await, Arc::new(Metrics::default()));
    let begin = async |store: &Arc<MemoryStore>, checkpoint: Checkpoint, urls: &[String]| {
        let (sources, judge) = (sources(urls, &metrics), judge(&full, Some(checkpoint)));
        let hub = HubStates::open(store.clone(), full.info().id, system(&state)).unwrap();
        let (limits, timing) = (Limits::default(), timing());
        let begin = Begin {
            checkpoint,
            store: store.as_ref(),
            hub: &hub,
            sources: &sources,
            judge: &judge,
            limits: &limits,
            timing: &timing,
        };
        sync::begin_at(begin).await?;
        assert_eq!(hub.tip().next_height(), 31);
        Ok::<_, NodeError>(())
    };
    let new = || Arc::new(MemoryStore::new(full.block(0).header));
    let checkpoint = Checkpoint { height: 30, hash: full.block(30).hash() };
    let wrong = Checkpoint { hash: full.block(29).hash(), ..checkpoint };

    let store = new();
    let mut other = state.clone().unchanged_until(30).unwrap().encode();
    *other.last_mut().unwrap() ^= 1;
    for forger in [
        Liar { block: |hub, answer| answer.block = hub.block(29).encode().into(), ..Liar::of(&full) },
        Liar { hub_state: vec![1; 100].into(), ..Liar::of(&full) },
        Liar { hub_state: other.into(), ..Liar::of(&full) },
    ] {
        let refused = begin(&store, checkpoint, &[forger.serve().await]).await.unwrap_err();
        let expected = "no source has the block";
        assert!(matches!(&refused, NodeError::Checkpoint(text) if text.contains(expected)), "{refused}");
    }
    let refused = begin(&store, wrong, std::slice::from_ref(&truth.url)).await.unwrap_err();
    assert!(matches!(refused, NodeError::Checkpoint(_)));
    assert_eq!(store.tip().0.height, 0);

    begin(&store, checkpoint, std::slice::from_ref(&truth.url)).await.unwrap();
    assert_eq!((store.tip().0.height, store.earliest(), store.header(29).unwrap()), (30, 30, None));
    assert_eq!(store.block(30).unwrap(), Some(full.block(30)));
    // The next start finds it there, and another checkpoint contradicts it.
    begin(&store, checkpoint, &[]).await.unwrap();
    let refused = begin(&store, wrong, &[]).await.unwrap_err();
    assert!(refused.to_string().contains("correct the checkpoint"), "{refused}");
    Copier::start_on(store, &full, std::slice::from_ref(&truth.url), Some(checkpoint)).reaches(&full, 40).await;

    // Blocks below the checkpoint that lead to another one are not taken, whoever has signed them.
    let copier = Copier::start_on(new(), &full, std::slice::from_ref(&truth.url), Some(wrong));
    copier.drops("checkpoint").await;
    assert_eq!(copier.store.tip().0.height, 0);
}

//! The consensus library's erasure-coded dissemination, to compare with: simplex and the coding variant of marshal, put together
//! as the shipped engine puts the standard one together, over the same channels. Nothing of it ships.
//!
//! A leader codes its block into as many shards as there are validators, of which any `f + 1` make the block, and sends each
//! validator its own. A validator votes to notarise once it has its shard, which it sends to everyone; it certifies, and votes
//! to finalise, once it has made the block out of others' shards.

use super::{Run, Seat, TIMEOUTS, Watch};
use crate::{byzantine::scheme, check::guard::Wire, context::Context};
use bytes::{BufMut, Bytes};
use commonware_actor::Feedback;
use commonware_codec::{Buf, EncodeSize, Error, Read, ReadExt as _, Write};
use commonware_coding::{Config as CodingConfig, ReedSolomon};
use commonware_consensus::{
    Application, BoundedBlock, CertifiableBlock, Heightable, Reporter,
    marshal::{
        self, Start, Update,
        ancestry::Ancestry,
        coding::{
            Coding, Marshaled, MarshaledConfig, shards,
            types::{CodedBlock, StoredCodedBlock, hash_context},
        },
        core::Actor,
        resolver::p2p as backfill,
    },
    simplex::{
        self, ForwardPolicy, SkipPolicy, config::Floor, config::SkipBudget, elector::RoundRobin, types::Finalization,
    },
    types::{Epoch, FixedEpocher, Height, Round, View, ViewDelta, coding::Commitment as Coded},
};
use commonware_cryptography::{
    Committable as _, Digest as _, Digested, Digestible, Hasher as _, Sha256,
    certificate::{ConstantProvider, Verifier as _},
    ed25519::PublicKey,
    sha256,
};
use commonware_parallel::Sequential;
use commonware_runtime::{Clock as _, Supervisor as _, buffer::paged::CacheRef};
use commonware_storage::{archive::prunable, translator::EightCap};
use commonware_utils::{Acknowledgement as _, NZDuration, NZU16, NZU64, NZUsize};
use std::{num::NonZeroUsize, sync::Arc, time::Duration};
use switchyard_primitives::{B256, keccak256};

type Shards = ReedSolomon<Sha256>;
type Commitment = Coded<Body, Shards, Sha256>;
type Round32 = simplex::types::Context<Commitment, PublicKey>;
type Variant = Coding<Body, Shards, Sha256, PublicKey>;
type Provider = ConstantProvider<Wire, Epoch>;

/// A block: what consensus needs, and bytes. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Body {
    context: Round32,
    parent: sha256::Digest,
    height: Height,
    bytes: Bytes,
}

/// What the context and the fields beside it take at the most.
const FIELDS_BYTES: usize = 256;

impl Write for Body {
    fn write(&self, buf: &mut impl BufMut) {
        self.context.write(buf);
        self.parent.write(buf);
        self.height.write(buf);
        buf.put_slice(&self.bytes);
    }
}

impl EncodeSize for Body {
    fn encode_size(&self) -> usize {
        self.context.encode_size() + self.parent.encode_size() + self.height.encode_size() + self.bytes.len()
    }
}

impl Read for Body {
    /// What every block holds: it is there once, however many validators have decoded it.
    type Cfg = Bytes;

    fn read_cfg(buf: &mut impl Buf, same: &Bytes) -> Result<Self, Error> {
        let context = Round32::read(buf)?;
        let parent = sha256::Digest::read(buf)?;
        let height = Height::read(buf)?;
        let bytes = buf.try_take_owned::<Bytes>(same.len()).map_err(|_| Error::EndOfBuffer)?;
        if bytes != *same {
            return Err(Error::Invalid("body", "not what was proposed"));
        }
        Ok(Self { context, parent, height, bytes: same.clone() })
    }
}

impl Digestible for Body {
    type Digest = sha256::Digest;

    /// Without the bytes, which the coding's commitment is over.
    fn digest(&self) -> sha256::Digest {
        let context = hash_context::<Sha256, _>(&self.context);
        Sha256::hash(&[context.as_ref(), self.parent.as_ref(), &self.height.get().to_be_bytes()])
    }
}

impl Heightable for Body {
    fn height(&self) -> Height {
        self.height
    }
}

impl commonware_consensus::Block for Body {
    fn parent(&self) -> sha256::Digest {
        self.parent
    }
}

impl CertifiableBlock for Body {
    type Context = Round32;

    fn context(&self) -> Round32 {
        self.context.clone()
    }
}

impl BoundedBlock for Body {
    fn max_encode_size(same: &Bytes) -> usize {
        FIELDS_BYTES + same.len()
    }
}

fn name(digest: sha256::Digest) -> B256 {
    keccak256(digest)
}

/// Proposes at once, and takes every block.
#[derive(Clone)]
struct Filler {
    bytes: Bytes,
    watch: Arc<Watch>,
}

impl Application<Context> for Filler {
    type SigningScheme = Wire;
    type Context = Round32;
    type Block = Body;
    type Input = ();

    async fn propose(
        &mut self,
        (runtime, context): (Context, Round32),
        mut ancestry: impl Ancestry<Body>,
        (): (),
    ) -> Option<Digested<Body>> {
        use futures::StreamExt as _;
        let parent = ancestry.next().await?;
        let height = parent.height().next();
        let block = Body { context, parent: parent.digest(), height, bytes: self.bytes.clone() };
        let digest = block.digest();
        self.watch.proposed(name(digest), height.get(), runtime.current());
        Some(Digested::precomputed(block, digest))
    }

    async fn verify(&mut self, _: (Context, Round32), _: impl Ancestry<Body>) -> bool {
        true
    }
}

/// Takes what is final.
#[derive(Clone)]
struct Sink {
    watch: Arc<Watch>,
    context: Arc<Context>,
}

impl Reporter for Sink {
    type Activity = Update<Body>;

    fn report(&mut self, update: Update<Body>) -> Feedback {
        if let Update::Block(block, ack) = update {
            ack.acknowledge();
            self.watch.last_seen(name(block.digest()), self.context.current());
        }
        Feedback::Ok
    }
}

/// The block of height 0, which nobody codes.
fn genesis(leader: PublicKey, bytes: &Bytes) -> CodedBlock<Body, Shards, Sha256> {
    let config = CodingConfig { minimum_shards: NZU16!(1), extra_shards: NZU16!(1) };
    let empty = sha256::Digest::EMPTY;
    let context = Round32 {
        round: Round::zero(),
        leader,
        parent: (View::zero(), Commitment::from((empty, empty, empty, config))),
    };
    let body = Body { context, parent: empty, height: Height::zero(), bytes: bytes.clone() };
    let digest = body.digest();
    let commitment = Commitment::from((digest, digest, hash_context::<Sha256, _>(&body.context), config));
    CodedBlock::precomputed(Digested::precomputed(body, digest), commitment)
}

const MAILBOX: NonZeroUsize = NZUsize!(1024);
const VIEWS: ViewDelta = ViewDelta::new(64);
const KEY_BUFFER: NonZeroUsize = NZUsize!(16 << 10);
const VALUE_BUFFER: NonZeroUsize = NZUsize!(256 << 10);

fn archive<C>(name: &str, page_cache: &CacheRef, codec_config: C) -> prunable::Config<EightCap, C> {
    prunable::Config {
        translator: EightCap,
        metadata_partition: format!("{name}-metadata"),
        key_partition: format!("{name}-keys"),
        key_page_cache: page_cache.clone(),
        value_partition: format!("{name}-values"),
        compression: None,
        codec_config,
        items_per_section: NZU64!(64),
        key_write_buffer: KEY_BUFFER,
        value_write_buffer: VALUE_BUFFER,
        replay_buffer: VALUE_BUFFER,
    }
}

type Certificates = prunable::Archive<EightCap, Context, sha256::Digest, Finalization<Wire, Commitment>>;
type Blocks = prunable::Archive<EightCap, Context, sha256::Digest, StoredCodedBlock<Body, Shards, Sha256>>;

/// Starts a validator, with the same parameters as the shipped engine has.
pub(super) async fn start(run: &Run, seat: Seat, bytes: &Bytes) {
    let Seat { index, context, channels } = seat;
    let keys = run.world.keys();
    let (me, peers) = (keys[index].clone(), channels.peers.clone());
    let scheme = scheme(&run.world, index);
    let provider = Provider::new(scheme.clone());
    let epocher = FixedEpocher::new(run.world.epochs.blocks);
    let page_cache = CacheRef::new(NZU16!(4084), NZUsize!(1024));
    let any_committee = Wire::certificate_codec_config_unbounded();
    let certificates = archive("certificates", &page_cache, any_committee);
    let certificates = Certificates::init(context.child("certificates"), certificates).await.expect("an empty shelf");
    let blocks = archive("blocks", &page_cache, bytes.clone());
    let blocks = Blocks::init(context.child("blocks"), blocks).await.expect("an empty shelf");
    let resolver = backfill::Config {
        public_key: me,
        peer_provider: peers.clone(),
        blocker: peers.clone(),
        mailbox_size: MAILBOX,
        fetch_timeout: NZDuration!(Duration::from_secs(2)),
        fetch_retry_delay: Duration::from_millis(100),
        priority_requests: false,
        priority_responses: false,
    };
    let resolver = backfill::init(context.child("backfill"), resolver, channels.backfill);
    let (engine, shards) = shards::Engine::new(
        context.child("shards"),
        shards::Config {
            scheme_provider: provider.clone(),
            blocker: peers.clone(),
            block_codec_config: bytes.clone(),
            strategy: Sequential,
            mailbox_size: MAILBOX,
            peer_buffer_size: NZUsize!(6),
            records: NZUsize!(16),
            peer_provider: peers.clone(),
        },
    );
    engine.start(channels.blocks);
    let genesis = Arc::new(genesis(keys[0].clone(), bytes));
    let commitment = genesis.commitment();
    let config = marshal::Config {
        provider: provider.clone(),
        epocher: epocher.clone(),
        start: Start::Genesis(genesis),
        partition_prefix: "marshal".into(),
        mailbox_size: MAILBOX,
        view_retention: VIEWS,
        prunable_items_per_section: NZU64!(64),
        page_cache: page_cache.clone(),
        replay_buffer: VALUE_BUFFER,
        key_write_buffer: KEY_BUFFER,
        value_write_buffer: VALUE_BUFFER,
        block_codec_config: bytes.clone(),
        max_repair: NZUsize!(32),
        max_pending_acks: NZUsize!(8),
        strategy: Sequential,
    };
    let (actor, marshal, _): (Actor<_, Variant, _, _, _, _, _>, _, _) =
        Actor::init(context.child("marshal"), certificates, blocks, config).await;
    let sink = Sink { watch: run.watch.clone(), context: Arc::new(context.child("sink")) };
    actor.start(sink, shards.clone(), resolver);
    let chain = MarshaledConfig {
        application: Filler { bytes: bytes.clone(), watch: run.watch.clone() },
        marshal,
        shards,
        scheme_provider: provider,
        strategy: Sequential,
        epocher,
    };
    let chain = Marshaled::new(context.child("chain"), chain);
    let [leader_timeout, certification_timeout, skip_timeout] = TIMEOUTS;
    let config = simplex::Config {
        scheme,
        elector: RoundRobin::<Sha256>::default(),
        blocker: peers,
        automaton: chain.clone(),
        relay: chain.clone(),
        reporter: chain,
        track_historical_votes: false,
        strategy: Sequential,
        partition: "simplex".into(),
        mailbox_size: MAILBOX,
        epoch: Epoch::zero(),
        floor: Floor::Genesis(commitment),
        replay_buffer: VALUE_BUFFER,
        write_buffer: KEY_BUFFER,
        page_cache,
        leader_timeout,
        certification_timeout,
        timeout_retry: leader_timeout,
        view_retention: VIEWS,
        skip: SkipPolicy::Enabled { timeout: skip_timeout, budget: SkipBudget::Participants },
        fetch_timeout: NZDuration!(Duration::from_secs(1)),
        fetch_retry_delay: Duration::from_millis(100),
        forward: ForwardPolicy::Disabled,
    };
    let engine = simplex::Engine::new(context.child("simplex"), config);
    engine.start(channels.votes, channels.certificates, channels.resolver);
}

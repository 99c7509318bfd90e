//! One simplex instance for each epoch, on channels of its own.
//!
//! The last block of an epoch, once final, is what the next epoch starts from. A validator without a seat takes the epoch's
//! finalisations from the certificates channel, so that it is there when its own epoch comes. Whoever missed the end of an
//! epoch asks for its last block: the others have gone on, and finalising it finalises all below.

use crate::{
    EngineConfig, EngineError, Finalization, Runtime, Scheme,
    application::Chain,
    archive::{KEY_BUFFER, REPLAY_BUFFER},
    block::{HubBlock, digest},
    committee::{Schemes, SeatBlocker, Turns},
    delivery::Tip,
    observer::Observer,
    votes,
};
use commonware_codec::Decode as _;
use commonware_consensus::{
    Reporter as _,
    marshal::{
        core::Mailbox,
        standard::{Inline, Standard},
    },
    simplex::{
        self, ForwardPolicy, SkipPolicy,
        config::{Floor, SkipBudget},
        types::{Activity, Certificate},
    },
    types::{Epoch, FixedEpocher, Height, ViewDelta},
};
use commonware_cryptography::{
    certificate::{Scheme as _, Verifier as _},
    ed25519::PublicKey,
    keccak256::Digest,
};
use commonware_p2p::{
    Receiver, Sender,
    utils::mux::{MuxHandle, Muxer, SubReceiver, SubSender},
};
use commonware_parallel::Sequential;
use commonware_runtime::{Handle, buffer::paged::CacheRef};
use commonware_utils::{NZDuration, NZUsize, sync::Mutex};
use std::{collections::BTreeSet, net::SocketAddr, num::NonZeroUsize, sync::Arc, time::Duration};
use switchyard_consensus_core::{BlockBuilder, Committee, EpochRules, Fault, History};
use switchyard_consensus_network::{Roster, public_key};
use switchyard_primitives::B256;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

/// Messages that wait for one of the library's actors before its overflow policy applies.
pub(crate) const MAILBOX: NonZeroUsize = NZUsize!(1024);
/// Views for which votes and undecided blocks are kept, for peers that are a little behind.
pub(crate) const VIEW_RETENTION: ViewDelta = ViewDelta::new(64);
/// How often the validators' addresses are looked at.
const ROSTER_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) type Marshal = Mailbox<Scheme, Standard<HubBlock>>;
pub(crate) type ChainOf<E, B> = Inline<E, Scheme, Chain<B>, HubBlock, FixedEpocher>;
type Ends<S> = (SubSender<S>, SubReceiver<PublicKey>);

/// The channels of one epoch.
struct Channels<S: Sender<PublicKey = PublicKey>> {
    votes: Ends<S>,
    certificates: Ends<S>,
    resolver: Ends<S>,
}

/// Channels that are cut into epochs.
pub(crate) struct Muxed<S: Sender<PublicKey = PublicKey>> {
    votes: MuxHandle<S>,
    certificates: MuxHandle<S>,
    resolver: MuxHandle<S>,
}

impl<S: Sender<PublicKey = PublicKey>> Muxed<S> {
    /// Cuts the three channels; the tasks end when the network does.
    pub(crate) fn start<R: Receiver<PublicKey = PublicKey>>(
        context: &impl Runtime,
        votes: (S, R),
        certificates: (S, R),
        resolver: (S, R),
    ) -> (Self, Vec<Handle<()>>) {
        let mut tasks = Vec::new();
        let mut cut = |name, (sender, receiver): (S, R)| {
            let (muxer, handle) = Muxer::new(context.child(name), sender, receiver);
            tasks.push(context.child(name).spawn(move |_| async move {
                let _ = muxer.run().await;
            }));
            handle
        };
        let muxed = Self {
            votes: cut("votes", votes),
            certificates: cut("certificates", certificates),
            resolver: cut("resolver", resolver),
        };
        (muxed, tasks)
    }

    async fn register(&mut self, epoch: u64) -> Result<Channels<S>, EngineError> {
        let failed = |e| EngineError::Failed(format!("channels of epoch {epoch}: {e}"));
        Ok(Channels {
            votes: self.votes.register(epoch).await.map_err(failed)?,
            certificates: self.certificates.register(epoch).await.map_err(failed)?,
            resolver: self.resolver.register(epoch).await.map_err(failed)?,
        })
    }
}

/// The epoch that runs, and this validator's part in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) epoch: u64,
    /// Seats of this validator.
    pub(crate) seats: u32,
}

/// Runs the epochs one after the other.
pub(crate) struct Epochs<E: Runtime, B: BlockBuilder, S: Sender<PublicKey = PublicKey>, P> {
    pub(crate) config: EngineConfig,
    pub(crate) rules: EpochRules,
    pub(crate) schemes: Schemes,
    pub(crate) genesis: B256,
    pub(crate) marshal: Marshal,
    pub(crate) chain: ChainOf<E, B>,
    pub(crate) peers: P,
    pub(crate) channels: Muxed<S>,
    pub(crate) page_cache: CacheRef,
    /// The newest height that the node has acknowledged.
    pub(crate) acknowledged: watch::Receiver<u64>,
    pub(crate) tip: watch::Receiver<Tip>,
    pub(crate) view: watch::Sender<(u64, u64)>,
    pub(crate) part: watch::Sender<Part>,
    pub(crate) faults: mpsc::Sender<Fault>,
}

/// Whose addresses the network was told last.
#[derive(Default)]
struct Told {
    id: u64,
    validators: Vec<(B256, SocketAddr)>,
    followers: Vec<(B256, SocketAddr)>,
}

impl<E, B, S, P> Epochs<E, B, S, P>
where
    E: Runtime,
    B: BlockBuilder,
    S: Sender<PublicKey = PublicKey>,
    P: Roster,
{
    /// Runs until a part ends that must not. `processed` is the height up to which the archive takes the node to be done.
    pub(crate) async fn run(mut self, context: E, processed: u64) -> EngineError {
        match self.run_all(&context, processed).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn run_all(&mut self, context: &E, processed: u64) -> Result<std::convert::Infallible, EngineError> {
        // A store that is behind the archive is filled first: the epochs' seats come from it.
        self.acknowledged_from(processed).await;
        let height = *self.acknowledged.borrow();
        let mut epoch = self.rules.epoch_of(height.saturating_add(1));
        let mut told = Told::default();
        let mut channels = self.channels.register(epoch).await?;
        // Whether the others had left the epoch before.
        let mut behind = false;
        loop {
            let committee = self.committee(epoch).await;
            // What arrives for the next epoch before it begins here waits in its queues.
            let next_channels = self.channels.register(epoch.saturating_add(1)).await?;
            let part = Part { epoch, seats: committee.member(&self.schemes.me()).map_or(0, |m| m.seats) };
            info!(epoch, seats = part.seats, validators = committee.members().len(), "epoch begins");
            self.part.send_replace(part);
            self.tell(epoch, &mut told)?;
            let mut instance = self.instance(context, &committee, channels).await?;
            behind = self.until_over(context, &committee, &mut instance, &mut told, behind).await?;
            instance.abort();
            // Why it ended is known.
            let _ = instance.await;
            // Its votes are of no use once its last block is final; the sign record remembers them. But its tasks may still
            // be at work on its journal, and fail without it: so an epoch's journal goes with the end of the next.
            if let Some(old) = epoch.checked_sub(1)
                && let Err(error) = context.remove(&partition(old), None).await
            {
                debug!(epoch = old, %error, "no journal to remove");
            }
            channels = next_channels;
            epoch = epoch.saturating_add(1);
        }
    }

    /// Waits until the node has acknowledged a height. The courier's end is the engine's, and told by whoever waits for it: this
    /// one then waits for ever.
    async fn acknowledged_from(&mut self, height: u64) {
        if self.acknowledged.wait_for(|at| *at >= height).await.is_err() {
            std::future::pending().await
        }
    }

    /// The committee of an epoch, once the log tells it.
    async fn committee(&mut self, epoch: u64) -> Arc<Committee> {
        loop {
            if let Some(committee) = self.config.committees.committee(epoch) {
                return committee;
            }
            warn!(epoch, "the seats of the epoch are not known yet");
            let next = self.acknowledged.borrow().saturating_add(1);
            self.acknowledged_from(next).await;
        }
    }

    /// Those with seats in an epoch or the next, ascending.
    fn validators_near(&self, epoch: u64) -> Vec<B256> {
        let committees = [epoch, epoch.saturating_add(1)].map(|epoch| self.config.committees.committee(epoch));
        let members = committees.iter().flatten().flat_map(|c| c.members()).map(|m| m.seat.identity);
        members.collect::<BTreeSet<B256>>().into_iter().collect()
    }

    /// Tells the network who belongs to it, if that has changed: those with seats in this epoch and the next, and everyone
    /// else in the stake table, who follows.
    fn tell(&mut self, epoch: u64, told: &mut Told) -> Result<(), EngineError> {
        let known = self.config.committees.addresses();
        let address_of = |identity: &B256| {
            let by_log = known.iter().find(|(id, _)| id == identity).map(|(_, address)| *address);
            let configured = self.config.peers.iter().find(|(id, _)| id == identity).map(|(_, address)| *address);
            // Port 0: it is not known where to dial it; it may dial.
            by_log.flatten().or(configured).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
        };
        let validators = self.validators_near(epoch);
        let followers: Vec<_> =
            known.iter().map(|(id, _)| *id).filter(|id| validators.binary_search(id).is_err()).collect();
        let located = |ids: Vec<B256>| ids.into_iter().map(|id| (id, address_of(&id))).collect::<Vec<_>>();
        let (validators, followers) = (located(validators), located(followers));
        let names = |located: &[(B256, SocketAddr)]| located.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        if names(&validators) != names(&told.validators) || names(&followers) != names(&told.followers) {
            told.id += 1;
            if let Err(error) = self.peers.track(told.id, &validators, &followers) {
                warn!(epoch, %error, "the network keeps its old set of validators");
            }
        } else {
            let old = told.validators.iter().chain(&told.followers);
            let moved = validators.iter().chain(&followers).zip(old).filter(|(new, old)| new != old);
            for ((identity, address), _) in moved {
                info!(%identity, %address, "a validator has moved");
                self.peers.relocate(*identity, *address)?;
            }
        }
        (told.validators, told.followers) = (validators, followers);
        Ok(())
    }

    /// Starts to take part in an epoch, or to listen.
    async fn instance(
        &mut self,
        context: &E,
        committee: &Arc<Committee>,
        channels: Channels<S>,
    ) -> Result<Handle<()>, EngineError> {
        let epoch = committee.epoch();
        let context = context.child("epoch").with_attribute("epoch", epoch);
        let no_seats = || EngineError::Failed(format!("the seats of epoch {epoch} make no scheme"));
        let scheme = self.schemes.of_epoch(epoch).ok_or_else(no_seats)?;
        let observer = Observer {
            inner: self.chain.clone(),
            scheme: Scheme::clone(&scheme),
            committee: committee.clone(),
            rng: Arc::new(Mutex::new(context.child("observer"))),
            view: self.view.clone(),
            faults: self.faults.clone(),
        };
        let Channels { votes, certificates, resolver } = channels;
        if scheme.me().is_none() {
            let listener = Listener { scheme, observer, peers: self.peers.clone(), epoch, newest: 0 };
            return Ok(context.child("listener").spawn(move |context| listener.run(context, certificates.1)));
        }
        let me = public_key(self.schemes.me()).map_err(switchyard_consensus_network::NetworkError::from)?;
        let expansion = votes::Expansion::new(self.schemes.namespace(), committee).ok_or_else(no_seats)?;
        let (vote_sender, vote_receiver) = votes::channel(votes, me, expansion);
        let parent = digest(self.first_parent(epoch).await?);
        let simplex = simplex::Engine::new(
            context.child("simplex"),
            simplex::Config {
                scheme: Scheme::clone(&scheme),
                elector: Turns::new(committee),
                blocker: SeatBlocker::new(self.peers.clone(), committee),
                automaton: self.chain.clone(),
                relay: self.chain.clone(),
                reporter: observer,
                track_historical_votes: false,
                strategy: Sequential,
                partition: partition(epoch),
                mailbox_size: MAILBOX,
                epoch: Epoch::new(epoch),
                floor: Floor::Genesis(parent),
                replay_buffer: REPLAY_BUFFER,
                write_buffer: KEY_BUFFER,
                page_cache: self.page_cache.clone(),
                leader_timeout: self.config.leader_timeout,
                certification_timeout: self.config.certification_timeout,
                timeout_retry: self.config.leader_timeout,
                view_retention: VIEW_RETENTION,
                skip: SkipPolicy::Enabled { timeout: self.config.skip_timeout, budget: SkipBudget::Participants },
                fetch_timeout: NZDuration!(Duration::from_secs(1)),
                fetch_retry_delay: Duration::from_millis(100),
                // A leader's connection either carries its block or breaks; who misses one asks for it.
                forward: ForwardPolicy::Disabled,
            },
        );
        Ok(simplex.start((vote_sender, vote_receiver), certificates, resolver))
    }

    /// The block that an epoch's first one is on.
    async fn first_parent(&mut self, epoch: u64) -> Result<B256, EngineError> {
        let Some(before) = epoch.checked_sub(1) else { return Ok(self.genesis) };
        let height = self.rules.last_of(before);
        if let Some((_, found)) = self.marshal.get_info(Height::new(height)).await {
            return Ok(crate::block::hash(found));
        }
        // Older than the archive: the node's store keeps every header.
        let found = self.config.history.as_deref().and_then(|history: &dyn History| history.hash_of(height));
        found.ok_or(EngineError::MissingBlock { height })
    }

    /// Waits until the node has the epoch's last block; tells whether others had to be asked for it.
    async fn until_over(
        &mut self,
        context: &E,
        committee: &Committee,
        instance: &mut Handle<()>,
        told: &mut Told,
        behind: bool,
    ) -> Result<bool, EngineError> {
        let epoch = committee.epoch();
        let last = self.rules.last_of(epoch);
        let mut asked = false;
        let mut seen = self.tip.borrow().height;
        let mut stalled = Duration::ZERO;
        if behind {
            self.ask_for(last, epoch);
            asked = true;
        }
        loop {
            tokio::select! {
                biased;
                () = self.acknowledged_from(last) => return Ok(asked),
                ended = &mut *instance => {
                    return Err(EngineError::Failed(ended.err().map_or_else(|| "simplex".into(), |e| format!("simplex: {e}"))));
                }
                () = context.sleep(ROSTER_INTERVAL) => {}
            }
            self.tell(epoch, told)?;
            let tip = self.tip.borrow().height;
            if tip > seen {
                (seen, stalled) = (tip, Duration::ZERO);
                // Block by block, not by the answer.
                asked &= tip >= last;
                continue;
            }
            stalled += ROSTER_INTERVAL;
            // Nothing has become final for longer than a dead leader costs: the others may be in the next epoch.
            if stalled > self.config.skip_timeout && tip < last {
                self.ask_for(last, epoch);
                asked = true;
                stalled = Duration::ZERO;
            }
        }
    }

    /// Asks everyone for the finalisation of a height.
    fn ask_for(&self, height: u64, epoch: u64) {
        let me = self.schemes.me();
        let others = self.validators_near(epoch).into_iter().filter(|id| *id != me);
        let others: Vec<PublicKey> = others.filter_map(|id| public_key(id).ok()).collect();
        if let Ok(others) = others.try_into() {
            debug!(height, epoch, "asking for the epoch's last block");
            self.marshal.hint_finalized(Height::new(height), others);
        }
    }
}

fn partition(epoch: u64) -> String {
    format!("simplex-{epoch}")
}

/// Takes an epoch's finalisations without a seat in it.
struct Listener<E: Runtime, B: BlockBuilder, P> {
    scheme: Arc<Scheme>,
    peers: P,
    observer: Observer<ChainOf<E, B>, E>,
    epoch: u64,
    newest: u64,
}

impl<E: Runtime, B: BlockBuilder, P: Roster> Listener<E, B, P> {
    async fn run(mut self, mut context: E, mut certificates: SubReceiver<PublicKey>) {
        let codec = self.scheme.certificate_codec_config();
        while let Ok((peer, message)) = certificates.recv().await {
            let Ok(certificate) = Certificate::<Scheme, Digest>::decode_cfg(message, &codec) else {
                commonware_p2p::block!(self.peers, peer, "malformed certificate");
                continue;
            };
            let Certificate::Finalization(finalization) = certificate else { continue };
            let finalization: Finalization = finalization;
            let view = finalization.proposal.round.view().get();
            // Everyone sends it; one is enough.
            if view <= self.newest {
                continue;
            }
            // One of another epoch with the same validators would verify, and its view says nothing here.
            let of_epoch = finalization.proposal.round.epoch().get() == self.epoch;
            if !of_epoch || !finalization.verify(&mut context, &*self.scheme, &Sequential) {
                // Nobody honest sends one, and each costs a pairing.
                commonware_p2p::block!(self.peers, peer, view, "invalid certificate");
                continue;
            }
            self.newest = view;
            let _ = self.observer.report(Activity::Finalization(finalization));
        }
        std::future::pending().await
    }
}

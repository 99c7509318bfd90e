//! Carries final blocks from the library to the node, in order, with certificates and acknowledgements.

use crate::{Finalization, Runtime, Scheme, archive::SECTION_BLOCKS, block::HubBlock, certificate};
use commonware_actor::Feedback;
use commonware_consensus::{
    Reporter,
    marshal::{Update, core::Mailbox, standard::Standard},
    types::Height,
};
use commonware_cryptography::Digested;
use commonware_utils::{Acknowledgement as _, NZUsize, acknowledgement::Exact};
use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use switchyard_consensus_core::{EngineEvent, EpochRules, Fault};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info};

/// Blocks given to the node and not acknowledged yet. Each may be as large as the block limit.
pub(crate) const PENDING: NonZeroUsize = NZUsize!(8);
/// How often a certificate is looked for that an epoch's last block must have.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The newest height known to be final, and the view that finalised it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) height: u64,
    pub(crate) view: u64,
}

/// Where the library puts what is final.
#[derive(Clone)]
pub(crate) struct Inbox {
    blocks: mpsc::Sender<(Digested<HubBlock>, Exact)>,
    tip: watch::Sender<Tip>,
}

impl Reporter for Inbox {
    type Activity = Update<HubBlock>;

    fn report(&mut self, update: Self::Activity) -> Feedback {
        match update {
            Update::Tip(round, height, _) => {
                self.tip.send_replace(Tip { height: height.get(), view: round.view().get() });
                Feedback::Ok
            }
            // The library has at most PENDING blocks out, so the queue has room unless the courier has ended.
            Update::Block(block, ack) => match self.blocks.try_send((block, ack)) {
                Ok(()) => Feedback::Ok,
                Err(_) => Feedback::Closed,
            },
        }
    }
}

/// Takes what is final out of the inbox and to the node.
pub(crate) struct Courier {
    blocks: mpsc::Receiver<(Digested<HubBlock>, Exact)>,
    tip: watch::Receiver<Tip>,
    faults: mpsc::Receiver<Fault>,
    events: mpsc::Sender<EngineEvent>,
    marshal: Mailbox<Scheme, Standard<HubBlock>>,
    epochs: EpochRules,
    /// The height that the node wants next.
    next: u64,
    /// How many blocks stay in the archive; all, if absent.
    archive_blocks: Option<u64>,
    /// What the node has been given and has not acknowledged, oldest first.
    waiting: VecDeque<Waiting>,
    /// The newest height that the node has acknowledged.
    acknowledged: watch::Sender<u64>,
    /// Set before anything else can notice that the courier has ended for the node's sake.
    node_gone: Arc<AtomicBool>,
}

/// Why the courier ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The node has dropped its receiver or an acknowledgement.
    NodeGone,
    /// The library has stopped.
    LibraryGone,
    /// The node is behind the library's archive, and a block in between is no longer there.
    Missing {
        /// The block's height.
        height: u64,
    },
}

pub(crate) struct Mailroom {
    blocks: mpsc::Receiver<(Digested<HubBlock>, Exact)>,
    pub(crate) tip: watch::Receiver<Tip>,
}

pub(crate) fn inbox() -> (Inbox, Mailroom) {
    let (blocks, blocks_out) = mpsc::channel(2 * PENDING.get());
    let (tip, tip_out) = watch::channel(Tip::default());
    (Inbox { blocks, tip }, Mailroom { blocks: blocks_out, tip: tip_out })
}

/// A block that the node has not acknowledged yet. Where it came from the library, the library is told.
struct Waiting {
    height: u64,
    done: oneshot::Receiver<()>,
    ack: Option<Exact>,
}

impl Courier {
    /// `acknowledged` is the highest block that the node already has; `archive_blocks` how many of those that it has stay in
    /// the archive, or all. The channel tells the newest height that the node has acknowledged.
    pub(crate) fn new(
        mailroom: Mailroom,
        faults: mpsc::Receiver<Fault>,
        events: mpsc::Sender<EngineEvent>,
        marshal: Mailbox<Scheme, Standard<HubBlock>>,
        epochs: EpochRules,
        acknowledged: u64,
        archive_blocks: Option<u64>,
    ) -> (Self, watch::Receiver<u64>) {
        let Mailroom { blocks, tip } = mailroom;
        let next = acknowledged.saturating_add(1);
        let (acknowledged, acknowledged_out) = watch::channel(acknowledged);
        let courier = Self {
            blocks,
            tip,
            faults,
            events,
            marshal,
            epochs,
            next,
            archive_blocks,
            waiting: VecDeque::with_capacity(PENDING.get()),
            acknowledged,
            node_gone: Arc::default(),
        };
        (courier, acknowledged_out)
    }

    /// Becomes true when the node has gone, before the parts that need it fail.
    pub(crate) fn node_gone(&self) -> Arc<AtomicBool> {
        self.node_gone.clone()
    }

    /// Runs until one side ends. `processed` is the height up to which the library takes the node to be done.
    pub(crate) async fn run(mut self, clock: impl Runtime, processed: u64) -> Ended {
        if self.next <= processed {
            info!(from = self.next, to = processed, "the node's store is behind the archive, which fills it");
        }
        let mut outcome = self.fill(&clock, processed).await;
        while outcome.is_ok() {
            outcome = self.step(&clock).await;
        }
        let ended = outcome.err().unwrap_or(Ended::LibraryGone);
        self.node_gone.store(matches!(ended, Ended::NodeGone), Ordering::Release);
        ended
    }

    async fn step(&mut self, clock: &impl Runtime) -> Result<(), Ended> {
        tokio::select! {
            biased;
            acknowledged = acknowledged(&mut self.waiting) => {
                let height = acknowledged?;
                self.acknowledged.send_replace(height);
                // Once a section, and early enough to drop one that has just become superfluous.
                if let Some(kept) = self.archive_blocks && height % SECTION_BLOCKS == 1 {
                    self.marshal.prune(Height::new(height.saturating_sub(kept)));
                }
                Ok(())
            }
            block = self.blocks.recv() => {
                let (block, ack) = block.ok_or(Ended::LibraryGone)?;
                self.deliver(clock, &block, ack).await
            }
            Some(fault) = self.faults.recv() => self.emit(EngineEvent::Fault(fault)).await,
            changed = self.tip.changed() => {
                changed.map_err(|_| Ended::LibraryGone)?;
                let Tip { height, view } = *self.tip.borrow_and_update();
                self.emit(EngineEvent::Tip { height, view }).await
            }
        }
    }

    async fn emit(&self, event: EngineEvent) -> Result<(), Ended> {
        self.events.send(event).await.map_err(|_| Ended::NodeGone)
    }

    async fn deliver(&mut self, clock: &impl Runtime, block: &Digested<HubBlock>, ack: Exact) -> Result<(), Ended> {
        let height = block.inner().block().header.height;
        if height < self.next {
            debug!(height, "the node has this block");
            ack.acknowledge();
            return Ok(());
        }
        self.fill(clock, height.saturating_sub(1)).await?;
        self.send(clock, block, Some(ack)).await
    }

    /// Gives the node what the archive holds from [`Self::next`] up to `to`.
    async fn fill(&mut self, clock: &impl Runtime, to: u64) -> Result<(), Ended> {
        while self.next <= to {
            let height = self.next;
            let block = self.marshal.get_block(Height::new(height)).await.ok_or(Ended::Missing { height })?;
            self.send(clock, &block, None).await?;
            while self.waiting.len() >= PENDING.get() {
                let height = acknowledged(&mut self.waiting).await?;
                self.acknowledged.send_replace(height);
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        clock: &impl Runtime,
        block: &Digested<HubBlock>,
        ack: Option<Exact>,
    ) -> Result<(), Ended> {
        let block = Arc::clone(block.inner().block());
        let height = block.header.height;
        let finalization = self.finalization(clock, height).await?;
        let certificate = finalization.as_ref().and_then(certificate::from_library);
        let (acknowledge, done) = oneshot::channel();
        self.emit(EngineEvent::Final { block, certificate, ack: acknowledge }).await?;
        self.waiting.push_back(Waiting { height, done, ack });
        self.next = height.saturating_add(1);
        Ok(())
    }
}

impl Courier {
    /// The certificate of a block, if there is one. For an epoch's last block there is, and the node is given none without:
    /// whoever follows the seats from epoch to epoch needs it. A crash may have kept the block and lost the certificate. Then
    /// the epoch is not over here: consensus goes on in it, and asks the others, until there is one.
    async fn finalization(&self, clock: &impl Runtime, height: u64) -> Result<Option<Finalization>, Ended> {
        loop {
            let found = self.marshal.get_finalization(Height::new(height)).await;
            if found.is_some() || !self.epochs.is_last(height) {
                return Ok(found);
            }
            if self.events.is_closed() {
                return Err(Ended::NodeGone);
            }
            debug!(height, "the certificate of an epoch's last block is not there");
            clock.sleep(LOOK_AGAIN).await;
        }
    }
}

/// Waits until the node is done with the oldest block and returns its height; waits for ever if there is none.
async fn acknowledged(waiting: &mut VecDeque<Waiting>) -> Result<u64, Ended> {
    let Some(oldest) = waiting.front_mut() else { return std::future::pending().await };
    (&mut oldest.done).await.map_err(|_| Ended::NodeGone)?;
    let height = oldest.height;
    if let Some(Waiting { ack: Some(ack), .. }) = waiting.pop_front() {
        ack.acknowledge();
    }
    Ok(height)
}

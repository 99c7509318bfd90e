//! Validators that do what they want: a real engine behind a lying mouth and a lying builder.
//!
//! The engine of a faulty validator is the honest one, so that it stays up to date and its lies are well made. What it says
//! passes [`Liar`], which holds the validator's key and signs whatever it likes; what it proposes passes [`LyingBuilder`].

mod forger;
mod mouth;
mod tearer;

use crate::{
    witness::Witness,
    world::{OPAQUE, World},
};
use alloy::primitives::B256;
use forger::Forger;
pub use mouth::Liar;
pub(crate) use mouth::scheme;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use switchyard_consensus_core::{Ancestors, BlockBuilder, InvalidBlock};
use switchyard_node::{builder::HubBuilder, hub::HubStates};
use switchyard_primitives::{Block, Bytes, RollupId, Segment, TxKey};
use tearer::Tearer;

/// How a validator is faulty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Says nothing.
    Silent,
    /// Takes part, and never votes.
    Voteless,
    /// Keeps its blocks to itself, or shows them to some only.
    Withholding,
    /// Proposes two blocks in one view, each to one half, with votes for both; and so votes for another liar's two.
    Equivocating,
    /// Sends with each vote another one that excludes it, or one in another's name.
    Contradicting,
    /// Proposes blocks that no honest validator may vote for.
    Invalid,
    /// Proposes blocks with records of the system rollup that nobody may believe, and sends such records to others.
    Forging,
    /// Sends old votes and certificates again.
    Stale,
    /// Sends bytes that mean nothing.
    Garbage,
    /// Two processes with one key, each of which speaks with one half.
    Twins,
    /// Proposes blocks that tear bundles apart or hold certificates that nobody may believe, and attests to one half of the others
    /// what is not.
    Tearing,
}

impl Behaviour {
    /// All of them; those that concern the bridge alone come last.
    pub const ALL: [Self; 11] = [
        Self::Silent,
        Self::Voteless,
        Self::Withholding,
        Self::Equivocating,
        Self::Contradicting,
        Self::Invalid,
        Self::Stale,
        Self::Garbage,
        Self::Twins,
        Self::Forging,
        Self::Tearing,
    ];
    /// How many there are in a network without a bridge.
    pub const PLAIN: usize = 10;
}

/// What the liars of a network tell each other.
#[derive(Debug, Default)]
pub struct Secret {
    /// For a block that was proposed, the other one.
    other: BTreeMap<B256, Block>,
    order: VecDeque<B256>,
    /// Records that were forged last.
    forged: Vec<Bytes>,
}

impl Secret {
    fn remember(&mut self, block: B256, other: Block) {
        self.other.insert(block, other);
        self.order.push_back(block);
        if self.order.len() > 64
            && let Some(oldest) = self.order.pop_front()
        {
            self.other.remove(&oldest);
        }
    }
}

/// The honest builder, whose blocks are spoilt.
#[derive(Clone)]
pub struct LyingBuilder {
    honest: HubBuilder,
    hub: HubStates,
    place: usize,
    witness: Arc<Witness>,
    behaviour: Option<Behaviour>,
    secret: Arc<Mutex<Secret>>,
    rng: Arc<Mutex<StdRng>>,
    forger: Arc<Mutex<Forger>>,
    tearer: Arc<Mutex<Tearer>>,
    /// A transaction that the log holds already.
    replayed: Arc<Mutex<Option<(RollupId, Bytes)>>>,
}

/// Whose blocks are spoilt, and how.
pub struct Lies {
    /// The network.
    pub world: Arc<World>,
    /// Told of who leads.
    pub witness: Arc<Witness>,
    /// The validator.
    pub place: usize,
    /// How it is faulty, if it is.
    pub behaviour: Option<Behaviour>,
    /// What the liars tell each other.
    pub secret: Arc<Mutex<Secret>>,
    /// Decides the rest.
    pub seed: u64,
}

impl LyingBuilder {
    /// `honest` with a behaviour, or as it is; `hub` is its node's view of the log.
    pub fn new(honest: HubBuilder, hub: HubStates, lies: Lies) -> Self {
        let Lies { world, witness, place, behaviour, secret, seed } = lies;
        let rng = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        let tearer = Arc::new(Mutex::new(Tearer::new(world.evms.clone(), seed)));
        let forger = Arc::new(Mutex::new(Forger::new(world, place, seed)));
        Self { honest, hub, place, witness, behaviour, secret, rng, forger, tearer, replayed: Arc::default() }
    }

    /// A block with records that no block on `parent` may hold; as it is where the state there is not known.
    fn forge(&self, block: Block, parent: &Block) -> Block {
        let mut forger = self.forger.lock();
        forger.see(parent.transactions(RollupId::SYSTEM));
        let Some(state) = self.hub.after(parent) else { return block };
        let transactions = forger.records(&state);
        self.secret.lock().forged.clone_from(&transactions);
        let system = Segment { rollup: RollupId::SYSTEM, transactions };
        let others = block.segments().iter().filter(|s| s.rollup != RollupId::SYSTEM).cloned();
        Block::new(block.header, [system].into_iter().chain(others).collect())
    }

    fn spoil(&self, block: &Block, parent: &Block) -> Block {
        let mut header = block.header;
        let mut segments = block.segments().to_vec();
        let first = |block: &Block| block.segments().first().map(|s| (s.rollup, s.transactions[0].clone()));
        if let Some(ordered) = first(parent) {
            *self.replayed.lock() = Some(ordered);
        }
        match self.rng.lock().random_range(0..7) {
            0 => header.timestamp_ms = parent.header.timestamp_ms.saturating_sub(1),
            // Not invalid, but nobody votes for it before its time has come.
            1 => header.timestamp_ms += 3_600_000,
            2 => header.system_root = B256::repeat_byte(1),
            3 => header.next_seats_hash = B256::repeat_byte(2),
            4 => {
                segments.push(Segment { rollup: RollupId(u64::MAX), transactions: vec![vec![1].into()] });
            }
            5 => {
                let again = Bytes::from(vec![7; 9]);
                segments.retain(|s| s.rollup != OPAQUE);
                segments.push(Segment { rollup: OPAQUE, transactions: vec![again.clone(), again] });
            }
            _ => {
                if let Some((rollup, tx)) = self.replayed.lock().clone() {
                    segments.retain(|s| s.rollup != rollup);
                    segments.push(Segment { rollup, transactions: vec![tx] });
                    segments.sort_by_key(|s| s.rollup);
                }
            }
        }
        Block::new(header, segments)
    }
}

impl BlockBuilder for LyingBuilder {
    async fn build(&self, parent: Arc<Block>, ancestors: Ancestors) -> Option<Block> {
        self.witness.tell(|w| w.leader = Some(self.place));
        let block = self.honest.build(parent.clone(), ancestors).await?;
        match self.behaviour {
            Some(Behaviour::Invalid) => Some(self.spoil(&block, &parent)),
            Some(Behaviour::Forging) => Some(self.forge(block, &parent)),
            Some(Behaviour::Tearing) => {
                let mut tearer = self.tearer.lock();
                tearer.see(parent.transactions(RollupId::SYSTEM));
                Some(tearer.tear(&block))
            }
            Some(Behaviour::Equivocating) => {
                let mut header = block.header;
                header.timestamp_ms += 1;
                let other = Block::new(header, block.segments().to_vec());
                self.secret.lock().remember(block.hash(), other);
                Some(block)
            }
            _ => Some(block),
        }
    }

    async fn judge(&self, block: Arc<Block>, parent: Arc<Block>, ancestors: Ancestors) -> Result<(), InvalidBlock> {
        match self.behaviour {
            // Its own blocks are good enough for it.
            Some(Behaviour::Invalid | Behaviour::Forging | Behaviour::Tearing) => Ok(()),
            _ => self.honest.judge(block, parent, ancestors).await,
        }
    }

    fn held(&self, keys: &[TxKey]) -> Vec<Option<Bytes>> {
        self.honest.held(keys)
    }
}

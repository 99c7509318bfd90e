//! One run of one plan.

use crate::{
    check::Violation,
    machine::elapsed_ms,
    network::{Channel, Disorder, Fabric, Link, Mouth, Said},
    validator::{Settings, Validator},
    witness::Witness,
    world::World,
};
use bytes::Bytes;
use commonware_cryptography::ed25519::PublicKey;
use commonware_p2p::Recipients;
use commonware_runtime::{Clock as _, Runner as _, deterministic};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use switchyard_node::config;
use switchyard_primitives::{B256, Limits};

/// Says what an honest validator says, and shows it to the guard's checker.
struct Honest {
    index: usize,
    witness: Arc<Witness>,
}

impl Mouth for Honest {
    fn say(&self, channel: Channel, _: &Recipients<PublicKey>, message: &Bytes) -> Option<Said> {
        if channel == Channel::Votes {
            let _ = self.witness.tell(|w| w.guard.vote(self.index, message));
        }
        None
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Everything that happened, and everything that the runtime did, as one hash.
    pub trace: B256,
    /// What was found to be wrong.
    pub violation: Option<Violation>,
    /// Blocks.
    pub blocks: u64,
}

/// Runs.
pub fn run(seed: u64) -> Outcome {
    let limits = Limits { body_bytes: 64 << 10, segments: 8, transactions: 512, transaction_bytes: 4 << 10 };
    let world = Arc::new(World::new(4, limits));
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let witness = Arc::new(Witness::new(&world, BTreeSet::new()));
    let config = deterministic::Config::new().with_seed(seed).with_catch_panics(true);
    let path = folder.path().to_path_buf();
    let seen = witness.clone();
    let state = deterministic::Runner::new(config).start(|context| async move {
        let fabric = Fabric::start(&context, &world, 1 << 20).await;
        let n = world.seats.seats().len();
        let link = Link { latency: Duration::from_millis(20), jitter: Duration::from_millis(5), lost_per_mille: 0 };
        for (a, b) in (0..n).flat_map(|a| (0..n).map(move |b| (a, b))).filter(|(a, b)| a != b) {
            fabric.set(a, b, Some(link)).await;
        }
        let settings = Settings {
            pace: config::Consensus::default(),
            compact_from_bytes: 1024,
            clock_ahead_ms: 0,
            disorder: Disorder::default(),
            executes: false,
            archive_blocks: 1024,
        };
        let mut validators = Vec::new();
        for index in 0..n {
            let folder = path.join(index.to_string());
            let mut v = Validator::new(index, world.clone(), witness.clone(), settings, folder, seed);
            let mouth = Arc::new(Honest { index, witness: witness.clone() });
            v.start(&context, &fabric, mouth, |builder| builder).await;
            validators.push(v);
        }
        while elapsed_ms(&context) < 60_000 && witness.violation().is_none() {
            context.sleep(Duration::from_millis(100)).await;
            let height = validators
                .iter()
                .map(|v| {
                    use switchyard_store::Store as _;
                    v.store().tip().0.height
                })
                .min();
            if height >= Some(20) {
                break;
            }
        }
        context.auditor().state()
    });
    let mut trace = B256::ZERO;
    let mut blocks = 0;
    seen.tell(|w| {
        trace = switchyard_primitives::keccak256(format!("{}{state}", w.trace.hash()));
        blocks = w.agreement.height();
    });
    Outcome { trace, violation: seen.violation(), blocks }
}

//! Clients: they send transactions to honest validators and remember what they were promised.

use crate::{
    check::accepted::{Held, Weight},
    machine::elapsed_ms,
    rollups::{SENDER_SECRET, transaction},
    run::rng_for,
    validator::Life,
    witness::Witness,
    world::{EVM, OPAQUE},
};
use alloy::{
    primitives::{Address, U256},
    signers::local::PrivateKeySigner,
};
use commonware_runtime::{Spawner as _, Supervisor as _, deterministic};
use parking_lot::Mutex;
use rand::{RngExt as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use switchyard_mempool::Mempool;
use switchyard_primitives::{Bytes, RollupId, TxKey};
use switchyard_store::{MemoryStore, Store as _};

/// What clients share.
pub struct Clients {
    witness: Arc<Witness>,
    honest: BTreeSet<usize>,
    rng: StdRng,
    open: Arc<Mutex<Open>>,
    /// The transaction of the EVM rollup that is on its way, and the nonce of the next one.
    evm: (Option<(TxKey, Bytes)>, u64),
    signer: PrivateKeySigner,
}

/// Validators that take transactions.
#[derive(Default)]
struct Open {
    pools: BTreeMap<usize, (Arc<Mempool>, Arc<MemoryStore>)>,
    /// How many crashes there have been.
    crashes: u64,
}

impl Open {
    fn holders(&self, key: &TxKey) -> BTreeSet<usize> {
        let holds = |(mempool, store): &(Arc<Mempool>, Arc<MemoryStore>)| {
            mempool.get_many(&[*key]).iter().any(Option::is_some) || matches!(store.locate(*key), Ok(Some(_)))
        };
        self.pools.iter().filter(|(_, pool)| holds(pool)).map(|(place, _)| *place).collect()
    }
}

impl Clients {
    /// Clients of a network, of whose validators these are honest.
    pub fn new(witness: Arc<Witness>, honest: BTreeSet<usize>, seed: u64) -> Self {
        let signer = PrivateKeySigner::from_bytes(&SENDER_SECRET.into()).expect("a secret");
        let rng = rng_for(seed, "clients");
        Self { witness, honest, rng, open: Arc::default(), evm: (None, 0), signer }
    }

    /// An honest validator takes transactions from now on.
    pub fn serve(&mut self, place: usize, mempool: Arc<Mempool>, store: Arc<MemoryStore>) {
        if self.honest.contains(&place) {
            self.open.lock().pools.insert(place, (mempool, store));
        }
    }

    /// A validator has crashed.
    pub fn lose(&mut self, place: usize) {
        let mut open = self.open.lock();
        open.pools.remove(&place);
        open.crashes += 1;
    }

    /// Whether a validator takes transactions.
    pub fn serves(&self, place: usize) -> bool {
        self.open.lock().pools.contains_key(&place)
    }

    /// Sends `count` transactions of the opaque rollup, of `bytes` each, and one of the EVM rollup, to the validator at a place.
    pub fn submit(&mut self, context: &deterministic::Context, to: (usize, &Life), count: usize, bytes: usize) {
        for _ in 0..count {
            let mut payload = vec![0; bytes.max(8)];
            self.rng.fill(&mut payload[..]);
            self.send(context, to, OPAQUE, payload.into());
        }
        let payload = self.transfer();
        self.send(context, to, EVM, payload);
    }

    /// The next transfer, once the last one is in the log; else that one again.
    fn transfer(&mut self) -> Bytes {
        if let Some((key, payload)) = &self.evm.0 {
            let mut ordered = false;
            self.witness.tell(|w| ordered = w.once.holds(key));
            if !ordered {
                return payload.clone();
            }
        }
        let nonce = self.evm.1;
        self.evm.1 += 1;
        let to = Address::repeat_byte(u8::try_from(nonce % 200).unwrap_or(0) + 1);
        let payload: Bytes =
            transaction(&self.signer, EVM, nonce, to, U256::from(nonce + 1), Default::default(), 21_000).0.into();
        self.evm.0 = Some((TxKey::of(EVM, &payload), payload.clone()));
        payload
    }

    fn send(&self, context: &deterministic::Context, (to, life): (usize, &Life), rollup: RollupId, payload: Bytes) {
        let key = TxKey::of(rollup, &payload);
        let (first, hub) = (life.hub.tip().current().epoch(), life.hub.clone());
        let answer = life.submit(rollup, payload);
        let (witness, open) = (self.witness.clone(), self.open.clone());
        let crashes = open.lock().crashes;
        context.child("client").spawn(move |context| async move {
            let accepted = answer.await;
            witness.event(elapsed_ms(&context), usize::MAX, &format!("submitted {} {accepted}", key.hash));
            if !accepted {
                return;
            }
            let open = open.lock();
            let holders = open.holders(&key);
            // Who has crashed since it answered holds nothing any more, and need not.
            let excused = open.crashes != crashes;
            let epochs = first..=hub.tip().current().epoch();
            let weights: Vec<Weight> = epochs.filter_map(|epoch| witness.weight(epoch, &holders, excused)).collect();
            let held = Held { by: holders.contains(&to).then_some(to), holders };
            let _ = witness.tell(|w| {
                if w.once.holds(&key) {
                    w.accepted.ordered(&key);
                    return Ok(());
                }
                w.accepted.accepted(&key, held, &weights)
            });
        });
    }
}

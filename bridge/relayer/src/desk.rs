//! The relayer's account on one rollup.

use crate::{Delivery, Failed, Submit};
use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::Encodable2718,
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{TxOutcome, evm::EvmChain};
use tokio::runtime::Handle;

/// What was not decided for so long is offered again: a mempool forgets, and a node may have been restarted.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// A tip, wei for each unit of gas: enough not to be the last.
const TIP: u128 = 100_000_000;

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// To have a block, which sees more of the hub.
    Nudge,
    /// A rollup's entry in the list.
    Register(RollupId),
    /// A checkpoint of a rollup whose outbox had so many messages.
    Prove(RollupId, u64),
    /// A message of a rollup.
    Deliver(RollupId, u64),
    /// What is due back to whom a message of this rollup's own, that expired, came from.
    Refund(u64),
    /// A leg of a bundle: its decision's leaf, and its index.
    Settle(u64, u8),
}

struct Sent {
    job: Job,
    hash: B256,
    raw: Bytes,
    at: Instant,
}

/// Transactions of the relayer on one rollup, one nonce after the other.
pub(crate) struct Desk {
    rollup: RollupId,
    chain: Arc<dyn EvmChain>,
    submit: Arc<dyn Submit>,
    signer: PrivateKeySigner,
    undecided: BTreeMap<u64, Sent>,
    /// The first of them that was not offered yet.
    unsent: Option<u64>,
    next: u64,
}

impl Desk {
    pub(crate) fn new(
        rollup: RollupId,
        chain: Arc<dyn EvmChain>,
        submit: Arc<dyn Submit>,
        signer: PrivateKeySigner,
    ) -> Self {
        Self { rollup, chain, submit, signer, undecided: BTreeMap::new(), unsent: None, next: 0 }
    }

    pub(crate) fn address(&self) -> Address {
        self.signer.address()
    }

    /// How many are undecided.
    pub(crate) fn len(&self) -> usize {
        self.undecided.len()
    }

    pub(crate) fn has(&self, job: Job) -> bool {
        self.undecided.values().any(|sent| sent.job == job)
    }

    /// What was decided since: each job, and whether it was executed without reverting. In a closed block, since what comes next is
    /// made of the state after the newest one.
    pub(crate) fn settle(&mut self, runtime: &Handle) -> Result<Vec<(Job, bool)>, Failed> {
        let failed = |source| Failed::Rollup { rollup: self.rollup, source };
        let head = self.chain.head().header.number;
        let mut decided = Vec::new();
        for (nonce, sent) in &self.undecided {
            match self.chain.outcome(sent.hash).map_err(failed)? {
                Some(TxOutcome::Executed { block, success, .. }) if block <= head => decided.push((*nonce, success)),
                Some(TxOutcome::Skipped { .. }) => decided.push((*nonce, false)),
                Some(TxOutcome::Executed { .. }) | None => {}
            }
        }
        let account = self.chain.account(head, self.address()).map_err(failed)?;
        let nonce = account.map_or(0, |account| account.nonce);
        // What is below and has no outcome was replaced: another relayer with this key.
        let replaced: Vec<u64> = self.undecided.range(..nonce).map(|(nonce, _)| *nonce).collect();
        let lost = replaced.into_iter().filter(|nonce| !decided.iter().any(|(known, _)| known == nonce));
        let lost: Vec<_> = lost.map(|nonce| (nonce, false)).collect();
        let all = decided.into_iter().chain(lost);
        let jobs = all.filter_map(|(nonce, success)| Some((self.undecided.remove(&nonce)?.job, success))).collect();
        self.next = self.undecided.last_key_value().map_or(nonce, |(last, _)| last + 1).max(nonce);
        if self
            .undecided
            .first_key_value()
            .is_some_and(|(first, sent)| *first > nonce && sent.at.elapsed() > AGAIN_AFTER)
        {
            // Something before it was refused for good: all of it is made anew.
            self.undecided.clear();
            self.next = nonce;
        }
        let old = self.undecided.values_mut().filter(|sent| sent.at.elapsed() > AGAIN_AFTER);
        let again: Vec<Bytes> = old
            .map(|sent| {
                sent.at = Instant::now();
                sent.raw.clone()
            })
            .collect();
        if !again.is_empty() {
            // That it is known already is no news.
            let _ = runtime.block_on(self.submit.submit(self.rollup, again));
        }
        Ok(jobs)
    }

    /// Whether the relayer can pay for something.
    pub(crate) fn can_pay(&self, gas: u64) -> Result<bool, Failed> {
        let failed = |source| Failed::Rollup { rollup: self.rollup, source };
        let account = self.chain.account(self.chain.head().header.number, self.address()).map_err(failed)?;
        let price = U256::from(self.fees().0) * U256::from(gas);
        Ok(account.is_some_and(|account| account.balance >= price))
    }

    /// Fee cap and tip, wei for each unit of gas.
    fn fees(&self) -> (u128, u128) {
        (2 * u128::from(self.chain.next_base_fee()) + TIP, TIP)
    }

    /// Signs a call, to be offered with [`Self::flush`]; `false` if it cannot.
    pub(crate) fn send(&mut self, job: Job, call: &Delivery) -> bool {
        let (max_fee_per_gas, max_priority_fee_per_gas) = self.fees();
        let tx = TxEip1559 {
            chain_id: self.chain.chain_id(),
            nonce: self.next,
            gas_limit: call.gas,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to: TxKind::Call(call.to),
            value: U256::ZERO,
            access_list: Default::default(),
            input: call.data.clone(),
        };
        let signature = match self.signer.sign_hash_sync(&tx.signature_hash()) {
            Ok(signature) => signature,
            Err(error) => {
                tracing::error!(%error, "the relayer cannot sign");
                return false;
            }
        };
        let raw: Bytes = TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into();
        self.unsent.get_or_insert(self.next);
        self.undecided.insert(self.next, Sent { job, hash: keccak256(&raw), raw, at: Instant::now() });
        self.next += 1;
        true
    }

    /// Offers what was signed since, all at once; returns the jobs that come to nothing: of the first one that is refused, and of those
    /// behind it.
    pub(crate) fn flush(&mut self, runtime: &Handle) -> Vec<Job> {
        let Some(first) = self.unsent.take() else { return Vec::new() };
        let raw = self.undecided.range(first..).map(|(_, sent)| sent.raw.clone()).collect();
        let answers = runtime.block_on(self.submit.submit(self.rollup, raw));
        let refused = answers.into_iter().zip(first..).find_map(|(answer, nonce)| Some((nonce, answer.err()?)));
        let Some((nonce, reason)) = refused else { return Vec::new() };
        tracing::debug!(rollup = %self.rollup, reason, "the relayer's transactions were refused");
        // Some of those behind it may wait somewhere: they are used when what takes its place is.
        self.next = nonce;
        self.undecided.split_off(&nonce).into_values().map(|sent| sent.job).collect()
    }
}

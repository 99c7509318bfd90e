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
    /// What is due back to whom a message of this rollup's own, that expired, came from; after so many attempts.
    Refund(u64, u32),
    /// A leg of a bundle: its decision's leaf, and its index.
    Settle(u64, u8),
}

/// What has become of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was executed.
    Done,
    /// It was executed, and reverted.
    Failed,
    /// It is in no block and will not be: it was refused, or another one took its nonce.
    Unsent,
}

struct Sent {
    job: Job,
    hash: B256,
    raw: Bytes,
    gas: u64,
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

    /// Gas that those may take.
    pub(crate) fn gas(&self) -> u64 {
        self.undecided.values().fold(0, |sum, sent| sum.saturating_add(sent.gas))
    }

    pub(crate) fn has(&self, job: Job) -> bool {
        self.undecided.values().any(|sent| sent.job == job)
    }

    /// What was decided since. In a closed block, since what comes next is made of the state after the newest one.
    pub(crate) fn settle(&mut self, now: Instant) -> Result<Vec<(Job, End)>, Failed> {
        let failed = |source| Failed::Rollup { rollup: self.rollup, source };
        let head = self.chain.head().header.number;
        let account = self.chain.account(head, self.address()).map_err(failed)?;
        let nonce = account.map_or(0, |account| account.nonce);
        let mut ends = Vec::new();
        for (at, sent) in &self.undecided {
            match self.chain.outcome(sent.hash).map_err(failed)? {
                Some(TxOutcome::Executed { block, success, .. }) if block <= head => {
                    ends.push((*at, if success { End::Done } else { End::Failed }));
                }
                Some(TxOutcome::Skipped { .. }) => ends.push((*at, End::Unsent)),
                // Replaced: another relayer with this key.
                None if *at < nonce => ends.push((*at, End::Unsent)),
                Some(TxOutcome::Executed { .. }) | None => {}
            }
        }
        let take = |(at, end)| Some((self.undecided.remove(&at)?.job, end));
        let mut jobs: Vec<_> = ends.into_iter().filter_map(take).collect();
        let first = self.undecided.first_key_value();
        if first.is_some_and(|(first, sent)| *first > nonce && now > sent.at + AGAIN_AFTER) {
            // Something before it was refused for good: all of it is made anew.
            jobs.extend(std::mem::take(&mut self.undecided).into_values().map(|sent| (sent.job, End::Unsent)));
        }
        self.next = self.undecided.last_key_value().map_or(nonce, |(last, _)| last + 1).max(nonce);
        let old = self.undecided.values_mut().filter(|sent| now > sent.at + AGAIN_AFTER);
        let again: Vec<Bytes> = old
            .map(|sent| {
                sent.at = now;
                sent.raw.clone()
            })
            .collect();
        if !again.is_empty() {
            // That it is known already is no news.
            self.submit.submit(self.rollup, again);
        }
        Ok(jobs)
    }

    /// Whether the relayer can pay for something besides what is undecided.
    pub(crate) fn can_pay(&self, gas: u64) -> Result<bool, Failed> {
        let failed = |source| Failed::Rollup { rollup: self.rollup, source };
        let account = self.chain.account(self.chain.head().header.number, self.address()).map_err(failed)?;
        let price = U256::from(self.fees().0) * U256::from(gas.saturating_add(self.gas()));
        Ok(account.is_some_and(|account| account.balance >= price))
    }

    /// Fee cap and tip, wei for each unit of gas.
    fn fees(&self) -> (u128, u128) {
        (2 * u128::from(self.chain.next_base_fee()) + TIP, TIP)
    }

    /// Signs a call, to be offered with [`Self::flush`]; `false` if it cannot.
    pub(crate) fn send(&mut self, now: Instant, job: Job, call: &Delivery) -> bool {
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
        self.undecided.insert(self.next, Sent { job, hash: keccak256(&raw), raw, gas: call.gas, at: now });
        self.next += 1;
        true
    }

    /// Offers what was signed since, all at once; returns the jobs that come to nothing: of the first one that is refused, and of those
    /// behind it.
    pub(crate) fn flush(&mut self) -> Vec<Job> {
        let Some(first) = self.unsent.take() else { return Vec::new() };
        let raw = self.undecided.range(first..).map(|(_, sent)| sent.raw.clone()).collect();
        let answers = self.submit.submit(self.rollup, raw);
        let refused = answers.into_iter().zip(first..).find_map(|(answer, nonce)| Some((nonce, answer.err()?)));
        let Some((nonce, reason)) = refused else { return Vec::new() };
        tracing::debug!(rollup = %self.rollup, reason, "the relayer's transactions were refused");
        // Some of those behind it may wait somewhere: they are used when what takes its place is.
        self.next = nonce;
        self.undecided.split_off(&nonce).into_values().map(|sent| sent.job).collect()
    }
}

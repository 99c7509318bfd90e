//! The relayer's account on one rollup.

use crate::{Delivery, Failed, Refusal, Submit};
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
use switchyard_rollup_core::{
    TxOutcome,
    evm::{EvmChain, EvmError},
};

/// What was not decided for so long is offered again: a mempool forgets, and a node may have been restarted.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// A tip, wei for each unit of gas: enough not to be the last.
const TIP: u128 = 100_000_000;
/// How often one transaction is signed again to pay more, each time by an eighth at the least, which is above what a mempool asks for.
const RAISES: usize = 32;
/// How often what was refused is replaced and offered again at once; then it is after [`AGAIN_AFTER`].
const OFFERS: u32 = 4;
/// That nodes refuse what is offered, for reasons that may pass, is said once in so long.
const SAY_EVERY: Duration = Duration::from_secs(60);

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
    /// It cannot be in a block: it is larger than a transaction may be, or needs more gas than a block has.
    Refused,
}

struct Sent {
    job: Job,
    call: Delivery,
    /// Fee cap and tip, wei for each unit of gas.
    fees: (u128, u128),
    raw: Bytes,
    /// Of what was signed with this nonce for this job, the newest one last. Any may be in a block.
    hashes: Vec<B256>,
    at: Instant,
}

impl Sent {
    /// What has become of it; the newest one speaks for those that were skipped.
    fn outcome(&self, chain: &dyn EvmChain) -> Result<Option<TxOutcome>, EvmError> {
        let mut newest = None;
        for hash in &self.hashes {
            newest = chain.outcome(*hash)?;
            if matches!(newest, Some(TxOutcome::Executed { .. })) {
                break;
            }
        }
        Ok(newest)
    }
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
    /// What could not be signed, to be told with the next [`Self::flush`].
    unsigned: Vec<(Job, End)>,
    /// When it was last said that nodes refuse what is offered.
    said: Option<Instant>,
}

impl Desk {
    pub(crate) fn new(
        rollup: RollupId,
        chain: Arc<dyn EvmChain>,
        submit: Arc<dyn Submit>,
        signer: PrivateKeySigner,
    ) -> Self {
        let (undecided, unsigned) = (BTreeMap::new(), Vec::new());
        Self { rollup, chain, submit, signer, undecided, unsent: None, next: 0, unsigned, said: None }
    }

    pub(crate) fn address(&self) -> Address {
        self.signer.address()
    }

    /// An address that nobody else can know.
    pub(crate) fn secret_address(&self) -> Address {
        let signature = self.signer.sign_hash_sync(&keccak256("an address for simulated calls"));
        signature.map_or(Address::ZERO, |signature| Address::from_word(keccak256(signature.as_bytes())))
    }

    /// How many are undecided.
    pub(crate) fn len(&self) -> usize {
        self.undecided.len()
    }

    /// Gas that those may take.
    pub(crate) fn gas(&self) -> u64 {
        self.undecided.values().fold(0, |sum, sent| sum.saturating_add(sent.call.gas))
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
            match sent.outcome(&*self.chain).map_err(failed)? {
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
        let mut old = Vec::new();
        for (nonce, sent) in self.undecided.iter_mut().filter(|(_, sent)| now > sent.at + AGAIN_AFTER) {
            sent.at = now;
            old.push(*nonce);
        }
        // No block takes what pays less than its base fee.
        let base_fee = u128::from(self.chain.next_base_fee());
        for nonce in &old {
            if self.undecided.get(nonce).is_some_and(|sent| sent.fees.0 < base_fee) {
                self.raise(*nonce);
            }
        }
        jobs.extend(self.offer(now, old, false));
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
    pub(crate) fn fees(&self) -> (u128, u128) {
        (2 * u128::from(self.chain.next_base_fee()) + TIP, TIP)
    }

    /// Signs a call, to be offered with [`Self::flush`]; `false` if it cannot, or if no block has room for it, of which that tells.
    pub(crate) fn send(&mut self, now: Instant, job: Job, call: &Delivery) -> bool {
        let gas_limit = self.chain.head().header.gas_limit;
        if call.gas > gas_limit {
            tracing::warn!(rollup = %self.rollup, ?job, gas = call.gas, gas_limit, "no block has room for what the relayer should send");
            self.unsigned.push((job, End::Refused));
            return false;
        }
        let Some(sent) = self.signed(now, job, self.next, call) else {
            self.unsigned.push((job, End::Unsent));
            return false;
        };
        self.unsent.get_or_insert(self.next);
        self.undecided.insert(self.next, sent);
        self.next += 1;
        true
    }

    fn signed(&self, at: Instant, job: Job, nonce: u64, call: &Delivery) -> Option<Sent> {
        let fees = self.fees();
        let raw = self.sign(nonce, call, fees)?;
        Some(Sent { job, call: call.clone(), fees, hashes: vec![keccak256(&raw)], raw, at })
    }

    fn sign(
        &self,
        nonce: u64,
        call: &Delivery,
        (max_fee_per_gas, max_priority_fee_per_gas): (u128, u128),
    ) -> Option<Bytes> {
        let tx = TxEip1559 {
            chain_id: self.chain.chain_id(),
            nonce,
            gas_limit: call.gas,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to: TxKind::Call(call.to),
            value: U256::ZERO,
            access_list: Default::default(),
            input: call.data.clone(),
        };
        let signature = self.signer.sign_hash_sync(&tx.signature_hash());
        let signature = signature.inspect_err(|error| tracing::error!(%error, "the relayer cannot sign")).ok()?;
        Some(TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into())
    }

    /// Signs again what has this nonce, with fees that have it take the place of what waits with them; `false` if it cannot.
    fn raise(&mut self, nonce: u64) -> bool {
        let now = self.fees();
        let more = |wei: u128| wei.saturating_add(wei / 8).saturating_add(1);
        let Some(sent) = self.undecided.get(&nonce).filter(|sent| sent.hashes.len() <= RAISES) else { return false };
        let fees = (now.0.max(more(sent.fees.0)), now.1.max(more(sent.fees.1)));
        let Some(raw) = self.sign(nonce, &sent.call, fees) else { return false };
        tracing::debug!(rollup = %self.rollup, nonce, fee_cap = fees.0, tip = fees.1, "the relayer pays more");
        if let Some(sent) = self.undecided.get_mut(&nonce) {
            sent.hashes.push(keccak256(&raw));
            (sent.fees, sent.raw) = (fees, raw);
        }
        true
    }

    /// A transfer of nothing to itself.
    pub(crate) fn nothing(&self) -> Delivery {
        Delivery { rollup: self.rollup, to: self.address(), data: Bytes::new(), gas: 21_000 }
    }

    /// Offers what was signed since, all at once; returns the jobs that come to nothing.
    pub(crate) fn flush(&mut self, now: Instant) -> Vec<(Job, End)> {
        let mut ends = std::mem::take(&mut self.unsigned);
        if let Some(first) = self.unsent.take() {
            let nonces = self.undecided.range(first..).map(|(nonce, _)| *nonce).collect();
            ends.extend(self.offer(now, nonces, true));
        }
        ends
    }

    /// Offers what has these nonces; returns the jobs that come to nothing. What is refused for itself does, and holds up none behind
    /// it. What is refused for another reason does where it `is_new`, with all that is behind it: else it may wait somewhere.
    fn offer(&mut self, now: Instant, mut nonces: Vec<u64>, is_new: bool) -> Vec<(Job, End)> {
        let mut ends = Vec::new();
        for _ in 0..OFFERS {
            if nonces.is_empty() {
                break;
            }
            let raw = nonces.iter().filter_map(|nonce| Some(self.undecided.get(nonce)?.raw.clone())).collect();
            let answers = self.submit.submit(self.rollup, raw);
            let answers = std::mem::take(&mut nonces).into_iter().zip(answers);
            let refused: Vec<(u64, Refusal)> =
                answers.filter_map(|(nonce, answer)| Some((nonce, answer.err()?))).collect();
            let mut others = refused.iter().filter(|(_, refusal)| matches!(refusal, Refusal::Other(_)));
            let mut behind = BTreeMap::new();
            if let Some((nonce, refusal)) = others.next().filter(|_| is_new) {
                self.say(now, refusal);
                // Some of those behind it may wait somewhere: they are used when what takes its place is.
                self.next = *nonce;
                behind = self.undecided.split_off(nonce);
            }
            // The last one first: whether anything is behind it is known by then.
            for (nonce, refusal) in refused.into_iter().rev() {
                match refusal {
                    Refusal::Itself(reason) => {
                        let job = match behind.remove(&nonce) {
                            Some(sent) => Some(sent.job),
                            None => self.give_up(now, nonce, &mut nonces),
                        };
                        tracing::warn!(rollup = %self.rollup, ?job, reason, "the relayer cannot send what it should");
                        ends.extend(job.map(|job| (job, End::Refused)));
                    }
                    Refusal::Underpriced(_) if self.raise(nonce) => nonces.push(nonce),
                    Refusal::Underpriced(_) | Refusal::Other(_) => {}
                }
            }
            nonces.reverse();
            ends.extend(behind.into_values().map(|sent| (sent.job, End::Unsent)));
        }
        ends
    }

    /// Gives up a job. Where others wait behind it, a transfer of nothing takes its nonce, which is then to be offered.
    fn give_up(&mut self, now: Instant, nonce: u64, offer: &mut Vec<u64>) -> Option<Job> {
        let job = self.undecided.remove(&nonce)?.job;
        if self.undecided.range(nonce..).next().is_none() {
            self.next = nonce;
        } else if let Some(nothing) = self.signed(now, Job::Nudge, nonce, &self.nothing()) {
            self.undecided.insert(nonce, nothing);
            offer.push(nonce);
        }
        Some(job)
    }

    fn say(&mut self, now: Instant, refusal: &Refusal) {
        if self.said.is_none_or(|at| now > at + SAY_EVERY) {
            self.said = Some(now);
            tracing::warn!(rollup = %self.rollup, %refusal, "the relayer's transactions are refused: it will try again");
        }
    }
}

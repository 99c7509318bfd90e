//! Rounds: what there is to do on each rollup, and doing it.

use crate::{
    Anchor, Delivery, Failed, Hub, Registered, Submit,
    desk::{Desk, End, Job},
    proof::{checkpoint_call, deliver_call, refund_call, refund_tokens_call, register_call},
    queue::{Pauses, Queue, SCAN_MAX, pause},
    settle::{Next, Settling},
    vault::Probe,
};
use alloy::{
    primitives::{B256, Bytes, U256},
    rpc::types::TransactionRequest,
    signers::local::PrivateKeySigner,
    sol_types::SolCall,
};
use futures::stream::{FuturesUnordered, StreamExt as _};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use switchyard_bridge_contracts::{Hub as HubContract, Inbox};
use switchyard_bridge_core::predeploys;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::{EvmChain, EvmError, SentMessage};
use tokio::{runtime::Handle, sync::watch};

/// Transactions that are undecided at a time on one rollup.
const WINDOW: usize = 256;
/// Of these, what only live messages may take.
const FOR_LIVE: usize = 64;
/// A backlog is sent while what is undecided takes no more than this part of a block's gas, so that there is always room in the next
/// block; and a smaller one while live messages come, which are executed behind it.
const BACKLOG_PART: u64 = 2;
const BACKLOG_PART_BESIDE_LIVE: u64 = 8;
/// Refunds tried out in one round.
const REFUNDS: usize = 64;
/// Gas of the settlements that are tried out in one round of a rollup.
const TRIED_GAS: u64 = 100_000_000;
/// Attempts to pay back; anyone may go on.
const REFUND_ATTEMPTS_MAX: u32 = 3;
/// Gas that a recipient gets at the most, where it fails with what its message states.
const RECIPIENT_GAS_MAX: u64 = 5_000_000;
/// A round without any event.
const TICK: Duration = Duration::from_secs(1);
/// Each rank waits so long for the ranks before it.
const RANK_DELAY: Duration = Duration::from_secs(2);
/// An idle rollup gets a transaction of the relayer's, so that it sees more of the hub: the next one, if that was not enough, after this.
const NUDGE_EVERY: Duration = Duration::from_millis(400);
/// The next round of one that waits for a rollup to see more of the hub.
const SOON: Duration = Duration::from_millis(100);

/// What an operator chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Relayers of higher ranks wait for lower ones: 2 s for each. So they rarely pay for the same message twice, and one takes
    /// over when those before it are dead.
    pub rank: u32,
}

/// What [`Relayer::new`] needs.
pub struct RelayerParts {
    /// The hub's log.
    pub hub: Arc<dyn Hub>,
    /// The rollups that run here: messages between these are relayed.
    pub chains: BTreeMap<RollupId, Arc<dyn EvmChain>>,
    /// The way into them.
    pub submit: Arc<dyn Submit>,
    /// Who pays: the same account on all of them.
    pub signer: PrivateKeySigner,
    /// Changes with the hub's log.
    pub tip: watch::Receiver<u64>,
    /// What the operator chooses.
    pub settings: Settings,
}

/// The relayer.
pub struct Relayer {
    parts: RelayerParts,
    sides: BTreeMap<RollupId, Side>,
}

/// One destination.
struct Side {
    rollup: RollupId,
    chain: Arc<dyn EvmChain>,
    /// The time of this round.
    now: Instant,
    desk: Desk,
    queues: BTreeMap<RollupId, Queue>,
    /// Whether the contracts were found there.
    has_contracts: bool,
    /// Rollups that are in its list.
    registered: BTreeSet<RollupId>,
    /// Where entering a rollup into it, or showing it a checkpoint of one, has come to nothing.
    registering: BTreeMap<RollupId, Pauses>,
    proving: BTreeMap<RollupId, Pauses>,
    /// Own messages that expired elsewhere.
    refunds: VecDeque<Refund>,
    settling: Settling,
    nudged: Option<Instant>,
    /// Said once that the account is empty.
    is_poor: bool,
}

/// An own message that expired elsewhere.
struct Refund {
    index: u64,
    attempts: u32,
    not_before: Instant,
}

impl Relayer {
    /// A relayer that has done nothing yet.
    pub fn new(parts: RelayerParts) -> Self {
        let delay = RANK_DELAY * parts.settings.rank;
        let side = |(rollup, chain): (&RollupId, &Arc<dyn EvmChain>)| {
            let desk = Desk::new(*rollup, chain.clone(), parts.submit.clone(), parts.signer.clone());
            let others = parts.chains.keys().filter(|other| *other != rollup);
            let queues = others.map(|source| (*source, Queue::new(*source, *rollup, delay))).collect();
            let side = Side {
                rollup: *rollup,
                chain: chain.clone(),
                now: Instant::now(),
                desk,
                queues,
                has_contracts: false,
                registered: BTreeSet::new(),
                registering: BTreeMap::new(),
                proving: BTreeMap::new(),
                refunds: VecDeque::new(),
                settling: Settling::new(*rollup),
                nudged: None,
                is_poor: false,
            };
            (*rollup, side)
        };
        let sides = parts.chains.iter().map(side).collect();
        Self { parts, sides }
    }

    /// Works until `stopped` says so. Blocking: on a thread of its own, with `runtime` to wait on.
    pub fn run(mut self, runtime: &Handle, stopped: impl Fn() -> bool) {
        let mut heads: Vec<_> = self.parts.chains.values().map(|chain| chain.watch_head()).collect();
        while !stopped() {
            heads.iter_mut().for_each(|head| head.mark_unchanged());
            self.parts.tip.mark_unchanged();
            let next = if self.round(Instant::now()) { SOON } else { TICK };
            let tip = &mut self.parts.tip;
            runtime.block_on(async {
                let mut any: FuturesUnordered<_> = heads.iter_mut().map(|head| head.changed()).collect();
                tokio::select! {
                    // None where no rollup runs here.
                    Some(_) = any.next() => {}
                    _ = tip.changed() => {}
                    () = tokio::time::sleep(next) => {}
                }
            });
        }
    }

    /// Does what there is to do at a time, never earlier than the one before. What fails is tried again in a later round, and one rollup's
    /// trouble is no other's. Says whether a rollup has not seen enough of the hub for something that waits.
    pub fn round(&mut self, now: Instant) -> bool {
        let rollups = self.parts.hub.rollups();
        let mut waits = false;
        for side in self.sides.values_mut() {
            side.now = now;
            match side.round(&self.parts, &rollups) {
                Ok(blind) => waits |= blind,
                Err(error) => tracing::warn!(rollup = %side.rollup, %error, "the relayer will try again"),
            }
        }
        waits
    }
}

impl Side {
    fn failed(&self) -> impl Fn(EvmError) -> Failed + use<> {
        let rollup = self.rollup;
        move |source| Failed::Rollup { rollup, source }
    }

    fn round(&mut self, parts: &RelayerParts, rollups: &[Registered]) -> Result<bool, Failed> {
        let now = self.now;
        for (job, end) in self.desk.settle(now)? {
            self.ended(job, end)?;
        }
        if !self.has_contracts()? {
            return Ok(false);
        }
        let (mut calls, mut blind) = (Vec::new(), false);
        let anchor = Anchor::newest(&*parts.hub, &*self.chain)?;
        let mut show = |job, call: Option<Delivery>| match call {
            Some(call) => calls.push((job, call)),
            None => blind = true,
        };
        let own = self.rollup;
        for other in rollups.iter().filter(|other| other.rollup != own) {
            let is_due = self.registering.get(&other.rollup).is_none_or(|pauses| pauses.is_over(now));
            if !self.knows(other.rollup)? && is_due && !self.desk.has(Job::Register(other.rollup)) {
                let call = anchor.as_ref().map(|a| register_call(&*parts.hub, self.rollup, other, a)).transpose()?;
                show(Job::Register(other.rollup), call.flatten());
            }
        }
        let delay = RANK_DELAY * parts.settings.rank;
        for source in rollups {
            let (Some(from), Some(certified)) = (parts.chains.get(&source.rollup), source.certified) else { continue };
            let Some(queue) = self.queues.get_mut(&source.rollup) else { continue };
            if from.head().header.number < certified.checkpoint.number {
                continue;
            }
            let at_source = |error| Failed::Rollup { rollup: source.rollup, source: error };
            let count = from.storage(certified.checkpoint.number, predeploys::OUTBOX, B256::ZERO).map_err(at_source)?;
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            queue.scan(now, (&**from, &*self.chain), count, SCAN_MAX)?;
            let is_due = self.proving.get(&source.rollup).is_none_or(|pauses| pauses.is_over(now));
            if is_due && queue.needs_proof(now, count) && !self.desk.has(Job::Prove(source.rollup, count)) {
                let known = self.chain.call(
                    self.chain.head().header.number,
                    view(HubContract::outboxRootsCall {
                        rollup: source.rollup.0,
                        root: certified.checkpoint.outbox_root,
                    }),
                    None,
                );
                if known.is_ok_and(|answer| answer.last() == Some(&1)) {
                    queue.proven = Some(count);
                } else {
                    let call = anchor.as_ref();
                    let call = call.map(|a| checkpoint_call(&*parts.hub, self.rollup, &certified, a)).transpose()?;
                    show(Job::Prove(source.rollup, count), call.flatten());
                }
            }
        }
        self.send(calls)?;
        for source in parts.chains.keys().filter(|source| **source != own) {
            self.deliver(parts, *source)?;
        }
        self.refund(parts, delay)?;
        self.settling.scan(now, &*parts.hub, delay)?;
        blind |= self.settle(parts, anchor.as_ref())?;
        if blind {
            self.nudge()?;
        } else {
            self.nudged = None;
        }
        for (job, end) in self.desk.flush(now) {
            self.ended(job, end)?;
        }
        Ok(blind)
    }

    /// Brings decided and released legs further; whether some wait for the rollup to see more of the hub.
    fn settle(&mut self, parts: &RelayerParts, anchor: Option<&Anchor>) -> Result<bool, Failed> {
        let (mut blind, mut tried) = (false, 0u64);
        let probe = Probe { from: self.desk.address(), at: self.desk.secret_address(), fees: self.desk.fees() };
        for leg in self.settling.due(self.now, WINDOW.saturating_sub(self.desk.len())) {
            let attempt = match self.settling.next(&*parts.hub, &*self.chain, anchor, leg)? {
                Next::Nothing => continue,
                Next::Blind => {
                    blind = true;
                    continue;
                }
                Next::Try(attempt) => attempt,
            };
            let trial = attempt.call.trial();
            tried = tried.saturating_add(trial.gas);
            if tried > TRIED_GAS || !self.pays(trial.gas)? {
                break;
            }
            let Some(number) = anchor.map(|anchor| anchor.number) else { break };
            let after = probe.try_out(&*self.chain, number, &trial, (&attempt.bundle, leg.1))?;
            let Some(call) = self.settling.judge(self.now, leg, attempt, after) else { continue };
            if self.desk.send(self.now, Job::Settle(leg.0, leg.1), &call.delivery()) {
                self.settling.sent(leg, &call);
            }
        }
        Ok(blind)
    }

    /// Whether this rollup has the contracts: a call of an address without code succeeds and does nothing.
    fn has_contracts(&mut self) -> Result<bool, Failed> {
        if !self.has_contracts {
            let number = self.chain.head().header.number;
            self.has_contracts = !self.chain.code(number, predeploys::HUB).map_err(self.failed())?.is_empty();
        }
        Ok(self.has_contracts)
    }

    /// Whether a rollup is in this one's list.
    fn knows(&mut self, other: RollupId) -> Result<bool, Failed> {
        if self.registered.contains(&other) {
            return Ok(true);
        }
        let number = self.chain.head().header.number;
        let answer = self.chain.call(number, view(HubContract::chainOfCall { rollup: other.0 }), None);
        let chain = answer.map_err(self.failed())?;
        let is_known = chain.iter().any(|byte| *byte != 0);
        if is_known {
            self.registered.insert(other);
            self.registering.remove(&other);
        }
        Ok(is_known)
    }

    fn ended(&mut self, job: Job, end: End) -> Result<(), Failed> {
        match job {
            Job::Prove(source, _) if end == End::Done => {
                self.proving.remove(&source);
            }
            Job::Prove(source, _) => {
                if let Some(queue) = self.queues.get_mut(&source) {
                    queue.proven = None;
                }
                if end != End::Unsent {
                    tracing::warn!(rollup = %self.rollup, %source, "a checkpoint was not taken: the relayer will try again");
                    self.proving.entry(source).or_default().failed(self.now);
                }
            }
            // One that was executed is looked for in the list, where it may be by somebody else.
            Job::Register(other) if end != End::Unsent && !self.knows(other)? => {
                tracing::warn!(rollup = %self.rollup, %other, "a rollup was not entered into the list: the relayer will try again");
                self.registering.entry(other).or_default().failed(self.now);
            }
            Job::Deliver(source, index) => {
                if let Some(queue) = self.queues.get_mut(&source) {
                    match end {
                        End::Unsent => queue.unsent(index),
                        End::Done | End::Failed => queue.decided(self.now, &*self.chain, index, end == End::Done)?,
                        End::Refused => queue.failed(self.now, index),
                    }
                }
            }
            Job::Settle(leaf, leg) => self.settling.ended(self.now, (leaf, leg), end),
            Job::Refund(index, attempts) => {
                let (attempts, after) = match end {
                    End::Done => return Ok(()),
                    End::Failed | End::Refused => (attempts + 1, pause(attempts)),
                    End::Unsent => (attempts, Duration::ZERO),
                };
                self.refunds.push_back(Refund { index, attempts, not_before: self.now + after });
            }
            Job::Nudge | Job::Register(_) => {}
        }
        Ok(())
    }

    fn send(&mut self, calls: Vec<(Job, Delivery)>) -> Result<(), Failed> {
        for (job, call) in calls {
            if self.desk.len() >= WINDOW || !self.pays(call.gas)? {
                return Ok(());
            }
            if self.desk.send(self.now, job, &call)
                && let Job::Prove(source, count) = job
                && let Some(queue) = self.queues.get_mut(&source)
            {
                // What is delivered on top of it comes after it, by the nonce.
                queue.proven = Some(count);
            }
        }
        Ok(())
    }

    fn pays(&mut self, gas: u64) -> Result<bool, Failed> {
        let can_pay = self.desk.can_pay(gas)?;
        if !can_pay && !self.is_poor {
            tracing::error!(rollup = %self.rollup, account = %self.desk.address(), "the relayer's account cannot pay for gas: fund it");
        }
        self.is_poor = !can_pay;
        Ok(can_pay)
    }

    /// The least timestamp, seconds, of a block that holds what is sent now.
    fn block_s(&self, hub: &dyn Hub) -> u64 {
        let open = self.chain.pending().map(|open| open.header.timestamp);
        open.unwrap_or_else(|| hub.now_s().max(self.chain.head().header.timestamp))
    }

    /// Delivers what is due of one source.
    fn deliver(&mut self, parts: &RelayerParts, source: RollupId) -> Result<(), Failed> {
        let block_s = self.block_s(&*parts.hub);
        let part = match self.queues.values().any(|queue| queue.is_live(self.now)) {
            true => BACKLOG_PART_BESIDE_LIVE,
            false => BACKLOG_PART,
        };
        let (Some(from), Some(queue)) = (parts.chains.get(&source), self.queues.get_mut(&source)) else {
            return Ok(());
        };
        let Some(count) = queue.proven.filter(|_| !queue.is_empty()) else { return Ok(()) };
        let at_source = |error| Failed::Rollup { rollup: source, source: error };
        let live = WINDOW.saturating_sub(self.desk.len());
        let due = queue.due(self.now, block_s, live, live.saturating_sub(FOR_LIVE));
        let gas_limit = self.chain.head().header.gas_limit;
        let gas_for_backlog = gas_limit / part;
        for (index, waiting) in due {
            let Some(queue) = self.queues.get_mut(&source) else { continue };
            if queue.is_settled(self.now, &*self.chain, index)? {
                if queue.yields(self.now) {
                    return Ok(());
                }
                continue;
            }
            let Some(sent) = from.sent(index).map_err(at_source)? else { continue };
            let Some(path) = from.outbox_path(index, count).map_err(at_source)? else { continue };
            let gas = sent.message.gas_limit << waiting.attempts.min(8);
            let gas = gas.clamp(sent.message.gas_limit, RECIPIENT_GAS_MAX.max(sent.message.gas_limit));
            let mut call = deliver_call(&sent, count, path.clone(), gas, waiting.is_late);
            if call.gas > gas_limit {
                // No more than it must have, which a block may have room for.
                call = deliver_call(&sent, count, path, sent.message.gas_limit, waiting.is_late);
            }
            let undecided = self.desk.gas();
            if !waiting.is_live && undecided > 0 && undecided.saturating_add(call.gas) > gas_for_backlog {
                return Ok(());
            }
            // What has failed before is tried out first, which costs nobody anything.
            if waiting.attempts > 0 && !waiting.is_late && !self.would_deliver(&call)? {
                if let Some(queue) = self.queues.get_mut(&source) {
                    queue.decided(self.now, &*self.chain, index, false)?;
                }
                continue;
            }
            if !self.pays(call.gas)? {
                return Ok(());
            }
            if self.desk.send(self.now, Job::Deliver(source, index), &call)
                && let Some(queue) = self.queues.get_mut(&source)
            {
                queue.sent(index);
            }
        }
        Ok(())
    }

    /// Whether a delivery would go through on the present state.
    fn would_deliver(&self, call: &Delivery) -> Result<bool, Failed> {
        match self.simulate(call)? {
            Some(answer) => Ok(Inbox::deliverCall::abi_decode_returns(&answer).unwrap_or(false)),
            None => Ok(false),
        }
    }

    /// What a call returns; none if it fails.
    fn simulate(&self, call: &Delivery) -> Result<Option<Bytes>, Failed> {
        let request = TransactionRequest::default()
            .from(self.desk.address())
            .to(call.to)
            .gas_limit(call.gas)
            .input(call.data.clone().into());
        match self.chain.call(self.chain.head().header.number, request, None) {
            Ok(answer) => Ok(Some(answer)),
            Err(EvmError::Revert(_) | EvmError::Halt(_) | EvmError::InvalidCall(_)) => Ok(None),
            Err(error) => Err(self.failed()(error)),
        }
    }

    /// Pays back what belonged to messages that expired: notices have told which.
    fn refund(&mut self, parts: &RelayerParts, delay: Duration) -> Result<(), Failed> {
        let now = self.now;
        for (source, queue) in &mut self.queues {
            let Some(from) = parts.chains.get(source) else { continue };
            for index in queue.arrived() {
                let notice = from.sent(index).map_err(|error| Failed::Rollup { rollup: *source, source: error })?;
                let id = notice.and_then(|notice| B256::try_from(notice.payload.as_ref()).ok());
                let own = id.map(|id| self.chain.sent_by_id(id)).transpose();
                let own = own.map_err(|source| Failed::Rollup { rollup: self.rollup, source })?.flatten();
                let refund =
                    |own: SentMessage| Refund { index: own.message.index, attempts: 0, not_before: now + delay };
                self.refunds.extend(own.map(refund));
            }
        }
        for _ in 0..self.refunds.len().min(REFUNDS) {
            let Some(refund) = self.refunds.pop_front() else { break };
            if refund.not_before > now || self.desk.len() >= WINDOW {
                self.refunds.push_back(refund);
                continue;
            }
            let Some(sent) = self.chain.sent(refund.index).map_err(self.failed())? else { continue };
            for call in refund_calls(&sent) {
                // Whoever else has done it, or an account that refuses: it can be done at any time by anyone.
                if refund.attempts == REFUND_ATTEMPTS_MAX || self.simulate(&call)?.is_none() {
                    continue;
                }
                let job = Job::Refund(refund.index, refund.attempts);
                if !self.pays(call.gas)? {
                    self.ended(job, End::Unsent)?;
                } else {
                    self.desk.send(now, job, &call);
                }
            }
        }
        Ok(())
    }

    /// Has the rollup make a block, if nothing else will.
    fn nudge(&mut self) -> Result<(), Failed> {
        let early = self.nudged.is_some_and(|at| self.now < at + NUDGE_EVERY);
        if early || self.desk.len() > 0 || self.chain.pending().is_some() || !self.pays(21_000)? {
            return Ok(());
        }
        self.nudged = Some(self.now);
        let nothing = self.desk.nothing();
        self.desk.send(self.now, Job::Nudge, &nothing);
        Ok(())
    }
}

/// The calls that give back what a message carried.
pub(crate) fn refund_calls(sent: &SentMessage) -> Vec<Delivery> {
    let of_tokens = sent.message.sender == predeploys::TOKEN_BRIDGE.into_word();
    let tokens = of_tokens.then(|| refund_tokens_call(sent));
    let coin = (sent.message.value > 0).then(|| refund_call(sent));
    tokens.into_iter().chain(coin).collect()
}

fn view(call: impl SolCall) -> TransactionRequest {
    TransactionRequest::default().to(predeploys::HUB).value(U256::ZERO).input(call.abi_encode().into())
}

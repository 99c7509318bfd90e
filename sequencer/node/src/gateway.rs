//! The node as its servers see it.

use crate::{
    builder::HubBuilder,
    forward::Forward,
    hub::HubStates,
    ingest::Ingest,
    logging::RecentErrors,
    relay::{Log, sent_by},
};
use alloy_primitives::Address;
use futures::future::BoxFuture;
use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};
use switchyard_bridge_core::{SignedBundle, SystemState};
use switchyard_mempool::Mempool;
use switchyard_primitives::{B256, Bytes, FinalityProof, Header, Level, RollupId, SegmentTable, TxHash, TxKey};
use switchyard_relayer::{Delivery, MessageStatus};
use switchyard_rollup_core::{BundleRefusal, Rejection, evm::EvmChain};
use switchyard_rpc::{
    BlockAt, BundleAt, EpochAt, Gateway, GatewayError, HubTip, MessageAt, NetworkInfo, OpenCall, SegmentAt, TxStatus,
};
use switchyard_store::{STATES_KEPT, Store};
use tokio::sync::{broadcast, watch};

/// The node behind its servers.
pub struct NodeGateway {
    /// Fixed facts.
    pub info: NetworkInfo,
    /// The log.
    pub store: Arc<dyn Store>,
    /// The hub's state.
    pub hub: HubStates,
    /// What waits.
    pub mempool: Arc<Mempool>,
    /// The way in.
    pub entry: Entry,
    /// The durable tip.
    pub tip: watch::Receiver<HubTip>,
    /// The rollups that run here.
    pub chains: BTreeMap<RollupId, Arc<dyn EvmChain>>,
    /// What the bridge's proofs are made of.
    pub log: Log,
    /// The last problems.
    pub errors: RecentErrors,
}

/// Where submissions go.
pub enum Entry {
    /// Into this node's mempool, and to the other validators.
    Validator {
        /// The way in.
        ingest: Arc<Ingest>,
        /// Knows what is ordered and not final yet.
        builder: HubBuilder,
    },
    /// To a validator.
    Follower(Arc<Forward>),
}

fn open(Delivery { rollup, to, data, gas }: Delivery) -> OpenCall {
    OpenCall { rollup, to, data, gas }
}

fn failed(error: impl ToString) -> GatewayError {
    GatewayError::Store(error.to_string())
}

impl NodeGateway {
    fn check_kept(&self, height: u64) -> Result<(), GatewayError> {
        let earliest = self.store.earliest();
        if height < earliest { Err(GatewayError::Pruned { height, earliest }) } else { Ok(()) }
    }

    /// The headers of a proof. A log that began at a checkpoint has none below it.
    fn headers(&self, heights: RangeInclusive<u64>) -> Result<Option<Vec<Header>>, GatewayError> {
        let mut headers = Vec::new();
        for height in heights {
            match self.header(height)? {
                Some(header) => headers.push(header),
                None => return Ok(None),
            }
        }
        Ok(Some(headers))
    }
}

impl Gateway for NodeGateway {
    fn info(&self) -> &NetworkInfo {
        &self.info
    }

    fn submit(&self, rollup: RollupId, payloads: Vec<Bytes>) -> BoxFuture<'_, Vec<Result<TxHash, Rejection>>> {
        match &self.entry {
            Entry::Validator { ingest, .. } => Box::pin(ingest.submit(rollup, payloads)),
            Entry::Follower(forward) => Box::pin(forward.submit(rollup, payloads)),
        }
    }

    fn status(&self, key: TxKey) -> Result<TxStatus, GatewayError> {
        let mut status = TxStatus { level: None, included: None, outcome: None, rejection: None };
        // The store last: what becomes final meanwhile is in it before it leaves the mempool.
        if matches!(&self.entry, Entry::Validator { builder, .. } if builder.is_ordered(&key)) {
            status.level = Some(Level::Ordered);
        } else if self.mempool.get(&key).is_some() {
            status.level = Some(Level::Accepted);
        } else {
            status.rejection = self.mempool.drop_reason(&key);
        }
        if let Some(place) = self.store.locate(key).map_err(failed)? {
            status = TxStatus { level: Some(Level::Final), included: Some(place), outcome: None, rejection: None };
            if let Some(chain) = self.chains.get(&key.rollup) {
                status.outcome = chain.outcome(key.hash).map_err(failed)?;
            }
        }
        Ok(status)
    }

    fn tip(&self) -> watch::Receiver<HubTip> {
        self.tip.clone()
    }

    fn earliest(&self) -> u64 {
        self.store.earliest()
    }

    fn header(&self, height: u64) -> Result<Option<Header>, GatewayError> {
        let header = self.store.header(height).map_err(failed)?;
        if header.is_none() && height <= self.store.tip().0.height {
            self.check_kept(height)?;
        }
        Ok(header)
    }

    fn segment(&self, rollup: RollupId, height: u64) -> Result<Option<SegmentAt>, GatewayError> {
        let Some(header) = self.store.header(height).map_err(failed)? else { return Ok(None) };
        self.check_kept(height)?;
        let Some(entries) = self.store.table(height).map_err(failed)? else { return Ok(None) };
        let transactions = self.store.transactions(rollup, height).map_err(failed)?.unwrap_or_default();
        let proof = SegmentTable::from_entries(entries).prove(rollup);
        Ok(Some(SegmentAt { header, transactions, proof }))
    }

    fn finality(&self, height: u64) -> Result<Option<FinalityProof>, GatewayError> {
        let Some((certified, certificate)) = self.store.certificate_from(height).map_err(failed)? else {
            return Ok(None);
        };
        let span = certified.saturating_sub(height);
        if usize::try_from(span).map_or(true, |span| span >= FinalityProof::MAX_HEADERS) {
            return Ok(None);
        }
        let headers = self.headers(height..=certified)?;
        Ok(headers.map(|headers| FinalityProof { headers, certificate }))
    }

    fn hub_state_at(&self, height: u64) -> Result<Vec<u8>, GatewayError> {
        // A log that began at a checkpoint knows the state before that block, and from there on.
        if self.store.header(height).map_err(failed)?.is_none() {
            self.check_kept(height.saturating_add(1))?;
        }
        match self.hub.state_at(height).map_err(failed)? {
            Some(state) => Ok(state.encode()),
            None => {
                let earliest = self.store.tip().0.height.saturating_sub(STATES_KEPT);
                Err(GatewayError::Pruned { height, earliest })
            }
        }
    }

    fn finality_run(&self, from: u64) -> Result<Option<FinalityProof>, GatewayError> {
        let tip = self.store.tip().0.height;
        let reach = from.saturating_add(FinalityProof::MAX_HEADERS as u64 - 1).min(tip);
        let Some(mut headers) = self.headers(from..=reach)? else { return Ok(None) };
        // The seats of the next epoch are known to who has checked this one's last block, and not before.
        if let Some(last) = headers.iter().position(|header| header.next_seats_hash != B256::ZERO && header.height > 0)
        {
            headers.truncate(last + 1);
        }
        let Some(last) = headers.last() else { return Ok(None) };
        let found = self.store.certificate_to(last.height).map_err(failed)?;
        let Some((certified, certificate)) = found.filter(|(certified, _)| *certified >= from) else {
            return Ok(None);
        };
        headers.truncate(usize::try_from(certified - from).map_or(usize::MAX, |count| count.saturating_add(1)));
        Ok(Some(FinalityProof { headers, certificate }))
    }

    fn block(&self, height: u64) -> Result<Option<BlockAt>, GatewayError> {
        self.check_kept(height)?;
        let Some(block) = self.store.block(height).map_err(failed)? else { return Ok(None) };
        let found = self.store.certificate_from(height).map_err(failed)?;
        let certificate = found.filter(|(at, _)| *at == height).map(|(_, certificate)| certificate);
        Ok(Some(BlockAt { block: block.encode().into(), certificate }))
    }

    fn hub_state(&self) -> Arc<SystemState> {
        self.hub.tip()
    }

    fn epoch(&self, epoch: u64) -> Result<Option<EpochAt>, GatewayError> {
        let state = self.hub.tip();
        if epoch > state.current().epoch() {
            return Ok(None);
        }
        let Some(before) = epoch.checked_sub(1) else {
            let seats = self.hub.committee_of(0).map_err(failed)?.seats().clone();
            return Ok(Some(EpochAt { epoch, first_height: 0, seats, boundary: None }));
        };
        let last = state.rules().last_of(before);
        let Some(boundary) = self.finality(last)? else { return Ok(None) };
        let seats = self.hub.committee_of(epoch).map_err(failed)?.seats().clone();
        Ok(Some(EpochAt { epoch, first_height: last.saturating_add(1), seats, boundary: Some(boundary) }))
    }

    fn pending(&self, key: TxKey) -> Option<Bytes> {
        self.mempool.get(&key)
    }

    fn pending_nonce(&self, rollup: RollupId, sender: Address) -> Option<u64> {
        self.mempool.pending_nonce(rollup, sender)
    }

    fn subscribe_pending(&self, rollup: RollupId) -> broadcast::Receiver<TxHash> {
        match &self.entry {
            Entry::Validator { ingest, .. } => ingest.subscribe(rollup),
            Entry::Follower(forward) => forward.subscribe(rollup),
        }
    }

    fn evm(&self, rollup: RollupId) -> Option<Arc<dyn EvmChain>> {
        self.chains.get(&rollup).cloned()
    }

    fn message(&self, id: B256) -> Result<Option<MessageAt>, GatewayError> {
        let found = switchyard_relayer::status(&self.log, &self.chains, id).map_err(failed)?;
        Ok(found.map(|MessageStatus { sent, state }| MessageAt { sent, state }))
    }

    fn delivery(&self, id: B256) -> Result<Option<Vec<OpenCall>>, GatewayError> {
        let calls = switchyard_relayer::delivery(&self.log, &self.chains, id).map_err(failed)?;
        Ok(calls.map(|calls| calls.into_iter().map(open).collect()))
    }

    fn sent_by(&self, rollup: RollupId, transaction: TxHash) -> Result<Vec<B256>, GatewayError> {
        let Some(chain) = self.chains.get(&rollup) else { return Ok(Vec::new()) };
        sent_by(&**chain, transaction).map_err(failed)
    }

    fn submit_bundle(&self, bundle: SignedBundle) -> BoxFuture<'_, Result<B256, BundleRefusal>> {
        let bundle = Arc::new(bundle);
        match &self.entry {
            Entry::Validator { ingest, .. } => Box::pin(ingest.submit_bundle(bundle)),
            Entry::Follower(forward) => Box::pin(forward.submit_bundle(bundle)),
        }
    }

    fn bundle(&self, id: B256) -> Result<Option<BundleAt>, GatewayError> {
        let waiting = self.mempool.bundle(&id);
        // The store after the mempool: what becomes final meanwhile is in it before it leaves the mempool.
        if let Some(status) = switchyard_relayer::bundle_status(&self.log, &self.chains, id).map_err(failed)? {
            return Ok(Some(BundleAt::InLog(status)));
        }
        if let Some(bundle) = waiting {
            return Ok(Some(BundleAt::Waiting { deadline: bundle.deadline }));
        }
        if let Some(refusal) = self.mempool.bundle_refusal(&id) {
            return Ok(Some(BundleAt::Refused(refusal)));
        }
        // A validator has it. It can be included below its deadline only.
        let tip = self.tip.borrow().height;
        Ok(self.mempool.bundle_elsewhere(&id).map(|deadline| match deadline > tip.saturating_add(1) {
            true => BundleAt::Waiting { deadline },
            false => BundleAt::Refused(BundleRefusal::Overdue { deadline }),
        }))
    }

    fn settlement(&self, id: B256) -> Result<Option<Vec<OpenCall>>, GatewayError> {
        let calls = switchyard_relayer::settlement(&self.log, &self.chains, id).map_err(failed)?;
        Ok(calls.map(|calls| calls.into_iter().map(open).collect()))
    }

    fn recent_errors(&self) -> Vec<String> {
        self.errors.lines()
    }
}

#[cfg(test)]
mod tests;

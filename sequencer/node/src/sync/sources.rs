//! The nodes that blocks are copied from: connections, and who is left alone for a while.

use super::{
    Timing,
    fault::{Fault, Kind},
};
use crate::metrics::{Metrics, ReasonLabel, gauge};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use switchyard_primitives::{B256, FinalityProof, Header, Limits};
use switchyard_proto::{hash, v1};
use tokio::{sync::watch, time::Instant};
use tonic::transport::{Channel, Endpoint};
use v1::{
    block_service_client::BlockServiceClient, bridge_service_client::BridgeServiceClient,
    sequencer_service_client::SequencerServiceClient, status_service_client::StatusServiceClient,
};

/// A dead connection is found within two of these.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// What an honest answer has besides a block's body: a proof of finality of 1024 headers with a certificate of 4096 seats.
const OVERHEAD_BYTES: usize = FinalityProof::MAX_HEADERS * (Header::LEN + 4) + (64 << 10);
/// A state of the hub with as many open bundles and disputes as it remembers is shorter.
const STATE_BYTES: usize = 16 << 20;
/// After so long without a fault a source is as good as new.
const FORGIVEN: Duration = Duration::from_secs(1800);

/// What is known of a source.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Left alone until then.
    until: Option<Instant>,
    /// Times that it was bad, one after the other.
    strikes: u32,
    /// The last one.
    struck: Option<Instant>,
    /// It has said that it is of this network.
    greeted: bool,
    /// The lowest height whose blocks it keeps.
    earliest: u64,
    /// The tip that it says it has, which it must prove.
    claimed: u64,
    /// It hands submissions on.
    forwards: bool,
}

/// Another node.
pub struct Source {
    url: String,
    channel: Channel,
    answer_bytes: usize,
    state: Mutex<State>,
}

impl Source {
    /// Its address, for logs.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its log.
    pub(super) fn blocks(&self) -> BlockServiceClient<Channel> {
        BlockServiceClient::new(self.channel.clone()).max_decoding_message_size(self.answer_bytes)
    }

    /// Its way in.
    pub(crate) fn sequencer(&self) -> SequencerServiceClient<Channel> {
        SequencerServiceClient::new(self.channel.clone())
    }

    /// Its way in for bundles.
    pub(crate) fn bridge(&self) -> BridgeServiceClient<Channel> {
        BridgeServiceClient::new(self.channel.clone())
    }

    /// How it is.
    pub(super) fn status(&self) -> StatusServiceClient<Channel> {
        StatusServiceClient::new(self.channel.clone())
    }

    /// The lowest height whose blocks it keeps, as far as it has said.
    pub(super) fn earliest(&self) -> u64 {
        self.state.lock().earliest
    }

    pub(super) fn keeps_from(&self, earliest: u64) {
        self.state.lock().earliest = earliest;
    }

    /// The tip that it says it has.
    pub(super) fn claimed(&self) -> u64 {
        self.state.lock().claimed
    }

    /// It has answered and is not left alone.
    fn is_good(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.greeted && state.until.is_none_or(|until| until <= now)
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.state.lock().until.is_some_and(|until| until > Instant::now())
    }

    /// Asks whether it is of the network, and what it has.
    pub(super) async fn greet(&self, network: B256, timing: &Timing) -> Result<(), Fault> {
        let request = v1::GetInfoRequest { include_manifests: false };
        let mut client = self.blocks();
        let info = tokio::time::timeout(timing.answer, client.get_info(request));
        let info = info.await.map_err(|_| Fault::slow("GetInfo", timing.answer))??.into_inner();
        let found = hash("network_id", &info.network_id)?;
        if found != network {
            return Err(Fault::bad("other_network", format!("serves network {found}")));
        }
        let mut state = self.state.lock();
        state.greeted = true;
        state.earliest = info.earliest_height;
        state.claimed = info.tip.map_or(0, |tip| tip.height);
        state.forwards = info.forwards_submissions;
        Ok(())
    }
}

/// All of them.
pub struct Sources {
    all: Vec<Arc<Source>>,
    timing: Timing,
    metrics: Arc<Metrics>,
    /// How many are good.
    good: watch::Sender<usize>,
}

impl Sources {
    /// The sources at these addresses; nothing is connected yet. Answers longer than a block of `limits` or a state are refused.
    pub fn new(urls: &[String], limits: &Limits, timing: Timing, metrics: Arc<Metrics>) -> Result<Self, Fault> {
        let answer_bytes = limits.block_bytes().saturating_add(OVERHEAD_BYTES).max(STATE_BYTES);
        let source = |url: &String| {
            let endpoint =
                Endpoint::from_shared(url.clone()).map_err(|e| Fault::bad("address", format!("{url}: {e}")))?;
            let channel = endpoint
                .connect_timeout(timing.answer)
                .http2_keep_alive_interval(KEEPALIVE)
                .keep_alive_timeout(KEEPALIVE)
                .keep_alive_while_idle(true)
                .connect_lazy();
            Ok(Arc::new(Source { url: url.clone(), channel, answer_bytes, state: Mutex::default() }))
        };
        let all = urls.iter().map(source).collect::<Result<_, Fault>>()?;
        Ok(Self { all, timing, metrics, good: watch::Sender::new(0) })
    }

    /// Every source.
    pub(super) fn all(&self) -> &[Arc<Source>] {
        &self.all
    }

    /// Number of sources that have answered and are not left alone, and its changes.
    pub(super) fn good(&self) -> watch::Receiver<usize> {
        self.good.subscribe()
    }

    /// Counts again.
    pub(super) fn refresh(&self) {
        let now = Instant::now();
        let good = self.all.iter().filter(|source| source.is_good(now)).count();
        self.metrics.sync_sources.set(gauge(good));
        self.good.send_if_modified(|held| std::mem::replace(held, good) != good);
    }

    /// The highest tip that a good source says it has.
    pub(super) fn claimed(&self) -> Option<u64> {
        let now = Instant::now();
        self.all.iter().filter(|source| source.is_good(now)).map(|source| source.claimed()).max()
    }

    /// Good sources that take submissions themselves.
    pub(crate) fn entries(&self) -> Vec<Arc<Source>> {
        let now = Instant::now();
        let takes = |source: &&Arc<Source>| source.is_good(now) && !source.state.lock().forwards;
        self.all.iter().filter(takes).cloned().collect()
    }

    /// Leaves a source alone for a while.
    pub(crate) fn leave_alone(&self, source: &Source, fault: &Fault) {
        let now = Instant::now();
        let wait = {
            let mut state = source.state.lock();
            let wait = match fault.kind {
                Kind::Away => self.timing.away,
                Kind::Bad => {
                    if state.struck.is_none_or(|struck| now.duration_since(struck) > FORGIVEN) {
                        state.strikes = 0;
                    }
                    state.strikes = state.strikes.saturating_add(1);
                    state.struck = Some(now);
                    let doubled = self.timing.bad.saturating_mul(1 << (state.strikes - 1).min(6));
                    doubled.min(self.timing.bad_max)
                }
            };
            let until = now + wait;
            if state.until.is_none_or(|before| before < until) {
                state.until = Some(until);
            }
            wait
        };
        self.metrics.sync_dropped.get_or_create(&ReasonLabel { reason: fault.reason }).inc();
        let (reason, detail, wait_ms) = (fault.reason, &fault.detail, wait.as_millis());
        match fault.kind {
            // An operator has nothing to do about it, and it may come again and again.
            Kind::Away => tracing::debug!(source = source.url, reason, detail, wait_ms, "a source is away"),
            Kind::Bad => tracing::warn!(source = source.url, reason, detail, wait_ms, "a source is left alone"),
        }
        self.refresh();
    }

    /// Waits while a source is left alone.
    pub(super) async fn usable(&self, source: &Source) {
        loop {
            let until = source.state.lock().until;
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return self.refresh(),
            }
        }
    }
}

//! The verified headers above the node's own blocks: what bodies are checked against.

use super::fault::Fault;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use switchyard_primitives::{B256, FinalityCertificate, FinalityProof, Header};
use tokio::sync::watch;

/// Headers held; further ones are not asked for before blocks were delivered.
pub(super) const HEADERS_MAX: u64 = 16_384;

/// The newest header known to be final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proven {
    pub(super) height: u64,
    pub(super) hash: B256,
    pub(super) timestamp_ms: u64,
}

struct Inner {
    /// Those above the last delivered block, ascending and without gaps.
    headers: VecDeque<Header>,
    /// Of some of them, checked.
    certificates: BTreeMap<u64, FinalityCertificate>,
    /// Blocks up to here were delivered.
    delivered: u64,
}

/// The headers.
pub(super) struct Skeleton {
    inner: Mutex<Inner>,
    tip: watch::Sender<Proven>,
    delivered: watch::Sender<u64>,
}

impl Skeleton {
    /// On top of a node's tip.
    pub(super) fn new(header: &Header, hash: B256) -> Self {
        let Header { height, timestamp_ms, .. } = *header;
        let inner = Inner { headers: VecDeque::new(), certificates: BTreeMap::new(), delivered: height };
        Self {
            inner: Mutex::new(inner),
            tip: watch::Sender::new(Proven { height, hash, timestamp_ms }),
            delivered: watch::Sender::new(height),
        }
    }

    pub(super) fn tip(&self) -> Proven {
        *self.tip.borrow()
    }

    /// The tip's changes.
    pub(super) fn watch(&self) -> watch::Receiver<Proven> {
        self.tip.subscribe()
    }

    /// Waits until there is room for a proof.
    pub(super) async fn room(&self) {
        let mut delivered = self.delivered.subscribe();
        while self.tip().height.saturating_sub(*delivered.borrow_and_update()) >= HEADERS_MAX {
            if delivered.changed().await.is_err() {
                return;
            }
        }
    }

    /// Adds what a verified proof holds above the tip; `false` if that is nothing.
    pub(super) fn extend(&self, proof: FinalityProof) -> Result<bool, Fault> {
        let mut inner = self.inner.lock();
        let tip = self.tip();
        let mut new = proof.headers.into_iter().filter(|header| header.height > tip.height).peekable();
        let Some(first) = new.peek() else { return Ok(false) };
        if first.parent != tip.hash || Some(first.height) != tip.height.checked_add(1) {
            // Two chains that both have certificates: more than a third of the seats have signed a contradiction.
            let detail = format!("block {} does not follow {}", first.height, tip.hash);
            return Err(Fault::bad("broken_chain", detail));
        }
        inner.headers.extend(new);
        let Some(last) = inner.headers.back().copied() else { return Ok(false) };
        inner.certificates.insert(last.height, proof.certificate);
        let Header { height, timestamp_ms, .. } = last;
        self.tip.send_replace(Proven { height, hash: last.hash(), timestamp_ms });
        Ok(true)
    }

    /// The header at a height, if its block is not delivered yet.
    pub(super) fn header(&self, height: u64) -> Option<Header> {
        let inner = self.inner.lock();
        let index = height.checked_sub(inner.delivered)?.checked_sub(1)?;
        inner.headers.get(usize::try_from(index).ok()?).copied()
    }

    /// A checked certificate for the block at a height.
    pub(super) fn certificate(&self, height: u64) -> Option<FinalityCertificate> {
        self.inner.lock().certificates.get(&height).cloned()
    }

    /// The block at a height was delivered.
    pub(super) fn deliver(&self, height: u64) {
        let mut inner = self.inner.lock();
        while inner.delivered < height && inner.headers.pop_front().is_some() {
            inner.delivered += 1;
        }
        inner.certificates = inner.certificates.split_off(&(height.saturating_add(1)));
        self.delivered.send_replace(inner.delivered);
    }
}

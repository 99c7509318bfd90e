//! A log that begins above genesis, at a block that the operator trusts.

use super::{Timing, fault::Fault, fault::pruned, sources::Source, sources::Sources, trust::Judge};
use crate::{
    config::Checkpoint,
    error::NodeError,
    hub::{self, HubStates, Known},
};
use std::sync::Arc;
use switchyard_bridge_core::SystemState;
use switchyard_primitives::{Block, FinalityCertificate, Limits};
use switchyard_proto::v1;
use switchyard_store::Store;
use tokio::time::Instant;

/// What [`begin_at`] needs.
pub struct Begin<'a> {
    /// The block that the operator trusts.
    pub checkpoint: Checkpoint,
    /// The log.
    pub store: &'a dyn Store,
    /// The hub's state, at genesis while the log is empty.
    pub hub: &'a HubStates,
    /// Whom to ask.
    pub sources: &'a Sources,
    /// Checks the block's certificate, where its epoch is known.
    pub judge: &'a Judge,
    /// Bounds of a block.
    pub limits: &'a Limits,
    /// How long to ask.
    pub timing: &'a Timing,
}

/// The trusted block, and the hub's state after it.
struct Found {
    block: Block,
    certificate: Option<FinalityCertificate>,
    before: Arc<SystemState>,
    state: Arc<SystemState>,
}

/// Lets an empty log begin with the operator's checkpoint: finds its block at the sources. A log that has blocks must hold
/// the checkpoint, or end below it.
pub async fn begin_at(begin: Begin<'_>) -> Result<(), NodeError> {
    let Begin { checkpoint, store, hub, sources, timing, .. } = begin;
    if store.tip().0.height > 0 {
        return check(checkpoint, store);
    }
    let deadline = Instant::now() + timing.checkpoint;
    let mut last = None;
    while Instant::now() < deadline {
        for source in sources.all() {
            match begin.find(source).await {
                Ok(Found { block, certificate, before, state }) => {
                    // For others that begin here.
                    let height = block.header.height;
                    for (height, state) in [(height.saturating_sub(1), &before), (height, &state)] {
                        store.put_hub_state(height, &state.hub().encode())?;
                        hub::put_bridge(store, height, state, Known::Nothing)?;
                    }
                    store.begin_at(&block, certificate.as_ref())?;
                    hub.advance(state);
                    let Checkpoint { height, hash } = checkpoint;
                    tracing::info!(height, %hash, source = source.url(), "the log begins at the checkpoint");
                    return Ok(());
                }
                Err(fault) => {
                    let Fault { reason, detail, .. } = fault;
                    tracing::warn!(source = source.url(), reason, detail, "has not the checkpoint's block");
                    last = Some(format!("{}: {detail}", source.url()));
                }
            }
        }
        tokio::time::sleep(timing.away).await;
    }
    let why = last.unwrap_or_else(|| "there is no source".into());
    Err(NodeError::Checkpoint(format!(
        "no source has the block of [sync] checkpoint {checkpoint} ({why}): name a block that a source keeps, or a source \
         that keeps it"
    )))
}

fn check(checkpoint: Checkpoint, store: &dyn Store) -> Result<(), NodeError> {
    match store.header(checkpoint.height)? {
        Some(header) if header.hash() != checkpoint.hash => Err(NodeError::Checkpoint(format!(
            "[sync] checkpoint is {checkpoint}, but the log here has {} at that height: correct the checkpoint, or use \
             another data directory",
            header.hash()
        ))),
        _ => Ok(()),
    }
}

impl Begin<'_> {
    /// Asks one source.
    async fn find(&self, source: &Source) -> Result<Found, Fault> {
        let Checkpoint { height, hash } = self.checkpoint;
        source.greet(self.judge.network(), self.timing).await?;
        let request = v1::StreamBlocksRequest { from_height: height, to_height: Some(height) };
        let mut client = source.blocks();
        let answers = async {
            let refused = |status: tonic::Status| match pruned(&status) {
                Some(earliest) => Fault::away("pruned", format!("keeps blocks from {earliest} on")),
                None => status.into(),
            };
            let mut blocks = client.stream_blocks(request).await.map_err(refused)?.into_inner();
            let block = blocks.message().await.map_err(refused)?;
            let block = block.ok_or_else(|| Fault::bad("gap", "the stream ended before the block"))?;
            let below = v1::GetHubStateAtRequest { height: height.saturating_sub(1) };
            let state = source.blocks().get_hub_state_at(below).await.map_err(refused)?.into_inner().state;
            Ok::<_, Fault>((block, state))
        };
        let answers = tokio::time::timeout(self.timing.chunk, answers).await;
        let (answer, state) = answers.map_err(|_| Fault::slow("a block", self.timing.chunk))??;
        let block = Block::decode(answer.block.into(), self.limits)?;
        if block.hash() != hash || block.header.height != height {
            return Err(Fault::bad("checkpoint", format!("block {height} is {} there", block.hash())));
        }
        block.check_commitments()?;
        let before = self.before(&block, &state)?;
        // It refuses a header that commits to another state.
        let state = before.follow(&block).map_err(|error| Fault::bad("hub_state", error.to_string()))?;
        // The operator vouches for the block; a certificate is kept where it holds.
        let certificate = FinalityCertificate::decode(&answer.certificate).ok();
        let certificate = certificate.filter(|c| self.judge.check_certificate(&block.header, c).is_ok());
        Ok(Found { block, certificate, before, state })
    }

    /// The hub's state before the block, as a source says.
    fn before(&self, block: &Block, state: &[u8]) -> Result<Arc<SystemState>, Fault> {
        let genesis = || self.hub.tip().as_ref().clone();
        let state = match state {
            [] => genesis(),
            bytes => SystemState::decode(self.judge.network(), self.hub.founding().clone(), bytes)?,
        };
        let known = state.unchanged_until(block.header.height);
        known.map(Arc::new).ok_or_else(|| Fault::bad("hub_state", "the hub's state is of another epoch"))
    }
}

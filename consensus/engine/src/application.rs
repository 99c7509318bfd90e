//! Between the consensus library's proposals and the node's [`BlockBuilder`].

use crate::{Runtime, Scheme, block::HubBlock};
use commonware_consensus::{Application, marshal::ancestry::Ancestry, simplex::types::Context};
use commonware_cryptography::{Digested, ed25519::PublicKey, keccak256::Digest};
use futures::StreamExt as _;
use std::sync::Arc;
use switchyard_consensus_core::{Ancestors, BlockBuilder, EpochRules, InvalidBlock};
use switchyard_primitives::{Block, Limits};
use tracing::{debug, error, warn};

/// Fills and judges proposals.
#[derive(Clone)]
pub(crate) struct Chain<B> {
    pub(crate) builder: B,
    pub(crate) limits: Limits,
    pub(crate) epochs: EpochRules,
}

/// The rules that need no state.
fn check_structure(block: &Block, parent: &Block, epochs: &EpochRules) -> Result<(), InvalidBlock> {
    let rule = |rule, detail| Err(InvalidBlock::Rule { rule, detail });
    let (header, parent) = (&block.header, &parent.header);
    if header.parent != parent.hash() {
        return rule("parent", format!("names parent {}, the proposal's is {}", header.parent, parent.hash()));
    }
    if parent.height.checked_add(1) != Some(header.height) {
        return rule("height", format!("height {} on a parent of height {}", header.height, parent.height));
    }
    let epoch = epochs.epoch_of(header.height);
    if header.epoch != epoch {
        return rule("epoch", format!("epoch {} at height {}, which is in epoch {epoch}", header.epoch, header.height));
    }
    Ok(())
}

/// What a decoder would refuse in a block that was made here, so that a faulty builder costs a view and not the
/// validator's connections.
fn check_limits(block: &Block, limits: &Limits) -> Result<(), InvalidBlock> {
    let rule = |detail| Err(InvalidBlock::Rule { rule: "limits", detail });
    if block.encoded_len() > limits.block_bytes() {
        return rule(format!("{} bytes, the limit is {}", block.encoded_len(), limits.block_bytes()));
    }
    if block.segments().len() > limits.segments || block.transaction_count() > limits.transactions {
        return rule(format!("{} segments, {} transactions", block.segments().len(), block.transaction_count()));
    }
    if let Some(pair) = block.segments().array_windows().find(|[a, b]| a.rollup >= b.rollup) {
        return rule(format!("segment {} before {}", pair[0].rollup, pair[1].rollup));
    }
    for segment in block.segments() {
        if segment.transactions.is_empty() {
            return rule(format!("empty segment {}", segment.rollup));
        }
        if let Some(tx) = segment.transactions.iter().find(|tx| tx.len() > limits.transaction_bytes) {
            return rule(format!("transaction of {} bytes in segment {}", tx.len(), segment.rollup));
        }
    }
    Ok(())
}

fn below(ancestry: impl Ancestry<HubBlock>) -> Ancestors {
    ancestry.map(|block| Arc::clone(block.inner().block())).boxed()
}

impl<E: Runtime, B: BlockBuilder> Application<E> for Chain<B> {
    type SigningScheme = Scheme;
    type Context = Context<Digest, PublicKey>;
    type Block = HubBlock;
    type Input = ();

    async fn propose(
        &mut self,
        (_, context): (E, Self::Context),
        mut ancestry: impl Ancestry<HubBlock>,
        (): (),
    ) -> Option<Digested<HubBlock>> {
        let parent = Arc::clone(ancestry.next().await?.inner().block());
        let block = self.builder.build(Arc::clone(&parent), below(ancestry)).await?;
        let checked = check_structure(&block, &parent, &self.epochs).and_then(|()| check_limits(&block, &self.limits));
        if let Err(reason) = checked {
            error!(round = %context.round, %reason, "built an invalid block; the view is given up");
            return None;
        }
        debug!(round = %context.round, height = block.header.height, txs = block.transaction_count(), "proposed");
        Some(HubBlock::sealed(block))
    }

    async fn verify(&mut self, (_, context): (E, Self::Context), mut ancestry: impl Ancestry<HubBlock>) -> bool {
        // Both are there before the library asks; without them there is no verdict, so wait to be cancelled.
        let (Some(block), Some(parent)) = (ancestry.next().await, ancestry.next().await) else {
            return std::future::pending().await;
        };
        let (block, parent) = (Arc::clone(block.inner().block()), Arc::clone(parent.inner().block()));
        let verdict = match check_structure(&block, &parent, &self.epochs).and_then(|()| Ok(block.check_commitments()?))
        {
            Ok(()) => self.builder.judge(Arc::clone(&block), parent, below(ancestry)).await,
            refused => refused,
        };
        if let Err(reason) = &verdict {
            warn!(round = %context.round, height = block.header.height, %reason, "refused a proposed block");
        }
        verdict.is_ok()
    }
}

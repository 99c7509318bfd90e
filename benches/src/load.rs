//! What every kind of load has in common.

use crate::{
    ledger::{Ledger, Open},
    pace::Pace,
    target::Target,
};
use alloy_primitives::B256;
use std::time::Duration;
use switchyard_primitives::RollupId;
use switchyard_proto::v1::{GetTransactionStatusRequest, Level, transaction_status::Outcome};
use tokio::time::timeout;

/// How a load is paced and bounded.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// When transactions are due.
    pub pace: Pace,
    /// How long new ones are due.
    pub duration: Duration,
    /// How long to wait for the last ones after that.
    pub grace: Duration,
    /// Most open transactions; above it, what is due is not sent, and counted. Bounds the generator's memory.
    pub open_max: usize,
}

/// Waits until all is accounted for, at most for `grace`. Then asks the validators about what is left: a transaction that
/// they have dropped or skipped with a reason is accounted for. `name` gives a transaction's rollup and hash.
pub async fn settle(target: &Target, ledger: &Ledger, grace: Duration, name: impl Fn(u64, &Open) -> (RollupId, B256)) {
    if timeout(grace, ledger.below(1)).await.is_err() {
        // Whatever is not answered by then stays unaccounted for.
        let _ = timeout(grace, ask(target, ledger, name)).await;
    }
}

async fn ask(target: &Target, ledger: &Ledger, name: impl Fn(u64, &Open) -> (RollupId, B256)) {
    for (seq, open) in ledger.outstanding() {
        let (rollup, hash) = name(seq, &open);
        for validator in 0..target.len() {
            let request = GetTransactionStatusRequest { rollup_id: rollup.0, hash: hash.to_vec().into() };
            let Ok(answer) = target.sequencer(validator).get_transaction_status(request).await else { continue };
            let Some(status) = answer.into_inner().status else { continue };
            if let Some(rejection) = status.rejection.as_ref().filter(|_| status.level() == Level::Unspecified) {
                ledger.rejected(seq, &rejection.code, &rejection.message);
                break;
            }
            if let (true, Some(Outcome::Skipped(_))) = (open.is_final, &status.outcome) {
                ledger.skipped(seq);
                break;
            }
        }
    }
}

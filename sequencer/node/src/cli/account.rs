//! An account on EVM rollups: signs calls and sends them over gRPC.

use super::{CliError, Node, record::problem};
use crate::keys::read_plain;
use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::Encodable2718,
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use std::path::{Path, PathBuf};
use switchyard_primitives::{RollupId, TxHash};
use switchyard_proto::{to_bytes, v1};

/// How long an execution is waited for, milliseconds.
const EXECUTED_TIMEOUT_MS: u32 = 60_000;
/// A tip, wei for each unit of gas.
const TIP: u128 = 100_000_000;

/// Who signs.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Key {
    /// The account's secp256k1 key: a file of 32 bytes in hex, mode 0600
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// An account.
pub(super) struct Account(PrivateKeySigner);

/// A call to sign.
pub(super) struct Call {
    pub(super) rollup: RollupId,
    pub(super) to: Address,
    pub(super) value: U256,
    pub(super) data: Bytes,
    pub(super) gas: u64,
}

impl Key {
    /// The key in a file.
    pub(super) fn at(key: PathBuf) -> Self {
        Self { key }
    }

    /// Reads the key.
    pub(super) fn account(&self) -> Result<Account, CliError> {
        let path: &Path = &self.key;
        let secret = read_plain(path).map_err(|e| problem(path, e))?;
        Ok(Account(PrivateKeySigner::from_slice(&*secret).map_err(|e| problem(path, e))?))
    }
}

impl Account {
    /// Its address, on every rollup.
    pub(super) fn address(&self) -> Address {
        self.0.address()
    }

    /// Signs a call with the next nonce, sends it and waits until it is executed.
    pub(super) async fn call(&self, node: &mut Node, call: Call) -> Result<TxHash, CliError> {
        let rollup_id = call.rollup.0;
        let request = v1::GetAccountRequest { rollup_id, address: to_bytes(self.address()) };
        let account = node.bridge.get_account(request).await?.into_inner();
        let tx = TxEip1559 {
            chain_id: account.chain_id,
            nonce: account.nonce,
            gas_limit: call.gas,
            max_fee_per_gas: 2 * u128::from(account.base_fee) + TIP,
            max_priority_fee_per_gas: TIP,
            to: TxKind::Call(call.to),
            value: call.value,
            access_list: Default::default(),
            input: call.data,
        };
        let failed = |e: alloy::signers::Error| CliError::Call { code: "signature".into(), message: e.to_string() };
        let signature = self.0.sign_hash_sync(&tx.signature_hash()).map_err(failed)?;
        let raw = TxEnvelope::from(tx.into_signed(signature)).encoded_2718();
        let sent = node.submit(call.rollup, raw.into()).await?;
        executed(node, call.rollup, sent).await?;
        Ok(sent)
    }
}

/// Waits until a transaction is executed; an error if it reverted.
async fn executed(node: &mut Node, rollup: RollupId, sent: B256) -> Result<(), CliError> {
    let request = v1::WatchTransactionRequest {
        rollup_id: rollup.0,
        hash: to_bytes(sent),
        until: v1::Level::Unspecified.into(),
        until_outcome: true,
        timeout_ms: EXECUTED_TIMEOUT_MS,
    };
    let mut changes = node.sequencer.watch_transaction(request).await?.into_inner();
    let mut outcome = None;
    while let Some(change) = changes.message().await? {
        outcome = change.status.and_then(|status| status.outcome).or(outcome);
    }
    let refused = |message: String| Err(CliError::Call { code: "execution".into(), message });
    match outcome {
        Some(v1::transaction_status::Outcome::Executed(v1::Executed { success: true, .. })) => Ok(()),
        Some(v1::transaction_status::Outcome::Executed(_)) => refused(format!("{sent} reverted")),
        Some(v1::transaction_status::Outcome::Skipped(v1::Skipped { reason })) => refused(format!("{sent}: {reason}")),
        None => Err(CliError::UnknownTransaction(sent)),
    }
}

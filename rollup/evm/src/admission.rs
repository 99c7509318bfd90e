//! Which transactions may wait for an EVM rollup: what can be told without executing them.

use crate::reader::EvmReader;
use alloy::consensus::{Transaction, TxEnvelope, transaction::Recovered};
use alloy_evm::FromRecoveredTx;
use alloy_primitives::{Address, U256};
use revm::{
    context::TxEnv,
    context_interface::result::InvalidTransaction,
    handler::validation::validate_initial_tx_gas,
    primitives::{eip3860::MAX_INITCODE_SIZE, hardfork::SpecId},
};
use switchyard_primitives::Bytes;
use switchyard_rollup_core::{Account, Admission, Rejection, Sequenced};

impl Admission for EvmReader {
    fn inspect(&self, payload: &Bytes) -> Result<Option<Sequenced>, Rejection> {
        let tx = self.chain.senders.recover(payload)?;
        check(&tx, self.chain.gas_limit())?;
        let gas_cost = U256::from(tx.gas_limit()) * U256::from(tx.max_fee_per_gas());
        Ok(Some(Sequenced {
            sender: tx.signer(),
            nonce: tx.nonce(),
            gas_limit: tx.gas_limit(),
            fee_cap: tx.max_fee_per_gas(),
            tip_cap: tip(&tx),
            max_cost: gas_cost.saturating_add(tx.value()),
        }))
    }

    fn account(&self, sender: Address) -> Option<Account> {
        let failed = |e: &_| tracing::error!(rollup = %self.chain.rollup, %sender, error = %e, "cannot read account");
        self.newest_account(sender).inspect_err(failed).ok().map(Option::unwrap_or_default)
    }

    fn base_fee(&self) -> u64 {
        self.chain.next_base_fee()
    }

    fn block_gas_limit(&self) -> u64 {
        self.chain.gas_limit()
    }

    fn segment_gas_limit(&self) -> u64 {
        if self.chain.has_room() { self.chain.gas_limit() } else { 0 }
    }
}

fn tip(tx: &TxEnvelope) -> u128 {
    tx.max_priority_fee_per_gas().unwrap_or_else(|| tx.max_fee_per_gas())
}

/// The rules that a transaction meets or breaks whatever the state.
fn check(tx: &Recovered<TxEnvelope>, block_gas_limit: u64) -> Result<(), Rejection> {
    if tx.gas_limit() > block_gas_limit {
        return Err(Rejection::GasLimit { have: tx.gas_limit(), limit: block_gas_limit });
    }
    if tip(tx) > tx.max_fee_per_gas() {
        return Err(Rejection::TipAboveFeeCap { tip: tip(tx), cap: tx.max_fee_per_gas() });
    }
    if tx.is_create() && tx.input().len() > MAX_INITCODE_SIZE {
        let bytes = tx.input().len();
        return Err(Rejection::Malformed(format!(
            "init code of {bytes} bytes is above {MAX_INITCODE_SIZE} (EIP-3860)"
        )));
    }
    if tx.authorization_list().is_some_and(|list| list.is_empty()) {
        return Err(Rejection::Malformed("empty authorization list (EIP-7702)".into()));
    }
    if tx.nonce() == u64::MAX {
        return Err(Rejection::Malformed("nonce is 2^64 - 1 (EIP-2681)".into()));
    }
    let env = TxEnv::from_recovered_tx(tx.inner(), tx.signer());
    match validate_initial_tx_gas(&env, SpecId::PRAGUE, false, false, u64::MAX, None) {
        Ok(_) => Ok(()),
        Err(InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas: need, gas_limit: have })
        | Err(InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor: need, gas_limit: have }) => {
            Err(Rejection::IntrinsicGas { have, need })
        }
        Err(other) => Err(Rejection::Malformed(other.to_string())),
    }
}

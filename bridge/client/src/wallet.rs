//! Signs calls of contracts.

use crate::ClientError;
use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::Encodable2718,
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::SolCall,
};
use alloy_primitives::{Address, Bytes, TxKind, U256};
use switchyard_bridge_contracts::{BridgedERC20, Prepare};
use switchyard_bridge_core::predeploys::ATOMIC_VAULT;
use switchyard_primitives::RollupId;

/// A tip, wei for each unit of gas.
const TIP: u128 = 100_000_000;
/// What an allowance takes at the most.
const APPROVE_GAS: u64 = 100_000;

/// What a rollup says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// EIP-155.
    pub chain_id: u64,
    /// The next nonce, with what waits in the node's mempool.
    pub nonce: u64,
    /// Wei.
    pub balance: U256,
    /// Of the next block, wei.
    pub base_fee: u64,
}

/// A call of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// On which rollup.
    pub rollup: RollupId,
    /// The contract.
    pub to: Address,
    /// Wei that go with it.
    pub value: U256,
    /// Calldata.
    pub data: Bytes,
    /// Gas limit.
    pub gas: u64,
}

impl Call {
    /// Allows a contract to take so much of the caller's ERC-20 token, in its smallest unit: the vault for what legs give, a participant
    /// that takes tokens itself, the bridge.
    pub fn approve(rollup: RollupId, token: Address, spender: Address, amount: U256) -> Self {
        let data = BridgedERC20::approveCall { spender, value: amount }.abi_encode().into();
        Self { rollup, to: token, value: U256::ZERO, data, gas: APPROVE_GAS }
    }
}

/// What a transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tx {
    /// Calls a contract.
    Call(Call),
    /// Prepares a leg of a bundle, with this gas limit.
    Leg(Prepare, u64),
}

/// Signs a transaction (EIP-1559) with an account's next nonce; returns its rollup, and its bytes (EIP-2718). A leg that could not be
/// paid out is refused.
pub fn sign(
    signer: &PrivateKeySigner,
    account: &Account,
    tx: Tx,
) -> Result<(RollupId, switchyard_primitives::Bytes), ClientError> {
    let Call { rollup, to, value, data, gas } = match tx {
        Tx::Call(call) => call,
        Tx::Leg(prepare, gas) => {
            prepare.check()?;
            Call { rollup: prepare.leg.rollup, to: ATOMIC_VAULT, value: prepare.value(), data: prepare.calldata(), gas }
        }
    };
    let tx = TxEip1559 {
        chain_id: account.chain_id,
        nonce: account.nonce,
        gas_limit: gas,
        max_fee_per_gas: 2 * u128::from(account.base_fee) + TIP,
        max_priority_fee_per_gas: TIP,
        to: TxKind::Call(to),
        value,
        access_list: Default::default(),
        input: data,
    };
    let signature = signer.sign_hash_sync(&tx.signature_hash())?;
    Ok((rollup, TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()))
}

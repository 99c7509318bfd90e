//! Accounts of a run, and transfers signed ahead of time.

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718,
    primitives::TxKind,
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, B256, U256, hex, keccak256};
use eyre::Result;
use serde_json::json;
use std::thread;
use tokio::sync::mpsc;

/// Gas of a plain transfer.
const TRANSFER_GAS: u64 = 21_000;
/// High enough for any base fee that a run can cause.
const MAX_FEE_WEI: u128 = 1_000_000_000_000;
const TIP_WEI: u128 = 1_000_000_000;

/// A signed transfer, ready to be sent.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its hash.
    pub hash: B256,
    /// Length of its encoding.
    pub bytes: usize,
    /// Which chain of the run it is for.
    pub chain: usize,
    /// Which account of the run sends it.
    pub account: usize,
    /// The JSON-RPC request that sends it.
    pub request: String,
}

/// Signs a transfer of `value` wei.
pub fn transfer(
    signer: &PrivateKeySigner,
    chain_id: u64,
    nonce: u64,
    to: Address,
    value: U256,
) -> Result<(B256, Vec<u8>)> {
    let transaction = TxEip1559 {
        chain_id,
        nonce,
        gas_limit: TRANSFER_GAS,
        max_fee_per_gas: MAX_FEE_WEI,
        max_priority_fee_per_gas: TIP_WEI,
        to: TxKind::Call(to),
        value,
        ..TxEip1559::default()
    };
    let signature = signer.sign_hash_sync(&transaction.signature_hash())?;
    let signed = TxEnvelope::from(transaction.into_signed(signature));
    Ok((*signed.tx_hash(), signed.encoded_2718()))
}

/// The JSON-RPC request that sends a raw transaction.
pub fn send_request(raw: &[u8]) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [hex::encode_prefixed(raw)] })
        .to_string()
}

/// `count` keys that follow from a seed.
pub fn accounts(seed: u64, count: usize) -> Result<Vec<PrivateKeySigner>> {
    (0..count)
        .map(|i| {
            let secret = keccak256([b"switchyard bench".as_slice(), &seed.to_be_bytes(), &i.to_be_bytes()].concat());
            Ok(PrivateKeySigner::from_bytes(&secret)?)
        })
        .collect()
}

/// Signs transfers on a thread of its own, up to `ahead` of them in advance: transaction `n` is for chain
/// `n % chains`, and each chain's go round the accounts. Ends when the receiver is dropped, or after `total`.
pub fn sign_ahead(
    accounts: Vec<PrivateKeySigner>,
    chain_ids: Vec<u64>,
    total: Option<u64>,
    ahead: usize,
) -> mpsc::Receiver<Prepared> {
    let (sender, receiver) = mpsc::channel(ahead.max(1));
    let sign = move || -> Result<()> {
        for n in 0..total.unwrap_or(u64::MAX) {
            let chain = usize::try_from(n % chain_ids.len() as u64)?;
            let turn = n / chain_ids.len() as u64;
            let account = usize::try_from(turn % accounts.len() as u64)?;
            let to = accounts[(account + 1) % accounts.len()].address();
            let nonce = turn / accounts.len() as u64;
            let (hash, raw) = transfer(&accounts[account], chain_ids[chain], nonce, to, U256::ONE)?;
            let prepared = Prepared { hash, bytes: raw.len(), chain, account, request: send_request(&raw) };
            if sender.blocking_send(prepared).is_err() {
                break;
            }
        }
        Ok(())
    };
    thread::spawn(move || {
        if let Err(error) = sign() {
            eprintln!("cannot sign: {error}");
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[tokio::test]
    async fn signed_transfers_use_each_accounts_nonces_in_order_on_each_chain() {
        let keys = accounts(1, 3).unwrap();
        let mut prepared = sign_ahead(keys.clone(), vec![10, 20], Some(12), 4);
        let (mut all, mut hashes) = (Vec::new(), HashSet::new());
        while let Some(p) = prepared.recv().await {
            assert!(hashes.insert(p.hash));
            let request: serde_json::Value = serde_json::from_str(&p.request).unwrap();
            let raw = hex::decode(request["params"][0].as_str().unwrap()).unwrap();
            assert_eq!((keccak256(&raw), raw.len()), (p.hash, p.bytes));
            all.push((p.chain, p.account));
        }
        let expected: Vec<_> = (0..12).map(|n| (n % 2, n / 2 % 3)).collect();
        assert_eq!(all, expected);
    }
}

//! Signed transactions and raw payloads, and what became of them at submission.

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718,
    primitives::{Address, Bytes, TxKind, U256},
    signers::{SignerSync, local::PrivateKeySigner},
};
use serde_json::json;
use switchyard_primitives::{RollupId, TxKey};
use switchyard_proto::v1::{
    SubmitRequest, sequencer_service_client::SequencerServiceClient, submit_result::Result as Answer,
};
use switchyard_testnet_local::{Client, accounts::Account};

/// Gas limit of what calls or makes a contract.
const CONTRACT_GAS: u64 = 3_000_000;

/// What a submission came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A quorum of validators holds it.
    Accepted(TxKey),
    /// The node refused it, or said nothing (it may still be included).
    Unclear(TxKey, String),
}

impl Sent {
    /// The transaction.
    pub fn key(&self) -> TxKey {
        match self {
            Self::Accepted(key) | Self::Unclear(key, _) => *key,
        }
    }
}

/// One funded account on one rollup, counting its nonces.
pub struct Wallet {
    signer: PrivateKeySigner,
    chain_id: u64,
    nonce: u64,
}

impl Wallet {
    /// The wallet of a genesis account that has sent nothing yet.
    pub fn new(account: &Account, chain_id: u64) -> eyre::Result<Self> {
        Ok(Self { signer: PrivateKeySigner::from_bytes(&account.private_key)?, chain_id, nonce: 0 })
    }

    /// Its address.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// Transactions signed so far.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Goes on from the nonce that the chain says is next.
    pub fn resume(&mut self, nonce: u64) {
        self.nonce = nonce;
    }

    /// The next transfer, signed and encoded.
    pub fn transfer(&mut self, to: Address, value: U256) -> eyre::Result<Bytes> {
        self.sign(TxKind::Call(to), value, Bytes::new(), 21_000)
    }

    /// The next transaction, a call without value.
    pub fn call(&mut self, to: Address, data: impl Into<Bytes>) -> eyre::Result<Bytes> {
        self.sign(TxKind::Call(to), U256::ZERO, data.into(), CONTRACT_GAS)
    }

    /// The next transaction, which makes a contract of its code and its constructor's arguments; and where that will be.
    pub fn create(&mut self, code: &Bytes, arguments: &[u8]) -> eyre::Result<(Address, Bytes)> {
        let contract = self.address().create(self.nonce);
        let input = [code, arguments].concat().into();
        Ok((contract, self.sign(TxKind::Create, U256::ZERO, input, CONTRACT_GAS)?))
    }

    fn sign(&mut self, to: TxKind, value: U256, input: Bytes, gas_limit: u64) -> eyre::Result<Bytes> {
        let tx = TxEip1559 {
            chain_id: self.chain_id,
            nonce: self.nonce,
            gas_limit,
            max_fee_per_gas: 100_000_000_000,
            max_priority_fee_per_gas: 1_000_000_000,
            to,
            value,
            input,
            ..Default::default()
        };
        let signature = self.signer.sign_hash_sync(&tx.signature_hash())?;
        self.nonce += 1;
        Ok(TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into())
    }
}

/// Sends an EVM transaction through a rollup's JSON-RPC.
pub async fn submit_evm(client: &Client, url: &str, rollup: RollupId, raw: &Bytes) -> Sent {
    let key = TxKey::of(rollup, raw);
    match client.json_rpc(url, "eth_sendRawTransaction", json!([raw])).await {
        Ok(hash) if hash == json!(key.hash) => Sent::Accepted(key),
        Ok(other) => Sent::Unclear(key, format!("answered {other}")),
        Err(error) => Sent::Unclear(key, error.to_string()),
    }
}

/// Sends payloads through gRPC.
pub async fn submit_raw(grpc: &str, rollup: RollupId, payloads: Vec<Bytes>) -> eyre::Result<Vec<Sent>> {
    let keys: Vec<TxKey> = payloads.iter().map(|p| TxKey::of(rollup, p)).collect();
    let transactions = payloads.into_iter().map(|p| p.0).collect();
    let mut client = SequencerServiceClient::new(Client::channel(grpc)?);
    let answer = client.submit(SubmitRequest { rollup_id: rollup.0, transactions }).await;
    let results = match answer {
        Ok(answer) => answer.into_inner().results,
        Err(status) => return Ok(keys.into_iter().map(|key| Sent::Unclear(key, status.to_string())).collect()),
    };
    eyre::ensure!(results.len() == keys.len(), "{} answers for {} payloads", results.len(), keys.len());
    Ok(keys
        .into_iter()
        .zip(results)
        .map(|(key, result)| match result.result {
            Some(Answer::Hash(hash)) if hash == key.hash.as_slice() => Sent::Accepted(key),
            other => Sent::Unclear(key, format!("{other:?}")),
        })
        .collect())
}

/// A payload that no other call of this function gives.
pub fn raw_payload(tag: u64, index: u64, len: usize) -> Bytes {
    let mut payload = vec![0x5a; len.max(16)];
    payload[..8].copy_from_slice(&tag.to_be_bytes());
    payload[8..16].copy_from_slice(&index.to_be_bytes());
    payload.into()
}

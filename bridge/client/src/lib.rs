//! For those who use the bridge: builds, signs, submits and follows transfers between rollups and atomic bundles, over a node's gRPC.
//!
//! Nothing here is needed to use it: a wallet can build every call alone (`docs/integrate.md`). The node is not trusted with keys; what it
//! says of accounts and bundles is not verified here.

mod bundle;
mod error;
mod transfer;
mod wallet;

pub use bundle::{BundleDraft, submit_request};
pub use error::{ClientError, Sent};
pub use switchyard_bridge_contracts::{Prepare, Swap, bundle::assemble};
pub use switchyard_bridge_core::{Call as Participant, Leg, Move, MoveKind, SignedBundle, SignedLeg};
pub use transfer::Transfer;
pub use wallet::{Account, Call, Tx, sign};

use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::{Address, B256, U256};
use switchyard_primitives::{Bytes, RollupId, TxHash, keccak256};
use switchyard_proto::{ConvertError, fixed, hash, to_bytes, v1};
use tonic::transport::Channel;
use v1::{
    bridge_service_client::BridgeServiceClient, sequencer_service_client::SequencerServiceClient,
    status_service_client::StatusServiceClient, transaction_status::Outcome,
};

/// How long an execution is waited for, milliseconds.
const EXECUTED_TIMEOUT_MS: u32 = 60_000;

/// A node's gRPC services for the bridge. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// `BridgeService`, for what has no method here.
    pub bridge: BridgeServiceClient<Channel>,
    /// `SequencerService`, likewise.
    pub sequencer: SequencerServiceClient<Channel>,
    /// `StatusService`, likewise.
    pub status: StatusServiceClient<Channel>,
}

impl Client {
    /// Connects to a node's gRPC endpoint, such as `http://127.0.0.1:9000`.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { url: url.to_owned(), source };
        let endpoint = Channel::from_shared(url.to_owned().into_bytes());
        let endpoint = endpoint.map_err(|_| tonic::Status::invalid_argument(format!("{url} is no URL")))?;
        Ok(Self::over(endpoint.connect().await.map_err(failed)?))
    }

    /// The services over a connection.
    pub fn over(channel: Channel) -> Self {
        Self {
            bridge: BridgeServiceClient::new(channel.clone()),
            sequencer: SequencerServiceClient::new(channel.clone()),
            status: StatusServiceClient::new(channel),
        }
    }

    /// Height of the hub's newest final block, as far as the node knows: bundles' deadlines are above it.
    pub async fn height(&mut self) -> Result<u64, ClientError> {
        let tip = self.status.get_status(v1::GetStatusRequest {}).await?.into_inner().tip;
        Ok(tip.ok_or(ConvertError::Missing { field: "tip" })?.height)
    }

    /// What is needed to sign a transaction of an account.
    pub async fn account(&mut self, rollup: RollupId, address: Address) -> Result<Account, ClientError> {
        let request = v1::GetAccountRequest { rollup_id: rollup.0, address: to_bytes(address) };
        let v1::GetAccountResponse { chain_id, nonce, balance, base_fee } =
            self.bridge.get_account(request).await?.into_inner();
        let balance = U256::from_be_bytes(fixed::<32>("balance", &balance)?);
        Ok(Account { chain_id, nonce, balance, base_fee })
    }

    /// Submits one signed transaction. [`ClientError::Unsure`] where it may have been taken all the same.
    pub async fn submit(&mut self, rollup: RollupId, transaction: Bytes) -> Result<TxHash, ClientError> {
        let sent = Sent::Transaction { rollup, hash: keccak256(&transaction) };
        self.offer(rollup, transaction).await.map_err(|error| error.of(sent))
    }

    async fn offer(&mut self, rollup: RollupId, transaction: Bytes) -> Result<TxHash, ClientError> {
        let request = v1::SubmitRequest { rollup_id: rollup.0, transactions: vec![transaction.0] };
        let result = self.sequencer.submit(request).await?.into_inner().results.pop().and_then(|r| r.result);
        match result.ok_or(ConvertError::Missing { field: "results.result" })? {
            v1::submit_result::Result::Hash(bytes) => Ok(hash("results.hash", &bytes)?),
            v1::submit_result::Result::Rejection(v1::Rejection { code, message, .. }) => {
                Err(ClientError::Refused { code, message })
            }
        }
    }

    /// Waits until a transaction is executed; an error if it reverted, and [`ClientError::Unsure`] if that is not told in time.
    pub async fn executed(&mut self, rollup: RollupId, sent: TxHash) -> Result<(), ClientError> {
        match self.outcome(rollup, sent).await {
            Ok(Outcome::Executed(v1::Executed { success: true, .. })) => Ok(()),
            Ok(Outcome::Executed(_)) => Err(ClientError::Reverted(sent)),
            Ok(Outcome::Skipped(v1::Skipped { reason })) => Err(ClientError::Skipped { hash: sent, reason }),
            Err(error) => {
                let sent = Sent::Transaction { rollup, hash: sent };
                Err(ClientError::Unsure { sent, source: Box::new(error) })
            }
        }
    }

    async fn outcome(&mut self, rollup: RollupId, sent: TxHash) -> Result<Outcome, ClientError> {
        let request = v1::WatchTransactionRequest {
            rollup_id: rollup.0,
            hash: to_bytes(sent),
            until: v1::Level::Unspecified.into(),
            until_outcome: true,
            timeout_ms: EXECUTED_TIMEOUT_MS,
        };
        let mut changes = self.sequencer.watch_transaction(request).await?.into_inner();
        let mut outcome = None;
        while let Some(change) = changes.message().await? {
            outcome = change.status.and_then(|status| status.outcome).or(outcome);
        }
        outcome.ok_or(ClientError::Ended(sent))
    }

    /// Signs a call with its account's next nonce, sends it and waits until it is executed.
    pub async fn call(&mut self, signer: &PrivateKeySigner, call: Call) -> Result<TxHash, ClientError> {
        let rollup = call.rollup;
        let account = self.account(rollup, signer.address()).await?;
        let (_, raw) = sign(signer, &account, Tx::Call(call))?;
        let sent = self.submit(rollup, raw).await?;
        self.executed(rollup, sent).await?;
        Ok(sent)
    }

    /// The ids of the messages that an executed transaction has sent, in order.
    pub async fn sent(&mut self, rollup: RollupId, transaction: TxHash) -> Result<Vec<B256>, ClientError> {
        let request = v1::GetSentRequest { rollup_id: rollup.0, transaction: to_bytes(transaction) };
        let ids = self.bridge.get_sent(request).await?.into_inner().ids;
        Ok(ids.iter().map(|id| hash("ids", id)).collect::<Result<_, _>>()?)
    }

    /// A message by its id, and where it is.
    pub async fn message(&mut self, id: B256) -> Result<v1::GetMessageResponse, ClientError> {
        Ok(self.bridge.get_message(v1::GetMessageRequest { id: to_bytes(id) }).await?.into_inner())
    }

    /// A message that was sent just now, and where it is; none until its rollup's block is closed, which may take a second.
    pub async fn new_message(&mut self, id: B256) -> Result<Option<v1::GetMessageResponse>, ClientError> {
        match self.message(id).await {
            Err(error) if error.code() == "unknown_message" => Ok(None),
            found => found.map(Some),
        }
    }

    /// Sends what anyone may send, in this order, and waits for each.
    pub async fn send_all(&mut self, signer: &PrivateKeySigner, calls: Vec<v1::Call>) -> Result<(), ClientError> {
        for v1::Call { rollup_id, to, data, gas } in calls {
            let to = fixed::<20>("calls.to", &to)?.into();
            let call = Call { rollup: RollupId(rollup_id), to, value: U256::ZERO, data: data.into(), gas };
            self.call(signer, call).await?;
        }
        Ok(())
    }

    /// Submits a bundle; returns its id once a quorum of validators holds it. [`ClientError::Unsure`] where it may have been taken all
    /// the same.
    pub async fn submit_bundle(&mut self, bundle: &SignedBundle) -> Result<B256, ClientError> {
        self.offer_bundle(bundle).await.map_err(|error| error.of(Sent::Bundle(bundle.id())))
    }

    async fn offer_bundle(&mut self, bundle: &SignedBundle) -> Result<B256, ClientError> {
        let answer = self.bridge.submit_bundle(submit_request(bundle)).await?.into_inner();
        match answer.result.ok_or(ConvertError::Missing { field: "result" })? {
            v1::submit_bundle_response::Result::Id(id) => Ok(hash("id", &id)?),
            v1::submit_bundle_response::Result::Refusal(v1::Rejection { code, message, .. }) => {
                Err(ClientError::Refused { code, message })
            }
        }
    }

    /// A bundle by its id, and where it is.
    pub async fn bundle(&mut self, id: B256) -> Result<v1::Bundle, ClientError> {
        let bundle = self.bridge.get_bundle(v1::GetBundleRequest { id: to_bytes(id) }).await?.into_inner().bundle;
        Ok(bundle.ok_or(ConvertError::Missing { field: "bundle" })?)
    }

    /// Follows a bundle until it is decided, or carried out on every rollup that the node runs; tells each change, and returns the last.
    /// [`ClientError::Unsure`] if that is not told in time.
    pub async fn follow_bundle(
        &mut self,
        id: B256,
        until_settled: bool,
        timeout_ms: u32,
        changed: impl FnMut(&v1::Bundle),
    ) -> Result<v1::Bundle, ClientError> {
        let last = self.changes(id, until_settled, timeout_ms, changed).await;
        last.map_err(|error| ClientError::Unsure { sent: Sent::Bundle(id), source: Box::new(error) })
    }

    async fn changes(
        &mut self,
        id: B256,
        until_settled: bool,
        timeout_ms: u32,
        mut changed: impl FnMut(&v1::Bundle),
    ) -> Result<v1::Bundle, ClientError> {
        let request = v1::WatchBundleRequest { id: to_bytes(id), until_settled, timeout_ms };
        let mut changes = self.bridge.watch_bundle(request).await?.into_inner();
        let mut last = None;
        while let Some(v1::WatchBundleResponse { bundle }) = changes.message().await? {
            let bundle = bundle.ok_or(ConvertError::Missing { field: "bundle" })?;
            changed(&bundle);
            last = Some(bundle);
        }
        last.ok_or(ClientError::Ended(id))
    }

    /// The calls that carry out what was decided on a bundle: anyone may send them ([`Self::send_all`]).
    pub async fn settlement(&mut self, id: B256) -> Result<Vec<v1::Call>, ClientError> {
        let request = v1::GetSettlementRequest { id: to_bytes(id) };
        Ok(self.bridge.get_settlement(request).await?.into_inner().calls)
    }
}

#[cfg(test)]
mod tests;

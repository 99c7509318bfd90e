//! Outcomes and heads of a rollup that the node runs.

use super::Server;
use crate::fake::{FakeHub, UNKNOWN};
use alloy::{
    consensus::Header,
    rpc::types::{EIP1186AccountProofResponse, TransactionRequest, state::StateOverride},
};
use alloy_primitives::{Address, B256, Bytes, U256};
use std::sync::Arc;
use switchyard_primitives::{Level, RollupId, TxKey};
use switchyard_proto::v1::{self, transaction_status::Outcome};
use switchyard_rollup_core::{
    TxOutcome,
    evm::{Attestable, EvmAccount, EvmChain, EvmError, ExecutedBlock, PendingBlock, SentMessage},
};
use switchyard_rpc::TxStatus;
use tokio::sync::{broadcast, watch};

/// A chain of which only the head is of interest.
struct Head {
    block: Arc<ExecutedBlock>,
    blocks: broadcast::Sender<Arc<ExecutedBlock>>,
    open: watch::Sender<()>,
}

const NO_STATE: EvmError = EvmError::NoState(0);

impl EvmChain for Head {
    fn chain_id(&self) -> u64 {
        4242
    }
    fn head(&self) -> Arc<ExecutedBlock> {
        self.block.clone()
    }
    fn number_at(&self, level: Level) -> u64 {
        if level == Level::Attested { 3 } else { 0 }
    }
    fn set_attested(&self, _: u64) {}
    fn attested(&self) -> u64 {
        3
    }
    fn checkpoint(&self, _: u64) -> Result<Option<Attestable>, EvmError> {
        Err(NO_STATE)
    }
    fn outbox_count(&self) -> u64 {
        0
    }
    fn sent(&self, _: u64) -> Result<Option<SentMessage>, EvmError> {
        Err(NO_STATE)
    }
    fn sent_by_id(&self, _: B256) -> Result<Option<SentMessage>, EvmError> {
        Err(NO_STATE)
    }
    fn outbox_path(&self, _: u64, _: u64) -> Result<Option<Vec<B256>>, EvmError> {
        Err(NO_STATE)
    }
    fn write_snapshot(&self, _: &mut dyn std::io::Write) -> Result<(), EvmError> {
        Err(EvmError::Busy("no state".into()))
    }

    fn next_base_fee(&self) -> u64 {
        7
    }
    fn block_by_number(&self, _: u64) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        Err(NO_STATE)
    }
    fn block_by_hash(&self, _: B256) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        Err(NO_STATE)
    }
    fn header(&self, _: u64) -> Result<Option<Header>, EvmError> {
        Err(NO_STATE)
    }
    fn locate(&self, _: B256) -> Result<Option<(u64, usize)>, EvmError> {
        Err(NO_STATE)
    }
    fn outcome(&self, _: B256) -> Result<Option<TxOutcome>, EvmError> {
        Err(NO_STATE)
    }
    fn pending(&self) -> Option<Arc<PendingBlock>> {
        None
    }
    fn pending_outcome(&self, _: B256) -> Option<TxOutcome> {
        None
    }
    fn account(&self, _: u64, _: Address) -> Result<Option<EvmAccount>, EvmError> {
        Err(NO_STATE)
    }
    fn storage(&self, _: u64, _: Address, _: B256) -> Result<U256, EvmError> {
        Err(NO_STATE)
    }
    fn code(&self, _: u64, _: Address) -> Result<Bytes, EvmError> {
        Err(NO_STATE)
    }
    fn proof(&self, _: u64, _: Address, _: &[B256]) -> Result<EIP1186AccountProofResponse, EvmError> {
        Err(NO_STATE)
    }
    fn call(&self, _: u64, _: TransactionRequest, _: Option<StateOverride>) -> Result<Bytes, EvmError> {
        Err(NO_STATE)
    }
    fn estimate_gas(&self, _: u64, _: TransactionRequest, _: Option<StateOverride>) -> Result<u64, EvmError> {
        Err(NO_STATE)
    }
    fn subscribe(&self) -> broadcast::Receiver<Arc<ExecutedBlock>> {
        self.blocks.subscribe()
    }
    fn watch_head(&self) -> watch::Receiver<u64> {
        watch::Sender::new(5).subscribe()
    }
    fn subscribe_pending(&self) -> watch::Receiver<()> {
        self.open.subscribe()
    }
}

fn run(hub: &FakeHub) -> Arc<Head> {
    let block = ExecutedBlock {
        header: Header { number: 5, ..Header::default() },
        hash: B256::repeat_byte(8),
        hub_height: 40,
        transactions: vec![],
        senders: vec![],
        receipts: vec![],
        withdrawals: vec![],
    };
    let chain =
        Arc::new(Head { block: Arc::new(block), blocks: broadcast::channel(1).0, open: watch::Sender::new(()) });
    *hub.evm.lock().unwrap() = Some(chain.clone());
    chain
}

#[tokio::test]
async fn a_watch_waits_for_the_outcome_when_asked_to() {
    let hub = FakeHub::new();
    let chain = run(&hub);
    let server = Server::start(&hub).await;
    let key = TxKey::of(RollupId(7), b"tx");
    let included = TxStatus { level: Some(Level::Final), included: Some((1, 0)), ..UNKNOWN };
    hub.set_status(key, included.clone());
    let request = v1::WatchTransactionRequest {
        rollup_id: 7,
        hash: key.hash.to_vec().into(),
        until_outcome: true,
        timeout_ms: 600_000,
        ..Default::default()
    };
    let mut changes = server.sequencer().await.watch_transaction(request).await.unwrap().into_inner();
    let status = changes.message().await.unwrap().unwrap().status.unwrap();
    assert_eq!((status.level(), status.outcome), (v1::Level::Final, None));

    let outcome = TxOutcome::Executed { block: 6, index: 0, success: true };
    hub.set_status(key, TxStatus { outcome: Some(outcome), ..included });
    let _ = chain.blocks.send(chain.head());
    let status = changes.message().await.unwrap().unwrap().status.unwrap();
    assert_eq!(status.outcome, Some(Outcome::Executed(v1::Executed { block: 6, index: 0, success: true })));
    assert!(changes.message().await.unwrap().is_none());
}

#[tokio::test]
async fn the_nodes_status_tells_the_heads_of_the_rollups_it_runs() {
    let hub = FakeHub::new();
    run(&hub);
    let server = Server::start(&hub).await;
    let status = server.status().await.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
    let expected = v1::RollupHead {
        rollup_id: 7,
        name: "rollup-7".to_owned(),
        chain_id: 4242,
        number: 5,
        hash: vec![8; 32].into(),
        hub_height: 40,
        safe_number: 3,
        finalized_number: 0,
    };
    assert_eq!(status.rollups, [expected]);
    let info = server.blocks().await.get_info(v1::GetInfoRequest::default()).await.unwrap().into_inner();
    assert_eq!(info.rollups.iter().map(|r| r.executed_here).collect::<Vec<_>>(), [true, false]);
}

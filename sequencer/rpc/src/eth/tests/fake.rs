//! A small chain of hand-made blocks in memory, and a node around it.

use crate::{BlockAt, EpochAt, Gateway, GatewayError, HubTip, NetworkInfo, SegmentAt, TxStatus};
use alloy::{
    consensus::{
        EMPTY_OMMER_ROOT_HASH, Eip658Value, Header, Receipt, ReceiptEnvelope, SignableTransaction, TxEip1559,
        TxEip2930, TxEip7702, TxEnvelope, TxLegacy, TxReceipt,
        proofs::{calculate_receipt_root, calculate_transaction_root, calculate_withdrawals_root},
        transaction::SignerRecoverable,
    },
    eips::{
        eip2718::{Decodable2718, Encodable2718},
        eip4895::Withdrawal,
        eip7685::EMPTY_REQUESTS_HASH,
        eip7702::Authorization,
    },
    rpc::types::{EIP1186AccountProofResponse, EIP1186StorageProof, TransactionRequest, state::StateOverride},
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, B256, Bloom, Bytes, Log, TxKind, U256, address, keccak256};
use futures::future::BoxFuture;
use parking_lot::{Condvar, Mutex, RwLock};
use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use switchyard_bridge_core::SystemState;
use switchyard_consensus_core::{EpochRules, HubState, stake::Registration};
use switchyard_primitives::{FinalityProof, Level, Limits, RollupId, TxHash, TxKey};
use switchyard_rollup_core::{
    Rejection, TxOutcome,
    evm::{Attestable, EvmAccount, EvmChain, EvmError, ExecutedBlock, PendingBlock, PendingTransaction, SentMessage},
};
use tokio::sync::{broadcast, watch};

pub(super) const ROLLUP: RollupId = RollupId(7);
pub(super) const CHAIN_ID: u64 = 70_007;
pub(super) const BASE_FEE: u64 = 1_000_000_000;
pub(super) const GAS_LIMIT: u64 = 30_000_000;
/// A contract whose calls revert with the call's own data.
pub(super) const REVERTER: Address = address!("0x00000000000000000000000000000000000000fe");
/// A contract whose calls run until the test calls [`FakeChain::let_go`].
pub(super) const SLOW: Address = address!("0x00000000000000000000000000000000000000fd");

/// The account that signs all transactions of the fake chain.
pub(super) fn signer() -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(0x42)).unwrap()
}

/// A transaction and what executing it did.
#[derive(Clone)]
pub(super) struct Tx {
    pub(super) envelope: TxEnvelope,
    pub(super) gas_used: u64,
    pub(super) success: bool,
    pub(super) logs: Vec<Log>,
}

fn sign<T: SignableTransaction<alloy::primitives::Signature>>(tx: T) -> TxEnvelope
where
    TxEnvelope: From<alloy::consensus::Signed<T>>,
{
    let signature = signer().sign_hash_sync(&tx.signature_hash()).unwrap();
    tx.into_signed(signature).into()
}

fn done(envelope: TxEnvelope) -> Tx {
    Tx { envelope, gas_used: 21_000, success: true, logs: Vec::new() }
}

/// A transfer that offers `tip` wei per gas.
pub(super) fn transfer(nonce: u64, tip: u128) -> Tx {
    done(sign(TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 10 * u128::from(BASE_FEE),
        max_priority_fee_per_gas: tip,
        to: TxKind::Call(Address::repeat_byte(0xaa)),
        value: U256::from(1),
        ..Default::default()
    }))
}

pub(super) fn legacy(nonce: u64) -> Tx {
    done(sign(TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce,
        gas_price: 2 * u128::from(BASE_FEE),
        gas_limit: 100_000,
        to: TxKind::Create,
        input: Bytes::from_static(&[0x60, 0x00]),
        ..Default::default()
    }))
}

pub(super) fn access_list(nonce: u64) -> Tx {
    done(sign(TxEip2930 {
        chain_id: CHAIN_ID,
        nonce,
        gas_price: 2 * u128::from(BASE_FEE),
        gas_limit: 100_000,
        to: TxKind::Call(Address::repeat_byte(0xbb)),
        ..Default::default()
    }))
}

pub(super) fn set_code(nonce: u64) -> Tx {
    let authorization = Authorization { chain_id: U256::from(CHAIN_ID), address: REVERTER, nonce: nonce + 1 };
    let signature = signer().sign_hash_sync(&authorization.signature_hash()).unwrap();
    done(sign(TxEip7702 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 10 * u128::from(BASE_FEE),
        max_priority_fee_per_gas: 1,
        to: Address::repeat_byte(0xcc),
        authorization_list: vec![authorization.into_signed(signature)],
        ..Default::default()
    }))
}

impl Tx {
    pub(super) fn with_logs(mut self, logs: Vec<Log>) -> Self {
        self.logs = logs;
        self
    }

    pub(super) fn failed(mut self) -> Self {
        self.success = false;
        self
    }

    pub(super) fn hash(&self) -> B256 {
        *self.envelope.tx_hash()
    }

    pub(super) fn raw(&self) -> Bytes {
        self.envelope.encoded_2718().into()
    }

    fn receipt(&self, cumulative_gas_used: u64) -> ReceiptEnvelope {
        let status = Eip658Value::Eip658(self.success);
        ReceiptEnvelope::from_typed(
            self.envelope.tx_type(),
            Receipt { status, cumulative_gas_used, logs: self.logs.clone() },
        )
    }
}

/// What each block after genesis brings.
fn withdrawals(number: u64) -> Vec<Withdrawal> {
    let address = Address::repeat_byte(0xdd);
    let first = number.checked_sub(1);
    first.map(|index| Withdrawal { index, validator_index: 0, address, amount: number }).into_iter().collect()
}

/// A block on `parent`.
pub(super) fn block(parent: Option<&ExecutedBlock>, txs: &[Tx]) -> ExecutedBlock {
    let mut gas_used = 0;
    let receipts: Vec<_> = txs
        .iter()
        .map(|tx| {
            gas_used += tx.gas_used;
            tx.receipt(gas_used)
        })
        .collect();
    let transactions: Vec<_> = txs.iter().map(|tx| tx.envelope.clone()).collect();
    let number = parent.map_or(0, |p| p.header.number + 1);
    let withdrawals = withdrawals(number);
    let header = Header {
        parent_hash: parent.map_or(B256::ZERO, |p| p.hash),
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        number,
        timestamp: 1_700_000_000 + number,
        gas_limit: GAS_LIMIT,
        gas_used,
        base_fee_per_gas: Some(BASE_FEE + number),
        logs_bloom: receipts.iter().fold(Bloom::ZERO, |bloom, r| bloom | r.bloom()),
        transactions_root: calculate_transaction_root(&transactions),
        receipts_root: calculate_receipt_root(&receipts),
        withdrawals_root: Some(calculate_withdrawals_root(&withdrawals)),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Default::default()
    };
    let senders = transactions.iter().map(|tx| tx.recover_signer().unwrap()).collect();
    let (hash, hub_height) = (header.hash_slow(), number * 2);
    ExecutedBlock { hash, header, hub_height, transactions, senders, receipts, withdrawals }
}

/// A chain whose state is the same after every block.
pub(super) struct FakeChain {
    blocks: RwLock<Vec<Arc<ExecutedBlock>>>,
    announce: broadcast::Sender<Arc<ExecutedBlock>>,
    open: RwLock<Option<Arc<PendingBlock>>>,
    announce_open: watch::Sender<()>,
    estimated_at: AtomicU64,
    /// Accounts in the open block's state.
    pub(super) open_accounts: RwLock<HashMap<Address, EvmAccount>>,
    pub(super) accounts: RwLock<HashMap<Address, EvmAccount>>,
    pub(super) storage: RwLock<HashMap<(Address, B256), U256>>,
    pub(super) levels: RwLock<HashMap<Level, u64>>,
    pub(super) outcomes: RwLock<HashMap<B256, TxOutcome>>,
    let_go: (Mutex<bool>, Condvar),
    /// A transaction that gets into a block right after one was looked for.
    pub(super) after_locate: Mutex<Option<Tx>>,
    /// Base fee of the next block, less the newest block's.
    pub(super) base_fee_step: RwLock<i64>,
    /// The blocks on whose states reads and calls were made.
    pub(super) asked: Mutex<Vec<u64>>,
    /// Number of calls to [`SLOW`] that have begun.
    pub(super) slow_calls: watch::Sender<usize>,
}

impl FakeChain {
    pub(super) fn new() -> Self {
        Self {
            blocks: RwLock::new(vec![Arc::new(block(None, &[]))]),
            announce: broadcast::channel(4).0,
            open: RwLock::default(),
            announce_open: watch::Sender::new(()),
            estimated_at: AtomicU64::new(0),
            open_accounts: RwLock::default(),
            accounts: RwLock::default(),
            storage: RwLock::default(),
            levels: RwLock::default(),
            outcomes: RwLock::default(),
            let_go: Default::default(),
            after_locate: Mutex::default(),
            base_fee_step: RwLock::new(1),
            asked: Mutex::default(),
            slow_calls: watch::channel(0).0,
        }
    }

    /// Makes these the open block's transactions, and announces it.
    pub(super) fn open(&self, txs: &[Tx]) -> Arc<PendingBlock> {
        let ExecutedBlock { header, transactions, senders, receipts, .. } = block(Some(&self.head()), txs);
        let (mut gas_before, mut logs_before) = (0, 0);
        let done = transactions.into_iter().zip(senders).zip(receipts).map(|((transaction, sender), receipt)| {
            let (gas_used, first_log) = (receipt.cumulative_gas_used() - gas_before, logs_before);
            gas_before += gas_used;
            logs_before += receipt.logs().len();
            Arc::new(PendingTransaction { transaction, sender, receipt, gas_used, first_log })
        });
        let open = Arc::new(PendingBlock { header, transactions: done.collect() });
        *self.open.write() = Some(open.clone());
        self.announce_open.send_replace(());
        open
    }

    /// The block on whose state gas was estimated last.
    pub(super) fn estimated_at(&self) -> u64 {
        self.estimated_at.load(Ordering::SeqCst)
    }

    fn is_open(&self, number: u64) -> bool {
        self.open.read().as_ref().is_some_and(|open| open.header.number == number)
    }

    /// Appends a block, announces it, and has no open block any more.
    pub(super) fn extend(&self, txs: &[Tx]) -> Arc<ExecutedBlock> {
        let sealed = Arc::new(block(Some(&self.head()), txs));
        *self.open.write() = None;
        self.blocks.write().push(sealed.clone());
        let _ = self.announce.send(sealed.clone());
        sealed
    }

    /// Ends the calls to [`SLOW`].
    pub(super) fn let_go(&self) {
        *self.let_go.0.lock() = true;
        self.let_go.1.notify_all();
    }

    fn check(&self, number: u64) -> Result<(), EvmError> {
        self.asked.lock().push(number);
        if number > self.head().header.number && !self.is_open(number) {
            Err(EvmError::NoState(number))
        } else {
            Ok(())
        }
    }
}

impl EvmChain for FakeChain {
    fn chain_id(&self) -> u64 {
        CHAIN_ID
    }

    fn head(&self) -> Arc<ExecutedBlock> {
        self.blocks.read().last().unwrap().clone()
    }

    fn number_at(&self, level: Level) -> u64 {
        match level {
            Level::Attested => self.attested(),
            _ => self.levels.read().get(&level).copied().unwrap_or_default(),
        }
    }

    fn set_attested(&self, number: u64) {
        let mut levels = self.levels.write();
        let attested = levels.entry(Level::Attested).or_default();
        *attested = number.max(*attested);
    }

    fn attested(&self) -> u64 {
        let attested = self.levels.read().get(&Level::Attested).copied().unwrap_or_default();
        attested.min(self.head().header.number)
    }

    fn checkpoint(&self, _: u64) -> Result<Option<Attestable>, EvmError> {
        Ok(None)
    }

    fn outbox_count(&self) -> u64 {
        0
    }

    fn sent(&self, _: u64) -> Result<Option<SentMessage>, EvmError> {
        Ok(None)
    }

    fn sent_by_id(&self, _: B256) -> Result<Option<SentMessage>, EvmError> {
        Ok(None)
    }

    fn outbox_path(&self, _: u64, _: u64) -> Result<Option<Vec<B256>>, EvmError> {
        Ok(None)
    }

    fn write_snapshot(&self, _: &mut dyn std::io::Write) -> Result<(), EvmError> {
        Err(EvmError::Busy("no state".into()))
    }

    fn next_base_fee(&self) -> u64 {
        self.head().header.base_fee_per_gas.unwrap().checked_add_signed(*self.base_fee_step.read()).unwrap()
    }

    fn block_by_number(&self, number: u64) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        Ok(self.blocks.read().get(usize::try_from(number).unwrap_or(usize::MAX)).cloned())
    }

    fn block_by_hash(&self, hash: B256) -> Result<Option<Arc<ExecutedBlock>>, EvmError> {
        Ok(self.blocks.read().iter().find(|b| b.hash == hash).cloned())
    }

    fn header(&self, number: u64) -> Result<Option<Header>, EvmError> {
        Ok(self.block_by_number(number)?.map(|b| b.header.clone()))
    }

    fn locate(&self, tx: B256) -> Result<Option<(u64, usize)>, EvmError> {
        let position = |b: &Arc<ExecutedBlock>| b.transactions.iter().position(|t| *t.tx_hash() == tx);
        let found = self.blocks.read().iter().find_map(|b| position(b).map(|i| (b.header.number, i)));
        let found = found.or_else(|| match self.pending_outcome(tx)? {
            TxOutcome::Executed { block, index, .. } => Some((block, index as usize)),
            TxOutcome::Skipped { .. } => None,
        });
        if let Some(tx) = self.after_locate.lock().take() {
            self.extend(&[tx]);
        }
        Ok(found)
    }

    fn outcome(&self, tx: B256) -> Result<Option<TxOutcome>, EvmError> {
        Ok(self.outcomes.read().get(&tx).cloned())
    }

    fn pending(&self) -> Option<Arc<PendingBlock>> {
        self.open.read().clone()
    }

    fn pending_outcome(&self, tx: B256) -> Option<TxOutcome> {
        let open = self.open.read().clone()?;
        let index = open.transactions.iter().position(|t| *t.transaction.tx_hash() == tx)?;
        let success = open.transactions[index].receipt.status();
        Some(TxOutcome::Executed { block: open.header.number, index: u32::try_from(index).unwrap(), success })
    }

    fn account(&self, number: u64, address: Address) -> Result<Option<EvmAccount>, EvmError> {
        self.check(number)?;
        let accounts = if self.is_open(number) { &self.open_accounts } else { &self.accounts };
        Ok(accounts.read().get(&address).copied())
    }

    fn storage(&self, number: u64, address: Address, slot: B256) -> Result<U256, EvmError> {
        self.check(number)?;
        Ok(self.storage.read().get(&(address, slot)).copied().unwrap_or_default())
    }

    fn code(&self, number: u64, address: Address) -> Result<Bytes, EvmError> {
        self.check(number)?;
        Ok(if address == REVERTER { Bytes::from_static(&[0xfd]) } else { Bytes::new() })
    }

    fn proof(&self, number: u64, address: Address, slots: &[B256]) -> Result<EIP1186AccountProofResponse, EvmError> {
        let storage_proof = slots
            .iter()
            .map(|slot| {
                let value = self.storage(number, address, *slot)?;
                Ok(EIP1186StorageProof { key: (*slot).into(), value, proof: vec![Bytes::from_static(&[1])] })
            })
            .collect::<Result<_, EvmError>>()?;
        Ok(EIP1186AccountProofResponse { address, storage_proof, ..Default::default() })
    }

    fn call(&self, number: u64, request: TransactionRequest, state: Option<StateOverride>) -> Result<Bytes, EvmError> {
        self.check(number)?;
        let input = request.input.input().cloned().unwrap_or_default();
        match request.to.and_then(|to| to.into_to()) {
            Some(REVERTER) => Err(EvmError::Revert(input)),
            Some(SLOW) => {
                self.slow_calls.send_modify(|n| *n += 1);
                let (free, changed) = &self.let_go;
                changed.wait_while(&mut free.lock(), |free| !*free);
                Ok(Bytes::new())
            }
            // What an override says about an account is seen by the call.
            Some(to) if state.as_ref().is_some_and(|s| s.contains_key(&to)) => {
                Ok(state.unwrap()[&to].code.clone().unwrap_or_default())
            }
            Some(_) => Ok(input),
            None => Err(EvmError::Halt("invalid opcode: INVALID".into())),
        }
    }

    fn estimate_gas(
        &self,
        number: u64,
        request: TransactionRequest,
        state: Option<StateOverride>,
    ) -> Result<u64, EvmError> {
        self.estimated_at.store(number, Ordering::SeqCst);
        if request.value > Some(U256::from(1_000_000)) {
            return Err(EvmError::InvalidCall("insufficient funds for transfer".into()));
        }
        self.call(number, request, state).map(|output| 21_000 + output.len() as u64)
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<ExecutedBlock>> {
        self.announce.subscribe()
    }

    fn watch_head(&self) -> watch::Receiver<u64> {
        watch::Sender::new(self.head().header.number).subscribe()
    }

    fn subscribe_pending(&self) -> watch::Receiver<()> {
        self.announce_open.subscribe()
    }
}

/// A node with one rollup. What is submitted waits until the test puts it in a block.
pub(super) struct FakeNode {
    pub(super) chain: Arc<FakeChain>,
    info: NetworkInfo,
    tip: watch::Sender<HubTip>,
    pub(super) waiting: RwLock<HashMap<TxKey, Bytes>>,
    pub(super) waiting_nonce: RwLock<Option<u64>>,
    pub(super) segments: RwLock<HashMap<u64, Vec<Bytes>>>,
    pub(super) refuse: RwLock<Option<Rejection>>,
    pub(super) accepted: broadcast::Sender<TxHash>,
}

/// Four validators for ever.
fn hub_state() -> Arc<SystemState> {
    let validator = |n: u8| {
        let key = blst::min_pk::SecretKey::key_gen(&[n; 32], &[]).unwrap();
        let bls = key.sk_to_pk().compress().into();
        (B256::repeat_byte(n), Registration { bls, stake: 1, address: None, serial: 0 })
    };
    let rules = EpochRules { blocks: NonZeroU64::MAX, seats_per_validator: 1 };
    let hub = HubState::genesis(B256::ZERO, rules, (1..=4).map(validator)).unwrap();
    Arc::new(SystemState::new(hub, Arc::default()).unwrap())
}

impl FakeNode {
    pub(super) fn new() -> Arc<Self> {
        let info = NetworkInfo {
            name: "test".into(),
            id: B256::ZERO,
            genesis_hash: B256::ZERO,
            rollups: Vec::new(),
            limits: Limits::default(),
            client_version: "switchyard/0.1.0".into(),
            forwards_submissions: false,
        };
        let tip = HubTip { height: 0, hash: B256::ZERO, timestamp_ms: 0 };
        Arc::new(Self {
            chain: Arc::new(FakeChain::new()),
            info,
            tip: watch::channel(tip).0,
            waiting: RwLock::default(),
            waiting_nonce: RwLock::default(),
            segments: RwLock::default(),
            refuse: RwLock::default(),
            accepted: broadcast::channel(4).0,
        })
    }

    fn accept(&self, rollup: RollupId, payload: Bytes) -> Result<TxHash, Rejection> {
        if let Some(rejection) = self.refuse.read().clone() {
            return Err(rejection);
        }
        TxEnvelope::decode_2718_exact(&payload).map_err(|e| Rejection::Malformed(e.to_string()))?;
        let hash = keccak256(&payload);
        self.waiting.write().insert(TxKey { rollup, hash }, payload);
        let _ = self.accepted.send(hash);
        Ok(hash)
    }
}

impl Gateway for FakeNode {
    fn info(&self) -> &NetworkInfo {
        &self.info
    }

    fn submit(&self, rollup: RollupId, payloads: Vec<Bytes>) -> BoxFuture<'_, Vec<Result<TxHash, Rejection>>> {
        Box::pin(async move { payloads.into_iter().map(|p| self.accept(rollup, p)).collect() })
    }

    fn status(&self, key: TxKey) -> Result<TxStatus, GatewayError> {
        let included = self.segments.read().iter().find_map(|(height, txs)| {
            let index = txs.iter().position(|tx| keccak256(tx) == key.hash)?;
            Some((*height, u32::try_from(index).unwrap()))
        });
        let outcome = self.chain.outcomes.read().get(&key.hash).cloned();
        Ok(TxStatus { level: included.map(|_| Level::Final), included, outcome, rejection: None })
    }

    fn tip(&self) -> watch::Receiver<HubTip> {
        self.tip.subscribe()
    }

    fn earliest(&self) -> u64 {
        0
    }

    fn header(&self, _: u64) -> Result<Option<switchyard_primitives::Header>, GatewayError> {
        Ok(None)
    }

    fn segment(&self, rollup: RollupId, height: u64) -> Result<Option<SegmentAt>, GatewayError> {
        let Some(transactions) = self.segments.read().get(&height).cloned() else { return Ok(None) };
        let segment = switchyard_primitives::Segment { rollup, transactions: transactions.clone() };
        let proof = switchyard_primitives::SegmentTable::new(&[segment]).prove(rollup);
        let header = switchyard_primitives::Header::genesis(B256::ZERO, 0, B256::ZERO);
        Ok(Some(SegmentAt { header: switchyard_primitives::Header { height, ..header }, transactions, proof }))
    }

    fn finality(&self, _: u64) -> Result<Option<FinalityProof>, GatewayError> {
        Ok(None)
    }

    fn hub_state_at(&self, _: u64) -> Result<Vec<u8>, GatewayError> {
        Ok(Vec::new())
    }

    fn finality_run(&self, _: u64) -> Result<Option<FinalityProof>, GatewayError> {
        Ok(None)
    }

    fn block(&self, _: u64) -> Result<Option<BlockAt>, GatewayError> {
        Ok(None)
    }

    fn hub_state(&self) -> Arc<SystemState> {
        hub_state()
    }

    fn epoch(&self, _: u64) -> Result<Option<EpochAt>, GatewayError> {
        Ok(None)
    }

    fn pending(&self, key: TxKey) -> Option<Bytes> {
        self.waiting.read().get(&key).cloned()
    }

    fn pending_nonce(&self, _: RollupId, sender: Address) -> Option<u64> {
        self.waiting_nonce.read().filter(|_| sender == signer().address())
    }

    fn subscribe_pending(&self, _: RollupId) -> broadcast::Receiver<TxHash> {
        self.accepted.subscribe()
    }

    fn evm(&self, rollup: RollupId) -> Option<Arc<dyn EvmChain>> {
        (rollup == ROLLUP).then(|| self.chain.clone() as Arc<dyn EvmChain>)
    }

    fn recent_errors(&self) -> Vec<String> {
        Vec::new()
    }
}

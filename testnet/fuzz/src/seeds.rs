//! The seed corpus: what the real encoders make. `corpus/` holds it as files.

use crate::chain::{CHAIN_ID, ROLLUP, rich, rollup_genesis};
use alloy::{
    consensus::{
        Header as EvmHeader, Receipt, ReceiptEnvelope, SignableTransaction, TxEip1559, TxEip2930, TxEnvelope, TxLegacy,
        TypedTransaction,
    },
    eips::Encodable2718,
    signers::{SignerSync, local::PrivateKeySigner},
};
use alloy_primitives::{Address, Bytes as AlloyBytes, FixedBytes, TxKind, U256};
use alloy_rlp::{Encodable, encode};
use prost::Message as _;
use serde_json::{Value, json};
use std::sync::Arc;
use switchyard_bridge_core::{
    Attestation, AttestationConflict, Ballot, BridgeRecord, BundleRecord, Certificate, CertifiedCheckpoint, Challenge,
    Checkpoint, Deposit, Deposits, Evidence, HubLeaf, LegRecord, OperatorChange, OperatorKind, Signed, SignedBundle,
    SignedLeg, Verdict, VerdictWord, Vote, signers_hash,
};
use switchyard_consensus_core::{
    Proposal, Vote as ConsensusVote, VoteConflict, keys,
    keys::bls_public_key,
    record::{Activation, Change, Record, StakeChange, Update, UpdateKind, Upgrade},
};
use switchyard_consensus_guard::{Entry, FORMAT, Family, Interchange, Kind, Mark, Position, fuzz as guard};
use switchyard_node::{
    genesis::{Genesis, GenesisLimits, GenesisValidator},
    ingest::wire::Message,
    keys::keystore::{Keystore, NewKdf},
};
use switchyard_primitives::{
    B256, Block, Bytes, CompactBlock, FinalityCertificate, FinalityProof, Header, RollupId, Segment, SegmentTable,
    SignerBitmap,
};
use switchyard_proto::{ProvenSegment, signer_v1::SignRequest, v1};
use switchyard_rollup_core::{RollupManifest, Sealing, Vm};

/// One file of the seed corpus. Its target accepts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The target's name.
    pub target: &'static str,
    /// The file's name.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// All seeds, the same in every run.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Seeds(Vec::new());
    seeds.values();
    seeds.consensus();
    seeds.disk();
    seeds.operator();
    seeds.chain();
    seeds.0
}

struct Seeds(Vec<Seed>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push(Seed { target, name: name.into(), bytes: bytes.into() });
    }

    fn kind(&mut self, target: &'static str, name: &str, kind: u8, bytes: impl AsRef<[u8]>) {
        self.add(target, name, [&[kind], bytes.as_ref()].concat());
    }

    fn values(&mut self) {
        let (block, empty) = (block(), Block::new(header(), vec![]));
        self.add("header", "genesis", Header::genesis(B256::ZERO, 0, B256::ZERO).encode());
        self.add("header", "block", block.header.encode());
        self.add("header", "protocol_2", Header { protocol: 2, ..block.header }.encode());
        self.add("block", "empty", empty.encode());
        self.add("block", "segments", block.encode());
        self.add("compact_block", "empty", CompactBlock::of(&empty).encode());
        self.add("compact_block", "segments", CompactBlock::of(&block).encode());
        let table = SegmentTable::new(block.segments());
        for (name, rollup) in [("present", 3), ("between", 4), ("before", 1), ("after", 99)] {
            let proof = table.prove(RollupId(rollup));
            self.add("segment_proof", name, proof.encode());
            let transactions = block.transactions(RollupId(rollup)).to_vec();
            let segment = ProvenSegment { header: block.header, transactions, proof };
            self.add("block_segment", name, v1::BlockSegment::from(segment).encode_to_vec());
        }
        self.add("segment_proof", "empty", SegmentTable::new(&[]).prove(ROLLUP).encode());
        let hash = bytes::Bytes::from(vec![7; 32]);
        let submit = v1::SubmitRequest { rollup_id: 7, transactions: vec![hash.clone(), hash.clone()] };
        self.kind("grpc_requests", "submit", 0, submit.encode_to_vec());
        let status = v1::GetTransactionStatusRequest { rollup_id: 7, hash: hash.clone() };
        self.kind("grpc_requests", "status", 2, status.encode_to_vec());
        let watch = v1::WatchTransactionRequest { rollup_id: 7, hash, until: 3, until_outcome: true, timeout_ms: 0 };
        self.kind("grpc_requests", "watch", 3, watch.encode_to_vec());
        let stream = v1::StreamSegmentsRequest { rollup_id: 7, ..Default::default() };
        self.kind("grpc_requests", "stream", 4, stream.encode_to_vec());
    }

    /// Records of the bridge, its state, and what operators say.
    fn bridge(&mut self) {
        let (identity, signature) = (B256::repeat_byte(1), [9; 96]);
        let register = OperatorKind::Register { bls: FixedBytes([2; 48]), possession: FixedBytes([3; 96]) };
        for (name, kind) in [
            ("operator_register", register),
            ("operator_serve", OperatorKind::Serve(vec![RollupId(1), RollupId(8)])),
            ("operator_leave", OperatorKind::Leave),
        ] {
            let change = OperatorChange { identity, serial: 4, kind, signature };
            self.add("system_record", name, BridgeRecord::Operator(change).encode().to_vec());
        }
        let hash = B256::repeat_byte(7);
        let checkpoint = Checkpoint {
            rollup: RollupId(8),
            number: 1,
            hub_height: 2,
            block_hash: hash,
            state_root: hash,
            outbox_root: hash,
            votes_root: B256::ZERO,
        };
        let votes = vec![Vote { bundle: hash, leg: 1, ballot: Ballot::Yes }];
        let entry = CertifiedCheckpoint { checkpoint, votes: votes.clone(), signers: SignerBitmap::new(4, [0, 2, 3]) };
        let certificate = Certificate { entries: vec![entry], signature };
        self.add("system_record", "certificate", BridgeRecord::Certificate(certificate).encode().to_vec());
        let leg = |rollup| LegRecord { rollup: RollupId(rollup), terms: hash, tx: B256::repeat_byte(6) };
        let bundle = BundleRecord { deadline: 9, salt: hash, legs: vec![leg(1), leg(8)] };
        self.add("system_record", "bundle", BridgeRecord::Bundle(bundle).encode().to_vec());
        let (deposits, signers) = (vec![Deposit { recipient: rich().0, gwei: 5 }; 2], SignerBitmap::new(4, [0, 2, 3]));
        let deposits = Deposits { rollup: RollupId(1), epoch: 1, first: 3, deposits, signers, signature };
        self.add("system_record", "deposits", BridgeRecord::Deposits(deposits).encode().to_vec());
        self.disputes(checkpoint);
        let genesis = Genesis { protocol: 3, ..genesis() };
        self.add("hub_state", "protocol_3", genesis.system_state().expect("a genesis").encode());
        self.kind("store_records", "leaf", 3, HubLeaf::Checkpoint(checkpoint).encode());
        let attestations = vec![Attestation { operator: identity, checkpoint, votes, signature }];
        let leg = |rollup, transaction: &'static [u8]| SignedLeg {
            rollup: RollupId(rollup),
            terms: B256::repeat_byte(rollup.to_le_bytes()[0]),
            transaction: transaction.into(),
        };
        let bundle =
            SignedBundle { deadline: 90, salt: B256::repeat_byte(5), legs: vec![leg(1, b"one"), leg(2, b"other")] };
        let bundles = Message::Bundles { id: 9, bundles: vec![Arc::new(bundle)] };
        self.add("gossip_message", "bundles", bundles.encode().to_vec());
        self.add("gossip_message", "attestations", Message::Attestations { id: 0, attestations }.encode().to_vec());
    }

    /// Records that cut stake, and what leads to them.
    fn disputes(&mut self, checkpoint: Checkpoint) {
        let (operator, signature) = (B256::repeat_byte(1), [9; 96]);
        let own = Checkpoint { state_root: B256::repeat_byte(8), ..checkpoint };
        let secret = keys::bls_secret_from_entropy(&[1; 32]).expect("a secret");
        let word = |checkpoint| {
            Attestation::sign(B256::ZERO, operator, checkpoint, vec![], &secret).expect("a secret's signature")
        };
        let conflict = AttestationConflict::new(&word(checkpoint), &word(own)).expect("they differ");
        let vote = |block| {
            let vote = ConsensusVote::Notarize(Proposal { epoch: 1, view: 2, parent_view: 1, block });
            (vote, keys::sign_vote(&secret, &vote.message(B256::ZERO)).expect("a secret's signature"))
        };
        let ((a, by_a), (b, by_b)) = (vote(B256::ZERO), vote(operator));
        let votes = VoteConflict::new(operator, (a, &by_a), (b, &by_b)).expect("they differ");
        let signers = vec![operator, B256::repeat_byte(2)];
        let signed = Signed { checkpoint: checkpoint.hash(), signers: signers_hash(&signers) };
        let challenge = Challenge {
            height: 3,
            entries: vec![signed],
            certified: checkpoint,
            own,
            signers,
            challenger: B256::repeat_byte(3),
            signature,
        };
        let words = vec![VerdictWord { operator, challenge: challenge.id(), is_right: false, signature }];
        let (rollup, number) = (checkpoint.rollup, checkpoint.number);
        let verdict = Verdict { rollup, number, is_right: true, signers: SignerBitmap::new(4, [0, 1, 3]), signature };
        for (name, record) in [
            ("attestations", BridgeRecord::Evidence(Evidence::Attestations(conflict))),
            ("votes", BridgeRecord::Evidence(Evidence::Votes(votes))),
            ("challenge", BridgeRecord::Challenge(challenge)),
            ("verdict", BridgeRecord::Verdict(verdict)),
        ] {
            self.add("system_record", name, record.encode().to_vec());
        }
        self.add("gossip_message", "verdicts", Message::Verdicts { id: 0, words }.encode().to_vec());
    }

    fn consensus(&mut self) {
        let (block, certificate) = (block(), certificate());
        self.add("certificate", "four_seats", certificate.encode());
        let one = FinalityCertificate { signers: SignerBitmap::new(1, [0]), ..certificate.clone() };
        self.add("certificate", "one_seat", one.encode());
        let proof = FinalityProof { headers: vec![block.header, block.header], certificate };
        self.add("finality_proof", "two_headers", v1::FinalityProof::from(&proof).encode_to_vec());

        let (network, none) = (bytes::Bytes::from(vec![1; 32]), bytes::Bytes::new());
        for (name, kind, parent_view, block) in [("notarize", 1, 6, network.clone()), ("nullify", 2, 0, none)] {
            let (epoch, view, network_id) = (1, 7, network.clone());
            let request = SignRequest { network_id, kind, epoch, view, parent_view, block };
            self.add("signer_request", name, request.encode_to_vec());
        }
        let (identity, signature) = (B256::repeat_byte(1), [9; 96]);
        let (possession, address) = (FixedBytes([3; 96]), "192.0.2.1:7100".parse().expect("an address"));
        let join = Change::Join { bls: FixedBytes([2; 48]), possession, stake: 5, address };
        let changes =
            vec![(identity, join), (B256::repeat_byte(2), Change::Remove), (B256::repeat_byte(3), Change::Stake(7))];
        let stake = StakeChange { epoch: 1, serial: 2, changes, signers: SignerBitmap::new(4, [0, 2]), signature };
        let (signers, activation) = (stake.signers.clone(), Activation { protocol: 2, height: 64 });
        self.add("system_record", "stake", Record::Stake(stake).encode().to_vec());
        let upgrade = Upgrade { epoch: 1, serial: 3, activation, signers, signature };
        self.add("system_record", "upgrade", Record::Upgrade(upgrade).encode().to_vec());
        for (name, kind) in [
            ("address", UpdateKind::Address("[2001:db8::1]:7100".parse().expect("an address"))),
            ("keys", UpdateKind::Keys { bls: FixedBytes([2; 48]), possession }),
            ("leave", UpdateKind::Leave),
        ] {
            let update = Update { identity, serial: 4, kind, signature };
            self.add("system_record", name, Record::Update(update).encode().to_vec());
        }
        let state = genesis().hub_state().expect("a genesis");
        self.add("hub_state", "genesis", state.encode());
        self.add("hub_state", "protocol_2", state.with_protocol(2).encode());
        self.bridge();
        self.kind("exchange_message", "whole", 1, block.encode());
        self.kind("exchange_message", "compact", 2, CompactBlock::of(&block).encode());
        let carried = [&1u32.to_be_bytes()[..], &6u32.to_be_bytes(), b"record", &CompactBlock::of(&block).encode()];
        self.kind("exchange_message", "carrying", 5, carried.concat());
        let request = [block.hash().as_slice(), &5u32.to_be_bytes(), &[0b10110]].concat();
        self.kind("exchange_message", "request", 3, request);
        let answer = [&block.hash()[..], &2u32.to_be_bytes(), &1u32.to_be_bytes(), b"a", &0u32.to_be_bytes()];
        self.kind("exchange_message", "answer", 4, answer.concat());
        let frames = [&3u32.to_be_bytes()[..], b"one", &0u32.to_be_bytes(), &2u32.to_be_bytes(), b"22"];
        self.add("network_frames", "three", frames.concat());
        self.gossip_frames();
        let transactions = vec![(ROLLUP, Bytes::from_static(b"first")), (RollupId(9), Bytes::new())];
        self.add("gossip_message", "batch", Message::Batch { id: 5, transactions }.encode().to_vec());
        self.add("gossip_message", "ack", Message::Ack { id: 5, held: vec![true, false, true] }.encode().to_vec());
        self.add("gossip_message", "ask", Message::Ask { id: 6 }.encode().to_vec());
        let now_ms = 1_700_000_000_000;
        self.add("gossip_message", "told", Message::Told { id: 6, now_ms, protocol: 2 }.encode().to_vec());
    }

    /// What the library sends: a subscription, a message, and each kind of control message.
    fn gossip_frames(&mut self) {
        let field =
            |number: u8, value: &[u8]| [&[number << 3 | 2, u8::try_from(value.len()).expect("short")], value].concat();
        let frame = |rpc: Vec<u8>| [&[u8::try_from(rpc.len()).expect("short")], &rpc[..]].concat();
        let (topic, id) = (crate::consensus::TOPIC.as_bytes(), [7; 32]);
        let message = [field(1, b"author"), field(2, b"data"), field(3, &[0; 8]), field(4, topic)].concat();
        let have = [field(1, topic), field(2, &id)].concat();
        let prune = [&field(1, topic)[..], &[3 << 3, 60]].concat();
        for (name, rpc) in [
            ("subscription", field(1, &[&[1 << 3, 1][..], &field(2, topic)].concat())),
            ("message", field(2, &message)),
            ("ihave", field(3, &field(1, &have))),
            ("iwant", field(3, &field(2, &field(1, &id)))),
            ("graft", field(3, &field(3, &field(1, topic)))),
            ("prune", field(3, &field(4, &prune))),
            ("idontwant", field(3, &field(5, &field(1, &id)))),
        ] {
            self.add("gossip_frames", name, frame(rpc));
        }
    }

    fn disk(&mut self) {
        let body = |kind: u8, numbers: [u64; 3], digest: u8| {
            [&[kind][..], &numbers.map(u64::to_be_bytes).concat(), &[digest; 32]].concat()
        };
        let votes = [body(0x81, [0, 0, 9], 0), body(1, [0, 0, 9], 1), body(3, [0, 0, 9], 1), body(2, [0, 0, 10], 2)];
        let checkpoints = [body(0x82, [7, 0, 3], 0), body(4, [7, 0, 3], 5), body(0x82, [8, 0, 0], 0xff)];
        let disputes = [body(0x83, [7, 0, 3], 0), body(5, [7, 0, 3], 5), body(6, [7, 0, 3], 6)];
        for (name, entries) in [
            ("votes", votes.concat()),
            ("checkpoints", checkpoints.concat()),
            ("disputes", disputes.concat()),
            ("empty", vec![]),
        ] {
            self.add("sign_record", name, guard::record_of(&entries));
            self.add("sign_record_entries", name, entries);
        }
        let mut cut = guard::record_of(&votes.concat());
        let room = cut.iter().rev().take_while(|byte| **byte == 0xa5).count();
        let end = cut.len() - room;
        cut[end - 8..end].fill(0xa5);
        self.add("sign_record", "cut_off", cut);
        let position = Position { epoch: 0, number: 9 };
        let export = Interchange {
            format: FORMAT,
            network: B256::ZERO,
            key: [0; 48].into(),
            low_water: vec![
                Mark { family: Family::Consensus, scope: 0, low: Some(position) },
                Mark { family: Family::Checkpoints, scope: 7, low: None },
            ],
            signed: vec![Entry { kind: Kind::Notarize, scope: 0, position, digest: B256::repeat_byte(1) }],
        };
        self.add("interchange", "votes", json_text(&json!(export)));

        let transactions = [&2u32.to_be_bytes()[..], &3u32.to_be_bytes(), b"one", &0u32.to_be_bytes()].concat();
        self.kind("store_records", "transactions", 0, transactions);
        self.kind("store_records", "table", 1, [&[1; 40][..], &[2; 40]].concat());
        self.kind("store_records", "location", 2, [3; 12]);
        self.evm_records();
    }

    fn evm_records(&mut self) {
        let outcome = [&[0][..], &5u64.to_be_bytes(), &1u32.to_be_bytes(), &[1]].concat();
        self.kind("evm_records", "executed", 0, outcome);
        self.kind("evm_records", "skipped", 0, b"\x01nonce too low");
        let list = |fields: &[&dyn Encodable]| {
            let mut out = Vec::new();
            alloy_rlp::encode_list::<_, dyn Encodable>(fields, &mut out);
            out
        };
        let identity = list(&[&2u32, &7u64, &CHAIN_ID, &B256::repeat_byte(1), &1u8]);
        self.kind("evm_records", "identity", 1, identity);
        self.kind("evm_records", "progress", 2, list(&[&9u64, &5u64, &0u64]));
        let header = EvmHeader { base_fee_per_gas: Some(7), ..EvmHeader::default() };
        self.kind("evm_records", "header", 3, list(&[&B256::repeat_byte(1), &9u64, &header]));
        let receipt = Receipt { status: true.into(), cumulative_gas_used: 21_000, logs: vec![] };
        let receipts = vec![ReceiptEnvelope::Eip1559(receipt.into())];
        let transactions = vec![signed(dynamic_fee(0))];
        self.kind("evm_records", "body", 4, list(&[&transactions, &vec![rich().0], &receipts]));
        let waiting = vec![AlloyBytes::from_static(b"one"), AlloyBytes::new()];
        self.kind("evm_records", "pending", 5, list(&[&B256::ZERO, &1_000u64, &waiting]));
        self.kind("evm_records", "word", 6, encode(U256::from(77)));
        let (hash, leg) = (B256::repeat_byte(1), list(&[&1u64, &0u32, &B256::repeat_byte(2), &3u8]));
        let legs = ListOf(leg);
        let with_legs = list(&[&hash, &1_000u64, &waiting, &B256::repeat_byte(3), &legs]);
        self.kind("evm_records", "pending_legs", 5, with_legs);
        let vote = list(&[&B256::repeat_byte(2), &3u8, &1u8]);
        self.kind("evm_records", "checkpoint", 7, list(&[&9u64, &hash, &hash, &hash, &ListOf(vote.clone())]));
        let numbers: [&dyn Encodable; 10] =
            [&5u64, &1u8, &1u64, &2u64, &3u64, &4u64, &0u64, &0u64, &99u64, &200_000u64];
        let rest: [&dyn Encodable; 7] = [&hash, &hash, &hash, &5u128, &0u128, &hash, &waiting[0]];
        self.kind("evm_records", "message", 8, list(&[&numbers[..], &rest[..]].concat()));
        self.kind("evm_records", "vote", 9, vote);
        self.kind("evm_records", "deposit", 10, list(&[&9u64, &rich().0, &5u64]));
        let withdrawal = list(&[&3u64, &0u64, &rich().0, &5u64]);
        self.kind(
            "evm_records",
            "body_withdrawals",
            4,
            list(&[&transactions, &vec![rich().0], &receipts, &ListOf(withdrawal)]),
        );
    }

    fn operator(&mut self) {
        self.add("genesis", "network", json_text(&json!(genesis())));
        self.add("rollup_genesis", "rollup", json_text(&rollup_genesis()));
        self.add("config", "example", include_str!("../../../docs/node.example.toml"));
        self.add("signer_config", "example", include_str!("../../../docs/signer.example.toml"));
        for (name, kdf) in [("scrypt", NewKdf::Scrypt), ("pbkdf2", NewKdf::Pbkdf2)] {
            self.add("keystore", name, keystore(kdf));
        }
    }

    fn chain(&mut self) {
        let tx = |nonce| dynamic_fee(nonce);
        let legacy = TxLegacy {
            chain_id: Some(CHAIN_ID),
            gas_price: 2_000_000_000,
            gas_limit: 21_000,
            to: TxKind::Call(Address::ZERO),
            ..Default::default()
        };
        let access = TxEip2930 {
            chain_id: CHAIN_ID,
            gas_price: 2_000_000_000,
            gas_limit: 60_000,
            to: TxKind::Create,
            input: AlloyBytes::from_static(&[0x5f, 0x5f, 0xf3]),
            ..Default::default()
        };
        self.add("transaction", "dynamic_fee", signed(tx(0)).encoded_2718());
        self.add("transaction", "legacy", signed(legacy).encoded_2718());
        self.add("transaction", "creation", signed(access).encoded_2718());

        let from = rich().0;
        let raw = AlloyBytes::from(signed(tx(0)).encoded_2718());
        let call = json!({ "from": from, "to": Address::ZERO, "value": "0x1", "gas": "0x5208" });
        let create = json!({ "from": from, "data": "0x6001600055600160005260206000f3" });
        let filter = json!({ "fromBlock": "0x0", "toBlock": "latest", "topics": [[B256::ZERO], null] });
        let overrides = json!({ "0x0000000000000000000000000000000000000001": { "balance": "0x1", "code": "0x00" } });
        let system = "0x000f3df6d732807ef1319fb7b8bb8522d0beac02";
        for (method, params) in [
            ("eth_chainId", json!([])),
            ("eth_blockNumber", json!([])),
            ("eth_feeHistory", json!(["0x4", "latest", [10, 50.5]])),
            ("eth_sendRawTransaction", json!([raw])),
            ("eth_getBalance", json!([from, "latest"])),
            ("eth_getTransactionCount", json!([from, "pending"])),
            ("eth_getStorageAt", json!([system, "0x0", { "blockNumber": "0x0" }])),
            ("eth_getCode", json!([system, "safe"])),
            ("eth_getProof", json!([system, ["0x0", B256::repeat_byte(1)], "0x0"])),
            ("eth_call", json!([call, "latest", overrides])),
            ("eth_estimateGas", json!([create])),
            ("eth_getBlockByNumber", json!(["0x0", true])),
            ("eth_getBlockReceipts", json!(["0x0"])),
            ("eth_getTransactionByHash", json!([B256::ZERO])),
            ("eth_getTransactionReceipt", json!([B256::ZERO])),
            ("eth_getLogs", json!([filter])),
            ("eth_newFilter", json!([filter])),
            ("eth_getFilterChanges", json!(["0x1"])),
            ("web3_sha3", json!(["0x00"])),
        ] {
            let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
            self.add("json_rpc", method, request.to_string());
        }
        let entry = |id: Value| json!({ "jsonrpc": "2.0", "id": id, "method": "eth_blockNumber" });
        self.add("json_rpc", "batch", json!([entry(json!(1)), entry(json!("two"))]).to_string());
    }
}

fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

fn header() -> Header {
    Header { height: 12, timestamp_ms: 1_700_000_000_000, ..Header::genesis(B256::repeat_byte(1), 5, B256::ZERO) }
}

fn block() -> Block {
    let segment = |id, transactions: &[&'static [u8]]| Segment {
        rollup: RollupId(id),
        transactions: transactions.iter().map(|tx| Bytes::from_static(tx)).collect(),
    };
    Block::new(header(), vec![segment(3, &[b"one", b"two"]), segment(7, &[b"three"]), segment(11, &[b"", b"five"])])
}

fn certificate() -> FinalityCertificate {
    let mut signature = [0; 96];
    signature[0] = 0xc0;
    FinalityCertificate {
        epoch: 0,
        view: 300,
        parent_view: 298,
        block: block().hash(),
        signers: SignerBitmap::new(4, [0, 1, 3]),
        signature,
    }
}

pub(crate) fn genesis() -> Genesis {
    let validator = |i: u8| {
        let mut secret = [0; 32];
        secret[31] = i;
        // The generator's multiples: keys that anybody knows.
        let identity = switchyard_consensus_network::identity(&secret);
        let seat = switchyard_consensus_core::Seat { identity, bls: bls_public_key(&secret).expect("a secret") };
        GenesisValidator::new(seat, keys::prove_possession(&secret, identity).expect("a secret"))
    };
    Genesis {
        protocol: 1,
        name: "fuzz".into(),
        timestamp_ms: 1_700_000_000_000,
        validators: vec![validator(1), validator(2)],
        rollups: vec![
            RollupManifest { id: ROLLUP, name: "opaque".into(), vm: Vm::Opaque, sealing: Sealing::OneSecond },
            RollupManifest {
                id: RollupId(8),
                name: "evm".into(),
                vm: Vm::Evm { genesis: json!({ "config": { "chainId": 1 } }) },
                sealing: Sealing::HubBlock,
            },
        ],
        operators: Vec::new(),
        limits: GenesisLimits::default(),
        replay_window_blocks: 8192,
        epochs: Default::default(),
    }
}

/// A keystore of no key: opening it is not what is tested, and sealing a real one takes a second.
fn keystore(kdf: NewKdf) -> String {
    let (function, params) = match kdf {
        NewKdf::Scrypt => ("scrypt", json!({ "dklen": 32, "n": 262_144, "p": 1, "r": 8, "salt": "11".repeat(32) })),
        NewKdf::Pbkdf2 => {
            ("pbkdf2", json!({ "dklen": 32, "c": 262_144, "prf": "hmac-sha256", "salt": "11".repeat(32) }))
        }
    };
    let text = json_text(&json!({
        "crypto": {
            "kdf": { "function": function, "params": params, "message": "" },
            "checksum": { "function": "sha256", "params": {}, "message": "22".repeat(32) },
            "cipher": { "function": "aes-128-ctr", "params": { "iv": "33".repeat(16) }, "message": "44".repeat(32) },
        },
        "description": "fuzz", "pubkey": "55".repeat(48), "path": "m/12381/60/0/0",
        "uuid": "1d85ae20-35c5-4611-98e8-aa14a633906f", "version": 4,
    }));
    debug_assert!(Keystore::parse(text.as_bytes()).is_ok());
    text
}

fn dynamic_fee(nonce: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(Address::ZERO),
        value: U256::from(1),
        ..Default::default()
    }
}

/// Signatures are deterministic (RFC 6979), so seeds are too.
fn signed(tx: impl Into<TypedTransaction>) -> TxEnvelope {
    let tx = tx.into();
    let signer = PrivateKeySigner::from_slice(&rich().1).expect("a key");
    let signature = signer.sign_hash_sync(&tx.signature_hash()).expect("a signature");
    tx.into_signed(signature).into()
}

/// A list of one item that is encoded already.
struct ListOf(Vec<u8>);

impl Encodable for ListOf {
    fn encode(&self, out: &mut dyn alloy_rlp::BufMut) {
        alloy_rlp::Header { list: true, payload_length: self.0.len() }.encode(out);
        out.put_slice(&self.0);
    }
}

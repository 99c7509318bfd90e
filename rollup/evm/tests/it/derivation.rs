//! Hub blocks become the same rollup blocks on every node.

use crate::support::*;
use alloy::consensus::{
    Header, TxEip2930, TxEip7702, TxLegacy,
    constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_WITHDRAWALS},
    proofs::{calculate_receipt_root, calculate_transaction_root},
};
use alloy::eips::{
    eip2935::HISTORY_STORAGE_ADDRESS, eip4788::BEACON_ROOTS_ADDRESS, eip7685::EMPTY_REQUESTS_HASH,
    eip7702::Authorization,
};
use alloy::signers::SignerSync;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use proptest::prelude::*;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Driver, DriverError, Sealing, TxOutcome, evm::EvmChain};
use switchyard_rollup_evm::EvmConfig;

/// A run of hub blocks with everything in it: transfers, a contract, reverts, bad transactions, gaps.
fn history() -> Vec<Vec<Bytes>> {
    let (deploy, contract) = deploy_store(1, 0);
    let store = |nonce, value| sign(1, tx(nonce, TxKind::Call(contract), 0, word(value), 100_000));
    vec![
        vec![transfer(0, 0, Address::repeat_byte(1), ETHER), deploy],
        vec![],
        vec![store(1, 5), Bytes::from_static(b"no transaction"), transfer(0, 7, Address::repeat_byte(1), 1)],
        vec![sign(1, tx(2, TxKind::Call(contract), 0, Bytes::from_static(b"x"), 100_000))],
        vec![Bytes::from_static(b"nothing good here")],
        vec![store(3, 0), transfer(0, 1, wallet(2).address(), 3), transfer(2, 0, Address::repeat_byte(9), 4)],
        vec![transfer(3, 0, Address::repeat_byte(8), 1), transfer(3, 0, Address::repeat_byte(8), 1)],
    ]
}

#[test]
fn a_block_is_an_ethereum_block_of_its_hub_block() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let genesis = rollup.reader.head();
    let sent = transfer(0, 0, Address::repeat_byte(1), ETHER);
    let applied = rollup.apply(vec![sent.clone()]);
    let block = rollup.reader.head();
    let hub = hub_block(1, vec![]);
    let expected = Header {
        parent_hash: genesis.hash,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: COINBASE,
        state_root: block.header.state_root,
        transactions_root: calculate_transaction_root(&block.transactions),
        receipts_root: calculate_receipt_root(&block.receipts),
        number: 1,
        gas_limit: GAS_LIMIT,
        gas_used: 21_000,
        timestamp: GENESIS_SECONDS,
        extra_data: 1u64.to_be_bytes().to_vec().into(),
        mix_hash: keccak256([hub.hub_hash.as_slice(), &7u64.to_be_bytes()].concat()),
        // An empty genesis block lowers the fee by an eighth.
        base_fee_per_gas: Some(875_000_000),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Default::default()
    };
    assert_eq!(block.header, expected);
    assert_eq!(block.hash, expected.hash_slow());
    assert_eq!(block.senders, [wallet(0).address()]);
    assert_eq!(rollup.outcome(&sent), TxOutcome::Executed { block: 1, index: 0, success: true });
    let [checkpoint] = applied.checkpoints[..] else { panic!("one block, one checkpoint") };
    assert_eq!((checkpoint.rollup, checkpoint.number, checkpoint.hub_height), (RollupId(7), 1, 1));
    assert_eq!((checkpoint.block_hash, checkpoint.state_root), (block.hash, block.header.state_root));
}

#[test]
fn fees_go_to_the_coinbase_and_the_base_fee_is_burnt() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    rollup.apply(vec![transfer(0, 0, Address::repeat_byte(1), ETHER)]);
    let gas = U256::from(21_000);
    assert_eq!(rollup.balance(1, COINBASE), gas * U256::from(GWEI));
    let paid = gas * U256::from(875_000_000 + GWEI);
    assert_eq!(rollup.balance(1, wallet(0).address()), U256::from(999 * ETHER) - paid);
}

#[test]
fn the_same_log_gives_the_same_blocks_whatever_the_restarts() {
    for sealing in [Sealing::HubBlock, Sealing::OneSecond] {
        let mut straight = Rollup::new(sealing);
        let mut restarted = Rollup::new(sealing);
        // Long enough for one-second sealing to close blocks.
        let history: Vec<_> = history().into_iter().chain(vec![vec![]; 15]).collect();
        for (height, transactions) in (1..).zip(history) {
            let applied = straight.apply(transactions.clone());
            restarted = restarted.reopen();
            assert_eq!(restarted.driver.next_hub_height(), height);
            assert_eq!(restarted.apply(transactions), applied, "hub block {height}, {sealing:?}");
        }
        assert!(straight.hashes().len() > 1);
        assert_eq!(straight.hashes(), restarted.hashes());
        let (a, b) = (straight.reader.head(), restarted.reader.head());
        assert_eq!(a, b);
        assert_eq!(*restarted.reopen().reader.head(), *a);
    }
}

#[test]
fn a_crash_after_any_hub_block_loses_nothing() {
    for sealing in [Sealing::HubBlock, Sealing::OneSecond] {
        let mut rollup = Rollup::new(sealing);
        let log: Vec<_> = history().into_iter().chain(vec![vec![]; 5]).collect();
        let mut images = Vec::new();
        for segment in &log {
            rollup.apply(segment.clone());
            // What a killed process leaves: the files as they are, nothing flushed or closed.
            images.push((rollup.image(), rollup.driver.next_hub_height()));
        }
        for (image, next) in images {
            let mut crashed = Rollup::from_image(image, config(sealing));
            assert_eq!(crashed.driver.next_hub_height(), next);
            for segment in &log[next as usize - 1..] {
                crashed.apply(segment.clone());
            }
            assert_eq!(crashed.hashes(), rollup.hashes());
            assert_eq!(crashed.reader.head(), rollup.reader.head());
        }
    }
}

#[test]
fn hub_blocks_must_come_in_order() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    for height in [0, 2, u64::MAX] {
        let error = rollup.driver.apply(&hub_block(height, vec![])).unwrap_err();
        assert!(matches!(error, DriverError::OutOfOrder { expected: 1, found } if found == height));
    }
    rollup.apply(vec![]);
    assert!(rollup.driver.apply(&hub_block(1, vec![])).is_err());
    assert_eq!(rollup.driver.next_hub_height(), 2);
}

#[test]
fn a_hub_block_without_executable_transactions_makes_no_block() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let bad = transfer(0, 1, Address::ZERO, 1);
    let applied = rollup.apply(vec![bad.clone()]);
    assert!(applied.checkpoints.is_empty());
    assert_eq!(rollup.reader.head().header.number, 0);
    assert_eq!(rollup.driver.next_hub_height(), 2);
    let TxOutcome::Skipped { reason } = rollup.outcome(&bad) else { panic!("skipped") };
    assert!(reason.contains("nonce"), "{reason}");
}

#[test]
fn each_bad_transaction_is_skipped_for_its_reason_and_the_rest_executed() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let to = TxKind::Call(Address::repeat_byte(1));
    let cases = [
        (Bytes::from_static(b"junk"), "type"),
        (Bytes::new(), "empty"),
        (transfer(1, 5, Address::ZERO, 1), "nonce"),
        (transfer(1, 0, Address::ZERO, 2_000 * ETHER), "funds"),
        (sign(1, tx(0, to, 0, Bytes::new(), 20_000)), "gas"),
        (sign(1, tx(0, to, 0, Bytes::new(), GAS_LIMIT + 1)), "exceeds block gas limit"),
        (sign(1, alloy::consensus::TxEip1559 { chain_id: 1, ..tx(0, to, 0, Bytes::new(), 21_000) }), "chain id"),
        (
            sign(1, TxLegacy { chain_id: None, gas_limit: 21_000, gas_price: 100 * GWEI, to, ..Default::default() }),
            "chain id",
        ),
        (
            sign(
                1,
                alloy::consensus::TxEip1559 {
                    max_fee_per_gas: 1,
                    max_priority_fee_per_gas: 0,
                    ..tx(0, to, 0, Bytes::new(), 21_000)
                },
            ),
            "fee",
        ),
    ];
    let first = transfer(0, 0, Address::repeat_byte(1), 1);
    let last = transfer(0, 1, Address::repeat_byte(1), 1);
    let segment: Vec<_> =
        [first.clone()].into_iter().chain(cases.iter().map(|c| c.0.clone())).chain([last.clone()]).collect();
    let applied = rollup.apply(segment);
    assert_eq!(applied.outcomes.len(), cases.len() + 2);
    for (bytes, word) in &cases {
        let TxOutcome::Skipped { reason } = rollup.outcome(bytes) else { panic!("{word}: executed") };
        assert!(reason.to_lowercase().contains(word), "expected {word:?} in {reason:?}");
        assert_eq!(rollup.reader.locate(keccak256(bytes)).unwrap(), None);
    }
    assert_eq!(rollup.outcome(&first), TxOutcome::Executed { block: 1, index: 0, success: true });
    assert_eq!(rollup.outcome(&last), TxOutcome::Executed { block: 1, index: 1, success: true });
    assert_eq!(rollup.reader.locate(keccak256(&last)).unwrap(), Some((1, 1)));
}

#[test]
fn executed_wins_over_skipped_in_either_order() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let sent = transfer(0, 1, Address::repeat_byte(1), 1);
    rollup.apply(vec![sent.clone()]);
    assert!(matches!(rollup.outcome(&sent), TxOutcome::Skipped { .. }));
    rollup.apply(vec![transfer(0, 0, Address::ZERO, 1), sent.clone()]);
    let executed = TxOutcome::Executed { block: 1, index: 1, success: true };
    assert_eq!(rollup.outcome(&sent), executed);
    let again = rollup.apply(vec![sent.clone()]);
    assert_eq!(again.outcomes, [(keccak256(&sent), executed.clone())]);
    assert_eq!(rollup.outcome(&sent), executed);
    assert_eq!(rollup.nonce(0), 2);
}

#[test]
fn what_exceeds_the_gas_limit_goes_on_in_another_block_of_the_same_hub_block() {
    let config = EvmConfig { genesis: genesis_with_gas_limit(100_000), ..config(Sealing::HubBlock) };
    let mut rollup = Rollup::with_config(config);
    let segment: Vec<_> = (0..10).map(|nonce| transfer(0, nonce, Address::repeat_byte(1), 1)).collect();
    let applied = rollup.apply(segment.clone());
    // Four transfers of 21,000 gas fit into 100,000.
    let blocks: Vec<_> = (1..=3).map(|n| rollup.reader.block_by_number(n).unwrap().unwrap()).collect();
    assert_eq!(blocks.iter().map(|b| b.transactions.len()).collect::<Vec<_>>(), [4, 4, 2]);
    assert!(blocks.iter().all(|b| b.hub_height == 1 && b.header.timestamp == GENESIS_SECONDS));
    assert_eq!(applied.checkpoints.len(), 3);
    assert_eq!(rollup.reader.head().header.number, 3);
    for (i, sent) in segment.iter().enumerate() {
        let (block, index) = (1 + i as u64 / 4, i as u32 % 4);
        assert_eq!(rollup.outcome(sent), TxOutcome::Executed { block, index, success: true });
    }
    assert_eq!(rollup.balance(3, Address::repeat_byte(1)), U256::from(10));
    assert_eq!(rollup.reopen().nonce(0), 10);
}

#[test]
fn one_hub_block_makes_at_most_sixteen_blocks_and_the_rest_of_it_is_skipped() {
    let config = EvmConfig { genesis: genesis_with_gas_limit(100_000), ..config(Sealing::HubBlock) };
    let mut rollup = Rollup::with_config(config);
    let segment: Vec<_> = (0..80).map(|nonce| transfer(0, nonce, Address::repeat_byte(1), 1)).collect();
    let applied = rollup.apply(segment.clone());
    assert_eq!(applied.checkpoints.len(), 16);
    assert_eq!(applied.outcomes.len(), 80, "each transaction has an outcome");
    assert_eq!(applied.executed_to, 1);
    // Four transfers a block.
    assert!(matches!(rollup.outcome(&segment[63]), TxOutcome::Executed { block: 16, .. }));
    assert!(
        matches!(rollup.outcome(&segment[64]), TxOutcome::Skipped { reason } if reason.contains("16 blocks of gas"))
    );
    let mut rollup = rollup.reopen();
    rollup.apply(vec![segment[64].clone()]);
    assert!(matches!(rollup.outcome(&segment[64]), TxOutcome::Executed { block: 17, .. }));
}

#[test]
fn timestamps_are_the_hubs_and_never_fall() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let mut times = Vec::new();
    for (i, ms) in [999, 1_000, 1_999, 500, 4_000].into_iter().enumerate() {
        let height = i as u64 + 1;
        let sent = transfer(0, i as u64, Address::ZERO, 1);
        rollup.driver.apply(&hub_block_at(height, GENESIS_SECONDS * 1000 + ms, vec![sent])).unwrap();
        times.push(rollup.reader.head().header.timestamp - GENESIS_SECONDS);
    }
    assert_eq!(times, [0, 1, 1, 1, 4]);
}

#[test]
fn the_base_fee_follows_eip_1559() {
    let config = EvmConfig { genesis: genesis_with_gas_limit(42_000), ..config(Sealing::HubBlock) };
    let mut rollup = Rollup::with_config(config);
    let mut fee = 1_000_000_000u64;
    let mut nonce = 0;
    for transfers in [2, 1, 2, 2, 1] {
        let parent = rollup.reader.head().header.gas_used;
        // Written out from the EIP: target 21,000, denominator 8.
        fee = match parent {
            0 => fee - fee / 8,
            21_000 => fee,
            _ => fee + fee / 8,
        };
        assert_eq!(rollup.reader.next_base_fee(), fee);
        let segment = (0..transfers).map(|i| transfer(0, nonce + i, Address::ZERO, 1)).collect();
        nonce += transfers;
        rollup.apply(segment);
        assert_eq!(rollup.reader.head().header.base_fee_per_gas, Some(fee));
    }
}

#[test]
fn a_contract_is_deployed_called_and_reverted() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let (deploy, contract) = deploy_store(0, 0);
    let good = sign(0, tx(1, TxKind::Call(contract), 0, word(77), 100_000));
    let bad = sign(0, tx(2, TxKind::Call(contract), 0, Bytes::from_static(b"?"), 100_000));
    rollup.apply(vec![deploy, good.clone(), bad.clone()]);
    assert_eq!(rollup.reader.code(1, contract).unwrap(), STORE_RUNTIME[..]);
    assert_eq!(rollup.reader.code(0, contract).unwrap(), Bytes::new());
    assert_eq!(rollup.reader.storage(1, contract, B256::ZERO).unwrap(), U256::from(77));
    let block = rollup.reader.head();
    let [log] = block.receipts[1].logs() else { panic!("one log") };
    assert_eq!((log.address, log.topics(), &log.data.data), (contract, &[B256::with_last_byte(0xaa)][..], &word(77)));
    assert!(block.header.logs_bloom.contains_raw_log(contract, log.topics()));
    assert_eq!(rollup.outcome(&bad), TxOutcome::Executed { block: 1, index: 2, success: false });
    assert!(block.receipts[2].logs().is_empty() && !block.receipts[2].status());
    // A slot set back to zero leaves no trace in the state.
    rollup.apply(vec![sign(0, tx(3, TxKind::Call(contract), 0, word(0), 100_000))]);
    assert_eq!(rollup.reader.storage(2, contract, B256::ZERO).unwrap(), U256::ZERO);
    assert_eq!(rollup.reader.storage(1, contract, B256::ZERO).unwrap(), U256::from(77));
}

#[test]
fn legacy_access_list_and_set_code_transactions_execute() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let (deploy, contract) = deploy_store(0, 0);
    let to = TxKind::Call(Address::repeat_byte(1));
    let legacy = TxLegacy {
        chain_id: Some(CHAIN_ID),
        gas_price: 10 * GWEI,
        gas_limit: 21_000,
        to,
        value: U256::ONE,
        ..Default::default()
    };
    let listed =
        TxEip2930 { chain_id: CHAIN_ID, gas_price: 10 * GWEI, gas_limit: 30_000, to, nonce: 1, ..Default::default() };
    rollup.apply(vec![deploy, sign(1, legacy), sign(1, listed)]);

    let authorization = Authorization { chain_id: U256::from(CHAIN_ID), address: contract, nonce: 0 };
    let signature = wallet(5).sign_hash_sync(&authorization.signature_hash()).unwrap();
    let set_code = TxEip7702 {
        chain_id: CHAIN_ID,
        nonce: 1,
        gas_limit: 200_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: wallet(5).address(),
        value: U256::ZERO,
        access_list: Default::default(),
        authorization_list: vec![authorization.into_signed(signature)],
        input: word(99),
    };
    let sent = sign(0, set_code);
    rollup.apply(vec![sent.clone()]);
    assert_eq!(rollup.outcome(&sent), TxOutcome::Executed { block: 2, index: 0, success: true });
    let delegated = wallet(5).address();
    assert_eq!(rollup.reader.code(2, delegated).unwrap(), [&[0xef, 0x01, 0x00], contract.as_slice()].concat());
    assert_eq!(rollup.reader.storage(2, delegated, B256::ZERO).unwrap(), U256::from(99));
    assert_eq!(rollup.nonce(5), 1);
    // The delegating account still sends transactions of its own.
    let own = transfer(5, 1, Address::ZERO, 1);
    rollup.apply(vec![own.clone()]);
    assert_eq!(rollup.outcome(&own), TxOutcome::Executed { block: 3, index: 0, success: true });
}

#[test]
fn system_contracts_are_called_in_every_block() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    rollup.apply(vec![transfer(0, 0, Address::ZERO, 1)]);
    rollup.apply(vec![transfer(0, 1, Address::ZERO, 1)]);
    // EIP-2935: the hash of block n at slot n % 8191.
    for number in 0..2u64 {
        let stored = rollup.reader.storage(2, HISTORY_STORAGE_ADDRESS, B256::with_last_byte(number as u8)).unwrap();
        assert_eq!(B256::from(stored), rollup.hashes()[number as usize]);
    }
    // EIP-4788: the timestamp at slot timestamp % 8191; the root beside it is zero.
    let slot = B256::from(U256::from(GENESIS_SECONDS % 8191));
    assert_eq!(rollup.reader.storage(2, BEACON_ROOTS_ADDRESS, slot).unwrap(), U256::from(GENESIS_SECONDS));
}

#[test]
fn a_contract_sees_block_hashes_and_the_hubs_randomness() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    // Stores blockhash(number - 1), blockhash(number - 2) and prevrandao.
    let runtime = alloy_primitives::hex!("6001 43 03 40 5f 55 6002 43 03 40 6001 55 44 6002 55 00");
    let contract = wallet(0).address().create(0);
    rollup.apply(vec![sign(0, tx(0, TxKind::Create, 0, init_code(&runtime), 200_000))]);
    rollup.apply(vec![sign(0, tx(1, TxKind::Call(contract), 0, Bytes::new(), 200_000))]);
    let stored = |slot| B256::from(rollup.reader.storage(2, contract, B256::with_last_byte(slot)).unwrap());
    let hashes = rollup.hashes();
    assert_eq!((stored(0), stored(1)), (hashes[1], hashes[0]));
    assert_eq!(stored(2), rollup.reader.head().header.mix_hash);
}

#[test]
fn a_contract_made_and_destroyed_in_one_transaction_leaves_nothing() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    // Init code that stores something and then destroys itself.
    let sent =
        sign(0, tx(0, TxKind::Create, 5, Bytes::from_static(&alloy_primitives::hex!("6001 5f 55 33 ff")), 200_000));
    rollup.apply(vec![sent.clone()]);
    let contract = wallet(0).address().create(0);
    assert_eq!(rollup.outcome(&sent), TxOutcome::Executed { block: 1, index: 0, success: true });
    assert_eq!(rollup.reader.account(1, contract).unwrap(), None);
    assert_eq!(rollup.reader.storage(1, contract, B256::ZERO).unwrap(), U256::ZERO);
}

#[test]
fn readers_are_told_of_every_block_after_it_is_readable() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let mut feed = rollup.reader.subscribe();
    rollup.apply(vec![transfer(0, 0, Address::ZERO, 1)]);
    rollup.apply(vec![]);
    rollup.apply(vec![transfer(0, 1, Address::ZERO, 1)]);
    for number in 1..=2 {
        let block = feed.try_recv().unwrap();
        assert_eq!(block.header.number, number);
        assert_eq!(rollup.reader.block_by_hash(block.hash).unwrap().unwrap(), block);
        assert_eq!(rollup.reader.header(number).unwrap().unwrap(), block.header);
    }
    assert!(feed.try_recv().is_err());
}

#[test]
fn blocks_read_from_the_disk_are_those_that_were_made() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    history().into_iter().for_each(|segment| {
        rollup.apply(segment);
    });
    let head = rollup.reader.head().header.number;
    let blocks: Vec<_> = (0..=head).map(|n| rollup.reader.block_by_number(n).unwrap().unwrap()).collect();
    let rollup = rollup.reopen();
    for block in blocks {
        assert_eq!(rollup.reader.block_by_number(block.header.number).unwrap().unwrap(), block);
        assert_eq!(rollup.reader.block_by_hash(block.hash).unwrap().unwrap(), block);
    }
    assert_eq!(rollup.reader.block_by_number(head + 1).unwrap(), None);
    assert_eq!(rollup.reader.block_by_hash(B256::repeat_byte(1)).unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_segment_stops_the_rollup(segments in proptest::collection::vec(
        proptest::collection::vec(prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from),
            (0u8..3, 0u64..3, any::<u64>(), proptest::collection::vec(any::<u8>(), 0..80), 0u64..200_000)
                .prop_map(|(i, nonce, value, code, gas)| sign(i, tx(nonce, TxKind::Create, value.into(), code, gas))),
        ], 0..6), 1..5),
    ) {
        let mut rollup = Rollup::new(Sealing::HubBlock);
        for segment in segments {
            let applied = rollup.apply(segment.clone());
            prop_assert_eq!(applied.outcomes.len(), segment.len());
        }
    }
}

//! History and proofs: every block's state stays readable, and provable to somebody who has its header only.

use crate::support::*;
use alloy::{consensus::TrieAccount, rpc::types::EIP1186AccountProofResponse};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, TxKind, U256, keccak256};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, proof::verify_proof};
use switchyard_primitives::Level;
use switchyard_rollup_core::{
    Sealing,
    evm::{EvmChain, EvmError},
};

/// Checks a proof against a state root with alloy-trie.
fn verify(root: B256, proof: &EIP1186AccountProofResponse) {
    let account = TrieAccount {
        nonce: proof.nonce,
        balance: proof.balance,
        storage_root: proof.storage_hash,
        code_hash: proof.code_hash,
    };
    let exists = account != TrieAccount::default();
    let key = Nibbles::unpack(keccak256(proof.address));
    verify_proof(root, key, exists.then(|| alloy_rlp::encode(account)), &proof.account_proof).unwrap();
    for slot in &proof.storage_proof {
        let value = (!slot.value.is_zero()).then(|| alloy_rlp::encode(slot.value));
        let key = Nibbles::unpack(keccak256(slot.key.as_b256()));
        verify_proof(proof.storage_hash, key, value, &slot.proof).unwrap();
    }
}

#[test]
fn proofs_verify_against_the_header_at_every_block() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let (deploy, contract) = deploy_store(0, 0);
    rollup.apply(vec![deploy]);
    for (nonce, value) in (1..).zip([5, 6, 0]) {
        rollup.apply(vec![sign(0, tx(nonce, TxKind::Call(contract), 0, word(value), 100_000))]);
    }
    let slots = [B256::ZERO, B256::with_last_byte(1)];
    for (number, value) in [(0, 0), (1, 0), (2, 5), (3, 6), (4, 0)] {
        let root = rollup.reader.header(number).unwrap().unwrap().state_root;
        let proof = rollup.reader.proof(number, contract, &slots).unwrap();
        assert_eq!(proof.storage_proof[0].value, U256::from(value));
        assert_eq!(proof.nonce, u64::from(number > 0));
        verify(root, &proof);
        verify(root, &rollup.reader.proof(number, wallet(0).address(), &[]).unwrap());
        let absent = rollup.reader.proof(number, Address::repeat_byte(0xee), &slots).unwrap();
        assert_eq!((absent.storage_hash, absent.code_hash), (EMPTY_ROOT_HASH, KECCAK256_EMPTY));
        verify(root, &absent);
    }
}

#[test]
fn a_proof_of_another_value_does_not_verify() {
    let rollup = Rollup::new(Sealing::HubBlock);
    let proof = rollup.reader.proof(0, wallet(0).address(), &[]).unwrap();
    let root = rollup.reader.head().header.state_root;
    let forged = TrieAccount { balance: proof.balance + U256::ONE, ..Default::default() };
    let key = Nibbles::unpack(keccak256(proof.address));
    assert!(verify_proof(root, key, Some(alloy_rlp::encode(forged)), &proof.account_proof).is_err());
}

#[test]
fn past_states_stay_as_they_were() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let receiver = Address::repeat_byte(1);
    for nonce in 0..20 {
        rollup.apply(vec![transfer(0, nonce, receiver, 1)]);
    }
    let rollup = rollup.reopen();
    for number in 0..=20 {
        assert_eq!(rollup.balance(number, receiver), U256::from(number));
        let sender = rollup.reader.account(number, wallet(0).address()).unwrap().unwrap();
        assert_eq!(sender.nonce, number);
    }
}

#[test]
fn the_flat_state_and_the_trie_agree() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let (deploy, contract) = deploy_store(0, 0);
    rollup.apply(vec![deploy, sign(0, tx(1, TxKind::Call(contract), 0, word(9), 100_000))]);
    let addresses = [contract, COINBASE, wallet(0).address(), wallet(1).address(), Address::repeat_byte(0xee)];
    // The head is read from the flat columns; one block later the same state is read from the trie.
    let read = |rollup: &Rollup| {
        addresses.map(|a| {
            (
                rollup.reader.account(1, a).unwrap(),
                rollup.reader.storage(1, a, B256::ZERO).unwrap(),
                rollup.reader.code(1, a).unwrap(),
            )
        })
    };
    let flat = read(&rollup);
    rollup.apply(vec![sign(0, tx(2, TxKind::Call(contract), 0, word(1), 100_000)), transfer(1, 0, contract, 0)]);
    assert_eq!(flat, read(&rollup));
}

#[test]
fn states_that_do_not_exist_yet_are_refused() {
    let rollup = Rollup::new(Sealing::HubBlock);
    let address = wallet(0).address();
    assert_eq!(rollup.reader.account(1, address), Err(EvmError::NoState(1)));
    assert_eq!(rollup.reader.storage(1, address, B256::ZERO), Err(EvmError::NoState(1)));
    assert_eq!(rollup.reader.code(1, address), Err(EvmError::NoState(1)));
    assert!(matches!(rollup.reader.proof(1, address, &[]), Err(EvmError::NoState(1))));
    assert_eq!(rollup.reader.call(1, Default::default(), None), Err(EvmError::NoState(1)));
    assert_eq!(rollup.reader.estimate_gas(1, Default::default(), None), Err(EvmError::NoState(1)));
    assert_eq!(rollup.reader.header(1).unwrap(), None);
}

#[test]
fn levels_above_final_have_only_the_genesis_block() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    rollup.apply(vec![transfer(0, 0, Address::ZERO, 1)]);
    assert_eq!(rollup.reader.number_at(Level::Final), 1);
    assert_eq!(rollup.reader.number_at(Level::Attested), 0);
    assert_eq!(rollup.reader.number_at(Level::Settled), 0);
    assert_eq!(rollup.reader.chain_id(), CHAIN_ID);
}

#[test]
fn reads_at_the_head_are_of_one_block_while_the_driver_writes() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let reader = rollup.reader.clone();
    // Returns balance(0x01..) + balance(0x02..), between which every block moves one wei.
    let (a, b) = (wallet(1).address(), wallet(2).address());
    let code =
        [&[0x73][..], a.as_slice(), &[0x31, 0x73], b.as_slice(), &[0x31, 0x01, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3]]
            .concat();
    let contract = wallet(0).address().create(0);
    rollup.apply(vec![sign(0, tx(0, TxKind::Create, 0, init_code(&code), 500_000))]);
    let call = move || {
        let number = reader.head().header.number;
        let request = alloy::rpc::types::TransactionRequest::default().to(contract);
        let output = reader.call(number, request, None).unwrap();
        (number, U256::from_be_slice(&output))
    };
    // The fee, not the wei that moves, changes the sum: it is the same on each block for all readers.
    let done = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let seen = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                seen.push(call());
            }
            seen
        });
        for nonce in 0..30 {
            rollup.apply(vec![transfer(1, nonce, b, 1)]);
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        seen.join().unwrap()
    });
    for (number, sum) in seen {
        assert_eq!(sum, rollup.balance(number, a) + rollup.balance(number, b), "block {number}");
    }
}

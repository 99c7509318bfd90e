//! `eth_call` and `eth_estimateGas`.

use crate::support::*;
use alloy::rpc::types::{
    TransactionInput, TransactionRequest,
    state::{AccountOverride, StateOverride},
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex};
use switchyard_rollup_core::{
    Sealing, TxOutcome,
    evm::{EvmChain, EvmError},
};

fn request(to: Address, input: impl Into<Bytes>) -> TransactionRequest {
    TransactionRequest::default().to(to).input(TransactionInput::new(input.into()))
}

/// A rollup with the store contract at block 1, holding 7.
fn with_contract() -> (Rollup, Address) {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let (deploy, contract) = deploy_store(0, 0);
    rollup.apply(vec![deploy, sign(0, tx(1, TxKind::Call(contract), 0, word(7), 100_000))]);
    (rollup, contract)
}

#[test]
fn a_call_returns_what_the_contract_returns_at_that_block() {
    let (mut rollup, contract) = with_contract();
    rollup.apply(vec![sign(0, tx(2, TxKind::Call(contract), 0, word(8), 100_000))]);
    let call = |number| rollup.reader.call(number, request(contract, Bytes::new()), None).unwrap();
    assert_eq!((call(0), call(1), call(2)), (Bytes::new(), word(7), word(8)));
}

#[test]
fn a_call_changes_nothing() {
    let (rollup, contract) = with_contract();
    rollup.reader.call(1, request(contract, word(1)), None).unwrap();
    assert_eq!(rollup.reader.call(1, request(contract, Bytes::new()), None).unwrap(), word(7));
}

#[test]
fn a_revert_carries_its_data_and_a_halt_its_reason() {
    let (rollup, contract) = with_contract();
    let revert = Err(EvmError::Revert(hex!("deadbeef").into()));
    assert_eq!(rollup.reader.call(1, request(contract, b"?".to_vec()), None), revert);
    assert_eq!(
        rollup.reader.estimate_gas(1, request(contract, b"?".to_vec()), None),
        Err(EvmError::Revert(hex!("deadbeef").into()))
    );
    let overridden = |code: &'static [u8]| {
        let account = AccountOverride { code: Some(Bytes::from_static(code)), ..Default::default() };
        Some(StateOverride::from_iter([(contract, account)]))
    };
    let invalid = rollup.reader.call(1, request(contract, Bytes::new()), overridden(&[0xfe])).unwrap_err();
    assert_eq!(invalid, EvmError::Halt("invalid opcode".into()));
    let forever = rollup.reader.call(1, request(contract, Bytes::new()), overridden(&hex!("5b 5f 56"))).unwrap_err();
    assert_eq!(forever, EvmError::Halt("out of gas".into()));
    let estimate = rollup.reader.estimate_gas(1, request(contract, Bytes::new()), overridden(&hex!("5b 5f 56")));
    assert_eq!(estimate, Err(EvmError::Halt(format!("gas required exceeds allowance ({GAS_LIMIT})"))));
}

#[test]
fn a_call_may_come_from_anybody_and_costs_nothing_unless_it_says_so() {
    let (rollup, contract) = with_contract();
    // An account without balance, a contract as the sender, no nonce.
    for from in [Address::repeat_byte(0xee), contract] {
        let output = rollup.reader.call(1, request(contract, Bytes::new()).from(from), None).unwrap();
        assert_eq!(output, word(7));
    }
    let poor = request(contract, Bytes::new()).from(Address::repeat_byte(0xee));
    let with_value = rollup.reader.call(1, poor.clone().value(U256::ONE), None).unwrap_err();
    assert!(matches!(with_value, EvmError::InvalidCall(_)), "{with_value}");
    let mut with_price = poor;
    with_price.gas_price = Some(100 * GWEI);
    assert!(matches!(rollup.reader.call(1, with_price, None), Err(EvmError::InvalidCall(_))));
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let (rollup, contract) = with_contract();
    let mut both_fees = request(contract, Bytes::new());
    both_fees.gas_price = Some(1);
    both_fees.max_fee_per_gas = Some(1);
    let mut blobs = request(contract, Bytes::new());
    blobs.blob_versioned_hashes = Some(vec![B256::with_last_byte(1)]);
    let mut low_gas = request(contract, Bytes::new());
    low_gas.gas = Some(1_000);
    for bad in [both_fees, blobs, low_gas] {
        let error = rollup.reader.call(1, bad, None).unwrap_err();
        assert!(matches!(error, EvmError::InvalidCall(_)), "{error}");
    }
}

#[test]
fn overrides_change_code_storage_and_balance_for_one_call() {
    let (rollup, contract) = with_contract();
    let storage = AccountOverride {
        state_diff: Some([(B256::ZERO, B256::from(U256::from(55)))].into_iter().collect()),
        ..Default::default()
    };
    let overrides = Some(StateOverride::from_iter([(contract, storage)]));
    assert_eq!(rollup.reader.call(1, request(contract, Bytes::new()), overrides).unwrap(), word(55));
    // selfbalance, returned
    let account = AccountOverride {
        code: Some(Bytes::from_static(&hex!("47 5f 52 6020 5f f3"))),
        balance: Some(U256::from(66)),
        ..Default::default()
    };
    let overrides = Some(StateOverride::from_iter([(Address::repeat_byte(9), account)]));
    assert_eq!(rollup.reader.call(1, request(Address::repeat_byte(9), Bytes::new()), overrides).unwrap(), word(66));
}

#[test]
fn a_transfer_is_estimated_exactly() {
    let (rollup, _) = with_contract();
    let transfer = request(Address::repeat_byte(3), Bytes::new()).from(wallet(1).address()).value(U256::ONE);
    assert_eq!(rollup.reader.estimate_gas(1, transfer, None).unwrap(), 21_000);
}

#[test]
fn an_estimate_is_enough_and_not_much_more() {
    let (mut rollup, contract) = with_contract();
    let cases = [
        (TxKind::Call(contract), word(0)),
        (TxKind::Call(contract), word(9)),
        (TxKind::Create, init_code(&STORE_RUNTIME)),
        (TxKind::Call(Address::repeat_byte(5)), Bytes::from(vec![1; 3_000])),
    ];
    for (nonce, (to, input)) in (0..).zip(cases) {
        let mut request =
            TransactionRequest::default().from(wallet(1).address()).input(TransactionInput::new(input.clone()));
        request.to = Some(to);
        let number = rollup.reader.head().header.number;
        let gas = rollup.reader.estimate_gas(number, request, None).unwrap();
        let sent = sign(1, tx(nonce, to, 0, input, gas));
        rollup.apply(vec![sent.clone()]);
        let head = rollup.reader.head();
        assert_eq!(rollup.outcome(&sent), TxOutcome::Executed { block: head.header.number, index: 0, success: true });
        assert!(gas <= head.header.gas_used * 5 / 4 + 2_300, "{gas} for {}", head.header.gas_used);
    }
}

#[test]
fn an_estimate_counts_what_inner_calls_keep_back() {
    // Calls itself with all gas 40 deep, and fails unless the innermost call succeeds: 63/64 of the gas at each level.
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let contract = wallet(0).address().create(0);
    // calldataload(0) n; if n == 0 stop; mstore(0, n - 1); if !call(gas, address, 0, 0, 32, 0, 0) revert
    let runtime = hex!("5f35 80 15 601c 57 6001 90 03 5f52 5f 5f 6020 5f 5f 30 5a f1 601c 57 5f 5f fd 5b 00");
    rollup.apply(vec![sign(0, tx(0, TxKind::Create, 0, init_code(&runtime), 500_000))]);
    let gas = rollup.reader.estimate_gas(1, request(contract, word(40)).from(wallet(1).address()), None).unwrap();
    let sent = sign(1, tx(0, TxKind::Call(contract), 0, word(40), gas));
    rollup.apply(vec![sent.clone()]);
    assert_eq!(rollup.outcome(&sent), TxOutcome::Executed { block: 2, index: 0, success: true });
}

#[test]
fn an_estimate_is_bounded_by_what_the_sender_can_pay() {
    let (rollup, contract) = with_contract();
    let mut request = request(contract, word(3)).from(Address::repeat_byte(0xee));
    request.max_fee_per_gas = Some(100 * GWEI);
    let error = rollup.reader.estimate_gas(1, request.clone(), None).unwrap_err();
    assert!(error.to_string().contains("gas required exceeds allowance (0)"), "{error}");
    let rich = AccountOverride { balance: Some(U256::from(ETHER)), ..Default::default() };
    let overrides = Some(StateOverride::from_iter([(Address::repeat_byte(0xee), rich)]));
    assert!(rollup.reader.estimate_gas(1, request, overrides).unwrap() > 21_000);
}

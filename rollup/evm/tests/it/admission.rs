//! What a mempool is told.

use crate::support::*;
use alloy::consensus::{TxEip1559, TxEip7702};
use alloy_primitives::{Address, Bytes, TxKind, U256};
use proptest::prelude::*;
use switchyard_rollup_core::{Account, Admission, Rejection, Sealing, Sequenced};

const TO: TxKind = TxKind::Call(Address::repeat_byte(1));

#[test]
fn a_good_transaction_is_described() {
    let rollup = Rollup::new(Sealing::HubBlock);
    let described = rollup.reader.inspect(&sign(2, tx(3, TO, 5, Bytes::new(), 50_000))).unwrap().unwrap();
    assert_eq!(
        described,
        Sequenced {
            sender: wallet(2).address(),
            nonce: 3,
            gas_limit: 50_000,
            fee_cap: 100 * GWEI,
            tip_cap: GWEI,
            max_cost: U256::from(50_000 * 100 * GWEI + 5),
        }
    );
}

#[test]
fn what_admission_takes_execution_takes_too_and_the_other_way_round() {
    let zeros = |n: usize| Bytes::from(vec![0; n]);
    let ones = |n: usize| Bytes::from(vec![1; n]);
    let call = |input: Bytes, gas| tx(0, TO, 0, input, gas);
    let create = |input: Bytes, gas| tx(0, TxKind::Create, 0, input, gas);
    let need = |need| Some(Rejection::IntrinsicGas { have: need - 1, need });
    // EIP-2028: 4 and 16 gas a byte; EIP-7623: at least 10 and 40; EIP-3860: 2 a word of init code on top of 32,000.
    let cases: Vec<(TxEip1559, Option<Rejection>)> = vec![
        (call(zeros(0), 21_000), None),
        (call(zeros(0), 20_999), need(21_000)),
        (call(zeros(100), 22_000), None),
        (call(zeros(100), 21_999), need(22_000)),
        (call(ones(100), 25_000), None),
        (call(ones(100), 24_999), need(25_000)),
        (create(zeros(64), 53_000 + 256 + 4), None),
        (create(zeros(64), 53_000 + 256 + 3), need(53_260)),
        (call(zeros(0), GAS_LIMIT), None),
        (call(zeros(0), GAS_LIMIT + 1), Some(Rejection::GasLimit { have: GAS_LIMIT + 1, limit: GAS_LIMIT })),
        (
            TxEip1559 { max_priority_fee_per_gas: 101 * GWEI, ..call(zeros(0), 21_000) },
            Some(Rejection::TipAboveFeeCap { tip: 101 * GWEI, cap: 100 * GWEI }),
        ),
    ];
    for (tx, expected) in cases {
        let mut rollup = Rollup::new(Sealing::HubBlock);
        let sent = sign(0, tx.clone());
        assert_eq!(rollup.reader.inspect(&sent).err(), expected, "{tx:?}");
        let applied = rollup.apply(vec![sent]);
        assert_eq!(applied.checkpoints.len(), usize::from(expected.is_none()), "{tx:?}: {applied:?}");
    }
}

#[test]
fn init_code_is_limited() {
    let rollup = Rollup::new(Sealing::HubBlock);
    let create = |bytes: usize| sign(0, tx(0, TxKind::Create, 0, vec![0; bytes], 5_000_000));
    assert!(rollup.reader.inspect(&create(49_152)).is_ok());
    let error = rollup.reader.inspect(&create(49_153)).unwrap_err();
    assert!(matches!(&error, Rejection::Malformed(m) if m.contains("49153")), "{error}");
}

#[test]
fn an_empty_authorization_list_is_refused() {
    let rollup = Rollup::new(Sealing::HubBlock);
    let empty = TxEip7702 { chain_id: CHAIN_ID, gas_limit: 100_000, max_fee_per_gas: GWEI, ..Default::default() };
    assert!(matches!(rollup.reader.inspect(&sign(0, empty)), Err(Rejection::Malformed(_))));
}

#[test]
fn a_cost_beyond_256_bits_is_the_greatest_cost() {
    let rollup = Rollup::new(Sealing::HubBlock);
    let tx = TxEip1559 { value: U256::MAX, ..tx(0, TO, 0, Bytes::new(), 21_000) };
    assert_eq!(rollup.reader.inspect(&sign(0, tx)).unwrap().unwrap().max_cost, U256::MAX);
}

#[test]
fn accounts_and_the_base_fee_are_those_of_the_head() {
    let mut rollup = Rollup::new(Sealing::HubBlock);
    let (sender, receiver) = (wallet(0).address(), Address::repeat_byte(1));
    assert_eq!(rollup.reader.account(sender).unwrap(), Account { nonce: 0, balance: U256::from(1_000 * ETHER) });
    assert_eq!(rollup.reader.account(receiver).unwrap(), Account::default());
    assert_eq!(rollup.reader.base_fee(), 875_000_000);
    rollup.apply(vec![transfer(0, 0, receiver, 9)]);
    assert_eq!(rollup.reader.account(sender).unwrap().nonce, 1);
    assert_eq!(rollup.reader.account(receiver).unwrap(), Account { nonce: 0, balance: U256::from(9) });
    assert!(rollup.reader.base_fee() < 875_000_000);
    assert_eq!(rollup.reader.segment_gas_limit(), GAS_LIMIT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn inspecting_never_panics(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 64)) {
        let rollup = Rollup::new(Sealing::HubBlock);
        for payload in payloads {
            prop_assert!(rollup.reader.inspect(&payload.into()).is_err());
        }
    }
}

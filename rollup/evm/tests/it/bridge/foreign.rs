//! A genesis may put whatever it likes at the contracts' addresses. That is its users' affair, and must not be the node's.

use super::*;
use serde_json::json;

/// A rollup with a contract at the Outbox's address that keeps what it is sent in slot 0, where the count is, and logs it.
fn with_another_outbox(sealing: Sealing) -> EvmConfig {
    let mut genesis = genesis();
    let code = Bytes::from_static(&STORE_RUNTIME);
    genesis["alloc"][OUTBOX.to_string()] = json!({ "balance": "0x0", "nonce": "0x1", "code": code });
    EvmConfig { genesis, ..config(sealing) }
}

#[test]
fn another_contract_in_the_outboxs_place_sends_nothing_and_stops_nothing() {
    let mut rollup = Rollup::with_config(with_another_outbox(Sealing::HubBlock));
    let mut nonce = 0;
    let mut set = |rollup: &mut Rollup, value: Bytes| {
        nonce += 1;
        let applied = rollup.apply(vec![sign(0, tx(nonce - 1, TxKind::Call(OUTBOX), 0, value, 100_000))]);
        let count = rollup.reader.outbox_count();
        for index in [0, 4] {
            assert_eq!(rollup.reader.sent(index).unwrap(), None);
            assert_eq!(rollup.reader.outbox_path(index, count).unwrap(), None);
        }
        (applied.checkpoints[0].outbox_root, count)
    };
    // What it says is a tree with five leaves is taken for one: operators attest the state as it is.
    let five = Accumulator::from_slots(|slot| if slot == 0 { B256::with_last_byte(5) } else { B256::ZERO }).unwrap();
    assert_eq!(set(&mut rollup, word(5)), (five.root(), 5));
    // This is no tree.
    assert_eq!(set(&mut rollup, Bytes::from(vec![0xff; 32])), (B256::ZERO, 0));
    let mut rollup = rollup.reopen();
    assert_eq!(rollup.reader.outbox_count(), 0);
    assert_eq!(set(&mut rollup, word(1 << 48)), (B256::ZERO, 0));
    assert_eq!(set(&mut rollup, word(5)), (five.root(), 5));
    assert_eq!(rollup.reopen().reader.outbox_count(), 5);
}

#[test]
fn an_account_without_code_at_the_address_is_no_outbox() {
    let mut genesis = genesis();
    genesis["alloc"][OUTBOX.to_string()] = json!({ "balance": "0x5", "nonce": "0x1" });
    let mut rollup = Rollup::with_config(EvmConfig { genesis, ..config(Sealing::HubBlock) });
    let applied = rollup.apply(vec![transfer(0, 0, OUTBOX, 1)]);
    assert_eq!(applied.checkpoints[0].outbox_root, B256::ZERO);
}

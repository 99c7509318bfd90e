//! Many threads at once.

use super::*;

#[test]
fn threads_that_insert_select_finalise_and_execute_lose_nothing() {
    const EACH: u64 = 150;
    let f = Fixture::new();
    let senders = 1u8..=4;
    let total = usize::from(*senders.end()) * EACH as usize;
    std::thread::scope(|scope| {
        for sender in senders.clone() {
            let f = &f;
            scope.spawn(move || {
                for nonce in 0..EACH {
                    let checked = f.pool.check(EVM, &Tx::new(sender, nonce).bytes()).unwrap();
                    f.pool.insert(checked, Origin::Local, f.start).unwrap();
                }
            });
        }
        scope.spawn(|| {
            let (mut height, mut included) = (0, HashSet::new());
            let mut unexecuted = Vec::new();
            while included.len() < total {
                let segments = segments(f.pool.select(
                    Budget { bytes: 3000, transactions: 20, segments: 4 },
                    &HashSet::new(),
                    no_bundles,
                ));
                let empty = segments.is_empty();
                for tx in segments.iter().flat_map(|s| &s.transactions) {
                    assert!(included.insert(tx.clone()), "in the log twice");
                }
                height += 1;
                f.pool.on_final(height, &segments.iter().map(Included::from).collect::<Vec<_>>());
                unexecuted.push((height, segments));
                // Execution stays two blocks behind the log.
                while unexecuted.len() > 2 || (empty && !unexecuted.is_empty()) {
                    let (height, segments) = unexecuted.remove(0);
                    let transactions = segments.first().map_or(&[][..], |s| &s.transactions);
                    f.pool.on_executed(EVM, height, f.chain.execute(transactions));
                }
                if empty {
                    std::thread::yield_now();
                }
            }
            for (height, segments) in unexecuted {
                f.pool.on_executed(EVM, height, f.chain.execute(&segments[0].transactions));
            }
        });
    });
    f.pool.assert_consistent();
    assert_eq!(f.pool.usage().transactions, 0);
    for sender in senders {
        assert_eq!(f.chain.account(address(sender)).unwrap().nonce, EACH, "every transaction was executed, in order");
        assert_eq!(f.pool.pending_nonce(EVM, address(sender)), None);
    }
}

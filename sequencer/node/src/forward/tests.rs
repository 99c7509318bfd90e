use super::*;
use crate::sync::Timing;
use alloy_primitives::{Address, U256};
use switchyard_bridge_core::SignedLeg;
use switchyard_mempool::MempoolConfig;
use switchyard_primitives::{Header, Limits};
use switchyard_rollup_core::{Account, Admission, Sequenced};
use switchyard_store::MemoryStore;

const ROLLUP: RollupId = RollupId(1);

/// A rollup in whose state, here, nobody has anything yet.
struct Behind;

impl Admission for Behind {
    fn inspect(&self, payload: &Bytes) -> Result<Option<Sequenced>, Rejection> {
        let sender = Address::with_last_byte(payload[0]);
        let max_cost = U256::from(1u8);
        Ok(Some(Sequenced { sender, nonce: 0, gas_limit: 1, fee_cap: 1, tip_cap: 1, max_cost }))
    }

    fn account(&self, _: Address) -> Option<Account> {
        Some(Account::default())
    }

    fn base_fee(&self) -> u64 {
        0
    }

    fn block_gas_limit(&self) -> u64 {
        u64::MAX
    }
}

fn follower() -> Arc<Forward> {
    let rollups = [(ROLLUP, Some(Arc::new(Behind) as Arc<dyn Admission>))];
    let mempool = Arc::new(Mempool::new(MempoolConfig::default(), Limits::default(), rollups));
    let store = Arc::new(MemoryStore::new(Header::genesis(B256::ZERO, 0, B256::ZERO)));
    let metrics = Arc::new(Metrics::default());
    let sources = Sources::new(&[], &Limits::default(), Timing::default(), metrics.clone()).unwrap();
    Forward::new(Arc::new(sources), mempool, store, vec![ROLLUP], metrics)
}

fn bundle() -> Arc<SignedBundle> {
    let leg = |sender: u8| SignedLeg {
        rollup: ROLLUP,
        terms: B256::with_last_byte(sender),
        transaction: Bytes::copy_from_slice(&[sender]),
    };
    Arc::new(SignedBundle { deadline: 9, salt: B256::ZERO, legs: vec![leg(1), leg(2)] })
}

#[tokio::test]
async fn a_follower_that_is_behind_does_not_refuse_what_a_validator_has_accepted_or_may_have() {
    let (follower, bundle) = (follower(), bundle());
    let (mempool, id) = (&follower.mempool, bundle.id());
    let refused = |code: &str| Err(BundleRefusal::passed_on(code, "as it said".into()));
    for code in ["unavailable", "not_replaced"] {
        follower.note_bundle(bundle.clone(), &refused(code)).await;
        assert_eq!((mempool.bundle_refusal(&id), mempool.bundle_elsewhere(&id)), (None, None), "{code}");
    }
    // What a validator refuses is refused, until one accepts it.
    for result in [Ok(id), refused("not_replicated")] {
        follower.note_bundle(bundle.clone(), &refused("leg")).await;
        assert_eq!(mempool.bundle_refusal(&id).unwrap().code(), "leg");
        follower.note_bundle(bundle.clone(), &result).await;
        assert_eq!((mempool.bundle_refusal(&id), mempool.bundle_elsewhere(&id)), (None, Some(9)));
    }
    let payload = Bytes::from_static(&[3]);
    let key = TxKey::of(ROLLUP, &payload);
    follower.keep(ROLLUP, vec![payload], &[Ok(key.hash)]).await;
    assert_eq!(mempool.drop_reason(&key), None);
}

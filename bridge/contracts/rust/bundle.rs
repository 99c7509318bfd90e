//! The calls of a bundle's legs.

use crate::AtomicVault::{self, Prepared, PreparedByContract};
use alloy::{
    consensus::{Transaction as _, TxEnvelope},
    eips::Decodable2718,
    sol_types::{SolCall, SolEvent},
};
use alloy_primitives::{Address, B256, Bytes, Log, TxKind, U256};
use switchyard_bridge_core::{Bundle, Leg, MoveKind, SignedBundle, SignedLeg, predeploys::ATOMIC_VAULT};

/// What a leg's transaction tells the vault when it calls it directly: the bundle, and the leg in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// What the bundle's id commits to.
    pub bundle: Bundle,
    /// Which leg it is.
    pub index: u8,
    /// The leg.
    pub leg: Leg,
}

/// Why a leg's transaction says nothing of its bundle, or something else than the bundle does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LegError {
    /// It is no encoded transaction.
    #[error("leg {leg}: not an EIP-2718 transaction")]
    Transaction {
        /// The leg's index.
        leg: usize,
    },
    /// It is no call of the vault's `prepare`.
    #[error("leg {leg}: its transaction does not call the vault's prepare")]
    NoPrepare {
        /// The leg's index.
        leg: usize,
    },
    /// Its calldata does not decode.
    #[error("leg {leg}: {detail}")]
    Calldata {
        /// The leg's index.
        leg: usize,
        /// Why.
        detail: String,
    },
    /// It names another bundle, place, leg or rollup.
    #[error("leg {leg}: its transaction names {what}")]
    Other {
        /// The leg's index.
        leg: usize,
        /// What it names.
        what: &'static str,
    },
    /// A move goes to an account that cannot be paid, nor send on what it is due: the vault refuses the leg.
    #[error("leg {leg}: move {item} is for {account}, from which it could never come out again: name another account")]
    Receiver {
        /// The leg's index.
        leg: usize,
        /// The move's index in the leg.
        item: usize,
        /// The zero account, or the vault.
        account: Address,
    },
    /// Fewer than two, or more than sixteen.
    #[error("a bundle of {0} legs")]
    Count(usize),
}

impl Prepare {
    /// Legs in order make a bundle; returns each one's call.
    pub fn all(deadline: u64, salt: B256, legs: Vec<Leg>) -> Vec<Self> {
        let bundle = Bundle { deadline, salt, legs: legs.iter().map(Leg::hash).collect() };
        (0..=u8::MAX).zip(legs).map(|(index, leg)| Self { bundle: bundle.clone(), index, leg }).collect()
    }

    /// Calldata of `AtomicVault.prepare`.
    pub fn calldata(&self) -> Bytes {
        let (bundle, leg) = ((&self.bundle).into(), (&self.leg).into());
        AtomicVault::prepareCall { bundle, index: self.index, leg }.abi_encode().into()
    }

    /// Coin that goes with the call: the sum of the leg's moves of coin.
    pub fn value(&self) -> U256 {
        let coin = self.leg.moves.iter().filter(|m| m.kind == MoveKind::Coin);
        coin.fold(U256::ZERO, |sum, m| sum.saturating_add(m.amount))
    }

    /// Whether each move can be paid out: the vault takes nothing for the zero account or for itself, since nobody could have it again.
    pub fn check(&self) -> Result<(), LegError> {
        let accounts = self.leg.moves.iter().enumerate().flat_map(|(item, m)| [(item, m.to), (item, m.refund)]);
        match accounts.into_iter().find(|(_, account)| [Address::ZERO, ATOMIC_VAULT].contains(account)) {
            Some((item, account)) => Err(LegError::Receiver { leg: usize::from(self.index), item, account }),
            None => Ok(()),
        }
    }

    /// Reads [`Self::calldata`]; `None` for a call of anything else.
    fn read(index: usize, data: &[u8]) -> Result<Option<Self>, LegError> {
        if data.get(..4) != Some(&AtomicVault::prepareCall::SELECTOR) {
            return Ok(None);
        }
        let bad = |detail: String| LegError::Calldata { leg: index, detail };
        let call = AtomicVault::prepareCall::abi_decode_validate(data).map_err(|e| bad(e.to_string()))?;
        let leg = Leg::try_from(&call.leg).map_err(|kind| bad(kind.to_string()))?;
        Ok(Some(Self { bundle: (&call.bundle).into(), index: call.index, leg }))
    }

    /// What an encoded transaction, leg `index` of some bundle, tells the vault; `None` where it calls another contract, which may call
    /// the vault in turn.
    pub fn of_transaction(index: usize, transaction: &[u8]) -> Result<Option<Self>, LegError> {
        let tx = TxEnvelope::decode_2718_exact(transaction).map_err(|_| LegError::Transaction { leg: index })?;
        Self::of(index, &tx)
    }

    /// The terms of a leg that a transaction has prepared, by the logs in its receipt; none where it has not. They are what the
    /// transaction tells the vault or, where a contract called it, what the vault has written down.
    pub fn made(tx: &TxEnvelope, logs: &[Log], bundle: &B256, leg: u8) -> Option<Self> {
        let of_vault = || logs.iter().filter(|log| log.address == ATOMIC_VAULT);
        let mut prepared = of_vault().filter_map(|log| Prepared::decode_log(log).ok());
        prepared.find(|event| (event.id, event.leg) == (*bundle, leg))?;
        let told = Self::of(usize::from(leg), tx).ok().flatten();
        let written = of_vault().filter_map(|log| Self::written(&PreparedByContract::decode_log(log).ok()?.data));
        told.into_iter().chain(written).find(|terms| terms.index == leg && terms.bundle.id() == *bundle)
    }

    fn written(event: &PreparedByContract) -> Option<Self> {
        let leg = Leg::try_from(&event.terms).ok()?;
        Some(Self { bundle: (&event.bundle).into(), index: event.leg, leg })
    }

    /// [`Self::of_transaction`] of one that is decoded.
    pub fn of(index: usize, tx: &TxEnvelope) -> Result<Option<Self>, LegError> {
        if tx.kind() == TxKind::Call(ATOMIC_VAULT) { Self::read(index, tx.input()) } else { Ok(None) }
    }
}

/// Makes a bundle of signed transactions that each call the vault's `prepare`, in the order of the legs.
pub fn assemble(transactions: Vec<Bytes>) -> Result<SignedBundle, LegError> {
    let count = transactions.len();
    if !(Bundle::LEGS_MIN..=Bundle::LEGS_MAX).contains(&count) {
        return Err(LegError::Count(count));
    }
    let mut legs = Vec::with_capacity(count);
    let mut terms = None;
    for (index, transaction) in transactions.into_iter().enumerate() {
        let prepare = Prepare::of_transaction(index, &transaction)?.ok_or(LegError::NoPrepare { leg: index })?;
        let transaction = switchyard_primitives::Bytes(transaction.0);
        legs.push(SignedLeg { rollup: prepare.leg.rollup, terms: prepare.leg.terms(), transaction });
        terms.get_or_insert((prepare.bundle.deadline, prepare.bundle.salt));
    }
    let (deadline, salt) = terms.unwrap_or_default();
    let bundle = SignedBundle { deadline, salt, legs };
    check(&bundle)?;
    Ok(bundle)
}

/// Whether each transaction that calls the vault directly does what the bundle says of its leg, and gives what can be paid out: one that
/// does not is a certain abort.
pub fn check(bundle: &SignedBundle) -> Result<(), LegError> {
    let id = bundle.id();
    for (index, signed) in bundle.legs.iter().enumerate() {
        let other = |what| Err(LegError::Other { leg: index, what });
        let Some(prepare) = Prepare::of_transaction(index, &signed.transaction)? else { continue };
        if usize::from(prepare.index) != index {
            return other("another place in the bundle");
        }
        if prepare.leg.rollup != signed.rollup {
            return other("another rollup");
        }
        if prepare.leg.terms() != signed.terms {
            return other("another leg");
        }
        if prepare.bundle.id() != id {
            return other("another bundle");
        }
        prepare.check()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::{
        consensus::{SignableTransaction, TxEip1559},
        eips::Encodable2718,
        primitives::Signature,
    };
    use alloy_primitives::address;
    use switchyard_bridge_core::{Call, Move};
    use switchyard_primitives::RollupId;

    fn leg(rollup: u64) -> Leg {
        let (to, refund) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let held = Move { kind: MoveKind::Coin, token: Address::ZERO, amount: U256::from(7), to, refund };
        let token = Move { kind: MoveKind::Erc20, token: Address::repeat_byte(9), ..held };
        let call = Call { participant: Address::repeat_byte(3), gas_limit: 100_000, data: Bytes::from_static(b"swap") };
        Leg {
            rollup: RollupId(rollup),
            signer: Address::repeat_byte(4),
            moves: vec![held, token, held],
            calls: vec![call],
        }
    }

    fn transaction(to: Address, prepare: &Prepare) -> Bytes {
        let tx = TxEip1559 {
            to: TxKind::Call(to),
            input: prepare.calldata(),
            value: prepare.value(),
            ..TxEip1559::default()
        };
        let signature = Signature::test_signature();
        TxEnvelope::from(tx.into_signed(signature)).encoded_2718().into()
    }

    fn prepared() -> Vec<Prepare> {
        Prepare::all(90, B256::repeat_byte(8), vec![leg(1), leg(2)])
    }

    fn signed() -> SignedBundle {
        assemble(prepared().iter().map(|p| transaction(ATOMIC_VAULT, p)).collect()).unwrap()
    }

    #[test]
    fn a_bundle_is_made_of_what_its_transactions_say() {
        let legs = prepared();
        let bundle = signed();
        assert_eq!((bundle.deadline, bundle.salt), (90, B256::repeat_byte(8)));
        assert_eq!(bundle.record().id(), legs[0].bundle.id());
        assert_eq!(legs[0].value(), U256::from(14));
        for (index, leg) in legs.iter().enumerate() {
            let found = Prepare::of_transaction(index, &bundle.legs[index].transaction).unwrap();
            assert_eq!(found.as_ref(), Some(leg));
        }
    }

    #[test]
    fn a_transaction_that_says_something_else_is_refused() {
        let refused = |change: fn(&mut SignedBundle)| {
            let mut bundle = signed();
            change(&mut bundle);
            check(&bundle).unwrap_err().to_string()
        };
        assert_eq!(refused(|b| b.legs.swap(0, 1)), "leg 0: its transaction names another place in the bundle");
        assert_eq!(refused(|b| b.deadline += 1), "leg 0: its transaction names another bundle");
        assert_eq!(refused(|b| b.legs[0].terms.0[0] ^= 1), "leg 0: its transaction names another leg");
        assert_eq!(refused(|b| b.legs[0].rollup.0 = 5), "leg 0: its transaction names another rollup");
        assert_eq!(refused(|b| b.legs[0].transaction = vec![2, 1].into()), "leg 0: not an EIP-2718 transaction");
    }

    #[test]
    fn what_could_not_be_paid_out_is_refused() {
        for account in [Address::ZERO, ATOMIC_VAULT] {
            for refund in [false, true] {
                let mut legs = [leg(1), leg(2)];
                let given = &mut legs[1].moves[2];
                *if refund { &mut given.refund } else { &mut given.to } = account;
                let legs = Prepare::all(90, B256::repeat_byte(8), legs.into());
                let refused = Err(LegError::Receiver { leg: 1, item: 2, account });
                assert_eq!(legs[1].check(), refused.clone().map(drop));
                assert_eq!(assemble(legs.iter().map(|p| transaction(ATOMIC_VAULT, p)).collect()), refused);
            }
        }
    }

    #[test]
    fn another_contract_may_call_the_vault() {
        let legs = prepared();
        let wallet = address!("00000000000000000000000000000000000000aa");
        let mut bundle = signed();
        bundle.legs[0].transaction = switchyard_primitives::Bytes(transaction(wallet, &legs[0]).0);
        assert_eq!(check(&bundle), Ok(()));
        let raw = bundle.legs.iter().map(|leg| Bytes(leg.transaction.0.clone())).collect();
        assert_eq!(assemble(raw), Err(LegError::NoPrepare { leg: 0 }));
    }
}

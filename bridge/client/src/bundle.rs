//! Bundles, from their legs' terms to what is submitted.

use crate::{Client, ClientError, Tx, sign};
use alloy::signers::local::PrivateKeySigner;
use alloy_primitives::B256;
use std::collections::{BTreeMap, btree_map::Entry};
use switchyard_bridge_contracts::{LegError, Prepare, bundle::assemble};
use switchyard_bridge_core::{Leg, SignedBundle};
use switchyard_proto::{to_bytes, v1};

/// Gas of a leg besides its items: the vault's bookkeeping.
const LEG_GAS: u64 = 120_000;
/// Gas of each move. Tokens that need more need a limit of their own.
const MOVE_GAS: u64 = 120_000;
/// Gas of each participant's `prepare`.
const PARTICIPANT_GAS: u64 = 500_000;

/// A bundle that is not signed yet: what its parties agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleDraft {
    /// Hub height at which it is aborted unless it is committed below.
    pub deadline: u64,
    /// Tells bundles with equal legs apart.
    pub salt: B256,
    /// In the order of the bundle.
    pub legs: Vec<Leg>,
}

impl BundleDraft {
    /// What each leg's transaction tells the vault. Whoever signs one has seen all of them.
    pub fn calls(&self) -> Vec<Prepare> {
        Prepare::all(self.deadline, self.salt, self.legs.clone())
    }

    /// The bundle's id; zero for one without legs.
    pub fn id(&self) -> B256 {
        self.calls().first().map_or(B256::ZERO, |call| call.bundle.id())
    }

    /// Whether each leg can be paid out, as far as its terms alone tell.
    pub fn check(&self) -> Result<(), LegError> {
        self.calls().iter().try_for_each(Prepare::check)
    }

    /// Signs all legs, for whoever has all the keys, with each account's next nonces. Tokens that legs give need an allowance for the
    /// vault before.
    pub async fn sign(&self, client: &mut Client, signers: &[PrivateKeySigner]) -> Result<SignedBundle, ClientError> {
        self.check()?;
        let mut accounts = BTreeMap::new();
        let mut transactions = Vec::with_capacity(self.legs.len());
        for (index, call) in self.calls().into_iter().enumerate() {
            let (rollup, address) = (call.leg.rollup, call.leg.signer);
            let signer = signers.iter().find(|signer| signer.address() == address);
            let signer = signer.ok_or(LegError::Other { leg: index, what: "a signer whose key is not here" })?;
            let account = match accounts.entry((rollup, address)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(client.account(rollup, address).await?),
            };
            let gas = leg_gas(&call.leg);
            let (_, raw) = sign(signer, account, Tx::Leg(call, gas))?;
            account.nonce += 1;
            transactions.push(raw.0.into());
        }
        Ok(assemble(transactions)?)
    }
}

/// Gas that usually suffices for a leg's `prepare`, with calldata at EIP-7623's floor.
pub(crate) fn leg_gas(leg: &Leg) -> u64 {
    let calldata: u64 = leg.calls.iter().map(|call| 40 * call.data.len() as u64).sum();
    let items = 40 * 32 * 6 * (leg.moves.len() + leg.calls.len()) as u64;
    let moves = MOVE_GAS * leg.moves.len() as u64;
    LEG_GAS + 40 * 32 * 40 + items + calldata + moves + PARTICIPANT_GAS * leg.calls.len() as u64
}

/// The request that submits a bundle.
pub fn submit_request(bundle: &SignedBundle) -> v1::SubmitBundleRequest {
    let leg = |leg: &switchyard_bridge_core::SignedLeg| v1::SignedLeg {
        rollup_id: leg.rollup.0,
        terms: to_bytes(leg.terms),
        transaction: leg.transaction.0.clone(),
    };
    v1::SubmitBundleRequest {
        deadline: bundle.deadline,
        salt: to_bytes(bundle.salt),
        legs: bundle.legs.iter().map(leg).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::Account;
    use alloy_primitives::{Address, U256};
    use switchyard_bridge_core::{Move, MoveKind, predeploys::ATOMIC_VAULT};
    use switchyard_primitives::RollupId;

    #[test]
    fn a_leg_for_nobody_is_not_signed() {
        let key = PrivateKeySigner::from_bytes(&B256::repeat_byte(1)).unwrap();
        let account = Account { chain_id: 1, nonce: 0, balance: U256::ZERO, base_fee: 1 };
        for (to, is_good) in [(Address::repeat_byte(1), true), (Address::ZERO, false), (ATOMIC_VAULT, false)] {
            let refund = key.address();
            let given = Move { kind: MoveKind::Coin, token: Address::ZERO, amount: U256::from(1), to, refund };
            let leg = |rollup, given| Leg {
                rollup: RollupId(rollup),
                signer: key.address(),
                moves: vec![given],
                calls: vec![],
            };
            let legs = vec![leg(1, Move { to: refund, ..given }), leg(2, given)];
            let draft = BundleDraft { deadline: 9, salt: B256::ZERO, legs };
            let refused = LegError::Receiver { leg: 1, item: 0, account: to };
            assert_eq!(draft.check(), if is_good { Ok(()) } else { Err(refused) });
            let signed = sign(&key, &account, Tx::Leg(draft.calls().remove(1), 100_000));
            assert_eq!(
                signed.map(drop).map_err(|error| error.code()),
                if is_good { Ok(()) } else { Err("leg".into()) }
            );
        }
    }
}

//! The vault: what it holds of a leg, calls that bring one further, and what they would do.

use crate::{
    Anchor, Delivery, Failed, Hub as HubLog,
    proof::{PROOF_GAS, call, calldata_gas},
};
use alloy::{
    primitives::{Address, B256, Bytes, U256, hex, keccak256},
    rpc::types::{
        TransactionRequest,
        state::{AccountOverride, StateOverride},
    },
    sol_types::SolCall,
};
use switchyard_bridge_contracts::{AtomicVault, Prepare};
use switchyard_bridge_core::{LegState, VaultState, predeploys::ATOMIC_VAULT};
use switchyard_primitives::RollupId;
use switchyard_rollup_core::evm::{EvmChain, EvmError};

/// Gas of a leg's settling besides its items.
const SETTLE_GAS: u64 = 120_000;
/// What the vault gives to a move.
pub(crate) const MOVE_GAS: u64 = 200_000;
/// What it takes to give an item its gas. EIP-150 keeps back a 64th besides.
const ITEM_GAS: u64 = 20_000;
/// Gas that the relayer spends on the items of one leg at the most; anyone may go on. One transaction spends less where a block has less.
pub(crate) const ITEMS_GAS: u64 = 10_000_000;

/// A leg's state in its rollup's vault, after the newest block.
pub(crate) fn vault_state(chain: &dyn EvmChain, rollup: RollupId, id: &B256, leg: u8) -> Result<VaultState, Failed> {
    // `states`, the contract's first variable: a mapping of mappings to `status u8, held u16`, packed from the right.
    let of_bundle = keccak256([id.as_slice(), B256::ZERO.as_slice()].concat());
    let slot = keccak256([B256::from(U256::from(leg)), of_bundle].concat());
    let number = chain.head().header.number;
    let word = chain.storage(number, ATOMIC_VAULT, slot);
    let [low, ..] = *word.map_err(|source| Failed::Rollup { rollup, source })?.as_limbs();
    Ok(read_state(low & 0xff, low >> 8))
}

fn read_state(status: u64, held: u64) -> VaultState {
    let state = match status {
        0 => LegState::None,
        1 => LegState::Prepared,
        2 => LegState::Committed,
        _ => LegState::Aborted,
    };
    VaultState { state, held: u16::try_from(held & 0xffff).unwrap_or(0) }
}

/// What the hub says of a leg.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    /// Its bundle is decided, in the block of this height.
    Decided { committed: bool, height: u64 },
    /// It was prepared outside its bundle.
    Released,
}

/// What one transaction may do of a leg's items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Those to choose from: bit `i` for item `i`.
    pub(crate) items: u16,
    /// Gas for each of them, where it is more than they are promised; `settle` gives no more.
    pub(crate) each: u64,
    /// Gas for all of them.
    pub(crate) gas: u64,
    /// Gas limit of the rollup's blocks.
    pub(crate) block_gas: u64,
}

enum Kind {
    Settle { call: AtomicVault::settleCall, timestamp: u64 },
    Retry(AtomicVault::retryCall),
}

/// A call of the vault for one leg.
pub(crate) struct VaultCall {
    rollup: RollupId,
    kind: Kind,
    /// Gas of each item.
    costs: Vec<u64>,
    /// Those that it carries out: bit `i` for item `i`.
    pub(crate) items: u16,
}

impl VaultCall {
    /// Brings what the hub says of a leg, with the items that there is room for; none if the anchor has not seen it.
    pub(crate) fn settle(
        hub: &dyn HubLog,
        rollup: RollupId,
        terms: &Prepare,
        verdict: Verdict,
        leaf: u64,
        anchor: &Anchor,
        room: Room,
    ) -> Result<Option<Self>, Failed> {
        let Some(proof) = anchor.proof(hub, leaf)? else { return Ok(None) };
        // `AtomicVault.Decision`.
        let (decision, height) = match verdict {
            Verdict::Decided { committed, height } => (u8::from(committed), height),
            Verdict::Released => (2, 0),
        };
        let proof =
            AtomicVault::HubProof { anchor: proof.anchor, index: proof.index, count: proof.count, path: proof.path };
        let call = AtomicVault::settleCall {
            bundle: (&terms.bundle).into(),
            index: terms.index,
            leg: (&terms.leg).into(),
            decision,
            height,
            proof,
            items: u16::MAX,
        };
        let kind = Kind::Settle { call, timestamp: anchor.timestamp };
        Ok(Some(Self { rollup, kind, costs: costs(terms, 0), items: 0 }.with_room(room)))
    }

    /// Carries out items of a settled leg that there is room for.
    pub(crate) fn retry(rollup: RollupId, terms: &Prepare, room: Room) -> Self {
        let call = AtomicVault::retryCall {
            bundle: (&terms.bundle).into(),
            index: terms.index,
            leg: (&terms.leg).into(),
            items: u16::MAX,
            gasLimit: U256::from(room.each),
        };
        Self { rollup, kind: Kind::Retry(call), costs: costs(terms, room.each), items: 0 }.with_room(room)
    }

    /// With the first items of `room` that one transaction can carry out.
    fn with_room(mut self, room: Room) -> Self {
        let other_gas = self.other_gas() + calldata_gas(&self.data());
        // A sixteenth is left for what is rounded here.
        let most = (room.block_gas - room.block_gas / 16).saturating_sub(other_gas).min(room.gas);
        let (mut items, mut gas) = (0u16, 0u64);
        for (item, cost) in self.costs.iter().enumerate().filter(|(item, _)| room.items >> item & 1 == 1) {
            if gas.saturating_add(*cost) <= most {
                items |= 1 << item;
                gas = gas.saturating_add(*cost);
            }
        }
        self.only(items);
        self
    }

    /// With no other items than these.
    pub(crate) fn only(&mut self, items: u16) {
        self.items = items;
        match &mut self.kind {
            Kind::Settle { call, .. } => call.items = items,
            Kind::Retry(call) => call.items = items,
        }
    }

    fn data(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Settle { call, .. } => call.abi_encode(),
            Kind::Retry(call) => call.abi_encode(),
        }
    }

    /// Besides the items and the calldata.
    fn other_gas(&self) -> u64 {
        match self.kind {
            Kind::Settle { .. } => PROOF_GAS + SETTLE_GAS,
            Kind::Retry(_) => SETTLE_GAS,
        }
    }

    /// Gas of the items.
    pub(crate) fn items_gas(&self) -> u64 {
        let items = self.costs.iter().enumerate().filter(|(item, _)| self.items >> item & 1 == 1);
        items.fold(0, |gas, (_, cost)| gas.saturating_add(*cost))
    }

    /// The call as anyone can send it.
    pub(crate) fn delivery(&self) -> Delivery {
        call(self.rollup, ATOMIC_VAULT, self.data(), self.other_gas().saturating_add(self.items_gas()))
    }

    /// The call to be tried out on the state after the anchor's block. There that block is not an earlier one yet, which a proof
    /// could name by its header; but its time can be looked up.
    pub(crate) fn trial(&self) -> Delivery {
        let mut trial = self.delivery();
        if let Kind::Settle { call, timestamp } = &self.kind {
            let mut call = call.clone();
            call.proof.anchor = timestamp.to_be_bytes().to_vec().into();
            trial.data = call.abi_encode().into();
        }
        // For the probe, and what EIP-150 keeps back on the way.
        trial.gas += trial.gas / 32 + 100_000;
        trial
    }
}

/// Gas of each of a leg's items, where they get `each` at the least.
fn costs(terms: &Prepare, each: u64) -> Vec<u64> {
    let moves = terms.leg.moves.iter().map(|_| MOVE_GAS);
    let promised = moves.chain(terms.leg.calls.iter().map(|call| call.gas_limit)).take(16);
    let cost = |gas: u64| gas.saturating_add(gas / 32 + ITEM_GAS);
    promised.map(|gas| cost(gas.max(each))).collect()
}

/// Who tries out calls of the vault: `at` is an address that only this relayer knows, where a simulated call finds code that no block
/// has, so that nobody who is called can tell the simulation by it.
pub(crate) struct Probe {
    /// The relayer's account, which pays.
    pub(crate) from: Address,
    /// Where the code is.
    pub(crate) at: Address,
    /// Fee cap and tip, wei for each unit of gas.
    pub(crate) fees: (u128, u128),
}

impl Probe {
    /// What a call would leave of a leg, on the state after block `number`; none if it would revert.
    pub(crate) fn try_out(
        &self,
        chain: &dyn EvmChain,
        number: u64,
        call: &Delivery,
        (id, leg): (&B256, u8),
    ) -> Result<Option<VaultState>, Failed> {
        let request = TransactionRequest::default()
            .from(self.from)
            .to(self.at)
            .gas_limit(call.gas)
            .max_fee_per_gas(self.fees.0)
            .max_priority_fee_per_gas(self.fees.1)
            .input(call.data.clone().into());
        let probe = AccountOverride { code: Some(probe_code(id, leg)), ..AccountOverride::default() };
        let state: StateOverride = [(self.at, probe)].into_iter().collect();
        match chain.call(number, request, Some(state)) {
            Ok(answer) => {
                let word = |end: usize| {
                    let bytes = answer.get(end - 8..end).and_then(|bytes| bytes.try_into().ok());
                    bytes.map_or(0, u64::from_be_bytes)
                };
                Ok(Some(read_state(word(32), word(64))))
            }
            Err(EvmError::Revert(_) | EvmError::Halt(_) | EvmError::InvalidCall(_)) => Ok(None),
            Err(source) => Err(Failed::Rollup { rollup: call.rollup, source }),
        }
    }
}

/// Calls the vault with the calldata, and returns `states(id, leg)` of it as it is then; reverts if the vault does.
fn probe_code(id: &B256, leg: u8) -> Bytes {
    let vault = ATOMIC_VAULT.as_slice();
    let question = AtomicVault::statesCall { id: *id, leg }.abi_encode();
    let parts: [&[u8]; 6] = [
        // CALLDATACOPY(0, 0, CALLDATASIZE); CALL(GAS, vault, 0, 0, CALLDATASIZE, 0, 0)
        &hex!("365f5f37" "5f5f365f5f73"),
        vault,
        // JUMPI(0x26); REVERT(0, 0); at 0x26: CODECOPY(0, 0x4f, 68); STATICCALL(GAS, vault, 0, 68, 0, 64)
        &hex!("5af1" "602657" "5f5ffd" "5b" "6044604f5f39" "60405f60445f73"),
        vault,
        // RETURN(0, 64); at 0x4f: the question
        &hex!("5afa50" "60405ff3"),
        &question,
    ];
    parts.concat().into()
}

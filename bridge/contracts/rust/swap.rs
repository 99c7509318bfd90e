//! What a leg asks of the pool that takes part in bundles.

use alloy::sol_types::SolValue as _;
use alloy_primitives::{Address, U256};
use switchyard_bridge_core::Call;

/// A swap in a [`crate::SwapPool`], as part of a leg. The leg's signer brings the input, by an allowance for the pool; the price is made
/// and the output reserved when the leg is prepared, and paid if the bundle is committed. If it is aborted the signer has its input again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The pool.
    pub pool: Address,
    /// The token that is brought: one of the pool's two.
    pub token_in: Address,
    /// How much of it, in its smallest unit.
    pub amount_in: U256,
    /// Less than this of the other token, and the leg votes no.
    pub amount_out_min: U256,
    /// Who gets the other token.
    pub to: Address,
}

impl Swap {
    /// Gas that suffices for the pool's `commit` and `abort`, with tokens that need no more than OpenZeppelin's.
    pub const GAS: u64 = 200_000;

    /// The leg's call.
    pub fn call(&self) -> Call {
        let Self { pool, token_in, amount_in, amount_out_min, to } = *self;
        let data = (token_in, amount_in, amount_out_min, to).abi_encode_params();
        Call { participant: pool, gas_limit: Self::GAS, data: data.into() }
    }
}

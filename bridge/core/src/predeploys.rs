//! Addresses of the contracts in each EVM rollup's genesis; the code is in `bridge/contracts/artifacts`.

use alloy_primitives::{Address, address};

/// What the contracts know of the hub. Its slot 0 holds the rollup's own id.
pub const HUB: Address = address!("5359000000000000000000000000000000000001");
/// The gateway out; its slots 0 to 48 are an [`crate::Accumulator`].
pub const OUTBOX: Address = address!("5359000000000000000000000000000000000002");
/// The gateway in, and the escrow of native coin.
pub const INBOX: Address = address!("5359000000000000000000000000000000000003");
/// Moves ERC-20 tokens.
pub const TOKEN_BRIDGE: Address = address!("5359000000000000000000000000000000000004");
/// The code behind the tokens that the token bridge makes.
pub const BRIDGED_ERC20: Address = address!("5359000000000000000000000000000000000005");
/// Holds what the legs of bundles give.
pub const ATOMIC_VAULT: Address = address!("5359000000000000000000000000000000000006");

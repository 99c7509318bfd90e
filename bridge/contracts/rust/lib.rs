//! The contracts of messages and bundles for Rust: bindings made of the committed artifacts, conversions to and from the
//! values of `switchyard-bridge-core`, the accounts that a rollup's genesis holds (`docs/specs/messages.md`), and proof by sums that
//! no coin comes or goes.
//!
//! Nobody needs a Solidity compiler for it: `artifacts/` is what `src/` compiles to, and `run.sh` holds the two together.

mod bindings;
mod books;
pub mod bundle;
mod convert;
mod genesis;
pub mod ledger;
mod swap;

pub use bindings::{
    AtomicVault, BridgedERC20, Hub, IMessageAttributes, Inbox, Outbox, SwapPool, TokenBridge, TwinERC20,
};
pub use books::{Books, Totals};
pub use bundle::{LegError, Prepare};
pub use convert::{UnknownKind, interoperable_address};
pub use genesis::genesis;
pub use ledger::Ledger;
pub use swap::Swap;

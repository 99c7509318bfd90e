//! For end-to-end tests: load with known answers, links that can be made bad, and checkers of what must hold in a network of
//! real processes.

mod checks;
mod coin;
mod link;
mod load;
pub mod power;

pub use checks::{HubLog, agree_on_hub, agree_on_rollup, caught_up};
pub use coin::conserved;
pub use link::{Conditions, Link, Mesh};
pub use load::{Sent, Wallet, raw_payload, submit_evm, submit_raw};

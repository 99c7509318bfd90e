//! For end-to-end tests: load with known answers, and checkers of what must hold in a network of real processes.

mod checks;
mod load;

pub use checks::{HubLog, agree_on_hub, agree_on_rollup, caught_up};
pub use load::{Sent, Wallet, raw_payload, submit_evm, submit_raw};

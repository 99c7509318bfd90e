//! The node's parts against a node that serves real blocks, and the program itself.

mod cli;
#[path = "../../../rpc/tests/it/fake.rs"]
mod fake;
mod light;
mod process;
mod running;
mod startup;

//! The node's parts against a node that serves real blocks.

mod cli;
#[path = "../../../rpc/tests/it/fake.rs"]
mod fake;
mod light;

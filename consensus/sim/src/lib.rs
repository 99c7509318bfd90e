//! A network of validators in one process with simulated time, in which every fault is chosen by a seed.
//!
//! What runs is the engine's own wiring, the node's builder, mempool, ingest, finalizer and executor, and the embedded EVM;
//! what is simulated is the runtime (time, scheduling, disks) and the network. See the README for what each checker holds
//! and how to repeat a run.

pub mod bundles;
pub mod byzantine;
pub mod check;
pub mod client;
pub mod context;
pub mod deposits;
pub mod directory;
pub mod machine;
pub mod messages;
pub mod network;
pub mod operators;
pub mod plan;
pub mod relays;
pub mod rollups;
pub mod run;
pub mod seen;
pub mod trace;
pub mod validator;
pub mod wan;
pub mod witness;
pub mod world;

//! The servers: gRPC (`switchyard.v1`), Ethereum JSON-RPC for each EVM rollup, and metrics over HTTP. They see the
//! node through [`Gateway`] alone.

pub mod eth;
mod gateway;

pub use gateway::{Gateway, GatewayError, HubTip, NetworkInfo, SegmentAt, TxStatus};

//! The servers: gRPC (`switchyard.v1`), Ethereum JSON-RPC for each EVM rollup, and metrics over HTTP. They see the
//! node through [`Gateway`] alone.

mod connections;
pub mod eth;
mod gateway;
pub mod grpc;
pub mod http;
mod metrics;

pub use connections::{Connection, ConnectionLimits, bounded};
pub use gateway::{
    BlockAt, BundleAt, EpochAt, Gateway, GatewayError, HubTip, MessageAt, NetworkInfo, OpenCall, SegmentAt, TxStatus,
};
pub use http::{Probe, Probes, Problem};
pub use metrics::RpcMetrics;

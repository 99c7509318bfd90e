//! The servers through real sockets, over a gateway that holds real blocks.

mod fake;
mod grpc;
mod http;

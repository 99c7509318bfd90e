//! switchyard-mempool

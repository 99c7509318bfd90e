//! switchyard-testnet-local

//! switchyard-testnet-kit

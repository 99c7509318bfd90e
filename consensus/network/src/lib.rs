//! switchyard-consensus-network

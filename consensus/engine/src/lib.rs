//! switchyard-consensus-engine

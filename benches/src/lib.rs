//! switchyard-benches

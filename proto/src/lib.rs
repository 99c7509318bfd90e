//! switchyard-proto

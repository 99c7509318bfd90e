//! switchyard-rollup-evm

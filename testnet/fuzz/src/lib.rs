//! Fuzz targets: one function for each decoder that reads from the network, a disk or a user.
//!
//! A target takes any bytes and says whether they were accepted. It must not panic, whatever the bytes, and panics itself
//! where a property does not hold: mostly that what was accepted is encoded to the same bytes again, which keeps hashes and
//! signatures unambiguous. `make fuzz` runs each under libFuzzer; `tests/it` feeds every one its committed inputs.

mod chain;
mod consensus;
mod disk;
mod operator;
pub mod seeds;
mod values;

/// One decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folders below `corpus/` and `regressions/`.
    pub name: &'static str,
    /// Whether the bytes were accepted. Panics where a property does not hold.
    pub run: fn(&[u8]) -> bool,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "header", run: values::header },
    Target { name: "block", run: values::block },
    Target { name: "compact_block", run: values::compact_block },
    Target { name: "segment_proof", run: values::segment_proof },
    Target { name: "certificate", run: consensus::certificate },
    Target { name: "finality_proof", run: consensus::finality_proof },
    Target { name: "block_segment", run: values::block_segment },
    Target { name: "grpc_requests", run: values::grpc_requests },
    Target { name: "system_record", run: consensus::system_record },
    Target { name: "hub_state", run: disk::hub_state },
    Target { name: "exchange_message", run: consensus::exchange_message },
    Target { name: "network_frames", run: consensus::network_frames },
    Target { name: "gossip_frames", run: consensus::gossip_frames },
    Target { name: "gossip_message", run: consensus::gossip_message },
    Target { name: "sign_record", run: disk::sign_record },
    Target { name: "sign_record_entries", run: disk::sign_record_entries },
    Target { name: "interchange", run: disk::interchange },
    Target { name: "store_records", run: disk::store_records },
    Target { name: "evm_records", run: disk::evm_records },
    Target { name: "genesis", run: operator::genesis },
    Target { name: "rollup_genesis", run: operator::rollup_genesis },
    Target { name: "config", run: operator::config },
    Target { name: "signer_config", run: operator::signer_config },
    Target { name: "signer_request", run: consensus::signer_request },
    Target { name: "keystore", run: operator::keystore },
    Target { name: "transaction", run: chain::transaction },
    Target { name: "json_rpc", run: chain::json_rpc },
];

/// What was accepted must be what its own encoding is: for decoders that know one encoding of each value.
fn same(input: &[u8], encoded: Option<impl AsRef<[u8]>>) -> bool {
    if let Some(encoded) = &encoded {
        assert_eq!(input, encoded.as_ref(), "accepted, and encoded to other bytes");
    }
    encoded.is_some()
}

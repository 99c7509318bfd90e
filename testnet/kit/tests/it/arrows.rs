//! The arrows between crates, as ARCHITECTURE.md's map has them. Dependencies of tests alone are free.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::collections::{BTreeMap, BTreeSet};

const PRIMITIVES: &str = "switchyard-primitives";
const PROTO: &str = "switchyard-proto";
const CONSENSUS_CORE: &str = "switchyard-consensus-core";
const GUARD: &str = "switchyard-consensus-guard";
const NETWORK: &str = "switchyard-consensus-network";
const ENGINE: &str = "switchyard-consensus-engine";
const SIM: &str = "switchyard-consensus-sim";
const ROLLUP_CORE: &str = "switchyard-rollup-core";
const EVM: &str = "switchyard-rollup-evm";
const BRIDGE_CORE: &str = "switchyard-bridge-core";
const CONTRACTS: &str = "switchyard-bridge-contracts";
const CLIENT: &str = "switchyard-bridge-client";
const RELAYER: &str = "switchyard-relayer";
const MEMPOOL: &str = "switchyard-mempool";
const STORE: &str = "switchyard-store";
const RPC: &str = "switchyard-rpc";
const NODE: &str = "switchyard-node";
const LOCAL: &str = "switchyard-testnet-local";
const KIT: &str = "switchyard-testnet-kit";
const FUZZ: &str = "switchyard-fuzz";
const BENCHES: &str = "switchyard-benches";

const CORES: [&str; 5] = [PRIMITIVES, PROTO, CONSENSUS_CORE, ROLLUP_CORE, BRIDGE_CORE];
const PRODUCT: [&str; 15] = [
    PRIMITIVES,
    PROTO,
    CONSENSUS_CORE,
    GUARD,
    NETWORK,
    ENGINE,
    ROLLUP_CORE,
    EVM,
    BRIDGE_CORE,
    CONTRACTS,
    CLIENT,
    RELAYER,
    MEMPOOL,
    STORE,
    RPC,
];

/// Each crate of the workspace and the crates of ours that it may depend on.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let all = |more: &[&'static str]| [PRODUCT.as_slice(), more].concat();
    BTreeMap::from([
        (PRIMITIVES, vec![]),
        (PROTO, vec![PRIMITIVES]),
        (CONSENSUS_CORE, vec![PRIMITIVES, PROTO]),
        (GUARD, vec![PRIMITIVES, CONSENSUS_CORE]),
        (NETWORK, vec![PRIMITIVES, PROTO, CONSENSUS_CORE]),
        (ENGINE, vec![PRIMITIVES, PROTO, CONSENSUS_CORE, GUARD, NETWORK]),
        (BRIDGE_CORE, vec![PRIMITIVES, CONSENSUS_CORE]),
        (CONTRACTS, vec![PRIMITIVES, BRIDGE_CORE]),
        (CLIENT, vec![PRIMITIVES, PROTO, BRIDGE_CORE, CONTRACTS]),
        (RELAYER, vec![PRIMITIVES, BRIDGE_CORE, CONTRACTS, ROLLUP_CORE]),
        (ROLLUP_CORE, vec![PRIMITIVES, BRIDGE_CORE]),
        (EVM, vec![PRIMITIVES, BRIDGE_CORE, CONTRACTS, ROLLUP_CORE]),
        (MEMPOOL, CORES.to_vec()),
        (STORE, CORES.to_vec()),
        (RPC, CORES.to_vec()),
        (NODE, all(&[])),
        (SIM, all(&[NODE])),
        (LOCAL, all(&[NODE])),
        (KIT, all(&[NODE, LOCAL])),
        (FUZZ, all(&[NODE])),
        (BENCHES, all(&[NODE, LOCAL, KIT])),
    ])
}

/// Libraries that stay behind one part's interface: a name, or a prefix that ends in `*`, and who may name it.
const CONFINED: &[(&str, &[&str])] = &[
    ("commonware-*", &[NETWORK, ENGINE, SIM]),
    ("commonware-consensus", &[ENGINE, SIM]),
    ("libp2p*", &[NETWORK]),
    ("rocksdb", &[STORE, EVM]),
    ("revm*", &[EVM]),
    ("alloy-evm", &[EVM]),
    ("eth_trie", &[EVM]),
    ("tonic-health", &[RPC, LOCAL]),
    ("tonic-reflection", &[RPC]),
    ("axum*", &[RPC]),
    ("jsonrpsee*", &[RPC]),
    ("criterion", &[]),
    ("proptest", &[]),
];

/// Crates of values and rules alone: nothing in them waits or does I/O.
const PURE: [&str; 2] = [PRIMITIVES, BRIDGE_CORE];
const ASYNC: [&str; 5] = ["tokio", "futures", "async-trait", "tonic", "hyper"];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata of the workspace")
}

fn shipped(package: &Package) -> BTreeSet<&str> {
    package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development).map(|d| d.name.as_str()).collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[test]
fn every_crate_is_in_the_table_and_the_table_names_no_other() {
    let metadata = metadata();
    let members: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(members, allowed().into_keys().collect());
}

#[test]
fn crates_depend_on_each_other_only_as_the_map_allows() {
    let (metadata, allowed) = (metadata(), allowed());
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let targets = &allowed[package.name.as_str()];
        for target in shipped(package).into_iter().filter(|name| allowed.contains_key(name)) {
            if !targets.contains(&target) {
                wrong.push(format!("{} -> {target}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "not allowed: {wrong:#?}");
}

#[test]
fn confined_libraries_are_named_only_where_they_belong() {
    let mut wrong = Vec::new();
    for package in &metadata().packages {
        for name in shipped(package) {
            for (pattern, owners) in CONFINED {
                if matches(pattern, name) && !owners.contains(&package.name.as_str()) {
                    wrong.push(format!("{} -> {name} (only {owners:?})", package.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "not allowed: {wrong:#?}");
}

#[test]
fn crates_of_values_alone_have_no_async_runtime() {
    let mut wrong = Vec::new();
    for package in metadata().packages.iter().filter(|p| PURE.contains(&p.name.as_str())) {
        wrong.extend(
            shipped(package).into_iter().filter(|d| ASYNC.contains(d)).map(|d| format!("{} -> {d}", package.name)),
        );
    }
    assert!(wrong.is_empty(), "not allowed: {wrong:#?}");
}

#[test]
fn dependencies_come_from_the_workspace_or_from_crates_io() {
    for package in &metadata().packages {
        for dependency in &package.dependencies {
            let source = dependency.source.as_ref().map(|s| s.repr.as_str());
            let known = match source {
                None => dependency.path.is_some(),
                Some(source) => source == "registry+https://github.com/rust-lang/crates.io-index",
            };
            assert!(known, "{} -> {} from {source:?}", package.name, dependency.name);
        }
    }
}

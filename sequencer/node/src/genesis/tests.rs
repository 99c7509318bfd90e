use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use switchyard_rollup_core::{Sealing, Vm};

fn manifest() -> impl Strategy<Value = RollupManifest> {
    let evm = (any::<u64>(), "[a-z]{1,8}").prop_map(|(chain_id, text)| Vm::Evm {
        genesis: json!({
            "config": { "chainId": chain_id, "terminalTotalDifficultyPassed": true },
            "alloc": { (text.clone()): { "balance": "0x1", "code": text } },
            "list": [1, 2, null],
        }),
    });
    let vm = prop_oneof![Just(Vm::Opaque), evm];
    let sealing = prop_oneof![Just(Sealing::HubBlock), Just(Sealing::OneSecond)];
    (any::<u64>(), "[a-z]{1,8}", vm, sealing).prop_map(|(id, name, vm, sealing)| RollupManifest {
        id: RollupId(id),
        name,
        vm,
        sealing,
    })
}

fn validator() -> impl Strategy<Value = GenesisValidator> {
    (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(identity, bytes)| {
        let (mut bls, mut possession) = ([0; 48], [0; 96]);
        bls[..32].copy_from_slice(&bytes);
        possession[..32].copy_from_slice(&bytes);
        GenesisValidator::new(Seat { identity: identity.into(), bls: bls.into() }, possession.into())
    })
}

/// A genesis that need not be valid: its id is defined all the same.
fn genesis() -> impl Strategy<Value = Genesis> {
    let limits = (1usize..1 << 40, any::<u16>(), any::<u16>(), any::<u32>()).prop_map(
        |(body_bytes, segments, transactions, transaction_bytes)| GenesisLimits {
            body_bytes,
            segments: segments.into(),
            transactions: transactions.into(),
            transaction_bytes: transaction_bytes as usize,
        },
    );
    let validators = proptest::collection::vec(validator(), 1..4);
    let rollups = proptest::collection::vec(manifest(), 0..4);
    ("[a-z]{0,8}", any::<u64>(), validators, rollups, limits, any::<u64>()).prop_map(
        |(name, timestamp_ms, validators, rollups, limits, replay_window_blocks)| Genesis {
            protocol: 2,
            name,
            timestamp_ms,
            validators,
            rollups,
            operators: Vec::new(),
            limits,
            epochs: GenesisEpochs::default(),
            replay_window_blocks,
        },
    )
}

/// JSON pointers of all values that hold no others.
fn leaves(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| leaves(value, format!("{at}/{key}"), out)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, value)| leaves(value, format!("{at}/{i}"), out)),
        _ => out.push(at),
    }
}

/// Another value of the same kind.
fn changed(value: &Value) -> Value {
    match value {
        Value::Null => json!(0),
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => json!(number.as_u64().map_or(0, |n| n ^ 1)),
        Value::String(text) if text == "hub_block" => json!("one_second"),
        Value::String(text) if text == "one_second" => json!("hub_block"),
        Value::String(text) => match text.strip_suffix('0') {
            Some(start) => json!(format!("{start}1")),
            None if text.starts_with("0x") => json!(format!("{}0", &text[..text.len() - 1])),
            None => json!(format!("{text}0")),
        },
        other => other.clone(),
    }
}

/// The same JSON with keys in another order, and white space.
fn rewritten(value: &Value, seed: u64) -> String {
    let space = ["", " ", "\n\t"][usize::try_from(seed % 3).unwrap()];
    let next = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let joined = match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            let turn = usize::try_from(seed % 97).unwrap() % entries.len().max(1);
            entries.rotate_left(turn);
            if seed.is_multiple_of(2) {
                entries.reverse();
            }
            let entry = |(key, value): (&String, &Value)| format!("{space}\"{key}\"{space}:{}", rewritten(value, next));
            format!("{{{}}}", entries.into_iter().map(entry).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| rewritten(item, next)).collect();
            format!("[{}]", items.join(","))
        }
        leaf => leaf.to_string(),
    };
    format!("{space}{joined}{space}")
}

proptest! {
    #[test]
    fn changing_any_field_changes_the_id(genesis in genesis(), leaf in any::<prop::sample::Index>()) {
        let mut value = serde_json::to_value(&genesis).unwrap();
        let mut all = Vec::new();
        leaves(&value, String::new(), &mut all);
        // The kind of a rollup's VM has no other value with the same fields.
        all.retain(|at| !at.ends_with("/kind"));
        let at = &all[leaf.index(all.len())];
        let place = value.pointer_mut(at).unwrap();
        *place = changed(place);
        let other: Genesis = serde_json::from_value(value).unwrap_or_else(|e| panic!("{at}: {e}"));
        prop_assert_ne!(&other, &genesis, "{}", at);
        prop_assert_ne!(other.id().unwrap(), genesis.id().unwrap(), "{}", at);
    }

    #[test]
    fn adding_removing_or_reordering_changes_the_id(genesis in genesis(), more in validator(), rollup in manifest()) {
        let id = genesis.id().unwrap();
        let change = |f: &dyn Fn(&mut Genesis)| {
            let mut other = genesis.clone();
            f(&mut other);
            (other != genesis).then(|| other.id().unwrap())
        };
        prop_assert_ne!(change(&|g| g.validators.push(more.clone())), Some(id));
        prop_assert_ne!(change(&|g| g.validators.truncate(g.validators.len() - 1)), Some(id));
        prop_assert_ne!(change(&|g| g.validators.reverse()), Some(id));
        prop_assert_ne!(change(&|g| g.rollups.push(rollup.clone())), Some(id));
        prop_assert_ne!(change(&|g| g.rollups.reverse()), Some(id));
    }

    #[test]
    fn the_id_depends_on_neither_key_order_nor_white_space(genesis in genesis(), seed in any::<u64>()) {
        let text = rewritten(&serde_json::to_value(&genesis).unwrap(), seed);
        let other: Genesis = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&other, &genesis);
        prop_assert_eq!(other.id().unwrap(), genesis.id().unwrap());
    }
}

#[test]
fn what_is_left_out_is_the_same_as_the_default() {
    let text = r#"{ "name": "a", "timestamp_ms": 1, "validators": [], "rollups": [] }"#;
    let short: Genesis = serde_json::from_str(text).unwrap();
    let mut value = serde_json::to_value(&short).unwrap();
    assert!(value["limits"].is_object() && value["replay_window_blocks"] == json!(8192));
    value["limits"].as_object_mut().unwrap().remove("segments");
    let whole: Genesis = serde_json::from_value(value).unwrap();
    assert_eq!(whole.id().unwrap(), short.id().unwrap());
}

#[test]
fn an_unknown_key_is_refused_by_name_at_every_level() {
    let seat = Seat { identity: B256::ZERO, bls: FixedBytes::ZERO };
    let genesis = Genesis {
        protocol: 1,
        name: "a".into(),
        timestamp_ms: 1,
        validators: vec![GenesisValidator::new(seat, FixedBytes::ZERO)],
        rollups: vec![RollupManifest { id: RollupId(1), name: "a".into(), vm: Vm::Opaque, sealing: Sealing::HubBlock }],
        operators: Vec::new(),
        limits: GenesisLimits::default(),
        epochs: GenesisEpochs::default(),
        replay_window_blocks: 1,
    };
    let value = serde_json::to_value(&genesis).unwrap();
    assert!(serde_json::from_value::<Genesis>(value.clone()).is_ok());
    // In the last one `vm` has no fields of its own.
    for at in ["", "/validators/0", "/limits", "/rollups/0", "/rollups/0/vm"] {
        let mut value = value.clone();
        value.pointer_mut(at).unwrap()["surprise"] = json!(1);
        let refused = serde_json::from_value::<Genesis>(value).map_err(|e| e.to_string());
        assert!(refused.as_ref().is_err_and(|e| e.contains("surprise")), "{at}: {refused:?}");
    }
}

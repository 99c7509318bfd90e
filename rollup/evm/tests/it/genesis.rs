//! Which genesis and which database a rollup opens.

use crate::support::*;
use alloy_primitives::{Address, B256, U256, b256};
use serde_json::{Value, json};
use switchyard_bridge_core::Deposit;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Driver, Sealing, SegmentInput, evm::EvmChain};
use switchyard_rollup_evm::{EvmConfig, EvmOpenError, EvmRollup, GenesisError};

fn open_error(genesis: Value) -> GenesisError {
    let folder = tempfile::tempdir().unwrap();
    match EvmRollup::open(folder.path(), EvmConfig { genesis, ..config(Sealing::HubBlock) }) {
        Err(EvmOpenError::Genesis(e)) => e,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("opened"),
    }
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut genesis = genesis();
    change(&mut genesis);
    genesis
}

#[test]
fn sepolias_alloc_has_sepolias_state_root() {
    // From github.com/eth-clients/sepolia, metadata/genesis.json.
    let million = "0xd3c21bcecceda1000000";
    let alloc = json!({
        "0000006916a87b82333f4245046623b23794c65c": { "balance": "0x84595161401484a000000" },
        "10f5d45854e038071485ac9e402308cf80d2d2fe": { "balance": "0x52b7d2dcc80cd2e4000000" },
        "799d329e5f583419167cd722962485926e338f4a": { "balance": "0xde0b6b3a7640000" },
        "7cf5b79bfe291a67ab02b393e456ccc4c266f753": { "balance": million },
        "8b7f0977bb4f0fbe7076fa22bc24aca043583f5e": { "balance": million },
        "a2a6d93439144ffe4d27c9e088dcd8b783946263": { "balance": million },
        "aaec86394441f915bce3e6ab399977e9906f3b69": { "balance": million },
        "b21c33de1fab3fa15499c62b59fe0cc3250020d1": { "balance": "0x52b7d2dcc80cd2e4000000" },
        "bc11295936aa79d594139de1b2e12629414f3bdb": { "balance": million },
        "beef32ca5b9a198d27b4e02f4c70439fe60356cf": { "balance": million },
        "d7d76c58b3a519e9fa6cc4d22dc017259bc49f1e": { "balance": "0x52b7d2dcc80cd2e4000000" },
        "d7eddb78ed295b3c9629240e8924fb8d8874ddd8": { "balance": million },
        "d9a5179f091d85051d3c982785efd1455cec8699": { "balance": million },
        "e2e2659028143784d557bcec6ff3a0721048880a": { "balance": million },
        "f47cae1cf79ca6758bfc787dbd21e6bdbe7112b8": { "balance": million },
    });
    let genesis = with(|g| g["alloc"] = alloc);
    let rollup = Rollup::with_config(EvmConfig { genesis, ..config(Sealing::HubBlock) });
    let root = b256!("5eb6e371a698b8d68f665192350ffcecbbbf322916f4b51bd79bb6887da3f494");
    assert_eq!(rollup.reader.head().header.state_root, root);
}

#[test]
fn an_empty_alloc_has_the_empty_root() {
    let genesis = with(|g| g["alloc"] = json!({}));
    let rollup = Rollup::with_config(EvmConfig { genesis, ..config(Sealing::HubBlock) });
    let root = b256!("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421");
    assert_eq!(rollup.reader.head().header.state_root, root);
}

#[test]
fn genesis_code_and_storage_are_readable() {
    let address = alloy_primitives::Address::repeat_byte(0x77);
    let genesis = with(|g| {
        g["alloc"][address.to_string()] = json!({
            "balance": "0x5", "nonce": "0x1", "code": "0x6001",
            "storage": { "0x01": "0x02", "0x03": "0x00" },
        });
    });
    let rollup = Rollup::with_config(EvmConfig { genesis, ..config(Sealing::HubBlock) });
    assert_eq!(rollup.reader.code(0, address).unwrap(), alloy_primitives::bytes!("6001"));
    assert_eq!(rollup.reader.storage(0, address, B256::with_last_byte(1)).unwrap(), U256::from(2));
    assert_eq!(rollup.reader.storage(0, address, B256::with_last_byte(3)).unwrap(), U256::ZERO);
}

#[test]
fn a_genesis_without_prague_or_with_a_later_fork_is_refused() {
    for field in
        ["homesteadBlock", "londonBlock", "shanghaiTime", "cancunTime", "pragueTime", "terminalTotalDifficulty"]
    {
        let error = open_error(with(|g| {
            g["config"].as_object_mut().unwrap().remove(field);
        }));
        assert!(matches!(error, GenesisError::ForkInactive { fork, .. } if fork == field), "{field}: {error}");
        let error = open_error(with(|g| g["config"][field] = json!(GENESIS_SECONDS + 1)));
        assert!(matches!(error, GenesisError::ForkInactive { fork, .. } if fork == field), "{field}: {error}");
    }
    for field in ["osakaTime", "amsterdamTime", "bpo1Time", "someLaterForkTime", "someLaterForkBlock"] {
        let error = open_error(with(|g| g["config"][field] = json!(GENESIS_SECONDS * 2)));
        assert!(matches!(&error, GenesisError::ForkUnsupported { fork } if fork == field), "{field}: {error}");
    }
}

#[test]
fn a_genesis_that_no_block_could_follow_is_refused() {
    type Case = (&'static str, fn(&mut Value));
    let fields: [Case; 8] = [
        ("timestamp", |g| g["timestamp"] = json!("0xffffffffffffffff")),
        ("config.chainId", |g| g["config"]["chainId"] = json!(0)),
        ("gasLimit", |g| g["gasLimit"] = json!("0x10")),
        ("extraData", |g| g["extraData"] = json!(format!("0x{}", "00".repeat(33)))),
        ("difficulty", |g| g["difficulty"] = json!("0x1")),
        ("number", |g| g["number"] = json!("0x1")),
        ("excessBlobGas", |g| g["excessBlobGas"] = json!("0x20000")),
        ("baseFeePerGas", |g| g["baseFeePerGas"] = json!("0x8000000000000000")),
    ];
    for (name, change) in fields {
        let error = open_error(with(change));
        assert!(matches!(error, GenesisError::Field { field, .. } if field == name), "{name}: {error}");
    }
    let accounts: [Case; 5] = [
        ("storage without code", |g| {
            g["alloc"]["0x0000000000000000000000000000000000000077"] =
                json!({ "balance": "0x0", "storage": { "0x01": "0x01" } })
        }),
        ("system contract", |g| g["alloc"]["0x0000F90827F1C53a10cb7A02335B175320002935"]["code"] = json!("0xfe")),
        ("deposit", |g| {
            g["alloc"]["0x00000000219ab540356cbb839cbe05303d7705fa"] = json!({ "balance": "0x0", "code": "0x00" })
        }),
        ("add up", |g| g["alloc"]["0x0000000000000000000000000000000000000077"] = json!({ "balance": U256::MAX })),
        ("EIP-7702", |g| {
            g["alloc"]["0x0000000000000000000000000000000000000077"] = json!({ "balance": "0x0", "code": "0xef01" })
        }),
    ];
    for (words, change) in accounts {
        let error = open_error(with(change));
        assert!(
            matches!(&error, GenesisError::Account { .. }) && error.to_string().contains(words),
            "{words}: {error}"
        );
    }
    assert!(matches!(open_error(json!([1, 2])), GenesisError::Format(_)));
}

#[test]
fn a_database_of_another_rollup_is_refused_by_name() {
    let rollup = Rollup::new(Sealing::HubBlock);
    let folder = rollup.path().to_path_buf();
    let base = config(Sealing::HubBlock);
    let mut other_genesis = base.genesis.clone();
    other_genesis["timestamp"] = json!("0x1");
    let mut other_chain = base.genesis.clone();
    other_chain["config"]["chainId"] = json!(1);
    let cases = [
        ("rollup id", EvmConfig { rollup: RollupId(8), ..base.clone() }),
        ("genesis block hash", EvmConfig { genesis: other_genesis, ..base.clone() }),
        ("chain id", EvmConfig { genesis: other_chain, ..base.clone() }),
        ("sealing", EvmConfig { sealing: Sealing::OneSecond, ..base }),
    ];
    let reader = rollup.reader.clone();
    drop(rollup.driver);
    drop((rollup.reader, reader));
    for (name, config) in cases {
        let Err(EvmOpenError::OtherRollup { what, .. }) = EvmRollup::open(&folder, config) else { panic!("{name}") };
        assert_eq!(what, name);
    }
}

#[test]
fn a_database_that_is_open_already_is_refused() {
    let rollup = Rollup::new(Sealing::HubBlock);
    let error = EvmRollup::open(rollup.path(), config(Sealing::HubBlock)).err().unwrap();
    assert!(matches!(error, EvmOpenError::Storage { .. }), "{error}");
}

#[test]
fn a_file_in_the_folders_place_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "x").unwrap();
    assert!(matches!(EvmRollup::open(&path, config(Sealing::HubBlock)), Err(EvmOpenError::Storage { .. })));
}

/// Makes a database with these columns beside the default one; returns it.
fn database(path: &std::path::Path, columns: &[&str]) -> rocksdb::DB {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    rocksdb::DB::open_cf(&options, path, columns).unwrap()
}

#[test]
fn a_database_of_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    // Columns of another name, though one is called as one of ours; and a default column with something in it.
    let other = folder.path().join("other");
    drop(database(&other, &["meta", "certificates"]));
    let plain = folder.path().join("plain");
    database(&plain, &[]).put("key", "value").unwrap();
    for path in [&other, &plain] {
        let before = rocksdb::DB::list_cf(&rocksdb::Options::default(), path).unwrap();
        let error = EvmRollup::open(path, config(Sealing::HubBlock)).err().unwrap();
        assert!(matches!(error, EvmOpenError::Foreign { .. }), "{error}");
        assert_eq!(rocksdb::DB::list_cf(&rocksdb::Options::default(), path).unwrap(), before);
    }
}

#[test]
fn a_database_whose_making_was_cut_short_is_made_again() {
    for columns in [&[][..], &["meta", "accounts"]] {
        let folder = tempfile::tempdir().unwrap();
        drop(database(folder.path(), columns));
        let (_, reader) = EvmRollup::open(folder.path(), config(Sealing::HubBlock)).unwrap();
        assert_eq!(reader.head().header.number, 0);
    }
}

#[test]
fn a_newer_format_and_one_that_is_too_old_are_refused() {
    for other in [1u64, 5] {
        let folder = tempfile::tempdir().unwrap();
        let database = database(folder.path(), &["meta", "a_column_of_another_version"]);
        // A list whose first item is the format.
        database
            .put_cf(database.cf_handle("meta").unwrap(), "identity", alloy_rlp::encode(vec![other, 7, 7, 7]))
            .unwrap();
        drop(database);
        let error = EvmRollup::open(folder.path(), config(Sealing::HubBlock)).err().unwrap();
        let EvmOpenError::Format { found, oldest: 2, supported: 4, .. } = error else { panic!("{error}") };
        assert_eq!(u64::from(found), other);
    }
}

#[test]
fn a_database_from_before_deposits_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    drop(EvmRollup::open(folder.path(), config(Sealing::HubBlock)).unwrap());
    let raw = || {
        let options = rocksdb::Options::default();
        let columns = rocksdb::DB::list_cf(&options, folder.path()).unwrap();
        rocksdb::DB::open_cf(&options, folder.path(), columns).unwrap()
    };
    let identity = |db: &rocksdb::DB| db.get_cf(db.cf_handle("meta").unwrap(), "identity").unwrap().unwrap();
    // The format is the first item of a short list.
    let mut db = raw();
    let mut old = identity(&db);
    assert_eq!(old[1], 4);
    old[1] = 3;
    db.put_cf(db.cf_handle("meta").unwrap(), "identity", &old).unwrap();
    db.drop_cf("deposits").unwrap();
    drop(db);

    let mut rollup = Rollup::from_image(folder, config(Sealing::HubBlock));
    let deposit = Deposit { recipient: Address::repeat_byte(5), gwei: 1 };
    rollup.driver.apply(&SegmentInput { deposits: vec![(0, deposit)], ..hub_block(1, vec![]) }).unwrap();
    assert_eq!(rollup.balance(1, deposit.recipient), U256::from(GWEI));
}

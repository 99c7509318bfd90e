//! A disk that takes no more, wherever a node meets it first.

use crate::traffic::{SECONDS_60, YARD_A, YARD_C};
use alloy::primitives::{Address, U256};
use std::{fs, path::Path, process::Command, time::Duration};
use switchyard_testnet_kit::{
    Wallet, caught_up,
    power::{Full, Settings, Shim},
    raw_payload, submit_evm, submit_raw,
};
use switchyard_testnet_local::{Client, Options, Testnet, accounts::ACCOUNTS};

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
const EFBIG: i32 = 27;
const EIO: i32 = 5;

/// The only validator of a network, quick enough to write much.
fn alone(dir: &Path) -> Testnet {
    let mut options = Options { validators: 1, ..Options::default() };
    (options.consensus.heartbeat_ms, options.consensus.min_interval_ms) = (50, 5);
    Testnet::create(&dir.join("net"), options).unwrap()
}

fn full(part: &str, after: u64, errno: i32) -> Settings {
    Settings { full: Some(Full { part: part.into(), after, errno }), ..Settings::default() }
}

/// Sends until the validator has ended, and returns how. It may end before it answers.
async fn until_it_ends(testnet: &mut Testnet, client: &Client) -> String {
    let mut wallet = None;
    let ends = async {
        for round in 0.. {
            if let Some(how) = testnet.exited(0).unwrap() {
                return how;
            }
            let Some(node) = testnet.endpoints(0).unwrap() else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let rollup = node.rollups.iter().find(|rollup| rollup.rollup == YARD_A).unwrap();
            let wallet = wallet.get_or_insert_with(|| Wallet::new(&ACCOUNTS[0], rollup.chain_id).unwrap());
            let large = (0..4).map(|index| raw_payload(round, index, 32 << 10)).collect();
            let _ = submit_raw(&node.grpc, YARD_C, large).await;
            let transfer = wallet.transfer(Address::with_last_byte(0xd0), U256::from(1)).unwrap();
            let _ = submit_evm(client, &rollup.http, YARD_A, &transfer).await;
        }
        unreachable!("it ends")
    };
    tokio::time::timeout(SECONDS_60, ends).await.expect("a validator that cannot write stops")
}

/// Fills the files of which the path contains `part`; the validator must stop with one line that says `remedy`, and go on when
/// there is room.
async fn met_in(part: &str, after: u64, errno: i32, remedy: &str) {
    let (dir, shim, client) = (tempfile::tempdir().unwrap(), Shim::build().unwrap(), Client::new());
    let mut testnet = alone(dir.path());
    let data = testnet.dir().validator(0).dir.join("data");
    testnet.start(0).unwrap();
    let node = testnet.ready(0).await.unwrap();
    let before = caught_up(&client, &node.grpc, 5, SECONDS_60).await.unwrap();
    testnet.kill(0).unwrap();

    let program = testnet.program().to_path_buf();
    testnet.use_program(shim.wrap(&program, &data, &full(part, after, errno)).unwrap());
    testnet.start(0).unwrap();
    let how = until_it_ends(&mut testnet, &client).await;
    let log = fs::read_to_string(testnet.dir().validator(0).log).unwrap();
    assert!(how.contains("exit status: 1"), "{how}\n{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.starts_with("switchyard: ")).collect();
    let [line] = lines[..] else { panic!("not one line: {lines:?}\n{log}") };
    assert_eq!(log.lines().last(), Some(line), "not the last one");
    assert!(line.contains(&format!("the disk of {}", data.display())) && line.contains(remedy), "{line}");

    testnet.use_program(program);
    testnet.start(0).unwrap();
    let node = testnet.ready(0).await.unwrap();
    caught_up(&client, &node.grpc, before + 10, SECONDS_60).await.unwrap();
    assert!(testnet.stop_all().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_record_that_cannot_be_written_stops_the_node_and_says_where() {
    met_in("/sign-record", 70 << 10, ENOSPC, "make room there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_cannot_be_written_stops_the_node_and_says_where() {
    met_in("/consensus/storage/marshal-", 1 << 20, EDQUOT, "make room there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_meets_a_full_disk_first_the_node_stops_and_says_where() {
    for after in [10 << 10, 300 << 10, 1 << 20] {
        met_in("/data/", after, ENOSPC, "make room there").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_written_stops_the_node_and_says_where() {
    met_in("/store/", 1 << 20, ENOSPC, "make room there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollups_state_that_cannot_be_written_stops_the_node_and_says_where() {
    met_in("/rollups/", 100 << 10, EFBIG, "make room there").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_is_told_from_one_that_is_full() {
    met_in("/consensus/storage/marshal-", 1 << 20, EIO, "mend it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_finds_no_room_says_where_and_leaves_nothing_behind() {
    let (dir, shim, client) = (tempfile::tempdir().unwrap(), Shim::build().unwrap(), Client::new());
    let mut testnet = alone(dir.path());
    testnet.start(0).unwrap();
    let node = testnet.ready(0).await.unwrap();
    caught_up(&client, &node.grpc, 3, SECONDS_60).await.unwrap();
    let (out, into) = (dir.path().join("out"), dir.path().join("into"));
    for folder in [&out, &into] {
        fs::create_dir(folder).unwrap();
    }
    let run = |settings: Option<(&Path, Settings)>, arguments: &[&str]| {
        let program = testnet.program().to_path_buf();
        let program =
            settings.map_or(program.clone(), |(root, settings)| shim.wrap(&program, root, &settings).unwrap());
        let output = Command::new(program).arg("snapshot").args(arguments).output().unwrap();
        let (said, told) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
        (output.status.code(), said, told)
    };
    let file = out.join("snapshot");
    let create = ["create", "--grpc", &node.grpc, "--rollup", "1", "--out", file.to_str().unwrap()];
    let (code, said, _) = run(Some((&out, full("/snapshot", 0, ENOSPC))), &create);
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(&format!("the disk of {}", file.display())) && said.contains("make room"), "{said}");
    assert!(!file.exists(), "half a snapshot");
    let (code, said, told) = run(None, &create);
    assert_eq!(code, Some(0), "{said}");
    let hash = told.split_whitespace().find(|word| word.starts_with("0x")).unwrap().trim_end_matches(',');

    let mut config = testnet.dir().config(0).unwrap();
    config.genesis = testnet.dir().genesis_path();
    config.data_dir = into.clone();
    let text = into.join("node.toml");
    fs::write(&text, toml::to_string(&config).unwrap()).unwrap();
    let restore = ["restore", "--config", text.to_str().unwrap(), "--rollup", "1", "--block-hash", hash];
    let restore = [restore.as_slice(), &[file.to_str().unwrap()]].concat();
    let (code, said, _) = run(Some((&into, full("/rollups/", 1 << 10, ENOSPC))), &restore);
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    let state = into.join("rollups/1");
    assert!(said.contains(&format!("the disk of {}", state.display())) && said.contains("make room"), "{said}");
    let (code, said, _) = run(None, &restore);
    assert_eq!(code, Some(0), "{said}");
    assert!(testnet.stop_all().await.is_empty());
}

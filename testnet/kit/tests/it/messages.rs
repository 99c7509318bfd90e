//! Messages between two rollups of a network of real processes.

use crate::traffic::{YARD_A, YARD_B, balance, four, url};
use alloy::{
    hex,
    primitives::{Address, U256, utils::parse_ether},
};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use switchyard_bridge_core::predeploys;
use switchyard_node::config::Endpoints;
use switchyard_primitives::RollupId;
use switchyard_testnet_kit::conserved;
use switchyard_testnet_local::{
    Client, Testnet,
    accounts::{ACCOUNTS, Account},
};
use tokio::process::Command;

/// What `switchyard transfer` has printed.
struct Transferred(Vec<Value>);

impl Transferred {
    fn states(&self) -> Vec<&str> {
        self.0.iter().map(|line| line["state"].as_str().unwrap()).collect()
    }

    fn id(&self) -> &str {
        self.0[0]["id"].as_str().unwrap()
    }
}

struct Shell {
    program: PathBuf,
    key: PathBuf,
}

impl Shell {
    fn new(testnet: &Testnet, folder: &Path, account: &Account) -> Self {
        let key = folder.join("account.key");
        let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&key).unwrap();
        file.write_all(hex::encode(account.private_key).as_bytes()).unwrap();
        Self { program: testnet.program().to_path_buf(), key }
    }

    async fn run(&self, command: &[&str], node: &Endpoints, more: &[&str]) -> (bool, String) {
        let mut program = Command::new(&self.program);
        program.args(command).args(["--grpc", &node.grpc, "--json"]).args(more).kill_on_drop(true);
        let done = program.output().await.unwrap();
        (done.status.success(), String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap())
    }

    async fn transfer(&self, node: &Endpoints, from: &str, to: &str, amount: &str, more: &[&str]) -> Transferred {
        let key = self.key.display().to_string();
        let arguments = ["--key", &key, "--from", from, "--to", to, "--amount", amount, "--timeout", "120"];
        let (ok, said) = self.run(&["transfer"], node, &[&arguments, more].concat()).await;
        assert!(ok, "{said}");
        Transferred(said.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

async fn block_number(client: &Client, node: &Endpoints, rollup: RollupId, tag: &str) -> u64 {
    let block = client.json_rpc(&url(node, rollup), "eth_getBlockByNumber", json!([tag, false])).await.unwrap();
    u64::from_str_radix(block["number"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// Transactions of a rollup's blocks, from the newest one that has any down to the one before it.
async fn newest_two(client: &Client, node: &Endpoints, rollup: RollupId) -> [usize; 2] {
    let mut number = block_number(client, node, rollup, "latest").await;
    let transactions = async |number: u64| {
        let params = json!([format!("{number:#x}"), false]);
        let block = client.json_rpc(&url(node, rollup), "eth_getBlockByNumber", params).await.unwrap();
        block["transactions"].as_array().unwrap().len()
    };
    while transactions(number).await == 0 {
        number -= 1;
    }
    [transactions(number).await, transactions(number - 1).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coin_goes_to_another_rollup_and_back_or_is_refunded_whoever_relays() {
    let (dir, client) = (tempfile::tempdir().unwrap(), Client::new());
    let (mut testnet, nodes) = four(dir.path()).await;
    let shell = Shell::new(&testnet, dir.path(), &ACCOUNTS[0]);
    let to = Address::repeat_byte(0xd5);
    let recipient = ["--recipient", &to.to_string()];

    // Through a validator that relays nothing itself.
    let there = shell.transfer(&nodes[3], "yardA", "yardB", "1.5", &recipient).await;
    assert_eq!(there.states().last(), Some(&"delivered"), "{:?}", there.0);
    assert_eq!(balance(&client, &nodes[3], YARD_B, to).await, parse_ether("1.5").unwrap());
    let safe = block_number(&client, &nodes[3], YARD_A, "safe").await;
    assert!(safe > 0 && safe <= block_number(&client, &nodes[3], YARD_A, "latest").await, "{safe}");
    let back = shell.transfer(&nodes[3], "2", "1", "0.5", &recipient).await;
    assert_eq!(back.states().last(), Some(&"delivered"), "{:?}", back.0);
    assert_eq!(balance(&client, &nodes[3], YARD_A, to).await, parse_ether("0.5").unwrap());

    // A recipient that takes no coin, and the first of the relayers is gone.
    testnet.kill(0).unwrap();
    let refuses = ["--recipient", &predeploys::OUTBOX.to_string(), "--deadline", "4"];
    let refused = shell.transfer(&nodes[3], "yardA", "yardB", "2", &refuses).await;
    assert_eq!(refused.states().last(), Some(&"refunded"), "{:?}", refused.0);
    assert_eq!(balance(&client, &nodes[3], YARD_B, predeploys::OUTBOX).await, U256::ZERO);
    // The last thing on its way was that it ended there: after the attempt, and after no empty block that marks the time.
    let [_, before] = newest_two(&client, &nodes[3], YARD_B).await;
    assert_ne!(before, 0);
    let again = shell.transfer(&nodes[3], "yardA", "yardB", "1", &recipient).await;
    assert_eq!(again.states().last(), Some(&"delivered"), "{:?}", again.0);

    let (ok, said) = shell.run(&["message", "status", refused.id()], &nodes[1], &[]).await;
    assert!(ok && said.contains("refunded"), "{said}");
    let (ok, said) = shell.run(&["message", "status", &format!("0x{}", "11".repeat(32))], &nodes[1], &[]).await;
    assert!(!ok && said.contains("unknown_message"), "{said}");
    let (ok, said) = shell.run(&["operator", "show"], &nodes[1], &[]).await;
    let shown: Value = serde_json::from_str(&said).unwrap();
    assert!(ok && shown["operators"].as_array().unwrap().len() == 4, "{said}");
    assert!(shown["rollups"][0]["certified"]["number"].as_u64().unwrap() >= safe, "{said}");
    let totals = conserved(&client, &nodes[3], &testnet.dir().genesis().unwrap()).await.unwrap();
    // A notice of what expired is a message too.
    assert_eq!((totals.in_messages, totals.delivered, totals.refunded), (U256::ZERO, 4, 1), "{totals:?}");
    assert!(testnet.stop_all().await.is_empty(), "every validator stops when asked");
}

//! The program as the only validator of a network.

use crate::process::{EVM, Folder, refusal, run};
use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::Encodable2718,
    primitives::{Address, B256, TxKind, U256, hex},
    signers::{SignerSync, local::PrivateKeySigner},
};
use serde_json::{Value, json};
use std::time::Duration;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{Sealing, Vm};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) fn address(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

/// Sends bytes and hangs up; the answer does not matter.
async fn throw(at: &str, bytes: &[u8]) {
    let mut connection = TcpStream::connect(at).await.unwrap();
    // The server may hang up first.
    let _ = connection.write_all(bytes).await;
    let _ = connection.shutdown().await;
}

/// The answer to one JSON-RPC request.
pub(crate) async fn rpc(at: &str, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let mut connection = TcpStream::connect(at).await.unwrap();
    connection.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.rsplit("\r\n").next().unwrap()).unwrap()
}

#[tokio::test]
async fn a_single_validator_finalises_what_is_submitted_and_goes_on_after_being_killed() {
    let folder = Folder::new();
    let node = folder.start().await;
    let first: Value = serde_json::from_str(&node.submit("01").await).unwrap();
    assert_eq!(first["level"], "final");
    let included = first["included"]["height"].as_u64().unwrap();
    let height = node.height().await;
    assert!(included >= 1 && height >= included);
    node.kill().await;

    let node = folder.start().await;
    // A killed node's store has lost what was not flushed; the engine's archive fills it after the start.
    node.reaches(height).await;
    let second: Value = serde_json::from_str(&node.submit("02").await).unwrap();
    assert!(second["included"]["height"].as_u64().unwrap() > height);
    let again = node.status(first["hash"].as_str().unwrap()).await;
    assert_eq!(again["included"], first["included"]);
    node.stop().await;
}

#[tokio::test]
async fn a_data_directory_is_for_one_process_and_one_network_and_a_port_for_one_server() {
    let folder = Folder::new();
    let node = folder.start().await;
    let line = folder.refused().await;
    assert!(line.contains("in use by another process"), "{line}");
    assert!(folder.endpoints().is_some(), "the second process has taken the first one's endpoints");

    let port = address(&node.endpoints.grpc);
    for server in ["grpc", "metrics", "network"] {
        let other = Folder::new();
        let (section, free) = (format!("[{server}]\n"), "listen = \"127.0.0.1:0\"");
        let taken = format!("{section}listen = \"{port}\"");
        other.write_config(&other.config_text().replacen(&format!("{section}{free}"), &taken, 1));
        let line = other.refused().await;
        assert!(line.contains(port) && line.contains("cannot listen"), "{line}");
    }

    node.stop().await;
    assert_eq!(folder.endpoints(), None);
    let mut genesis = folder.genesis();
    let mine = genesis.id().unwrap().to_string();
    genesis.name.push_str("-other");
    folder.write_genesis(&genesis);
    let line = folder.refused().await;
    assert!(line.contains(&mine) && line.contains(&genesis.id().unwrap().to_string()), "{line}");
}

#[tokio::test]
async fn garbage_on_its_ports_does_not_stop_a_node() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let folder = Folder::new();
    let node = folder.start().await;
    let rollup = node.endpoints.rollups.iter().find(|r| r.rollup == RollupId(EVM)).unwrap();
    let (grpc, evm, metrics) = (address(&node.endpoints.grpc), address(&rollup.http), address(&node.endpoints.metrics));
    let frame = |head: &[u8], body: &[u8]| [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], head, body].concat();
    let post = |length: usize, body: &[u8]| {
        let head =
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let garbage: Vec<Vec<u8>> = vec![
        vec![],
        vec![0; 10_000],
        (0..100_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect(),
        PREFACE[..10].to_vec(),
        // Headers, cut off; data as long as can be on a stream that is not open; window updates of zero.
        frame(&[0, 0, 100, 1, 4, 0, 0, 0, 1], &[0x82, 0x86]),
        frame(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 3], &[0; 1000]),
        frame(&[0, 0, 4, 8, 0, 0, 0, 0, 0], &[0; 4]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        post(1000, b"{\"jsonrpc\":"),
        post(100_000, &vec![b'['; 100_000]),
        post(4, b"\xff\xfe\xfd\xfc"),
        post(usize::MAX, b"{}"),
    ];
    for bytes in &garbage {
        for at in [grpc, evm, metrics] {
            throw(at, bytes).await;
        }
    }
    let final_: Value = serde_json::from_str(&node.submit("01").await).unwrap();
    assert_eq!(final_["level"], "final");
    let answer = tokio::time::timeout(Duration::from_secs(60), rpc(evm, "eth_blockNumber", json!([]))).await.unwrap();
    assert!(answer["result"].is_string(), "{answer}");
    node.stop().await;
}

/// A transfer of the account with this key, and its address.
pub(crate) fn transfer(nonce: u64) -> (Address, String) {
    let signer = PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).unwrap();
    let tx = TxEip1559 {
        chain_id: 71001,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        to: TxKind::Call(Address::repeat_byte(8)),
        value: U256::from(1),
        ..Default::default()
    };
    let signature = signer.sign_hash_sync(&tx.signature_hash()).unwrap();
    let envelope = TxEnvelope::from(tx.into_signed(signature));
    (signer.address(), hex::encode_prefixed(envelope.encoded_2718()))
}

#[tokio::test]
async fn a_one_second_rollup_has_receipts_before_its_block_is_closed_and_the_next_nonce_is_taken_at_once() {
    const COUNT: u64 = 6;
    let folder = Folder::new();
    let mut genesis = folder.genesis();
    let Vm::Evm { genesis: evm } = &mut genesis.rollups[0].vm else { panic!("the first rollup is an EVM rollup") };
    evm["alloc"] = json!({ transfer(0).0.to_string(): { "balance": "0xde0b6b3a7640000" } });
    genesis.rollups[0].sealing = Sealing::OneSecond;
    folder.write_genesis(&genesis);
    let node = folder.start().await;
    let at = node.endpoints.rollups.iter().find(|r| r.rollup == RollupId(EVM)).unwrap().http.clone();
    let call = async |method: &str, params: Value| {
        let answer = tokio::time::timeout(Duration::from_secs(60), rpc(address(&at), method, params)).await.unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].clone()
    };
    let mut early = Vec::new();
    for nonce in 0..COUNT {
        let (sender, raw) = transfer(nonce);
        early.push(call("eth_sendRawTransactionSync", json!([raw, 50_000])).await);
        let count = call("eth_getTransactionCount", json!([sender, "pending"])).await;
        assert_eq!(count, json!(format!("{:#x}", nonce + 1)));
    }
    // With nothing executed before a block is closed, no receipt would come before.
    let unknown = json!(B256::ZERO);
    assert!(early.iter().any(|receipt| receipt["blockHash"] == unknown), "{early:?}");
    for mut receipt in early {
        let close = async {
            loop {
                let now = call("eth_getTransactionReceipt", json!([receipt["transactionHash"]])).await;
                if now["blockHash"] != unknown {
                    return now;
                }
            }
        };
        let closed = tokio::time::timeout(Duration::from_secs(60), close).await.unwrap();
        let block = call("eth_getBlockByHash", json!([closed["blockHash"], false])).await;
        assert_eq!(block["number"], receipt["blockNumber"]);
        receipt["blockHash"] = closed["blockHash"].clone();
        assert_eq!(receipt, closed);
    }
    node.stop().await;
}

#[tokio::test]
async fn without_the_record_of_what_it_signed_a_validator_does_not_start_and_starts_with_an_export_of_it() {
    let folder = Folder::new();
    let node = folder.start().await;
    node.submit("01").await;
    let height = node.height().await;
    let (config, export) = (folder.config(), folder.path("export.json").display().to_string());
    let sign_record = async |arguments: &[&str]| run(&[&["sign-record"], arguments].concat()).await;
    let busy = refusal(&sign_record(&["export", "--config", &config]).await);
    assert!(busy.contains("in use by another process"), "{busy}");
    node.stop().await;

    let exported = sign_record(&["export", "--config", &config, "--out", &export]).await;
    assert!(exported.status.success(), "{exported:?}");
    let exists = refusal(&sign_record(&["begin", "--config", &config, "--from-epoch", "9"]).await);
    assert!(exists.contains("is there already"), "{exists}");
    std::fs::remove_file(folder.path("data/sign-record")).unwrap();
    let line = folder.refused().await;
    assert!(line.contains("sign record is missing"), "{line}");
    let missing = refusal(&sign_record(&["export", "--config", &config]).await);
    assert!(missing.contains("no sign record"), "{missing}");

    let mut other: Value = serde_json::from_slice(&std::fs::read(&export).unwrap()).unwrap();
    other["network"] = format!("0x{}", "11".repeat(32)).into();
    let wrong = folder.path("wrong.json").display().to_string();
    std::fs::write(&wrong, other.to_string()).unwrap();
    let refused = refusal(&sign_record(&["import", "--config", &config, &wrong]).await);
    assert!(refused.contains("network"), "{refused}");
    assert!(!folder.path("data/sign-record").exists(), "an empty record would let the key sign anything");

    let imported = sign_record(&["import", "--config", &config, &export]).await;
    assert!(imported.status.success(), "{imported:?}");
    let node = folder.start().await;
    // It need not go on by itself: if it was stopped between a vote's record and the engine's journal, it may neither repeat
    // that vote, which it has lost, nor give up the view, which is below the import's mark. In a larger network others do.
    node.reaches(height).await;
    node.stop().await;
}

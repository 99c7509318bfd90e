//! The operators' commands, through the program.

use crate::process::{Folder, run, set_mode, switchyard};
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, path::Path};
use switchyard_consensus_core::keys::verify_possession;
use switchyard_node::genesis::{Genesis, GenesisValidator};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Runs the program; exit code, output, errors.
async fn shell(arguments: &[&str]) -> (i32, String, String) {
    let output = run(arguments).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn shell_ok(arguments: &[&str]) -> String {
    let (code, out, err) = shell(arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {err}");
    out
}

/// Exit code 2 and one line.
async fn refused(arguments: &[&str]) -> String {
    let (code, out, err) = shell(arguments).await;
    assert_eq!((code, err.lines().count(), out.as_str()), (2, 1, ""), "{arguments:?}: {err}");
    err
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A password file, and a folder for keys.
fn keys_folder() -> (tempfile::TempDir, String, impl Fn(&str) -> String) {
    let root = tempfile::tempdir().unwrap();
    let password = root.path().join("password");
    fs::write(&password, "correct horse\n").unwrap();
    set_mode(&password, 0o600);
    let dir = root.path().join("keys");
    (root, text(&password).to_owned(), move |name: &str| text(&dir.join(name)).to_owned())
}

#[tokio::test]
async fn keys_are_made_listed_exported_and_imported_without_ever_being_public() {
    let (root, password, file) = keys_folder();
    let (bls, identity) = (file("bls.json"), file("identity.key"));
    let new =
        ["keys", "new", "bls", "--kdf", "pbkdf2", "--description", "seat 4", "--password-file", &password, "--out"];
    let made = shell_ok(&[&new[..], &[&bls]].concat()).await;
    let public = made.split(' ').nth(1).unwrap().to_owned();
    assert!(public.starts_with("0x") && public.len() == 98, "{made}");
    shell_ok(&["keys", "new", "identity", "--out", &identity]).await;
    let dir = root.path().join("keys");
    assert_eq!([mode(&dir), mode(Path::new(&bls)), mode(Path::new(&identity))], [0o700, 0o600, 0o600]);

    let before = fs::read(&bls).unwrap();
    let line = refused(&[&new[..], &[&bls]].concat()).await;
    assert!(line.contains("not overwritten") && fs::read(&bls).unwrap() == before, "{line}");

    let listed = shell_ok(&["keys", "list", text(&dir), "--json"]).await;
    let rows: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["kind"], &rows[0]["form"], &rows[0]["description"]),
        (&"bls".into(), &"keystore".into(), &"seat 4".into())
    );
    assert_eq!((&rows[0]["public"], &rows[1]["kind"]), (&public.clone().into(), &"identity".into()));

    let (plain, again) = (file("bls.key"), file("again.json"));
    shell_ok(&["keys", "export", "bls", "--from", &bls, "--password-file", &password, "--out", &plain]).await;
    assert_eq!(mode(Path::new(&plain)), 0o600);
    let import =
        ["keys", "import", "bls", "--from", &plain, "--kdf", "pbkdf2", "--password-file", &password, "--out", &again];
    let (code, out, err) = shell(&import).await;
    assert!(code == 0 && out.contains(&public) && err.contains("sign-record begin"), "{out}{err}");
    assert_ne!(fs::read(&again).unwrap(), before, "salt and initialisation vector are new");

    set_mode(Path::new(&plain), 0o644);
    let import =
        ["keys", "import", "bls", "--from", &plain, "--password-file", &password, "--out", &file("third.json")];
    let line = refused(&import).await;
    assert!(line.contains("chmod 600") && !Path::new(&file("third.json")).exists(), "{line}");
}

#[tokio::test]
async fn a_password_comes_from_a_file_or_the_environment_and_must_be_right() {
    let (root, password, file) = keys_folder();
    let bls = file("bls.json");
    let mut command = switchyard(&["keys", "new", "bls", "--kdf", "pbkdf2", "--out", &bls]);
    assert!(command.env("SWITCHYARD_KEY_PASSWORD", "correct horse").status().await.unwrap().success());
    shell_ok(&["keys", "export", "bls", "--from", &bls, "--password-file", &password, "--out", &file("a.key")]).await;

    let wrong = root.path().join("wrong");
    fs::write(&wrong, "battery staple").unwrap();
    set_mode(&wrong, 0o600);
    let export = ["keys", "export", "bls", "--from", &bls, "--out", &file("b.key"), "--password-file"];
    let line = refused(&[&export[..], &[text(&wrong)]].concat()).await;
    assert!(line.contains("wrong password") && !Path::new(&file("b.key")).exists(), "{line}");
    set_mode(&wrong, 0o604);
    let line = refused(&[&export[..], &[text(&wrong)]].concat()).await;
    assert!(line.contains("chmod 600"), "{line}");
}

#[tokio::test]
async fn a_hostile_keystore_is_refused_before_it_takes_memory() {
    let (root, password, file) = keys_folder();
    let bls = file("bls.json");
    shell_ok(&["keys", "new", "bls", "--kdf", "pbkdf2", "--password-file", &password, "--out", &bls]).await;
    let mut keystore: Value = serde_json::from_slice(&fs::read(&bls).unwrap()).unwrap();
    keystore["crypto"]["kdf"] = serde_json::json!({
        "function": "scrypt", "message": "",
        "params": { "dklen": 32, "n": 1u64 << 33, "p": 1, "r": 8, "salt": "00".repeat(32) },
    });
    let hostile = root.path().join("hostile.json");
    fs::write(&hostile, keystore.to_string()).unwrap();
    let out = file("out.json");
    let line =
        refused(&["keys", "import", "bls", "--from", text(&hostile), "--password-file", &password, "--out", &out])
            .await;
    assert!(line.contains("asks for more than is allowed"), "{line}");
}

#[tokio::test]
async fn a_node_runs_from_what_init_made() {
    let (root, password, _) = keys_folder();
    let dir = root.path().join("node");
    let new = ["--dir", text(&dir), "--kdf", "pbkdf2", "--password-file", &password];
    let free = ["--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--rpc", "127.0.0.1:0"];
    // First for the keys alone: the genesis needs them.
    let printed = shell_ok(&[&["init"], &new[..], &free].concat()).await;
    let validator: GenesisValidator = serde_json::from_str(&printed).unwrap();
    verify_possession(&validator.seat, &validator.possession).unwrap();

    let folder = Folder::new();
    folder.write_genesis(&Genesis { validators: vec![validator], ..folder.genesis() });
    fs::remove_file(dir.join("node.toml")).unwrap();
    let genesis = folder.path("genesis.json");
    let again = shell_ok(&[&["init"], &new[..], &free, &["--genesis", text(&genesis)]].concat()).await;
    assert_eq!(again, printed);
    let config = dir.join("node.toml");
    let shown = shell_ok(&["keys", "show", "--config", text(&config)]).await;
    assert_eq!(shown, printed);
    let out = shell_ok(&["config", "check", "--config", text(&config)]).await;
    assert!(out.contains("have a seat"), "{out}");

    let node = folder.start_at(&dir).await;
    let final_: Value = serde_json::from_str(&node.submit("01").await).unwrap();
    assert_eq!(final_["level"], "final");
    node.stop().await;
}

#[tokio::test]
async fn config_check_names_every_problem_at_once() {
    let folder = Folder::new();
    let out = shell_ok(&["config", "check", "--config", &folder.config()]).await;
    assert!(out.lines().all(|line| line.starts_with("ok ")), "{out}");
    assert!(!folder.path("data").exists(), "a check makes nothing");

    let peer = format!("identity = \"0x{}\"\naddress = \"127.0.0.1:7100\"\n", "22".repeat(32));
    let text = folder.config_text().replacen("peers = []\n", "", 1) + &format!("[[network.peers]]\n{peer}");
    folder.write_config(&text.replacen("rollup = 1", "rollup = 99", 1));
    set_mode(&folder.path("bls.key"), 0o644);
    let (code, out, err) = shell(&["config", "check", "--config", &folder.config(), "--json"]).await;
    let findings: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_level = |level: &str| -> Vec<&str> {
        findings.iter().filter(|f| f["level"] == level).map(|f| f["check"].as_str().unwrap()).collect()
    };
    assert_eq!((code, of_level("error")), (2, vec!["keys", "rpc"]), "{out}{err}");
    assert!(of_level("warning").contains(&"peers"), "{out}");

    folder.write_config("surprise = 1");
    assert!(refused(&["config", "check", "--config", &folder.config()]).await.contains("surprise"));
}

/// The findings of `doctor` by check, and its exit code.
async fn doctor(folder: &Folder) -> (i32, Vec<Value>) {
    doctor_with(folder, &[]).await
}

async fn doctor_with(folder: &Folder, more: &[&str]) -> (i32, Vec<Value>) {
    let config = folder.config();
    let fixed = ["doctor", "--config", &config, "--writes", "5", "--json"];
    let (code, out, err) = shell(&[&fixed, more].concat()).await;
    assert_eq!(err.is_empty(), code == 0, "{err}");
    (code, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn finding<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    findings.iter().find(|f| f["check"] == check).unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

#[tokio::test]
async fn doctor_finds_a_running_node_well_a_stopped_one_unknown_and_a_lost_sign_record_an_error() {
    let folder = Folder::new();
    let (_, findings) = doctor(&folder).await;
    assert_eq!(finding(&findings, "node")["level"], "unknown");
    assert_eq!(finding(&findings, "clock")["level"], "unknown");
    let node = folder.start().await;
    node.submit("01").await;
    let (_, findings) = doctor(&folder).await;
    for check in ["config", "genesis", "keys", "peers", "sign_record", "node", "connected", "livez", "readyz", "clock"]
    {
        assert_eq!(finding(&findings, check)["level"], "ok", "{findings:#?}");
    }
    // Compared over gRPC, a clock agrees with itself.
    let (_, findings) = doctor_with(&folder, &["--against", &node.endpoints.grpc]).await;
    assert_eq!(finding(&findings, "clock")["level"], "ok", "{findings:#?}");
    node.stop().await;
    fs::remove_file(folder.path("data/sign-record")).unwrap();
    let (code, findings) = doctor(&folder).await;
    assert_eq!((code, &finding(&findings, "sign_record")["level"]), (1, &"error".into()));
}

#[tokio::test]
async fn doctor_says_what_is_wrong_and_what_to_do() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = format!("identity = \"0x{}\"\naddress = \"{taken}\"\n", "22".repeat(32));
    let config = folder.config_text().replacen("peers = []\n", "", 1) + &format!("[[network.peers]]\n{peer}");
    let port = format!("[grpc]\nlisten = \"{}\"", held.local_addr().unwrap());
    folder.write_config(&config.replacen("[grpc]\nlisten = \"127.0.0.1:0\"", &port, 1));
    set_mode(&folder.path("identity.key"), 0o644);
    let (code, findings) = doctor(&folder).await;
    assert_eq!(code, 1);
    for (check, level) in [("ports", "error"), ("keys", "error"), ("reachable", "warning")] {
        let finding = finding(&findings, check);
        assert_eq!(finding["level"], level, "{finding}");
        assert!(["found", "means", "remedy"].iter().all(|field| finding[field] != ""), "{finding}");
    }
    folder.write_config("surprise = 1");
    let (code, findings) = doctor(&folder).await;
    assert_eq!((code, &finding(&findings, "config")["level"]), (1, &"error".into()));
}

/// GET from a running node's metrics server: status line and body.
async fn get(url: &str, path: &str) -> (String, String) {
    let mut connection = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_validator_without_a_quorum_lives_and_is_not_ready() {
    let folder = Folder::new();
    let node = folder.start().await;
    node.submit("01").await;
    assert!(get(&node.endpoints.metrics, "/livez").await.0.contains("200"));
    let (status, body) = get(&node.endpoints.metrics, "/readyz").await;
    assert!(status.contains("200"), "{body}");
    node.stop().await;

    let folder = Folder::new();
    let others = (2..=4).map(|byte| crate::process::genesis_validator(&crate::process::validator_keys(byte)));
    let mut genesis = folder.genesis();
    genesis.validators.extend(others);
    folder.write_genesis(&genesis);
    let node = folder.start().await;
    assert!(get(&node.endpoints.metrics, "/livez").await.0.contains("200"));
    let (status, body) = get(&node.endpoints.metrics, "/readyz").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let codes: Vec<&Value> = body["problems"].as_array().unwrap().iter().map(|p| &p["code"]).collect();
    assert!(status.contains("503") && codes == ["no_quorum", "head_old"], "{body}");
    node.stop().await;
}

/// Every word in `text` that looks like one of our metrics.
fn metrics_in(text: &str) -> Vec<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c)).filter(|name| name.starts_with("switchyard_")).collect()
}

/// Every expression of a JSON tree.
fn expressions<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str));
            fields.values().for_each(|value| expressions(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn alerts_and_dashboard_name_metrics_that_a_running_node_has() {
    let folder = Folder::new();
    let node = folder.start().await;
    node.submit("01").await;
    let served = get(&node.endpoints.metrics, "/metrics").await.1;
    node.stop().await;
    let documented = include_str!("../../../../docs/metrics.md");
    let guide = include_str!("../../../../docs/operators.md");
    // A metric with labels appears with its first value: those that need a fault are looked up where they are listed.
    let known = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        served.lines().any(|line| line.split(['{', ' ']).next() == Some(name))
            || documented.contains(&format!("`{base}`"))
    };
    let mut count = 0;
    for file in [
        include_str!("../../../../docs/operators/alerts.json"),
        include_str!("../../../../docs/operators/dashboard.json"),
    ] {
        let file: Value = serde_json::from_str(file).unwrap();
        let mut found = Vec::new();
        expressions(&file, &mut found);
        for name in found.iter().flat_map(|expression| metrics_in(expression)) {
            assert!(known(name), "{name} is no metric of a node");
            count += 1;
        }
        for rule in file["groups"][0]["rules"].as_array().into_iter().flatten() {
            let heading = format!("### {}\n", rule["alert"].as_str().unwrap());
            assert!(guide.contains(&heading), "docs/operators.md has no {heading}");
        }
    }
    assert!(count > 30, "{count}");
    for metric in metrics_in(documented).into_iter().filter(|name| *name != "switchyard_") {
        let registered = served.contains(metric.trim_end_matches("_total")) || LABELLED.contains(&metric);
        assert!(registered, "{metric} is documented and no node has it");
    }
}

/// Metrics whose labels first appear with what a single idle validator does not meet.
const LABELLED: [&str; 13] = [
    "switchyard_attestations_refused_total",
    "switchyard_bundles_refused_total",
    "switchyard_sync_dropped_total",
    "switchyard_rollup_height",
    "switchyard_skipped_transactions_total",
    "switchyard_rejections_total",
    "switchyard_invalid_blocks_total",
    "switchyard_faults_total",
    "switchyard_gossip_malformed_total",
    "switchyard_eth_rpc_requests_total",
    "switchyard_eth_rpc_latency_seconds",
    "switchyard_eth_rpc_connections",
    "switchyard_eth_rpc_refused_connections_total",
];

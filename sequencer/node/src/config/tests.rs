use super::*;

fn load(text: &str) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path)
}

const EXAMPLE: &str = include_str!("../../../../docs/node.example.toml");

#[test]
fn the_example_loads_and_shows_the_defaults() {
    let config = load(EXAMPLE).unwrap();
    assert_eq!(config.consensus, Consensus::default());
    assert_eq!(config.mempool, Mempool::default());
    assert!(config.genesis.is_absolute());
}

#[test]
fn an_unknown_key_is_refused_by_name_in_every_table() {
    for (table, at) in [("", 0), ("consensus", 1), ("mempool", 1), ("store", 1), ("grpc", 1), ("keys", 1)] {
        let text = match at {
            0 => format!("surprise = 1\n{EXAMPLE}"),
            _ => EXAMPLE.replacen(&format!("[{table}]"), &format!("[{table}]\nsurprise = 1"), 1),
        };
        let error = load(&text).unwrap_err().to_string();
        let line = 1 + text.lines().position(|line| line == "surprise = 1").unwrap();
        assert!(error.contains("surprise") && error.contains(&format!("line {line}:")), "{table}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_pace_at_which_idle_leaders_would_be_skipped_is_refused() {
    let load = |from: &str, to: &str| load(&EXAMPLE.replacen(from, to, 1));
    for (from, to) in [
        ("heartbeat_ms = 1000", "heartbeat_ms = 1500"),
        ("leader_timeout_ms = 1250", "leader_timeout_ms = 1000"),
        ("min_interval_ms = 50", "min_interval_ms = 1001"),
    ] {
        let error = load(from, to).unwrap_err();
        assert!(matches!(error, ConfigError::Pace { .. }), "{to}: {error}");
    }
    assert!(load("min_interval_ms = 50", "min_interval_ms = 1000").is_ok());
}

#[test]
fn the_bls_key_is_in_a_plain_file_or_in_a_keystore_and_not_in_both() {
    let load =
        |keys: &str| load(&EXAMPLE.replacen("bls = \"bls.key\"", keys, 1)).map(|config| config.keys.unwrap().bls);
    assert!(matches!(load("bls = \"a\"").unwrap(), BlsKey::Plain(path) if path.is_absolute()));
    let keystore = load("bls_keystore = \"a\"\nbls_password_file = \"b\"").unwrap();
    let BlsKey::Keystore { path, password_file: Some(password) } = keystore else { panic!("{keystore:?}") };
    assert!(path.is_absolute() && path.ends_with("a") && password.is_absolute() && password.ends_with("b"));
    assert!(matches!(load("bls_keystore = \"a\"").unwrap(), BlsKey::Keystore { password_file: None, .. }));
    for wrong in ["", "bls = \"a\"\nbls_keystore = \"b\"", "bls = \"a\"\nbls_password_file = \"b\""] {
        let error = load(wrong).unwrap_err().to_string();
        assert!(error.contains("either bls, or bls_keystore") && error.contains("line"), "{wrong}: {error}");
    }
}

const FOLLOWER: &str = "role = \"follower\"\ngenesis = \"g\"\ndata_dir = \"d\"\n[grpc]\nlisten = \"127.0.0.1:0\"\n\
                        [metrics]\nlisten = \"127.0.0.1:0\"\n[sync]\nsources = [\"http://192.0.2.1:7200\"]\n";

#[test]
fn each_role_has_its_tables_and_no_others() {
    let follower = load(FOLLOWER).unwrap();
    assert_eq!((follower.role, follower.sync.checkpoint), (Role::Follower, None));
    let hash = "11".repeat(32);
    let checkpoint = load(&format!("{FOLLOWER}checkpoint = \"9:{hash}\"")).unwrap().sync.checkpoint.unwrap();
    assert_eq!(checkpoint, Checkpoint { height: 9, hash: B256::repeat_byte(0x11) });
    assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
    let source = "http://192.0.2.1:7200";
    let many = (0..17).map(|i| format!("\"http://192.0.2.{i}:1\"")).collect::<Vec<_>>().join(",");
    for (text, word) in [
        (format!("{FOLLOWER}[keys]\nidentity = \"a\"\nbls = \"b\""), "[keys]"),
        (format!("{FOLLOWER}[network]\nlisten = \"127.0.0.1:0\""), "[network]"),
        (FOLLOWER.replace("role = \"follower\"\n", ""), "[keys]"),
        (FOLLOWER.replace("follower", "spectator"), "spectator"),
        (FOLLOWER.replace(&format!("\"{source}\""), ""), "sources"),
        (FOLLOWER.replace(&format!("\"{source}\""), &many), "at most 16"),
        (FOLLOWER.replace(source, "192.0.2.1:7200"), "http://HOST:PORT"),
        (FOLLOWER.replace(&format!("\"{source}\""), &format!("\"{source}\", \"{source}\"")), "twice"),
        (format!("{FOLLOWER}checkpoint = \"0:{hash}\""), "HEIGHT:HASH"),
        (format!("{FOLLOWER}surprise = 1"), "surprise"),
        (EXAMPLE.replacen("[network]", "[sync]", 1), ""),
    ] {
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains('\n'), "{word}: {error}");
    }
}

#[test]
fn a_key_is_here_or_at_a_signer_that_answers_before_the_view_is_over() {
    let load =
        |keys: &str| load(&EXAMPLE.replacen("bls = \"bls.key\"", keys, 1)).map(|config| config.keys.unwrap().bls);
    let signer = "[keys.signer]\nurl = \"https://a:1\"\nca = \"a\"\ncert = \"b\"\nkey = \"c\"";
    let BlsKey::Remote(remote) = load(signer).unwrap() else { panic!("at a signer") };
    assert!(remote.deadline_ms == 200 && remote.ca.is_absolute() && remote.cert.is_absolute());
    assert!(remote.key.is_absolute() && remote.key.ends_with("c"));
    for (wrong, says) in [
        (format!("bls = \"d\"\n{signer}"), "beside [keys.signer]"),
        (signer.replace("https", "http"), "https://HOST:PORT"),
        (format!("{signer}\ndeadline_ms = 0"), "deadline_ms"),
        (format!("{signer}\ndeadline_ms = 1250"), "deadline_ms"),
        (format!("{signer}\nsurprise = 1"), "surprise"),
    ] {
        let error = load(&wrong).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains('\n'), "{wrong}: {error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/node.toml")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/node.toml"), "{error}");
}

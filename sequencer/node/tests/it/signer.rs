//! A remote signer over real TLS on loopback.

use crate::process::{Folder, genesis_validator, refusal, run, set_mode, validator_keys};
use prometheus_client::{encoding::text::encode, registry::Registry};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair};
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};
use switchyard_consensus_core::{Proposal, Vote};
use switchyard_consensus_guard::{LocalSigner, Refusal, SignGuard, Unsigned, VoteSigner};
use switchyard_node::{
    config::RemoteKey,
    signer::{RemoteSigner, Serving, SignerConfig, SignerError, SignerMetrics, serve},
};
use switchyard_primitives::B256;

/// Long enough for a debug build on a busy machine.
const DEADLINE_MS: u64 = 10_000;

struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }
}

/// The only validator of a network, whose key is at a signer.
struct Rig {
    folder: Folder,
    registry: Registry,
    metrics: SignerMetrics,
}

impl Rig {
    fn new() -> Self {
        let folder = Folder::new();
        let (authority, other) = (Authority::new(), Authority::new());
        let mut registry = Registry::default();
        let metrics = SignerMetrics::register(&mut registry);
        let rig = Self { folder, registry, metrics };
        fs::write(rig.path("ca.pem"), authority.certificate.pem()).unwrap();
        for (name, by) in [("signer", &authority), ("validator", &authority), ("stranger", &other)] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
            let certificate = params.signed_by(&key, &by.certificate, &by.key).unwrap();
            fs::write(rig.path(&format!("{name}.pem")), certificate.pem()).unwrap();
            fs::write(rig.path(&format!("{name}-tls.key")), key.serialize_pem()).unwrap();
            set_mode(&rig.path(&format!("{name}-tls.key")), 0o600);
        }
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    fn network(&self) -> B256 {
        self.folder.genesis().id().unwrap()
    }

    /// Writes the signer's configuration; returns its path as an argument.
    fn configure(&self, listen: SocketAddr) -> String {
        let text = format!(
            "genesis = \"genesis.json\"\nsign_record = \"signer/sign-record\"\nlisten = \"{listen}\"\n\
             [keys]\nbls = \"bls.key\"\n\
             [tls]\ncert = \"signer.pem\"\nkey = \"signer-tls.key\"\nclient_ca = \"ca.pem\"\n"
        );
        let path = self.path("signer.toml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Begins the record of a key that has signed nothing.
    async fn begin(&self) {
        let config = self.configure("127.0.0.1:0".parse().unwrap());
        let output = run(&["sign-record", "begin", "--config", &config, "--from-view", "0"]).await;
        assert!(output.status.success(), "{output:?}");
    }

    async fn serve(&self, listen: SocketAddr) -> Serving {
        let config = SignerConfig::load(self.configure(listen).as_ref()).unwrap();
        serve(&config).await.unwrap()
    }

    /// What a validator with this certificate is told.
    fn remote(&self, at: SocketAddr, who: &str) -> RemoteKey {
        RemoteKey {
            url: format!("https://{at}"),
            ca: self.path("ca.pem"),
            cert: self.path(&format!("{who}.pem")),
            key: self.path(&format!("{who}-tls.key")),
            deadline_ms: DEADLINE_MS,
        }
    }

    /// A record of the validator's key at a path of its own.
    fn guard(&self, name: &str) -> Arc<SignGuard> {
        let key = validator_keys(1).bls_public().unwrap();
        Arc::new(SignGuard::open(&self.path(name), self.network(), key.0).unwrap())
    }

    async fn connect(&self, at: SocketAddr, record: &str) -> RemoteSigner {
        let remote = self.remote(at, "validator");
        RemoteSigner::connect(&remote, self.guard(record), self.metrics.clone()).await.unwrap()
    }

    fn counted(&self, result: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = format!("signer_requests_total{{result=\"{result}\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
    }
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn proposal(view: u64, block: u8) -> Proposal {
    Proposal { epoch: 0, view, parent_view: view - 1, block: B256::repeat_byte(block) }
}

/// As the engine does, which may not block its threads either.
fn sign(signer: &dyn VoteSigner, vote: Vote) -> Result<[u8; 96], Unsigned> {
    tokio::task::block_in_place(|| signer.sign(&vote))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_signer_signs_what_the_key_itself_would_sign_and_once_a_view() {
    let rig = Rig::new();
    rig.begin().await;
    let serving = rig.serve(any()).await;
    let remote = rig.connect(serving.address, "record").await;
    let local = LocalSigner::new(validator_keys(1).bls, rig.guard("local")).unwrap();
    assert_eq!(remote.key(), local.key());
    for vote in [Vote::Notarize(proposal(5, 1)), Vote::Finalize(proposal(5, 1)), Vote::Nullify { epoch: 0, view: 6 }] {
        assert_eq!(sign(&remote, vote).unwrap(), sign(&local, vote).unwrap());
        assert_eq!(sign(&remote, vote).unwrap(), sign(&local, vote).unwrap(), "the same again");
    }
    let second = sign(&remote, Vote::Notarize(proposal(5, 2))).unwrap_err();
    assert!(matches!(second, Unsigned::Refused(Refusal::Conflict { .. })), "{second}");
    assert_eq!((rig.counted("signed"), rig.counted("away")), (6, 0));
    serving.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_validators_at_one_signer_the_second_gets_no_conflicting_vote() {
    let rig = Rig::new();
    rig.begin().await;
    let serving = rig.serve(any()).await;
    let first = rig.connect(serving.address, "first").await;
    let second = rig.connect(serving.address, "second").await;
    sign(&first, Vote::Notarize(proposal(5, 1))).unwrap();
    sign(&first, Vote::Nullify { epoch: 0, view: 6 }).unwrap();
    for vote in [Vote::Notarize(proposal(5, 2)), Vote::Finalize(proposal(6, 1))] {
        let refused = sign(&second, vote).unwrap_err();
        assert!(matches!(refused, Unsigned::RefusedElsewhere(_)), "{refused}");
    }
    assert_eq!(rig.counted("refused"), 2);
    // One that takes over is told at its start, so that it does not take its predecessor's votes for a twin's.
    let third = rig.connect(serving.address, "third").await;
    let position = switchyard_consensus_guard::Position { epoch: 0, number: 6 };
    assert_eq!(third.record().has_signed(switchyard_consensus_guard::Kind::Nullify, 0, position), Some(true));
    let refused = sign(&third, Vote::Notarize(proposal(4, 1))).unwrap_err();
    assert!(matches!(refused, Unsigned::Refused(Refusal::BelowLowWater { .. })), "{refused}");
    serving.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_that_is_away_costs_votes_and_one_that_is_back_remembers() {
    let rig = Rig::new();
    rig.begin().await;
    let serving = rig.serve(any()).await;
    let at = serving.address;
    let remote = rig.connect(at, "record").await;
    sign(&remote, Vote::Notarize(proposal(5, 1))).unwrap();
    serving.stop().await.unwrap();
    let away = sign(&remote, Vote::Notarize(proposal(6, 1))).unwrap_err();
    assert!(matches!(away, Unsigned::Away(_)), "{away}");

    // Someone takes the connection and is silent.
    let silent = TcpListener::bind(at).unwrap();
    let hasty = RemoteKey { deadline_ms: 20, ..rig.remote(at, "validator") };
    drop(silent);
    let serving = rig.serve(at).await;
    let hasty = RemoteSigner::connect(&hasty, rig.guard("hasty"), rig.metrics.clone()).await.unwrap();
    serving.stop().await.unwrap();
    let silent = TcpListener::bind(at).unwrap();
    let late = sign(&hasty, Vote::Notarize(proposal(8, 1))).unwrap_err();
    assert!(matches!(late, Unsigned::Away(_)), "{late}");
    drop(silent);

    let serving = rig.serve(at).await;
    sign(&remote, Vote::Notarize(proposal(7, 1))).unwrap();
    let other = rig.connect(at, "other").await;
    let refused = sign(&other, Vote::Notarize(proposal(5, 2))).unwrap_err();
    assert!(matches!(refused, Unsigned::Refused(_)), "{refused}");
    assert_eq!(rig.counted("away"), 2);
    serving.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_not_let_in_and_a_strange_signer_not_asked() {
    let rig = Rig::new();
    rig.begin().await;
    let serving = rig.serve(any()).await;
    let stranger = rig.remote(serving.address, "stranger");
    let refused = RemoteSigner::connect(&stranger, rig.guard("a"), rig.metrics.clone()).await.unwrap_err();
    assert!(matches!(refused, SignerError::Away { .. }), "{refused}");
    // A validator that trusts another authority does not believe this signer.
    let misled = RemoteKey { ca: rig.path("stranger.pem"), ..rig.remote(serving.address, "validator") };
    let refused = RemoteSigner::connect(&misled, rig.guard("b"), rig.metrics.clone()).await.unwrap_err();
    assert!(matches!(refused, SignerError::Away { .. }), "{refused}");
    // Nor does one of another network, or with another key, use it.
    let key = validator_keys(2).bls_public().unwrap().0;
    let guard = Arc::new(SignGuard::open(&rig.path("c"), rig.network(), key).unwrap());
    let remote = rig.remote(serving.address, "validator");
    let refused = RemoteSigner::connect(&remote, guard, rig.metrics.clone()).await.unwrap_err();
    assert!(matches!(refused, SignerError::Other { what: "key", .. }), "{refused}");
    let guard = Arc::new(SignGuard::open(&rig.path("d"), B256::ZERO, key).unwrap());
    let refused = RemoteSigner::connect(&remote, guard, rig.metrics.clone()).await.unwrap_err();
    assert!(matches!(refused, SignerError::Other { what: "network", .. }), "{refused}");
    serving.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_without_a_record_does_not_start() {
    let rig = Rig::new();
    let config = rig.configure(any());
    let line = refusal(&run(&["signer", "--config", &config]).await);
    assert!(line.contains("sign-record begin"), "{line}");
    rig.begin().await;
    let serving = rig.serve(any()).await;
    let line = refusal(&run(&["signer", "--config", &config]).await);
    assert!(line.contains("in use by another process"), "{line}");
    serving.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_without_its_key_finalises_as_long_as_its_signer_answers() {
    let rig = Rig::new();
    rig.begin().await;
    let serving = rig.serve(any()).await;
    let at = serving.address;
    let signer = format!(
        "[keys.signer]\nurl = \"https://{at}\"\nca = \"ca.pem\"\ncert = \"validator.pem\"\nkey = \"validator-tls.key\"\n\
         deadline_ms = 1000\n"
    );
    rig.folder.write_config(&rig.folder.config_text().replace("bls = \"bls.key\"\n", &signer));
    let config = rig.folder.config();
    let doctor = run(&["doctor", "--config", &config, "--json", "--writes", "1"]).await;
    let text = String::from_utf8(doctor.stdout).unwrap();
    assert!(text.lines().any(|l| l.contains("\"signer\"") && l.contains("answers in")), "{text}");

    let node = rig.folder.start().await;
    node.submit("01").await;
    serving.stop().await.unwrap();
    let serving = rig.serve(at).await;
    node.submit("02").await;
    node.stop().await;
    serving.stop().await.unwrap();

    // Not for the operator to mend here: the supervisor tries again.
    let refused = run(&["run", "--config", &config]).await;
    let line = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && line.contains("does not answer"), "{line}");
    let checked = run(&["config", "check", "--config", &config]).await;
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(rig.folder.genesis().validators, vec![genesis_validator(&validator_keys(1))]);
}

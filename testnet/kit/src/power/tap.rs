//! A signer that sees every vote and remembers nothing: what a validator asks for here has left it.

use super::trace::Marks;
use eyre::Context as _;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use switchyard_consensus_core::{
    Proposal, Vote,
    keys::{bls_public_key, sign_vote},
};
use switchyard_consensus_guard::{FORMAT, Interchange};
use switchyard_node::config::RemoteKey;
use switchyard_primitives::B256;
use switchyard_proto::{
    signer_v1::{
        self as v1,
        sign_response::Answer,
        signer_service_server::{SignerService, SignerServiceServer},
    },
    to_bytes,
};
use tokio::{net::TcpListener, sync::oneshot};
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

/// How long a vote may take, in milliseconds: this machine may have much else to do.
pub(super) const DEADLINE_MS: u64 = 250;

/// The folder with the certificates of signers and validators.
#[derive(Clone, Debug)]
pub(super) struct Tls(PathBuf);

impl Tls {
    /// Makes them.
    pub(super) fn create(folder: &Path) -> eyre::Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        fs::create_dir_all(folder)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        let authority = params.self_signed(&authority_key)?;
        fs::write(folder.join("ca.pem"), authority.pem())?;
        for name in ["signer", "validator"] {
            let key = KeyPair::generate()?;
            let params = CertificateParams::new(vec!["127.0.0.1".into()])?;
            fs::write(folder.join(format!("{name}.pem")), params.signed_by(&key, &authority, &authority_key)?.pem())?;
            let path = folder.join(format!("{name}.key"));
            fs::write(&path, key.serialize_pem())?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        }
        Ok(Self(folder.to_path_buf()))
    }

    /// Those that were made before.
    pub(super) fn open(folder: &Path) -> Self {
        Self(folder.to_path_buf())
    }

    fn read(&self, name: &str) -> eyre::Result<Vec<u8>> {
        let path = self.0.join(name);
        fs::read(&path).wrap_err_with(|| path.display().to_string())
    }

    fn server(&self) -> eyre::Result<ServerTlsConfig> {
        let identity = Identity::from_pem(self.read("signer.pem")?, self.read("signer.key")?);
        Ok(ServerTlsConfig::new().identity(identity).client_ca_root(Certificate::from_pem(self.read("ca.pem")?)))
    }
}

/// A validator's signer.
pub(super) struct Tap {
    address: SocketAddr,
    tls: Tls,
    votes: Arc<Mutex<Vec<Vote>>>,
    /// Dropping it stops the server.
    _stop: oneshot::Sender<()>,
}

struct Service {
    node: usize,
    network: B256,
    secret: [u8; 32],
    votes: Arc<Mutex<Vec<Vote>>>,
    marks: Option<Arc<Marks>>,
}

impl Tap {
    /// Signs for validator `node`; tells `marks` of each vote before it answers.
    pub(super) async fn start(
        tls: &Tls,
        node: usize,
        network: B256,
        secret: [u8; 32],
        marks: Option<Arc<Marks>>,
    ) -> eyre::Result<Self> {
        // Refused where it was chosen before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let votes = Arc::<Mutex<Vec<Vote>>>::default();
        let service = SignerServiceServer::new(Service { node, network, secret, votes: votes.clone(), marks });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::builder().tls_config(tls.server()?)?.add_service(service);
        tokio::spawn(server.serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
            let _ = stopped.await;
        }));
        Ok(Self { address, tls: tls.clone(), votes, _stop: stop })
    }

    /// What the validator's configuration says of it.
    pub(super) fn remote(&self) -> RemoteKey {
        let path = |name: &str| self.tls.0.join(name);
        RemoteKey {
            url: format!("https://{}", self.address),
            ca: path("ca.pem"),
            cert: path("validator.pem"),
            key: path("validator.key"),
            deadline_ms: DEADLINE_MS,
        }
    }

    /// Every vote that it was asked for.
    pub(super) fn votes(&self) -> Vec<Vote> {
        self.votes.lock().clone()
    }
}

fn vote(request: &v1::SignRequest) -> Option<Vote> {
    let v1::SignRequest { epoch, view, parent_view, .. } = *request;
    let proposal = || Some(Proposal { epoch, view, parent_view, block: B256::try_from(request.block.as_ref()).ok()? });
    match v1::VoteKind::try_from(request.kind).ok()? {
        v1::VoteKind::Notarize => proposal().map(Vote::Notarize),
        v1::VoteKind::Finalize => proposal().map(Vote::Finalize),
        v1::VoteKind::Nullify => Some(Vote::Nullify { epoch, view }),
        v1::VoteKind::Unspecified => None,
    }
}

#[tonic::async_trait]
impl SignerService for Service {
    async fn get_key(self: Arc<Self>, _: Request<v1::GetKeyRequest>) -> Result<Response<v1::GetKeyResponse>, Status> {
        let key = bls_public_key(&self.secret).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(v1::GetKeyResponse { network_id: to_bytes(self.network), public_key: to_bytes(key) }))
    }

    async fn sign(self: Arc<Self>, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let vote = vote(request.get_ref()).ok_or_else(|| Status::invalid_argument("no vote"))?;
        self.votes.lock().push(vote);
        if let Some(marks) = &self.marks {
            marks.voted(self.node, &vote).map_err(|e| Status::internal(e.to_string()))?;
        }
        let signature = sign_vote(&self.secret, &vote.message(self.network));
        let signature = signature.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(v1::SignResponse { answer: Some(Answer::Signature(to_bytes(signature))) }))
    }

    async fn get_record(
        self: Arc<Self>,
        _: Request<v1::GetRecordRequest>,
    ) -> Result<Response<v1::GetRecordResponse>, Status> {
        let failed = |e: String| Status::internal(e);
        let key = bls_public_key(&self.secret).map_err(|e| failed(e.to_string()))?;
        // It remembers nothing: what the validator knows it knows from its own disk.
        let (format, network, key) = (FORMAT, self.network, key.0.into());
        let record = Interchange { format, network, key, low_water: Vec::new(), signed: Vec::new() };
        let interchange = serde_json::to_vec(&record).map_err(|e| failed(e.to_string()))?;
        Ok(Response::new(v1::GetRecordResponse { interchange: interchange.into() }))
    }
}

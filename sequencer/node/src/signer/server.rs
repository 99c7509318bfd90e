//! The signer's side.

use super::{SignerConfig, SignerError, certificate, choose_algorithms, identity, wire};
use crate::{genesis::Genesis, keys};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use switchyard_consensus_core::keys::bls_public_key;
use switchyard_consensus_guard::{LocalSigner, SignGuard, Unsigned, VoteSigner as _};
use switchyard_proto::{
    signer_v1::{
        self as v1,
        signer_service_server::{SignerService, SignerServiceServer},
    },
    to_bytes,
};
use switchyard_rpc::{ConnectionLimits, bounded};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    transport::{Server, ServerTlsConfig},
};

/// A validator needs one connection, and one more while it notices that the first is dead.
const CONNECTIONS: ConnectionLimits = ConnectionLimits { connections: 32, idle_ms: 60_000 };
/// A stranger without a certificate holds its connection for so long at the most.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Requests at work, of one connection; a validator has one.
const REQUESTS: u32 = 8;
const REQUEST_BYTES_MAX: usize = 4 << 10;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Finds a validator's host that has vanished.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A signer that answers.
pub struct Serving {
    /// Where.
    pub address: SocketAddr,
    running: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    stop: CancellationToken,
}

impl Serving {
    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> Result<(), SignerError> {
        match (&mut self.running).await {
            Ok(ended) => ended.map_err(SignerError::Server),
            Err(_) => Ok(()),
        }
    }

    /// Takes no more requests, breaks every connection, and frees the record.
    pub async fn stop(mut self) -> Result<(), SignerError> {
        self.stop.cancel();
        self.ended().await
    }
}

struct Service(Arc<LocalSigner>);

fn open(config: &SignerConfig) -> Result<LocalSigner, SignerError> {
    let network = Genesis::load(&config.genesis)?.id()?;
    let secret = keys::read_bls(&config.keys)?;
    let public = bls_public_key(&secret).map_err(|_| keys::KeyError::Bls)?;
    if !SignGuard::exists(&config.sign_record) {
        return Err(SignerError::NoRecord { path: config.sign_record.display().to_string() });
    }
    let guard = Arc::new(SignGuard::open(&config.sign_record, network, public.0)?);
    Ok(LocalSigner::new(*secret, guard).map_err(|_| keys::KeyError::Bls)?)
}

/// Opens key and record and serves them. Call it on a tokio runtime.
///
/// # Errors
/// [`SignerError`]; above all without a sign record, since nobody knows what such a key has signed.
pub async fn serve(config: &SignerConfig) -> Result<Serving, SignerError> {
    let opening = config.clone();
    // Opening a keystore takes a second.
    let opened = tokio::task::spawn_blocking(move || open(&opening)).await;
    let signer = opened.map_err(|_| SignerError::Keys(keys::KeyError::Bls))??;

    choose_algorithms();
    let tls = ServerTlsConfig::new()
        .identity(identity(&config.tls.cert, &config.tls.key)?)
        .client_ca_root(certificate(&config.tls.client_ca)?)
        .timeout(HANDSHAKE);
    let failed = |source| SignerError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let stop = CancellationToken::new();
    let service = SignerServiceServer::new(Service(Arc::new(signer))).max_decoding_message_size(REQUEST_BYTES_MAX);
    let router = Server::builder()
        .tls_config(tls)
        .map_err(SignerError::Tls)?
        .timeout(REQUEST_TIMEOUT)
        .max_concurrent_streams(REQUESTS)
        .http2_max_header_list_size(8 << 10)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .add_service(service);
    let incoming = bounded(listener, CONNECTIONS, stop.clone());
    let running = tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
    tracing::info!(%address, "signing");
    Ok(Serving { address, running, stop })
}

#[tonic::async_trait]
impl SignerService for Service {
    async fn get_key(self: Arc<Self>, _: Request<v1::GetKeyRequest>) -> Result<Response<v1::GetKeyResponse>, Status> {
        let record = self.0.record();
        Ok(Response::new(v1::GetKeyResponse {
            network_id: to_bytes(record.network()),
            public_key: to_bytes(record.key()),
        }))
    }

    async fn sign(self: Arc<Self>, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let (network, vote) =
            wire::vote(request.get_ref()).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if network != self.0.record().network() {
            return Err(Status::failed_precondition("this signer is for another network"));
        }
        let signer = self.0.clone();
        // One write and one sync.
        let signed = tokio::task::spawn_blocking(move || signer.sign(&vote)).await;
        match signed {
            Ok(Ok(signature)) => Ok(Response::new(wire::response(Ok(signature)))),
            Ok(Err(Unsigned::Refused(refusal))) => {
                tracing::error!(%refusal, "a vote is not signed");
                Ok(Response::new(wire::response(Err(&refusal))))
            }
            Ok(Err(other)) => Err(Status::internal(other.to_string())),
            Err(_) => Err(Status::internal("the signer has a defect; see its log")),
        }
    }

    async fn get_record(
        self: Arc<Self>,
        _: Request<v1::GetRecordRequest>,
    ) -> Result<Response<v1::GetRecordResponse>, Status> {
        let json = serde_json::to_vec(&self.0.record().export()).map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(v1::GetRecordResponse { interchange: json.into() }))
    }
}

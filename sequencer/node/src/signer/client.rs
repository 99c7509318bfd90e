//! The validator's side.

use super::{SignerError, certificate, choose_algorithms, identity, wire};
use crate::config::RemoteKey;
use alloy_primitives::{B256, FixedBytes};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use std::{
    fmt,
    sync::{Arc, mpsc},
    time::Duration,
};
use switchyard_consensus_core::Vote;
use switchyard_consensus_guard::{Interchange, Key, SignGuard, Signature, Unsigned, VoteSigner};
use switchyard_proto::{
    ConvertError, fixed, hash,
    signer_v1::{self as v1, sign_response::Answer, signer_service_client::SignerServiceClient},
};
use tokio::runtime::Handle;
use tonic::{
    Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

/// How long the signer may take to say which key it has.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest record as JSON: those of several hundred rollups.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Finds a signer's host that has vanished.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// What a wait may take longer than the deadline that the request itself has.
const GRACE: Duration = Duration::from_millis(50);

/// How asking for signatures has ended, by result.
#[derive(Clone, Debug, Default)]
pub struct SignerMetrics(Family<ResultLabel, Counter>);

const SIGNED: &str = "signed";
const REFUSED: &str = "refused";
const AWAY: &str = "away";

/// One of the three.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl SignerMetrics {
    /// Registers them.
    pub fn register(registry: &mut prometheus_client::registry::Registry) -> Self {
        let metrics = Self::default();
        registry.register("signer_requests", "Votes that the remote signer was asked for", metrics.0.clone());
        // Each is there from the start, so that an alert sees the first one.
        for result in [SIGNED, REFUSED, AWAY] {
            drop(metrics.0.get_or_create(&ResultLabel { result }));
        }
        metrics
    }

    fn count(&self, result: &'static str) {
        self.0.get_or_create(&ResultLabel { result }).inc();
    }
}

/// A signer on another host, and the record of what this validator has had it sign.
pub struct RemoteSigner {
    client: SignerServiceClient<Channel>,
    deadline: Duration,
    runtime: Handle,
    guard: Arc<SignGuard>,
    metrics: SignerMetrics,
}

impl fmt::Debug for RemoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSigner").field("guard", &self.guard).finish_non_exhaustive()
    }
}

fn client(config: &RemoteKey) -> Result<SignerServiceClient<Channel>, SignerError> {
    choose_algorithms();
    let tls =
        ClientTlsConfig::new().ca_certificate(certificate(&config.ca)?).identity(identity(&config.cert, &config.key)?);
    let endpoint = Endpoint::from_shared(config.url.clone())
        .and_then(|endpoint| endpoint.tls_config(tls))
        .map_err(SignerError::Tls)?
        .connect_timeout(START_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    Ok(SignerServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(RECORD_BYTES_MAX))
}

/// What a signer signs for.
pub(crate) struct Probed {
    pub(crate) network: B256,
    pub(crate) key: FixedBytes<48>,
}

/// Asks a signer for its network and key.
pub(crate) async fn probe(config: &RemoteKey) -> Result<Probed, SignerError> {
    ask_key(config, &mut client(config)?).await
}

async fn ask_key(config: &RemoteKey, client: &mut SignerServiceClient<Channel>) -> Result<Probed, SignerError> {
    let found = within(config, client.get_key(v1::GetKeyRequest {})).await?;
    let strange = |e: ConvertError| SignerError::Away { url: config.url.clone(), reason: e.to_string() };
    Ok(Probed {
        network: hash("network_id", &found.network_id).map_err(strange)?,
        key: fixed("public_key", &found.public_key).map_err(strange)?.into(),
    })
}

async fn within<T>(
    config: &RemoteKey,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, SignerError> {
    let away = |reason| SignerError::Away { url: config.url.clone(), reason };
    match tokio::time::timeout(START_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(away(told(&status))),
        Err(_) => Err(away(format!("nothing came within {} s", START_TIMEOUT.as_secs()))),
    }
}

/// A status with the causes beneath it, where TLS says what it did not like.
fn told(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl RemoteSigner {
    /// Connects, makes sure that the signer has the guard's key, and takes over what its record holds and this one does not.
    ///
    /// # Errors
    /// [`SignerError`] where the signer is away, or another key's.
    pub async fn connect(
        config: &RemoteKey,
        guard: Arc<SignGuard>,
        metrics: SignerMetrics,
    ) -> Result<Self, SignerError> {
        let mut client = client(config)?;
        let found = ask_key(config, &mut client).await?;
        let other = |what, found: String, expected: String| {
            Err(SignerError::Other { url: config.url.clone(), what, found, expected })
        };
        if found.network != guard.network() {
            return other("network", found.network.to_string(), guard.network().to_string());
        }
        if found.key != guard.key() {
            return other("key", found.key.to_string(), FixedBytes(guard.key()).to_string());
        }
        let record = within(config, client.get_record(v1::GetRecordRequest {})).await?;
        let record: Interchange = serde_json::from_slice(&record.interchange).map_err(|e| SignerError::Away {
            url: config.url.clone(),
            reason: format!("its record cannot be read: {e}"),
        })?;
        if !guard.knows(&record)? {
            tracing::warn!("the signer has signed what this validator has not asked for: taking over its record");
            guard.import(&record)?;
        }
        let deadline = Duration::from_millis(config.deadline_ms);
        Ok(Self { client, deadline, runtime: Handle::current(), guard, metrics })
    }

    /// Blocks for at most the deadline and a little.
    fn ask(&self, vote: &Vote) -> Result<Signature, Unsigned> {
        let (mut client, deadline) = (self.client.clone(), self.deadline);
        let request = wire::request(self.guard.network(), vote);
        let (tell, answer) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let _ = tell.send(tokio::time::timeout(deadline, client.sign(request)).await);
        });
        let late = || Unsigned::Away(format!("no answer within {} ms", deadline.as_millis()));
        let response = match answer.recv_timeout(deadline + GRACE) {
            Ok(Ok(Ok(response))) => response.into_inner(),
            Ok(Ok(Err(status))) => return Err(Unsigned::Away(told(&status))),
            Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Timeout) => return Err(late()),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Unsigned::Away("the node is stopping".into())),
        };
        match response.answer {
            Some(Answer::Signature(signature)) => {
                fixed("signature", &signature).map_err(|error| Unsigned::Away(error.to_string()))
            }
            Some(Answer::Refusal(refusal)) => Err(Unsigned::RefusedElsewhere(refusal.text)),
            None => Err(Unsigned::Away("an empty answer".into())),
        }
    }
}

impl VoteSigner for RemoteSigner {
    fn key(&self) -> Key {
        self.guard.key()
    }

    fn sign(&self, vote: &Vote) -> Result<Signature, Unsigned> {
        self.guard.permit(vote.into())?;
        let answer = self.ask(vote);
        self.metrics.count(match &answer {
            Ok(_) => SIGNED,
            Err(Unsigned::Away(_)) => AWAY,
            Err(_) => REFUSED,
        });
        answer
    }

    fn record(&self) -> &SignGuard {
        &self.guard
    }
}

//! The shell's client commands, over gRPC. Each one prints lines for a person, or with `--json` one JSON object a line.
//!
//! Exit codes, by [`CliError::exit_code`]: 0 done; 1 failed, a node's lie and an aborted bundle included; 2 a transaction or a
//! bundle was refused; 3 it is not known, or what becomes of it is not, or it has not come as far as asked in time.

mod account;
mod bundle;
mod deposit;
pub mod light;
mod message;
mod operator;
mod record;
mod sign_record;
mod snapshot;
mod stake;
mod status;
mod stream;
mod submit;
mod upgrade;
mod verify;

pub use bundle::{BundleArgs, bundle};
pub use deposit::{DepositArgs, deposit};
pub use message::{MessageArgs, TransferArgs, message, transfer};
pub use operator::{OperatorArgs, operator};
pub use sign_record::{SignRecordArgs, SignRecordError, sign_record};
pub use snapshot::{SnapshotArgs, SnapshotCommandError, snapshot};
pub use stake::{StakeArgs, stake};
pub use status::{StatusArgs, status};
pub use stream::{StreamArgs, stream};
pub use submit::{SubmitArgs, submit};
pub use upgrade::{UpgradeArgs, upgrade};
pub use verify::{VerifyArgs, verify};

use crate::genesis::GenesisError;
use serde_json::{Value, json};
use std::{io::Write, time::Duration};
use switchyard_bridge_client::{Client, ClientError};
use switchyard_primitives::{B256, Level, TxHash};
use switchyard_proto::{ConvertError, hash, level, v1};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use v1::{
    block_service_client::BlockServiceClient, sequencer_service_client::SequencerServiceClient,
    status_service_client::StatusServiceClient, transaction_status::Outcome,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// A message longer than this is refused, whatever the node says of its limits.
const RESPONSE_BYTES_MAX: u64 = 256 << 20;

/// Where to connect.
#[derive(Clone, Debug, clap::Args)]
pub struct Connect {
    /// A node's gRPC endpoint, http://HOST:PORT
    #[arg(long, value_name = "URL", env = "SWITCHYARD_GRPC")]
    pub grpc: String,
}

/// Why a command ends with another code than 0.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The address cannot be used, or nothing answers there.
    #[error("cannot connect to {url}: {problem}")]
    Connect {
        /// The address.
        url: String,
        /// Why.
        problem: String,
    },
    /// The node answered with an error.
    #[error("{code}: {message}")]
    Call {
        /// The reason's stable word, or the gRPC code where the answer names no reason.
        code: String,
        /// What the node says.
        message: String,
    },
    /// The node's answer is not what the interface promises.
    #[error("malformed answer: {0}")]
    Malformed(#[from] ConvertError),
    /// The node belongs to another network than the genesis file.
    #[error("the node serves network {found}, the genesis file is of network {expected}")]
    OtherNetwork {
        /// The genesis file's network.
        expected: B256,
        /// The node's.
        found: B256,
    },
    /// The node's answer does not hold.
    #[error("{}: {source}", source.code())]
    Lie {
        /// What does not hold.
        #[from]
        source: light::VerifyError,
    },
    /// A stream ended before its last block.
    #[error("the stream ended; go on with --from {next}: {source}")]
    Stream {
        /// The height that would have come next.
        next: u64,
        /// Why it ended.
        source: Box<CliError>,
    },
    /// The genesis file cannot be used.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// An argument cannot be used.
    #[error("{argument}: {problem}")]
    Argument {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Transactions were refused; the reasons were printed.
    #[error("{refused} of {sent} transactions refused")]
    Refused {
        /// Transactions refused.
        refused: usize,
        /// Transactions sent.
        sent: usize,
    },
    /// A transaction or a bundle was refused.
    #[error("{code}: {message}")]
    RefusedAs {
        /// The reason's stable word.
        code: String,
        /// The reason with its values.
        message: String,
    },
    /// What was sent may still happen: the message says what, and how to look at it.
    #[error("{code}: {message}")]
    Unsure {
        /// The stable word of why no more is known.
        code: String,
        /// What was sent, and how to look at it.
        message: String,
    },
    /// A bundle ended, and none of it happened.
    #[error("bundle {0} was aborted: what its legs gave is given back")]
    Aborted(B256),
    /// The node knows nothing of the transaction.
    #[error("unknown transaction {0}")]
    UnknownTransaction(TxHash),
    /// The output is closed or full.
    #[error("cannot write output: {0}")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::RefusedAs { .. } => 2,
            Self::UnknownTransaction(_) | Self::Unsure { .. } => 3,
            Self::Call { code, .. } if code == "watch_timeout" => 3,
            _ => 1,
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let (code, message) = (error.code(), error.to_string());
        match error {
            ClientError::Refused { .. } => Self::RefusedAs { code, message },
            ClientError::Unsure { .. } => Self::Unsure { code, message },
            _ => Self::Call { code, message },
        }
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason);
        let code = reason.unwrap_or_else(|| format!("{:?}", status.code()).to_lowercase());
        Self::Call { code, message: status.message().to_owned() }
    }
}

/// An error and what caused it, down to the root: tonic's own text is no more than `transport error`.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text += ": ";
            text += &more;
        }
        cause = error.source();
    }
    text
}

/// A connected node.
struct Node {
    info: v1::GetInfoResponse,
    blocks: BlockServiceClient<Channel>,
    client: Client,
    sequencer: SequencerServiceClient<Channel>,
    status: StatusServiceClient<Channel>,
}

impl Connect {
    /// Connects, and sets the clients' limits to what the node says it sends.
    async fn open(&self) -> Result<Node, CliError> {
        let failed =
            |error: tonic::transport::Error| CliError::Connect { url: self.grpc.clone(), problem: causes(&error) };
        let endpoint = Endpoint::from_shared(self.grpc.clone())
            .map_err(failed)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(failed)?;
        let mut blocks = BlockServiceClient::new(channel.clone());
        let info = blocks.get_info(v1::GetInfoRequest { include_manifests: false }).await?.into_inner();
        let limits = info.limits.as_ref().ok_or(ConvertError::Missing { field: "limits" })?;
        let bytes = usize::try_from(limits.response_bytes.clamp(4 << 20, RESPONSE_BYTES_MAX)).unwrap_or(usize::MAX);
        Ok(Node {
            blocks: blocks.max_decoding_message_size(bytes),
            client: Client::over(channel.clone()),
            status: StatusServiceClient::new(channel.clone()),
            sequencer: SequencerServiceClient::new(channel).max_decoding_message_size(bytes),
            info,
        })
    }
}

impl Node {
    /// Tells a node of another network from one that lies.
    fn check_network(&self, trust: &light::Trust) -> Result<(), CliError> {
        let found = hash("network_id", &self.info.network_id)?;
        let expected = trust.network;
        if found == expected { Ok(()) } else { Err(CliError::OtherNetwork { expected, found }) }
    }

    /// Follows the seats up to an epoch.
    async fn follow_seats(&mut self, trust: &mut light::Trust, epoch: u64) -> Result<(), CliError> {
        while trust.client.newest() < epoch {
            let next = Some(trust.client.newest().saturating_add(1));
            let answer = self.blocks.get_epoch(v1::GetEpochRequest { epoch: next }).await?.into_inner();
            trust.advance(&answer)?;
        }
        Ok(())
    }

    /// Follows the seats up to those of a height.
    async fn follow_to(&mut self, trust: &mut light::Trust, height: u64) -> Result<(), CliError> {
        let epoch = trust.epochs.epoch_of(height);
        self.follow_seats(trust, epoch).await
    }

    /// Has a follower check a message, and follows the seats where it must.
    async fn accept(
        &mut self,
        follower: &mut light::Follower,
        message: v1::StreamSegmentsResponse,
    ) -> Result<Vec<light::Verified>, CliError> {
        match follower.accept(message.clone()) {
            Err(light::VerifyError::Epoch { found, newest }) if found > newest => {
                self.follow_seats(follower.trust_mut(), found).await?;
                Ok(follower.accept(message)?)
            }
            accepted => Ok(accepted?),
        }
    }

    fn tip(&self) -> Result<u64, CliError> {
        Ok(self.info.tip.as_ref().ok_or(ConvertError::Missing { field: "tip" })?.height)
    }
}

/// Where output goes, and in which form.
struct Printer<'a> {
    out: &'a mut (dyn Write + Send),
    json: bool,
}

impl Printer<'_> {
    fn print(&mut self, human: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Result<(), CliError> {
        if self.json {
            writeln!(self.out, "{}", json())?;
        } else {
            writeln!(self.out, "{}", human())?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// A transaction's status, checked and in the words of the shell.
struct ShownStatus {
    hash: TxHash,
    level: Option<Level>,
    status: v1::TransactionStatus,
}

impl ShownStatus {
    fn new(hash: TxHash, status: Option<v1::TransactionStatus>) -> Result<Self, CliError> {
        let status = status.ok_or(ConvertError::Missing { field: "status" })?;
        Ok(Self { hash, level: level("status.level", status.level)?, status })
    }

    /// Why it was refused; a reason that a node remembers of a transaction that came further does not count.
    fn refusal(&self) -> Option<&v1::Rejection> {
        self.status.rejection.as_ref().filter(|_| self.level.is_none())
    }

    /// Refused, unknown, or fine.
    fn verdict(&self) -> Result<(), CliError> {
        match (self.refusal(), self.level) {
            (Some(_), _) => Err(CliError::Refused { refused: 1, sent: 1 }),
            (None, None) => Err(CliError::UnknownTransaction(self.hash)),
            (None, Some(_)) => Ok(()),
        }
    }

    fn human(&self) -> String {
        let mut line = match (self.refusal(), self.level) {
            (Some(rejection), _) => format!("refused {} {}: {}", self.hash, rejection.code, rejection.message),
            (None, None) => format!("unknown {}", self.hash),
            (None, Some(level)) => format!("{level} {}", self.hash),
        };
        if let Some(at) = self.status.included {
            line += &format!(" in block {} at {}", at.height, at.index);
        }
        match &self.status.outcome {
            Some(Outcome::Executed(v1::Executed { block, index, success })) => {
                let result = if *success { "succeeded" } else { "failed" };
                line += &format!(", executed in rollup block {block} at {index}: {result}");
            }
            Some(Outcome::Skipped(v1::Skipped { reason })) => line += &format!(", not executed: {reason}"),
            None => {}
        }
        line
    }

    fn json(&self) -> Value {
        let outcome = self.status.outcome.as_ref().map(|outcome| match outcome {
            Outcome::Executed(v1::Executed { block, index, success }) => {
                json!({ "executed": { "block": block, "index": index, "success": success } })
            }
            Outcome::Skipped(v1::Skipped { reason }) => json!({ "skipped": { "reason": reason } }),
        });
        json!({
            "hash": self.hash,
            "level": self.level,
            "included": self.status.included.map(|at| json!({ "height": at.height, "index": at.index })),
            "outcome": outcome,
            "rejection": self.status.rejection.as_ref().map(rejection_json),
        })
    }
}

fn rejection_json(rejection: &v1::Rejection) -> Value {
    json!({ "code": rejection.code, "message": rejection.message })
}

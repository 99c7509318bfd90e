//! What the commands have in common that make records of the system rollup: proposals go from hand to hand as files, validators
//! sign them, and anyone sends the record.

use super::{CliError, Connect, Node};
use crate::{
    config::Config,
    keys::{read_bls, read_plain},
    signer::SignerConfig,
};
use alloy_primitives::FixedBytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::Write,
    path::{Path, PathBuf},
};
use switchyard_bridge_core::SystemState;
use switchyard_consensus_network::identity;
use switchyard_primitives::{B256, Bytes, Level, RollupId};
use switchyard_proto::{ConvertError, hash, to_bytes, v1};
use zeroize::Zeroizing;

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long a record may take to be final.
const FINAL_TIMEOUT_MS: u32 = 60_000;

/// What one validator has signed of a proposal, as files have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// The validator.
    pub(super) identity: B256,
    /// Its signature.
    pub(super) signature: FixedBytes<96>,
}

/// What is wrong with a file that an argument names.
pub(super) fn problem(argument: &Path, problem: impl ToString) -> CliError {
    CliError::Argument { argument: argument.display().to_string(), problem: problem.to_string() }
}

/// Reads a JSON file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, CliError> {
    let bytes = std::fs::metadata(path).map_err(|e| problem(path, e))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(problem(path, format!("{bytes} bytes, at most {FILE_BYTES_MAX} are read")));
    }
    serde_json::from_slice(&std::fs::read(path).map_err(|e| problem(path, e))?).map_err(|e| problem(path, e))
}

/// Reads the parts that validators have signed.
pub(super) fn read_parts(paths: &[PathBuf]) -> Result<Vec<(B256, [u8; 96])>, CliError> {
    paths.iter().map(|path| read::<Part>(path).map(|part| (part.identity, part.signature.0))).collect()
}

/// Connects, and reads the hub's state.
pub(super) async fn open(connect: &Connect) -> Result<(Node, SystemState), CliError> {
    let mut node = connect.open().await?;
    let network = hash("network_id", &node.info.network_id)?;
    let answer = node.blocks.get_hub_state(v1::GetHubStateRequest {}).await?.into_inner();
    let state = SystemState::decode(network, Default::default(), &answer.state);
    let state = state.map_err(|source| ConvertError::Decode { field: "state", source })?;
    Ok((node, state))
}

/// Whose key signs, and where it is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct By {
    /// The node's configuration, which names the keys; or a remote signer's, on its host, with --identity
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// The validator, where a signer's configuration does not tell: what `switchyard keys show` prints on the validator's host
    #[arg(long, value_name = "HEX")]
    identity: Option<B256>,
}

/// Arguments of `sign`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SignArgs {
    /// Whose key.
    #[command(flatten)]
    pub(super) by: By,
    /// The proposal
    #[arg(long, value_name = "FILE")]
    pub(super) proposal: PathBuf,
}

/// Arguments of `submit`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SubmitArgs {
    /// The node.
    #[command(flatten)]
    pub(super) connect: Connect,
    /// The proposal
    #[arg(long, value_name = "FILE")]
    pub(super) proposal: PathBuf,
    /// What `sign` has printed; once for each validator
    #[arg(long, value_name = "FILE", required = true)]
    pub(super) part: Vec<PathBuf>,
}

/// A validator, and the secret of its BLS key.
pub(super) struct Keys {
    /// Its identity.
    pub(super) identity: B256,
    /// The secret.
    pub(super) bls: Zeroizing<[u8; 32]>,
}

impl By {
    /// Reads the keys.
    pub(super) fn keys(&self) -> Result<Keys, CliError> {
        let path = &self.config;
        let text = std::fs::read_to_string(path).map_err(|e| problem(path, e))?;
        if SignerConfig::is_one(&text) {
            let signer = SignerConfig::parse(path, &text).map_err(|e| problem(path, e))?;
            let unnamed = || problem(path, "a signer's configuration: name the validator with --identity");
            let identity = self.identity.ok_or_else(unnamed)?;
            return Ok(Keys { identity, bls: read_bls(&signer.keys).map_err(|e| problem(path, e))? });
        }
        let config = Config::load(path).map_err(|e| problem(path, e))?;
        let keys = config.validator_keys().map_err(|e| problem(path, e))?;
        let secret = read_plain(&keys.identity).map_err(|e| problem(path, e))?;
        let identity = identity(&secret);
        if self.identity.is_some_and(|named| named != identity) {
            return Err(problem(path, format!("is {identity}'s, not that of --identity")));
        }
        Ok(Keys { identity, bls: read_bls(&keys.bls).map_err(|e| problem(path, e))? })
    }
}

/// Sends a record that the present state allows, and waits until it is final.
pub(super) async fn send(
    node: &mut Node,
    state: &SystemState,
    record: Bytes,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    if let Err(error) = state.draft().add(&record) {
        return Err(CliError::Call { code: "record".to_owned(), message: error.to_string() });
    }
    let rollup_id = RollupId::SYSTEM.0;
    let record = node.client.submit(RollupId::SYSTEM, record).await?;
    let request = v1::WatchTransactionRequest {
        rollup_id,
        hash: to_bytes(record),
        until: v1::Level::from(Level::Final).into(),
        until_outcome: false,
        timeout_ms: FINAL_TIMEOUT_MS,
    };
    let mut changes = node.sequencer.watch_transaction(request).await?.into_inner();
    let mut included = None;
    while let Some(change) = changes.message().await? {
        let status = change.status.ok_or(ConvertError::Missing { field: "status" })?;
        if let Some(v1::Rejection { code, message, .. }) = status.rejection.filter(|_| status.included.is_none()) {
            return Err(CliError::Call { code, message });
        }
        included = status.included.or(included);
    }
    let at = included.ok_or(CliError::UnknownTransaction(record))?;
    Ok(writeln!(out, "final {record} in block {}", at.height)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_signers_configuration_signs_for_the_validator_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let example = include_str!("../../../../docs/signer.example.toml");
        let example = example.replace("bls_keystore = \"bls.json\"", "bls = \"bls.key\"");
        let config = folder.path().join("signer.toml");
        std::fs::write(&config, example.replace("bls_password_file = \"bls.password\"", "")).unwrap();
        let key = folder.path().join("bls.key");
        std::fs::write(&key, "07".repeat(32)).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();

        let unnamed = By { config: config.clone(), identity: None }.keys().err().unwrap().to_string();
        assert!(unnamed.contains("--identity"), "{unnamed}");
        let keys = By { config, identity: Some(B256::repeat_byte(1)) }.keys().unwrap();
        assert_eq!((keys.identity, *keys.bls), (B256::repeat_byte(1), [7; 32]));
    }
}

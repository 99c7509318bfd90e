//! Moving the record of what a validator has signed from one machine to another.

use crate::{
    config::{BlsKey, Config, ConfigError},
    genesis::{Genesis, GenesisError},
    keys::{KeyError, read_bls, read_plain},
    signer::SignerConfig,
};
use std::{
    io::Write,
    path::{Path, PathBuf},
};
use switchyard_consensus_core::keys::bls_public_key;
use switchyard_consensus_guard::{FORMAT, Family, GuardError, Interchange, Mark, Position, SignGuard};
use switchyard_consensus_network::identity;

/// Arguments of `switchyard sign-record`.
#[derive(Debug, clap::Args)]
pub struct SignRecordArgs {
    #[command(subcommand)]
    command: SignRecordCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SignRecordCommand {
    /// Print the record as JSON, to import it elsewhere; the node must be stopped, and must not run again with this key
    Export {
        /// The node's configuration, or the signer's
        #[arg(long)]
        config: PathBuf,
        /// Write to this file instead, which must not exist
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Add what another machine's record holds; only what is above it is signed from then on
    Import {
        /// The node's configuration, or the signer's
        #[arg(long)]
        config: PathBuf,
        /// What `export` has written
        file: PathBuf,
    },
    /// Begin a record for a key that has signed before and whose record is lost
    Begin {
        /// The node's configuration, or the signer's
        #[arg(long)]
        config: PathBuf,
        /// The lowest epoch in which may be signed: above the network's, which `switchyard_epoch` of any validator's metrics
        /// tells; 0 for a key that has never signed
        #[arg(long)]
        from_epoch: u64,
    },
}

/// Why a command on the sign record fails.
#[derive(Debug, thiserror::Error)]
pub enum SignRecordError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The record.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The key is at the signer, and nothing here says which one it is.
    #[error("validator {identity} has joined after the genesis: export the record of its key at the signer")]
    NotInGenesis {
        /// The validator.
        identity: switchyard_primitives::B256,
    },
    /// There is none.
    #[error("{0}: no sign record is there")]
    Missing(String),
    /// There is one already.
    #[error("{0}: a sign record is there already; it is kept")]
    Exists(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not an export.
    #[error("{path} is no exported sign record: {detail}")]
    Format {
        /// The file.
        path: String,
        /// Why.
        detail: String,
    },
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SignRecordError {
    let path = path.display().to_string();
    |source| SignRecordError::Io { path, source }
}

/// Where the record is, and whose it is.
struct Place {
    path: PathBuf,
    network: switchyard_primitives::B256,
    key: [u8; 48],
}

impl Place {
    fn of(config: &Path) -> Result<Self, SignRecordError> {
        let text = std::fs::read_to_string(config).map_err(io(config))?;
        if SignerConfig::is_one(&text) {
            let config = SignerConfig::parse(config, &text)?;
            let key = bls_public_key(&*read_bls(&config.keys)?).map_err(|_| KeyError::Bls)?.0;
            return Ok(Self { path: config.sign_record, network: Genesis::load(&config.genesis)?.id()?, key });
        }
        let config = Config::parse(config, &text)?;
        let genesis = Genesis::load(&config.genesis)?;
        let keys = config.validator_keys()?;
        let key = match &keys.bls {
            BlsKey::Remote(_) => {
                let identity = identity(&*read_plain(&keys.identity)?);
                let state = genesis.hub_state()?;
                let known = state.validators().get(&identity).map(|validator| validator.bls.0);
                known.ok_or(SignRecordError::NotInGenesis { identity })?
            }
            here => bls_public_key(&*read_bls(here)?).map_err(|_| KeyError::Bls)?.0,
        };
        Ok(Self { path: config.sign_record(), network: genesis.id()?, key })
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn open(&self) -> Result<SignGuard, SignRecordError> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(io(folder))?;
        }
        Ok(SignGuard::open(&self.path, self.network, self.key)?)
    }
}

/// `switchyard sign-record`.
pub fn sign_record(args: SignRecordArgs, out: &mut dyn Write) -> Result<(), SignRecordError> {
    match args.command {
        SignRecordCommand::Export { config, out: file } => {
            let place = Place::of(&config)?;
            if !SignGuard::exists(&place.path) {
                return Err(SignRecordError::Missing(place.name()));
            }
            let json = serde_json::to_string_pretty(&place.open()?.export()).map_err(std::io::Error::from);
            let json = json.map_err(io(&place.path))?;
            match file {
                Some(path) => {
                    let mut file = std::fs::File::create_new(&path).map_err(io(&path))?;
                    writeln!(file, "{json}").and_then(|()| file.sync_all()).map_err(io(&path))
                }
                None => writeln!(out, "{json}").map_err(io(Path::new("standard output"))),
            }
        }
        SignRecordCommand::Import { config, file } => {
            let text = std::fs::read_to_string(&file).map_err(io(&file))?;
            let export: Interchange = serde_json::from_str(&text)
                .map_err(|e| SignRecordError::Format { path: file.display().to_string(), detail: e.to_string() })?;
            let place = Place::of(&config)?;
            // Before a record is begun: one that is there and empty would let the key sign anything.
            export.check(place.network, &place.key)?;
            Ok(place.open()?.import(&export)?)
        }
        SignRecordCommand::Begin { config, from_epoch } => {
            let place = Place::of(&config)?;
            if SignGuard::exists(&place.path) {
                return Err(SignRecordError::Exists(place.name()));
            }
            let low = Some(Position { epoch: from_epoch, number: 0 });
            let mark = Mark { family: Family::Consensus, scope: 0, low };
            let (network, key) = (place.network, place.key.to_vec().into());
            let above = Interchange { format: FORMAT, network, key, low_water: vec![mark], signed: Vec::new() };
            Ok(place.open()?.import(&above)?)
        }
    }
}

//! `switchyard keys`: making, listing and moving keys.

use super::OperateError;
use crate::{
    config::Config,
    keys::{
        KeyError, NodeKeys, decode_plain, file,
        keystore::{FILE_BYTES_MAX, Keystore, NewKdf},
        open_keystore, parse_keystore, password, read_plain,
    },
};
use alloy_primitives::B256;
use serde_json::json;
use std::{
    io::Write,
    path::{Path, PathBuf},
};
use switchyard_consensus_core::keys::{bls_public_key, bls_secret_from_entropy};
use zeroize::Zeroizing;

/// Most files of a folder that `list` looks at.
const LIST_FILES_MAX: usize = 10_000;

/// What whoever imports a key must know. A node would begin an empty sign record for it without a word.
const IMPORTED: &str = "switchyard: has this key voted on a network before? Then bring its sign record before a node runs with \
                        it (`switchyard sign-record import`), or begin one above every view in which it can have voted \
                        (`switchyard sign-record begin`)";

/// Which of a validator's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// ed25519, in a plain file: who the node is on the network.
    Identity,
    /// BLS12-381, in an EIP-2335 keystore: what signs votes.
    Bls,
}

/// Where the password of a keystore comes from; else SWITCHYARD_KEY_PASSWORD, else the terminal.
#[derive(Clone, Debug, clap::Args)]
pub struct PasswordArgs {
    /// A file with the keystore's password, mode 0600; else SWITCHYARD_KEY_PASSWORD, else the terminal
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// What a new keystore is like.
#[derive(Clone, Debug, clap::Args)]
pub struct NewKeystoreArgs {
    /// How the password becomes a key
    #[arg(long, value_enum, default_value_t = NewKdf::Scrypt)]
    pub kdf: NewKdf,
    /// Anything that tells this keystore from others
    #[arg(long, default_value = "")]
    pub description: String,
}

/// Keys.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeysCommand {
    /// Make a key
    New {
        /// Which
        #[arg(value_enum)]
        kind: Kind,
        /// The new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The new keystore's password.
        #[command(flatten)]
        password: PasswordArgs,
        /// The new keystore.
        #[command(flatten)]
        keystore: NewKeystoreArgs,
    },
    /// The keys in a folder. A plain file does not say which kind it is: `identity...` is taken for an identity
    List {
        /// The folder
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// The validator of a configuration's keys, as a genesis lists it: identity, BLS key, proof of possession
    Show {
        /// The node's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Take a key from elsewhere: a plain file or, for BLS, an EIP-2335 keystore
    Import {
        /// Which
        #[arg(value_enum)]
        kind: Kind,
        /// The file from elsewhere
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// The password of the keystore from elsewhere, where it is another one
        #[arg(long, value_name = "FILE")]
        from_password_file: Option<PathBuf>,
        /// The new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The new keystore's password.
        #[command(flatten)]
        password: PasswordArgs,
        /// The new keystore.
        #[command(flatten)]
        keystore: NewKeystoreArgs,
    },
    /// Write a key into a plain file, mode 0600. A key must never sign on two machines: both would be slashed
    Export {
        /// Which
        #[arg(value_enum)]
        kind: Kind,
        /// The keystore or plain file
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// The new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The keystore's password.
        #[command(flatten)]
        password: PasswordArgs,
    },
}

/// Runs one of the commands.
pub fn keys(command: KeysCommand, out: &mut dyn Write) -> Result<(), OperateError> {
    match command {
        KeysCommand::New { kind: Kind::Identity, out: path, .. } => {
            let identity = new_identity(&path)?;
            writeln!(out, "identity {identity} {}", path.display())?;
        }
        KeysCommand::New { kind: Kind::Bls, out: path, password, keystore } => {
            refuse_existing(&path)?;
            let password = password::ask_new(password.password_file.as_deref(), &path.display().to_string())?;
            let (_, keystore) = new_bls(&path, &password, &keystore)?;
            writeln!(out, "bls {} {}", shown(&keystore), path.display())?;
        }
        KeysCommand::List { dir, json } => list(&dir, json, out)?,
        KeysCommand::Show { config } => {
            let validator = NodeKeys::load(Config::load(&config)?.validator_keys()?)?.genesis_validator()?;
            writeln!(out, "{}", serde_json::to_string_pretty(&validator).map_err(std::io::Error::other)?)?;
        }
        KeysCommand::Import { kind: Kind::Identity, from, out: path, .. }
        | KeysCommand::Export { kind: Kind::Identity, from, out: path, .. } => {
            let secret = read_plain(&from)?;
            write_plain(&path, &secret)?;
            writeln!(out, "identity {} {}", switchyard_consensus_network::identity(&secret), path.display())?;
        }
        KeysCommand::Import { kind: Kind::Bls, from, from_password_file, out: path, password, keystore } => {
            refuse_existing(&path)?;
            let password_file = password.password_file.as_deref();
            let secret = read_bls(&from, from_password_file.as_deref().or(password_file))?;
            let password = password::ask_new(password_file, &path.display().to_string())?;
            let keystore = seal(&path, &secret, &password, &keystore)?;
            writeln!(out, "bls {} {}", shown(&keystore), path.display())?;
            eprintln!("{IMPORTED}");
        }
        KeysCommand::Export { kind: Kind::Bls, from, out: path, password } => {
            refuse_existing(&path)?;
            let secret = read_bls(&from, password.password_file.as_deref())?;
            let public = bls_public_key(&secret).map_err(|_| KeyError::Bls)?;
            write_plain(&path, &secret)?;
            writeln!(out, "bls {public} {}", path.display())?;
        }
    }
    Ok(())
}

/// Before a person is asked for a password in vain; [`file::create_private`] is what decides.
fn refuse_existing(path: &Path) -> Result<(), KeyError> {
    match path.symlink_metadata() {
        Ok(_) => Err(KeyError::Exists { path: path.display().to_string() }),
        Err(_) => Ok(()),
    }
}

fn write_plain(path: &Path, secret: &[u8; 32]) -> Result<(), KeyError> {
    let text = Zeroizing::new(hex::encode(secret) + "\n");
    file::create_private(path, text.as_bytes())
}

/// Makes an ed25519 identity in a new plain file.
pub(super) fn new_identity(path: &Path) -> Result<B256, KeyError> {
    let secret = Zeroizing::new(rand::random());
    write_plain(path, &secret)?;
    Ok(switchyard_consensus_network::identity(&secret))
}

/// Makes a BLS12-381 key in a new keystore.
pub(super) fn new_bls(
    path: &Path,
    password: &str,
    like: &NewKeystoreArgs,
) -> Result<(Zeroizing<[u8; 32]>, Keystore), KeyError> {
    let entropy = Zeroizing::new(rand::random());
    let secret = Zeroizing::new(bls_secret_from_entropy(&entropy).map_err(|_| KeyError::Bls)?);
    let keystore = seal(path, &secret, password, like)?;
    Ok((secret, keystore))
}

fn seal(path: &Path, secret: &[u8; 32], password: &str, like: &NewKeystoreArgs) -> Result<Keystore, KeyError> {
    let failed = |source| KeyError::Keystore { path: path.display().to_string(), source };
    let keystore = Keystore::seal(secret, password, like.kdf, &like.description).map_err(failed)?;
    file::create_private(path, keystore.to_json().map_err(failed)?.as_bytes())?;
    Ok(keystore)
}

/// A BLS12-381 secret from a keystore, whatever its mode, or from a plain file, which must be private.
fn read_bls(path: &Path, password_file: Option<&Path>) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let (text, _) = file::read_any(path, FILE_BYTES_MAX)?;
    if decode_plain(&text).is_some() {
        return read_plain(path);
    }
    let keystore = parse_keystore(path, &text)?;
    let password = password::ask(password_file, &path.display().to_string())?;
    open_keystore(path, &keystore, &password)
}

fn shown(keystore: &Keystore) -> String {
    keystore.pubkey.map_or_else(|| "unnamed".into(), |public| format!("0x{}", hex::encode(public)))
}

/// A key file, as `list` shows it.
struct Listed {
    kind: &'static str,
    form: &'static str,
    public: String,
    description: String,
}

fn look(path: &Path) -> Option<Listed> {
    let (text, _) = file::read_any(path, FILE_BYTES_MAX).ok()?;
    if let Some(secret) = decode_plain(&text) {
        let is_identity = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("identity"));
        let bls = bls_public_key(&secret).ok().filter(|_| !is_identity);
        let (kind, public) = match bls {
            Some(public) => ("bls", public.to_string()),
            None => ("identity", switchyard_consensus_network::identity(&secret).to_string()),
        };
        return Some(Listed { kind, form: "plain", public, description: String::new() });
    }
    let keystore = Keystore::parse(&text).ok()?;
    let public = shown(&keystore);
    Some(Listed { kind: "bls", form: "keystore", public, description: keystore.description })
}

fn list(dir: &Path, json: bool, out: &mut dyn Write) -> Result<(), OperateError> {
    let failed = |source| KeyError::Read { path: dir.display().to_string(), source };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)?.take(LIST_FILES_MAX) {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    for path in paths {
        let Some(Listed { kind, form, public, description }) = look(&path) else { continue };
        let file = path.display().to_string();
        if json {
            let line = json!({
                "kind": kind, "form": form, "public": public, "file": file, "description": description,
            });
            writeln!(out, "{line}")?;
        } else {
            // What somebody else wrote must not drive the terminal.
            let description: String = description.chars().filter(|c| !c.is_control()).collect();
            writeln!(out, "{}", format!("{kind:8} {form:8} {public} {file} {description}").trim_end())?;
        }
    }
    Ok(())
}

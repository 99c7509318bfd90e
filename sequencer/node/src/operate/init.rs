//! `switchyard init`: a new node's folder.

use super::{
    OperateError,
    keys::{NewKeystoreArgs, PasswordArgs, new_bls, new_identity},
};
use crate::{
    config::{Config, Peer},
    genesis::Genesis,
    keys::{
        KeyError, NodeKeys, file, keystore::FILE_BYTES_MAX, open_keystore, parse_keystore, password,
        password::PASSWORD_ENV, read_plain,
    },
};
use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use switchyard_primitives::B256;
use switchyard_rollup_core::Vm;

const EXAMPLE: &str = include_str!("../../../../docs/node.example.toml");
/// Lines of the example before its lists.
const PEERS_MARK: &str = "# One entry for each other validator whose address the log does not tell.";
const RPC_MARK: &str = "# An Ethereum JSON-RPC server,";

/// The keys' files in the folder.
const IDENTITY: &str = "keys/identity.key";
const BLS: &str = "keys/bls.json";

/// A new node's folder: configuration, keys, the genesis where there is one.
#[derive(Clone, Debug, clap::Args)]
pub struct InitArgs {
    /// The node's folder, made with mode 0700
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The network's genesis, copied into the folder; leave it out while the network is still being put together
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// A follower: no seat, no keys; it copies the log from --source
    #[arg(long, requires = "sources", conflicts_with_all = ["peers", "listen", "password_file"])]
    pub follower: bool,
    /// The gRPC endpoint of a node to copy the log from, http://HOST:PORT. Once for each
    #[arg(long = "source", value_name = "URL")]
    pub sources: Vec<String>,
    /// Where the other validators reach this one
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7100")]
    pub listen: SocketAddr,
    /// gRPC
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7200")]
    pub grpc: SocketAddr,
    /// Metrics and health
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7300")]
    pub metrics: SocketAddr,
    /// JSON-RPC of the genesis' first EVM rollup; the others are on the ports above
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8545")]
    pub rpc: SocketAddr,
    /// Another validator: IDENTITY@HOST:PORT. Once for each
    #[arg(long = "peer", value_name = "PEER", value_parser = parse_peer)]
    pub peers: Vec<Peer>,
    /// The BLS keystore's password.
    #[command(flatten)]
    pub password: PasswordArgs,
    /// The BLS keystore.
    #[command(flatten)]
    pub keystore: NewKeystoreArgs,
}

fn parse_peer(text: &str) -> Result<Peer, String> {
    let (identity, address) = text.split_once('@').ok_or("expected IDENTITY@HOST:PORT")?;
    let identity = identity.parse::<B256>().map_err(|error| format!("identity: {error}"))?;
    let address = address.parse().map_err(|error| format!("address: {error}"))?;
    Ok(Peer { identity, address })
}

/// Makes the folder and prints the validator as a genesis lists it. Keys that are there already are used as they are; a
/// configuration that is there is never replaced.
pub fn init(args: InitArgs, out: &mut dyn Write) -> Result<(), OperateError> {
    let folder = |problem: std::io::Error| OperateError::Argument {
        argument: "--dir",
        problem: format!("{}: {problem}", args.dir.display()),
    };
    file::create_folder(&args.dir)?;
    let dir = args.dir.canonicalize().map_err(folder)?;
    let config = dir.join("node.toml");
    if config.symlink_metadata().is_ok() {
        return Err(KeyError::Exists { path: config.display().to_string() }.into());
    }
    let genesis = args.genesis.as_deref().map(|path| take_genesis(path, &dir)).transpose()?;
    if args.follower {
        file::create_private(&config, render_follower(&args, genesis.as_ref()).as_bytes())?;
        Config::load(&config)?;
        writeln!(out, "{}", config.display())?;
        return Ok(());
    }
    let password_file = args.password.password_file.as_deref().map(absolute).transpose()?;
    let keys = make_keys(&dir, password_file.as_deref(), &args.keystore)?;
    let text = render(&args, &keys, genesis.as_ref(), password_file.as_deref());
    file::create_private(&config, text.as_bytes())?;
    Config::load(&config)?;
    let validator = serde_json::to_string_pretty(&keys.genesis_validator()?).map_err(std::io::Error::other)?;
    writeln!(out, "{validator}")?;
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, OperateError> {
    let failed = |problem| OperateError::Argument {
        argument: "--password-file",
        problem: format!("{}: {problem}", path.display()),
    };
    path.canonicalize().map_err(failed)
}

/// Checks the genesis and copies it, so that the folder is all that the node needs.
fn take_genesis(from: &Path, dir: &Path) -> Result<Genesis, OperateError> {
    let genesis = Genesis::load(from)?;
    let to = dir.join("genesis.json");
    if !same_file(from, &to) {
        let text = std::fs::read(from).map_err(|source| KeyError::Read { path: from.display().to_string(), source })?;
        file::create_private(&to, &text)?;
    }
    Ok(genesis)
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Makes what is missing; what is there is an interrupted start's, or was imported.
fn make_keys(dir: &Path, password_file: Option<&Path>, like: &NewKeystoreArgs) -> Result<NodeKeys, KeyError> {
    let (identity, bls) = (dir.join(IDENTITY), dir.join(BLS));
    if identity.symlink_metadata().is_err() {
        new_identity(&identity)?;
    }
    let shown = bls.display().to_string();
    let secret = if bls.symlink_metadata().is_ok() {
        let keystore = parse_keystore(&bls, &file::read_private(&bls, FILE_BYTES_MAX)?)?;
        open_keystore(&bls, &keystore, &password::ask(password_file, &shown)?)?
    } else {
        new_bls(&bls, &password::ask_new(password_file, &shown)?, like)?.0
    };
    Ok(NodeKeys { identity: *read_plain(&identity)?, bls: *secret })
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// The example with this node's values: what an operator reads there stays beside them.
fn render(args: &InitArgs, keys: &NodeKeys, genesis: Option<&Genesis>, password_file: Option<&Path>) -> String {
    let password = match password_file {
        Some(path) => format!("bls_password_file = {}\n", quoted(&path.display().to_string())),
        None => "# bls_password_file = \"bls.password\"\n".into(),
    };
    let keys_section = format!(
        "[keys]\n# 32 secret bytes in hex, mode 0600.\nidentity = {}\n\
         # An EIP-2335 keystore; its password is in bls_password_file, or in the environment: {PASSWORD_ENV}.\n\
         bls_keystore = {}\n{password}\n",
        quoted(IDENTITY),
        quoted(BLS)
    );
    let mut text = replace(EXAMPLE, "[keys]", "[network]", &keys_section);
    text = replace(&text, "[network]", PEERS_MARK, &listen("network", args.listen));
    text = replace(&text, PEERS_MARK, "[consensus]", &peers(args, keys, genesis));
    render_servers(text, args, genesis)
}

fn listen(section: &str, address: SocketAddr) -> String {
    format!("[{section}]\nlisten = \"{address}\"\n\n")
}

/// The same for a follower.
fn render_follower(args: &InitArgs, genesis: Option<&Genesis>) -> String {
    let text = EXAMPLE.replacen("role = \"validator\"", "role = \"follower\"", 1);
    render_servers(replace(&text, "[keys]", "[consensus]", ""), args, genesis)
}

/// What validators and followers have alike.
fn render_servers(mut text: String, args: &InitArgs, genesis: Option<&Genesis>) -> String {
    let sources = args.sources.iter().map(|source| quoted(source)).collect::<Vec<_>>().join(", ");
    text = text.replacen("sources = []", &format!("sources = [{sources}]"), 1);
    text = replace(&text, "[grpc]", "[metrics]", &listen("grpc", args.grpc));
    text = replace(&text, "[metrics]", RPC_MARK, &listen("metrics", args.metrics));
    replace(&text, RPC_MARK, "[mempool]", &servers(args, genesis))
}

/// Replaces what begins with `from` up to `to`.
fn replace(text: &str, from: &str, to: &str, with: &str) -> String {
    let found = text.split_once(from).and_then(|(before, rest)| Some((before, rest.split_once(to)?.1)));
    match found {
        Some((before, after)) => [before, with, to, after].concat(),
        None => text.to_owned(),
    }
}

fn peers(args: &InitArgs, keys: &NodeKeys, genesis: Option<&Genesis>) -> String {
    let mut text = format!("{PEERS_MARK}\n\n");
    for Peer { identity, address } in &args.peers {
        text += &format!("[[network.peers]]\nidentity = \"{identity}\"\naddress = \"{address}\"\n\n");
    }
    let own = keys.identity_public();
    let others = genesis.iter().flat_map(|genesis| &genesis.validators).map(|validator| validator.seat.identity);
    for identity in others.filter(|id| *id != own && args.peers.iter().all(|peer| peer.identity != *id)) {
        text += &format!("# [[network.peers]]\n# identity = \"{identity}\"\n# address = \"HOST:PORT\"\n\n");
    }
    text
}

fn servers(args: &InitArgs, genesis: Option<&Genesis>) -> String {
    let mut text = format!("{RPC_MARK} HTTP and WebSocket on one port.\n");
    let evm = genesis.iter().flat_map(|genesis| &genesis.rollups).filter(|rollup| matches!(rollup.vm, Vm::Evm { .. }));
    for (rollup, above) in evm.zip(0u16..) {
        let mut address = args.rpc;
        if args.rpc.port() != 0 {
            address.set_port(args.rpc.port().saturating_add(above));
        }
        text += &format!("# {}\n[[rpc]]\nrollup = {}\nlisten = \"{address}\"\n\n", rollup.name, rollup.id);
    }
    text
}

#[cfg(test)]
mod tests;

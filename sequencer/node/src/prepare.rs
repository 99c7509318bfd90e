//! A validator that is far behind copies the log before it takes part, as a follower does.

use crate::{
    config::{Config, Role},
    error::NodeError,
    logging::RecentErrors,
    metrics::Metrics,
    node::Node,
    opened::Opened,
    sync::{self, Sources, Timing},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Fewer missing blocks are left to the engine, which asks the other validators for them.
const BEHIND_BLOCKS: u64 = 128;
/// How long no source may answer before the validator goes on without them.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the databases of the follower may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_POLL: Duration = Duration::from_millis(50);

/// Runs the node of a validator as a follower until it has caught up with its sources; returns at once where there are no
/// sources, or it is not far behind them. Whoever is dropped by it while it waits is stopped as in a crash.
pub async fn catch_up(config: &Config, errors: &RecentErrors) -> Result<(), NodeError> {
    if config.role != Role::Validator || config.sync.sources.is_empty() || !is_behind(config).await? {
        return Ok(());
    }
    tracing::info!("far behind: this validator copies the log before it takes part");
    let follower =
        Config { role: Role::Follower, keys: None, operator: None, network: None, relayer: None, ..config.clone() };
    let mut node = Node::start(follower, errors.clone()).await?;
    let Some(mut copying) = node.copying.take() else { return Ok(()) };
    let outcome = tokio::select! {
        error = node.failed() => Err(error),
        caught_up = copying.caught_up(PATIENCE) => Ok(caught_up),
    };
    node.shutdown().await;
    drop(copying);
    match outcome? {
        true => tracing::info!("caught up with the sources"),
        false => tracing::warn!("no source answers: the other validators are asked for what is missing"),
    }
    closed(config).await
}

/// Looks at the node's own log, and at what the sources say. Leaves behind what a validator that has never run needs to
/// begin, so that what is missing later was lost.
async fn is_behind(config: &Config) -> Result<bool, NodeError> {
    let opened = Opened::open(config.clone())?;
    opened.operator()?;
    if let Some(signer) = opened.signer(&Metrics::default()).await?
        && let Some(engine) = opened.engine(signer)?
    {
        switchyard_consensus_engine::prepare(&engine)?;
    }
    let tip = opened.store.tip().0.height;
    if tip == 0 && config.sync.checkpoint.is_some() {
        return Ok(true);
    }
    let timing = Timing::default();
    let sources = Sources::new(&config.sync.sources, &opened.genesis.limits(), timing, Arc::new(Metrics::default()));
    let sources = sources.map_err(|fault| NodeError::Config(format!("sync: {fault}")))?;
    let claimed = sync::ask(&sources, &opened.judge(), &timing).await;
    Ok(claimed.is_some_and(|claimed| claimed > tip.saturating_add(BEHIND_BLOCKS)))
}

/// Waits until nothing of the follower has the databases open any more.
async fn closed(config: &Config) -> Result<(), NodeError> {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    loop {
        match Opened::open(config.clone()) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => tokio::time::sleep(CLOSE_POLL).await,
        }
    }
}

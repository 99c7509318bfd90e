//! What the engine refuses, and how its end is told.

use crate::cluster::{Builder, Cluster, Manner, within};
use std::net::TcpListener;
use switchyard_consensus_engine::{EngineConfig, EngineError, start};
use switchyard_consensus_network::NetworkError;
use switchyard_primitives::{B256, Header};

async fn refusal(config: EngineConfig) -> EngineError {
    match within(start(config, Builder::new(0, Manner::Honest))).await {
        Ok(_) => panic!("started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_work_is_refused_by_name() {
    let cluster = Cluster::new(4);
    let good = || cluster.config(0, 0);

    let config = EngineConfig { skip_timeout: good().certification_timeout, ..good() };
    assert!(matches!(refusal(config).await, EngineError::Timeouts { .. }));
    let config = EngineConfig { network_id: B256::ZERO, ..good() };
    assert!(matches!(refusal(config).await, EngineError::Genesis { .. }));
    let peers = vec![good().peers[0], good().peers[0]];
    let config = EngineConfig { peers, ..good() };
    assert!(matches!(refusal(config).await, EngineError::Network(NetworkError::DuplicatePeer)));

    let taken = TcpListener::bind(good().listen).unwrap();
    assert!(matches!(refusal(good()).await, EngineError::Network(NetworkError::Listen { .. })));
    drop(taken);
    let file = cluster.folder().join("a file");
    std::fs::write(&file, "").unwrap();
    let config = EngineConfig { data_dir: file.join("below"), ..good() };
    assert!(matches!(refusal(config).await, EngineError::Folder { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_serves_one_engine_and_one_network() {
    let cluster = Cluster::new(1);
    let mut running = cluster.start_honest([0]).await.remove(0);
    running.until_height(1).await;
    assert!(matches!(refusal(cluster.config(0, 0)).await, EngineError::FolderInUse { .. }));
    running.stop().await;

    let data_dir = cluster.folder().join("empty");
    let config = EngineConfig { data_dir, ..cluster.config(0, 9) };
    assert!(matches!(refusal(config).await, EngineError::FolderLost { height: 9, .. }));
    let genesis = Header { timestamp_ms: 5, ..cluster.genesis };
    let config = EngineConfig { genesis, ..cluster.config(0, 0) };
    assert!(matches!(refusal(config).await, EngineError::OtherNetwork { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_defect_in_the_builder_ends_the_engine_and_the_node_learns_it() {
    let cluster = Cluster::new(1);
    let mut validator = cluster.start(Builder::new(0, Manner::Panics), 0).await;
    let error = within(validator.handle.stopped.wait()).await.unwrap_err();
    assert!(error.to_string().contains("the builder has a defect"), "{error}");
    assert_eq!(validator.handle.metrics.encode(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_away_ends_the_engine() {
    let cluster = Cluster::new(1);
    let engine = within(start(cluster.config(0, 0), Builder::new(0, Manner::Honest))).await.unwrap();
    let mut stopped = engine.handle.stopped.clone();
    drop(engine.events);
    let ended = within(stopped.wait()).await;
    assert!(ended.is_ok(), "{ended:?}");
}

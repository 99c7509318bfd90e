//! Listening before the first vote, with real engines.

use crate::cluster::{Builder, Cluster, Manner, Validator, assert_agree, stop_all, within};
use std::{sync::Arc, time::Duration};
use switchyard_consensus_engine::{EngineConfig, EngineError, start};
use switchyard_consensus_guard::{Family, SignGuard};

/// One that listens, for a second where nothing is to be heard.
fn listening(cluster: &Cluster, name: usize, height: u64) -> EngineConfig {
    EngineConfig {
        doppelganger_check: true,
        leader_timeout: Duration::from_millis(300),
        certification_timeout: Duration::from_millis(350),
        skip_timeout: Duration::from_millis(400),
        ..cluster.config(name, height)
    }
}

async fn start_listening(cluster: &Cluster, names: [usize; 4], heights: [u64; 4]) -> Vec<Validator> {
    let mut validators = Vec::new();
    for (name, height) in names.into_iter().zip(heights) {
        let builder = Builder::new(name, Manner::Honest);
        validators.push(cluster.start_with(listening(cluster, name, height), builder).await);
    }
    validators
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validators_that_all_start_at_once_listen_and_then_vote() {
    let cluster = Cluster::new(4);
    let mut validators = start_listening(&cluster, [0, 1, 2, 3], [0; 4]).await;
    for validator in &mut validators {
        validator.until_height(4).await;
    }
    let before = stop_all(validators).await;

    let heights = [0, 1, 2, 3].map(|i: usize| before[i].height());
    let mut validators = start_listening(&cluster, [0, 1, 2, 3], heights).await;
    for validator in &mut validators {
        validator.until_height(heights.into_iter().max().unwrap() + 4).await;
    }
    let mut logs = stop_all(validators).await;
    logs.extend(before);
    assert_agree(&logs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_that_comes_back_to_a_network_that_moves_listens_and_then_leads() {
    let cluster = Cluster::new(4);
    let mut validators = cluster.start_honest(0..3).await;
    validators[0].until_height(8).await;
    let late = EngineConfig { doppelganger_check: true, ..cluster.config(3, 0) };
    let mut late = cluster.start_with(late, Builder::new(3, Manner::Honest)).await;
    late.until(|log| log.proposed_by(3)).await;
    validators.push(late);
    assert_agree(&stop_all(validators).await);
}

/// Four of five seats run, so each certificate holds a vote of each of them. The second process with the key of 3 has an empty record, as on a machine
/// to which only the keys were copied; it is connected to 2, and the first one to 0 and 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_with_a_key_stops_before_it_has_signed_anything() {
    let cluster = Cluster::new(5);
    let (twin_address, seats) = (cluster.config(4, 0).listen, &cluster.identities);
    let reach = |name: usize, others: &[usize]| {
        let config = cluster.config(name, 0);
        let peers = config.peers.iter().filter(|(id, _)| others.iter().any(|i| seats[*i] == *id));
        EngineConfig { peers: peers.copied().collect(), ..config }
    };
    let mut validators = Vec::new();
    for (name, others) in [(1, [0, 2, 3, 4].as_slice()), (2, &[0, 1, 4]), (3, &[1, 0]), (0, &[1, 2, 3])] {
        let mut config = reach(name, others);
        if name == 2 {
            config.peers.push((seats[3], twin_address));
        }
        validators.push(cluster.start_with(config, Builder::new(name, Manner::Honest)).await);
    }
    for validator in &mut validators {
        validator.until_height(3).await;
    }

    let record = cluster.folder().join("the twin's sign-record");
    let signer = cluster.config(3, 0).signer.key();
    let guard = Arc::new(SignGuard::open(&record, cluster.network_id, signer).unwrap());
    let twin = EngineConfig {
        signer: cluster.signer(3, guard.clone()),
        data_dir: cluster.folder().join("the twin"),
        listen: twin_address,
        doppelganger_check: true,
        ..reach(3, &[2])
    };
    let mut twin = within(start(twin, Builder::new(3, Manner::Honest))).await.unwrap();
    let reason = within(twin.handle.stopped.wait()).await.unwrap_err();
    assert!(matches!(*reason, EngineError::Twin { .. }), "{reason}");
    assert_eq!(guard.newest(Family::Consensus, 0), None, "it has signed");
    drop(twin);
    assert_agree(&stop_all(validators).await);
}

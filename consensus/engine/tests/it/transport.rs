//! What holds for the consensus library's own network holds over libp2p.

use crate::{
    agreement::one_goes_away_and_comes_back,
    cluster::{Builder, Cluster, Manner, assert_agree, stop_all, within},
};
use std::time::Duration;
use switchyard_consensus_engine::To;
use switchyard_consensus_network::{Transport, Verdict};
use switchyard_primitives::Bytes;

async fn four_agree(transport: Transport) {
    let cluster = Cluster::over(transport, 4);
    let mut validators = Vec::new();
    let mut given: Vec<Bytes> = Vec::new();
    for name in 0..4 {
        let payload = Bytes::from(vec![u8::try_from(name).unwrap(); 10_000 * (name + 1)]);
        given.push(payload.clone());
        validators.push(cluster.start(Builder { given: vec![payload], ..Builder::new(name, Manner::Honest) }, 0).await);
    }
    for validator in &mut validators {
        within(validator.handle.status.wait_for(|s| s.peers_connected == 3)).await.unwrap();
        validator.until(|log| given.iter().all(|tx| log.transactions().any(|t| t == tx)) && log.height() >= 12).await;
    }
    assert!(validators[0].gossip.sender.send(To::One(cluster.identities[2]), "for two".into()));
    let direct = within(validators[2].gossip.receiver.recv()).await.unwrap();
    assert_eq!((direct.from, &direct.message[..]), (cluster.identities[0], &b"for two"[..]));
    assert!(direct.judge.is_none());
    // Gossip may lose a message, as one that is sent before a mesh stands, and passes none on twice: another each time.
    let sender = validators[0].gossip.sender.clone();
    let again = tokio::spawn(async move {
        for number in 0.. {
            sender.send(To::Mesh, format!("for everyone {number}").into());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    // All of them judge all that comes, as nodes do: who is not in the sender's mesh has it from another.
    let (first, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut listeners = tokio::task::JoinSet::new();
    for (index, validator) in validators.iter_mut().enumerate().skip(1) {
        let mut receiver = std::mem::replace(&mut validator.gossip.receiver, tokio::sync::mpsc::channel(1).1);
        let (first, author) = (first.clone(), cluster.identities[0]);
        listeners.spawn(async move {
            while let Some(gossiped) = receiver.recv().await {
                assert_eq!(gossiped.from, author);
                assert!(gossiped.message.starts_with(b"for everyone"), "{:?}", gossiped.message);
                gossiped.judge.unwrap().decide(Verdict::Accept);
                first.send(index).unwrap();
            }
        });
    }
    let mut reached = std::collections::BTreeSet::new();
    while reached.len() < 3 {
        reached.insert(within(heard.recv()).await.unwrap());
    }
    listeners.shutdown().await;
    again.abort();
    let metrics = validators[0].handle.metrics.encode();
    assert!(metrics.contains("libp2p_connected 3"), "{metrics}");
    assert_agree(&stop_all(validators).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_validators_agree_over_libp2p() {
    four_agree(Transport::Libp2p).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_validators_agree_over_libp2p_with_quic() {
    four_agree(Transport::Libp2pQuic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_that_was_away_comes_back_over_libp2p() {
    one_goes_away_and_comes_back(&Cluster::over(Transport::Libp2p, 4)).await;
}

//! The transactions channel.

use crate::cluster::{Cluster, stop_all, within};
use switchyard_consensus_engine::To;
use switchyard_primitives::B256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_whom_it_is_sent_to_with_its_senders_identity() {
    let cluster = Cluster::new(3);
    let mut validators = cluster.start_honest(0..3).await;
    for validator in &mut validators {
        within(validator.handle.status.wait_for(|s| s.peers_connected == 2)).await.unwrap();
    }
    let sender = validators[0].gossip.sender.clone();
    assert!(sender.send(To::One(cluster.identities[2]), "for two only".into()));
    assert!(sender.send(To::All, "for all".into()));
    // Without gossip, as the own network is, everyone is sent to directly.
    assert!(sender.send(To::Some([cluster.identities[1]].into()), "for one only".into()));
    assert!(sender.send(To::Mesh, "by gossip".into()));
    let from_zero = |text: &'static str| (cluster.identities[0], bytes::Bytes::from(text));
    for (receiver, texts) in
        [(1, ["for all", "for one only", "by gossip"]), (2, ["for two only", "for all", "by gossip"])]
    {
        for text in texts {
            let incoming = within(validators[receiver].gossip.receiver.recv()).await.unwrap();
            assert_eq!((incoming.from, incoming.message), from_zero(text));
            assert!(incoming.judge.is_none());
        }
    }

    let dropped = sender.dropped_outbound();
    assert!(!sender.send(To::All, vec![0; sender.message_bytes_max() + 1].into()));
    assert_eq!(sender.dropped_outbound(), dropped + 1);
    // Someone who is no validator: queued, and then counted as dropped, but it stops nothing.
    assert!(sender.send(To::One(B256::repeat_byte(7)), "for nobody".into()));
    assert!(sender.send(To::One(cluster.identities[1]), "after it".into()));
    let incoming = within(validators[1].gossip.receiver.recv()).await.unwrap();
    assert_eq!((incoming.from, incoming.message), from_zero("after it"));
    stop_all(validators).await;
}

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
    let from_zero = |text: &'static str| Some((cluster.identities[0], bytes::Bytes::from(text)));
    assert_eq!(within(validators[1].gossip.receiver.recv()).await, from_zero("for all"));
    assert_eq!(within(validators[2].gossip.receiver.recv()).await, from_zero("for two only"));
    assert_eq!(within(validators[2].gossip.receiver.recv()).await, from_zero("for all"));

    let dropped = sender.dropped_outbound();
    assert!(!sender.send(To::All, vec![0; sender.message_bytes_max() + 1].into()));
    assert_eq!(sender.dropped_outbound(), dropped + 1);
    // Someone who is no validator: queued, and then counted as dropped, but it stops nothing.
    assert!(sender.send(To::One(B256::repeat_byte(7)), "for nobody".into()));
    assert!(sender.send(To::One(cluster.identities[1]), "after it".into()));
    assert_eq!(within(validators[1].gossip.receiver.recv()).await, from_zero("after it"));
    stop_all(validators).await;
}

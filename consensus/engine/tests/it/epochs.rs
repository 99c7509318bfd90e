//! Validators that come and go, and seats by weight.

use crate::cluster::{Builder, Cluster, Manner, assert_agree, stop_all};
use futures::future::join_all;
use switchyard_consensus_core::{Committees as _, EpochRules, verify_certificate};
use switchyard_consensus_network::Transport;

fn rules(blocks: u64) -> EpochRules {
    EpochRules { blocks: blocks.try_into().unwrap(), seats_per_validator: 1 }
}

fn assert_certified(cluster: &Cluster, log: &crate::cluster::Log) {
    for (block, certificate) in log.certificates() {
        assert_eq!(block.header.epoch, cluster.schedule.rules.epoch_of(block.header.height));
        assert_eq!(certificate.epoch, block.header.epoch);
        let committee = cluster.schedule.committee(certificate.epoch).unwrap();
        assert_eq!(verify_certificate(cluster.network_id, committee.seats(), certificate), Ok(()));
    }
    // Every epoch's last block has a certificate of its own: light clients need it.
    for (height, (_, certificate)) in &log.blocks {
        assert!(!cluster.schedule.rules.is_last(*height) || certificate.is_some(), "height {height}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn validators_join_and_leave_while_the_network_runs() {
    for transport in [Transport::Own, Transport::Libp2p] {
        let committees: &[&[(usize, u32)]] = &[
            &[(0, 1), (1, 1), (2, 1), (3, 1)],
            &[(1, 1), (2, 1), (3, 1), (4, 1)],
            &[(2, 1), (3, 1), (4, 1), (5, 1)],
            &[(5, 1), (4, 1), (0, 1), (1, 1)],
        ];
        let cluster = Cluster::with_epochs(transport, 6, rules(8), committees);
        let mut validators = cluster.start_honest(0..6).await;
        let logs = join_all(validators.iter_mut().map(|v| v.until_height(38))).await;
        assert_agree(&logs);
        for log in &logs {
            assert_certified(&cluster, log);
        }
        // Each leads when it has a seat.
        for (name, from, to) in [(0, 0, 7), (4, 8, 38), (5, 16, 38)] {
            assert!(logs[0].proposed_by_since(name, from), "{name} proposed nothing from {from}");
            let early = logs[0].blocks.range(..from).filter(|(_, (block, _))| {
                block.transactions(switchyard_primitives::RollupId(7)).contains(&Builder::mark(name))
            });
            assert_eq!(early.count(), 0, "{name} before {from} (to {to})");
        }
        stop_all(validators).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validators_vote_counts_for_all_of_its_seats() {
    // Eleven seats, eight of which are a quorum: the first three validators have nine, the others cannot decide alone.
    let committee: &[(usize, u32)] = &[(0, 3), (1, 3), (2, 3), (3, 1), (4, 1)];
    let cluster = Cluster::with_epochs(Transport::Own, 5, rules(10), &[committee]);
    let mut validators = cluster.start_honest(0..3).await;
    let logs = join_all(validators.iter_mut().map(|v| v.until_height(24))).await;
    assert_agree(&logs);
    for log in &logs {
        assert_certified(&cluster, log);
        for (_, certificate) in log.certificates() {
            assert_eq!(certificate.signers.seats(), 11);
            assert!(certificate.signers.signers().count() >= 8);
        }
    }
    // Two of the large ones and both small ones are a quorum too, to the seat.
    let gone = validators.remove(0);
    gone.stop().await;
    let mut small = cluster.start_honest([3, 4]).await;
    let height = validators[0].log.borrow().height();
    validators[0].until_height(height + 10).await;
    let log = small[0].until_height(height + 10).await;
    assert_certified(&cluster, &log);
    stop_all(validators.into_iter().chain(small).collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_for_epochs_comes_back_to_the_one_that_runs() {
    let committees: &[&[(usize, u32)]] =
        &[&[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], &[(0, 1), (1, 1), (2, 1), (4, 1), (5, 1)]];
    let cluster = Cluster::with_epochs(Transport::Libp2p, 6, rules(8), committees);
    let mut validators = cluster.start_honest([0, 1, 2, 3, 5]).await;
    validators[0].until_height(3).await;
    // 4 was never there; 1 goes away in the middle of an epoch.
    validators[0].until_height(12).await;
    let gone = validators.remove(1).stop().await;
    let at = gone.height();
    validators.push(cluster.start(Builder::new(4, Manner::Honest), 0).await);
    validators[0].until_height(30).await;
    validators.push(cluster.start(Builder::new(1, Manner::Honest), at).await);
    let logs = join_all(validators.iter_mut().map(|v| v.until_height(52))).await;
    assert_agree(&logs);
    for log in &logs {
        assert_certified(&cluster, log);
    }
    // They lead again.
    validators[0].until(|log| log.proposed_by_since(1, 32) && log.proposed_by(4)).await;
    stop_all(validators).await;
}

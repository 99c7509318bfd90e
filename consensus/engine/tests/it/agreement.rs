//! What validators agree on, through restarts and with one of them missing or lying.

use crate::cluster::{Builder, Cluster, FORBIDDEN, Log, Manner, Validator, assert_agree, stop_all, within};
use std::{sync::atomic::Ordering, time::Duration};
use switchyard_consensus_core::{CertificateError, finalize_message, verify_certificate, verify_finality};
use switchyard_consensus_engine::{EngineConfig, EngineStatus};
use switchyard_primitives::{B256, Bytes, FinalityCertificate, FinalityProof, SignerBitmap, keccak256};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_validators_finalise_what_they_were_given_and_every_certificate_verifies() {
    let cluster = Cluster::new(4);
    let mut validators = Vec::new();
    let mut given: Vec<Bytes> = Vec::new();
    for name in 0..4 {
        let payload = Bytes::from(vec![u8::try_from(name).unwrap(); 10_000 * (name + 1)]);
        let builder = Builder { given: vec![payload.clone()], ..Builder::new(name, Manner::Honest) };
        given.push(payload);
        validators.push(cluster.start(builder, 0).await);
    }
    for validator in &mut validators {
        validator.until(|log| given.iter().all(|tx| log.transactions().any(|t| t == tx)) && log.height() >= 12).await;
    }
    let connected = |s: &EngineStatus| s.peers_connected == 3 && s.view > 12 && s.finalized_height >= 12;
    within(validators[0].handle.status.wait_for(connected)).await.unwrap();
    let metrics = validators[0].handle.metrics.encode();
    assert!(metrics.contains("finalized_height"));
    // Nobody held what the others were given, so it was asked for.
    assert!(metrics.contains(r#"blocks_messages_total{outcome="completed"}"#), "{metrics}");
    let logs = stop_all(validators).await;
    assert_agree(&logs);

    let mut certified = 0;
    for log in &logs {
        for (block, certificate) in log.certificates() {
            assert_eq!(certificate.block, block.hash());
            assert_eq!(verify_certificate(cluster.network_id, &cluster.seats, certificate), Ok(()));
            certified += 1;
        }
    }
    assert!(certified >= 4, "{certified} certificates");

    let (_, good) = logs[0].certificates().last().unwrap();
    refuses_what_was_changed(&cluster, good);
    if let Some(path) = std::env::var_os("SWITCHYARD_WRITE_CERTIFICATE_VECTOR") {
        std::fs::write(path, vector(&cluster, &logs[0])).unwrap();
    }
    let (first, last) = (logs[0].certificates().next().unwrap().0.header.height, good);
    let headers: Vec<_> = logs[0].blocks.range(first..).map(|(_, (b, _))| b.header).collect();
    let end = headers.iter().position(|h| h.hash() == last.block).unwrap();
    let proof = FinalityProof { headers: headers[..=end].to_vec(), certificate: last.clone() };
    assert_eq!(verify_finality(cluster.network_id, &cluster.seats, &proof), Ok(headers[0]));
}

/// A certificate for the second of two blocks, as `docs/specs/vectors/certificate.json` holds it.
fn vector(cluster: &Cluster, log: &Log) -> String {
    let (last, certificate) = log.certificates().find(|(block, _)| block.header.height > 1).unwrap();
    let (first, _) = &log.blocks[&(last.header.height - 1)];
    let message = finalize_message(
        cluster.network_id,
        certificate.epoch,
        certificate.view,
        certificate.parent_view,
        certificate.block,
    );
    let vector = serde_json::json!({
        "network": cluster.network_id,
        "seats": cluster.seats.seats(),
        "seats_hash": cluster.seats.hash(),
        "headers": [Bytes::copy_from_slice(&first.header.encode()), Bytes::copy_from_slice(&last.header.encode())],
        "message": Bytes::from(message),
        "certificate": Bytes::from(certificate.encode()),
    });
    format!("{vector:#}\n")
}

fn refuses_what_was_changed(cluster: &Cluster, good: &FinalityCertificate) {
    let verdict = |certificate: &FinalityCertificate| {
        verify_certificate(cluster.network_id, &cluster.seats, certificate).unwrap_err()
    };
    let other_network = keccak256("another network");
    assert_eq!(verify_certificate(other_network, &cluster.seats, good), Err(CertificateError::Signature));
    for bit in [3, 100, 500, 767] {
        let mut bad = good.clone();
        bad.signature[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verdict(&bad), CertificateError::Signature, "bit {bit}");
    }
    let signers: Vec<u32> = good.signers.signers().collect();
    let fewer = SignerBitmap::new(4, signers.iter().skip(1).copied());
    let without_one = verdict(&FinalityCertificate { signers: fewer, ..good.clone() });
    match signers.len() {
        3 => assert_eq!(without_one, CertificateError::Quorum { quorum: 3, found: 2 }),
        _ => assert_eq!(without_one, CertificateError::Signature),
    }
    for bad in [
        FinalityCertificate { block: B256::repeat_byte(1), ..good.clone() },
        FinalityCertificate { view: good.view + 1, ..good.clone() },
        FinalityCertificate { parent_view: good.parent_view + 1, ..good.clone() },
        FinalityCertificate { epoch: good.epoch + 1, ..good.clone() },
    ] {
        assert_eq!(verdict(&bad), CertificateError::Signature);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_blocks_of_transactions_that_everyone_holds_are_sent_by_name() {
    let cluster = Cluster::new(4);
    let given = vec![Bytes::from(vec![1; 50_000])];
    let holds: Vec<Bytes> = given.iter().cloned().chain((0..4).map(Builder::mark)).collect();
    let mut validators = Vec::new();
    for name in 0..4 {
        let builder = Builder { given: given.clone(), holds: holds.clone(), ..Builder::new(name, Manner::Honest) };
        validators.push(cluster.start(builder, 0).await);
    }
    for validator in &mut validators {
        validator.until(|log| (0..4).all(|name| log.proposed_by(name))).await;
        let metrics = validator.handle.metrics.encode();
        assert!(metrics.contains(r#"blocks_messages_total{outcome="filled"}"#), "{metrics}");
        for other in ["whole", "asked", "malformed"] {
            assert!(!metrics.contains(&format!(r#"blocks_messages_total{{outcome="{other}"}}"#)), "{metrics}");
        }
    }
    assert_agree(&stop_all(validators).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_all_heights_go_on_without_a_gap() {
    let cluster = Cluster::new(4);
    let mut validators = cluster.start_honest(0..4).await;
    for validator in &mut validators {
        validator.until_height(5).await;
    }
    let before = stop_all(validators).await;

    let mut validators = Vec::new();
    for (name, log) in before.iter().enumerate() {
        validators.push(cluster.start(Builder::new(name, Manner::Honest), log.height()).await);
    }
    let highest = before.iter().map(|log| log.height()).max().unwrap();
    for validator in &mut validators {
        validator.until_height(highest + 5).await;
    }
    let after = stop_all(validators).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after.blocks.keys().next(), Some(&(before.height() + 1)));
        let whole = Log { blocks: before.blocks.clone().into_iter().chain(after.blocks.clone()).collect() };
        whole.assert_is_a_chain();
    }
    assert_agree(&[before, after].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_newest_blocks_gets_them_again() {
    let cluster = Cluster::new(1);
    let mut validators = cluster.start_honest([0]).await;
    validators[0].until_height(8).await;
    let before = stop_all(validators).await.remove(0);

    let mut validator = cluster.start(Builder::new(0, Manner::Honest), 3).await;
    validator.until_height(before.height() + 2).await;
    let after = validator.stop().await;
    assert_eq!(after.blocks.keys().next(), Some(&4));
    assert_agree(&[before, after]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_of_four_make_progress_and_the_fourth_catches_up_and_leads() {
    let cluster = Cluster::new(4);
    let mut validators = cluster.start_honest(0..3).await;
    for validator in &mut validators {
        let log = validator.until_height(20).await;
        assert!(!log.proposed_by(3));
    }
    let late = Builder::new(3, Manner::Honest);
    let mut fourth = cluster.start(late, 0).await;
    fourth.until(|log| log.proposed_by(3)).await;
    for validator in &mut validators {
        validator.until(|log| log.proposed_by(3)).await;
    }
    validators.push(fourth);
    let logs = stop_all(validators).await;
    assert_eq!(logs[3].blocks.keys().next(), Some(&1), "from the first block on");
    assert_agree(&logs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_that_was_away_goes_on_where_it_stopped_and_leads_again() {
    one_goes_away_and_comes_back(&Cluster::new(4)).await;
}

/// The last of four validators stops, and starts again where it was.
pub(crate) async fn one_goes_away_and_comes_back(cluster: &Cluster) {
    let mut validators = cluster.start_honest(0..4).await;
    for validator in &mut validators {
        validator.until_height(4).await;
    }
    let before = validators.remove(3).stop().await;
    let alone = validators[0].until_height(before.height() + 10).await.height();

    let mut again = cluster.start(Builder::new(3, Manner::Honest), before.height()).await;
    again.until(|log| log.height() > alone && log.proposed_by_since(3, alone)).await;
    for validator in &mut validators {
        validator.until(|log| log.proposed_by_since(3, alone)).await;
    }
    validators.push(again);
    let mut logs = stop_all(validators).await;
    assert_eq!(logs[3].blocks.keys().next(), Some(&(before.height() + 1)));
    logs.push(before);
    assert_agree(&logs);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_archive_has_dropped_comes_from_the_nodes_store() {
    let cluster = Cluster::new(4);
    let (mut validators, mut histories) = (Vec::new(), Vec::new());
    for name in 0..3 {
        let builder = Builder { pace: Duration::ZERO, ..Builder::new(name, Manner::Honest) };
        let config = EngineConfig { archive_blocks: 1, ..cluster.config(name, 0) };
        let (validator, history) = Validator::with_history(config, builder).await;
        validators.push(validator);
        histories.push(history);
    }
    // The archives drop blocks by the section of 64.
    for validator in &mut validators {
        validator.until_height(70).await;
    }
    let served = || histories.iter().map(|h| h.served.load(Ordering::Relaxed)).sum::<u64>();
    let before = served();
    let mut late = cluster.start(Builder::new(3, Manner::Honest), 0).await;
    late.until_height(70).await;
    // Not all of them where an archive was slower to drop its section than the late one to ask.
    assert!(served() > before);
    validators.push(late);
    assert_agree(&stop_all(validators).await);
}

async fn a_lying_leader_changes_nothing(manner: Manner) {
    let cluster = Cluster::new(4);
    let mut validators = cluster.start_honest(0..3).await;
    let liar = Builder::new(3, manner);
    let lies = liar.built.clone();
    validators.push(cluster.start(liar, 0).await);
    // As often as it takes for the liar to have led twice, once at the least with the others connected.
    within(async {
        let mut height = 0;
        while lies.load(Ordering::Relaxed) < 2 || height < 8 {
            height = validators[0].until_height(height + 1).await.height();
        }
    })
    .await;
    let logs = stop_all(validators).await;
    assert_agree(&logs);
    for log in &logs {
        assert!(!log.proposed_by(3));
        assert!(log.transactions().all(|tx| tx.as_ref() != FORBIDDEN));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_its_header_does_not_commit_to_is_never_final() {
    a_lying_leader_changes_nothing(Manner::WrongCommitment).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_the_builders_refuse_is_never_final() {
    a_lying_leader_changes_nothing(Manner::Forbidden).await;
}

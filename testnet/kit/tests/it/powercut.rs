//! A few power cuts; `make powercut` makes thousands.

use futures::StreamExt as _;
use std::path::Path;
use switchyard_testnet_kit::power::{Broken, CaseId, Cases, How, Lie, Plan, Recording, Shim};

const SEED: u64 = 1;
/// At a time.
const JOBS: usize = 2;

/// Runs cases until one fails; what it says.
async fn first_failure(cases: &Cases<'_>, dir: &Path, points: u64) -> Option<String> {
    let all = (0..points).map(|index| async move {
        let folder = dir.join(format!("case-{index}"));
        let outcome = cases.run(CaseId { seed: SEED, index }, &folder).await;
        let _ = std::fs::remove_dir_all(&folder);
        outcome.err().map(|error| format!("case {SEED}:{index}: {error:#}"))
    });
    let mut all = std::pin::pin!(futures::stream::iter(all).buffer_unordered(JOBS));
    while let Some(failed) = all.next().await {
        if failed.is_some() {
            return failed;
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_goes_on_after_a_power_cut_at_any_write_and_signs_nothing_twice() {
    let (dir, shim) = (tempfile::tempdir().unwrap(), Shim::build().unwrap());
    let dir = dir.keep();
    let plan = Plan { blocks: 270, sync_us: 100, ..Plan::default() };
    let recording = Recording::make(&dir.join("recorded"), &plan, &shim).await.unwrap();
    let cases =
        |broken| Cases { recording: &recording, shim: &shim, how: How { broken, again_every: 12, ..How::default() } };
    if let Some(failed) = first_failure(&cases(None), &dir, 24).await {
        let dir = dir.join("recorded");
        panic!(
            "{failed}\nrepeat it: switchyard-powercut case --dir {} --again-every 12 --case {SEED}:N",
            dir.display()
        );
    }

    // The same must fail where syncs do not do what they say, so that nothing passes by accident.
    for (part, how, says) in [
        ("/sign-record", Lie::Late, &["signed twice", "excludes", "lacks a vote", "not in the record"][..]),
        ("consensus/", Lie::Never, &["has ended", "was final as"]),
        ("store/", Lie::Never, &["has ended"]),
        ("rollups/", Lie::Never, &["has ended"]),
    ] {
        let part = part.trim_start_matches('/').to_owned();
        let failed = first_failure(&cases(Some(Broken { part: part.clone(), how })), &dir, 60).await;
        let failed = failed.unwrap_or_else(|| panic!("{part}: nobody notices"));
        assert!(says.iter().any(|says| failed.contains(says)), "{part}: {failed}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_validators_that_lose_their_power_at_one_moment_go_on_with_what_was_final() {
    let (dir, shim) = (tempfile::tempdir().unwrap(), Shim::build().unwrap());
    let plan = Plan { validators: 4, blocks: 60, epoch_blocks: 20, sync_us: 100, ..Plan::default() };
    let recording = Recording::make(&dir.path().join("recorded"), &plan, &shim).await.unwrap();
    let cases = Cases { recording: &recording, shim: &shim, how: How::default() };
    let failed = first_failure(&cases, dir.path(), 4).await;
    assert_eq!(failed, None);
}

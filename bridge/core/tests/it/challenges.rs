//! Who loses stake for what: evidence, challenges, verdicts.

use crate::{
    check, hash,
    state::{
        A, B, EPOCH, NETWORK, after, certified, change, checkpoint, follow, hub, identity, network, operator_secret,
        refusal, secret,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use switchyard_bridge_core::{
    Attestation, AttestationConflict, BridgeError, BridgeRecord, CHALLENGE_WITHIN, CHALLENGER_RESTS, Challenge,
    Checkpoint, Cut, Evidence, Founding, Held, Offence, Operator, OperatorKind, Signed, SystemError, SystemState,
    VERDICT_WITHIN, Verdict, VerdictWord, signers_hash,
};
use switchyard_consensus_core::{
    Proposal, Vote, VoteConflict,
    keys::{aggregate, bls_public_key, sign_vote},
    record::{Change, Record, RecordError, StakeChange},
};
use switchyard_primitives::{B256, Bytes, RollupId, SignerBitmap};

/// A network whose operator `i` serves the rollups of `serves[i - 1]`.
pub(crate) fn serving(stakes: &[u64], serves: &[&[RollupId]]) -> Arc<SystemState> {
    let operator = |(i, rollups): (u8, &&[RollupId])| {
        let bls = bls_public_key(&operator_secret(i)).unwrap();
        (identity(i), Operator { bls, rollups: rollups.iter().copied().collect(), serial: 0, gone_at: None })
    };
    let operators = (1..).zip(serves).map(operator).collect();
    let founding = Founding { rollups: BTreeMap::from([(A, 71), (B, 72)]), operators };
    Arc::new(SystemState::new(hub(stakes, 3), Arc::new(founding)).unwrap())
}

/// What a wrong checkpoint differs in.
pub(crate) fn lie(checkpoint: Checkpoint) -> Checkpoint {
    Checkpoint { state_root: B256::repeat_byte(0x66), ..checkpoint }
}

/// Operator `i`'s challenge of what the block at `height` certified alone, by `signers`.
pub(crate) fn challenge(i: u8, height: u64, wrong: Checkpoint, own: Checkpoint, signers: &[u8]) -> Challenge {
    let signers: Vec<B256> = signers.iter().map(|i| identity(*i)).collect();
    let entries = vec![Signed { checkpoint: wrong.hash(), signers: signers_hash(&signers) }];
    let challenge =
        Challenge { height, entries, certified: wrong, own, signers, challenger: identity(i), signature: [0; 96] };
    challenge.sign(NETWORK, &operator_secret(i)).unwrap()
}

pub(crate) fn record(challenge: &Challenge) -> Bytes {
    BridgeRecord::Challenge(challenge.clone()).encode()
}

/// What operators `signers` of all say to a challenge.
pub(crate) fn verdict(state: &SystemState, challenge: &Challenge, is_right: bool, signers: &[u8]) -> Verdict {
    let words = signers.iter().map(|i| {
        let word = VerdictWord::sign(NETWORK, identity(*i), challenge.id(), is_right, &operator_secret(*i)).unwrap();
        assert!(word.holds(NETWORK, bls_public_key(&operator_secret(*i)).unwrap()));
        word.signature
    });
    let words: Vec<_> = words.collect();
    let vital = state.bridge().unwrap().vital(state);
    let position = |i: &u8| vital.iter().position(|(who, _, _)| *who == identity(*i)).unwrap();
    let positions = signers.iter().map(|i| u32::try_from(position(i)).unwrap());
    let Checkpoint { rollup, number, .. } = challenge.certified;
    let signers = SignerBitmap::new(u32::try_from(vital.len()).unwrap(), positions);
    Verdict { rollup, number, is_right, signers, signature: aggregate(&words).unwrap_or([0; 96]) }
}

pub(crate) fn ruled(verdict: Verdict) -> Bytes {
    BridgeRecord::Verdict(verdict).encode()
}

pub(crate) fn word(i: u8, checkpoint: Checkpoint) -> Attestation {
    Attestation::sign(NETWORK, identity(i), checkpoint, vec![], &operator_secret(i)).unwrap()
}

fn two_words(i: u8) -> Evidence {
    let right = checkpoint(A, 1, 1);
    Evidence::Attestations(AttestationConflict::new(&word(i, lie(right)), &word(i, right)).unwrap())
}

fn two_votes(i: u8, epoch: u64) -> Evidence {
    let vote = |block| Vote::Finalize(Proposal { epoch, view: 5, parent_view: 4, block: B256::repeat_byte(block) });
    let signed = |vote: &Vote| sign_vote(&secret(i), &vote.message(NETWORK)).unwrap();
    let (first, second) = (vote(1), vote(2));
    Evidence::Votes(VoteConflict::new(identity(i), (first, &signed(&first)), (second, &signed(&second))).unwrap())
}

fn proof(evidence: Evidence) -> Bytes {
    BridgeRecord::Evidence(evidence).encode()
}

pub(crate) fn stakes(state: &SystemState) -> Vec<u64> {
    state.validators().values().map(|v| v.stake).collect()
}

fn attesters(state: &SystemState, rollup: RollupId) -> Vec<B256> {
    state.bridge().unwrap().attesters(state, rollup).into_iter().map(|(identity, _, _)| identity).collect()
}

/// Four operators with a stake of 100 each; operator 1 alone serves A and lies about its block 1 in hub block 3.
fn lied() -> (Arc<SystemState>, Challenge) {
    let both: &[RollupId] = &[A, B];
    let state = after(serving(&[100; 4], &[both, &[B], &[B], &[B]]), 2);
    let right = checkpoint(A, 1, 1);
    let state = follow(&state, vec![certified(&[(lie(right), vec![], &[1])], 1)]).unwrap();
    (state, challenge(3, 3, lie(right), right, &[1]))
}

#[test]
fn who_contradicts_itself_loses_all_at_once_and_its_seats_with_the_next_snapshot() {
    for evidence in [two_words(2), two_votes(2, 0)] {
        let state = after(network(&[100; 4], 3), 1);
        let next = follow(&state, vec![proof(evidence.clone())]).unwrap();
        assert_eq!(stakes(&next), [100, 0, 100, 100]);
        assert_eq!(attesters(&next, A), [identity(1), identity(3), identity(4)]);
        assert_eq!(
            next.bridge().unwrap().added().cuts,
            [Cut { identity: identity(2), offence: Offence::Contradiction, amount: 100 }]
        );
        assert_ne!(next.root(), state.root());

        // Replayed, in the same block or later, or with other evidence: once is enough.
        let fallen = BridgeError::Fallen { identity: identity(2) };
        assert_eq!(refusal(follow(&state, vec![proof(evidence.clone()); 2])), fallen);
        assert_eq!(refusal(follow(&next, vec![proof(evidence.clone())])), fallen);
        assert_eq!(refusal(follow(&next, vec![proof(two_words(2))])), fallen);

        // Its seats of epochs that are decided stay, those of the first undecided one go.
        let boundary = after(next, EPOCH - 3);
        assert!(boundary.current().member(&identity(2)).is_some());
        let decided = after(boundary, 1);
        assert!(decided.current().member(&identity(2)).is_some());
        assert!(decided.following().member(&identity(2)).is_none());

        // Not even a quorum of the seats gives it stake again.
        for gift in [Change::Stake(7), Change::Remove] {
            let changes = vec![(identity(2), gift.clone())];
            let part = |i: u8| {
                let epoch = decided.current().epoch();
                (identity(i), StakeChange::sign_part(NETWORK, epoch, 0, &changes, &secret(i)).unwrap())
            };
            let parts: Vec<_> = (1..5).map(part).collect();
            let change = StakeChange::combine(NETWORK, decided.current(), 0, changes.clone(), &parts).unwrap();
            let result = follow(&decided, vec![Record::Stake(change).encode()]);
            match gift {
                Change::Remove => assert_eq!(stakes(&result.unwrap()), [100, 100, 100]),
                _ => assert_eq!(refusal(result), fallen),
            }
        }
    }
}

#[test]
fn evidence_that_proves_nothing_is_refused() {
    let state = after(network(&[100; 4], 3), 1);
    let right = checkpoint(A, 1, 1);
    // The same twice, of two blocks, of two operators: no evidence can be made of them.
    for other in [word(1, right), word(1, checkpoint(A, 2, 1)), word(1, checkpoint(B, 1, 1)), word(2, lie(right))] {
        assert_eq!(AttestationConflict::new(&word(1, right), &other), None);
    }
    // Another's signature, another network's, a stranger's.
    let stolen = Attestation { operator: identity(1), ..word(2, lie(right)) };
    let forged = Evidence::Attestations(AttestationConflict::new(&word(1, right), &stolen).unwrap());
    assert_eq!(refusal(follow(&state, vec![proof(forged)])), BridgeError::Signature);
    let elsewhere = |c| Attestation::sign(B256::ZERO, identity(1), c, vec![], &operator_secret(1)).unwrap();
    let foreign = AttestationConflict::new(&elsewhere(right), &elsewhere(lie(right))).unwrap();
    assert_eq!(refusal(follow(&state, vec![proof(Evidence::Attestations(foreign))])), BridgeError::Signature);
    assert_eq!(refusal(follow(&state, vec![proof(two_words(9))])), BridgeError::Unknown { identity: identity(9) });
    assert_eq!(refusal(follow(&state, vec![proof(two_votes(9, 0))])), BridgeError::NotStaked { identity: identity(9) });
    // Signed with the key of its votes what is to be signed with that of its checkpoints, and the other way round.
    let vote = |block| Vote::Notarize(Proposal { epoch: 0, view: 5, parent_view: 4, block: B256::repeat_byte(block) });
    let signed = |vote: &Vote| sign_vote(&operator_secret(1), &vote.message(NETWORK)).unwrap();
    let crossed = VoteConflict::new(identity(1), (vote(1), &signed(&vote(1))), (vote(2), &signed(&vote(2)))).unwrap();
    assert_eq!(refusal(follow(&state, vec![proof(Evidence::Votes(crossed))])), BridgeError::Signature);
    // The decoder takes them in one order only.
    let bytes = proof(two_words(1));
    let swapped = [&bytes[..35], &bytes[187..339], &bytes[35..187], &bytes[339..]].concat();
    assert!(BridgeRecord::decode(&bytes).is_ok() && BridgeRecord::decode(&swapped).is_err());
}

#[test]
fn nobody_is_left_without_stake_by_a_cut() {
    let state = after(serving(&[100, 0, 0], &[&[A], &[A], &[A]]), 1);
    let last = follow(&state, vec![proof(two_words(1))]);
    assert_eq!(last, Err(SystemError::Hub(RecordError::NobodyLeft)));
    follow(&state, vec![proof(two_words(2))]).unwrap();
}

#[test]
fn a_quorum_that_lies_about_a_state_root_is_caught_by_those_it_does_not_consist_of() {
    let (state, challenge) = lied();
    let bridge = state.bridge().unwrap();
    assert_eq!(bridge.settleable(&state, A).unwrap().checkpoint, challenge.certified);

    // Height 4: challenged, so nothing of A is settled. B is.
    let state = follow(&state, vec![record(&challenge)]).unwrap();
    let right = checkpoint(B, 1, 2);
    let state = follow(&state, vec![certified(&[(right, vec![], &[1, 2, 3])], 4)]).unwrap();
    let bridge = state.bridge().unwrap();
    assert_eq!(bridge.held(&state, A), Some(Held::Challenged { until: 4 + VERDICT_WITHIN }));
    assert_eq!((bridge.settleable(&state, A), bridge.held(&state, B)), (None, None));
    assert_eq!(bridge.settleable(&state, B).unwrap().checkpoint, right);
    assert_eq!(stakes(&state), [100; 4], "nobody has lost anything yet");

    // The three who have computed something else are more than two thirds of the whole stake.
    let decided = follow(&state, vec![ruled(verdict(&state, &challenge, false, &[2, 3, 4]))]).unwrap();
    assert_eq!(stakes(&decided), [50, 100, 100, 100]);
    let bridge = decided.bridge().unwrap();
    assert_eq!(bridge.held(&decided, A), Some(Held::Refuted));
    assert_eq!(attesters(&decided, A), [B256::ZERO; 0], "who has lied serves the rollup no more");
    assert_eq!(attesters(&decided, B).len(), 4);
    let again = ruled(verdict(&decided, &challenge, false, &[2, 3, 4]));
    assert_eq!(refusal(follow(&decided, vec![again])), BridgeError::NoChallenge { rollup: A, number: 1 });

    // Others take the rollup over, from the next block on, and settlement goes on.
    let serves = change(2, 0, OperatorKind::Serve(vec![A, B]));
    let served = follow(&decided, vec![serves]).unwrap();
    let next = checkpoint(A, 2, 2);
    let state = follow(&served, vec![certified(&[(next, vec![], &[1])], 1)]);
    // Bit 0 is now operator 2.
    assert_eq!(refusal(state), BridgeError::Signature);
    let signature = word(2, next).signature;
    let mut by_two = BridgeRecord::decode(&certified(&[(next, vec![], &[1])], 1)).unwrap();
    if let BridgeRecord::Certificate(certificate) = &mut by_two {
        certificate.signature = signature;
    }
    let state = follow(&served, vec![by_two.encode()]).unwrap();
    let bridge = state.bridge().unwrap();
    assert_eq!((bridge.held(&state, A), bridge.settleable(&state, A).unwrap().checkpoint), (None, next));
}

#[test]
fn a_verdict_needs_more_than_two_thirds_of_the_whole_stake_whoever_is_an_operator() {
    // Operators 1 to 3 with 6, 100 and 100 of 309: 206 is two thirds exactly. Validator 4 is no operator.
    let state = after(serving(&[6, 100, 100, 103], &[&[A], &[A], &[A]]), 2);
    let wrong = lie(checkpoint(A, 1, 1));
    let state = follow(&state, vec![certified(&[(wrong, vec![], &[1, 2, 3])], 3)]).unwrap();
    let challenge = challenge(1, 3, wrong, checkpoint(A, 1, 1), &[1, 2, 3]);
    let state = follow(&state, vec![record(&challenge)]).unwrap();
    let short = follow(&state, vec![ruled(verdict(&state, &challenge, false, &[1, 2, 3]))]);
    assert_eq!(refusal(short), BridgeError::Quorum { rollup: A, found: 206, total: 309 });
    // A little more is enough.
    let state = after(serving(&[7, 100, 100, 103], &[&[A], &[A], &[A]]), 2);
    let state = follow(&state, vec![certified(&[(wrong, vec![], &[1, 2, 3])], 3)]).unwrap();
    let state = follow(&state, vec![record(&challenge)]).unwrap();
    let short = follow(&state, vec![ruled(verdict(&state, &challenge, false, &[2, 3]))]);
    assert_eq!(refusal(short), BridgeError::Quorum { rollup: A, found: 200, total: 310 });
    let decided = follow(&state, vec![ruled(verdict(&state, &challenge, false, &[1, 2, 3]))]).unwrap();
    assert_eq!(stakes(&decided), [3, 50, 50, 103], "half, rounded against the one who loses it");
}

#[test]
fn a_challenge_of_what_is_right_costs_the_challenger_a_sixteenth_and_nobody_else() {
    let state = after(network(&[100; 4], 3), 2);
    let right = checkpoint(A, 1, 1);
    let state = follow(&state, vec![certified(&[(right, vec![], &[1, 2, 3])], 4)]).unwrap();
    let challenge = challenge(4, 3, right, lie(right), &[1, 2, 3]);
    let state = follow(&state, vec![record(&challenge)]).unwrap();
    assert!(state.bridge().unwrap().held(&state, A).is_some());
    let decided = follow(&state, vec![ruled(verdict(&state, &challenge, true, &[1, 2, 3]))]).unwrap();
    assert_eq!(stakes(&decided), [100, 100, 100, 93]);
    let bridge = decided.bridge().unwrap();
    assert_eq!((bridge.held(&decided, A), bridge.settleable(&decided, A).unwrap().checkpoint), (None, right));
    assert_eq!(attesters(&decided, A).len(), 4);
    assert_eq!(refusal(follow(&decided, vec![record(&challenge)])), BridgeError::Challenged { rollup: A, number: 1 });
}

#[test]
fn without_a_verdict_the_hold_ends_and_the_challenger_rests() {
    let (state, challenge) = lied();
    let opened = follow(&state, vec![record(&challenge)]).unwrap();
    let last = after(opened, VERDICT_WITHIN - 1);
    assert_eq!(last.next_height(), 4 + VERDICT_WITHIN);
    let late = |state: &Arc<SystemState>| follow(state, vec![ruled(verdict(state, &challenge, false, &[2, 3, 4]))]);
    assert!(late(&last).is_ok(), "in time");
    let expired = after(last, 1);
    assert_eq!(refusal(late(&expired)), BridgeError::NoChallenge { rollup: A, number: 1 });
    let bridge = expired.bridge().unwrap();
    assert_eq!((bridge.held(&expired, A), stakes(&expired)), (None, vec![100; 4]));

    // What is certified next may be challenged by another, and by the same one much later.
    let next = checkpoint(A, 2, 2);
    let state = follow(&expired, vec![certified(&[(lie(next), vec![], &[1])], 1)]).unwrap();
    let at = state.next_height() - 1;
    let by = |i| record(&self::challenge(i, at, lie(next), next, &[1]));
    assert_eq!(refusal(follow(&state, vec![by(3)])), BridgeError::Busy { identity: identity(3) });
    follow(&state, vec![by(2)]).unwrap();
    let before = state.root();
    let rested = after(state, 4 + CHALLENGER_RESTS - at);
    assert_eq!(rested.next_height(), 5 + CHALLENGER_RESTS);
    assert_eq!(rested.bridge().unwrap().disputes().count(), 0);
    assert_ne!(rested.root(), before);
}

#[test]
fn what_was_not_certified_so_or_long_ago_cannot_be_challenged() {
    let (state, good) = lied();
    let refused = |state: &Arc<SystemState>, challenge: &Challenge| refusal(follow(state, vec![record(challenge)]));
    let not_so = |at| BridgeError::NotChallengeable { rollup: A, number: 1, certified_at: at };
    let (wrong, right) = (good.certified, good.own);
    assert_eq!(refused(&state, &challenge(3, 2, wrong, right, &[1])), not_so(2));
    assert_eq!(refused(&state, &challenge(3, 3, right, wrong, &[1])), not_so(3));
    // Signers that were none, honest ones among them.
    assert_eq!(refused(&state, &challenge(3, 3, wrong, right, &[1, 2])), not_so(3));
    let hidden = Challenge { signers: vec![identity(2)], ..good.clone() }.sign(NETWORK, &operator_secret(3)).unwrap();
    assert_eq!(refused(&state, &hidden), not_so(3));
    let nothing = BridgeError::NothingChallenged { rollup: A, number: 1 };
    for own in [wrong, checkpoint(A, 2, 1), checkpoint(B, 1, 1)] {
        assert_eq!(refused(&state, &challenge(3, 3, wrong, own, &[1])), nothing);
    }
    assert_eq!(refused(&state, &challenge(9, 3, wrong, right, &[1])), BridgeError::NotVital { identity: identity(9) });
    let forged = Challenge { challenger: identity(2), ..good.clone() };
    assert_eq!(refused(&state, &forged), BridgeError::Signature);

    let last = after(state, CHALLENGE_WITHIN - 1);
    assert_eq!(last.next_height(), 3 + CHALLENGE_WITHIN);
    let twice = follow(&last, vec![record(&good), record(&challenge(2, 3, wrong, right, &[1]))]);
    assert_eq!(refusal(twice), BridgeError::Challenged { rollup: A, number: 1 });
    follow(&last, vec![record(&good)]).unwrap();
    assert_eq!(refused(&after(last, 1), &good), not_so(3));
}

#[test]
fn one_fault_is_punished_once_however_many_blocks_follow_from_it() {
    let (state, first) = lied();
    let more = |number| lie(checkpoint(A, number, 2));
    let state = follow(&state, vec![certified(&[(more(2), vec![], &[1]), (more(3), vec![], &[1])], 1)]).unwrap();
    // The entries of that block.
    let entry = |c: Checkpoint| Signed { checkpoint: c.hash(), signers: signers_hash(&[identity(1)]) };
    let second = Challenge {
        entries: vec![entry(more(2)), entry(more(3))],
        ..challenge(2, 4, more(2), checkpoint(A, 2, 2), &[1])
    };
    let state = follow(&state, vec![record(&second), record(&first)]).unwrap();
    assert_eq!(state.bridge().unwrap().disputes().count(), 2);
    let decided = follow(&state, vec![ruled(verdict(&state, &first, false, &[2, 3, 4]))]).unwrap();
    assert_eq!(stakes(&decided)[0], 50);
    assert_eq!(decided.bridge().unwrap().disputes().count(), 1, "the later one is moot");
    let third = Challenge { certified: more(3), own: checkpoint(A, 3, 2), ..second };
    let third = third.sign(NETWORK, &operator_secret(2)).unwrap();
    let covered = BridgeError::Challenged { rollup: A, number: 3 };
    assert_eq!(refusal(follow(&decided, vec![record(&third)])), covered);
}

#[test]
fn nobody_hides_behind_another_who_pays_for_an_earlier_lie() {
    // 1 lies alone about block 1; then 2 serves A too, and both sign what follows from it.
    let (state, first) = lied();
    let state = follow(&state, vec![change(2, 0, OperatorKind::Serve(vec![A, B]))]).unwrap();
    let next = lie(checkpoint(A, 2, 2));
    let state = follow(&state, vec![certified(&[(next, vec![], &[1, 2])], 2)]).unwrap();
    let second = challenge(4, 5, next, checkpoint(A, 2, 2), &[1, 2]);

    // Challenged before the verdict on the first, it stays open, and 2 pays; 1 has paid.
    let both = follow(&state, vec![record(&first), record(&second)]).unwrap();
    let decided = follow(&both, vec![ruled(verdict(&both, &first, false, &[2, 3, 4]))]).unwrap();
    assert_eq!(stakes(&decided), [50, 100, 100, 100]);
    let last = follow(&decided, vec![ruled(verdict(&decided, &second, false, &[2, 3, 4]))]).unwrap();
    assert_eq!(stakes(&last), [50, 50, 100, 100]);

    // And so if it is challenged only after it.
    let one = follow(&state, vec![record(&first)]).unwrap();
    let decided = follow(&one, vec![ruled(verdict(&one, &first, false, &[2, 3, 4]))]).unwrap();
    let late = follow(&decided, vec![record(&second)]).unwrap();
    let last = follow(&late, vec![ruled(verdict(&late, &second, false, &[2, 3, 4]))]).unwrap();
    assert_eq!(stakes(&last), [50, 50, 100, 100]);

    // The other way round nobody pays twice either.
    let decided = follow(&both, vec![ruled(verdict(&both, &second, false, &[2, 3, 4]))]).unwrap();
    assert_eq!(stakes(&decided), [50, 50, 100, 100]);
    let last = follow(&decided, vec![ruled(verdict(&decided, &first, false, &[2, 3, 4]))]).unwrap();
    assert_eq!(stakes(&last), [50, 50, 100, 100]);
}

#[test]
fn nothing_is_certified_in_a_block_after_its_verdict() {
    let (state, first) = lied();
    let state = follow(&state, vec![record(&first)]).unwrap();
    let decides = ruled(verdict(&state, &first, false, &[2, 3, 4]));
    let more = certified(&[(lie(checkpoint(A, 2, 2)), vec![], &[1])], 1);
    follow(&state, vec![more.clone(), decides.clone()]).unwrap();
    assert_eq!(refusal(follow(&state, vec![decides, more])), BridgeError::CertificateAfterVerdict);
}

#[test]
fn a_verdict_of_another_challenge_set_or_key_is_refused() {
    let (state, challenge) = lied();
    let none = ruled(verdict(&state, &challenge, false, &[2, 3, 4]));
    assert_eq!(refusal(follow(&state, vec![none])), BridgeError::NoChallenge { rollup: A, number: 1 });
    let state = follow(&state, vec![record(&challenge)]).unwrap();
    let right = verdict(&state, &challenge, false, &[2, 3, 4]);
    let refused = |verdict: Verdict| refusal(follow(&state, vec![ruled(verdict)]));
    assert_eq!(refused(Verdict { is_right: true, ..right.clone() }), BridgeError::Signature);
    assert_eq!(refused(Verdict { signers: SignerBitmap::new(4, 0..3), ..right.clone() }), BridgeError::Signature);
    assert_eq!(
        refused(Verdict { signers: SignerBitmap::new(3, 0..3), ..right.clone() }),
        BridgeError::Operators { rollup: A, expected: 4, found: 3 }
    );
    let other = self::challenge(2, 3, challenge.certified, challenge.own, &[1]);
    assert_eq!(refused(verdict(&state, &other, false, &[2, 3, 4])), BridgeError::Signature);
    let twice = follow(&state, vec![ruled(right.clone()), ruled(right)]);
    assert_eq!(refusal(twice), BridgeError::NoChallenge { rollup: A, number: 1 });
}

#[test]
fn the_state_with_disputes_is_read_as_it_was_written() {
    let (state, challenge) = lied();
    let state = follow(&state, vec![record(&challenge), proof(two_words(4))]).unwrap();
    let ruled = ruled(verdict(&state, &challenge, false, &[1, 2, 3]));
    let decided = follow(&state, vec![ruled]).unwrap();
    for state in [state, decided] {
        let bytes = state.encode();
        let read = SystemState::decode(NETWORK, Arc::default(), &bytes).unwrap();
        assert_eq!((read.root(), read.encode()), (state.root(), bytes.clone()));
        let (read, written) = (read.bridge().unwrap(), state.bridge().unwrap());
        assert!(read.disputes().eq(written.disputes()) && read.has_fallen(&identity(4)));
        for cut in 0..bytes.len() {
            assert!(SystemState::decode(NETWORK, Arc::default(), &bytes[..cut]).is_err(), "{cut}");
        }
    }
}

/// The layouts, for those who check them elsewhere.
#[test]
fn the_published_vectors_of_challenges_are_what_this_crate_makes() {
    let (state, challenge) = lied();
    let state = follow(&state, vec![record(&challenge)]).unwrap();
    let verdict = verdict(&state, &challenge, false, &[2, 3, 4]);
    let key = |i| bls_public_key(&operator_secret(i)).unwrap();
    let shown = |evidence: Evidence, bls: Value| json!({ "accused": evidence.accused(), "bls": bls, "record": proof(evidence) });
    let expected = json!({
        "network": NETWORK,
        "attestations": shown(two_words(2), json!(key(2))),
        "votes": shown(two_votes(2, 0), json!(bls_public_key(&secret(2)).unwrap())),
        "challenge": {
            "bls": key(3),
            "signers_hash": signers_hash(&challenge.signers),
            "entries_hash": Signed::hash(&challenge.entries),
            "id": challenge.id(),
            "message": Bytes::from(challenge.message(NETWORK)),
            "record": record(&challenge),
        },
        "verdict": {
            "bls": [key(2), key(3), key(4)],
            "message": Bytes::from(Verdict::message(NETWORK, challenge.id(), false)),
            "record": ruled(verdict),
        },
        "cuts_of_1001": {
            "contradiction": Offence::Contradiction.cut(1001),
            "wrong_checkpoint": Offence::WrongCheckpoint.cut(1001),
            "wrong_challenge": Offence::WrongChallenge.cut(1001),
        },
    });
    check("challenges.json", &expected);
}

proptest! {
    #[test]
    fn records_of_disputes_survive_their_encoding(
        height: u64,
        numbers in proptest::array::uniform4(any::<u64>()),
        signers in proptest::collection::btree_set(any::<[u8; 32]>(), 0..20),
        entries in proptest::collection::vec((any::<[u8; 32]>(), any::<[u8; 32]>()), 0..64),
        is_right: bool,
        seats in 1u32..100,
        part: [u8; 32],
    ) {
        let signature = [part, part, part].concat().try_into().unwrap();
        let [number, other, ..] = numbers;
        let signers: BTreeSet<B256> = signers.into_iter().map(B256::from).collect();
        let entry = |(a, b): ([u8; 32], [u8; 32])| Signed { checkpoint: a.into(), signers: b.into() };
        let challenge = Challenge {
            height,
            entries: entries.into_iter().map(entry).collect(),
            certified: Checkpoint { number, ..checkpoint(A, 1, 1) },
            own: Checkpoint { number: other, ..checkpoint(A, 1, 1) },
            signers: signers.into_iter().collect(),
            challenger: hash(7),
            signature,
        };
        let verdict = Verdict { rollup: A, number, is_right, signers: SignerBitmap::new(seats, [seats - 1]), signature };
        for record in [BridgeRecord::Challenge(challenge), BridgeRecord::Verdict(verdict)] {
            let bytes = record.encode();
            prop_assert!(BridgeRecord::is_one(&bytes));
            prop_assert_eq!(BridgeRecord::is_proposers(&bytes), matches!(record, BridgeRecord::Verdict(_)));
            prop_assert_eq!(BridgeRecord::decode(&bytes), Ok(record));
        }
    }

    #[test]
    fn no_bytes_of_disputes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), kind in 19u8..22) {
        let _ = BridgeRecord::decode(&[&[1, kind], bytes.as_slice()].concat());
        let _ = VerdictWord::read(&mut switchyard_primitives::Reader::new(bytes.into()));
    }
}

//! An honest operator loses nothing, whatever others do in whatever order.

use crate::{
    challenges::{challenge, lie, record, ruled, serving, stakes, verdict, word},
    state::{A, B, after, certified, checkpoint, follow},
};
use proptest::prelude::*;
use switchyard_bridge_core::{AttestationConflict, BridgeRecord, Challenge, Checkpoint, Evidence};
use switchyard_primitives::{Bytes, RollupId};

/// Operators 1 to 3 are honest, with a little more than a third of the stake; 4 and 5 do what they like.
const STAKES: [u64; 5] = [35, 35, 35, 100, 100];
const DISHONEST: [u8; 2] = [4, 5];

/// What somebody tries in the next block.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// A certificate of a rollup's next block, of those who would sign it: everyone for what is right, the dishonest for a lie.
    Certify { rollup: RollupId, lies: bool },
    /// A challenge of the newest certificate; of what is right only the dishonest make one.
    Challenge { by: u8 },
    /// A verdict on the newest challenge of those who would say so.
    Rule { is_right: bool },
    /// What a dishonest one has signed twice, or is said to have signed with an honest one's signature among it.
    Evidence { against: u8 },
    /// Nothing.
    Idle,
}

fn moves() -> impl Strategy<Value = Move> {
    let rollup = prop_oneof![Just(A), Just(B)];
    prop_oneof![
        3 => (rollup, any::<bool>()).prop_map(|(rollup, lies)| Move::Certify { rollup, lies }),
        3 => (1u8..=5).prop_map(|by| Move::Challenge { by }),
        3 => any::<bool>().prop_map(|is_right| Move::Rule { is_right }),
        1 => (1u8..=5).prop_map(|against| Move::Evidence { against }),
        1 => Just(Move::Idle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_honest_operator_is_never_cut(moves in proptest::collection::vec(moves(), 1..16)) {
        // A is served by the dishonest alone, so that lies about it are certified.
        let all: &[RollupId] = &[A, B];
        let mut state = after(serving(&STAKES, &[&[B], &[B], &[B], all, all]), 2);
        let mut numbers = [1u64, 1];
        let mut certificate: Option<(u64, Checkpoint, bool, Vec<u8>)> = None;
        let mut challenged: Option<(Challenge, bool)> = None;
        for next in moves {
            let height = state.next_height();
            let bridge = state.bridge().unwrap().clone();
            let (mut new_certificate, mut new_challenge) = (None, None);
            let records: Vec<Bytes> = match next {
                Move::Certify { rollup, lies } => {
                    let number = numbers[usize::from(rollup == B)];
                    let right = checkpoint(rollup, number, 1);
                    let said = if lies { lie(right) } else { right };
                    let attesters: Vec<u8> = bridge.attesters(&state, rollup).iter().map(|(who, _, _)| who.0[31]).collect();
                    let signs = |i: &&u8| !lies || DISHONEST.contains(i);
                    let signers: Vec<u8> = attesters.iter().copied().filter(|i| signs(&i)).collect();
                    // Bits are positions: the certificate's maker wants them to be identities less one.
                    let positions = signers.iter().map(|i| attesters.iter().position(|a| a == i).unwrap());
                    let positions: Vec<u32> = positions.map(|p| u32::try_from(p).unwrap()).collect();
                    let made = certified(&[(said, vec![], &signers)], 8);
                    let Ok(BridgeRecord::Certificate(mut made)) = BridgeRecord::decode(&made) else { unreachable!() };
                    let of = u32::try_from(attesters.len()).unwrap();
                    made.entries[0].signers = switchyard_primitives::SignerBitmap::new(of, positions);
                    new_certificate = Some((height, said, lies, signers));
                    vec![BridgeRecord::Certificate(made).encode()]
                }
                Move::Challenge { by } => match &certificate {
                    Some((at, said, lies, signers)) if *lies || DISHONEST.contains(&by) => {
                        let right = checkpoint(said.rollup, said.number, 1);
                        let own = if *lies { right } else { lie(right) };
                        let made = challenge(by, *at, *said, own, signers);
                        new_challenge = Some((made.clone(), *lies));
                        vec![record(&made)]
                    }
                    _ => vec![],
                },
                Move::Rule { is_right } => match &challenged {
                    Some((challenge, lies)) => {
                        let vital = bridge.vital(&state);
                        let here = (1..=5).filter(|i| vital.iter().any(|(who, _, _)| who.0[31] == *i));
                        let says = |i: &u8| DISHONEST.contains(i) || is_right != *lies;
                        let signers: Vec<u8> = here.filter(says).collect();
                        vec![ruled(verdict(&state, challenge, is_right, &signers))]
                    }
                    None => vec![],
                },
                Move::Evidence { against } => {
                    let right = checkpoint(A, 1, 1);
                    let other = if DISHONEST.contains(&against) { against } else { 4 };
                    let mut second = word(other, lie(right));
                    second.operator = word(against, right).operator;
                    let made = AttestationConflict::new(&word(against, right), &second).unwrap();
                    vec![BridgeRecord::Evidence(Evidence::Attestations(made)).encode()]
                }
                Move::Idle => vec![],
            };
            // What the rules refuse is in no block.
            let Ok(after) = follow(&state, records) else { continue };
            state = after;
            if let Some(made) = new_certificate {
                numbers[usize::from(made.1.rollup == B)] += 1;
                certificate = Some(made);
            }
            challenged = new_challenge.or(challenged);
            prop_assert_eq!(&stakes(&state)[..3], &STAKES[..3]);
            for i in 1..=3u8 {
                let serves = &state.bridge().unwrap().operators()[&crate::state::identity(i)].rollups;
                prop_assert!(serves.contains(&B));
            }
        }
    }
}

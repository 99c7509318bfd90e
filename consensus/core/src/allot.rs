//! Stake into seats: a pure function that every validator computes alike.

use switchyard_primitives::{B256, SignerBitmap};

/// Most seats in a set: more would make certificates, and the time to check them, grow without need.
pub const SEATS_MAX: u32 = 1024;
const _: () = assert!(SEATS_MAX as usize <= SignerBitmap::MAX_SEATS);

/// The number of seats of a set for `validators` with stake, and the most that one of them may hold: never more than the
/// faulty seats that the set survives, so that no single validator can stop the hub, as far as four validators are there.
pub fn targets(validators: usize, seats_per_validator: u32) -> (u32, u32) {
    let validators = u32::try_from(validators).unwrap_or(u32::MAX);
    let seats = validators.saturating_mul(seats_per_validator.max(1)).min(SEATS_MAX);
    (seats, (seats.saturating_sub(1) / 3).max(1))
}

/// Divides `seats` by stake: the largest-remainder method (Hamilton), no validator above `cap`, what a capped one leaves
/// going to the others by their stake; ties go to the lower identity. Returns as many numbers as there are validators, in
/// the same order. Fewer than `seats` are given out only where every validator with stake is at the cap.
///
/// Identities must differ. The order of `stakes` does not matter.
pub fn allot(stakes: &[(B256, u64)], seats: u32, cap: u32) -> Vec<u32> {
    let mut allotted = vec![0u32; stakes.len()];
    // Those that are not at the cap yet.
    let mut open: Vec<usize> = (0..stakes.len()).filter(|i| stakes[*i].1 > 0).collect();
    let mut left = u64::from(seats);
    let cap = u64::from(cap);
    loop {
        let total: u128 = open.iter().map(|i| u128::from(stakes[*i].1)).sum();
        if total == 0 || left == 0 {
            return allotted;
        }
        // Quotas as fractions over `total`; below 2^96, so nothing overflows.
        let quota = |i: usize| u128::from(stakes[i].1) * u128::from(left);
        let (capped, below): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|i| quota(**i) >= u128::from(cap) * total);
        if capped.is_empty() {
            share(&mut allotted, &open, &quota, total, left, stakes);
            return allotted;
        }
        // Their quotas sum up to no more than what is left, so there are seats for all of them.
        for i in capped {
            allotted[i] = u32::try_from(cap).unwrap_or(u32::MAX);
            left = left.saturating_sub(cap);
        }
        open = below;
    }
}

/// Whole parts of the quotas, and one more seat each to the largest remainders. Every quota is below the cap, so that one
/// more seat keeps within it.
fn share(
    allotted: &mut [u32],
    open: &[usize],
    quota: &impl Fn(usize) -> u128,
    total: u128,
    mut left: u64,
    stakes: &[(B256, u64)],
) {
    for i in open {
        let whole = u32::try_from(quota(*i) / total).unwrap_or(u32::MAX);
        allotted[*i] = whole;
        left = left.saturating_sub(u64::from(whole));
    }
    let mut by_remainder = open.to_vec();
    by_remainder.sort_by_key(|i| (std::cmp::Reverse(quota(*i) % total), stakes[*i].0));
    for i in by_remainder.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
        allotted[i] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(stakes: &[u64]) -> Vec<(B256, u64)> {
        (0u64..).zip(stakes).map(|(i, stake)| (B256::from(alloy_primitives::U256::from(i)), *stake)).collect()
    }

    #[test]
    fn known_divisions() {
        // Hamilton's example: 43, 34, 23 of 100 for ten seats.
        assert_eq!(allot(&named(&[43, 34, 23]), 10, 10), [4, 4, 2]);
        assert_eq!(allot(&named(&[1, 1, 1, 1]), 4, 1), [1, 1, 1, 1]);
        assert_eq!(allot(&named(&[1, 1, 1]), 4, 4), [2, 1, 1], "a tie goes to the lower identity");
        assert_eq!(allot(&named(&[97, 1, 1, 1]), 16, 5), [5, 4, 4, 3]);
        assert_eq!(allot(&named(&[0, 5]), 4, 4), [0, 4]);
        assert_eq!(allot(&named(&[5, 5]), 4, 1), [1, 1], "the cap is above the number of seats");
        assert_eq!(allot(&named(&[u64::MAX, u64::MAX, 1]), 3, 3), [2, 1, 0]);
        assert_eq!(allot(&[], 4, 1), [0; 0]);
    }

    #[test]
    fn no_validator_can_stop_the_hub_alone() {
        assert_eq!(targets(4, 1), (4, 1));
        assert_eq!(targets(4, 8), (32, 10));
        assert_eq!(targets(1, 1), (1, 1));
        assert_eq!(targets(5000, 1).0, SEATS_MAX);
        assert_eq!(targets(3, 0).0, 3);
    }

    fn stakes() -> impl Strategy<Value = Vec<u64>> {
        let stake = prop_oneof![0u64..10, any::<u64>(), Just(7)];
        proptest::collection::vec(stake, 0..30)
    }

    proptest! {
        #[test]
        fn every_seat_is_given_out_and_no_cap_passed(stakes in stakes(), seats in 0u32..200, cap in 1u32..100) {
            let allotted = allot(&named(&stakes), seats, cap);
            let staked = stakes.iter().filter(|s| **s > 0).count() as u64;
            let expected = u64::from(seats).min(staked * u64::from(cap));
            prop_assert_eq!(allotted.iter().map(|s| u64::from(*s)).sum::<u64>(), expected);
            for (stake, seats) in stakes.iter().zip(&allotted) {
                prop_assert!(*seats <= cap);
                prop_assert!(*stake > 0 || *seats == 0);
            }
        }

        #[test]
        fn more_stake_is_never_fewer_seats(stakes in stakes(), seats in 0u32..200, cap in 1u32..100) {
            let allotted = allot(&named(&stakes), seats, cap);
            for (i, a) in stakes.iter().enumerate() {
                for (j, b) in stakes.iter().enumerate() {
                    prop_assert!(a <= b || allotted[i] >= allotted[j], "{} of {a}, {} of {b}", allotted[i], allotted[j]);
                    // Equal stakes differ by the last seat alone, or by what was left for the last capped one.
                    prop_assert!(a != b || i > j || allotted[i] >= allotted[j]);
                }
            }
        }

        #[test]
        fn without_a_cap_each_gets_its_quota_rounded(stakes in stakes(), seats in 0u32..200) {
            let allotted = allot(&named(&stakes), seats, u32::MAX);
            let total: u128 = stakes.iter().map(|s| u128::from(*s)).sum();
            for (stake, given) in stakes.iter().zip(&allotted).filter(|_| total > 0) {
                let quota = u128::from(*stake) * u128::from(seats);
                let given = u128::from(*given);
                prop_assert!(given == quota / total || given == quota.div_ceil(total), "{given} for {quota}/{total}");
            }
        }

        #[test]
        fn the_order_of_validators_does_not_matter(stakes in stakes(), seats in 0u32..200, cap in 1u32..100, by in any::<u64>()) {
            let named = named(&stakes);
            let mut other = named.clone();
            other.sort_by_key(|(id, _)| switchyard_primitives::keccak256([id.as_slice(), &by.to_be_bytes()].concat()));
            let by_name = |order: &[(B256, u64)], seats: Vec<u32>| {
                order.iter().map(|(id, _)| *id).zip(seats).collect::<std::collections::BTreeMap<_, _>>()
            };
            prop_assert_eq!(
                by_name(&named, allot(&named, seats, cap)),
                by_name(&other, allot(&other, seats, cap))
            );
        }
    }
}

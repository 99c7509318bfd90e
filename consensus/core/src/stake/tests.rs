mod upgrades;

use super::*;
use crate::{
    LightClient, LightError, VOTE_DST, finalize_message,
    keys::{bls_public_key, bls_secret_from_entropy, prove_possession},
    seat_tweak,
};
use blst::min_pk::{AggregateSignature, SecretKey, Signature};
use proptest::prelude::*;
use switchyard_primitives::{Bytes, FinalityCertificate, FinalityProof, Segment, SignerBitmap};

const NETWORK: B256 = B256::repeat_byte(0xaa);

fn rules(blocks: u64, seats_per_validator: u32) -> EpochRules {
    EpochRules { blocks: NonZeroU64::new(blocks).unwrap(), seats_per_validator }
}

fn secret(n: u16) -> [u8; 32] {
    let mut entropy = [3; 32];
    entropy[..2].copy_from_slice(&n.to_be_bytes());
    bls_secret_from_entropy(&entropy).unwrap()
}

/// A point of ed25519 that stands for validator `n`.
fn identity(n: u16) -> B256 {
    let seat = Seat { identity: B256::from(alloy_primitives::U256::from(n)), bls: key(n) };
    crate::seat_of(&seat, 1).unwrap().identity
}

fn key(n: u16) -> FixedBytes<48> {
    bls_public_key(&secret(n)).unwrap()
}

fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], n))
}

fn genesis(validators: &[(u16, u64)], rules: EpochRules) -> Arc<HubState> {
    let registered = |(n, stake): &(u16, u64)| {
        (identity(*n), Registration { bls: key(*n), stake: *stake, address: None, serial: 0 })
    };
    Arc::new(HubState::genesis(NETWORK, rules, validators.iter().map(registered)).unwrap())
}

fn block(state: &HubState, parent: B256, records: &[Record]) -> Block {
    let height = state.next_height();
    let header = state.stamp(Header { parent, height, ..Header::genesis(NETWORK, height, B256::ZERO) });
    let transactions: Vec<Bytes> = records.iter().map(Record::encode).collect();
    let system = Segment { rollup: RollupId::SYSTEM, transactions };
    Block::new(header, if records.is_empty() { vec![] } else { vec![system] })
}

fn step(state: &Arc<HubState>, records: &[Record]) -> Result<Arc<HubState>, RecordError> {
    state.follow(&block(state, B256::ZERO, records))
}

/// Goes on with empty blocks to the first block of the next epoch.
fn next_epoch(mut state: Arc<HubState>) -> Arc<HubState> {
    let epoch = state.current().epoch();
    while state.current().epoch() == epoch {
        state = step(&state, &[]).unwrap();
    }
    state
}

fn change(state: &HubState, changes: Vec<(B256, Change)>, signers: &[u16]) -> Record {
    let mut changes = changes;
    changes.sort_by_key(|(id, _)| *id);
    let committee = state.current();
    let part = |n: &u16| {
        let part = StakeChange::sign_part(NETWORK, committee.epoch(), state.serial(), &changes, &secret(*n)).unwrap();
        (identity(*n), part)
    };
    let parts: Vec<_> = signers.iter().map(part).collect();
    Record::Stake(StakeChange::combine(NETWORK, committee, state.serial(), changes.clone(), &parts).unwrap())
}

fn join(n: u16, stake: u64) -> (B256, Change) {
    let possession = prove_possession(&secret(n), identity(n)).unwrap();
    (identity(n), Change::Join { bls: key(n), possession, stake, address: address(n) })
}

fn update(state: &HubState, n: u16, kind: UpdateKind) -> Record {
    let serial = state.validators()[&identity(n)].serial;
    Record::Update(Update::sign(NETWORK, identity(n), serial, kind, &secret(n)).unwrap())
}

const FOUR: [(u16, u64); 4] = [(1, 5), (2, 5), (3, 5), (4, 5)];

fn members(committee: &Committee) -> std::collections::BTreeSet<B256> {
    committee.members().iter().map(|m| m.seat.identity).collect()
}

#[test]
fn a_validator_that_joins_has_seats_from_the_epoch_after_next() {
    let state = genesis(&FOUR, rules(4, 1));
    let state = step(&state, &[change(&state, vec![join(5, 5)], &[1, 2, 3])]).unwrap();
    assert_eq!(state.serial(), 1);
    assert_eq!(state.validators()[&identity(5)].address, Some(address(5)));
    // Epochs 0 and 1 were fixed before.
    assert_eq!(state.following().members().len(), 4);
    let state = next_epoch(state);
    assert_eq!((state.current().epoch(), state.current().members().len()), (1, 4));
    assert!(members(state.following()).contains(&identity(5)));
    let state = next_epoch(state);
    assert_eq!((state.current().epoch(), state.current().seats().seats().len()), (2, 5));
}

#[test]
fn a_boundary_block_takes_part_in_the_snapshot_and_names_the_next_seats() {
    let mut state = genesis(&FOUR, rules(4, 1));
    while state.next_height() < 3 {
        assert_eq!(block(&state, B256::ZERO, &[]).header.next_seats_hash, B256::ZERO);
        state = step(&state, &[]).unwrap();
    }
    assert_eq!(block(&state, B256::ZERO, &[]).header.next_seats_hash, state.following().seats().hash());
    let record = change(&state, vec![join(5, 5)], &[1, 2, 4]);
    let state = step(&state, &[record]).unwrap();
    assert_eq!((state.next_height(), state.current().epoch()), (4, 1));
    assert!(members(state.following()).contains(&identity(5)));
}

#[test]
fn validators_change_themselves() {
    let state = genesis(&FOUR, rules(2, 1));
    let state = step(&state, &[update(&state, 1, UpdateKind::Address(address(9)))]).unwrap();
    assert_eq!(state.validators()[&identity(1)].address, Some(address(9)));
    let keys = UpdateKind::Keys { bls: key(11), possession: prove_possession(&secret(11), identity(1)).unwrap() };
    let state = step(&state, &[update(&state, 1, keys), update(&state, 2, UpdateKind::Leave)]).unwrap();
    assert_eq!(state.current().member(&identity(1)).unwrap().seat.bls, key(1), "the old key until then");
    let state = next_epoch(next_epoch(state));
    assert_eq!(state.current().member(&identity(1)).unwrap().seat.bls, key(11));
    assert_eq!(state.current().member(&identity(2)), None);
    assert_eq!(state.validators()[&identity(1)].serial, 2);
}

#[test]
fn records_that_do_not_fit_are_refused() {
    let state = genesis(&FOUR, rules(8, 1));
    let refused = |record: Record| step(&state, &[record]).unwrap_err();
    let good = change(&state, vec![join(5, 5)], &[1, 2, 3]);
    let Record::Stake(stake) = good.clone() else { unreachable!() };

    // Twice, in one block or in two.
    assert!(matches!(step(&state, &[good.clone(), good.clone()]), Err(RecordError::Serial { expected: 1, found: 0 })));
    let after = step(&state, std::slice::from_ref(&good)).unwrap();
    assert!(matches!(step(&after, &[good]), Err(RecordError::Serial { expected: 1, found: 0 })));
    // Not what was signed.
    for bent in [
        StakeChange { changes: vec![join(6, 5)], ..stake.clone() },
        StakeChange { changes: vec![(identity(1), Change::Remove)], ..stake.clone() },
        StakeChange { signers: SignerBitmap::new(4, [0, 1, 2, 3]), ..stake.clone() },
        StakeChange { signature: [0; 96], ..stake.clone() },
    ] {
        assert_eq!(refused(Record::Stake(bent)), RecordError::Signature);
    }
    assert!(matches!(refused(Record::Stake(StakeChange { epoch: 1, ..stake.clone() })), RecordError::Epoch { .. }));
    let two = SignerBitmap::new(4, [0, 1]);
    assert!(matches!(
        refused(Record::Stake(StakeChange { signers: two, ..stake.clone() })),
        RecordError::Quorum { quorum: 3, found: 2 }
    ));
    assert!(matches!(
        refused(Record::Stake(StakeChange { signers: SignerBitmap::new(3, [0, 1, 2]), ..stake })),
        RecordError::Quorum { .. }
    ));
    // What a quorum signed but does not fit the table.
    let signed = |changes| change(&state, changes, &[1, 2, 3]);
    assert!(matches!(refused(signed(vec![(identity(7), Change::Remove)])), RecordError::Unknown { .. }));
    assert!(matches!(refused(signed(vec![(identity(7), Change::Stake(1))])), RecordError::Unknown { .. }));
    assert!(matches!(refused(signed(vec![join(1, 1)])), RecordError::Known { .. }));
    let nobody = (1..5).map(|n| (identity(n), Change::Stake(0))).collect();
    assert_eq!(refused(signed(nobody)), RecordError::NobodyLeft);
    let taken = Change::Join {
        bls: key(1),
        possession: prove_possession(&secret(1), identity(8)).unwrap(),
        stake: 1,
        address: address(8),
    };
    assert!(matches!(refused(signed(vec![(identity(8), taken)])), RecordError::KeyTaken { .. }));
    let own = |n: u16, kind: UpdateKind, by: u16| {
        Record::Update(Update::sign(NETWORK, identity(n), 0, kind, &secret(by)).unwrap())
    };
    assert_eq!(refused(own(1, UpdateKind::Leave, 2)), RecordError::Signature);
    assert!(matches!(refused(own(9, UpdateKind::Leave, 9)), RecordError::Unknown { .. }));
    let stolen = UpdateKind::Keys { bls: key(11), possession: prove_possession(&secret(11), identity(2)).unwrap() };
    assert!(matches!(refused(own(1, stolen, 1)), RecordError::Key(_)));
    let elsewhere = Update::sign(B256::ZERO, identity(1), 0, UpdateKind::Leave, &secret(1)).unwrap();
    assert_eq!(refused(Record::Update(elsewhere)), RecordError::Signature);
}

#[test]
fn an_identity_that_no_peer_can_have_does_not_join() {
    let state = genesis(&FOUR, rules(8, 1));
    let nobody = (0u8..)
        .map(B256::repeat_byte)
        .find(|b| curve25519_dalek::edwards::CompressedEdwardsY(b.0).decompress().is_none());
    let nobody = nobody.unwrap();
    let possession = prove_possession(&secret(5), nobody).unwrap();
    let join = Change::Join { bls: key(5), possession, stake: 1, address: address(5) };
    let changes = vec![(nobody, join)];
    let parts: Vec<_> = (1..4u16)
        .map(|n| (identity(n), StakeChange::sign_part(NETWORK, 0, 0, &changes, &secret(n)).unwrap()))
        .collect();
    let combined = StakeChange::combine(NETWORK, state.current(), 0, changes, &parts);
    assert_eq!(combined, Err(RecordError::Identity { identity: nobody }));
}

#[test]
fn a_block_that_says_something_else_of_the_state_is_refused() {
    let state = genesis(&FOUR, rules(2, 1));
    let good = block(&state, B256::ZERO, &[]);
    assert!(state.follow(&good).is_ok());
    let other = B256::repeat_byte(1);
    for header in [
        Header { epoch: 1, ..good.header },
        Header { height: 2, ..good.header },
        Header { system_root: other, ..good.header },
        Header { next_seats_hash: other, ..good.header },
        Header { next_seats_hash: B256::ZERO, ..good.header },
    ] {
        let refused = state.follow(&Block::new(header, vec![]));
        assert!(matches!(refused, Err(RecordError::Header { .. })), "{header:?}");
    }
}

#[test]
fn a_builder_takes_what_fits_and_no_more() {
    let state = genesis(&FOUR, rules(64, 1));
    let good = change(&state, vec![join(5, 5)], &[1, 2, 3]);
    let late = Update {
        serial: 3,
        ..match update(&state, 1, UpdateKind::Leave) {
            Record::Update(update) => update,
            _ => unreachable!(),
        }
    };
    let offered = [Record::Update(late).encode(), good.encode(), good.encode(), Bytes::from_static(b"junk")];
    assert_eq!(state.admissible(offered), [good.encode()]);
    // Addresses may change as often as their owner signs: more than fit into one block.
    let many: Vec<Bytes> = (0..20)
        .map(|serial| {
            let kind = UpdateKind::Address(address(u16::try_from(serial).unwrap()));
            Record::Update(Update::sign(NETWORK, identity(1), serial, kind, &secret(1)).unwrap()).encode()
        })
        .collect();
    assert_eq!(state.admissible(many.clone()), many[..RECORDS_PER_BLOCK]);
    let full = Segment { rollup: RollupId::SYSTEM, transactions: many };
    let refused = state.follow(&Block::new(block(&state, B256::ZERO, &[]).header, vec![full]));
    assert_eq!(refused, Err(RecordError::TooMany { found: 20 }));
}

/// Final by the seats' signatures: all of them but `f`.
fn finality(committee: &Committee, secrets: impl Fn(B256) -> [u8; 32], header: Header) -> FinalityProof {
    let seats = u32::try_from(committee.seats().seats().len()).unwrap();
    let quorum = u32::try_from(committee.seats().quorum()).unwrap();
    let message = finalize_message(NETWORK, committee.epoch(), header.height, 0, header.hash());
    let mut sum: Option<AggregateSignature> = None;
    for seat in seats - quorum..seats {
        let (owner, number) = committee.owner(seat).unwrap();
        let key = SecretKey::from_bytes(&secrets(owner.seat.identity)).unwrap();
        let mut parts: Vec<Signature> = vec![key.sign(&message, VOTE_DST, &[])];
        if let Some(tweak) = seat_tweak(&owner.seat, number).unwrap() {
            parts.push(SecretKey::from_bytes(&tweak).unwrap().sign(&message, VOTE_DST, &[]));
        }
        for part in parts {
            match &mut sum {
                None => sum = Some(AggregateSignature::from_signature(&part)),
                Some(sum) => sum.add_signature(&part, false).unwrap(),
            }
        }
    }
    let certificate = FinalityCertificate {
        epoch: committee.epoch(),
        view: header.height,
        parent_view: 0,
        block: header.hash(),
        signers: SignerBitmap::new(seats, seats - quorum..seats),
        signature: sum.unwrap().to_signature().compress(),
    };
    FinalityProof { headers: vec![header], certificate }
}

#[test]
fn a_light_client_follows_ten_changes_of_the_whole_set_from_genesis() {
    const CHANGES: u16 = 10;
    let group = |g: u16| (1..5).map(move |n| g * 4 + n);
    let secrets: BTreeMap<B256, [u8; 32]> =
        (0..=CHANGES + 1).flat_map(group).map(|n| (identity(n), secret(n))).collect();
    let secret_of = |identity: B256| secrets[&identity];
    let mut state = genesis(&FOUR, rules(3, 2));
    let mut client = LightClient::new(NETWORK, state.current().seats().clone());
    let mut seen = vec![members(state.current())];
    let mut parent = B256::ZERO;
    while state.current().epoch() < u64::from(CHANGES) + 2 {
        let epoch = u16::try_from(state.current().epoch()).unwrap();
        // In the first block of each epoch those who sign replace everyone in the table.
        let first = state.next_height() % 3 == if epoch == 0 { 1 } else { 0 };
        let mut records = Vec::new();
        if first && epoch <= CHANGES {
            let stakes = [40, 30, 20, 10];
            let mut changes: Vec<_> = state.validators().keys().map(|id| (*id, Change::Remove)).collect();
            changes.extend(group(epoch + 1).zip(stakes).map(|(n, stake)| join(n, stake)));
            let signers: Vec<u16> = group(epoch.saturating_sub(1)).collect();
            records.push(change(&state, changes, &signers));
        }
        let block = block(&state, parent, &records);
        parent = block.hash();
        let proof = finality(state.current(), secret_of, block.header);
        assert_eq!(client.verify(&proof), Ok(block.header), "height {}", block.header.height);
        if state.rules().is_last(block.header.height) {
            let next = state.following().seats().clone();
            let stale = client.clone();
            client.advance(&proof, next).unwrap();
            // Not twice, and not with other seats.
            assert!(client.clone().advance(&proof, state.following().seats().clone()).is_err());
            let other = stale.clone().advance(&proof, state.current().seats().clone());
            assert!(epoch == 0 || matches!(other, Err(LightError::OtherSeats { .. })), "{other:?}");
            if state.following().members() != state.current().members() {
                seen.push(members(state.following()));
            }
        } else {
            let next = state.following().seats().clone();
            assert!(matches!(client.clone().advance(&proof, next), Err(LightError::NotABoundary { .. })));
        }
        state = state.follow(&block).unwrap();
    }
    assert_eq!(client.newest(), u64::from(CHANGES) + 2);
    assert_eq!(seen.len(), usize::from(CHANGES) + 2);
    for pair in seen.windows(2) {
        assert!(pair[0].is_disjoint(&pair[1]), "everyone was replaced");
    }
    // By stake 40, 30, 20, 10 of eight seats, at most two each.
    assert!(state.current().members().iter().all(|m| m.seats == 2));
}

#[test]
fn a_light_client_does_not_take_an_unknown_epochs_word() {
    let state = genesis(&FOUR, rules(2, 1));
    let by_identity: BTreeMap<B256, [u8; 32]> = (1..5).map(|n| (identity(n), secret(n))).collect();
    let client = LightClient::new(NETWORK, state.current().seats().clone());
    let header = Header { epoch: 1, ..block(&state, B256::ZERO, &[]).header };
    let proof = finality(state.following(), |id| by_identity[&id], header);
    let unknown = LightError::UnknownEpoch { found: 1, oldest: 0, newest: 0 };
    assert_eq!(client.verify(&proof), Err(unknown));
}

#[test]
fn the_state_is_what_its_bytes_say() {
    let state = genesis(&[(1, 5), (2, 0), (3, 70), (4, 1)], rules(5, 3));
    let mut state = step(&state, &[update(&state, 1, UpdateKind::Address("[::1]:7".parse().unwrap()))]).unwrap();
    for _ in 0..12 {
        let bytes = state.encode();
        let back = HubState::decode(NETWORK, &bytes).unwrap();
        assert_eq!(back, *state);
        assert_eq!(back.root(), state.root());
        for len in 0..bytes.len() {
            assert!(HubState::decode(NETWORK, &bytes[..len]).is_err());
        }
        state = step(&state, &[]).unwrap();
    }
    let mut bytes = state.encode();
    bytes[7] ^= 1 << 4;
    assert!(HubState::decode(NETWORK, &bytes).is_err(), "committees of other epochs");
}

#[test]
fn the_root_changes_with_the_table_and_the_epoch_alone() {
    let state = genesis(&FOUR, rules(3, 1));
    let same = step(&state, &[]).unwrap();
    assert_eq!(state.root(), same.root());
    let moved = step(&state, &[update(&state, 1, UpdateKind::Address(address(1)))]).unwrap();
    assert_ne!(state.root(), moved.root());
    assert_ne!(next_epoch(same.clone()).root(), same.root());
    let read = HubState::decode(NETWORK, &moved.encode()).unwrap();
    assert_eq!(read.root(), moved.root());
}

fn any_change() -> impl Strategy<Value = Change> {
    let (stake, bytes) = (any::<u64>(), any::<u8>());
    let join = (stake, bytes, any::<bool>(), any::<u16>()).prop_map(|(stake, byte, v6, port)| Change::Join {
        bls: FixedBytes([byte; 48]),
        possession: FixedBytes([byte; 96]),
        stake,
        address: if v6 { SocketAddr::from(([byte; 16], port)) } else { SocketAddr::from(([byte; 4], port)) },
    });
    prop_oneof![Just(Change::Remove), any::<u64>().prop_map(Change::Stake), join]
}

fn any_record() -> impl Strategy<Value = Record> {
    let id = any::<[u8; 32]>().prop_map(B256::from);
    let changes = proptest::collection::btree_map(id.clone(), any_change(), 1..5);
    let stake =
        (any::<u64>(), any::<u64>(), changes, 1u32..40, any::<u8>()).prop_map(|(epoch, serial, changes, n, b)| {
            let signers = SignerBitmap::new(n, (0..n).filter(|i| i % 3 == 0));
            Record::Stake(StakeChange {
                epoch,
                serial,
                changes: changes.into_iter().collect(),
                signers,
                signature: [b; 96],
            })
        });
    let kind = prop_oneof![
        Just(UpdateKind::Leave),
        any::<u16>().prop_map(|n| UpdateKind::Address(address(n))),
        any::<u8>().prop_map(|b| UpdateKind::Keys { bls: FixedBytes([b; 48]), possession: FixedBytes([b; 96]) }),
    ];
    let update = (id, any::<u64>(), kind, any::<u8>())
        .prop_map(|(identity, serial, kind, b)| Record::Update(Update { identity, serial, kind, signature: [b; 96] }));
    prop_oneof![stake, update]
}

proptest! {
    #[test]
    fn a_record_survives_its_encoding(record in any_record()) {
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn whatever_decodes_is_encoded_as_it_was(record in any_record(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = record.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Record::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::decode(&bytes);
        let _ = HubState::decode(NETWORK, &bytes);
    }
}

//! Decisions that another protocol version begins.

use super::*;

fn upgrade(state: &HubState, protocol: u8, height: u64, signers: &[u16]) -> Record {
    let (committee, activation) = (state.current(), Activation { protocol, height });
    let part = |n: &u16| {
        let part = Upgrade::sign_part(NETWORK, committee.epoch(), state.serial(), activation, &secret(*n)).unwrap();
        (identity(*n), part)
    };
    let parts: Vec<_> = signers.iter().map(part).collect();
    Record::Upgrade(Upgrade::combine(NETWORK, committee, state.serial(), activation, &parts).unwrap())
}

/// Goes on with empty blocks until this is the next height.
fn until(mut state: Arc<HubState>, height: u64) -> Arc<HubState> {
    while state.next_height() < height {
        state = step(&state, &[]).unwrap();
    }
    state
}

#[test]
fn a_protocol_version_begins_at_its_height_and_headers_say_so() {
    let state = genesis(&FOUR, rules(4, 1));
    let state = step(&state, &[upgrade(&state, 2, 8, &[1, 2, 3])]).unwrap();
    assert_eq!((state.protocol(), state.upgrade()), (1, Some(Activation { protocol: 2, height: 8 })));
    let before = until(state, 7);
    assert_eq!(block(&before, B256::ZERO, &[]).header.protocol, 1);
    let state = step(&before, &[]).unwrap();
    assert_eq!((state.protocol(), state.upgrade()), (2, None));
    let next = block(&state, B256::ZERO, &[]);
    assert_eq!(next.header.protocol, 2);
    assert!(state.follow(&next).is_ok());
    for (state, protocol) in [(&before, 2), (&state, 1)] {
        let mut wrong = block(state, B256::ZERO, &[]);
        wrong.header.protocol = protocol;
        assert_eq!(state.follow(&wrong), Err(RecordError::Header { height: state.next_height() }));
    }
}

#[test]
fn a_protocol_version_is_decided_by_a_quorum_in_time_and_one_by_one() {
    let state = genesis(&FOUR, rules(4, 1));
    let committee = state.current();
    let activation = Activation { protocol: 2, height: 8 };
    let parts: Vec<_> = [1, 2]
        .map(|n| (identity(n), Upgrade::sign_part(NETWORK, 0, 0, activation, &secret(n)).unwrap()))
        .into_iter()
        .collect();
    let few = Upgrade::combine(NETWORK, committee, 0, activation, &parts);
    assert_eq!(few, Err(RecordError::Quorum { quorum: 3, found: 2 }));

    let Record::Upgrade(mut moved) = upgrade(&state, 2, 8, &[1, 2, 3]) else { unreachable!() };
    moved.activation.height = 12;
    assert_eq!(step(&state, &[Record::Upgrade(moved)]).unwrap_err(), RecordError::Signature);

    let refused = |protocol, height| step(&state, &[upgrade(&state, protocol, height, &[1, 2, 3])]).unwrap_err();
    assert_eq!(refused(3, 8), RecordError::Protocol { current: 1, found: 3 });
    assert_eq!(refused(0, 8), RecordError::Protocol { current: 1, found: 0 });
    assert_eq!(refused(1, 0), RecordError::NothingToWithdraw { protocol: 1 });
    for height in [0, 4, 9, u64::MAX] {
        assert_eq!(refused(2, height), RecordError::ActivationHeight { earliest: 8, blocks: 4, found: height });
    }
}

#[test]
fn a_decision_can_be_moved_and_withdrawn_and_applies_once() {
    let state = genesis(&FOUR, rules(4, 1));
    let first = upgrade(&state, 2, 8, &[1, 2, 3]);
    let state = step(&state, std::slice::from_ref(&first)).unwrap();
    assert_eq!(step(&state, &[first]).unwrap_err(), RecordError::Serial { expected: 1, found: 0 });
    let moved = step(&state, &[upgrade(&state, 2, 12, &[2, 3, 4])]).unwrap();
    assert_eq!(until(moved.clone(), 9).protocol(), 1);
    assert_eq!(until(moved.clone(), 12).protocol(), 2);
    let withdrawn = step(&moved, &[upgrade(&moved, 1, 0, &[2, 3, 4])]).unwrap();
    assert_eq!(withdrawn.upgrade(), None);
    assert_eq!(until(withdrawn, 13).protocol(), 1);
}

#[test]
fn a_state_with_another_protocol_survives_its_encoding() {
    let state = genesis(&FOUR, rules(4, 1));
    let plain = state.encode();
    let scheduled = step(&state, &[upgrade(&state, 2, 8, &[1, 2, 3])]).unwrap();
    let active = until(scheduled.clone(), 8);
    for state in [&state, &scheduled, &active] {
        assert_eq!(&HubState::decode(NETWORK, &state.encode()).unwrap(), &**state);
    }
    // The version byte after the height.
    assert_eq!([plain[8], scheduled.encode()[8], active.encode()[8]], [1, 2, 2]);
    for (at, value) in [(9, 0), (9, 2), (10, 1)] {
        let mut bytes = scheduled.encode();
        bytes[at] = value;
        assert!(HubState::decode(NETWORK, &bytes).is_err(), "byte {at} is {value}");
    }
}

#[test]
fn from_protocol_2_on_a_validator_changes_itself_once_a_block() {
    let moved = |state: &HubState, n, port, serial| {
        let kind = UpdateKind::Address(address(port));
        let serial = state.validators()[&identity(n)].serial + serial;
        Record::Update(Update::sign(NETWORK, identity(n), serial, kind, &secret(n)).unwrap())
    };
    let one = genesis(&FOUR, rules(4, 1));
    let records = |state: &HubState| [moved(state, 1, 1, 0), moved(state, 1, 2, 1), moved(state, 2, 3, 0)];
    assert!(step(&one, &records(&one)).is_ok());

    let two = Arc::new(HubState::clone(&one).with_protocol(2));
    let twice = records(&two);
    assert_eq!(step(&two, &twice).unwrap_err(), RecordError::Twice { identity: identity(1) });
    let kept = two.admissible(twice.iter().map(Record::encode));
    assert_eq!(kept, [twice[0].encode(), twice[2].encode()]);
    let after = step(&two, &[twice[0].clone(), twice[2].clone()]).unwrap();
    assert!(step(&after, &[twice[1].clone()]).is_ok());
}

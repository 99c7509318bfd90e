//! This validator in the stake table, as the running node's log has it.

use crate::operate::{Finding, Level};
use alloy_primitives::FixedBytes;
use switchyard_bridge_core::SystemState;
use switchyard_consensus_core::{Committee, HubState, record::Activation};
use switchyard_primitives::{B256, NEWEST_PROTOCOL};
use switchyard_proto::v1::{GetHubStateRequest, block_service_client::BlockServiceClient};
use tonic::transport::Channel;

/// Asks the node for the hub's state and looks for `identity` in it, and at what the network's protocol will be; `bls` are the keys
/// that the configuration has, if any is on this host.
pub(super) async fn find(channel: Channel, network: B256, identity: B256, bls: &[FixedBytes<48>]) -> Vec<Finding> {
    let answer = BlockServiceClient::new(channel).get_hub_state(GetHubStateRequest {}).await;
    let state = match answer.map(|answer| SystemState::decode(network, Default::default(), &answer.into_inner().state))
    {
        Ok(Ok(state)) => state,
        Ok(Err(error)) => return vec![unknown(error.to_string())],
        Err(status) => return vec![unknown(status.message().to_owned())],
    };
    vec![judge(&state, identity, bls), judge_protocol(&state, NEWEST_PROTOCOL)]
}

/// Whether a program that knows no protocol above `known` can go on.
fn judge_protocol(state: &HubState, known: u8) -> Finding {
    let protocol = state.protocol();
    let Some(Activation { protocol: next, height }) = state.upgrade() else {
        return Finding::ok("protocol", format!("protocol {protocol} is in force, no other is decided"));
    };
    let found = format!("protocol {protocol} is in force, {next} begins with block {height}");
    if next <= known {
        return Finding::ok("protocol", format!("{found}; this program knows it"));
    }
    let (means, remedy) = ("this node stops there", "install a newer switchyard before that block, and start it again");
    Finding::new("protocol", Level::Error, format!("{found}; this program knows none above {known}"), means, remedy)
}

fn unknown(error: String) -> Finding {
    let (means, remedy) = ("whether this validator has seats is not known", "look at the other findings on the node");
    Finding::new("stake", Level::Unknown, format!("the node does not tell the stake table: {error}"), means, remedy)
}

fn judge(state: &HubState, identity: B256, bls: &[FixedBytes<48>]) -> Finding {
    let epoch = state.current().epoch();
    let seats = |committee: &Committee| committee.member(&identity).map_or(0, |member| member.seats);
    let (now, next) = (seats(state.current()), seats(state.following()));
    let Some(own) = state.validators().get(&identity) else {
        let found = format!("epoch {epoch}: {identity} is not in the stake table; {now} seats now, {next} in the next");
        let (means, remedy) =
            ("it follows, and votes for nothing", "have it join: docs/operators.md, or wait for the log");
        return Finding::new("stake", Level::Warning, found, means, remedy);
    };
    let found = format!("epoch {epoch}: stake {}, {now} seats now, {next} in the next epoch", own.stake);
    let seated = [state.current(), state.following()].into_iter().filter_map(|c| c.member(&identity));
    let needed: Vec<_> = seated.map(|member| member.seat.bls).chain([own.bls]).collect();
    if let Some(missing) = needed.iter().find(|key| !bls.is_empty() && !bls.contains(key)) {
        let found = format!("{found}; the BLS key {missing} is not in the configuration");
        let means = "in the epochs in which that key has the seats this validator does not vote";
        let remedy = "name the old key in [keys] and the new one in [keys.next] until the old one has no seats";
        return Finding::new("stake", Level::Error, found, means, remedy);
    }
    if own.stake == 0 || now == 0 && next == 0 {
        let (means, remedy) = ("it follows, and votes for nothing", "nothing, if it leaves; else have it given stake");
        return Finding::new("stake", Level::Warning, found, means, remedy);
    }
    Finding::ok("stake", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchyard_consensus_core::{
        EpochRules,
        keys::{bls_public_key, bls_secret_from_entropy},
        stake::Registration,
    };

    fn key(n: u8) -> FixedBytes<48> {
        bls_public_key(&bls_secret_from_entropy(&[n; 32]).unwrap()).unwrap()
    }

    #[test]
    fn a_protocol_that_this_program_does_not_know_is_an_error() {
        let rules = EpochRules { blocks: 10.try_into().unwrap(), seats_per_validator: 1 };
        let registration = Registration { bls: key(1), stake: 5, address: None, serial: 0 };
        let state = HubState::genesis(B256::ZERO, rules, [(B256::repeat_byte(1), registration)]).unwrap();
        assert_eq!(judge_protocol(&state, 1).level, Level::Ok);
        let mut bytes = state.encode();
        // Layout 2: protocol 1 is in force, 2 begins at height 20.
        bytes.splice(8..9, [2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 20]);
        let decided = HubState::decode(B256::ZERO, &bytes).unwrap();
        assert_eq!(judge_protocol(&decided, 2).level, Level::Ok);
        assert_eq!(judge_protocol(&decided, 1).level, Level::Error);
    }

    #[test]
    fn a_validators_place_in_the_stake_table_is_told() {
        let rules = EpochRules { blocks: 10.try_into().unwrap(), seats_per_validator: 1 };
        let registered =
            |n: u8, stake| (B256::repeat_byte(n), Registration { bls: key(n), stake, address: None, serial: 0 });
        let table = [registered(1, 5), registered(2, 0), registered(3, 5)];
        let state = HubState::genesis(B256::ZERO, rules, table).unwrap();
        let level = |n: u8, bls: &[FixedBytes<48>]| judge(&state, B256::repeat_byte(n), bls).level;
        assert_eq!(level(1, &[key(1)]), Level::Ok);
        assert_eq!(level(1, &[]), Level::Ok, "the key is elsewhere");
        assert_eq!(level(1, &[key(9), key(1)]), Level::Ok);
        assert_eq!(level(1, &[key(9)]), Level::Error);
        assert_eq!(level(2, &[key(2)]), Level::Warning);
        assert_eq!(level(7, &[key(7)]), Level::Warning);
    }
}

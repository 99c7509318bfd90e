//! The rollups of a local network: two EVM rollups and one whose transactions the hub does not look into.

use crate::accounts::{ACCOUNTS, BALANCE_ETHER};
use alloy_primitives::{Address, Bytes, U256, address};
use serde_json::{Map, Value, json};
use switchyard_bridge_contracts::genesis as contracts;
use switchyard_primitives::RollupId;
use switchyard_rollup_core::{RollupManifest, Sealing, Vm};
use switchyard_rollup_evm::prague_system_contracts;

/// Who receives the tips on the local EVM rollups: "switchyard fees" in ASCII.
pub const COINBASE: Address = address!("7377697463687961726420666565730000000000");
/// Gas of one rollup block.
pub const GAS_LIMIT: u64 = 60_000_000;
/// Base fee of the first block, in wei.
pub const BASE_FEE_WEI: u64 = 1_000_000_000;
/// What messages from another EVM rollup may pay out on one from the beginning, for each other one, in ether.
pub const FUNDS_ETHER: u64 = 1_000_000;

/// The EVM rollups: id, name, chain id.
const EVM_ROLLUPS: [(RollupId, &str, u64); 2] = [(RollupId(1), "yardA", 71001), (RollupId(2), "yardB", 71002)];

/// `yardA` (id 1, chain id 71001), `yardB` (id 2, chain id 71002) and the opaque `yardC` (id 3).
///
/// `timestamp_s` is the EVM rollups' genesis time, `sealing` when their blocks are closed.
pub fn default_rollups(timestamp_s: u64, sealing: Sealing) -> Vec<RollupManifest> {
    let evm = |(id, name, chain_id): (RollupId, &str, u64)| RollupManifest {
        id,
        name: name.into(),
        vm: Vm::Evm { genesis: evm_genesis(id, chain_id, timestamp_s) },
        sealing,
    };
    let opaque = RollupManifest { id: RollupId(3), name: "yardC".into(), vm: Vm::Opaque, sealing: Sealing::HubBlock };
    EVM_ROLLUPS.into_iter().map(evm).chain([opaque]).collect()
}

/// Genesis of a Prague chain in geth's JSON format, with the funded [`ACCOUNTS`], the contracts that Prague's system calls
/// need ([`prague_system_contracts`]), and those of messages and bundles, which know each other EVM rollup and have [`FUNDS_ETHER`] for it.
pub fn evm_genesis(rollup: RollupId, chain_id: u64, timestamp_s: u64) -> Value {
    json!({
        "config": chain_config(chain_id),
        "nonce": "0x0",
        "timestamp": format!("{timestamp_s:#x}"),
        "extraData": "0x",
        "gasLimit": format!("{GAS_LIMIT:#x}"),
        "difficulty": "0x0",
        "mixHash": format!("{:#x}", alloy_primitives::B256::ZERO),
        "coinbase": format!("{COINBASE:#x}"),
        "alloc": alloc(rollup),
        "number": "0x0",
        "gasUsed": "0x0",
        "parentHash": format!("{:#x}", alloy_primitives::B256::ZERO),
        "baseFeePerGas": format!("{BASE_FEE_WEI:#x}"),
        "excessBlobGas": "0x0",
        "blobGasUsed": "0x0",
    })
}

fn chain_config(chain_id: u64) -> Value {
    json!({
        "chainId": chain_id,
        "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
        "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0,
        "muirGlacierBlock": 0, "berlinBlock": 0, "londonBlock": 0, "arrowGlacierBlock": 0, "grayGlacierBlock": 0,
        "mergeNetsplitBlock": 0,
        "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0,
        "terminalTotalDifficulty": 0,
        "terminalTotalDifficultyPassed": true,
        // EIP-7840; mainnet's values. Rollups take no blob transactions.
        "blobSchedule": {
            "cancun": { "target": 3, "max": 6, "baseFeeUpdateFraction": 3_338_477 },
            "prague": { "target": 6, "max": 9, "baseFeeUpdateFraction": 5_007_716 },
        },
        // EIP-6110: where clients look for deposit logs. No contract is there.
        "depositContractAddress": "0x00000000219ab540356cbb839cbe05303d7705fa",
    })
}

fn alloc(rollup: RollupId) -> Value {
    let funded = ACCOUNTS.iter().map(|a| (a.address, json!({ "balance": format!("{:#x}", ether(BALANCE_ETHER)) })));
    let contract = |(address, code): (Address, Bytes)| {
        (address, json!({ "balance": "0x0", "nonce": "0x1", "code": code.to_string() }))
    };
    let system = prague_system_contracts().into_iter().map(contract);
    let others = || EVM_ROLLUPS.into_iter().filter(|(id, ..)| *id != rollup);
    let known: Vec<_> = others().map(|(id, _, chain_id)| (id, chain_id)).collect();
    let funds: Vec<_> = others().map(|(id, ..)| (id, ether(FUNDS_ETHER).to::<u128>())).collect();
    let bridge = contracts(rollup, &known, &funds).into_iter().map(|(address, account)| (address, json!(account)));
    let entries: Map<String, Value> =
        funded.chain(system).chain(bridge).map(|(address, account)| (format!("{address:#x}"), account)).collect();
    Value::Object(entries)
}

/// In wei.
pub(crate) fn ether(amount: u64) -> U256 {
    U256::from(amount) * U256::from(10).pow(U256::from(18))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::genesis::Genesis;
    use switchyard_bridge_core::predeploys;

    #[test]
    fn the_genesis_reads_back_as_geths_format_with_every_account() {
        let genesis: Genesis = serde_json::from_value(evm_genesis(RollupId(1), 71001, 1_700_000_000)).unwrap();
        assert_eq!(genesis.config.chain_id, 71001);
        assert_eq!(genesis.timestamp, 1_700_000_000);
        assert_eq!(genesis.gas_limit, GAS_LIMIT);
        assert_eq!(genesis.base_fee_per_gas, Some(BASE_FEE_WEI.into()));
        assert_eq!(genesis.config.prague_time, Some(0));
        for account in ACCOUNTS {
            assert_eq!(genesis.alloc[&account.address].balance, ether(BALANCE_ETHER));
        }
        let contracts = genesis.alloc.values().filter(|a| a.code.as_ref().is_some_and(|c| !c.is_empty()));
        assert_eq!(contracts.count(), 4 + 6);
    }

    #[test]
    fn the_contracts_are_those_of_the_rollup_and_know_the_other_one_and_have_coin_for_it() {
        for ((id, _, chain_id), (other, _, chain)) in EVM_ROLLUPS.into_iter().zip(EVM_ROLLUPS.into_iter().rev()) {
            let genesis: Genesis = serde_json::from_value(evm_genesis(id, chain_id, 0)).unwrap();
            for (address, account) in contracts(id, &[(other, chain)], &[(other, ether(FUNDS_ETHER).to::<u128>())]) {
                assert_eq!(genesis.alloc[&address], account);
            }
            assert_eq!(genesis.alloc[&predeploys::INBOX].balance, ether(FUNDS_ETHER));
        }
    }

    #[test]
    fn the_default_rollups_are_valid_and_distinct() {
        let rollups = default_rollups(0, Sealing::OneSecond);
        for rollup in &rollups {
            rollup.check().unwrap();
        }
        let ids: std::collections::BTreeSet<_> = rollups.iter().map(|r| r.id).collect();
        assert_eq!(ids.len(), rollups.len());
    }
}

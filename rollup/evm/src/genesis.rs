//! The rollup's genesis: geth's JSON, checked so that any Ethereum client derives the same genesis block and rules.

use crate::execute::BASE_FEE_MAX;
use alloy::{
    consensus::{
        Header,
        constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_RECEIPTS, EMPTY_ROOT_HASH, EMPTY_TRANSACTIONS, EMPTY_WITHDRAWALS},
        proofs::state_root_ref_unhashed,
    },
    eips::{eip1559::INITIAL_BASE_FEE, eip2935, eip4788, eip6110, eip7002, eip7251, eip7685::EMPTY_REQUESTS_HASH},
    genesis::{ChainConfig, Genesis as GethGenesis, GenesisAccount},
};
use alloy_evm::eth::spec::EthExecutorSpec;
use alloy_hardforks::{EthereumHardfork, EthereumHardforks, ForkCondition};
use alloy_primitives::{Address, B256, Bytes, U256};
use revm::state::Bytecode;
use std::{collections::BTreeMap, ops::RangeInclusive};

/// Why a rollup's genesis is refused.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// Not geth's genesis format.
    #[error("genesis is not in geth's JSON format: {0}")]
    Format(serde_json::Error),
    /// A fork up to Prague is not active from the genesis block, so clients would apply other rules than the rollup.
    #[error("genesis config.{fork} must be at most {latest}: Prague rules apply from the genesis block")]
    ForkInactive {
        /// The field.
        fork: &'static str,
        /// Greatest value that would do.
        latest: u64,
    },
    /// A fork after Prague, or one that is not known here.
    #[error("genesis config.{fork} names a fork that rollups do not have: rules are Prague's; remove it")]
    ForkUnsupported {
        /// The field.
        fork: String,
    },
    /// A field has a value that no rollup block could follow.
    #[error("genesis {field}: {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An account that cannot exist on an Ethereum chain, or that would break block production.
    #[error("genesis alloc {address}: {reason}")]
    Account {
        /// The account.
        address: Address,
        /// What is wrong.
        reason: String,
    },
}

/// A checked genesis.
#[derive(Clone, Debug)]
pub(crate) struct Genesis {
    pub(crate) chain_id: u64,
    pub(crate) header: Header,
    pub(crate) hash: B256,
    pub(crate) alloc: BTreeMap<Address, GenesisAccount>,
}

/// EIP-155 leaves this much room: `v = 2 * chain id + 36` must fit in 64 bits.
const CHAIN_ID_MAX: u64 = u64::MAX / 2 - 36;
/// From one transfer to geth's greatest.
const GAS_LIMIT: RangeInclusive<u64> = 21_000..=0x7fff_ffff_ffff_ffff;
/// The hub counts milliseconds in 64 bits.
const TIMESTAMP_MAX: u64 = u64::MAX / 1000;
/// Longest extra data of a header (yellow paper).
const EXTRA_DATA_BYTES_MAX: usize = 32;

impl Genesis {
    pub(crate) fn parse(value: &serde_json::Value) -> Result<Self, GenesisError> {
        let geth: GethGenesis = serde_json::from_value(value.clone()).map_err(GenesisError::Format)?;
        check_forks(&geth.config, geth.timestamp)?;
        check_fields(&geth)?;
        check_alloc(&geth)?;
        let header = header(&geth)?;
        Ok(Self { chain_id: geth.config.chain_id, hash: header.hash_slow(), header, alloc: geth.alloc })
    }
}

fn check_forks(config: &ChainConfig, timestamp: u64) -> Result<(), GenesisError> {
    let blocks = [
        ("homesteadBlock", config.homestead_block),
        ("eip150Block", config.eip150_block),
        ("eip155Block", config.eip155_block),
        ("eip158Block", config.eip158_block),
        ("byzantiumBlock", config.byzantium_block),
        ("constantinopleBlock", config.constantinople_block),
        ("petersburgBlock", config.petersburg_block),
        ("istanbulBlock", config.istanbul_block),
        ("berlinBlock", config.berlin_block),
        ("londonBlock", config.london_block),
    ];
    if let Some((fork, _)) = blocks.iter().find(|(_, at)| *at != Some(0)) {
        return Err(GenesisError::ForkInactive { fork, latest: 0 });
    }
    if config.terminal_total_difficulty != Some(U256::ZERO) {
        return Err(GenesisError::ForkInactive { fork: "terminalTotalDifficulty", latest: 0 });
    }
    let times = [
        ("shanghaiTime", config.shanghai_time),
        ("cancunTime", config.cancun_time),
        ("pragueTime", config.prague_time),
    ];
    if let Some((fork, _)) = times.iter().find(|(_, at)| at.is_none_or(|t| t > timestamp)) {
        return Err(GenesisError::ForkInactive { fork, latest: timestamp });
    }
    let later = [
        ("daoForkBlock", config.dao_fork_block.filter(|at| *at != 0)),
        ("osakaTime", config.osaka_time),
        ("bpo1Time", config.bpo1_time),
        ("bpo2Time", config.bpo2_time),
        ("bpo3Time", config.bpo3_time),
        ("bpo4Time", config.bpo4_time),
        ("bpo5Time", config.bpo5_time),
        ("amsterdamTime", config.amsterdam_time),
        ("bogotaTime", config.bogota_time),
    ];
    if let Some((fork, _)) = later.iter().find(|(_, at)| at.is_some()) {
        return Err(GenesisError::ForkUnsupported { fork: (*fork).into() });
    }
    let unknown = |key: &&String| key.ends_with("Time") || key.ends_with("Block");
    match config.extra_fields.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key).find(unknown) {
        Some(fork) => Err(GenesisError::ForkUnsupported { fork: fork.clone() }),
        None => Ok(()),
    }
}

fn check_fields(geth: &GethGenesis) -> Result<(), GenesisError> {
    let bad = |field, reason: String| Err(GenesisError::Field { field, reason });
    if !(1..=CHAIN_ID_MAX).contains(&geth.config.chain_id) {
        return bad("config.chainId", format!("{} is not within 1 and {CHAIN_ID_MAX}", geth.config.chain_id));
    }
    if !GAS_LIMIT.contains(&geth.gas_limit) {
        return bad(
            "gasLimit",
            format!("{} is not within {} and {}", geth.gas_limit, GAS_LIMIT.start(), GAS_LIMIT.end()),
        );
    }
    if geth.timestamp > TIMESTAMP_MAX {
        return bad("timestamp", format!("{} s is beyond the hub's clock", geth.timestamp));
    }
    if geth.extra_data.len() > EXTRA_DATA_BYTES_MAX {
        return bad("extraData", format!("{} bytes; at most {EXTRA_DATA_BYTES_MAX}", geth.extra_data.len()));
    }
    if !geth.difficulty.is_zero() {
        return bad("difficulty", "must be 0: there is no proof of work after the merge".into());
    }
    if geth.number.is_some_and(|n| n != 0) || geth.parent_hash.is_some_and(|h| !h.is_zero()) {
        return bad("number", "number and parentHash must be 0 or absent".into());
    }
    let deposits = geth.config.deposit_contract_address.unwrap_or_default();
    if !deposits.is_zero() && deposits != eip6110::MAINNET_DEPOSIT_CONTRACT_ADDRESS {
        return bad("config.depositContractAddress", "must be absent: there is no beacon chain to deposit to".into());
    }
    if geth.excess_blob_gas.is_some_and(|n| n != 0) || geth.blob_gas_used.is_some_and(|n| n != 0) {
        return bad("excessBlobGas", "excessBlobGas and blobGasUsed must be 0 or absent: rollups take no blobs".into());
    }
    Ok(())
}

fn check_alloc(geth: &GethGenesis) -> Result<(), GenesisError> {
    let bad = |address: &Address, reason: &str| Err(GenesisError::Account { address: *address, reason: reason.into() });
    let system: BTreeMap<Address, Bytes> = prague_system_contracts().into();
    let mut supply = U256::ZERO;
    for (address, account) in &geth.alloc {
        let code = account.non_empty_code();
        let nonce = account.nonce.unwrap_or_default();
        if code.is_none() && nonce == 0 && account.storage_slots().any(|(_, value)| !value.is_zero()) {
            return bad(address, "storage without code and nonce cannot exist on an Ethereum chain");
        }
        if code.is_some_and(|code| Bytecode::new_raw_checked(code.clone()).is_err()) {
            return bad(address, "code starts as an EIP-7702 delegation but is none");
        }
        if code.is_some() && *address == eip6110::MAINNET_DEPOSIT_CONTRACT_ADDRESS {
            return bad(address, "a rollup has no beacon chain to deposit to (EIP-6110)");
        }
        // Any other code there could fail at the end of each block, and no block would be valid any more.
        if code.is_some_and(|code| system.get(address).is_some_and(|expected| expected != code)) {
            return bad(address, "code differs from the system contract that Prague has at this address");
        }
        // What is deposited later stays far below as much again: no balance ever overflows.
        supply = match supply.checked_add(account.balance).filter(|supply| supply.bit_len() < 256) {
            Some(supply) => supply,
            None => return bad(address, "the balances add up to 2^255 or more"),
        };
    }
    Ok(())
}

fn header(geth: &GethGenesis) -> Result<Header, GenesisError> {
    let base_fee = geth.base_fee_per_gas.unwrap_or(INITIAL_BASE_FEE.into());
    let base_fee = u64::try_from(base_fee).ok().filter(|fee| *fee <= BASE_FEE_MAX).ok_or_else(|| {
        GenesisError::Field { field: "baseFeePerGas", reason: format!("{base_fee} is above {BASE_FEE_MAX}") }
    })?;
    Ok(Header {
        parent_hash: B256::ZERO,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: geth.coinbase,
        state_root: state_root_ref_unhashed(&geth.alloc),
        transactions_root: EMPTY_TRANSACTIONS,
        receipts_root: EMPTY_RECEIPTS,
        difficulty: geth.difficulty,
        gas_limit: geth.gas_limit,
        timestamp: geth.timestamp,
        extra_data: geth.extra_data.clone(),
        mix_hash: geth.mix_hash,
        nonce: geth.nonce.into(),
        base_fee_per_gas: Some(base_fee),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Default::default()
    })
}

/// The system contracts that Prague calls in every block, for a genesis `alloc`: EIP-4788 (beacon roots), EIP-2935
/// (block hashes), EIP-7002 (withdrawal requests) and EIP-7251 (consolidation requests). Independent clients expect
/// them; each has nonce 1.
pub fn prague_system_contracts() -> [(Address, Bytes); 4] {
    [
        (eip4788::BEACON_ROOTS_ADDRESS, eip4788::BEACON_ROOTS_CODE.clone()),
        (eip2935::HISTORY_STORAGE_ADDRESS, eip2935::HISTORY_STORAGE_CODE.clone()),
        (eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE.clone()),
        (eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE.clone()),
    ]
}

/// Prague and every fork before it from the genesis block; nothing later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PragueSpec;

impl EthereumHardforks for PragueSpec {
    fn ethereum_fork_activation(&self, fork: EthereumHardfork) -> ForkCondition {
        match fork {
            fork if fork <= EthereumHardfork::Paris => ForkCondition::ZERO_BLOCK,
            fork if fork <= EthereumHardfork::Prague => ForkCondition::ZERO_TIMESTAMP,
            _ => ForkCondition::Never,
        }
    }
}

impl EthExecutorSpec for PragueSpec {
    // `check_alloc` keeps code away from the default address, which nobody can deploy to either, so no log is ever
    // taken for a deposit.
    fn deposit_contract_address(&self) -> Option<Address> {
        None
    }
}

/// The storage root of an account without storage.
pub(crate) const EMPTY_STORAGE: B256 = EMPTY_ROOT_HASH;

//! Simulated calls: `eth_call` and `eth_estimateGas`, with geth's rules.

use crate::{execute::environment, view::StateView};
use alloy::{
    consensus::Header,
    rpc::types::{TransactionRequest, state::StateOverride},
};
use alloy_evm::{Evm, EvmEnv, EvmFactory, eth::EthEvmFactory, overrides::apply_state_overrides, rpc::TryIntoTxEnv};
use alloy_primitives::{Bytes, TxKind, U256};
use revm::{
    Database,
    context::TxEnv,
    context_interface::result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction},
    database::{State, WrapDatabaseRef},
};
use switchyard_rollup_core::evm::EvmError;

/// Gas of a plain transfer.
const TRANSFER_GAS: u64 = 21_000;
/// Most gas of a simulated call: what one request may cost the node. More than any wallet's transaction uses.
const CALL_GAS_MAX: u64 = 100_000_000;
/// Gas that a call with value hands on for free (yellow paper, `G_callstipend`).
const CALL_STIPEND: u64 = 2_300;

/// A call that is ready to be executed any number of times.
struct Simulation<'a> {
    state: State<WrapDatabaseRef<StateView<'a>>>,
    env: EvmEnv,
    tx: TxEnv,
}

/// Executes a call; returns what it returns.
pub(crate) fn call(
    view: StateView<'_>,
    header: &Header,
    chain_id: u64,
    request: TransactionRequest,
    overrides: Option<StateOverride>,
) -> Result<Bytes, EvmError> {
    let mut simulation = Simulation::new(view, header, chain_id, request, overrides)?;
    let gas = simulation.tx.gas_limit;
    match simulation.run(gas)?.map_err(|e| EvmError::InvalidCall(e.to_string()))? {
        ExecutionResult::Success { output, .. } => Ok(output.into_data()),
        ExecutionResult::Revert { output, .. } => Err(EvmError::Revert(output)),
        ExecutionResult::Halt { reason, .. } => Err(EvmError::Halt(halt_message(&reason))),
    }
}

/// The least gas with which the call succeeds, found by bisection to within 1.5% as geth's gas estimator does.
pub(crate) fn estimate_gas(
    view: StateView<'_>,
    header: &Header,
    chain_id: u64,
    mut request: TransactionRequest,
    overrides: Option<StateOverride>,
) -> Result<u64, EvmError> {
    // Less than any transaction needs is no bound that anybody can have meant.
    request.gas = request.gas.filter(|gas| *gas >= TRANSFER_GAS);
    let mut simulation = Simulation::new(view, header, chain_id, request, overrides)?;
    let mut high = simulation.affordable_gas()?;
    if simulation.is_plain_transfer()? && simulation.succeeds(TRANSFER_GAS)? {
        return Ok(TRANSFER_GAS);
    }
    let too_little = || EvmError::Halt(format!("gas required exceeds allowance ({high})"));
    let gas = match simulation.run(high)? {
        Ok(ExecutionResult::Success { gas, .. }) => gas,
        Ok(ExecutionResult::Revert { output, .. }) => return Err(EvmError::Revert(output)),
        Ok(ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. })
        | Err(InvalidTransaction::CallGasCostMoreThanGasLimit { .. })
        | Err(InvalidTransaction::GasFloorMoreThanGasLimit { .. }) => return Err(too_little()),
        Ok(ExecutionResult::Halt { reason, .. }) => return Err(EvmError::Halt(halt_message(&reason))),
        Err(e) => return Err(EvmError::InvalidCall(e.to_string())),
    };
    // With less than was used it cannot succeed; with the refund, a stipend and the 1/64th that calls keep back on top it
    // nearly always does.
    let mut low = gas.tx_gas_used().saturating_sub(1);
    let optimistic = (gas.total_gas_spent().max(gas.tx_gas_used()) + CALL_STIPEND) * 64 / 63;
    if optimistic < high {
        if simulation.succeeds(optimistic)? {
            high = optimistic;
        } else {
            low = optimistic;
        }
    }
    while low + 1 < high {
        if (high - low) * 1000 < high * 15 {
            break;
        }
        // Most calls need little more than they use, so the lower half is worth more tries.
        let middle = (low + (high - low) / 2).min(low.saturating_mul(2));
        if simulation.succeeds(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(high)
}

impl<'a> Simulation<'a> {
    fn new(
        view: StateView<'a>,
        header: &Header,
        chain_id: u64,
        mut request: TransactionRequest,
        overrides: Option<StateOverride>,
    ) -> Result<Self, EvmError> {
        let invalid = |e: &dyn std::fmt::Display| EvmError::InvalidCall(e.to_string());
        if request.blob_versioned_hashes.is_some() || request.max_fee_per_blob_gas.is_some() {
            return Err(EvmError::InvalidCall("blob transactions are not supported".into()));
        }
        let mut env = environment(header, chain_id);
        env.cfg_env.disable_nonce_check = true;
        env.cfg_env.disable_eip3607 = true;
        // No transaction can use more than a block has, so no call may either.
        let gas_max = header.gas_limit.min(CALL_GAS_MAX);
        request.gas = Some(request.gas.map_or(gas_max, |gas| gas.min(gas_max)));
        let tx: TxEnv = request.try_into_tx_env(&env).map_err(|e| invalid(&e))?;
        if tx.gas_price == 0 {
            // A call that names no price pays none, as in geth; the block's base fee would refuse it.
            env.block_env.basefee = 0;
        }
        let mut state = State::builder().with_database_ref(view).build();
        if let Some(overrides) = overrides {
            apply_state_overrides(overrides, &mut state).map_err(|e| invalid(&e))?;
        }
        Ok(Self { state, env, tx })
    }

    /// Executes with this gas limit; changes nothing. The inner error says why the call is no valid transaction.
    fn run(&mut self, gas_limit: u64) -> Result<Result<ExecutionResult, InvalidTransaction>, EvmError> {
        let tx = TxEnv { gas_limit, ..self.tx.clone() };
        let mut evm = EthEvmFactory::default().create_evm(&mut self.state, self.env.clone());
        match evm.transact_raw(tx) {
            Ok(outcome) => Ok(Ok(outcome.result)),
            Err(EVMError::Transaction(e)) => Ok(Err(e)),
            Err(e) => Err(EvmError::Storage(e.to_string())),
        }
    }

    /// Whether this gas limit is enough.
    fn succeeds(&mut self, gas_limit: u64) -> Result<bool, EvmError> {
        Ok(self.run(gas_limit)?.is_ok_and(|result| result.is_success()))
    }

    /// The gas limit asked for, or what the sender's balance buys at the price it names, if that is less.
    fn affordable_gas(&mut self) -> Result<u64, EvmError> {
        let gas = self.tx.gas_limit;
        if self.tx.gas_price == 0 {
            return Ok(gas);
        }
        let sender = self.state.basic(self.tx.caller).map_err(|e| EvmError::Storage(e.to_string()))?;
        let balance = sender.map_or(U256::ZERO, |a| a.balance);
        let Some(available) = balance.checked_sub(self.tx.value) else {
            return Err(EvmError::InvalidCall("insufficient funds for transfer".into()));
        };
        Ok(gas.min((available / U256::from(self.tx.gas_price)).saturating_to()))
    }

    fn is_plain_transfer(&mut self) -> Result<bool, EvmError> {
        let TxKind::Call(to) = self.tx.kind else { return Ok(false) };
        if !self.tx.data.is_empty() || !self.tx.access_list.is_empty() || !self.tx.authorization_list.is_empty() {
            return Ok(false);
        }
        let receiver = self.state.basic(to).map_err(|e| EvmError::Storage(e.to_string()))?;
        Ok(receiver.is_none_or(|a| a.is_empty_code_hash()))
    }
}

fn halt_message(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(_) => "out of gas".into(),
        HaltReason::OpcodeNotFound | HaltReason::InvalidFEOpcode => "invalid opcode".into(),
        HaltReason::InvalidJump => "invalid jump destination".into(),
        other => other.to_string(),
    }
}

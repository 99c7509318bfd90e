//! Transfers: coin or a token to an account on another rollup, which arrives or is refunded.

use crate::{Call, Client, ClientError, Sent};
use alloy::{signers::local::PrivateKeySigner, sol_types::SolCall};
use alloy_primitives::{Address, B256, Bytes, U256};
use switchyard_bridge_contracts::{IMessageAttributes, Outbox, TokenBridge, interoperable_address};
use switchyard_bridge_core::predeploys;
use switchyard_primitives::{RollupId, TxHash};
use switchyard_proto::ConvertError;

/// What sending takes at the most.
const SEND_GAS: u64 = 400_000;

/// A transfer to another rollup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The rollup that it leaves.
    pub from: RollupId,
    /// Chain id of the rollup that it goes to (EIP-155).
    pub to_chain: u64,
    /// Who gets it there.
    pub recipient: Address,
    /// The token's contract on the rollup that it leaves; none for coin.
    pub token: Option<Address>,
    /// Wei, or the token's smallest unit.
    pub amount: U256,
    /// The last second since 1970 in which it can arrive; then it can only be refunded. Without it, seven days from now.
    pub deadline: Option<u64>,
}

impl Transfer {
    fn coin(&self) -> Call {
        let attribute = |deadline: u64| IMessageAttributes::deadlineCall { timestamp: deadline }.abi_encode();
        let attributes = [IMessageAttributes::transferCall {}.abi_encode()];
        let attributes = attributes.into_iter().chain(self.deadline.map(attribute)).map(Into::into).collect();
        let call = Outbox::sendMessageCall { recipient: self.recipient(), payload: Bytes::new(), attributes };
        self.call(predeploys::OUTBOX, self.amount, call.abi_encode())
    }

    fn token(&self, token: Address) -> Call {
        let deadline = self.deadline.unwrap_or(0);
        let call = TokenBridge::crosschainTransferCall { token, to: self.recipient(), amount: self.amount, deadline };
        self.call(predeploys::TOKEN_BRIDGE, U256::ZERO, call.abi_encode())
    }

    fn recipient(&self) -> Bytes {
        interoperable_address(self.to_chain, self.recipient)
    }

    fn call(&self, to: Address, value: U256, data: Vec<u8>) -> Call {
        Call { rollup: self.from, to, value, data: data.into(), gas: SEND_GAS }
    }
}

impl Client {
    /// Sends a transfer and waits until that is executed; returns the transaction, and the id of the message, to look at with
    /// [`Self::new_message`].
    pub async fn transfer(
        &mut self,
        signer: &PrivateKeySigner,
        transfer: &Transfer,
    ) -> Result<(TxHash, B256), ClientError> {
        let call = match transfer.token {
            None => transfer.coin(),
            Some(token) => {
                // Tokens that the bridge has made need no allowance; one does no harm.
                let allowance = Call::approve(transfer.from, token, predeploys::TOKEN_BRIDGE, transfer.amount);
                self.call(signer, allowance).await?;
                transfer.token(token)
            }
        };
        let sent = self.call(signer, call).await?;
        // It has happened, whether its id is told or not.
        let first = self.sent(transfer.from, sent).await;
        let first = first.and_then(|ids| Ok(*ids.first().ok_or(ConvertError::Missing { field: "ids" })?));
        let executed = Sent::Transaction { rollup: transfer.from, hash: sent };
        let id = first.map_err(|error| ClientError::Unsure { sent: executed, source: Box::new(error) })?;
        Ok((sent, id))
    }
}

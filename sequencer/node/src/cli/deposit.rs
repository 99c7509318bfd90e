//! `switchyard deposit`: native coin that comes to a rollup from outside.
//!
//! As with changes of the stake table one operator makes a proposal, those of a quorum of seats sign it, anyone sends it.

use super::{
    CliError, Connect, Printer,
    record::{Keys, Part, SignArgs, SubmitArgs, open, problem, read, read_parts, send},
};
use alloy_primitives::{Address, utils::parse_ether};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::Write;
use switchyard_bridge_core::{BridgeError, BridgeRecord, Deposit, Deposits};
use switchyard_primitives::{B256, RollupId};
use switchyard_proto::hash;

/// Wei of a Gwei.
const GWEI: u64 = 1_000_000_000;

/// Arguments of `switchyard deposit`.
#[derive(Clone, Debug, clap::Args)]
pub struct DepositArgs {
    #[command(subcommand)]
    command: DepositCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum DepositCommand {
    /// Make a proposal that accounts of a rollup get coin, to be signed by validators with a quorum of the seats before the next
    /// epoch ends
    Propose {
        /// The node.
        #[command(flatten)]
        connect: Connect,
        /// The rollup
        #[arg(long, value_name = "ID")]
        rollup: u64,
        /// Who gets how much, ADDRESS=AMOUNT; in coin, with at most 9 decimals. At most 16 of them, which are made in this order
        #[arg(required = true, value_parser = credit)]
        credits: Vec<Deposit>,
    },
    /// Sign a proposal with this validator's BLS key
    Sign(SignArgs),
    /// Send a proposal with the parts that validators have signed, and wait until it is final
    Submit(SubmitArgs),
}

/// Reads ADDRESS=AMOUNT.
fn credit(text: &str) -> Result<Deposit, String> {
    let (recipient, amount) = text.split_once('=').ok_or("not of the form ADDRESS=AMOUNT")?;
    let recipient: Address = recipient.parse().map_err(|e| format!("{recipient}: {e}"))?;
    let wei = parse_ether(amount).map_err(|e| format!("{amount}: {e}"))?;
    let (gwei, rest) = wei.div_rem(alloy_primitives::U256::from(GWEI));
    match u64::try_from(gwei) {
        Ok(gwei) if gwei > 0 && rest.is_zero() => Ok(Deposit { recipient, gwei }),
        _ => Err(format!("{amount}: not a positive number of Gwei below 2^64")),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proposal {
    network: B256,
    rollup: u64,
    epoch: u64,
    /// Number of the first.
    first: u64,
    deposits: Vec<Credit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Credit {
    recipient: Address,
    gwei: u64,
}

impl Proposal {
    fn deposits(&self) -> Vec<Deposit> {
        self.deposits.iter().map(|Credit { recipient, gwei }| Deposit { recipient: *recipient, gwei: *gwei }).collect()
    }
}

/// Makes, signs and sends deposits.
pub async fn deposit(args: DepositArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    match args.command {
        DepositCommand::Propose { connect, rollup, credits } => {
            if credits.len() > Deposits::MAX {
                let problem = format!("{} of them, at most {} go into one record", credits.len(), Deposits::MAX);
                return Err(CliError::Argument { argument: "ADDRESS=AMOUNT".into(), problem });
            }
            let (node, state) = open(&connect).await?;
            let refused = |e: BridgeError| CliError::Argument { argument: "--rollup".into(), problem: e.to_string() };
            let bridge = state.bridge().ok_or(BridgeError::Protocol { protocol: state.protocol() }).map_err(refused)?;
            let known = bridge.rollups().get(&RollupId(rollup));
            let first = known.ok_or(BridgeError::Rollup { rollup: RollupId(rollup) }).map_err(refused)?.deposits;
            let network = hash("network_id", &node.info.network_id)?;
            let epoch = state.current().epoch();
            let deposits =
                credits.iter().map(|Deposit { recipient, gwei }| Credit { recipient: *recipient, gwei: *gwei });
            let proposal = Proposal { network, rollup, epoch, first, deposits: deposits.collect() };
            Printer { out, json: true }.print(String::new, || json!(proposal))
        }
        DepositCommand::Sign(SignArgs { by, proposal }) => {
            let proposal: Proposal = read(&proposal)?;
            let Keys { identity, bls } = by.keys()?;
            let Proposal { network, rollup, epoch, first, .. } = proposal;
            let signature = Deposits::sign_part(network, (RollupId(rollup), epoch, first), &proposal.deposits(), &bls);
            let signature = signature.map_err(|e| problem(&by.config, e))?.into();
            let part = Part { identity, signature };
            Printer { out, json: true }.print(String::new, || json!(part))
        }
        DepositCommand::Submit(SubmitArgs { connect, proposal: path, part }) => {
            let (mut node, state) = open(&connect).await?;
            let proposal: Proposal = read(&path)?;
            let parts = read_parts(&part)?;
            let Proposal { network, rollup, epoch, first, .. } = proposal;
            let committee = state.signing(epoch).map_err(|e| problem(&path, format!("{e}: propose anew")))?;
            let record = Deposits::combine(network, committee, (RollupId(rollup), first), proposal.deposits(), &parts);
            let record = BridgeRecord::Deposits(record.map_err(|e| problem(&path, e))?);
            send(&mut node, &state, record.encode(), out).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_whole_gwei_and_fit() {
        let recipient = Address::repeat_byte(7);
        let read = |amount: &str| credit(&format!("{recipient}={amount}"));
        assert_eq!(read("1").unwrap(), Deposit { recipient, gwei: GWEI });
        assert_eq!(read("0.000000001").unwrap(), Deposit { recipient, gwei: 1 });
        assert_eq!(read("18446744073.709551615").unwrap(), Deposit { recipient, gwei: u64::MAX });
        for bad in ["0", "-1", "0.0000000001", "1.0000000001", "18446744073.709551616", "one", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(credit("1").is_err() && credit("0x12=1").is_err());
    }
}

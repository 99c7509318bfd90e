//! `switchyard submit`: offers transactions and says what became of them.

use super::{CliError, Connect, Node, Printer, ShownStatus, rejection_json};
use bytes::Bytes;
use serde_json::json;
use std::{
    io::{Read, Write},
    path::PathBuf,
};
use switchyard_primitives::{Level, RollupId, TxHash};
use switchyard_proto::{ConvertError, hash, to_bytes, v1};

/// No network takes a transaction this long; reading stops here.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Submits transactions to a rollup, in the order: all --hex, all --file, then standard input.
#[derive(Clone, Debug, clap::Args)]
pub struct SubmitArgs {
    /// The node.
    #[command(flatten)]
    pub connect: Connect,
    /// The rollup's id
    #[arg(long, value_name = "ID")]
    pub rollup: RollupId,
    /// A transaction in hex, with or without 0x; may be repeated
    #[arg(long, value_name = "DATA")]
    pub hex: Vec<String>,
    /// A file whose bytes are one transaction; may be repeated
    #[arg(long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// Reads one transaction's bytes from standard input
    #[arg(value_name = "-", value_parser = ["-"])]
    pub stdin: Option<String>,
    /// Wait until each accepted transaction has reached this level (accepted, ordered, final)
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub wait: Option<Level>,
    /// Wait until each accepted transaction has been executed, or skipped, by the rollup's rules
    #[arg(long)]
    pub wait_outcome: bool,
    /// How long to wait for one transaction, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub timeout_seconds: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_level(word: &str) -> Result<Level, String> {
    [Level::Accepted, Level::Ordered, Level::Final, Level::Attested, Level::Settled]
        .into_iter()
        .find(|level| level.to_string() == word)
        .ok_or_else(|| "must be accepted, ordered, final, attested or settled".to_owned())
}

/// Submits, prints one line a transaction, and waits if asked to, with one line for each change. Exit code 2 if any
/// transaction was refused, 3 if one has not come as far as asked in time.
pub async fn submit(args: SubmitArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let payloads = payloads(&args)?;
    let mut node = args.connect.open().await?;
    let mut printer = Printer { out, json: args.json };
    let (mut accepted, mut refused) = (Vec::new(), 0);
    let sent = payloads.len();
    for transactions in batches(payloads, node.info.limits.as_ref()) {
        let expected = transactions.len();
        let request = v1::SubmitRequest { rollup_id: args.rollup.0, transactions };
        let results = node.sequencer.submit(request).await?.into_inner().results;
        if results.len() != expected {
            let (min, max) = (expected, expected);
            return Err(ConvertError::Count { field: "results", found: results.len(), min, max }.into());
        }
        for result in results {
            match report(&mut printer, result)? {
                Some(hash) => accepted.push(hash),
                None => refused += 1,
            }
        }
    }
    if args.wait.is_some() || args.wait_outcome {
        for hash in accepted {
            refused += usize::from(!follow(&args, &mut node, &mut printer, hash).await?);
        }
    }
    if refused > 0 { Err(CliError::Refused { refused, sent }) } else { Ok(()) }
}

/// Prints one result; returns the hash of an accepted transaction.
fn report(printer: &mut Printer<'_>, result: v1::SubmitResult) -> Result<Option<TxHash>, CliError> {
    match result.result.ok_or(ConvertError::Missing { field: "results.result" })? {
        v1::submit_result::Result::Hash(bytes) => {
            let hash = hash("results.hash", &bytes)?;
            printer.print(|| format!("accepted {hash}"), || json!({ "hash": hash, "level": Level::Accepted }))?;
            Ok(Some(hash))
        }
        v1::submit_result::Result::Rejection(rejection) => {
            let human = || format!("refused {}: {}", rejection.code, rejection.message);
            printer.print(human, || json!({ "rejection": rejection_json(&rejection) }))?;
            Ok(None)
        }
    }
}

/// Prints each change of a transaction's status until it has come as far as asked; false if it was refused after all.
async fn follow(args: &SubmitArgs, node: &mut Node, printer: &mut Printer<'_>, hash: TxHash) -> Result<bool, CliError> {
    let request = v1::WatchTransactionRequest {
        rollup_id: args.rollup.0,
        hash: to_bytes(hash),
        until: args.wait.map_or(v1::Level::Unspecified, v1::Level::from).into(),
        until_outcome: args.wait_outcome,
        timeout_ms: args.timeout_seconds.saturating_mul(1000),
    };
    let mut changes = node.sequencer.watch_transaction(request).await?.into_inner();
    let mut refused = false;
    while let Some(change) = changes.message().await? {
        let shown = ShownStatus::new(hash, change.status)?;
        refused = shown.refusal().is_some();
        // That it is accepted was printed with the submission's answer.
        if shown.level != Some(Level::Accepted) {
            printer.print(|| shown.human(), || shown.json())?;
        }
    }
    Ok(!refused)
}

fn payloads(args: &SubmitArgs) -> Result<Vec<Bytes>, CliError> {
    let problem = |argument: String, problem: String| CliError::Argument { argument, problem };
    let mut payloads = Vec::new();
    for text in &args.hex {
        let bytes = hex::decode(text.strip_prefix("0x").unwrap_or(text));
        payloads.push(bytes.map_err(|e| problem("--hex".to_owned(), e.to_string()))?.into());
    }
    for path in &args.file {
        let bytes = std::fs::File::open(path).and_then(read_bounded);
        payloads.push(bytes.map_err(|e| problem(format!("--file {}", path.display()), e.to_string()))?);
    }
    if args.stdin.is_some() {
        let bytes = read_bounded(std::io::stdin().lock());
        payloads.push(bytes.map_err(|e| problem("-".to_owned(), e.to_string()))?);
    }
    if payloads.is_empty() {
        return Err(problem("nothing to submit".to_owned(), "give --hex, --file or -".to_owned()));
    }
    Ok(payloads)
}

fn read_bounded(input: impl Read) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    if input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > INPUT_BYTES_MAX {
        return Err(std::io::Error::other(format!("longer than {INPUT_BYTES_MAX} bytes")));
    }
    Ok(bytes.into())
}

/// Batches within the node's limits, in order. A transaction above them goes alone, for the node to refuse.
fn batches(payloads: Vec<Bytes>, limits: Option<&v1::Limits>) -> Vec<Vec<Bytes>> {
    let (count_max, bytes_max) = limits.map_or((1, 0), |limits| (limits.submit_transactions, limits.submit_bytes));
    let mut batches: Vec<Vec<Bytes>> = Vec::new();
    let mut bytes = 0;
    for payload in payloads {
        let len = payload.len() as u64;
        match batches.last_mut() {
            Some(batch) if (batch.len() as u64) < count_max && bytes + len <= bytes_max => {
                bytes += len;
                batch.push(payload);
            }
            _ => {
                bytes = len;
                batches.push(vec![payload]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_order_and_limits() {
        let payloads: Vec<Bytes> = [3, 3, 3, 9, 1].map(|len| Bytes::from(vec![0; len])).into();
        let limits = v1::Limits { submit_transactions: 2, submit_bytes: 7, ..Default::default() };
        let lens = |batches: Vec<Vec<Bytes>>| -> Vec<Vec<usize>> {
            batches.iter().map(|batch| batch.iter().map(Bytes::len).collect()).collect()
        };
        assert_eq!(lens(batches(payloads.clone(), Some(&limits))), [vec![3, 3], vec![3], vec![9], vec![1]]);
        assert_eq!(lens(batches(payloads, None)).len(), 5);
    }

    #[test]
    fn the_five_levels_are_words() {
        for level in [Level::Accepted, Level::Ordered, Level::Final, Level::Attested, Level::Settled] {
            assert_eq!(parse_level(&level.to_string()), Ok(level));
        }
        assert!(parse_level("Final").is_err());
    }
}

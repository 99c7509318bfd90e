//! The live view: drawn in place on a terminal, one line every few seconds elsewhere.

use crate::{
    Error, Histogram,
    client::Client,
    network::Testnet,
    status::{ValidatorStatus, validators},
};
use std::{
    collections::VecDeque,
    io::{IsTerminal, Write, stdout},
    time::Duration,
};
use tokio::time::Instant;

/// Rates and quantiles are over this long.
const WINDOW: Duration = Duration::from_secs(10);
const ERRORS_SHOWN: usize = 10;
const LOG_LINES: usize = 4;

struct Sample {
    at: Instant,
    height: u64,
    finality: Histogram,
}

/// What the view remembers from one drawing to the next.
pub(crate) struct View {
    client: Client,
    samples: VecDeque<Sample>,
    started: Instant,
    terminal: bool,
    lines_drawn: usize,
}

/// What is drawn.
struct Frame {
    height: u64,
    blocks_per_second: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    validators: Vec<ValidatorStatus>,
    errors: Vec<String>,
}

impl View {
    pub(crate) fn new() -> Self {
        Self {
            client: Client::new(),
            samples: VecDeque::new(),
            started: Instant::now(),
            terminal: stdout().is_terminal(),
            lines_drawn: 0,
        }
    }

    /// How often to draw.
    pub(crate) fn interval(&self) -> Duration {
        Duration::from_secs(if self.terminal { 1 } else { 5 })
    }

    /// Asks every validator and draws what they say.
    pub(crate) async fn draw(&mut self, testnet: &mut Testnet) -> Result<(), Error> {
        let frame = self.look(testnet).await?;
        let lines = if self.terminal { self.full(&frame) } else { vec![self.line(&frame)] };
        let mut out = String::new();
        if self.lines_drawn > 0 {
            out.push_str(&format!("\x1b[{}A\x1b[J", self.lines_drawn));
        }
        // Long lines are cut by the terminal instead of wrapping, so that the number of lines stays known.
        let (before, after) = if self.terminal { ("\x1b[?7l", "\x1b[?7h") } else { ("", "") };
        out.push_str(&format!("{before}{}\n{after}", lines.join("\n")));
        self.lines_drawn = if self.terminal { lines.len() } else { 0 };
        // A closed terminal or pipe is no reason to stop the network.
        let _ = stdout().write_all(out.as_bytes()).and_then(|()| stdout().flush());
        Ok(())
    }

    async fn look(&mut self, testnet: &mut Testnet) -> Result<Frame, Error> {
        let all = validators(testnet.dir(), &self.client).await?;
        let mut finality = Histogram::default();
        let mut errors = Vec::new();
        for v in &all {
            if let Some(ended) = testnet.exited(v.index)? {
                errors.push(format!("validator {} ended ({ended}); the end of its log:", v.index));
                errors.extend(testnet.log_tail(v.index, LOG_LINES).lines().map(|l| format!("  {l}")));
            }
            errors.extend(v.errors.iter().map(|e| format!("validator {}: {e}", v.index)));
            if let (true, Some(endpoints)) = (v.alive, testnet.dir().endpoints(v.index)?)
                && let Ok(scrape) = self.client.metrics(&endpoints.metrics).await
            {
                finality = finality.plus(&Histogram::parse(&scrape, "switchyard_finality_seconds"));
            }
        }
        errors.drain(..errors.len().saturating_sub(ERRORS_SHOWN));
        let height = all.iter().filter_map(|v| v.height).max().unwrap_or(0);
        Ok(self.frame(height, finality, all, errors))
    }

    fn frame(
        &mut self,
        height: u64,
        finality: Histogram,
        validators: Vec<ValidatorStatus>,
        errors: Vec<String>,
    ) -> Frame {
        let now = Instant::now();
        self.samples.push_back(Sample { at: now, height, finality });
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|s| now - s.at >= WINDOW) {
            self.samples.pop_front();
        }
        let (mut blocks_per_second, mut recent) = (None, Histogram::default());
        if let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) {
            let seconds = (last.at - first.at).as_secs_f64();
            if seconds > 0.0 {
                blocks_per_second = Some(last.height.saturating_sub(first.height) as f64 / seconds);
                recent = last.finality.since(&first.finality);
            }
        }
        let ms = |q: f64| recent.quantile(q).map(|s| s * 1000.0);
        Frame { height, blocks_per_second, p50_ms: ms(0.5), p99_ms: ms(0.99), validators, errors }
    }

    fn summary(frame: &Frame) -> String {
        let number = |v: Option<f64>, digits: usize| v.map_or("-".into(), |v| format!("{v:.digits$}"));
        format!(
            "height {}  {} blocks/s  finality p50 {} ms p99 {} ms",
            frame.height,
            number(frame.blocks_per_second, 1),
            number(frame.p50_ms, 0),
            number(frame.p99_ms, 0)
        )
    }

    fn line(&self, frame: &Frame) -> String {
        let up = frame.validators.iter().filter(|v| v.alive).count();
        let mut line = format!("{}  validators {up}/{}", Self::summary(frame), frame.validators.len());
        for (name, head) in heads(&frame.validators) {
            line.push_str(&format!("  {name} {head}"));
        }
        // Indented lines belong to the one above them.
        if let Some(error) = frame.errors.iter().rfind(|e| !e.starts_with(' ')) {
            line.push_str(&format!("  last error: {error}"));
        }
        line
    }

    fn full(&self, frame: &Frame) -> Vec<String> {
        let elapsed = self.started.elapsed().as_secs();
        let mut lines = vec![
            String::new(),
            format!("\x1b[1m{}\x1b[0m", Self::summary(frame)),
            format!("up {:02}:{:02}:{:02}", elapsed / 3600, elapsed / 60 % 60, elapsed % 60),
            String::new(),
        ];
        for (name, head) in heads(&frame.validators) {
            lines.push(format!("{name:<12} block {head}"));
        }
        lines.push(String::new());
        for v in &frame.validators {
            let number = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
            let state = if v.alive { "\x1b[32mup\x1b[0m  " } else { "\x1b[31mdown\x1b[0m" };
            lines.push(format!(
                "validator {:<2} {state}  height {:<8} view {:<8} pid {}",
                v.index,
                number(v.height),
                number(v.view),
                number(v.pid.map(u64::from))
            ));
        }
        if !frame.errors.is_empty() {
            lines.push(String::new());
            lines.push("last errors".into());
            lines.extend(frame.errors.iter().map(|e| format!("  {e}")));
        }
        lines.push(String::new());
        lines.push("Ctrl-C stops the network; its state is kept.".into());
        lines
    }
}

/// Each rollup's name and the highest head among the validators.
fn heads(all: &[ValidatorStatus]) -> Vec<(String, u64)> {
    let mut heads = std::collections::BTreeMap::new();
    for rollup in all.iter().flat_map(|v| &v.rollups) {
        let head = heads.entry(rollup.rollup).or_insert((rollup.name.clone(), 0));
        head.1 = rollup.head.max(head.1);
    }
    heads.into_values().collect()
}

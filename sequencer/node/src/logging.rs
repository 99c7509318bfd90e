//! Structured logs, and the last problems for `GetStatus`.

use parking_lot::Mutex;
use std::{collections::VecDeque, fmt::Write as _, sync::Arc};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{EnvFilter, Layer, layer::Context, layer::SubscriberExt, util::SubscriberInitExt};

const KEPT: usize = 16;

/// The last errors that were logged, newest last.
#[derive(Clone, Debug, Default)]
pub struct RecentErrors(Arc<Mutex<VecDeque<String>>>);

impl RecentErrors {
    /// A copy of the lines.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }

    fn push(&self, line: String) {
        let mut lines = self.0.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
        self.0.truncate(400.min(self.0.floor_char_boundary(400)));
    }
}

impl<S: Subscriber> Layer<S> for RecentErrors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            let mut line = Line(String::new());
            event.record(&mut line);
            self.push(line.0.trim_end().to_owned());
        }
    }
}

/// Starts logging to standard error; `SWITCHYARD_LOG` filters (default `info`), `SWITCHYARD_LOG_FORMAT=json` changes
/// the form. Later calls in one process change nothing.
pub fn init() -> RecentErrors {
    let errors = RecentErrors::default();
    let filter = EnvFilter::try_from_env("SWITCHYARD_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,commonware_p2p=warn,commonware_consensus=warn,commonware_runtime=warn,commonware_storage=warn,commonware_resolver=warn,commonware_broadcast=warn,libp2p_gossipsub=error,libp2p_identify=warn"));
    let json = std::env::var("SWITCHYARD_LOG_FORMAT").is_ok_and(|v| v == "json");
    let registry = tracing_subscriber::registry().with(filter).with(errors.clone());
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let _ =
        if json { registry.with(stderr.json()).try_init() } else { registry.with(stderr.with_ansi(false)).try_init() };
    errors
}

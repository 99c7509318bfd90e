//! What a check has found, for a person and for a program.

use serde::Serialize;
use std::io::Write;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Could not be found out.
    Unknown,
    /// Works, and will not for long or not well.
    Warning,
    /// Does not work.
    Error,
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable word for what was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, with figures.
    pub found: String,
    /// What that means; empty where all is well.
    pub means: String,
    /// What to do; empty where all is well.
    pub remedy: String,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), means: String::new(), remedy: String::new() }
    }

    /// Anything else.
    pub fn new(
        check: &'static str,
        level: Level,
        found: impl Into<String>,
        means: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { check, level, found: found.into(), means: means.into(), remedy: remedy.into() }
    }

    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Unknown => "unknown",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        writeln!(out, "{level:8} {:12} {}", self.check, self.found)?;
        for (label, text) in [("means", &self.means), ("do", &self.remedy)] {
            if !text.is_empty() {
                writeln!(out, "{:21} {label}: {text}", "")?;
            }
        }
        Ok(())
    }
}

/// Prints findings, one JSON object a line or for a person, and counts the errors among them.
pub(super) fn report(findings: &[Finding], json: bool, out: &mut dyn Write) -> std::io::Result<usize> {
    for finding in findings {
        if json {
            writeln!(out, "{}", serde_json::to_string(finding)?)?;
        } else {
            finding.write(out)?;
        }
    }
    out.flush()?;
    Ok(findings.iter().filter(|f| f.level == Level::Error).count())
}

//! What must hold in every run. Each checker is told what happens and says when it must not have.

pub mod accepted;
pub mod agreement;
pub mod attested;
pub mod bundles;
pub mod certificates;
pub mod committees;
pub mod conservation;
pub mod derivation;
pub mod guard;
pub mod justice;
pub mod once;
pub mod progress;

/// Something happened that must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{checker}: {detail}")]
pub struct Violation {
    /// Which checker found it.
    pub checker: &'static str,
    /// The values that show it.
    pub detail: String,
}

/// A checker's verdict.
pub type Verdict = Result<(), Violation>;

/// A verdict against.
pub(crate) fn violated(checker: &'static str, detail: impl Into<String>) -> Verdict {
    Err(Violation { checker, detail: detail.into() })
}

#[cfg(test)]
mod tests;

//! Nobody is accused who is honest: what honest validators would put into the log about others is proof against faulty ones only.

use super::{Verdict, violated};
use std::collections::BTreeSet;
use switchyard_bridge_core::{BridgeRecord, Evidence};
use switchyard_primitives::B256;

/// Remembers who was accused of what.
#[derive(Debug, Default)]
pub struct Justice {
    attesters: BTreeSet<B256>,
    voters: BTreeSet<B256>,
}

impl Justice {
    /// A record that an honest validator would submit by itself.
    pub fn record(&mut self, validator: usize, record: &[u8], is_faulty: impl Fn(&B256) -> bool) -> Verdict {
        match BridgeRecord::decode(record) {
            Ok(BridgeRecord::Evidence(evidence)) => {
                let accused = evidence.accused();
                match evidence {
                    Evidence::Attestations(_) => self.attesters.insert(accused),
                    Evidence::Votes(_) => self.voters.insert(accused),
                };
                match is_faulty(&accused) {
                    true => Ok(()),
                    false => violated("justice", format!("validator {validator} accuses {accused}, which is honest")),
                }
            }
            // What is certified is what is derived: there is nothing to challenge.
            other => violated("justice", format!("validator {validator} submits {other:?}")),
        }
    }

    /// Operators that have attested two things, and validators that have signed two votes, as far as they were found.
    pub fn accused(&self) -> (usize, usize) {
        (self.attesters.len(), self.voters.len())
    }
}

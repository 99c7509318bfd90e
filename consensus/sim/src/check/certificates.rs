//! Every certificate that an engine hands out holds for its block, as a light client sees it.

use super::{Verdict, violated};
use std::collections::HashSet;
use switchyard_consensus_core::{SeatSet, verify_certificate};
use switchyard_primitives::{B256, Block, FinalityCertificate, keccak256};

/// Checks certificates with the code that light clients use.
#[derive(Debug)]
pub struct Certificates {
    network: B256,
    seats: SeatSet,
    checked: HashSet<B256>,
}

impl Certificates {
    /// For a network.
    pub fn new(network: B256, seats: SeatSet) -> Self {
        Self { network, seats, checked: HashSet::new() }
    }

    /// A validator was given a certificate with a final block.
    pub fn certificate(&mut self, validator: usize, block: &Block, certificate: &FinalityCertificate) -> Verdict {
        let wrong = |what: String| {
            violated("certificates", format!("validator {validator}, block {}: {what}", block.header.height))
        };
        if certificate.block != block.hash() {
            return wrong(format!("certificate of {}, block is {}", certificate.block, block.hash()));
        }
        if certificate.epoch != block.header.epoch {
            return wrong(format!("certificate of epoch {}, block of {}", certificate.epoch, block.header.epoch));
        }
        // Pairings are what a run would spend its time on: each certificate once.
        if !self.checked.insert(keccak256(certificate.encode())) {
            return Ok(());
        }
        verify_certificate(self.network, &self.seats, certificate).or_else(|error| wrong(error.to_string()))
    }

    /// How many different certificates were checked.
    pub fn count(&self) -> usize {
        self.checked.len()
    }
}

//! Every certificate that an engine hands out holds for its block, and a light client that starts at genesis can follow the log.

use super::{Verdict, violated};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use switchyard_consensus_core::{EpochRules, LightClient, SeatSet, verify_certificate};
use switchyard_primitives::{B256, Block, FinalityCertificate, FinalityProof, keccak256};

/// Checks certificates with the code that light clients use, and with the seats that one knows.
#[derive(Debug)]
pub struct Certificates {
    network: B256,
    rules: EpochRules,
    /// Follows from epoch to epoch, and forgets old ones.
    light: LightClient,
    /// All seats that it has ever known.
    seats: BTreeMap<u64, Arc<SeatSet>>,
    checked: HashSet<B256>,
}

impl Certificates {
    /// For a network whose first epoch has these seats.
    pub fn new(network: B256, rules: EpochRules, seats: SeatSet) -> Self {
        let light = LightClient::new(network, seats.clone());
        Self { network, rules, light, seats: BTreeMap::from([(0, Arc::new(seats))]), checked: HashSet::new() }
    }

    /// A validator was told that a block is final. `next` are the seats of the epoch after the block's, wherever they are from:
    /// the light client believes the block's header only.
    pub fn final_block(
        &mut self,
        validator: usize,
        block: &Block,
        certificate: Option<&FinalityCertificate>,
        next: Option<&SeatSet>,
    ) -> Verdict {
        let (height, epoch) = (block.header.height, block.header.epoch);
        let wrong = |what: String| violated("certificates", format!("validator {validator}, block {height}: {what}"));
        let last = self.rules.is_last(height);
        let Some(certificate) = certificate else {
            // Without it nobody who trusts the seats of this epoch only gets to know those of the next.
            return if last { wrong(format!("the last of epoch {epoch} has no certificate")) } else { Ok(()) };
        };
        if certificate.block != block.hash() {
            return wrong(format!("certificate of {}, block is {}", certificate.block, block.hash()));
        }
        if certificate.epoch != epoch {
            return wrong(format!("certificate of epoch {}, block of {epoch}", certificate.epoch));
        }
        // Pairings are what a run would spend its time on: each certificate once.
        if self.checked.insert(keccak256(certificate.encode())) {
            let Some(seats) = self.seats.get(&epoch) else {
                return wrong(format!("a light client knows epochs up to {}, not {epoch}", self.light.newest()));
            };
            if let Err(error) = verify_certificate(self.network, seats, certificate) {
                return wrong(error.to_string());
            }
        }
        if !last || epoch != self.light.newest() {
            return Ok(());
        }
        let Some(next) = next else { return wrong(format!("nobody knows the seats after epoch {epoch}")) };
        let boundary = FinalityProof { headers: vec![block.header], certificate: certificate.clone() };
        if let Err(error) = self.light.advance(&boundary, next.clone()) {
            return wrong(format!("a light client does not follow: {error}"));
        }
        let newest = self.light.newest();
        self.seats.extend(self.light.seats(newest).map(|seats| (newest, seats.clone())));
        Ok(())
    }

    /// How many different certificates were checked.
    pub fn count(&self) -> usize {
        self.checked.len()
    }

    /// The newest epoch whose seats a light client knows.
    pub fn followed(&self) -> u64 {
        self.light.newest()
    }
}

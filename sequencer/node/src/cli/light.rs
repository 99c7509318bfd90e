//! The light client: checks what a node serves against the validator set alone. Pure; trusts no node.

use crate::genesis::{Genesis, GenesisError};
use alloy_primitives::FixedBytes;
use switchyard_consensus_core::{CertificateError, EpochRules, LightClient, LightError, Seat, SeatSet};
use switchyard_primitives::{B256, Bytes, FinalityProof, Header, ProofError, RollupId};
use switchyard_proto::{ConvertError, ProvenSegment, v1};

/// Most blocks in one message.
const RUN_BLOCKS: usize = 64;

/// What a client starts from: all of it comes from the network's genesis file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Hash of the network's genesis: the domain of its signatures.
    pub network: B256,
    /// The header of height 0.
    pub genesis: Header,
    /// How the log is cut into epochs.
    pub epochs: EpochRules,
    /// The seats of the epochs that were followed so far, from epoch 0 on.
    pub client: LightClient,
}

impl Trust {
    /// The trust that a genesis file gives.
    pub fn new(genesis: &Genesis) -> Result<Self, GenesisError> {
        let network = genesis.id()?;
        let client = LightClient::new(network, genesis.seats()?);
        Ok(Self { network, genesis: genesis.header()?, epochs: genesis.epoch_rules()?, client })
    }

    /// Takes up the seats of the next epoch from a node's answer about it.
    pub fn advance(&mut self, answer: &v1::GetEpochResponse) -> Result<(), VerifyError> {
        let seat = |seat: &v1::Seat| -> Result<Seat, ConvertError> {
            let invalid = |field| ConvertError::Missing { field };
            let identity = B256::try_from(seat.identity.as_ref()).map_err(|_| invalid("seat.identity"))?;
            let bls = FixedBytes::try_from(seat.bls_key.as_ref()).map_err(|_| invalid("seat.bls_key"))?;
            Ok(Seat { identity, bls })
        };
        let epoch = self.client.newest().saturating_add(1);
        let seats: Vec<Seat> = answer.seats.iter().map(seat).collect::<Result<_, _>>()?;
        let boundary = answer.boundary.as_ref().ok_or(ConvertError::Missing { field: "boundary" })?;
        let boundary = FinalityProof::try_from(boundary)?;
        let untrue = |reason: String| VerifyError::Seats { epoch, reason };
        let seats = SeatSet::new(seats).map_err(|e| untrue(e.to_string()))?;
        self.client.advance(&boundary, seats).map_err(|e| untrue(e.to_string()))
    }
}

/// What was proven about one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The final header.
    pub header: Header,
    /// Its hash.
    pub hash: B256,
    /// All that the block holds for the rollup, in order.
    pub transactions: Vec<Bytes>,
    /// Seats whose signatures are in the certificate that makes the block final.
    pub signers: usize,
}

/// What a node said that is not true, or not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A message that does not decode, or lacks a part.
    #[error("malformed answer: {0}")]
    Malformed(#[from] ConvertError),
    /// A message has no block, or more than a run may have.
    #[error("{found} blocks in one message: must be between 1 and 64")]
    Blocks {
        /// Blocks found.
        found: usize,
    },
    /// The block is of another height than was asked for, or than comes next.
    #[error("wrong height: expected block {expected}, got {found}")]
    Height {
        /// The height expected.
        expected: u64,
        /// The height found.
        found: u64,
    },
    /// The block does not follow the one before it.
    #[error("broken chain: block {height} names parent {found}, the block before it is {expected}")]
    Chain {
        /// The block's height.
        height: u64,
        /// Hash of the block before.
        expected: B256,
        /// The parent that the block names.
        found: B256,
    },
    /// Block 0 is not the network's.
    #[error("wrong genesis: block 0 is {found}, the genesis file gives {expected}")]
    Genesis {
        /// What the file gives.
        expected: B256,
        /// What the node serves.
        found: B256,
    },
    /// The proof of finality is for another block.
    #[error("wrong block: the proof of finality is for {found}, the block is {expected}")]
    OtherBlock {
        /// The block.
        expected: B256,
        /// The block that the proof starts with.
        found: B256,
    },
    /// Signed by the seats of an epoch that was not followed yet, or that is long past.
    #[error("epoch {found}: its seats are not known here; epochs were followed up to {newest}")]
    Epoch {
        /// The certificate's epoch.
        found: u64,
        /// The newest known epoch.
        newest: u64,
    },
    /// The seats of an epoch are not shown to be its seats.
    #[error("seats of epoch {epoch}: {reason}")]
    Seats {
        /// The epoch.
        epoch: u64,
        /// What is wrong.
        reason: String,
    },
    /// The block is not shown to be final.
    #[error("block {height} is not final: {source}")]
    NotFinal {
        /// The block's height.
        height: u64,
        /// Why.
        source: CertificateError,
    },
    /// The transactions are not all that the block holds for the rollup, or not in its order.
    #[error("block {height}: {source}")]
    Segment {
        /// The block's height.
        height: u64,
        /// Why.
        source: ProofError,
    },
}

impl VerifyError {
    /// A stable snake_case word for the kind of lie.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Blocks { .. } => "blocks",
            Self::Height { .. } => "wrong_height",
            Self::Chain { .. } => "broken_chain",
            Self::Genesis { .. } => "wrong_genesis",
            Self::OtherBlock { .. } => "wrong_block",
            Self::Epoch { .. } => "unknown_epoch",
            Self::Seats { .. } => "wrong_seats",
            Self::NotFinal { .. } => "not_final",
            Self::Segment { source: ProofError::Root, .. } => "segment_proof",
            Self::Segment { source: ProofError::Rollup(_), .. } => "wrong_rollup",
            Self::Segment { source: ProofError::Transactions(_), .. } => "wrong_transactions",
        }
    }
}

/// Follows one rollup: each message must go on where the last one ended.
#[derive(Clone, Debug)]
pub struct Follower {
    trust: Trust,
    rollup: RollupId,
    next: u64,
    /// Hash of the block before `next`, where known.
    parent: Option<B256>,
}

impl Follower {
    /// Starts at a height.
    pub fn new(trust: Trust, rollup: RollupId, from: u64) -> Self {
        let parent = (from == 1).then(|| trust.genesis.hash());
        Self { trust, rollup, next: from, parent }
    }

    /// What is trusted, to be advanced when an epoch is not known.
    pub fn trust_mut(&mut self) -> &mut Trust {
        &mut self.trust
    }

    /// What is trusted after all that was followed.
    pub fn into_trust(self) -> Trust {
        self.trust
    }

    /// The height that must come next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Checks one message: the blocks are the next ones, each the child of the one before, the last is final, and each
    /// one's transactions are all that it holds for the rollup. After an error the follower is as it was before.
    pub fn accept(&mut self, message: v1::StreamSegmentsResponse) -> Result<Vec<Verified>, VerifyError> {
        let found = message.blocks.len();
        if found == 0 || found > RUN_BLOCKS {
            return Err(VerifyError::Blocks { found });
        }
        let segments: Vec<ProvenSegment> =
            message.blocks.into_iter().map(TryFrom::try_from).collect::<Result<_, _>>()?;
        let finality = message.finality.as_ref().ok_or(ConvertError::Missing { field: "finality" })?;
        let finality = FinalityProof::try_from(finality)?;

        let (mut next, mut parent) = (self.next, self.parent);
        for segment in &segments {
            self.check_link(&segment.header, next, parent)?;
            parent = Some(segment.header.hash());
            next = next.saturating_add(1);
        }
        let signers = self.check_final(&segments, &finality)?;
        let verified = segments.into_iter().map(|segment| self.check_segment(segment, signers));
        let verified = verified.collect::<Result<_, _>>()?;
        (self.next, self.parent) = (next, parent);
        Ok(verified)
    }

    fn check_link(&self, header: &Header, height: u64, parent: Option<B256>) -> Result<(), VerifyError> {
        if header.height != height {
            return Err(VerifyError::Height { expected: height, found: header.height });
        }
        if height == 0 && *header != self.trust.genesis {
            return Err(VerifyError::Genesis { expected: self.trust.genesis.hash(), found: header.hash() });
        }
        match parent {
            Some(expected) if expected != header.parent => {
                Err(VerifyError::Chain { height, expected, found: header.parent })
            }
            _ => Ok(()),
        }
    }

    /// That the last of the segments' blocks is final; returns the number of seats that signed.
    fn check_final(&self, segments: &[ProvenSegment], finality: &FinalityProof) -> Result<usize, VerifyError> {
        let Some(last) = segments.last().map(|segment| segment.header) else {
            return Err(VerifyError::Blocks { found: 0 });
        };
        let header = self.trust.client.verify(finality).map_err(|error| match error {
            LightError::Certificate(source) => VerifyError::NotFinal { height: last.height, source },
            _ => VerifyError::Epoch { found: finality.certificate.epoch, newest: self.trust.client.newest() },
        })?;
        if header != last {
            return Err(VerifyError::OtherBlock { expected: last.hash(), found: header.hash() });
        }
        Ok(finality.certificate.signers.signers().count())
    }

    fn check_segment(&self, segment: ProvenSegment, signers: usize) -> Result<Verified, VerifyError> {
        let ProvenSegment { header, transactions, proof } = segment;
        proof
            .verify(header.segment_root, self.rollup, &transactions)
            .map_err(|source| VerifyError::Segment { height: header.height, source })?;
        Ok(Verified { header, hash: header.hash(), transactions, signers })
    }
}

/// Checks one answer of `GetSegment`: that the block of `height` is final, and that the transactions are all that it
/// holds for `rollup`.
pub fn verify_segment(
    trust: &Trust,
    rollup: RollupId,
    height: u64,
    answer: v1::GetSegmentResponse,
) -> Result<Verified, VerifyError> {
    let block = answer.block.ok_or(ConvertError::Missing { field: "block" })?;
    let message = v1::StreamSegmentsResponse { blocks: vec![block], finality: answer.finality };
    let mut verified = Follower::new(trust.clone(), rollup, height).accept(message)?;
    verified.pop().ok_or(VerifyError::Blocks { found: 0 })
}

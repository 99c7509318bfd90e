//! Why a record of the bridge, or a block, is refused.

use switchyard_consensus_core::{keys::KeyError, record::RecordError};
use switchyard_primitives::{B256, DecodeError, RollupId};

/// Why a record of the bridge is refused. A block that holds such a record is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BridgeError {
    /// The bytes are not a record.
    #[error("malformed record: {0}")]
    Malformed(#[from] DecodeError),
    /// The protocol in force has no bridge.
    #[error("protocol {protocol} knows no such records; the bridge begins with protocol 3")]
    Protocol {
        /// What the block follows.
        protocol: u8,
    },
    /// The identity has no stake to answer with.
    #[error("{identity} is not in the stake table")]
    NotStaked {
        /// The identity.
        identity: B256,
    },
    /// No such operator.
    #[error("{identity} is not an operator")]
    Unknown {
        /// The identity.
        identity: B256,
    },
    /// It is one already, or was until a moment ago.
    #[error("{identity} is an operator already; one that leaves can register again when it is forgotten")]
    Known {
        /// The identity.
        identity: B256,
    },
    /// It is leaving.
    #[error("{identity} is leaving; it is forgotten at height {gone_at}")]
    Leaving {
        /// The identity.
        identity: B256,
        /// When.
        gone_at: u64,
    },
    /// Another operator has the key.
    #[error("the BLS key is another operator's")]
    KeyTaken,
    /// The table is full.
    #[error("there would be more than 1024 operators")]
    Full,
    /// Made for another state.
    #[error("serial {found}, the next one is {expected}")]
    Serial {
        /// The number it must have.
        expected: u64,
        /// The number it has.
        found: u64,
    },
    /// The hub has no such rollup, or it makes no checkpoints.
    #[error("rollup {rollup} makes no checkpoints here")]
    Rollup {
        /// The rollup.
        rollup: RollupId,
    },
    /// The signature is not the named ones' over this.
    #[error("the signature does not verify")]
    Signature,
    /// The BLS key's proof of possession does not hold.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A block brings one certificate at most.
    #[error("a second certificate in one block")]
    SecondCertificate,
    /// A certificate of nothing.
    #[error("a certificate of no checkpoint")]
    Empty,
    /// Checkpoints are certified one after the other.
    #[error("rollup {rollup}: block {found} is certified, the next one is {expected}")]
    Order {
        /// The rollup.
        rollup: RollupId,
        /// The number that is next.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// A checkpoint of hub blocks that are not below this one, or that go back.
    #[error("rollup {rollup}: block {number} is said to be of hub block {hub_height}, which cannot be")]
    Height {
        /// The rollup.
        rollup: RollupId,
        /// The rollup block.
        number: u64,
        /// What it names.
        hub_height: u64,
    },
    /// The votes are not those of the checkpoint.
    #[error("rollup {rollup}: the votes of block {number} are not what its checkpoint commits to")]
    Votes {
        /// The rollup.
        rollup: RollupId,
        /// The rollup block.
        number: u64,
    },
    /// Signed for another set of operators.
    #[error("rollup {rollup}: signed by some of {found} operators, it has {expected}")]
    Operators {
        /// The rollup.
        rollup: RollupId,
        /// Operators that attest it.
        expected: usize,
        /// Operators that the certificate speaks of.
        found: u32,
    },
    /// Signed by operators with too little stake: more than two thirds are needed.
    #[error("rollup {rollup}: signed by operators with {found} of {total} stake, more than two thirds are needed")]
    Quorum {
        /// The rollup.
        rollup: RollupId,
        /// Stake of those who signed.
        found: u128,
        /// Stake of all who attest the rollup.
        total: u128,
    },
    /// A bundle's deadline is not ahead, or too far.
    #[error("a bundle's deadline at height {deadline}: must be above {height} and at most {most}")]
    Deadline {
        /// The block's height.
        height: u64,
        /// The latest deadline.
        most: u64,
        /// What was asked for.
        deadline: u64,
    },
    /// A bundle of this id was included before.
    #[error("bundle {id} was included already")]
    BundleKnown {
        /// Its id.
        id: B256,
    },
    /// As many bundles as the hub remembers.
    #[error(
        "as many bundles are open, or decided before their deadline, as the hub remembers; a nearer deadline may find room"
    )]
    BundlesFull,
    /// A leg's transaction is not in the block, or is another leg already.
    #[error("bundle {id}: the transaction of leg {leg} is not in the block, or is another leg's too")]
    LegMissing {
        /// The bundle.
        id: B256,
        /// The leg's index.
        leg: usize,
    },
    /// It has contradicted itself, as was proven: it lost all of its stake then, and never has any again.
    #[error("{identity} was proven to contradict itself: its stake is gone, and it gets none any more")]
    Fallen {
        /// The identity.
        identity: B256,
    },
    /// Only operators with stake that are not leaving may challenge.
    #[error("{identity} is no operator with stake that stays, so it cannot challenge")]
    NotVital {
        /// The identity.
        identity: B256,
    },
    /// The two checkpoints of a challenge are the same, or of different blocks.
    #[error("rollup {rollup}: the challenge of block {number} names no other checkpoint of it")]
    NothingChallenged {
        /// The rollup.
        rollup: RollupId,
        /// The rollup block.
        number: u64,
    },
    /// What is challenged was not certified so, or too long ago.
    #[error(
        "rollup {rollup}: block {number} was not certified by hub block {certified_at} with these signers, or not in the \
         last 512 blocks"
    )]
    NotChallengeable {
        /// The rollup.
        rollup: RollupId,
        /// The rollup block.
        number: u64,
        /// The hub block that the challenge names.
        certified_at: u64,
    },
    /// It was challenged before, or follows from a block that was found wrong.
    #[error("rollup {rollup}: block {number} was challenged already, or a block before it was found wrong")]
    Challenged {
        /// The rollup.
        rollup: RollupId,
        /// The rollup block.
        number: u64,
    },
    /// A challenger has one challenge at a time, and rests after one that was not decided.
    #[error("{identity} has a challenge that is not decided, or rests after one")]
    Busy {
        /// The identity.
        identity: B256,
    },
    /// As many challenges as the hub remembers.
    #[error("as many challenges, or signers in them, as the hub remembers")]
    ChallengesFull,
    /// Nothing is to be decided.
    #[error("rollup {rollup}: no challenge of block {number} waits for a verdict")]
    NoChallenge {
        /// The rollup.
        rollup: RollupId,
        /// The rollup block.
        number: u64,
    },
    /// A block's certificate comes before its verdicts.
    #[error("a certificate after a verdict in one block")]
    CertificateAfterVerdict,
    /// A rollup cannot have made so many blocks.
    #[error("rollup {rollup} cannot have made block {number} by hub block {hub_height}")]
    Number {
        /// The rollup.
        rollup: RollupId,
        /// The rollup block.
        number: u64,
        /// The last hub block of which it is said to be derived.
        hub_height: u64,
    },
    /// A block has few legs.
    #[error("more than 1024 legs of bundles in one block")]
    TooManyLegs,
    /// A block brings few verdicts.
    #[error("more than 4 verdicts in one block")]
    TooManyVerdicts,
    /// The accumulator has no room.
    #[error(transparent)]
    Accumulator(#[from] crate::AccumulatorFull),
}

impl BridgeError {
    /// Whether waiting may help: the record is in order, but not for the present state.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Serial { expected, found } => found > expected,
            _ => false,
        }
    }
}

/// Why a block's place in the hub's state is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SystemError {
    /// By the rules of stake, epochs and protocol versions.
    #[error(transparent)]
    Hub(#[from] RecordError),
    /// By the bridge's.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

impl SystemError {
    /// Whether the bytes are no record at all.
    pub fn is_malformed(&self) -> bool {
        matches!(self, Self::Hub(RecordError::Malformed(_)) | Self::Bridge(BridgeError::Malformed(_)))
    }

    /// Whether waiting may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Hub(error) => error.may_pass(),
            Self::Bridge(error) => error.may_pass(),
        }
    }
}

//! Signing votes: whoever holds the secret has the guard in front of it.

use crate::{Key, Kind, Position, Refusal, SignGuard, Statement};
use std::{fmt, sync::Arc};
use switchyard_consensus_core::{
    Vote,
    keys::{KeyError, bls_public_key, sign_vote},
};
use switchyard_primitives::keccak256;
use zeroize::Zeroizing;

/// A BLS12-381 signature, compressed G2.
pub type Signature = [u8; 96];

/// Signs a validator's votes, in this process or elsewhere.
pub trait VoteSigner: fmt::Debug + Send + Sync + 'static {
    /// The public key.
    fn key(&self) -> Key;

    /// Signs a vote, once a record of it is durable. Blocks for the disk, or for a bounded time for another machine.
    ///
    /// # Errors
    /// [`Unsigned`]: no vote leaves, and consensus goes on without it.
    fn sign(&self, vote: &Vote) -> Result<Signature, Unsigned>;

    /// The record of what this process has had signed.
    fn record(&self) -> &SignGuard;
}

/// Why a vote is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// The record speaks against it, or cannot be written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The remote signer has refused: its record knows more than this process does.
    #[error("the signer refuses: {0}")]
    RefusedElsewhere(String),
    /// The remote signer did not answer in time, or not with a signature.
    #[error("the signer cannot be asked: {0}")]
    Away(String),
}

impl From<&Vote> for Statement {
    fn from(vote: &Vote) -> Self {
        let kind = match vote {
            Vote::Notarize(_) => Kind::Notarize,
            Vote::Nullify { .. } => Kind::Nullify,
            Vote::Finalize(_) => Kind::Finalize,
        };
        let (epoch, number) = vote.round();
        Self { kind, scope: 0, position: Position { epoch, number }, digest: keccak256(vote.content()) }
    }
}

/// A secret behind its guard, in this process.
pub struct LocalSigner {
    secret: Zeroizing<[u8; 32]>,
    guard: Arc<SignGuard>,
}

impl LocalSigner {
    /// # Errors
    /// A secret that is none, or not that of the guard's key.
    pub fn new(secret: [u8; 32], guard: Arc<SignGuard>) -> Result<Self, KeyError> {
        if bls_public_key(&secret)?.0 != guard.key() {
            return Err(KeyError::Secret);
        }
        Ok(Self { secret: Zeroizing::new(secret), guard })
    }
}

impl fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSigner").field("guard", &self.guard).finish_non_exhaustive()
    }
}

impl VoteSigner for LocalSigner {
    fn key(&self) -> Key {
        self.guard.key()
    }

    fn sign(&self, vote: &Vote) -> Result<Signature, Unsigned> {
        self.guard.permit(vote.into())?;
        sign_vote(&self.secret, &vote.message(self.guard.network())).map_err(|e| Unsigned::Away(e.to_string()))
    }

    fn record(&self) -> &SignGuard {
        &self.guard
    }
}

//! The sign guard: every signature of a validator's key is asked for here first.
//!
//! A [`Statement`] is what a signature says: of which kind it is, about which slot, and what. [`SignGuard::permit`] writes it
//! down durably before it answers, and refuses one that contradicts what was written before, across restarts, and what is
//! below the low-water mark, of which nothing is remembered any more. So neither a defect in the engine, nor a journal that
//! lost its end, nor a restored backup makes a validator sign something for which it would be slashed.
//!
//! The record belongs to one key on one network, and is moved to another machine with [`SignGuard::export`] and
//! [`SignGuard::import`], in the manner of EIP-3076. Format and rules: `docs/specs/sign-guard.md`.
//!
//! Nothing here is asynchronous: a permission is one small write and one sync.

mod file;
mod history;
mod interchange;
mod signer;
mod statement;

pub use file::GuardError;
pub use interchange::{Entry, FORMAT, Interchange, Mark};
pub use signer::{LocalSigner, Signature, Unsigned, VoteSigner};
pub use statement::{Family, Kind, Position, Refusal, Statement};

use file::Record;
use history::History;
use parking_lot::Mutex;
use std::{fmt, path::Path};
use switchyard_primitives::{B256, Bytes};

/// A BLS12-381 public key, compressed G1.
pub type Key = [u8; 48];

/// Guards one key on one network. Clones of an `Arc` share it; two processes cannot open one record.
pub struct SignGuard {
    network: B256,
    key: Key,
    inner: Mutex<Inner>,
}

struct Inner {
    history: History,
    record: Record,
    /// Why the record could not be written, after which nothing is signed any more.
    broken: Option<String>,
}

impl fmt::Debug for SignGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignGuard").field("network", &self.network).finish_non_exhaustive()
    }
}

impl SignGuard {
    /// Opens the record at `path`, or begins one for a key that has never signed on this network.
    ///
    /// # Errors
    /// A record of another key or network, one that another process has open, and one that is damaged anywhere but at its
    /// very end, where a write that was cut off had let no signature out.
    pub fn open(path: &Path, network: B256, key: Key) -> Result<Self, GuardError> {
        let (record, history) = Record::open(path, network, key)?;
        Ok(Self { network, key, inner: Mutex::new(Inner { history, record, broken: None }) })
    }

    /// The network of the record.
    pub fn network(&self) -> B256 {
        self.network
    }

    /// The key of the record.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Whether there is a record at `path`: without one, a key that has signed before must not sign again.
    pub fn exists(path: &Path) -> bool {
        path.exists()
    }

    /// Permission to sign `statement`, written down and synced before this returns. Asking for the same again is permitted.
    ///
    /// # Errors
    /// [`Refusal`]. After one write has failed ([`Refusal::Unwritable`]) everything is refused until the record is opened
    /// again, since nobody knows what the disk holds.
    pub fn permit(&self, statement: Statement) -> Result<(), Refusal> {
        let mut inner = self.inner.lock();
        if let Some(reason) = &inner.broken {
            return Err(Refusal::Unwritable(reason.clone()));
        }
        if inner.history.check(&statement)? {
            return Ok(());
        }
        inner.history.add(&statement);
        let Inner { history, record, .. } = &mut *inner;
        if let Err(error) = record.write(&statement, history) {
            inner.broken = Some(error.to_string());
            return Err(Refusal::Unwritable(error.to_string()));
        }
        Ok(())
    }

    /// Whether a statement of this kind was permitted for the slot; unknown below the low-water mark. A signature of the
    /// key for a slot for which none was is another process's.
    pub fn has_signed(&self, kind: Kind, scope: u64, position: Position) -> Option<bool> {
        self.inner.lock().history.has_signed(kind, scope, position)
    }

    /// The newest slot of a family and scope for which a statement was permitted and is remembered.
    pub fn newest(&self, family: Family, scope: u64) -> Option<Position> {
        self.inner.lock().history.newest(family, scope)
    }

    /// Everything that the record holds, to be imported elsewhere. Whoever exports must not sign with the key afterwards.
    pub fn export(&self) -> Interchange {
        self.inner.lock().history.export(self.network, Bytes::from(self.key))
    }

    /// Whether everything that another record holds is remembered here, or may not be signed here any more.
    ///
    /// # Errors
    /// [`GuardError::Import`] for an export of another format, network or key.
    pub fn knows(&self, export: &Interchange) -> Result<bool, GuardError> {
        export.check(self.network, &self.key)?;
        Ok(self.inner.lock().history.knows(export))
    }

    /// Adds what another record holds, durably. From then on only what is above everything in it is signed, or the same
    /// again: an export may be older than the last signature that was made on the other machine.
    ///
    /// # Errors
    /// [`GuardError::Import`] for an export of another format, network or key.
    pub fn import(&self, export: &Interchange) -> Result<(), GuardError> {
        export.check(self.network, &self.key)?;
        let mut inner = self.inner.lock();
        inner.history.import(export);
        let Inner { history, record, .. } = &mut *inner;
        record.rewrite(history).inspect_err(|error| inner.broken = Some(error.to_string()))
    }
}

/// Ways in for `testnet/fuzz`; no part of the interface.
#[doc(hidden)]
pub mod fuzz {
    use crate::{Interchange, file, history::History};
    use switchyard_primitives::B256;

    /// A record of key and network zero, read and written anew.
    pub fn record(bytes: &[u8]) -> Option<Vec<u8>> {
        file::rewritten(bytes)
    }

    /// Such a record of these entries' bodies.
    pub fn record_of(bodies: &[u8]) -> Vec<u8> {
        file::of_bodies(bodies)
    }

    /// What a new record exports once it has imported this.
    pub fn imported(export: &Interchange) -> Option<Interchange> {
        export.check(B256::ZERO, &[0; 48]).ok()?;
        let mut history = History::default();
        history.import(export);
        Some(history.export(B256::ZERO, [0; 48].into()))
    }
}

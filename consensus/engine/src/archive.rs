//! The archives of final blocks and certificates, from which peers that catch up are served.
//!
//! On disk here are the newest blocks only, where the node lends its store ([`History`]): each block held costs memory and
//! each [`SECTION_BLOCKS`] blocks open files. What is older comes from the node's store.

use crate::{
    EngineError, Finalization, Runtime, Scheme,
    block::{BlockLimits, HubBlock, hash},
    certificate,
};
use commonware_codec::CodecShared;
use commonware_consensus::{marshal::store, types::Height};
use commonware_cryptography::{certificate::Verifier as _, keccak256::Digest};
use commonware_runtime::{Handle, buffer::paged::CacheRef};
use commonware_storage::{
    archive::{self, Archive, Identifier, prunable},
    translator::EightCap,
};
use commonware_utils::{NZU64, NZUsize};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
};
use switchyard_consensus_core::History;
use switchyard_primitives::{B256, FinalityProof};

/// Prefix of the folders of marshal's storage.
pub(crate) const PREFIX: &str = "marshal";
/// Blocks in one file of an archive, and dropped at once.
pub(crate) const SECTION_BLOCKS: NonZeroU64 = NZU64!(64);
/// Buffers in front of the files: keys are tiny, a value is up to a block.
pub(crate) const KEY_BUFFER: NonZeroUsize = NZUsize!(16 << 10);
pub(crate) const VALUE_BUFFER: NonZeroUsize = NZUsize!(256 << 10);
pub(crate) const REPLAY_BUFFER: NonZeroUsize = NZUsize!(256 << 10);

type Recent<E, V> = prunable::Archive<EightCap, E, Digest, V>;

/// The certificate from which the archive goes on where the node's log is further: the newest one of that log, which the
/// node has copied from elsewhere. None where the archive is about as far, so that a crash of the node is none of it.
pub(crate) async fn floor(
    context: &impl Runtime,
    history: Option<Arc<dyn History>>,
    acknowledged: u64,
    processed: u64,
) -> Option<Finalization> {
    let lowest = processed.saturating_add(SECTION_BLOCKS.get());
    let history = history.filter(|_| acknowledged > lowest)?;
    // Not every block has a certificate of its own, but one among so many has.
    let heights = lowest.max(acknowledged.saturating_sub(FinalityProof::MAX_HEADERS as u64))..=acknowledged;
    let found = context
        .child("history")
        .shared(true)
        .spawn(move |_| async move { heights.rev().find_map(|height| history.certificate(height)) });
    certificate::to_library(&found.await.ok()??)
}

/// Certificates by height and block.
pub(crate) struct Certificates<E: Runtime> {
    recent: Recent<E, Finalization>,
    history: Older<E>,
}

/// Blocks by height and hash.
pub(crate) struct Blocks<E: Runtime> {
    recent: Recent<E, Arc<HubBlock>>,
    history: Older<E>,
}

/// The node's store, if it lends it.
struct Older<E> {
    context: E,
    store: Option<Arc<dyn History>>,
}

impl<E: Runtime> Older<E> {
    /// Looks something up on a thread where the store may block.
    async fn get<T: Send + 'static>(
        &self,
        place: Place,
        read: impl FnOnce(&dyn History, u64) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let history = Arc::clone(self.store.as_ref()?);
        let found = self.context.child("history").shared(true).spawn(move |_| async move {
            let height = match place {
                Place::Height(height) => height,
                Place::Hash(hash) => history.height_of(hash)?,
            };
            read(&*history, height)
        });
        found.await.ok().flatten()
    }
}

/// Where to look.
#[derive(Clone, Copy)]
enum Place {
    Height(u64),
    Hash(B256),
}

impl From<&Identifier<'_, Digest>> for Place {
    fn from(id: &Identifier<'_, Digest>) -> Self {
        match id {
            Identifier::Index(height) => Self::Height(*height),
            Identifier::Key(digest) => Self::Hash(hash(**digest)),
        }
    }
}

impl<E: Runtime> store::Certificates for Certificates<E> {
    type BlockDigest = Digest;
    type Commitment = Digest;
    type Scheme = Scheme;
    type Error = archive::Error;

    async fn put(self, height: Height, digest: Digest, value: &Finalization) -> Result<Self, Self::Error> {
        let Self { recent, history } = self;
        Ok(Self { recent: store::Certificates::put(recent, height, digest, value).await?, history })
    }

    async fn sync(self) -> Result<Self, Self::Error> {
        Ok(Self { recent: Archive::sync(self.recent).await?, history: self.history })
    }

    async fn start_sync(self) -> Result<(Self, Handle<()>), Self::Error> {
        let Self { recent, history } = self;
        let (recent, handle) = Archive::start_sync(recent).await?;
        Ok((Self { recent, history }, handle))
    }

    async fn get(&self, id: Identifier<'_, Digest>) -> Result<Option<Finalization>, Self::Error> {
        let place = Place::from(&id);
        match Archive::get(&self.recent, id).await? {
            Some(found) => Ok(Some(found)),
            None => Ok(self.history.get(place, |h, at| certificate::to_library(&h.certificate(at)?)).await),
        }
    }

    async fn has(&self, height: Height) -> Result<bool, Self::Error> {
        store::Certificates::has(&self.recent, height).await
    }

    async fn prune(self, min: Height) -> Result<Self, Self::Error> {
        Ok(Self { recent: store::Certificates::prune(self.recent, min).await?, history: self.history })
    }

    fn last_index(&self) -> Option<Height> {
        store::Certificates::last_index(&self.recent)
    }

    fn ranges_from(&self, from: Height) -> impl Iterator<Item = (Height, Height)> {
        store::Certificates::ranges_from(&self.recent, from)
    }
}

impl<E: Runtime> store::Blocks for Blocks<E> {
    type Block = Arc<HubBlock>;
    type Error = archive::Error;

    async fn put(self, digest: Digest, block: &Arc<HubBlock>) -> Result<Self, Self::Error> {
        let Self { recent, history } = self;
        Ok(Self { recent: store::Blocks::put(recent, digest, block).await?, history })
    }

    async fn sync(self) -> Result<Self, Self::Error> {
        Ok(Self { recent: Archive::sync(self.recent).await?, history: self.history })
    }

    async fn start_sync(self) -> Result<(Self, Handle<()>), Self::Error> {
        let Self { recent, history } = self;
        let (recent, handle) = Archive::start_sync(recent).await?;
        Ok((Self { recent, history }, handle))
    }

    async fn get(&self, id: Identifier<'_, Digest>) -> Result<Option<Arc<HubBlock>>, Self::Error> {
        let place = Place::from(&id);
        match Archive::get(&self.recent, id).await? {
            Some(found) => Ok(Some(found)),
            None => Ok(self.history.get(place, |h, at| Some(Arc::new(HubBlock::new(h.block(at)?)))).await),
        }
    }

    async fn prune(self, min: Height) -> Result<Self, Self::Error> {
        Ok(Self { recent: store::Blocks::prune(self.recent, min).await?, history: self.history })
    }

    fn missing_items(&self, start: Height, max: usize) -> Vec<Height> {
        store::Blocks::missing_items(&self.recent, start, max)
    }

    fn next_gap(&self, value: Height) -> (Option<Height>, Option<Height>) {
        store::Blocks::next_gap(&self.recent, value)
    }

    fn last_index(&self) -> Option<Height> {
        store::Blocks::last_index(&self.recent)
    }
}

async fn open<E: Runtime, V: CodecShared>(
    context: E,
    name: &'static str,
    page_cache: CacheRef,
    codec_config: V::Cfg,
) -> Result<Recent<E, V>, EngineError> {
    let config = prunable::Config {
        translator: EightCap,
        metadata_partition: format!("{PREFIX}-{name}-metadata"),
        key_partition: format!("{PREFIX}-{name}-keys"),
        key_page_cache: page_cache,
        value_partition: format!("{PREFIX}-{name}-values"),
        compression: None,
        codec_config,
        items_per_section: SECTION_BLOCKS,
        key_write_buffer: KEY_BUFFER,
        value_write_buffer: VALUE_BUFFER,
        replay_buffer: REPLAY_BUFFER,
    };
    prunable::Archive::init(context, config).await.map_err(|e| EngineError::Archive { name, detail: e.to_string() })
}

/// Opens both archives.
pub(crate) async fn open_both<E: Runtime>(
    context: &E,
    page_cache: &CacheRef,
    limits: BlockLimits,
    history: Option<Arc<dyn History>>,
) -> Result<(Certificates<E>, Blocks<E>), EngineError> {
    let older = || Older { context: context.child("older"), store: history.clone() };
    let any_committee = Scheme::certificate_codec_config_unbounded();
    let certificates = Certificates {
        recent: open(context.child("certificates"), "certificates", page_cache.clone(), any_committee).await?,
        history: older(),
    };
    let blocks =
        Blocks { recent: open(context.child("blocks"), "blocks", page_cache.clone(), limits).await?, history: older() };
    Ok((certificates, blocks))
}

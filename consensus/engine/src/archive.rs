//! The archives of final blocks and certificates, from which peers that catch up are served.

use crate::{
    EngineError, Finalization, Scheme,
    block::{BlockLimits, HubBlock},
};
use commonware_cryptography::{certificate::Verifier as _, keccak256::Digest};
use commonware_runtime::{Supervisor as _, buffer::paged::CacheRef, tokio::Context};
use commonware_storage::{archive::prunable, translator::EightCap};
use commonware_utils::{NZU64, NZUsize};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
};

pub(crate) type Certificates = prunable::Archive<EightCap, Context, Digest, Finalization>;
pub(crate) type Blocks = prunable::Archive<EightCap, Context, Digest, Arc<HubBlock>>;

/// Prefix of the folders of marshal's storage.
pub(crate) const PREFIX: &str = "marshal";

/// Blocks in one file of an archive.
const ITEMS_PER_SECTION: NonZeroU64 = NZU64!(4096);
/// Buffers in front of the files: keys are tiny, a value is up to a block.
pub(crate) const KEY_BUFFER: NonZeroUsize = NZUsize!(16 << 10);
pub(crate) const VALUE_BUFFER: NonZeroUsize = NZUsize!(256 << 10);
pub(crate) const REPLAY_BUFFER: NonZeroUsize = NZUsize!(256 << 10);

async fn open<V: commonware_codec::CodecShared>(
    context: Context,
    name: &'static str,
    page_cache: CacheRef,
    codec_config: V::Cfg,
) -> Result<prunable::Archive<EightCap, Context, Digest, V>, EngineError> {
    let config = prunable::Config {
        translator: EightCap,
        metadata_partition: format!("{PREFIX}-{name}-metadata"),
        key_partition: format!("{PREFIX}-{name}-keys"),
        key_page_cache: page_cache,
        value_partition: format!("{PREFIX}-{name}-values"),
        compression: None,
        codec_config,
        items_per_section: ITEMS_PER_SECTION,
        key_write_buffer: KEY_BUFFER,
        value_write_buffer: VALUE_BUFFER,
        replay_buffer: REPLAY_BUFFER,
    };
    prunable::Archive::init(context, config).await.map_err(|e| EngineError::Archive { name, detail: e.to_string() })
}

/// Opens both archives.
pub(crate) async fn open_both(
    context: &Context,
    page_cache: &CacheRef,
    limits: BlockLimits,
) -> Result<(Certificates, Blocks), EngineError> {
    let certificates = open(
        context.child("certificates"),
        "certificates",
        page_cache.clone(),
        Scheme::certificate_codec_config_unbounded(),
    )
    .await?;
    let blocks = open(context.child("blocks"), "blocks", page_cache.clone(), limits).await?;
    Ok((certificates, blocks))
}

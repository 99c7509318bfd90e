//! What every rollup is made of: its manifest, the driver that turns final segments into rollup blocks, the rules by
//! which transactions are admitted, and the read interface of EVM rollups. Pure apart from notification channels.

mod admission;
mod bundle;
mod driver;
pub mod evm;
mod manifest;

pub use admission::{Account, Admission, Rejection, Sequenced};
pub use bundle::BundleRefusal;
pub use driver::{Applied, Driver, DriverError, LegAt, SegmentInput, TxOutcome, UNSYNCED_HUB_BLOCKS_MAX};
pub use manifest::{ManifestError, RollupManifest, Sealing, Vm};

//! Power cuts between any two writes of real validators.
//!
//! 1. [`Recording::make`] runs a network of real processes under load. A library between each of them and the C library
//!    ([`Shim`]) records every change of the data folder, and where syncs begin and end. Each validator's key is at a signer
//!    that notes every vote before it answers, and a client notes each block that it is told is final: so the trace has in
//!    one order what was written, what was durable, and what had left the validators. At its end the records must make
//!    exactly the folders that are there; so nothing was changed behind them.
//! 2. [`Cases`] cut the power after any record. A [`Disk`] of one of two models says what may be left; a seed chooses.
//! 3. The network is started on what is left. It must start, go on, execute transfers, stop when it is told to; and have
//!    every block that a client was told is final, rollups that are what their log makes of them, a sign record with every
//!    vote that had left, and no vote that contradicts one of those. In some cases the power is cut again while it recovers.
//!
//! With [`How::damage`] the processes are killed instead, and one file is changed, cut off or removed.

mod case;
mod check;
mod cut;
mod damage;
mod disk;
mod image;
mod load;
mod record;
mod shim;
mod site;
mod tap;
mod trace;

pub use case::{Cases, How};
pub use cut::CaseId;
pub use disk::{Broken, Disk, Keep, Lie, Model};
pub use image::Image;
pub use record::{Plan, Recording};
pub use shim::{Full, Recorded, Settings, Shim};
pub use trace::{Extent, Marks, Op, Record, Trace};

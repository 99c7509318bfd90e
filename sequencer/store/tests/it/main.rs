//! What both stores promise, and what the one on disk promises beyond.

mod chain;
mod conformance;
mod damage;
mod durability;
mod opening;
mod random;

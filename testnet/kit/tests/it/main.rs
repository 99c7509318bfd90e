//! Properties of the workspace and of whole networks.

mod arrows;
mod layout;

//! Where inputs and images come from beside peers.

pub mod registry;

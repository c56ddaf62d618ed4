//! A node of Mutual Cloud: the drivers that turn the model's decisions into I/O, and the roles.

/// Blocks, objects and their transfer, re-exported likewise.
pub use mutual_data as data;
/// The demand store's contract, re-exported likewise.
pub use mutual_demand as demand;
/// The rules, re-exported for programs that build on this crate.
pub use mutual_model as model;

pub mod agent;
pub mod assembly;
pub mod auth;
mod clock;
pub mod config;
pub mod control;
pub mod demand_service;
pub mod discovery;
pub mod liveness;
pub mod runtime;
pub mod sources;
pub mod swarm;

pub use assembly::{Node, NodeError};

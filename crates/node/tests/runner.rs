//! Integration tests of the node, one module per part.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "runner/agent/mod.rs"]
mod agent;

#[path = "runner/auth/mod.rs"]
mod auth;

#[path = "runner/control/mod.rs"]
mod control;

#[path = "runner/discovery.rs"]
mod discovery;

#[path = "runner/heavy/mod.rs"]
mod heavy;

#[path = "runner/oci.rs"]
mod oci;

#[path = "runner/registry.rs"]
mod registry;

#[path = "runner/runtime/mod.rs"]
mod runtime;

#[path = "runner/sources/mod.rs"]
mod sources;

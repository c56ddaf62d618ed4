//! The cores in a virtual world.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "runner/cloud.rs"]
mod cloud;
#[path = "runner/discovery.rs"]
mod discovery;

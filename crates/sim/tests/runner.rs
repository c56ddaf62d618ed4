//! The cores in a virtual world.

#[path = "runner/discovery.rs"]
mod discovery;

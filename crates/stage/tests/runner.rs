//! Holds every statement of this crate against brute force on small instances.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "runner/baseline.rs"]
mod baseline;
#[path = "runner/brute.rs"]
mod brute;
#[path = "runner/continuous.rs"]
mod continuous;
#[path = "runner/definition.rs"]
mod definition;
#[path = "runner/facts.rs"]
mod facts;
#[path = "runner/integral.rs"]
mod integral;
#[path = "runner/metamorphic.rs"]
mod metamorphic;
#[path = "runner/planner.rs"]
mod planner;
#[path = "runner/promises.rs"]
mod promises;
#[path = "runner/shared.rs"]
mod shared;
#[path = "runner/small.rs"]
mod small;

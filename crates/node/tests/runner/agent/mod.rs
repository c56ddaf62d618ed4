//! Agents at work: a real SQLite store behind real HTTP, real tasks, real transfers.

#![expect(
    clippy::unwrap_used,
    reason = "what a test cannot set up it cannot test"
)]

mod bad_input;
mod checkpoints;
mod cloud;
mod cut_off;
mod delivery;
mod ends;
mod full_disk;
mod images;
mod latency;
mod liveness;
mod logs;
mod races;
mod resume;

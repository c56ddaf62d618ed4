//! The rules of Mutual Cloud, without a clock, a socket or a file in sight.
//!
//! Everything here is plain data and pure functions: what a job is and how it may change
//! ([`job`]), who may act on it ([`lease`]), who signed what ([`identity`], [`receipt`]), what a
//! machine offers and what fits on it ([`resources`]). Protocols are *sans-IO cores*: state
//! machines of the form `handle(now, event) -> actions`, so that the same code runs over real
//! sockets in `mutual-node` and over a simulated network in `mutual-sim`.
//!
//! **Absent on purpose:** async, sockets, files, wall or monotonic clocks, ambient randomness and
//! hash maps (`clippy.toml` bans them with the reason).

pub mod agent;
mod bytes;
pub mod guardian;
pub mod history;
pub mod identity;
pub mod ids;
pub mod job;
pub mod kademlia;
pub mod lease;
pub mod matching;
pub mod receipt;
pub mod record;
pub mod requeue;
pub mod resources;
pub mod time;

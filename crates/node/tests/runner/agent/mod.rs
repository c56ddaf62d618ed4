//! Agents at work: a real SQLite store behind real HTTP, real tasks, real transfers.

mod cloud;
mod cut_off;
mod delivery;
mod ends;
mod liveness;
mod races;

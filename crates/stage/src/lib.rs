//! Loads large images onto a bounded cache so that each is there when it is needed.
//!
//! A site starts virtual machines and containers from images of many gigabytes. They come through one *entry link*
//! onto a *stage*, a cache much smaller than all of them together. A [`Reservation`] names an image's size, the due date
//! at which it must lie on the stage, and what serving it is worth. Which reservations can be served, and when does
//! each load start? This crate answers with a [`Schedule`] of greatest total weight, or with one that is provably close.
//!
//! # The problem
//!
//! Loads do not overlap, start at 0 or later and end by the due date. An image is on the stage from the start of its load
//! until its due date, when it is handed over and leaves; space that is freed at a moment can be used from that moment on. The
//! stage never holds more than its capacity. What a load that is under way occupies is the [`Model`]'s matter:
//! *continuous* counts the bytes that have arrived, *integral* the whole image from the start of its load.
//!
//! The continuous model is solved exactly, the integral one (strongly NP-hard once images are already staged) exactly for few or
//! special sizes, and within a factor of two otherwise. A continuous optimum bounds every integral schedule from above, so each
//! [`Solution`] tells how far from the best it can be.
//!
//! # Which function
//!
//! | you have | call | result |
//! |---|---|---|
//! | weights, continuous | [`continuous::heaviest`] | exact |
//! | equal weights, continuous, many reservations | [`continuous::most`] | exact, O(n log n) |
//! | either model, and some time | [`solve`] | the best found, a bound, and often a proof |
//! | weights, continuous, and a factor is enough | [`continuous::near_heaviest`] | at least 1 − ε of the best |
//! | integral, every image at most a seventh of the stage | [`integral::small_images`] | at least 1 − 1/q of the best |
//! | integral | [`integral::approximate`] | at least half of the best, refilled |
//! | integral, every image above half the stage | [`integral::large_images`] | exact |
//! | integral, all images of one size | [`integral::equal_sizes`] | exact |
//! | requests that come in one by one, and promises | [`planner`] | admissions, and what to load when |
//! | images or layers that several tasks share | [`shared`] | the best found, and a bound |
//! | something to compare with | [`baseline`] | earliest-due-date rules |
//!
//! Whatever made a schedule, [`validate()`] judges it by the definition alone.
//!
//! # Units
//!
//! Whole numbers throughout. Sizes and the capacity are in bytes (or any one unit); times are in the time the link takes for
//! one such unit, so that a load takes as long as its image is large, unless [`Reservation::load_time`] says otherwise.
//!
//! **Absent on purpose:** clocks, files, sockets, randomness, floating point, and any knowledge of what an image is.
//!
//! Source: Epstein, Lorenz, Silvera, Shapira, *Virtual appliance content distribution for a global infrastructure cloud service*,
//! INFOCOM 2010. Where the text below goes beyond the paper it says so; every such statement is a property test
//! against brute force.

mod bandwidth;
pub mod baseline;
pub mod continuous;
mod due_order;
mod instance;
pub mod integral;
pub mod planner;
mod schedule;
pub mod shared;
mod solution;
mod solve;
mod tight;
mod timeline;
mod trail;
mod unsupported;
mod validate;

pub use bandwidth::{Bandwidth, BandwidthError};
pub use instance::{Exclusion, Instance, InstanceError, LIMIT, Model, Reservation, Staged};
pub use schedule::{Load, Schedule};
pub use solution::Solution;
pub use solve::solve;
pub use tight::{Infeasible, right_tight, tighten};
pub use unsupported::Unsupported;
pub use validate::{Violation, validate};

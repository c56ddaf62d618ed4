//! A virtual world for the sans-IO cores: the very code that runs over real sockets, over a network
//! that loses, delays, reorders, repeats and cuts, under a clock that a test can wind.
//!
//! One seed gives one run: a failing test prints its seed, and the seed replays it.

pub mod cloud;
pub mod network;

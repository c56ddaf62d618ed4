//! Integration tests of `mutual-data`: one binary.

mod transfer;
mod world;

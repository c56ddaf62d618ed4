//! Integration tests of `mutual-data`: one binary.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

mod full_disk;
mod image;
mod transfer;
mod world;

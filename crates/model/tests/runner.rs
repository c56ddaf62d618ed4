//! The rules, tried in every order of events.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "runner/claims.rs"]
mod claims;

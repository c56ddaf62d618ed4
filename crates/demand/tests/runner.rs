//! Every store through the one suite, and what only one of them has.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod runner {
    mod http;
    mod memory;
    mod postgres;
    mod sqlite;
    mod support;
}

//! Every store through the one suite, and what only one of them has.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod runner {
    mod failover;
    mod heavy {
        mod postgres;
        mod promotion;
    }
    mod hostile;
    mod http;
    mod memory;
    #[path = "../shared/postgres_server.rs"]
    mod postgres_server;
    mod sqlite;
    mod support;
}

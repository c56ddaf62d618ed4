//! What starts whole servers: one at a time, with the machine to itself.

mod postgres;

#[path = "../../../../demand/tests/shared/postgres_server.rs"]
#[expect(dead_code, reason = "other programs that include it use the rest")]
mod postgres_server;

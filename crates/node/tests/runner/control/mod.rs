//! Control and the demand server, over real sockets and a real store.

mod agents;
mod bad_input;
mod cloud;
mod credentials;
mod document;
mod events;
mod offers;
mod tasks;
mod verdicts;

//! The network of nodes, as a state machine without sockets or clocks: Kademlia (Maymounkov and
//! Mazières 2002) with dictionaries of signed records.
//!
//! # Participants and goals
//! Every node has a position, the hash of its public key. A record is kept by the nodes nearest to
//! its key. [`Core`] is one node: it answers others, finds nodes and records, publishes its own
//! records and keeps them fresh, and hands copies on when nodes come and go. It works with two nodes
//! as with ten thousand. What it finds is a hint; nothing is ever decided by it.
//!
//! # How to drive it
//! 1. Make a [`Core`]; feed [`Event::Join`] with the peers known from before.
//! 2. Feed [`Event::Received`] with every datagram, opened and with its sender's key authenticated.
//! 3. Feed [`Event::Timer`] whenever [`Core::next_timer`] has passed.
//! 4. Carry out the [`Action`]s that each call returns, in order.
//!
//! The same seed and the same events give the same actions.
//!
//! # What strangers can do to it
//! Only a node whose certificate a trusted organisation signed enters the routing table or stores
//! anything. Every list, table, rate and message is bounded ([`Limits`]). A reply is at most three
//! times as long as its request. Records are checked before they are kept and again before they are
//! believed ([`crate::record`]).
//!
//! # Non-goals
//! Secrecy of what is stored: members can read every record. Locks: two nodes may see two states.

mod calling;
mod certificates;
mod contact;
mod core;
mod key;
mod limits;
mod lookup;
mod meeting;
mod message;
mod publishing;
mod random;
mod requests;
mod seeking;
mod serving;
mod store;
mod table;
mod upkeep;

pub use calling::{CallError, Caller};
pub use contact::Contact;
pub use core::{Action, Config, Core, Event, Found, Identity, SetupError, Stats};
pub use key::{Distance, KEY_BITS, Key};
pub use limits::Limits;
pub use message::{
    CERTIFICATE_LEN_MAX, DATAGRAM_LEN_MAX, MESSAGE_LEN_MAX, PAYLOAD_LEN_MAX, SEAL_LEN,
};
pub use random::Random;

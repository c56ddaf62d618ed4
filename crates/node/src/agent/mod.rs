//! The agent: offers this machine's spare resources, claims jobs, runs them and brings results back.
//!
//! [`AgentNode::start`] wires the parts together; every decision is taken by the sans-IO core
//! [`mutual_model::agent`], which this module feeds and obeys.
//!
//! ```text
//! offers, ads ─▶ ┌──────┐ claim, renew, release ─▶ demand stores
//! answers ─────▶ │ mind │
//! time ────────▶ └──┬───┘ orders            ┌▶ objects (input, checkpoint, image)
//!                   └──────▶ attempt ───────┼▶ runtime (the task)   ─▶ log
//!                            one per claim  └▶ outbox ─▶ demand store
//! ```
//!
//! # What survives what
//! * A finish is in the outbox, synchronised, before it is first sent; it is repeated until the
//!   store answers, over restarts of agent, control and demand server.
//! * When an agent starts it delivers the outbox first, then ends its earlier incarnations at each
//!   store, and only then claims: work it finished is never thrown away, work it lost is free again.
//! * Tasks die with the agent's process (the runtime sees to that), so nothing of an earlier run is
//!   adopted.
//!
//! # Common pitfalls
//! * The mind never waits: requests and attempts are tasks of their own and answer as inputs.
//! * What a store, peer or task says is checked where it comes in; the core trusts its events.

mod attempt;
mod checkpoints;
mod deliver;
mod finishes;
mod guarded;
mod images;
mod inputs;
mod logs;
mod metrics;
mod mind;
mod objects;
mod offers;
mod outbox;
mod presence;
mod pull;
mod results;
mod runs;
mod seal;
mod server;
mod shelf;
mod start;
mod stores;

pub(crate) use attempt::CHECKPOINT_BYTES_MAX_DEFAULT;
pub use attempt::RunPolicy;
pub use images::{PullError, Puller};
pub use logs::{Library, LogMessage, LogReader, LogWriter, SEGMENT_BYTES};
pub use metrics::Metrics;
pub use mind::{OfferAnswer, Status};
pub use objects::{Objects, PeerFinder};
pub use offers::{OfferDesk, OfferError};
pub use outbox::{Entry, Outbox};
pub use presence::{Mirror, Presence};
pub use pull::RegistryPuller;
pub use seal::{CHECKPOINT_KEY, INPUT_KEY, RESULT_KEY, SCHEME};
pub use start::{
    AgentConfig, AgentDeps, AgentError, AgentNode, StoreDialer, listen, proved_classes,
};
pub use stores::KnownStore;

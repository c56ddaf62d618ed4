//! The demand store: the durable truth about jobs, leases, fences and results.
//!
//! [`DemandStore`] is one trait with four implementations: `memory` (takes its clock, for the
//! simulator), `sqlite` (the embedded default), `postgres` (several demand servers) and the `http`
//! client, which speaks to the `http` service over any of the others. All of them pass the one
//! suite in `conformance`, which encodes DESIGN §3.
//!
//! **Absent on purpose:** libp2p and containers, and any trust in the caller beyond the
//! [`Principal`] that an outer layer authenticated.

mod account;
mod clock;
mod config;
pub mod deeds;
mod error;
pub mod memory;
mod notify;
mod rules;
mod store;
mod view;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use account::Look;
pub use clock::{Clock, ManualClock, Reading, SystemClock};
pub use config::StoreConfig;
pub use error::{StoreError, StoreResult};
pub use mutual_model::lease::{HeldJob, Lost, LostReason, Phase};
pub use mutual_model::matching::Offer;
pub use store::{
    CheckpointReport, ClaimGrant, ClaimReply, ClaimRequest, ClaimScope, DemandStore, Disposition,
    FinishReply, FinishRequest, Outcome, Principal, ReleaseRequest, RenewReply, RenewRequest,
    RequeueReport, Revocation, RevocationReply, Right, StoreInfo, Submission, Submitted, Verdict,
    first_fence,
};
pub use view::{
    Artifact, Attempt, AttemptEnd, Checkpoint, EncMeta, EventPage, JobEvent, JobFilter, JobPage,
    JobView, Manifest, Metrics, Reason, ResultView, Submitter,
};

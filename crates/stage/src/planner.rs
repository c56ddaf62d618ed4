//! Staging as requests come in: promises that are kept, and said to be broken as soon as the world breaks them.
//!
//! A [`Planner`] is a state machine without clock, link or disk. Methods come in two kinds.
//!
//! - **Users** ask: [`offer`](Planner::offer) and [`cancel`](Planner::cancel).
//! - **The driver** reports what happens at the site, each time with the moment: [`advance`](Planner::advance) (a moment has come),
//!   [`loaded`](Planner::loaded), [`load_failed`](Planner::load_failed), [`bandwidth_changed`](Planner::bandwidth_changed). Each answers with a
//!   [`Step`]: which load to start, what to hand over and to delete, which promises are broken, and when to call `advance` again. After an
//!   offer or a cancellation, `advance` with the same moment starts what can now start.
//!
//! A driver whose link brings more than was planned, because its rate has grown while a load is under way, must let it wait when the stage is full.
//!
//! # Promises
//!
//! A request that is accepted with a promise stays accepted: no later request, however heavy, displaces it. One without a promise is served if
//! nothing heavier wants its room. Every plan is checked as a whole before it is taken, beside the load under way and what is staged; so only
//! the world breaks promises (a load fails, takes longer, the link gets slower, the driver calls late), and then the planner gives up what is needed,
//! requests without a promise first, then the lightest, and says so at once.
//!
//! # Plan
//!
//! One load for each image, in the order of first due dates (or a few places off where that does not fit), each as early as there is room. An image
//! leaves after the last due date that needs it. An offer looks up what the plan leaves free, in O(n) for n loads ahead, and finds its place and the
//! earliest due date that works without timing the plan again. Whom to displace takes O(log n) such times of O(n) for each who goes.
//! Figures: `cargo run --release --package mutual-stage --example planner`.

mod admit;
mod mend;
mod outlook;
mod rivals;
mod running;
#[cfg(test)]
mod slow;
mod state;
mod world;

use crate::Model;
use crate::timeline::Obstacle;

pub use state::Planner;

/// A request's name, chosen by the caller.
pub type RequestId = u64;

/// An image's name, chosen by the caller; requests with the same one share it.
pub type ImageId = u64;

/// A site: its stage and its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// Bytes of the stage, 1 to [`LIMIT`](crate::LIMIT).
    pub capacity: u64,
    /// What a load under way occupies.
    pub model: Model,
    /// Bytes that the link brings in a unit of time; 0 while it is down.
    pub rate: u64,
    /// How long an image stays after its last due date.
    pub unload: u64,
}

/// An image that somebody wants on the stage at a due date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Its name; no two requests in force have the same.
    pub id: RequestId,
    /// The image.
    pub image: ImageId,
    /// Bytes of the image, 1 to [`LIMIT`](crate::LIMIT); the same for all requests of an image.
    pub size: u64,
    /// When the image must be there, at most [`LIMIT`](crate::LIMIT).
    pub due: u64,
    /// What serving it is worth.
    pub weight: u64,
    /// Whether to accept it only with a promise.
    pub promise: bool,
}

/// What becomes of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It will be served.
    Accepted {
        /// When the load of its image starts as planned now; the moment of the offer if the image is there already.
        start: u64,
        /// When the image is there as planned now. It may become later, but not later than the due date.
        ready: u64,
        /// Requests without a promise that had to go for it.
        displaced: Vec<RequestId>,
    },
    /// It will not be served; nothing has changed.
    Rejected {
        /// Why.
        reason: Reason,
        /// The earliest later due date with which it would be accepted now and nobody would have to go; `None` if there is none up to
        /// [`LIMIT`](crate::LIMIT).
        works_from: Option<u64>,
        /// How much more it would have to weigh to displace enough requests without a promise; `None` if no weight is enough.
        lacks: Option<u128>,
    },
}

/// Why an offer is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The image is larger than the stage.
    #[error("the image is larger than the stage")]
    LargerThanStage,
    /// Even a load that starts at once would end after the due date.
    #[error("the link cannot bring the image by its due date")]
    DueTooSoon,
    /// The link has no time for it beside what was promised.
    #[error("the link has no time for it before its due date")]
    LinkBusy,
    /// The stage has no room for it beside what was promised.
    #[error("the stage has no room for it before its due date")]
    StageFull,
}

impl From<Obstacle> for Reason {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Late(_) => Self::LinkBusy,
            Obstacle::Full(_) => Self::StageFull,
        }
    }
}

/// Why something is no request, or not one in force. The planner is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A request of this name is in force.
    #[error("request {0} is in force already")]
    Duplicate(RequestId),
    /// No request of this name is in force.
    #[error("request {0} is not in force")]
    Unknown(RequestId),
    /// A number is out of its range.
    #[error("{field} is {value}: it must be from {least} to 2^62")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The least one allowed.
        least: u64,
    },
    /// Another request named another size for the same image.
    #[error("image {image} has {known} bytes, not {given}")]
    Size {
        /// The image.
        image: ImageId,
        /// Its bytes as named before.
        known: u64,
        /// Its bytes as named now.
        given: u64,
    },
}

/// What the world did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// A load has not ended, or was not started, when it should.
    #[error("a load took longer than planned")]
    LoadLate,
    /// A load failed.
    #[error("a load failed")]
    LoadFailed,
    /// The link's rate is not what it was.
    #[error("the link's rate has changed")]
    LinkChanged,
}

/// A request that will not be served after all; it is no longer in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// The request.
    pub request: RequestId,
    /// Whether it had a promise.
    pub promise: bool,
    /// Why.
    pub cause: Cause,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// The image whose load to start now.
    pub start: Option<ImageId>,
    /// Requests that are due, whose images are there.
    pub handed_over: Vec<RequestId>,
    /// Images that nobody needs any more.
    pub evicted: Vec<ImageId>,
    /// Requests that will not be served.
    pub broken: Vec<Broken>,
    /// When to call [`Planner::advance`] next, if nothing else happens before.
    pub next: Option<u64>,
}

/// How long a load takes; longer than any time if the link is down.
fn loading(size: u64, rate: u64) -> u64 {
    match rate {
        0 => u64::MAX,
        _ => size.div_ceil(rate),
    }
}

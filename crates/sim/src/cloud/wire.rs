//! What travels between the nodes of a virtual cloud, and how it fares on the way.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use mutual_demand::{
    CheckpointReport, ClaimReply, ClaimRequest, FinishReply, FinishRequest, JobView,
    ReleaseRequest, RenewReply, RenewRequest, RequeueReport, Revocation, RevocationReply,
    StoreResult, Submission,
};
use mutual_model::guardian::{Beat, Charge};
use mutual_model::ids::{Incarnation, JobId};
use mutual_model::matching::Need;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// Who can be sent something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// An agent's machine.
    Agent(usize),
    /// A demand server.
    Server(usize),
    /// The database behind all of them.
    Database,
    /// The users' programs.
    Users,
}

/// Names a call, so that its answer finds the way back.
pub(super) type CallId = u64;

/// A request to the demand store.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Submit(Submission),
    Cancel(JobId),
    Look(JobId),
    WantCheckpoint(JobId),
    Claim(ClaimRequest),
    Renew(RenewRequest),
    Checkpoint(CheckpointReport),
    Release(ReleaseRequest),
    Finish(FinishRequest),
    Revoke(Revocation),
    Requeue(u32),
    Queued,
}

impl Request {
    /// Whether the client repeats it when its fate is open, so that it may arrive twice.
    pub(super) const fn may_repeat(&self) -> bool {
        match self {
            Self::Renew(request) => !request.complete,
            Self::Revoke(_) | Self::Queued => false,
            _ => true,
        }
    }
}

/// What the demand store says to a request.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Submitted(JobId),
    View(Box<JobView>),
    Views(Vec<JobView>),
    Claimed(ClaimReply),
    Renewed(RenewReply),
    Done,
    Finished(FinishReply),
    Revoked(RevocationReply),
    Swept(RequeueReport),
}

/// One message.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// A request, on behalf of a place.
    Ask {
        call: CallId,
        who: Place,
        request: Rc<Request>,
    },
    /// Its answer.
    Answer {
        call: CallId,
        answer: StoreResult<Reply>,
    },
    /// A liveness session is wanted.
    Hello { incarnation: Incarnation },
    /// A session's connection was closed by the other side's kernel.
    Closed { incarnation: Incarnation },
    /// The server dials back.
    Knock { incarnation: Incarnation },
    /// The answer of an agent to that; `None` if nobody listens at its port.
    Here {
        asked: Incarnation,
        found: Option<Incarnation>,
    },
    /// An agent asks another to watch it.
    Watch(Box<Charge>),
    /// The answer to that.
    Watched { accepted: bool },
    /// A heartbeat.
    Beat(Beat),
    /// A guardian is needed no more.
    Farewell { run: Incarnation },
    /// Something about the agent's jobs changed.
    Poke { incarnation: Incarnation },
    /// Jobs are offered.
    Offer {
        jobs: Vec<JobId>,
        need: Need,
        recovered: bool,
    },
    /// Jobs are advertised.
    Ad {
        jobs: Vec<JobId>,
        need: Need,
        idle: u32,
    },
}

/// How messages fare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weather {
    pub(super) delay_min: Duration,
    pub(super) delay_max: Duration,
    /// Share of messages that never arrive.
    pub(super) loss: f64,
    /// Share of repeatable requests that arrive twice.
    pub(super) repeated: f64,
}

impl Weather {
    pub(super) const FAIR: Self = Self {
        delay_min: Duration::from_millis(1),
        delay_max: Duration::from_millis(5),
        loss: 0.0,
        repeated: 0.0,
    };
}

/// The network: its weather, and which ways are cut.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) weather: Weather,
    /// One-way cuts, with how often each was made.
    cut: BTreeSet<(u32, Place, Place)>,
}

impl Net {
    pub(super) const fn new() -> Self {
        Self {
            weather: Weather::FAIR,
            cut: BTreeSet::new(),
        }
    }

    /// Cuts a way; `by` names the fault, so that overlapping ones heal apart.
    pub(super) fn cut(&mut self, by: u32, from: Place, to: Place) {
        self.cut.insert((by, from, to));
    }

    pub(super) fn heal(&mut self, by: u32) {
        self.cut.retain(|(fault, ..)| *fault != by);
    }

    pub(super) fn heal_all(&mut self) {
        self.cut.clear();
        self.weather = Weather::FAIR;
    }

    pub(super) fn passes(&self, from: Place, to: Place) -> bool {
        let mut cuts = self.cut.iter();
        !cuts.any(|(_, one, other)| (*one, *other) == (from, to))
    }

    /// After which delays copies of a message arrive.
    pub(super) fn delays(&self, random: &mut ChaCha8Rng, may_repeat: bool) -> Vec<Duration> {
        let weather = &self.weather;
        let mut delays = Vec::new();
        if !random.random_bool(weather.loss) {
            delays.push(random.random_range(weather.delay_min..=weather.delay_max));
        }
        if may_repeat && random.random_bool(weather.repeated) {
            delays.push(random.random_range(weather.delay_min..=weather.delay_max * 4));
        }
        delays
    }
}

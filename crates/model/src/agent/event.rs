//! What the agent's core hears and what it wants done.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guardian::StateHash;
use crate::ids::{Incarnation, JobId, Namespace, Nonce};
use crate::job::{Failure, IsolationClass, TaskSpec};
use crate::lease::{Claim, Fence, HeldJob, Lost};
use crate::matching::{Need, Offer, Unfit};

/// A demand store's address as the agent knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(Arc<str>);

impl StoreUrl {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for StoreUrl {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One claim of one job, unique over all stores and all time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey {
    /// Whose job it is.
    pub store: StoreUrl,
    /// The job.
    pub job: JobId,
    /// The claim's fence.
    pub fence: Fence,
}

impl RunKey {
    /// The key of a claim made at `store`.
    pub fn of(store: &StoreUrl, claim: &Claim) -> Self {
        Self {
            store: store.clone(),
            job: claim.job,
            fence: claim.fence,
        }
    }
}

impl fmt::Display for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.job, self.fence)
    }
}

/// A claim that a store granted, as far as the core looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The claim.
    pub claim: Claim,
    /// The job's namespace.
    pub namespace: Namespace,
    /// The task.
    pub spec: TaskSpec,
}

/// Why a request to a store brought no answer of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing was changed; the same request may succeed later.
    Unavailable {
        /// When the store wants to be asked again, if it said so.
        after: Option<Duration>,
    },
    /// The change may or may not have been made; only the same request settles it (DESIGN §3.12).
    Unknown,
    /// The incarnation of the request was declared dead; from now on the agent uses `fresh`, which is
    /// later. Requests that were refused for one incarnation give the same fresh one.
    Revoked {
        /// The incarnation to go on with.
        fresh: Incarnation,
    },
    /// The store will not do it, now or later.
    Refused,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// What was granted.
    pub grants: Vec<Grant>,
    /// Length of the lease from when the request was sent.
    pub lease: Duration,
}

/// The answer to a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Renewed {
    /// Listed claims that stand.
    pub held: Vec<JobId>,
    /// Listed claims that do not.
    pub lost: Vec<Lost>,
    /// Jobs of which a checkpoint is asked.
    pub checkpoint_wanted: Vec<JobId>,
    /// Digest of every claim that the store had for this run.
    pub state: StateHash,
    /// Length of the lease from when the request was sent.
    pub lease: Duration,
}

/// How a run or its preparation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The program ended with code 0.
    Success,
    /// It ended badly by itself, or never started.
    Failure(Failure),
    /// It ended because of [`Action::Stop`].
    Stopped,
}

/// A job that an ad announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedJob {
    /// The job.
    pub job: JobId,
    /// What it needs at least, as far as the ad tells.
    pub need: Need,
}

/// Names a direct offer, so that its answer finds the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId(pub u64);

/// Why an offered job is not taken; `mutual explain` shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why", content = "detail")]
pub enum Decline {
    /// It does not fit at this moment.
    #[error("does not fit: {0}")]
    Unfit(Unfit),
    /// The agent takes nothing new before it stops.
    #[error("the agent is shutting down")]
    Draining,
    /// The agent does not work for that store.
    #[error("the agent does not know that demand store")]
    UnknownStore,
    /// Too many results wait to be delivered.
    #[error("too many results wait for their store")]
    OutboxFull,
    /// The agent holds the job already or is about to claim it.
    #[error("the agent has that job already")]
    Known,
}

/// What happens to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Nothing but time.
    Tick,
    /// A store to work for. Known ones are left as they are.
    StoreAdded {
        /// Its address.
        store: StoreUrl,
        /// The agent's run, as this store shall know it.
        incarnation: Incarnation,
        /// Isolation classes offered to this store's users.
        classes: Vec<IsolationClass>,
    },
    /// Somebody offers jobs to this agent directly.
    Offered {
        /// Names the offer in its [`Action::Answer`].
        offer: OfferId,
        /// Where the jobs are.
        store: StoreUrl,
        /// The jobs, best first.
        jobs: Vec<JobId>,
        /// What each of them needs.
        need: Need,
        /// Whether they may be held ahead of the slots: somebody held them before and died.
        ahead: bool,
    },
    /// An ad was found that other agents read too.
    Advertised {
        /// Where the jobs are.
        store: StoreUrl,
        /// The jobs.
        jobs: Vec<AdvertisedJob>,
        /// About how many idle agents read it, this one included.
        idle: u32,
    },
    /// The answer to [`Action::Claim`].
    Claimed {
        /// The nonce of the request.
        nonce: Nonce,
        /// The store that answered.
        store: StoreUrl,
        /// What it said.
        reply: Result<Claimed, Trouble>,
    },
    /// The answer to [`Action::Renew`].
    Renewed {
        /// The store that answered.
        store: StoreUrl,
        /// What it said.
        reply: Result<Renewed, Trouble>,
    },
    /// A store says that something about this agent's jobs changed: renew now.
    Poked {
        /// The store.
        store: StoreUrl,
    },
    /// Image and input are there.
    Prepared {
        /// The run.
        key: RunKey,
    },
    /// The program runs.
    Started {
        /// The run.
        key: RunKey,
    },
    /// Preparation or program ended; comes exactly once per run.
    Ended {
        /// The run.
        key: RunKey,
        /// How.
        end: End,
    },
    /// A checkpoint was saved and acknowledged, or given up.
    Checkpointed {
        /// The run.
        key: RunKey,
        /// Whether it was acknowledged.
        saved: bool,
    },
    /// The finish is durable in the outbox.
    Recorded {
        /// The run.
        key: RunKey,
    },
    /// The store answered the finish, whatever it said.
    Concluded {
        /// The run.
        key: RunKey,
    },
    /// A release was answered or given up.
    Released {
        /// The run.
        key: RunKey,
    },
    /// The store refused a report because the claim is not current.
    Fenced {
        /// The run.
        key: RunKey,
    },
    /// Take nothing new; go on with what runs.
    Drain,
    /// Take nothing new, stop what runs and give it back.
    Shutdown,
}

/// Which jobs a claim is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// These.
    Jobs(Vec<JobId>),
    /// Whatever the store deems best.
    Any,
}

/// What an agent wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask a store for jobs; answer with [`Event::Claimed`], once for each action.
    Claim {
        /// Where.
        store: StoreUrl,
        /// The agent's run.
        incarnation: Incarnation,
        /// Names the request. A repeat has the same nonce, scope and offer.
        nonce: Nonce,
        /// Which jobs.
        scope: Scope,
        /// What there is to give.
        offer: Offer,
    },
    /// Renew all claims at a store; answer with [`Event::Renewed`], once for each action.
    Renew {
        /// Where.
        store: StoreUrl,
        /// The agent's run.
        incarnation: Incarnation,
        /// Everything held there.
        held: Vec<HeldJob>,
        /// Whether no claim is under way there, so that what is not listed is not held.
        complete: bool,
    },
    /// Fetch image and input; answer with [`Event::Prepared`] or [`Event::Ended`].
    Prepare {
        /// The run.
        key: RunKey,
        /// Where it is to run.
        class: IsolationClass,
    },
    /// Start the program; answer with [`Event::Started`] and later [`Event::Ended`].
    Start {
        /// The run.
        key: RunKey,
    },
    /// Freeze the program.
    Pause {
        /// The run.
        key: RunKey,
    },
    /// Let the program go on.
    Resume {
        /// The run.
        key: RunKey,
    },
    /// Break off preparation or kill the program; answer with [`Event::Ended`].
    Stop {
        /// The run.
        key: RunKey,
    },
    /// Save a checkpoint and report it; answer with [`Event::Checkpointed`].
    Checkpoint {
        /// The run.
        key: RunKey,
        /// Its number within the claim, from 1.
        sequence: u64,
    },
    /// Store output and log, put the finish into the outbox ([`Event::Recorded`]) and deliver it
    /// ([`Event::Concluded`]).
    Conclude {
        /// The run.
        key: RunKey,
        /// What went wrong, if anything.
        failure: Option<Failure>,
    },
    /// Give a claim back; answer with [`Event::Released`]. One try is enough: what is no longer
    /// listed is released by the store.
    Release {
        /// The run.
        key: RunKey,
        /// The claim.
        claim: Claim,
        /// Why, for people.
        reason: String,
    },
    /// Forget the run and remove what it left on the machine. The last word on every run.
    Discard {
        /// The run.
        key: RunKey,
    },
    /// Answer a direct offer.
    Answer {
        /// The offer.
        offer: OfferId,
        /// Jobs it goes for.
        taken: Vec<JobId>,
        /// Why it does not go for the others.
        declined: Option<Decline>,
    },
    /// After [`Event::Drain`] or [`Event::Shutdown`]: nothing runs here any more.
    Quiet,
}

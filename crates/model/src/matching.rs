//! Which task fits on which machine, and which machine goes first.
//!
//! [`Offer::fits`] is the one rule that agents, demand stores and candidates' finders share, so
//! that nobody claims what another part would refuse. Who is asked first is a [`Policy`]; who goes
//! first of many that read the same ad is rendezvous hashing (Thaler and Ravishankar, 1998): each
//! knows its own turn without talking to the others.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::NodeId;
use crate::ids::JobId;
use crate::job::{FieldError, IsolationClass, TaskSpec};
use crate::resources::Resources;

/// What an agent has to give at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// What is free.
    pub free: Resources,
    /// How many further tasks it takes, 1 to 1,024.
    pub slots: u32,
    /// Isolation classes it proved.
    pub classes: Vec<IsolationClass>,
    /// Its labels; a task's labels must all be among them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What of a task decides where it fits; the summary that ads and offers carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// What it uses.
    pub resources: Resources,
    /// Isolation asked for; `None` takes the strongest class offered.
    #[serde(default)]
    pub class: Option<IsolationClass>,
    /// Labels that an agent must carry.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl From<&TaskSpec> for Need {
    fn from(spec: &TaskSpec) -> Self {
        Self {
            resources: spec.resources,
            class: spec.class,
            labels: spec.labels.clone(),
        }
    }
}

/// Why a task does not fit on a machine, for `mutual explain`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "unfit")]
pub enum Unfit {
    /// All tasks it takes at once are there.
    #[error("no slot free")]
    Slots,
    /// Too little of a resource is free.
    #[error("{resource}: needs {need}, has {free} free")]
    Resource {
        /// Which.
        resource: String,
        /// What the task needs, in the resource's smallest unit.
        need: u64,
        /// What is free, in the same unit.
        free: u64,
    },
    /// The class asked for is not offered; a class is never downgraded (DESIGN §9).
    #[error("class {} is not offered", .class.map_or("any", IsolationClass::name))]
    Class {
        /// The class asked for; `None` if the machine offers none at all.
        class: Option<IsolationClass>,
    },
    /// A label is missing or has another value.
    #[error("label {label} is not {value:?} here")]
    Label {
        /// The label.
        label: String,
        /// The value asked for.
        value: String,
    },
}

impl Offer {
    /// Whether a task with this need fits.
    ///
    /// # Errors
    /// The first [`Unfit`] in the order slots, class, labels, resources.
    pub fn fits(&self, need: &Need) -> Result<(), Unfit> {
        self.fits_spec(&need.resources, need.class, &need.labels)
    }

    /// As [`Offer::fits`], from the parts of a task, for stores that look at many.
    ///
    /// # Errors
    /// As [`Offer::fits`].
    pub fn fits_spec(
        &self,
        resources: &Resources,
        class: Option<IsolationClass>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Unfit> {
        if self.slots == 0 {
            return Err(Unfit::Slots);
        }
        if self.class_for(class).is_none() {
            return Err(Unfit::Class { class });
        }
        self.carries(labels)?;
        shortage(&self.free, resources).map_or(Ok(()), Err)
    }

    /// The class a task would run in: the one asked for, else the strongest offered.
    pub fn class_for(&self, asked: Option<IsolationClass>) -> Option<IsolationClass> {
        match asked {
            Some(class) => self.classes.contains(&class).then_some(class),
            None => self.classes.iter().copied().max(),
        }
    }

    fn carries(&self, labels: &BTreeMap<String, String>) -> Result<(), Unfit> {
        let missing = labels
            .iter()
            .find(|(label, value)| self.labels.get(*label) != Some(*value));
        missing.map_or(Ok(()), |(label, value)| {
            Err(Unfit::Label {
                label: label.clone(),
                value: value.clone(),
            })
        })
    }
}

fn shortage(free: &Resources, need: &Resources) -> Option<Unfit> {
    let amounts = [
        ("cpus", need.cpu_millis.into(), free.cpu_millis.into()),
        ("memory", need.memory_bytes, free.memory_bytes),
        ("gpus", need.gpus.into(), free.gpus.into()),
        ("scratch", need.scratch_bytes, free.scratch_bytes),
    ];
    let (resource, need, free) = amounts.into_iter().find(|(_, need, free)| need > free)?;
    Some(Unfit::Resource {
        resource: resource.to_owned(),
        need,
        free,
    })
}

/// The longest an agent waits before it acts on an ad that others read too (DESIGN §5).
pub const HERD_DELAY_MAX: Duration = Duration::from_millis(200);
/// Time left to each idle agent in turn; covers one claim's way to the store and back.
const HERD_TURN: Duration = Duration::from_millis(10);

/// The rendezvous weight of `agent` for `job`; the heaviest goes first.
pub fn weight(job: &JobId, agent: &NodeId) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mutual rendezvous v1");
    hasher.update(job.0.as_bytes());
    hasher.update(agent.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

/// How long `agent` waits before it claims an advertised `job`, when about `idle` agents read the
/// same ad: nothing if it is alone, at most [`HERD_DELAY_MAX`], less the heavier its weight.
pub fn herd_delay(job: &JobId, agent: &NodeId, idle: u32) -> Duration {
    let span = HERD_TURN
        .saturating_mul(idle.saturating_sub(1))
        .min(HERD_DELAY_MAX);
    let lightness = u64::MAX - weight(job, agent);
    let micros = (u128::from(lightness) * span.as_micros()) >> 64;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// An agent that could be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The agent.
    pub agent: NodeId,
    /// What it has to give, as last heard.
    pub offer: Offer,
    /// When it was heard of: smaller is earlier. Decides `first_response`.
    pub heard: u64,
}

/// In which order agents that fit are asked.
pub trait Policy: Debug + Send + Sync {
    /// The name used in configuration.
    fn name(&self) -> &'static str;

    /// Sorts candidates that fit, the one to ask first in front. May remove some.
    fn order(&self, job: &JobId, need: &Need, candidates: &mut Vec<Candidate>);
}

/// Fills machines up: first the one with the least left over, by rendezvous among equals.
#[derive(Debug, Clone, Copy, Default)]
pub struct BestFit;

/// Spreads by rendezvous: the same order for everyone who asks about one job.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random;

/// In the order in which agents were heard of.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstResponse;

/// Only the agents that the user named, in the user's order.
#[derive(Debug, Clone, Default)]
pub struct UserChoice(pub Vec<NodeId>);

impl Policy for BestFit {
    fn name(&self) -> &'static str {
        "best_fit"
    }

    fn order(&self, job: &JobId, need: &Need, candidates: &mut Vec<Candidate>) {
        candidates.sort_by_cached_key(|candidate| {
            let left = candidate.offer.free.checked_sub(&need.resources);
            let left = left.unwrap_or(Resources::ZERO);
            let class = left.class();
            let idle = Reverse(weight(job, &candidate.agent));
            (left.gpus, class.memory, class.cpu, idle)
        });
    }
}

impl Policy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn order(&self, job: &JobId, _: &Need, candidates: &mut Vec<Candidate>) {
        candidates.sort_by_cached_key(|candidate| Reverse(weight(job, &candidate.agent)));
    }
}

impl Policy for FirstResponse {
    fn name(&self) -> &'static str {
        "first_response"
    }

    fn order(&self, _: &JobId, _: &Need, candidates: &mut Vec<Candidate>) {
        candidates.sort_by_key(|candidate| candidate.heard);
    }
}

impl Policy for UserChoice {
    fn name(&self) -> &'static str {
        "user_choice"
    }

    fn order(&self, _: &JobId, _: &Need, candidates: &mut Vec<Candidate>) {
        let rank = |agent: &NodeId| self.0.iter().position(|chosen| chosen == agent);
        candidates.retain(|candidate| rank(&candidate.agent).is_some());
        candidates.sort_by_key(|candidate| rank(&candidate.agent));
    }
}

/// The policies that need no further data, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyName {
    /// [`BestFit`].
    #[default]
    BestFit,
    /// [`Random`].
    Random,
    /// [`FirstResponse`].
    FirstResponse,
}

impl PolicyName {
    /// The policy.
    pub fn policy(self) -> Box<dyn Policy> {
        match self {
            Self::BestFit => Box::new(BestFit),
            Self::Random => Box::new(Random),
            Self::FirstResponse => Box::new(FirstResponse),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.policy().name())
    }
}

impl FromStr for PolicyName {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let known = [Self::BestFit, Self::Random, Self::FirstResponse];
        let found = known.into_iter().find(|name| name.policy().name() == text);
        found.ok_or_else(|| {
            let fix = "use best_fit, random or first_response, or name agents for user_choice";
            FieldError::new("policy", "unknown policy", fix)
        })
    }
}

/// The candidates that fit, in the policy's order.
pub fn choose(
    policy: &dyn Policy,
    job: &JobId,
    need: &Need,
    mut candidates: Vec<Candidate>,
) -> Vec<Candidate> {
    candidates.retain(|candidate| candidate.offer.fits(need).is_ok());
    policy.order(job, need, &mut candidates);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn job(n: u128) -> JobId {
        JobId(Uuid::from_u128(n))
    }

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn resources(cores: u32, gib: u64) -> Resources {
        Resources {
            cpu_millis: cores * 1_000,
            memory_bytes: gib << 30,
            ..Resources::ZERO
        }
    }

    fn offer(cores: u32, gib: u64) -> Offer {
        Offer {
            free: resources(cores, gib),
            slots: 2,
            classes: vec![IsolationClass::Process, IsolationClass::Container],
            labels: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        }
    }

    fn need(cores: u32, gib: u64) -> Need {
        Need {
            resources: resources(cores, gib),
            class: None,
            labels: BTreeMap::new(),
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Offer, &mut Need), expected: &str) {
        let (mut offer, mut need) = (offer(4, 8), need(4, 8));
        change(&mut offer, &mut need);
        let found = offer.fits(&need);
        assert_eq!(
            found.map_or_else(|e| e.to_string(), |()| "fits".into()),
            expected
        );
    }

    #[test]
    fn every_reason_not_to_fit_is_told() {
        check(|_, _| (), "fits");
        check(|offer, _| offer.slots = 0, "no slot free");
        check(|_, need| need.class = Some(IsolationClass::Process), "fits");
        check(
            |_, need| need.class = Some(IsolationClass::Vm),
            "class vm is not offered",
        );
        check(|offer, _| offer.classes.clear(), "class any is not offered");
        check(
            |_, need| drop(need.labels.insert("disk".into(), "tape".into())),
            "label disk is not \"tape\" here",
        );
        check(
            |_, need| need.resources.cpu_millis += 1,
            "cpus: needs 4001, has 4000 free",
        );
        check(
            |_, need| need.resources.gpus = 1,
            "gpus: needs 1, has 0 free",
        );
        check(
            |_, need| need.resources.scratch_bytes = 7,
            "scratch: needs 7, has 0 free",
        );
    }

    #[test]
    fn the_strongest_class_is_taken_unless_one_is_asked_for() {
        let offer = offer(1, 1);
        assert_eq!(offer.class_for(None), Some(IsolationClass::Container));
        let process = Some(IsolationClass::Process);
        assert_eq!(offer.class_for(process), process);
        assert_eq!(offer.class_for(Some(IsolationClass::Sandbox)), None);
    }

    #[test]
    fn a_herd_is_spread_over_at_most_the_limit_and_one_alone_never_waits() {
        let delays: Vec<_> = (0..200)
            .map(|n| herd_delay(&job(7), &node(n), 200))
            .collect();
        assert!(delays.iter().all(|delay| *delay <= HERD_DELAY_MAX));
        let early = delays.iter().filter(|d| **d < HERD_DELAY_MAX / 2).count();
        assert!(
            (60..140).contains(&early),
            "{early} of 200 in the first half"
        );
        assert_eq!(herd_delay(&job(7), &node(1), 1), Duration::ZERO);
        assert_eq!(herd_delay(&job(7), &node(1), 0), Duration::ZERO);
        assert!(herd_delay(&job(7), &node(1), 2) <= HERD_TURN);
    }

    #[test]
    fn rendezvous_gives_each_agent_its_share_of_jobs() {
        let mut firsts = [0_u32; 4];
        for n in 0..4_000 {
            let first = (0..4_u8).max_by_key(|agent| weight(&job(n), &node(*agent)));
            firsts[usize::from(first.unwrap())] += 1;
        }
        assert!(
            firsts.iter().all(|n| (850..1_150).contains(n)),
            "{firsts:?}"
        );
    }

    #[test]
    fn policies_order_what_fits() {
        let candidates = || {
            [(1, 16, 3), (2, 4, 2), (3, 1, 1), (4, 8, 4)]
                .map(|(agent, cores, heard)| Candidate {
                    agent: node(agent),
                    offer: offer(cores, 64),
                    heard,
                })
                .to_vec()
        };
        let ask = |policy: &dyn Policy| {
            let chosen = choose(policy, &job(1), &need(2, 1), candidates());
            chosen.iter().map(|c| c.agent.0[0]).collect::<Vec<_>>()
        };
        assert_eq!(ask(&BestFit), [2, 4, 1], "tightest first, 3 is too small");
        assert_eq!(ask(&FirstResponse), [2, 1, 4]);
        assert_eq!(ask(&UserChoice(vec![node(4), node(3), node(1)])), [4, 1]);
        let random = ask(&Random);
        assert_eq!(random.len(), 3);
        assert_eq!(random, ask(&Random), "the same for everyone who asks");
    }

    #[test]
    fn policy_names_read_back() {
        for name in ["best_fit", "random", "first_response"] {
            assert_eq!(name.parse::<PolicyName>().unwrap().to_string(), name);
        }
        assert!("luck".parse::<PolicyName>().is_err());
    }
}

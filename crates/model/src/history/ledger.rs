//! A history sorted by what it is about, so that each invariant looks at what concerns it alone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::deed::{Answer, Deed, Execution, Finish, Granted, Ground, Observation, Sight};
use crate::identity::NodeId;
use crate::ids::{Incarnation, JobId, Nonce};
use crate::job::JobState;
use crate::lease::{Claim, Fence, Holder};
use crate::time::Timestamp;

/// An observation's place in the list that was handed in.
pub(super) type Place = usize;

/// Everything said about one job.
#[derive(Debug, Default)]
pub(super) struct Job<'a> {
    pub(super) acknowledged: Vec<Place>,
    pub(super) missing: Vec<Place>,
    pub(super) grants: Vec<Grant<'a>>,
    /// Renewals that listed a claim as held.
    pub(super) kept: Vec<(Place, Claim)>,
    /// Checkpoints that were taken.
    pub(super) saved: Vec<(Place, Claim, u64)>,
    pub(super) releases: Vec<(Place, Claim)>,
    pub(super) finishes: Vec<(Place, &'a Finish)>,
    pub(super) cancels: Vec<(Place, Option<JobState>)>,
    pub(super) sights: Vec<(Place, &'a Sight)>,
    pub(super) runs: Vec<(Place, &'a Execution)>,
}

/// One granted claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant<'a> {
    pub(super) place: Place,
    pub(super) holder: Holder,
    pub(super) claim: Claim,
    pub(super) granted: &'a Granted,
}

/// Everything said by one incarnation.
#[derive(Debug, Default)]
pub(super) struct Run<'a> {
    /// What made the store extend its lease, in the order of the calls.
    pub(super) extensions: Vec<Place>,
    /// Complete lists of what it holds that the store may have taken in.
    pub(super) lists: Vec<(Place, &'a [Claim])>,
    /// Whether its renewals were observed at all.
    pub(super) renews: bool,
    pub(super) died: Option<Place>,
}

/// A verdict.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict {
    pub(super) place: Place,
    pub(super) incarnation: Incarnation,
    pub(super) ground: Option<Ground>,
}

impl Verdict {
    /// Whether it may have ended `run`.
    pub(super) fn concerns(&self, run: Incarnation) -> bool {
        match self.ground {
            Some(Ground::Superseded) => run < self.incarnation,
            Some(Ground::Closed | Ground::Silent) => run == self.incarnation,
            None => run <= self.incarnation,
        }
    }
}

/// The history as the invariants look at it.
#[derive(Debug)]
pub(super) struct Ledger<'a> {
    all: &'a [Observation],
    /// Places in the order in which the calls were made.
    pub(super) order: Vec<Place>,
    pub(super) jobs: BTreeMap<JobId, Job<'a>>,
    pub(super) runs: BTreeMap<Holder, Run<'a>>,
    pub(super) verdicts: BTreeMap<NodeId, Vec<Verdict>>,
    pub(super) sleeps: BTreeMap<NodeId, Vec<Place>>,
    /// Where each request for jobs was first made.
    pub(super) first_claims: BTreeMap<(Holder, Nonce), Place>,
    /// Openings and set clocks, after which nothing may expire for a lease.
    pub(super) graces: Vec<Place>,
    pub(super) epochs: Vec<(Place, u64)>,
    pub(super) expiries: Vec<(Place, &'a [JobId])>,
    pub(super) calms: Vec<(Place, Duration)>,
    lease_ms: u64,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(all: &'a [Observation]) -> Self {
        let mut order: Vec<Place> = (0..all.len()).collect();
        order.sort_by_key(|place| all[*place].called);
        let mut ledger = Self {
            all,
            jobs: BTreeMap::new(),
            runs: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            sleeps: BTreeMap::new(),
            first_claims: BTreeMap::new(),
            graces: Vec::new(),
            epochs: Vec::new(),
            expiries: Vec::new(),
            calms: Vec::new(),
            lease_ms: 0,
            order: Vec::new(),
        };
        for place in &order {
            ledger.enter(*place, &all[*place].deed);
        }
        ledger.order = order;
        ledger
    }

    pub(super) fn at(&self, place: Place) -> &'a Observation {
        &self.all[place]
    }

    pub(super) fn is_before(&self, one: Place, other: Place) -> bool {
        self.at(one).is_before(self.at(other))
    }

    /// Length of a lease; zero if the history does not say.
    pub(super) const fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// When a lease ends that was extended by the call at `place`, at the earliest.
    pub(super) fn lease_end(&self, place: Place) -> Timestamp {
        self.at(place).called.after(self.lease())
    }

    pub(super) fn run(&self, holder: Holder) -> Option<&Run<'a>> {
        self.runs.get(&holder)
    }

    /// Verdicts that may have ended an incarnation.
    pub(super) fn verdicts_on(&self, holder: Holder) -> impl Iterator<Item = &Verdict> {
        let verdicts = self.verdicts.get(&holder.agent).into_iter().flatten();
        verdicts.filter(move |verdict| verdict.concerns(holder.incarnation))
    }

    fn job(&mut self, job: JobId) -> &mut Job<'a> {
        self.jobs.entry(job).or_default()
    }

    fn enter(&mut self, place: Place, deed: &'a Deed) {
        match deed {
            Deed::Submit { answer, .. } => {
                if let Some(job) = answer.done() {
                    self.job(*job).acknowledged.push(place);
                }
            }
            Deed::Checkpoint {
                claim,
                sequence,
                answer: Answer::Done(()),
            } => self.job(claim.job).saved.push((place, *claim, *sequence)),
            Deed::Release { claim, .. } => self.job(claim.job).releases.push((place, *claim)),
            Deed::Finish(finish) => self.job(finish.claim.job).finishes.push((place, finish)),
            Deed::Cancel { job, answer } => {
                let state = answer.done().copied();
                self.job(*job).cancels.push((place, state));
            }
            Deed::Seen(sight) => self.job(sight.job).sights.push((place, sight)),
            Deed::Missing { job } => self.job(*job).missing.push(place),
            Deed::Ran(run) => self.job(run.job).runs.push((place, run)),
            Deed::Checkpoint { .. } => {}
            _ => self.enter_of_many(place, deed),
        }
    }

    /// What is about a holder, an agent or the store.
    fn enter_of_many(&mut self, place: Place, deed: &'a Deed) {
        match deed {
            Deed::Claim {
                holder,
                nonce,
                answer,
            } => self.enter_claim(place, *holder, *nonce, answer),
            Deed::Renew {
                holder,
                listed,
                complete,
                answer,
            } => self.enter_renewal(place, *holder, (listed, *complete), answer),
            Deed::Revoke {
                agent,
                incarnation,
                ground,
                answer,
            } => {
                let verdict = Verdict {
                    place,
                    incarnation: *incarnation,
                    ground: *ground,
                };
                if !matches!(answer, Answer::Refused | Answer::Done(false)) {
                    self.verdicts.entry(*agent).or_default().push(verdict);
                }
            }
            Deed::Died { holder } => self.runs.entry(*holder).or_default().died = Some(place),
            Deed::Slept { agent } => self.sleeps.entry(*agent).or_default().push(place),
            _ => self.enter_of_store(place, deed),
        }
    }

    fn enter_of_store(&mut self, place: Place, deed: &'a Deed) {
        match deed {
            Deed::Opened {
                epoch,
                lease_ms,
                reopened,
            } => {
                self.epochs.push((place, *epoch));
                self.lease_ms = self.lease_ms.max(*lease_ms);
                if *reopened {
                    self.graces.push(place);
                }
            }
            Deed::ClockSet => self.graces.push(place),
            Deed::Requeue {
                answer: Answer::Done(jobs),
            } => self.expiries.push((place, jobs)),
            Deed::Calm { within_ms } => {
                self.calms.push((place, Duration::from_millis(*within_ms)));
            }
            _ => {}
        }
    }

    fn enter_claim(
        &mut self,
        place: Place,
        holder: Holder,
        nonce: Nonce,
        answer: &'a Answer<Vec<Granted>>,
    ) {
        self.first_claims.entry((holder, nonce)).or_insert(place);
        let Some(granted) = answer.done().filter(|granted| !granted.is_empty()) else {
            return;
        };
        self.runs.entry(holder).or_default().extensions.push(place);
        for granted in granted {
            let claim = granted.claim;
            self.job(claim.job).grants.push(Grant {
                place,
                holder,
                claim,
                granted,
            });
        }
    }

    fn enter_renewal(
        &mut self,
        place: Place,
        holder: Holder,
        (listed, complete): (&'a [Claim], bool),
        answer: &'a Answer<Vec<Claim>>,
    ) {
        let run = self.runs.entry(holder).or_default();
        run.renews = true;
        if complete && *answer != Answer::Refused {
            run.lists.push((place, listed));
        }
        let Some(held) = answer.done() else {
            return;
        };
        run.extensions.push(place);
        for claim in held {
            self.job(claim.job).kept.push((place, *claim));
        }
    }
}

impl<'a> Job<'a> {
    /// Finishes that were answered, with whether the job was over then, and its state.
    pub(super) fn answered(&self) -> impl Iterator<Item = (Place, &'a Finish, bool, JobState)> {
        let finishes = self.finishes.iter();
        finishes.filter_map(|(place, finish)| {
            let (ended, state) = *finish.answer.done()?;
            Some((*place, *finish, ended, state))
        })
    }

    /// Every accepted word of a holder, which shows its claim in force.
    pub(super) fn signs_of_life(&self) -> Vec<(Place, Claim)> {
        let saved = self.saved.iter().map(|(place, claim, _)| (*place, *claim));
        let mut signs: Vec<_> = self.kept.iter().copied().chain(saved).collect();
        let mut known = std::collections::BTreeSet::new();
        for (place, finish, _, _) in self.answered() {
            // Later ones may be repeats, which are answered whatever became of the job.
            if known.insert(finish.claim) && !self.has_doubtful_finish(&finish.claim) {
                signs.push((place, finish.claim));
            }
        }
        signs
    }

    /// Whether a finish of this claim went unanswered, so that an accepted one may be its repeat.
    fn has_doubtful_finish(&self, claim: &Claim) -> bool {
        let mut finishes = self.finishes.iter();
        finishes.any(|(_, other)| other.claim == *claim && other.answer == Answer::Unknown)
    }

    /// The grant of a fence.
    pub(super) fn grant(&self, fence: Fence) -> Option<&Grant<'a>> {
        self.grants.iter().find(|grant| grant.claim.fence == fence)
    }
}

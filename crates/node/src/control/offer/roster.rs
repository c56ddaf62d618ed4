//! What was heard of agents in the last seconds, less what was offered to them since.

use std::collections::BTreeMap;
use std::time::Duration;

use mutual_demand::JobEvent;
use mutual_model::identity::NodeId;
use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::matching::{BestFit, Candidate, Offer, choose};
use mutual_model::resources::Resources;
use tokio::time::Instant;

use super::{FANOUT, Neighbour, OpenJob};

/// Word of an agent that is older than this is worth nothing (DESIGN §5: idle entries last 10 s).
const STALE_AFTER: Duration = Duration::from_secs(15);
/// How long an offer is counted against an agent whatever the DHT says of it: until its own word
/// can have caught up.
const SETTLES_AFTER: Duration = Duration::from_millis(500);
/// How long a dead agent's record may still be found (node records last 60 s).
const BURIED_FOR: Duration = Duration::from_secs(60);
/// Agents remembered.
const AGENTS_MAX: usize = 4_096;

/// Jobs whose place on an agent is remembered.
const PLACES_MAX: usize = 8_192;

/// Whether what agents are busy with counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Only agents known to have room.
    Known,
    /// Any agent that is large enough.
    Ignored,
}

/// What a job takes of an agent.
#[derive(Debug, Clone, Copy)]
struct Place {
    agent: NodeId,
    takes: Resources,
    /// Whether it was taken off what the agent has free.
    is_counted: bool,
}

#[derive(Debug)]
struct Entry {
    neighbour: Neighbour,
    heard: Instant,
    offered: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    agents: BTreeMap<NodeId, Entry>,
    /// Agents known to be dead, and since when.
    buried: BTreeMap<NodeId, Instant>,
    /// Where jobs were offered or are held.
    places: BTreeMap<JobId, Place>,
}

impl Roster {
    pub(super) fn learn(&mut self, neighbours: Vec<Neighbour>, now: Instant) {
        self.agents
            .retain(|_, entry| now.duration_since(entry.heard) < STALE_AFTER);
        self.buried
            .retain(|_, since| now.duration_since(*since) < BURIED_FOR);
        for neighbour in neighbours {
            self.learn_one(neighbour, now);
        }
    }

    /// Leaves an agent out until its last word in the DHT has expired.
    pub(super) fn bury(&mut self, agent: NodeId, now: Instant) {
        self.agents.remove(&agent);
        self.buried.insert(agent, now);
    }

    pub(super) fn is_buried(&self, agent: &NodeId) -> bool {
        self.buried.contains_key(agent)
    }

    pub(super) fn revive(&mut self, agent: &NodeId) {
        self.buried.remove(agent);
    }

    /// Free slots of all agents heard of lately.
    pub(super) fn room(&self, now: Instant) -> usize {
        let is_fresh = |entry: &&Entry| now.duration_since(entry.heard) < STALE_AFTER;
        let slots = |entry: &Entry| entry.neighbour.offer.slots as usize;
        self.agents.values().filter(is_fresh).map(slots).sum()
    }

    fn learn_one(&mut self, neighbour: Neighbour, now: Instant) {
        let id = neighbour.id();
        if self.buried.contains_key(&id) {
            return;
        }
        if let Some(entry) = self.agents.get_mut(&id) {
            let is_settled = |offered: Instant| now.duration_since(offered) >= SETTLES_AFTER;
            if entry.offered.is_none_or(is_settled) {
                entry.neighbour = neighbour;
                entry.offered = None;
            }
            entry.heard = now;
        } else if self.agents.len() < AGENTS_MAX {
            let entry = Entry {
                neighbour,
                heard: now,
                offered: None,
            };
            self.agents.insert(id, entry);
        }
    }

    /// The best agents for a job, at most [`FANOUT`]. What it needs is taken off the first, if that
    /// is known to have it.
    pub(super) fn take_best(
        &mut self,
        job: &OpenJob,
        load: Load,
        now: Instant,
        may_ask: impl Fn(&NodeId) -> bool,
    ) -> Vec<Neighbour> {
        let candidates = self.candidates(load, now, may_ask);
        let best = choose(&BestFit, &job.id, &job.need, candidates);
        if let Some(first) = best.first() {
            let agent = first.agent;
            let place = Place {
                agent,
                takes: job.need.resources,
                is_counted: load == Load::Known,
            };
            self.take(job.id, place, now);
        }
        let known = |candidate: &Candidate| self.agents.get(&candidate.agent);
        let chosen = best.iter().take(FANOUT).filter_map(known);
        chosen.map(|entry| entry.neighbour.clone()).collect()
    }

    /// Takes in where a job really is: the store knows better than any guess.
    pub(super) fn settle(&mut self, event: &JobEvent, now: Instant) {
        let Some(place) = self.places.get(&event.job).copied() else {
            return;
        };
        if !event.state.is_held() {
            self.give_back(&event.job, now);
        } else if event.state == JobState::Assigned
            && let Some(agent) = event.agent
            && !(place.is_counted && agent == place.agent)
        {
            self.give_back(&event.job, now);
            let is_counted = true;
            let place = Place {
                agent,
                is_counted,
                ..place
            };
            self.take(event.job, place, now);
        }
    }

    fn candidates(
        &self,
        load: Load,
        now: Instant,
        may_ask: impl Fn(&NodeId) -> bool,
    ) -> Vec<Candidate> {
        let is_fresh = |entry: &Entry| now.duration_since(entry.heard) < STALE_AFTER;
        self.agents
            .iter()
            .filter(|(id, entry)| is_fresh(entry) && may_ask(id))
            .map(|(id, entry)| Candidate {
                agent: *id,
                offer: entry.offer(load),
                heard: 0,
            })
            .collect()
    }

    fn take(&mut self, job: JobId, place: Place, now: Instant) {
        self.places.insert(job, place);
        if self.places.len() > PLACES_MAX {
            self.places.pop_first();
        }
        let entry = self.agents.get_mut(&place.agent);
        let Some(entry) = entry.filter(|_| place.is_counted) else {
            return;
        };
        let offer = &mut entry.neighbour.offer;
        if let Some(left) = offer.free.checked_sub(&place.takes) {
            offer.free = left;
        }
        offer.slots = offer.slots.saturating_sub(1);
        entry.offered = Some(now);
    }

    fn give_back(&mut self, job: &JobId, now: Instant) {
        let place = self.places.remove(job).filter(|place| place.is_counted);
        let Some(place) = place else {
            return;
        };
        let Some(entry) = self.agents.get_mut(&place.agent) else {
            return;
        };
        let (total, offer) = (entry.neighbour.total, &mut entry.neighbour.offer);
        let free = offer.free.saturating_add(&place.takes);
        if total.fits(&free) {
            offer.free = free;
        }
        offer.slots = offer.slots.saturating_add(1);
        entry.offered = Some(now);
    }
}

impl Entry {
    fn offer(&self, load: Load) -> Offer {
        let offer = self.neighbour.offer.clone();
        match load {
            Load::Known => offer,
            // A node without any class runs no tasks, however large it is.
            Load::Ignored => Offer {
                free: self.neighbour.total,
                slots: u32::from(!offer.classes.is_empty()),
                ..offer
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutual_model::identity::NodeKey;
    use mutual_model::ids::JobId;
    use mutual_model::job::IsolationClass;
    use mutual_model::matching::{Need, Offer};
    use mutual_model::resources::Resources;
    use mutual_model::time::UnixMillis;

    fn neighbour(seed: u8, slots: u32) -> Neighbour {
        let total = Resources {
            cpu_millis: 4_000,
            memory_bytes: 1 << 30,
            ..Resources::ZERO
        };
        Neighbour {
            node: NodeKey::from_seed(&[seed; 32]).public(),
            udp: vec![],
            http: vec![],
            total,
            offer: Offer {
                free: total,
                slots,
                classes: vec![IsolationClass::Container],
                labels: BTreeMap::new(),
            },
        }
    }

    fn job(number: u64) -> OpenJob {
        OpenJob {
            id: JobId::new(UnixMillis(number), [7; 10]),
            namespace: "lab".parse().unwrap(),
            need: Need {
                resources: Resources {
                    cpu_millis: 1_000,
                    memory_bytes: 1 << 20,
                    ..Resources::ZERO
                },
                class: None,
                labels: BTreeMap::new(),
            },
            recovered: false,
        }
    }

    #[test]
    fn what_is_offered_is_taken_off_until_the_agent_speaks_again() {
        let start = Instant::now();
        let mut roster = Roster::default();
        roster.learn(vec![neighbour(1, 1)], start);
        assert_eq!(
            roster
                .take_best(&job(1), Load::Known, start, |_| true)
                .len(),
            1
        );
        assert_eq!(roster.take_best(&job(2), Load::Known, start, |_| true), []);
        // Word that was on its way when the job was offered does not count yet.
        roster.learn(vec![neighbour(1, 1)], start + SETTLES_AFTER / 2);
        assert_eq!(roster.take_best(&job(2), Load::Known, start, |_| true), []);
        roster.learn(vec![neighbour(1, 1)], start + SETTLES_AFTER);
        let later = start + SETTLES_AFTER;
        assert_eq!(
            roster
                .take_best(&job(2), Load::Known, later, |_| true)
                .len(),
            1
        );
    }

    fn event(job: &OpenJob, state: JobState, agent: &Neighbour) -> JobEvent {
        JobEvent {
            sequence: 1,
            at: UnixMillis(1),
            job: job.id,
            namespace: job.namespace.clone(),
            state,
            claim: None,
            agent: Some(agent.id()),
            reason: None,
        }
    }

    #[test]
    fn the_store_says_who_really_has_a_job_and_when_its_place_is_free() {
        let start = Instant::now();
        let mut roster = Roster::default();
        let (one, other) = (neighbour(1, 1), neighbour(2, 1));
        roster.learn(vec![one.clone(), other.clone()], start);
        let first = roster.take_best(&job(1), Load::Known, start, |id| *id == one.id());
        assert_eq!(first[0].id(), one.id());
        roster.settle(&event(&job(1), JobState::Assigned, &other), start);
        let next = roster.take_best(&job(2), Load::Known, start, |_| true);
        assert_eq!(next[0].id(), one.id());
        assert_eq!(roster.take_best(&job(3), Load::Known, start, |_| true), []);
        let large = roster.take_best(&job(3), Load::Ignored, start, |_| true);
        assert_eq!(large.len(), 2);
        roster.settle(&event(&job(3), JobState::Cancelled, &one), start);
        roster.settle(&event(&job(1), JobState::Succeeded, &other), start);
        let freed = roster.take_best(&job(4), Load::Known, start, |id| *id == other.id());
        assert_eq!(freed.len(), 1);
    }

    #[test]
    fn what_was_offered_blindly_counts_only_once_the_store_says_who_has_it() {
        let start = Instant::now();
        let mut roster = Roster::default();
        let full = neighbour(1, 0);
        roster.learn(vec![full.clone()], start);
        assert_eq!(roster.take_best(&job(1), Load::Known, start, |_| true), []);
        let asked = roster.take_best(&job(1), Load::Ignored, start, |_| true);
        assert_eq!(asked.len(), 1);
        roster.settle(&event(&job(1), JobState::Cancelled, &full), start);
        assert_eq!(roster.room(start), 0, "nothing is free that was not");
        roster.take_best(&job(2), Load::Ignored, start, |_| true);
        roster.settle(&event(&job(2), JobState::Assigned, &full), start);
        roster.settle(&event(&job(2), JobState::Succeeded, &full), start);
        assert_eq!(roster.room(start), 1, "its place is free now");
    }

    #[test]
    fn the_dead_are_left_out_until_they_return() {
        let start = Instant::now();
        let mut roster = Roster::default();
        let one = neighbour(1, 4);
        roster.learn(vec![one.clone()], start);
        assert_eq!(roster.room(start), 4);
        roster.bury(one.id(), start);
        roster.learn(vec![one.clone()], start);
        assert_eq!(roster.room(start), 0);
        roster.revive(&one.id());
        roster.learn(vec![one], start);
        assert_eq!(roster.room(start), 4);
    }

    #[test]
    fn the_silent_and_the_asked_are_left_out() {
        let start = Instant::now();
        let mut roster = Roster::default();
        roster.learn(
            vec![neighbour(1, 4), neighbour(2, 4), neighbour(3, 4)],
            start,
        );
        assert_eq!(
            roster
                .take_best(&job(1), Load::Known, start, |_| true)
                .len(),
            2
        );
        let one = neighbour(1, 4).id();
        let others = roster.take_best(&job(1), Load::Known, start, |id| *id != one);
        assert_eq!(others.len(), 2);
        let late = start + STALE_AFTER;
        assert_eq!(roster.take_best(&job(1), Load::Known, late, |_| true), []);
    }
}

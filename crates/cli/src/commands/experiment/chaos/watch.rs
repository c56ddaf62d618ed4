//! The states of all jobs over time, by the demand store's own events.

use std::collections::BTreeMap;
use std::time::Duration;

use mutual_node::model::ids::JobId;
use mutual_node::model::job::JobState;

use crate::client::Client;
use crate::failure::{Kind, Outcome};

/// Events in one answer.
const EVENTS_MAX: u32 = 5_000;

/// What was heard so far.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    next: u64,
    states: BTreeMap<JobId, JobState>,
    /// Times that each job entered `succeeded`: once, if all is well.
    successes: BTreeMap<JobId, usize>,
}

impl Watch {
    /// Hears what is new. False if the store does not answer just now.
    pub(crate) async fn look(&mut self, client: &Client) -> Outcome<bool> {
        loop {
            let page = match client.events(self.next, EVENTS_MAX).await {
                Err(failure) if failure.kind == Kind::Unavailable => return Ok(false),
                answered => answered?,
            };
            let is_last = page.events.len() < EVENTS_MAX as usize;
            self.next = page.next;
            for event in page.events {
                let before = self.states.insert(event.job, event.state);
                let is_new = before != Some(JobState::Succeeded);
                if event.state == JobState::Succeeded && is_new {
                    *self.successes.entry(event.job).or_default() += 1;
                }
            }
            if is_last {
                return Ok(true);
            }
        }
    }

    /// How many jobs stand where.
    pub(crate) fn counts(&self) -> BTreeMap<JobState, usize> {
        let mut counts = BTreeMap::new();
        for state in self.states.values() {
            *counts.entry(*state).or_default() += 1;
        }
        counts
    }

    /// Jobs that are over, however.
    pub(crate) fn over(&self) -> usize {
        let states = self.states.values();
        states.filter(|state| state.is_terminal()).count()
    }

    /// Finishes that were accepted though one had been before.
    pub(crate) fn accepted_twice(&self) -> usize {
        self.successes.values().map(|times| times - 1).sum()
    }
}

/// How often the store is asked: rarely enough to leave the machine to the work.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

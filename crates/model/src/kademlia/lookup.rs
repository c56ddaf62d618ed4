//! An iterative look-up: ask the nearest known nodes for nearer ones until none is left to ask.

use super::message::Request;
use super::{Contact, Distance, Key};
use crate::record::SignedRecord;
use crate::time::Timestamp;

/// Candidates remembered; the farthest are dropped.
const CANDIDATES_MAX: usize = 64;
/// Pages taken from one holder of a dictionary.
const PAGES_MAX: u16 = 128;
/// Entries taken in all.
const ENTRIES_MAX: usize = 1_024;

/// What a look-up is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// The nearest nodes.
    Nodes,
    /// Entries; enough once this many holders delivered some.
    Values { quorum: usize },
}

/// Whom the result is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A query from outside.
    Query(u64),
    /// A record to be stored at the nodes found.
    Publication(Key),
    /// To get to know this node's neighbours.
    Join,
    /// To get to know a part of the space.
    Refresh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    /// Asked, and late: others are asked meanwhile.
    Slow,
    Answered,
    Failed,
}

#[derive(Debug, Clone)]
struct Candidate {
    distance: Distance,
    contact: Contact,
    state: State,
    pages: u16,
    delivered: bool,
}

/// An entry found, and until when it stands.
#[derive(Debug, Clone)]
pub(super) struct Sighting {
    pub(super) subkey: Key,
    pub(super) signed: SignedRecord,
    pub(super) expires: Timestamp,
}

/// One look-up under way.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    pub(super) target: Key,
    pub(super) goal: Goal,
    pub(super) purpose: Purpose,
    pub(super) deadline: Timestamp,
    /// How many of the nearest nodes must have answered.
    width: usize,
    /// Nearest first.
    candidates: Vec<Candidate>,
    found: Vec<Sighting>,
    /// Entries whose publisher's certificate is on its way.
    pub(super) unproven: Vec<(Contact, Sighting)>,
    /// Holders that delivered, this node's own store included.
    pub(super) holders: usize,
}

impl Lookup {
    pub(super) fn new(
        target: Key,
        goal: Goal,
        purpose: Purpose,
        width: usize,
        deadline: Timestamp,
    ) -> Self {
        Self {
            target,
            goal,
            purpose,
            deadline,
            width,
            candidates: Vec::new(),
            found: Vec::new(),
            unproven: Vec::new(),
            holders: 0,
        }
    }

    /// What each candidate is asked.
    pub(super) const fn question(&self) -> Request {
        match self.goal {
            Goal::Nodes => Request::FindNode {
                target: self.target,
            },
            Goal::Values { .. } => Request::FindValue {
                key: self.target,
                after: None,
            },
        }
    }

    /// Adds nodes heard of; known ones change nothing.
    pub(super) fn add(&mut self, contacts: impl IntoIterator<Item = Contact>, me: &Key) {
        for contact in contacts {
            if contact.id() == me {
                continue;
            }
            let distance = contact.id().distance(&self.target);
            let at = self
                .candidates
                .binary_search_by_key(&distance, |candidate| candidate.distance);
            if let Err(at) = at
                && at < CANDIDATES_MAX
            {
                let candidate = Candidate {
                    distance,
                    contact,
                    state: State::Fresh,
                    pages: 0,
                    delivered: false,
                };
                self.candidates.insert(at, candidate);
                self.candidates.truncate(CANDIDATES_MAX);
            }
        }
    }

    /// Whom to ask next, if another may be asked with `parallel` at a time.
    pub(super) fn next(&mut self, parallel: usize) -> Option<Contact> {
        let asked = self.candidates.iter().filter(|c| c.state == State::Asked);
        if asked.count() >= parallel {
            return None;
        }
        let mut answered = 0;
        for candidate in &mut self.candidates {
            match candidate.state {
                State::Answered => answered += 1,
                State::Fresh => {
                    candidate.state = State::Asked;
                    return Some(candidate.contact);
                }
                State::Asked | State::Slow | State::Failed => {}
            }
            if answered >= self.width {
                return None;
            }
        }
        None
    }

    /// Whether only late answers are awaited and nobody else can be asked.
    pub(super) fn is_stuck(&self) -> bool {
        let waits = |c: &Candidate| matches!(c.state, State::Fresh | State::Asked);
        !self.candidates.iter().any(waits)
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_done(&self) -> bool {
        if let Goal::Values { quorum } = self.goal
            && self.holders >= quorum
            && self.unproven.is_empty()
        {
            return true;
        }
        let mut answered = 0;
        let mut waiting = !self.unproven.is_empty();
        for candidate in &self.candidates {
            match candidate.state {
                State::Answered => answered += 1,
                State::Fresh | State::Asked => return false,
                State::Slow => waiting = true,
                State::Failed => {}
            }
            if answered >= self.width {
                return self.unproven.is_empty();
            }
        }
        !waiting
    }

    pub(super) fn answered(&mut self, id: &Key) {
        if let Some(candidate) = self.candidate(id)
            && candidate.state != State::Answered
        {
            candidate.state = State::Answered;
            self.holders += usize::from(candidate.delivered);
        }
    }

    pub(super) fn failed(&mut self, id: &Key) {
        self.mark(id, State::Failed);
    }

    pub(super) fn slow(&mut self, id: &Key) {
        self.mark(id, State::Slow);
    }

    fn mark(&mut self, id: &Key, state: State) {
        // A late loss takes nothing back: the same question may have gone out twice.
        if let Some(candidate) = self.candidate(id)
            && candidate.state != State::Answered
        {
            candidate.state = state;
        }
    }

    fn candidate(&mut self, id: &Key) -> Option<&mut Candidate> {
        let distance = id.distance(&self.target);
        let at = self
            .candidates
            .binary_search_by_key(&distance, |candidate| candidate.distance);
        at.ok().map(|at| &mut self.candidates[at])
    }

    /// Whether to take another page from this holder.
    pub(super) fn wants_page(&mut self, id: &Key) -> bool {
        let full = self.found.len() >= ENTRIES_MAX;
        self.candidate(id).is_some_and(|candidate| {
            candidate.pages += 1;
            candidate.pages < PAGES_MAX && !full
        })
    }

    /// Notes that `id` delivered an entry that may be believed.
    pub(super) fn delivered(&mut self, id: &Key) {
        if let Some(candidate) = self.candidate(id) {
            let late = candidate.state == State::Answered && !candidate.delivered;
            candidate.delivered = true;
            self.holders += usize::from(late);
        }
    }

    /// Takes an entry that passed all checks; the newest of each subkey stays.
    pub(super) fn take(&mut self, sighting: Sighting) {
        let known = self
            .found
            .iter()
            .position(|known| known.subkey == sighting.subkey);
        match known {
            Some(at) if sighting.signed.supersedes(&self.found[at].signed) => {
                self.found[at] = sighting;
            }
            None if self.found.len() < ENTRIES_MAX => self.found.push(sighting),
            Some(_) | None => {}
        }
    }

    /// Whether this very entry was checked already.
    pub(super) fn has(&self, record: &[u8]) -> bool {
        self.found
            .iter()
            .any(|known| **known.signed.bytes() == *record)
    }

    /// The entries found.
    pub(super) fn into_found(self) -> Vec<Sighting> {
        self.found
    }

    /// The nearest nodes that answered, nearest first.
    pub(super) fn closest(&self, count: usize) -> Vec<Contact> {
        let answered = self
            .candidates
            .iter()
            .filter(|c| c.state == State::Answered);
        answered.map(|c| c.contact).take(count).collect()
    }
}

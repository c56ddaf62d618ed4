//! An agent's choice of guardians: the nearest that accept, replaced when they go.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::identity::NodeId;
use crate::kademlia::{Distance, Key};
use crate::time::Timestamp;

/// How an agent keeps its guardians.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircleConfig {
    /// How many it wants.
    pub size: usize,
    /// How long one may take to answer.
    pub answer_within: Duration,
    /// How long one that refused, was lost or did not answer is left alone.
    pub avoid_for: Duration,
    /// How often it looks for nearer ones.
    pub look_every: Duration,
    /// Shortest pause between two looks while guardians are missing.
    pub look_pause: Duration,
}

impl Default for CircleConfig {
    /// Three guardians (DESIGN §7), 1 s to answer, left alone for 30 s, a look each minute and, while
    /// some are missing, each second.
    fn default() -> Self {
        Self {
            size: 3,
            answer_within: Duration::from_secs(1),
            avoid_for: Duration::from_secs(30),
            look_every: Duration::from_secs(60),
            look_pause: Duration::from_secs(1),
        }
    }
}

/// What happens to an agent's circle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CircleEvent {
    /// Nothing but time.
    Tick,
    /// The answer to [`CircleAction::Look`]: nodes that may be guardians.
    Found(Vec<NodeId>),
    /// A node accepted, or refused.
    Answered {
        /// Which.
        guardian: NodeId,
        /// Whether it watches from now on.
        accepted: bool,
    },
    /// A guardian's session ended, or it cannot be reached.
    Lost {
        /// Which.
        guardian: NodeId,
    },
}

/// What a circle wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CircleAction {
    /// Ask a node to watch; answer with [`CircleEvent::Answered`]. Heartbeats go to it from its
    /// acceptance on.
    Ask {
        /// Which.
        guardian: NodeId,
    },
    /// It is not needed any more: end its session and send it no more heartbeats.
    Dismiss {
        /// Which.
        guardian: NodeId,
    },
    /// Find nodes; answer with [`CircleEvent::Found`].
    Look,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Asked(Timestamp),
    Watching,
}

/// The core that keeps an agent's guardians.
#[derive(Debug)]
pub struct Circle {
    own: NodeId,
    config: CircleConfig,
    /// Nearest first.
    candidates: BTreeMap<Distance, NodeId>,
    members: BTreeMap<NodeId, Place>,
    avoided: BTreeMap<NodeId, Timestamp>,
    look_due: Timestamp,
    /// Looks in a row that found nobody new.
    fruitless: u32,
}

impl Circle {
    /// A circle without members, that looks for some at once.
    pub const fn new(own: NodeId, config: CircleConfig) -> Self {
        Self {
            own,
            config,
            candidates: BTreeMap::new(),
            members: BTreeMap::new(),
            avoided: BTreeMap::new(),
            look_due: Timestamp::ZERO,
            fruitless: 0,
        }
    }

    /// Takes in what happened and returns what is to be done, in order.
    pub fn handle(&mut self, now: Timestamp, event: CircleEvent) -> Vec<CircleAction> {
        let mut out = Vec::new();
        match event {
            CircleEvent::Tick => {}
            CircleEvent::Found(nodes) => self.on_found(now, nodes),
            CircleEvent::Answered { guardian, accepted } => {
                self.on_answered(now, guardian, accepted)
            }
            CircleEvent::Lost { guardian } => self.leave_alone(now, guardian),
        }
        self.pass_time(now);
        self.ask(now, &mut out);
        self.dismiss(&mut out);
        self.look(now, &mut out);
        out
    }

    /// The latest moment for the next [`CircleEvent::Tick`].
    pub fn next_wake(&self) -> Timestamp {
        let asked = self.members.values().filter_map(|place| match place {
            Place::Asked(since) => Some(since.after(self.config.answer_within)),
            Place::Watching => None,
        });
        asked.fold(self.look_due, Timestamp::min)
    }

    /// Whether a node watches or was asked to.
    pub fn has(&self, node: &NodeId) -> bool {
        self.members.contains_key(node)
    }

    /// Those that accepted.
    pub fn watching(&self) -> impl Iterator<Item = NodeId> {
        let members = self.members.iter();
        let watching = members.filter(|(_, place)| **place == Place::Watching);
        watching.map(|(guardian, _)| *guardian)
    }

    fn distance(&self, node: &NodeId) -> Distance {
        Key::new(self.own.0).distance(&Key::new(node.0))
    }

    fn on_found(&mut self, now: Timestamp, nodes: Vec<NodeId>) {
        self.look_due = now.after(self.config.look_every);
        let others = nodes.into_iter().filter(|node| *node != self.own);
        let found = others.map(|node| (self.distance(&node), node)).collect();
        self.fruitless = match found == self.candidates {
            true => self.fruitless + 1,
            false => 0,
        };
        self.candidates = found;
    }

    fn on_answered(&mut self, now: Timestamp, guardian: NodeId, accepted: bool) {
        match self.members.get_mut(&guardian) {
            Some(place) if accepted => *place = Place::Watching,
            Some(_) => self.leave_alone(now, guardian),
            None => {}
        }
    }

    fn leave_alone(&mut self, now: Timestamp, guardian: NodeId) {
        if self.members.remove(&guardian).is_some() {
            self.fruitless = 0;
            self.avoided
                .insert(guardian, now.after(self.config.avoid_for));
        }
    }

    fn pass_time(&mut self, now: Timestamp) {
        self.avoided.retain(|_, until| *until > now);
        let answer_within = self.config.answer_within;
        let is_late = |place: &Place| matches!(place, Place::Asked(since) if since.after(answer_within) <= now);
        let late: Vec<_> = self
            .members
            .iter()
            .filter(|(_, place)| is_late(place))
            .map(|(id, _)| *id)
            .collect();
        for guardian in late {
            self.leave_alone(now, guardian);
        }
    }

    /// The nearest nodes that may be asked, as many as are wanted.
    fn wanted(&self) -> BTreeSet<NodeId> {
        let nearest = self.candidates.values();
        let free = nearest.filter(|node| !self.avoided.contains_key(node));
        free.take(self.config.size).copied().collect()
    }

    fn ask(&mut self, now: Timestamp, out: &mut Vec<CircleAction>) {
        for guardian in self.wanted() {
            if let Entry::Vacant(place) = self.members.entry(guardian) {
                place.insert(Place::Asked(now));
                out.push(CircleAction::Ask { guardian });
            }
        }
    }

    /// Lets go of the farthest once enough nearer ones watch; never before.
    fn dismiss(&mut self, out: &mut Vec<CircleAction>) {
        let mut watching: Vec<_> = self.watching().collect();
        watching.sort_unstable_by_key(|node| self.distance(node));
        for guardian in watching.into_iter().skip(self.config.size) {
            self.members.remove(&guardian);
            out.push(CircleAction::Dismiss { guardian });
        }
    }

    /// Looks around every so often, and sooner while members are missing: a small cloud may have no
    /// more, so it looks more and more rarely for them.
    fn look(&mut self, now: Timestamp, out: &mut Vec<CircleAction>) {
        let pause = self.config.look_pause * 2_u32.saturating_pow(self.fruitless.min(16));
        let pause = pause.min(self.config.look_every);
        if self.members.len() < self.config.size {
            self.look_due = self.look_due.min(now.after(pause));
        }
        if self.look_due <= now {
            self.look_due = now.after(pause);
            out.push(CircleAction::Look);
        }
    }
}

//! Loads in a given order on one link: their starts, and whether the stage has room for them.
//!
//! Here a load has a deadline and a moment at which its image leaves, which need not be the same: an image that serves several due
//! dates must be there for the first and stays until after the last. O(n log n), and O(n) where departures come nearly in order.

use crate::Model;

/// One load, however many it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) size: u64,
    /// How long the link takes for it.
    pub(crate) loading: u64,
    /// When it must have ended.
    pub(crate) deadline: u64,
    /// When its image leaves the stage, not before the deadline.
    pub(crate) leaves: u64,
}

/// An image that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    pub(crate) leaves: u64,
    pub(crate) size: u64,
}

/// A stage and a link, and what is there already.
#[derive(Debug)]
pub(crate) struct Timeline<'a> {
    pub(crate) model: Model,
    pub(crate) capacity: u64,
    /// From when the link is free.
    pub(crate) free_from: u64,
    /// By departure.
    pub(crate) held: &'a [Held],
    /// Bytes that arrive in a unit of time, where load times are rounded up; `None` if each image arrives evenly over its load time.
    pub(crate) rate: Option<u64>,
}

/// Why an order is not possible, and where this shows first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The load at this place ends after its deadline.
    Late(usize),
    /// There is never room for the load at this place while the deadlines of others hold.
    Full(usize),
}

impl Obstacle {
    /// The load that cannot be placed.
    pub(crate) const fn place(self) -> usize {
        match self {
            Self::Late(place) | Self::Full(place) => place,
        }
    }
}

impl<'a> Timeline<'a> {
    /// The earliest starts in an order. If any starts are possible, these are: while a later load is under way, an earlier one is there in
    /// whole anyhow.
    pub(crate) fn earliest(&self, works: &[Work]) -> Result<Vec<u64>, Obstacle> {
        let mut stage = self.stage();
        let mut starts = Vec::with_capacity(works.len());
        for (place, work) in works.iter().enumerate() {
            starts.push(stage.load(self, work).map_err(|wait| wait.at(place))?);
        }
        Ok(starts)
    }

    /// The same order with the latest starts: a load that waits gives room to what comes in between.
    pub(crate) fn latest(works: &[Work]) -> Vec<u64> {
        let mut free_until = u64::MAX;
        let mut starts: Vec<_> = works
            .iter()
            .rev()
            .map(|work| {
                free_until = work.deadline.min(free_until).saturating_sub(work.loading);
                free_until
            })
            .collect();
        starts.reverse();
        starts
    }

    /// The stage and the link before the first load.
    pub(crate) fn stage(&self) -> Stage {
        Stage {
            free_from: self.free_from,
            leaving: self.held.to_vec(),
            gone: 0,
            held: self.held.iter().map(|held| u128::from(held.size)).sum(),
        }
    }

    /// The first moment from `free_from` on at which a load may start beside images that leave one after the other and have so many bytes together;
    /// `None` if there is no room before the image itself leaves.
    ///
    /// Which loads come before decides it, not when they start: so what an order allows can be told for each load apart.
    pub(crate) fn first_room<'b>(
        &self,
        free_from: u64,
        work: &Work,
        leaving: impl Iterator<Item = &'b Held>,
        mut held: u128,
    ) -> Option<u64> {
        // A load that came sooner than planned may be there before what it waited for has left.
        let capacity = u128::from(self.capacity);
        let mut start = free_from;
        for departure in leaving {
            let room = capacity.saturating_sub(held);
            if u128::from(work.size) <= room {
                break;
            }
            if departure.leaves >= work.leaves {
                return None;
            }
            start = start.max(departure.leaves.saturating_sub(self.ahead(room, work)));
            held -= u128::from(departure.size);
        }
        (u128::from(work.size) <= capacity.saturating_sub(held)).then_some(start)
    }

    /// How long before a departure a load may start that has only so much room until then.
    fn ahead(&self, room: u128, work: &Work) -> u64 {
        match self.model {
            Model::Integral => 0,
            Model::Continuous => {
                let ahead = match self.rate {
                    Some(rate) => room / u128::from(rate.max(1)),
                    None => room * u128::from(work.loading) / u128::from(work.size),
                };
                u64::try_from(ahead).unwrap_or(u64::MAX)
            }
        }
    }
}

/// Why a load cannot be placed after those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Link,
    Room,
}

impl Wait {
    const fn at(self, place: usize) -> Obstacle {
        match self {
            Self::Link => Obstacle::Late(place),
            Self::Room => Obstacle::Full(place),
        }
    }
}

/// Link and stage as loads are added in the order of their starts.
#[derive(Debug)]
pub(crate) struct Stage {
    free_from: u64,
    /// Departures, by moment; the first so many are over.
    leaving: Vec<Held>,
    gone: usize,
    /// Bytes of it.
    pub(crate) held: u128,
}

impl Stage {
    /// Adds a load as early as it can start.
    fn load(&mut self, timeline: &Timeline<'_>, work: &Work) -> Result<u64, Wait> {
        if self.free_from.saturating_add(work.loading) > work.deadline {
            return Err(Wait::Link);
        }
        let free_from = self.free_from;
        self.pass(free_from);
        let start = timeline.first_room(free_from, work, self.leaving().iter(), self.held);
        let start = start.filter(|start| start.saturating_add(work.loading) <= work.deadline);
        let start = start.ok_or(Wait::Room)?;
        self.free_from = start + work.loading;
        self.put(work);
        Ok(start)
    }

    /// Departures of what is held, by moment.
    pub(crate) fn leaving(&self) -> &[Held] {
        &self.leaving[self.gone..]
    }

    /// What has left by a moment is gone.
    pub(crate) fn pass(&mut self, moment: u64) {
        let leaving = &self.leaving[self.gone..];
        let over = leaving.iter().take_while(|first| first.leaves <= moment);
        for first in over {
            self.held -= u128::from(first.size);
            self.gone += 1;
        }
    }

    /// Departures come nearly in order, so that little is moved.
    pub(crate) fn put(&mut self, work: &Work) {
        let (leaves, size) = (work.leaves, work.size);
        let later = self.leaving().iter().rev();
        let later = later.take_while(|other| other.leaves > leaves).count();
        let place = self.leaving.len() - later;
        self.leaving.insert(place, Held { leaves, size });
        self.held += u128::from(size);
    }

    /// The same without what is over.
    fn saved(&self) -> Self {
        Self {
            free_from: self.free_from,
            leaving: self.leaving().to_vec(),
            gone: 0,
            held: self.held,
        }
    }
}

/// An order that is timed again and again as loads are taken out of it: only from there on.
#[derive(Debug)]
pub(crate) struct Pass {
    works: Vec<Work>,
    /// Those placed so far.
    starts: Vec<u64>,
    stage: Stage,
    /// The stage before every so many loads.
    saved: Vec<Stage>,
    every: usize,
}

/// The stage is saved at most so often, and not more often than every so many loads.
const SAVED_MAX: usize = 32;

/// What takes neither time nor room.
const NOTHING: Work = Work {
    size: 0,
    loading: 0,
    deadline: u64::MAX,
    leaves: u64::MAX,
};

impl Pass {
    pub(crate) fn new(timeline: &Timeline<'_>, works: Vec<Work>) -> Self {
        Self {
            starts: Vec::with_capacity(works.len()),
            stage: timeline.stage(),
            saved: Vec::new(),
            every: works.len().div_ceil(SAVED_MAX).max(SAVED_MAX),
            works,
        }
    }

    /// Places what has not been placed yet.
    pub(crate) fn run(&mut self, timeline: &Timeline<'_>) -> Result<(), Obstacle> {
        for place in self.starts.len()..self.works.len() {
            if place == self.saved.len() * self.every {
                self.saved.push(self.stage.saved());
            }
            let work = &self.works[place];
            let start = match work.size {
                0 => self.stage.free_from,
                _ => self
                    .stage
                    .load(timeline, work)
                    .map_err(|wait| wait.at(place))?,
            };
            self.starts.push(start);
        }
        Ok(())
    }

    /// Another load at a place, or none.
    pub(crate) fn change(&mut self, place: usize, work: Option<Work>) {
        self.works[place] = work.unwrap_or(NOTHING);
        let last = (place / self.every).min(self.saved.len().saturating_sub(1));
        if self.starts.len() > place && !self.saved.is_empty() {
            self.saved.truncate(last + 1);
            if let Some(saved) = self.saved.pop() {
                self.stage = saved;
                self.starts.truncate(last * self.every);
            }
        }
    }

    /// Other images are there before the first load.
    pub(crate) fn restart(&mut self, timeline: &Timeline<'_>) {
        self.stage = timeline.stage();
        self.saved.clear();
        self.starts.clear();
    }

    /// The loads, those taken out without size.
    pub(crate) fn works(&self) -> &[Work] {
        &self.works
    }

    /// From when the link is free for the load at a place, up to the first that is not placed; `free_from` for the first of all.
    pub(crate) fn free_from(&self, place: usize, free_from: u64) -> u64 {
        let before = place.checked_sub(1);
        before.map_or(free_from, |before| {
            self.starts[before] + self.works[before].loading
        })
    }

    /// When the load at a place starts, if it has been placed.
    pub(crate) fn start(&self, place: usize) -> Option<u64> {
        self.starts.get(place).copied()
    }
}

//! Loads in a given order on one link: their starts, and whether the stage has room for them.
//!
//! Here a load has a deadline and a moment at which its image leaves, which need not be the same: an image that serves several due
//! dates must be there for the first and stays until after the last. O(n log n), and O(n) where departures come nearly in order.

use std::collections::VecDeque;

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

impl Timeline<'_> {
    /// The earliest starts in an order. If any starts are possible, these are: while a later load is under way, an earlier one is there in
    /// whole anyhow.
    pub(crate) fn earliest(&self, works: &[Work]) -> Result<Vec<u64>, Obstacle> {
        let mut stage = Stage {
            timeline: self,
            leaving: self.held.iter().copied().collect(),
            held: self.held.iter().map(|held| u128::from(held.size)).sum(),
        };
        let mut free_from = self.free_from;
        let mut starts = Vec::with_capacity(works.len());
        for (place, work) in works.iter().enumerate() {
            if free_from.saturating_add(work.loading) > work.deadline {
                return Err(Obstacle::Late(place));
            }
            let start = stage.first_room(free_from, work);
            let start = start.filter(|start| start.saturating_add(work.loading) <= work.deadline);
            let start = start.ok_or(Obstacle::Full(place))?;
            free_from = start + work.loading;
            stage.put(work);
            starts.push(start);
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
}

/// The stage as loads are added in the order of their starts.
struct Stage<'a> {
    timeline: &'a Timeline<'a>,
    /// Departures of what is held, by moment.
    leaving: VecDeque<Held>,
    held: u128,
}

impl Stage<'_> {
    /// The first moment from `free_from` on at which a load may start; `None` if there is no room for the image before it leaves.
    fn first_room(&mut self, free_from: u64, work: &Work) -> Option<u64> {
        while let Some(first) = self.leaving.pop_front_if(|first| first.leaves <= free_from) {
            self.held -= u128::from(first.size);
        }
        // A load that came sooner than planned may be there before what it waited for has left.
        let capacity = u128::from(self.timeline.capacity);
        let (mut start, mut held) = (free_from, self.held);
        for departure in &self.leaving {
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

    /// Departures come nearly in order, so that little is moved.
    fn put(&mut self, work: &Work) {
        let (leaves, size) = (work.leaves, work.size);
        let place = self.leaving.partition_point(|other| other.leaves <= leaves);
        self.leaving.insert(place, Held { leaves, size });
        self.held += u128::from(size);
    }

    /// How long before a departure a load may start that has only so much room until then.
    fn ahead(&self, room: u128, work: &Work) -> u64 {
        match self.timeline.model {
            Model::Integral => 0,
            Model::Continuous => {
                let ahead = match self.timeline.rate {
                    Some(rate) => room / u128::from(rate.max(1)),
                    None => room * u128::from(work.loading) / u128::from(work.size),
                };
                u64::try_from(ahead).unwrap_or(u64::MAX)
            }
        }
    }
}

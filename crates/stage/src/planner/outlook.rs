//! Where one more load fits into an order, without timing the order again.
//!
//! For a fixed order, the earliest start of a load beside the images of those before it is a matter of which these are, not of when they start
//! ([`Timeline::first_room`]). So a load has a release time and a deadline, and an order holds if and only if each load can start between the
//! end of those before it, all as early as they can be, and the start of those after it, all as late as they can be. One more load, put in at a place,
//! changes nothing before it; what comes after keeps its latest starts and must have room for one more image, until that leaves.
//! Both can be looked up: O(n) to prepare, and then O(k) a question for k images on the stage at a time.

use crate::Model;
use crate::timeline::{Held, Obstacle, Stage, Timeline, Work};

/// An order that holds, and what it leaves free.
pub(super) struct Outlook<'a> {
    timeline: &'a Timeline<'a>,
    works: &'a [Work],
    /// When each load ends at the earliest.
    ends: Vec<u64>,
    /// When each load starts at the latest.
    latest: Vec<u64>,
    /// The last deadline, and the last departure, up to each load.
    deadlines: Vec<u64>,
    departures: Vec<u64>,
    /// Moments at which the stage must have room for the loads, all at their latest; and each load's first.
    moments: Vec<Moment>,
    first_moments: Vec<usize>,
}

/// A moment up to which a load under way needs room.
struct Moment {
    /// The moment before, or the start of the load.
    since: u64,
    /// The start of the load.
    start: u64,
    /// Bytes that are free for the load until this moment.
    room: u64,
    /// Those of them that it leaves.
    slack: u64,
}

/// A load that is to be put in, apart from its due date.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) size: u64,
    pub(super) loading: u64,
    /// Others need the image by then.
    pub(super) deadline: u64,
    /// Others need the image until then.
    pub(super) leaves: u64,
    /// How long the image stays after the due date.
    pub(super) unload: u64,
}

impl Wanted {
    /// The load with a due date, at most [`LIMIT`](crate::LIMIT).
    pub(super) fn by(&self, due: u64) -> Work {
        Work {
            size: self.size,
            loading: self.loading,
            deadline: self.deadline.min(due),
            leaves: self.leaves.max(due + self.unload),
        }
    }
}

impl<'a> Outlook<'a> {
    /// What an order leaves free.
    ///
    /// # Errors
    ///
    /// Why the order does not hold.
    pub(super) fn of(timeline: &'a Timeline<'a>, works: &'a [Work]) -> Result<Self, Obstacle> {
        let mut ends = timeline.earliest(works)?;
        for (end, work) in ends.iter_mut().zip(works) {
            *end += work.loading;
        }
        let mut outlook = Self {
            timeline,
            works,
            ends,
            latest: Timeline::latest(works),
            deadlines: greatest_so_far(works, |work| work.deadline),
            departures: greatest_so_far(works, |work| work.leaves),
            moments: Vec::new(),
            first_moments: Vec::with_capacity(works.len() + 1),
        };
        outlook.look_for_moments();
        Ok(outlook)
    }

    fn look_for_moments(&mut self) {
        let mut stage = self.timeline.stage();
        let mut moments = Vec::with_capacity(2 * self.works.len());
        for (work, start) in self.works.iter().zip(&self.latest) {
            self.first_moments.push(moments.len());
            stage.pass(*start);
            match self.timeline.model {
                Model::Integral => moments.push(self.at_start(&stage, work, *start)),
                Model::Continuous => self.while_loading(&stage, work, *start, &mut moments),
            }
            stage.put(work);
        }
        self.first_moments.push(moments.len());
        self.moments = moments;
    }

    /// The whole image needs room as soon as its load has started.
    fn at_start(&self, stage: &Stage, work: &Work, start: u64) -> Moment {
        self.moment(start, start, stage.held, u128::from(work.size))
    }

    /// What has arrived needs room just before each departure, and the whole image at the end.
    fn while_loading(&self, stage: &Stage, work: &Work, start: u64, moments: &mut Vec<Moment>) {
        let end = start.saturating_add(work.loading);
        let (mut since, mut held) = (start, stage.held);
        let under_way = stage.leaving().iter();
        for departure in under_way.take_while(|departure| departure.leaves < end) {
            let arrived = self.rate() * u128::from(departure.leaves - start);
            moments.push(self.moment(since, start, held, arrived));
            since = departure.leaves;
            held -= u128::from(departure.size);
        }
        moments.push(self.moment(since, start, held, u128::from(work.size)));
    }

    fn moment(&self, since: u64, start: u64, held: u128, needed: u128) -> Moment {
        let room = u128::from(self.timeline.capacity).saturating_sub(held);
        Moment {
            since,
            start,
            room: narrow(room),
            slack: narrow(room.saturating_sub(needed)),
        }
    }

    fn rate(&self) -> u128 {
        u128::from(self.timeline.rate.unwrap_or(1))
    }

    /// The place of a load by its deadline.
    pub(super) fn home(&self, deadline: u64) -> usize {
        self.deadlines.partition_point(|before| *before <= deadline)
    }

    /// The first place at which a load fits: by its deadline, then so many to either side.
    pub(super) fn place(&self, work: &Work, others: usize) -> Option<usize> {
        let home = self.home(work.deadline);
        let beside = (1..=others).flat_map(|far| [home.checked_sub(far), Some(home + far)]);
        let mut places = [Some(home)].into_iter().chain(beside).flatten();
        places.find(|place| *place <= self.works.len() && self.fits(*place, work))
    }

    fn fits(&self, place: usize, work: &Work) -> bool {
        let until = self.until(place).min(work.deadline);
        self.free_from(place).saturating_add(work.loading) <= until
            && self.stays_until(place, work.size, work.leaves) >= work.leaves
            && self
                .starts(place, work)
                .is_some_and(|start| start.saturating_add(work.loading) <= until)
    }

    /// The earliest later due date, at most `last`, with which a load fits at the place by its deadline or so many to either side.
    ///
    /// For each place, the due dates that fit are one interval: not before the load has ended, and not so late that the image is still
    /// there when the room is needed for others.
    pub(super) fn works_from(
        &self,
        wanted: &Wanted,
        due: u64,
        last: u64,
        others: usize,
    ) -> Option<u64> {
        // A due date after that of others who need the image frees nothing, and keeps the image longer.
        let last = last.min(wanted.deadline);
        let mut best: Option<u64> = None;
        for place in 0..=self.works.len() {
            let near = place.checked_sub(others + 1);
            let first = near
                .map_or(0, |before| self.deadlines[before])
                .max(due.saturating_add(1));
            if best.is_some_and(|best| best <= first) {
                break;
            }
            let beyond = self.deadlines.get(place + others);
            let last = beyond.map_or(last, |beyond| last.min(beyond.saturating_sub(1)));
            if first <= last
                && let Some(date) = self.first_date(place, wanted, first, last)
            {
                best = Some(best.map_or(date, |best| best.min(date)));
            }
        }
        best
    }

    /// The first due date in a range with which a load fits at a place.
    fn first_date(&self, place: usize, wanted: &Wanted, first: u64, last: u64) -> Option<u64> {
        let until = self.until(place).min(last);
        if self.free_from(place).saturating_add(wanted.loading) > until {
            return None;
        }
        let end = self
            .starts(place, &wanted.by(last))?
            .saturating_add(wanted.loading);
        let date = end.max(first);
        let leaves = wanted.by(date).leaves;
        let fits = end <= until && self.stays_until(place, wanted.size, leaves) >= leaves;
        fits.then_some(date)
    }

    /// From when the link is free for a load at a place.
    fn free_from(&self, place: usize) -> u64 {
        let before = place.checked_sub(1);
        before.map_or(self.timeline.free_from, |before| self.ends[before])
    }

    /// Until when a load at a place must have ended for those after it.
    fn until(&self, place: usize) -> u64 {
        self.latest.get(place).copied().unwrap_or(u64::MAX)
    }

    /// When a load at a place starts at the earliest.
    fn starts(&self, place: usize, work: &Work) -> Option<u64> {
        let free_from = self.free_from(place);
        let held = self.timeline.held;
        let gone = held.partition_point(|held| held.leaves <= free_from);
        let mut leaving = held[gone..].to_vec();
        let loaded = self.works[..place].iter().zip(&self.departures).rev();
        let loaded = loaded.take_while(|(_, last)| **last > free_from);
        let loaded = loaded.filter(|(work, _)| work.leaves > free_from);
        leaving.extend(loaded.map(|(work, _)| Held {
            leaves: work.leaves,
            size: work.size,
        }));
        let bytes: u128 = leaving.iter().map(|held| u128::from(held.size)).sum();
        if bytes + u128::from(work.size) > u128::from(self.timeline.capacity) {
            leaving.sort_unstable();
        }
        self.timeline
            .first_room(free_from, work, leaving.iter(), bytes)
    }

    /// Until when, up to `wanted`, one more image of a size can stay beside the loads from a place on.
    fn stays_until(&self, place: usize, size: u64, wanted: u64) -> u64 {
        let moments = self.moments[self.first_moments[place]..].iter();
        let mut relevant = moments.take_while(|moment| moment.since < wanted);
        match relevant.find(|moment| moment.slack < size) {
            Some(moment) => self.stays_before(moment, size),
            None => wanted,
        }
    }

    /// Until when it can stay before a moment at which there is no room for it.
    fn stays_before(&self, moment: &Moment, size: u64) -> u64 {
        let room = moment
            .room
            .checked_sub(size)
            .filter(|_| self.timeline.model == Model::Continuous);
        let arrival = room.map(|room| u128::from(room) / self.rate().max(1));
        let filled = arrival.map_or(0, |arrival| moment.start.saturating_add(narrow(arrival)));
        moment.since.max(filled)
    }
}

fn greatest_so_far(works: &[Work], key: impl Fn(&Work) -> u64) -> Vec<u64> {
    let mut greatest = 0;
    let keys = works.iter().map(|work| {
        greatest = greatest.max(key(work));
        greatest
    });
    keys.collect()
}

fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

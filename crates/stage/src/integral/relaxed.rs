//! An upper bound below the continuous one: room is taken for whole images from the start of their loads, but loads may be interrupted.
//!
//! # What is relaxed
//!
//! - A load may be interrupted and go on later. Its image's room is taken from its start all the same, so that, as in the integral
//!   model, no load starts before its whole image has room.
//! - Sizes fall into a few classes, and which images of a class are on the stage is forgotten. A class takes its smallest size of room, but
//!   each image its own size of the link's time.
//!
//! So each integral schedule is one of these, at the same weight. A state is what room is taken for, as a number for each class, and the bytes that have
//! arrived in all. Bytes never exceed what room is taken for, and when room is taken for an image, the bytes that are there leave room for it. Starting loads right after due dates costs nothing, as the stage is emptiest then.
//!
//! # How it is solved
//!
//! Backward over due dates: for each number of images of each class, a front of bytes needed against weight that can still be served. A front's
//! entry goes if the continuous optimum of what comes before cannot bring it above the best schedule known. With as many
//! classes as sizes nothing but interruptions is relaxed, and what is found is mostly the optimum itself. With fewer, little or nothing is left
//! of the gap to the continuous optimum: it closes where sizes are few. O(n · V · k · F) for V numbers of
//! images, k classes and fronts of F entries. Beyond the paper.

use std::collections::HashMap;
use std::ops::Range;

use crate::continuous::Before;
use crate::due_order::Item;

/// Different stages that a bound may take: beyond that, classes are too many.
const STAGES_MAX: usize = 6_000;

/// (bytes needed, weight), ascending in both.
type Front = Vec<(i64, u128)>;

/// A number of images of each class for which room is taken.
#[derive(Debug)]
struct Stage {
    /// Room taken at least, and bytes that can have arrived for it at most.
    room: i64,
    bytes: i64,
    /// The stage with one more, or one fewer, of each class.
    more: Vec<Option<usize>>,
    fewer: Vec<Option<usize>>,
}

#[derive(Debug)]
pub(super) struct Relaxed<'a> {
    capacity: i64,
    items: &'a [Item],
    class_of: Vec<usize>,
    stages: Vec<Stage>,
    /// Smallest size of each class.
    least: Vec<i64>,
}

impl<'a> Relaxed<'a> {
    /// `None` if there would be too many stages. Items come by due date.
    pub(super) fn new(capacity: i64, items: &'a [Item], classes: i64) -> Option<Self> {
        let classes = Classes::new(items, classes);
        let stages = stages(capacity, &classes)?;
        Some(Self {
            capacity,
            items,
            class_of: classes.of_items,
            least: classes.least,
            stages,
        })
    }

    /// No schedule weighs more than this, or than what is known. `None` if told to stop.
    pub(super) fn bound(
        &self,
        befores: &[Before],
        known: u128,
        stop: &mut dyn FnMut() -> bool,
    ) -> Option<u128> {
        let mut fronts = vec![Front::new(); self.stages.len()];
        fronts[0].push((0, 0));
        for dates in self.same_dates().into_iter().rev() {
            if stop() {
                return None;
            }
            let due = self.items[dates.start].due;
            let before = dates
                .start
                .checked_sub(1)
                .map_or(0, |last| self.items[last].due);
            for item in dates.clone() {
                self.serve(&mut fronts, item);
            }
            self.wait(&mut fronts, due - before);
            self.start(&mut fronts);
            for front in &mut fronts {
                front.retain(|(bytes, weight)| {
                    weight + befores[dates.start].weight_leaving(*bytes) > known
                });
            }
        }
        let best = fronts[0].iter().filter(|(bytes, _)| *bytes <= 0);
        Some(
            best.map(|(_, weight)| *weight)
                .max()
                .unwrap_or(0)
                .max(known),
        )
    }

    fn same_dates(&self) -> Vec<Range<usize>> {
        let mut dates: Vec<Range<usize>> = Vec::new();
        for (place, item) in self.items.iter().enumerate() {
            match dates.last_mut() {
                Some(last) if self.items[last.start].due == item.due => last.end = place + 1,
                _ => dates.push(place..place + 1),
            }
        }
        dates
    }

    /// Hands an item over or not: it needs its bytes, and an image of its class.
    fn serve(&self, fronts: &mut [Front], item: usize) {
        let Item { size, weight, .. } = self.items[item];
        let class = self.class_of[item];
        // Stages come before those with more, so going back nothing is served twice.
        for place in (0..self.stages.len()).rev() {
            if let Some(fewer) = self.stages[place].fewer[class] {
                let served = shifted(&fronts[fewer], size, weight, self.most(&self.stages[place]));
                if !served.is_empty() {
                    fronts[place] = merged(&fronts[place], &served);
                }
            }
        }
    }

    /// Bytes that can be there.
    fn most(&self, stage: &Stage) -> i64 {
        self.capacity.min(stage.bytes)
    }

    /// Until now the link brought what it could.
    fn wait(&self, fronts: &mut [Front], time: i64) {
        for front in fronts {
            // Of those that need nothing now, only the last is best.
            let free = front.partition_point(|(bytes, _)| *bytes <= time);
            front.drain(..free.saturating_sub(1));
            for (bytes, _) in front.iter_mut() {
                *bytes = (*bytes - time).max(0);
            }
        }
    }

    /// Takes room for images whose loads start in this gap.
    fn start(&self, fronts: &mut [Front]) {
        for place in (0..self.stages.len()).rev() {
            let stage = &self.stages[place];
            for (class, more) in stage.more.iter().enumerate() {
                let Some(more) = *more else {
                    continue;
                };
                let most = self.most(stage).min(self.capacity - self.least[class]);
                let able = fronts[more].partition_point(|(bytes, _)| *bytes <= most);
                if able > 0 {
                    fronts[place] = merged(&fronts[place], &fronts[more][..able]);
                }
            }
        }
    }
}

/// Entries that need so much more and weigh so much more, as far as they are possible.
fn shifted(front: &[(i64, u128)], size: i64, weight: u64, most: i64) -> Front {
    let able = front.partition_point(|(bytes, _)| bytes + size <= most);
    let shift = |(bytes, so_far): &(i64, u128)| (bytes + size, so_far + u128::from(weight));
    front[..able].iter().map(shift).collect()
}

/// The best of two fronts.
fn merged(one: &[(i64, u128)], other: &[(i64, u128)]) -> Front {
    let mut all = Front::with_capacity(one.len() + other.len());
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    loop {
        let next = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if (a.0, b.1) <= (b.0, a.1) => left.next(),
            (_, Some(_)) => right.next(),
            (Some(_), None) => left.next(),
            (None, None) => return all,
        };
        if let Some(entry) = next
            && all.last().is_none_or(|(_, weight)| *weight < entry.1)
        {
            all.push(*entry);
        }
    }
}

/// Sizes in classes of equal width, as far as images have them.
struct Classes {
    of_items: Vec<usize>,
    least: Vec<i64>,
    greatest: Vec<i64>,
    count: Vec<usize>,
}

impl Classes {
    fn new(items: &[Item], most: i64) -> Self {
        let mut sizes: Vec<_> = items.iter().map(|item| item.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let first = sizes.first().copied().unwrap_or(0);
        let span = sizes.last().map_or(0, |last| last - first) + 1;
        let is_fine = i64::try_from(sizes.len()).is_ok_and(|count| count <= most);
        let key = |size: i64| match is_fine {
            true => size,
            // In 128 bits, as sizes may be large.
            false => (i128::from(size - first) * i128::from(most) / i128::from(span)) as i64,
        };
        let mut keys: Vec<_> = sizes.iter().map(|size| key(*size)).collect();
        keys.dedup();
        let mut classes = Self {
            of_items: Vec::with_capacity(items.len()),
            least: vec![i64::MAX; keys.len()],
            greatest: vec![0; keys.len()],
            count: vec![0; keys.len()],
        };
        for item in items {
            let class = keys.partition_point(|other| *other < key(item.size));
            classes.of_items.push(class);
            classes.least[class] = classes.least[class].min(item.size);
            classes.greatest[class] = classes.greatest[class].max(item.size);
            classes.count[class] += 1;
        }
        classes
    }
}

/// All numbers of images of each class that have room, each before those with more.
fn stages(capacity: i64, classes: &Classes) -> Option<Vec<Stage>> {
    let kinds = classes.least.len();
    let mut numbers: Vec<Vec<u32>> = vec![vec![0; kinds]];
    let mut place_of: HashMap<Vec<u32>, usize> = HashMap::from([(vec![0; kinds], 0)]);
    let mut stages = vec![Stage::new(0, 0, kinds)];
    let mut place = 0;
    while place < stages.len() {
        for class in 0..kinds {
            let mut more = numbers[place].clone();
            more[class] += 1;
            let room = stages[place].room + classes.least[class];
            if room > capacity || more[class] as usize > classes.count[class] {
                continue;
            }
            let bytes = stages[place].bytes + classes.greatest[class];
            let next = *place_of.entry(more.clone()).or_insert_with(|| {
                stages.push(Stage::new(room, bytes, kinds));
                numbers.push(more);
                stages.len() - 1
            });
            stages[place].more[class] = Some(next);
            stages[next].fewer[class] = Some(place);
        }
        if stages.len() > STAGES_MAX {
            return None;
        }
        place += 1;
    }
    Some(stages)
}

impl Stage {
    fn new(room: i64, bytes: i64, kinds: usize) -> Self {
        Self {
            room,
            bytes,
            more: vec![None; kinds],
            fewer: vec![None; kinds],
        }
    }
}

//! Which tasks to serve: several greedy orders, then exchanges, each step checked on the timeline.

use std::cmp::Reverse;

use super::exact::{self, Outcome};
use super::{ImageLoad, Shared, SharedSchedule, SharedSolution};
use crate::continuous::{self, Occupied};
use crate::due_order::Item;
use crate::timeline::{Held, Timeline, Work};
use crate::{LIMIT, Model};

/// The heaviest set of tasks that can be found until told to stop, and a bound from what no other task needs.
///
/// Tasks are offered in several orders, each kept if all loads still fit; then each task left out is tried in place of lighter ones. O(n²) for each
/// order; `stop` is asked for each task. Up to fourteen tasks are then tried in all combinations and orders, unless that takes too many steps, which
/// proves the best.
///
/// ```
/// use mutual_stage::shared::{self, Image, Shared, Task};
/// use mutual_stage::{Instance, Model};
///
/// let site = Instance::new(8, Vec::new())?;
/// let images = vec![
///     Image { size: 6, load_time: None },
///     Image { size: 2, load_time: Some(3) },
/// ];
/// let tasks = vec![
///     Task { due: 6, weight: 1, images: vec![0] },
///     Task { due: 9, weight: 1, images: vec![0, 1] },
/// ];
/// let solution = shared::solve(&Shared::new(&site, images, tasks)?, Model::Integral, &mut || false);
/// // The first image is loaded once for both.
/// assert_eq!((solution.weight, solution.schedule.loads.len()), (2, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn solve(shared: &Shared, model: Model, stop: &mut dyn FnMut() -> bool) -> SharedSolution {
    let search = Search::new(shared, model);
    let best = searched(&search, stop);
    let weight = shared.weight(&best);
    let found = SharedSolution {
        bound: search.bound().max(weight),
        schedule: search.schedule(best),
        weight,
    };
    match found.weight == found.bound || stop() {
        true => found,
        false => search.proved(found),
    }
}

/// Tasks that can be served, ascending.
fn searched(search: &Search<'_>, stop: &mut dyn FnMut() -> bool) -> Vec<usize> {
    let shared = search.shared;
    // What has room as a whole has room bit by bit, and the two searches go different ways.
    let mut best = match search.model {
        Model::Continuous => searched(&Search::new(shared, Model::Integral), stop),
        Model::Integral => Vec::new(),
    };
    for order in search.orders() {
        let served = search.greedy(Vec::new(), &order, stop);
        if shared.weight(&served) > shared.weight(&best) {
            best = served;
        }
    }
    while let Some(better) = search.exchange(&best, stop) {
        best = better;
    }
    best.sort_unstable();
    best
}

/// Which loads go first. None is best everywhere, so all are tried.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Deadline,
    LatestStart,
    Departure,
}

const RULES: [Rule; 3] = [Rule::Deadline, Rule::LatestStart, Rule::Departure];

struct Search<'a> {
    shared: &'a Shared,
    model: Model,
    held: Vec<Held>,
}

impl<'a> Search<'a> {
    fn new(shared: &'a Shared, model: Model) -> Self {
        let site = shared.site();
        let held = site.staged().iter().map(|image| Held {
            leaves: site.leaves_on_link(image.due),
            size: image.size,
        });
        let mut held: Vec<_> = held.collect();
        held.sort_unstable();
        Self {
            shared,
            model,
            held,
        }
    }

    /// Tasks of some weight: by due date, by weight, by weight for the link's time, and for time and room together.
    fn orders(&self) -> [Vec<usize>; 4] {
        let tasks = self.shared.tasks();
        let wanted = (0..tasks.len()).filter(|task| tasks[*task].weight > 0);
        let mut by_due: Vec<_> = wanted.collect();
        by_due.sort_by_key(|task| tasks[*task].due);
        let sorted = |key: &dyn Fn(usize) -> u128| {
            let mut order = by_due.clone();
            order.sort_by_key(|task| Reverse(key(*task)));
            order
        };
        let weight = |task: usize| u128::from(tasks[task].weight);
        let by_weight = sorted(&weight);
        let by_time = sorted(&|task| (weight(task) << 64) / self.loading(task).max(1));
        let by_room = sorted(&|task| {
            let room = self.loading(task).saturating_mul(self.loading(task));
            (weight(task) << 64) / room.max(1)
        });
        [by_due.clone(), by_weight, by_time, by_room]
    }

    /// The link's time for all images of a task, each shared one divided by nobody: an upper end.
    fn loading(&self, task: usize) -> u128 {
        let images = self.shared.tasks()[task].images.iter();
        images
            .map(|image| u128::from(self.shared.images()[*image].loading()))
            .sum()
    }

    fn greedy(
        &self,
        mut served: Vec<usize>,
        order: &[usize],
        stop: &mut dyn FnMut() -> bool,
    ) -> Vec<usize> {
        for task in order {
            if stop() {
                break;
            }
            if !served.contains(task) {
                served.push(*task);
                if self.starts(&served).is_none() {
                    served.pop();
                }
            }
        }
        served
    }

    /// Serves one more task in place of lighter ones, and what then still fits.
    fn exchange(&self, served: &[usize], stop: &mut dyn FnMut() -> bool) -> Option<Vec<usize>> {
        let tasks = self.shared.tasks();
        let [by_due, by_weight, ..] = self.orders();
        for task in by_weight.iter().filter(|task| !served.contains(task)) {
            if stop() {
                return None;
            }
            // Whoever is due around the same time stands in the way most.
            let mut others = served.to_vec();
            others.sort_by_key(|other| tasks[*other].due.abs_diff(tasks[*task].due));
            let lighter = others.iter().take(NEIGHBOURS);
            for other in lighter.filter(|other| tasks[**other].weight <= tasks[*task].weight) {
                let mut next: Vec<_> = served.iter().copied().filter(|one| one != other).collect();
                next.push(*task);
                if self.starts(&next).is_some() {
                    let next = self.greedy(next, &by_due, stop);
                    if self.shared.weight(&next) > self.shared.weight(served) {
                        return Some(next);
                    }
                }
            }
        }
        None
    }

    /// The same or a heavier solution, proved best if there are few tasks.
    fn proved(&self, found: SharedSolution) -> SharedSolution {
        let all = self.shared.tasks().iter().enumerate();
        let wanted = all.filter(|(_, task)| task.weight > 0 && self.fits_alone(task));
        let wanted: Vec<_> = wanted.map(|(index, _)| index).collect();
        match exact::heaviest(self.shared, &self.timeline(), &wanted, found.weight) {
            Outcome::Unknown => found,
            Outcome::None => SharedSolution {
                bound: found.weight,
                ..found
            },
            Outcome::Heavier(best) => {
                let weight = self.shared.weight(&best.served);
                let schedule = SharedSchedule {
                    loads: latest(&best.loads),
                    served: best.served,
                };
                SharedSolution {
                    schedule,
                    weight,
                    bound: weight,
                }
            }
        }
    }

    fn timeline(&self) -> Timeline<'_> {
        Timeline {
            model: self.model,
            capacity: self.shared.site().capacity(),
            free_from: 0,
            held: &self.held,
            rate: None,
        }
    }

    /// Loads by start, if all fit in one of the orders.
    fn starts(&self, served: &[usize]) -> Option<Vec<ImageLoad>> {
        let works = self.shared.works(served);
        RULES
            .iter()
            .find_map(|rule| self.starts_by(*rule, works.clone()))
    }

    fn starts_by(&self, rule: Rule, mut works: Vec<(usize, Work)>) -> Option<Vec<ImageLoad>> {
        works.sort_by_key(|(image, work)| {
            let first = match rule {
                Rule::Deadline => work.deadline,
                Rule::LatestStart => work.deadline.saturating_sub(work.loading),
                Rule::Departure => work.leaves,
            };
            (first, work.leaves, *image)
        });
        let loads: Vec<_> = works.iter().map(|(_, work)| *work).collect();
        self.timeline().earliest(&loads).ok()?;
        Some(latest(&works))
    }

    fn schedule(&self, served: Vec<usize>) -> SharedSchedule {
        let loads = self.starts(&served).unwrap_or_default();
        SharedSchedule { loads, served }
    }

    /// The continuous optimum if each task needed only what no other one needs, its departure were its due date, and, where load times differ
    /// from sizes, the stage had no end.
    fn bound(&self) -> u128 {
        let mut users = vec![0u32; self.shared.images().len()];
        for image in self.shared.tasks().iter().flat_map(|task| &task.images) {
            users[*image] += 1;
        }
        let images = self.shared.images();
        let is_plain = images.iter().all(|image| image.loading() == image.size);
        let mut items = Vec::new();
        for (index, task) in self.shared.tasks().iter().enumerate() {
            let own = task.images.iter().filter(|image| users[**image] == 1);
            let size: u128 = own.map(|image| u128::from(images[*image].loading())).sum();
            let due = self.shared.site().on_link(task.due);
            if size <= u128::from(due) && self.fits_alone(task) {
                let size = i64::try_from(size).unwrap_or(i64::MAX);
                items.push(Item {
                    index,
                    size,
                    due: due.cast_signed(),
                    weight: task.weight,
                });
            }
        }
        items.sort_by_key(|item| item.due);
        let occupied = match is_plain {
            true => Occupied::of(self.shared.site()),
            false => Occupied::nothing(LIMIT.cast_signed()),
        };
        continuous::best_weight(&occupied, &items)
    }

    /// Whether the stage holds all images of a task, and the link brings each of them in time.
    fn fits_alone(&self, task: &super::Task) -> bool {
        let images = task
            .images
            .iter()
            .map(|image| &self.shared.images()[*image]);
        let (bytes, loading) = images.fold((0u128, 0u128), |(bytes, loading), image| {
            (
                bytes + u128::from(image.size),
                loading + u128::from(image.loading()),
            )
        });
        bytes <= u128::from(self.shared.site().capacity())
            && loading <= u128::from(self.shared.site().on_link(task.due))
    }
}

/// Loads in an order, each as late as it can be.
fn latest(works: &[(usize, Work)]) -> Vec<ImageLoad> {
    let loads: Vec<_> = works.iter().map(|(_, work)| *work).collect();
    let starts = Timeline::latest(&loads).into_iter().zip(works);
    let loads = starts.map(|(start, (image, _))| ImageLoad {
        image: *image,
        start,
    });
    loads.collect()
}

/// Served tasks that one left out may take the place of.
const NEIGHBOURS: usize = 24;

//! The picture of a schedule: loads on the link, below it the bytes on the stage against its capacity, and all due dates.

use mutual_stage::shared::{Shared, Task};
use mutual_stage::{Instance, Model};

use super::answer::Planned;
use super::file::{Id, Named, Problem};
use super::picture::{Anchor, BLACK, Colour, GREY, LETTER_WIDTH, PALE, Picture, RED, SERIES};
use crate::failure::Outcome;

/// Up to so many loads, each has a row of its own.
const ROWS_MAX: usize = 60;
const ROW: f32 = 16.0;
const LINK: f32 = 44.0;
const STAGE: f32 = 220.0;
const DUES: f32 = 54.0;
const GAP: f32 = 34.0;
const LEFT: f32 = 110.0;
const RIGHT: f32 = 30.0;
const TOP: f32 = 40.0;
/// Pixels that a load takes on average where they are many.
const LOAD_WIDTH: usize = 6;
const WIDTHS: std::ops::RangeInclusive<usize> = 1_200..=3_000;

/// What lies on the stage. Neighbouring bars overlap a little, so nothing may shine through.
const HELD: Colour = [195, 222, 237, 255];

/// A load as it is drawn.
struct Drawn {
    name: String,
    size: u64,
    start: u64,
    end: u64,
    leaves: u64,
}

/// When a job's images are due.
struct Due {
    at: u64,
    is_met: bool,
    name: String,
}

/// Everything to draw, on the link's clock.
struct Scene {
    loads: Vec<Drawn>,
    staged: Vec<(u64, u64)>,
    /// In order.
    dues: Vec<Due>,
    capacity: u64,
    horizon: u64,
    model: Model,
    has_own_clock: bool,
}

pub(crate) fn draw(named: &Named, model: Model, planned: &Planned) -> Outcome<Picture> {
    let scene = Scene::new(named, model, planned);
    Ok(scene.picture())
}

impl Scene {
    fn new(named: &Named, model: Model, planned: &Planned) -> Self {
        let site = named.site();
        let (mut loads, mut dues) = match (&named.problem, planned) {
            (Problem::Plain(instance), Planned::Plain(schedule)) => {
                plain(named, instance, schedule)
            }
            (Problem::Shared(shared), Planned::Shared(schedule)) => {
                of_shared(named, shared, schedule)
            }
            _ => (Vec::new(), Vec::new()),
        };
        loads.sort_by_key(|load| load.start);
        dues.sort_by_key(|due| due.at);
        let staged = site.staged().iter();
        let staged: Vec<_> = staged
            .map(|image| (site.leaves_on_link(image.due), image.size))
            .collect();
        let ends = loads.iter().map(|load| load.leaves);
        let all = ends
            .chain(dues.iter().map(|due| due.at))
            .chain(staged.iter().map(|one| one.0));
        Self {
            horizon: all.max().unwrap_or(0).max(1),
            loads,
            staged,
            dues,
            capacity: site.capacity(),
            model,
            has_own_clock: site.bandwidth().is_some(),
        }
    }

    fn picture(&self) -> Picture {
        let width = (self.loads.len() * LOAD_WIDTH).clamp(*WIDTHS.start(), *WIDTHS.end()) as f32;
        let rows = match self.loads.len() <= ROWS_MAX {
            true => self.loads.len() as f32 * ROW,
            false => 0.0,
        };
        let height = TOP + LINK + GAP + rows + STAGE + GAP + DUES + GAP;
        let mut picture = Picture::new(width as u32, height as u32);
        let x =
            |time: u64| LEFT + (width - LEFT - RIGHT) * (time as f64 / self.horizon as f64) as f32;
        self.link(&mut picture, &x, TOP);
        let stage = TOP + LINK + GAP + rows;
        if rows > 0.0 {
            self.rows(&mut picture, &x, TOP + LINK + GAP / 2.0);
        }
        self.stage(&mut picture, &x, stage);
        self.due_dates(&mut picture, &x, stage + STAGE + GAP);
        self.axis(&mut picture, &x, (TOP, stage + STAGE + GAP + DUES));
        picture
    }

    fn link(&self, picture: &mut Picture, x: &dyn Fn(u64) -> f32, top: f32) {
        label(picture, top + LINK / 2.0, "link");
        picture.bar((x(0), top), (x(self.horizon) - x(0), LINK), PALE);
        let sizes = self.sizes();
        for load in &self.loads {
            let width = x(load.end) - x(load.start);
            // Loads that touch stay apart to the eye.
            let shown = (width - 0.6).max(0.6);
            picture.bar(
                (x(load.start), top),
                (shown, LINK),
                colour(&sizes, load.size),
            );
            if width > (load.name.chars().count() as f32 + 1.0) * LETTER_WIDTH {
                let middle = (x(load.start) + width / 2.0, top + LINK / 2.0);
                picture.text(middle, Anchor::Middle, [255; 4], load.name.clone());
            }
        }
        self.legend(picture, &sizes);
    }

    /// A row for each load: under way dark, waiting pale, until it leaves.
    fn rows(&self, picture: &mut Picture, x: &dyn Fn(u64) -> f32, top: f32) {
        let sizes = self.sizes();
        for (row, load) in self.loads.iter().enumerate() {
            let y = top + row as f32 * ROW;
            let [red, green, blue, _] = colour(&sizes, load.size);
            let bar = ROW - 4.0;
            picture.bar(
                (x(load.start), y),
                (x(load.leaves) - x(load.start), bar),
                [red, green, blue, 70],
            );
            picture.bar(
                (x(load.start), y),
                (x(load.end) - x(load.start), bar),
                [red, green, blue, 255],
            );
            let words = load.name.chars().take(13).collect::<String>();
            picture.text((LEFT - 8.0, y + bar / 2.0), Anchor::End, GREY, words);
        }
    }

    fn stage(&self, picture: &mut Picture, x: &dyn Fn(u64) -> f32, top: f32) {
        label(picture, top + STAGE * 0.3, "on the stage");
        let scale = STAGE / (self.capacity as f64 * 1.08) as f32;
        let y = |bytes: u64| top + STAGE - bytes as f32 * scale;
        let outline: Vec<_> = self
            .occupied()
            .into_iter()
            .map(|(at, bytes)| (x(at), y(bytes)))
            .collect();
        for pair in outline.windows(2) {
            // A slope is drawn in narrow steps, level ground in one.
            let steps = match pair[0].1 == pair[1].1 {
                true => 1,
                false => ((pair[1].0 - pair[0].0) / 1.5).ceil().max(1.0) as usize,
            };
            for step in 0..steps {
                let part = (step as f32 + 0.5) / steps as f32;
                let height = top + STAGE - (pair[0].1 + (pair[1].1 - pair[0].1) * part);
                let left = pair[0].0 + (pair[1].0 - pair[0].0) * step as f32 / steps as f32;
                let width = (pair[1].0 - pair[0].0) / steps as f32;
                picture.bar((left, top + STAGE - height), (width + 0.4, height), HELD);
            }
        }
        picture.line(outline, 1.2, SERIES[0]);
        picture.line(
            vec![
                (x(0), y(self.capacity)),
                (x(self.horizon), y(self.capacity)),
            ],
            1.6,
            RED,
        );
        let capacity = format!("capacity {}", self.capacity);
        picture.text(
            (x(self.horizon), y(self.capacity) - 9.0),
            Anchor::End,
            RED,
            capacity,
        );
        picture.line(vec![(x(0), y(0)), (x(self.horizon), y(0))], 1.0, GREY);
        for bytes in [0, self.capacity / 2, self.capacity] {
            let at = (LEFT - 8.0, y(bytes));
            picture.text(at, Anchor::End, GREY, bytes.to_string());
        }
    }

    fn due_dates(&self, picture: &mut Picture, x: &dyn Fn(u64) -> f32, top: f32) {
        let half = DUES / 2.0;
        label(picture, top + half / 2.0, "due, served");
        label(picture, top + half * 1.5, "not served");
        for due in &self.dues {
            let (from, tint) = match due.is_met {
                true => (top, SERIES[2]),
                false => (top + half, RED),
            };
            let ends = vec![(x(due.at), from + 3.0), (x(due.at), from + half - 3.0)];
            picture.line(ends, 1.4, tint);
        }
        self.rejected(picture, x, top + half * 1.5);
    }

    /// Names of jobs that are not served, where there is room up to the next one.
    fn rejected(&self, picture: &mut Picture, x: &dyn Fn(u64) -> f32, y: f32) {
        let rejected: Vec<_> = self.dues.iter().filter(|due| !due.is_met).collect();
        for (place, due) in rejected.iter().enumerate() {
            let end = rejected.get(place + 1).map_or(self.horizon, |next| next.at);
            let room = x(end) - x(due.at) - 8.0;
            if due.name.chars().count() as f32 * LETTER_WIDTH <= room {
                picture.text((x(due.at) + 4.0, y), Anchor::Start, RED, due.name.clone());
            }
        }
    }

    fn axis(&self, picture: &mut Picture, x: &dyn Fn(u64) -> f32, (top, bottom): (f32, f32)) {
        let step = round_step(self.horizon);
        for tick in 0..=self.horizon / step {
            let at = x(tick * step);
            picture.line(vec![(at, top), (at, bottom)], 0.5, [150, 150, 160, 90]);
            let anchor = match tick {
                0 => Anchor::Start,
                _ => Anchor::Middle,
            };
            picture.text(
                (at, bottom + 12.0),
                anchor,
                BLACK,
                (tick * step).to_string(),
            );
        }
        let clock = match self.has_own_clock {
            true => "link's clock",
            false => "time",
        };
        label(picture, bottom + 12.0, clock);
    }

    fn legend(&self, picture: &mut Picture, sizes: &[u64]) {
        let served = self.dues.iter().filter(|due| due.is_met).count();
        let words = format!(
            "{served} of {} jobs served, {} loads, {:?} model",
            self.dues.len(),
            self.loads.len(),
            self.model
        );
        picture.text((LEFT, 16.0), Anchor::Start, BLACK, words.to_lowercase());
        if sizes.len() > SERIES.len() {
            let words = "darker is larger";
            picture.text((LEFT + 480.0, 16.0), Anchor::Start, GREY, words);
            return;
        }
        let mut left = LEFT + 480.0;
        for size in sizes {
            picture.bar((left, 10.0), (12.0, 12.0), colour(sizes, *size));
            let words = format!("size {size}");
            picture.text((left + 18.0, 16.0), Anchor::Start, BLACK, words.clone());
            left += 34.0 + words.len() as f32 * LETTER_WIDTH;
        }
    }

    fn sizes(&self) -> Vec<u64> {
        let mut sizes: Vec<_> = self.loads.iter().map(|load| load.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// Corners of the curve of bytes on the stage.
    fn occupied(&self) -> Vec<(u64, u64)> {
        // (moment, growth at once, growth for each later unit in parts of a load)
        let mut moments: Vec<u64> = vec![0, self.horizon];
        moments.extend(
            self.loads
                .iter()
                .flat_map(|load| [load.start, load.end, load.leaves]),
        );
        moments.extend(self.staged.iter().map(|one| one.0));
        moments.sort_unstable();
        moments.dedup();
        let mut sweep = Sweep::new(self);
        moments
            .into_iter()
            .flat_map(|at| [(at, sweep.before(at)), (at, sweep.after(at))])
            .collect()
    }
}

/// Bytes on the stage as time goes on.
struct Sweep<'a> {
    scene: &'a Scene,
    /// Loads not started, by start.
    next: usize,
    /// Loads that have started and whose images are still there.
    there: Vec<&'a Drawn>,
    staged: Vec<(u64, u64)>,
}

impl<'a> Sweep<'a> {
    fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            next: 0,
            there: Vec::new(),
            staged: scene.staged.clone(),
        }
    }

    fn bytes(&self, at: u64) -> u64 {
        let part = |load: &&Drawn| match self.scene.model {
            Model::Integral => load.size,
            Model::Continuous => {
                let whole = (load.end - load.start).max(1);
                let passed = at.saturating_sub(load.start).min(whole);
                u64::try_from(u128::from(load.size) * u128::from(passed) / u128::from(whole))
                    .unwrap_or(load.size)
            }
        };
        self.staged.iter().map(|one| one.1).sum::<u64>() + self.there.iter().map(part).sum::<u64>()
    }

    fn before(&mut self, at: u64) -> u64 {
        self.bytes(at)
    }

    fn after(&mut self, at: u64) -> u64 {
        self.staged.retain(|one| one.0 > at);
        self.there.retain(|load| load.leaves > at);
        while let Some(load) = self
            .scene
            .loads
            .get(self.next)
            .filter(|load| load.start <= at)
        {
            self.there.push(load);
            self.next += 1;
        }
        self.bytes(at)
    }
}

type Drawing = (Vec<Drawn>, Vec<Due>);

fn plain(named: &Named, instance: &Instance, schedule: &mutual_stage::Schedule) -> Drawing {
    let mut met = vec![false; instance.reservations().len()];
    let loads = schedule.loads().iter().map(|load| {
        let reservation = &instance.reservations()[load.reservation];
        met[load.reservation] = true;
        Drawn {
            name: named.jobs[load.reservation].to_string(),
            size: reservation.size,
            start: load.start,
            end: load.start + reservation.loading(),
            leaves: instance.leaves_on_link(reservation.due),
        }
    });
    let loads = loads.collect();
    let due = |(job, is_met)| Due {
        at: instance.due_on_link(job),
        is_met,
        name: named.jobs[job].to_string(),
    };
    let dues = met.into_iter().enumerate().map(due);
    (loads, dues.collect())
}

fn of_shared(
    named: &Named,
    shared: &Shared,
    schedule: &mutual_stage::shared::SharedSchedule,
) -> Drawing {
    let mut leaves = vec![0; shared.images().len()];
    let mut met = vec![false; shared.tasks().len()];
    for job in &schedule.served {
        met[*job] = true;
        for image in &shared.tasks()[*job].images {
            leaves[*image] = shared
                .site()
                .leaves_on_link(shared.tasks()[*job].due)
                .max(leaves[*image]);
        }
    }
    let loads = schedule.loads.iter().map(|load| {
        let image = &shared.images()[load.image];
        Drawn {
            name: named.images[load.image].to_string(),
            size: image.size,
            start: load.start,
            end: load.start + image.load_time.unwrap_or(image.size),
            leaves: leaves[load.image],
        }
    });
    let due = |((task, name), is_met): ((&Task, &Id), bool)| Due {
        at: shared.site().on_link(task.due),
        is_met,
        name: name.to_string(),
    };
    let dues = shared.tasks().iter().zip(&named.jobs).zip(met).map(due);
    (loads.collect(), dues.collect())
}

fn label(picture: &mut Picture, y: f32, text: &str) {
    picture.text((LEFT - 8.0, y), Anchor::End, BLACK, text);
}

/// Few sizes have colours of their own; many go from pale to dark.
fn colour(sizes: &[u64], size: u64) -> Colour {
    let place = sizes.partition_point(|other| *other < size);
    if sizes.len() <= SERIES.len() {
        return SERIES[place % SERIES.len()];
    }
    let dark = place as f32 / sizes.len() as f32;
    let mix = |pale: f32, full: f32| (pale + (full - pale) * dark) as u8;
    [mix(140.0, 0.0), mix(190.0, 60.0), mix(225.0, 130.0), 255]
}

/// About ten steps of 1, 2 or 5 times a power of ten.
fn round_step(horizon: u64) -> u64 {
    let mut step = 1u64;
    loop {
        for factor in [1, 2, 5] {
            let step = step.saturating_mul(factor);
            if horizon / step <= 12 {
                return step;
            }
        }
        step = step.saturating_mul(10);
    }
}

//! The experiment's picture: what is served over the size of the stage, a line for each algorithm, with confidence intervals.

use super::run::{ALGORITHMS, BEST, BLIND, FOREST};
use super::{Mean, Report};
use crate::commands::stage::picture::{Anchor, BLACK, Colour, GREY, PALE, Picture, SERIES};

const WIDTH: f32 = 1_000.0;
const HEIGHT: f32 = 660.0;
const LEFT: f32 = 70.0;
const RIGHT: f32 = 170.0;
const TOP: f32 = 50.0;
const BOTTOM: f32 = 84.0;

/// Named below the picture instead of drawn: blind EDD lies so far below that it would squash all others, the forest lies on other lines.
const NOT_DRAWN: [usize; 2] = [BLIND, FOREST];
/// Half the distance of the outermost whiskers.
const WHISKERS: f32 = 7.0;

/// Places of those algorithms that are drawn: bounds below all others, the best on top.
fn drawn() -> impl Iterator<Item = usize> {
    let bounds = BEST + 1..ALGORITHMS.len();
    bounds
        .chain(0..=BEST)
        .filter(|place| !NOT_DRAWN.contains(place))
}

/// Places of what is drawn on both axes.
struct Axes {
    first_gb: f64,
    last_gb: f64,
    least: f64,
    most: f64,
}

impl Axes {
    fn of(report: &Report) -> Self {
        let capacities = report.rows.iter().map(|row| row.capacity_gb);
        let (first_gb, last_gb) = capacities.fold((f64::MAX, f64::MIN), |(first, last), gb| {
            (first.min(gb), last.max(gb))
        });
        let all = report
            .rows
            .iter()
            .flat_map(|row| drawn().map(|place| ends(row.reached[place].percent)));
        let (least, most) = all.fold((100.0, 0.0), |(least, most): (f64, f64), (low, high)| {
            (least.min(low), most.max(high))
        });
        Self {
            first_gb,
            last_gb: last_gb.max(first_gb + 1e-9),
            least: (least / 5.0).floor() * 5.0,
            most: ((most / 5.0).ceil() * 5.0).max(least + 5.0),
        }
    }

    fn x(&self, gb: f64) -> f32 {
        let part = (gb - self.first_gb) / (self.last_gb - self.first_gb);
        LEFT + (WIDTH - LEFT - RIGHT) * part as f32
    }

    fn y(&self, percent: f64) -> f32 {
        let part = (percent - self.least) / (self.most - self.least);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part as f32
    }
}

pub(super) fn draw(report: &Report) -> Picture {
    let mut picture = Picture::new(WIDTH as u32, HEIGHT as u32);
    let axes = Axes::of(report);
    grid(&mut picture, report, &axes);
    for (rank, place) in drawn().enumerate() {
        series(&mut picture, report, &axes, (rank, place));
    }
    legend(&mut picture, report);
    not_drawn(&mut picture, report);
    picture
}

fn grid(picture: &mut Picture, report: &Report, axes: &Axes) {
    let steps = ((axes.most - axes.least) / 5.0).round() as u32;
    for step in 0..=steps {
        let percent = axes.least + 5.0 * f64::from(step);
        let y = axes.y(percent);
        picture.line(vec![(LEFT, y), (WIDTH - RIGHT, y)], 1.0, PALE);
        picture.text(
            (LEFT - 8.0, y),
            Anchor::End,
            BLACK,
            format!("{percent:.0} %"),
        );
    }
    for row in &report.rows {
        let x = axes.x(row.capacity_gb);
        picture.line(
            vec![(x, HEIGHT - BOTTOM), (x, HEIGHT - BOTTOM + 5.0)],
            1.0,
            GREY,
        );
        let words = format!("{:.1}", row.capacity_gb);
        picture.text((x, HEIGHT - BOTTOM + 16.0), Anchor::Middle, BLACK, words);
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    picture.text(
        (middle, HEIGHT - 42.0),
        Anchor::Middle,
        BLACK,
        "size of the stage, GB",
    );
    let what = match report.weights {
        true => "weight",
        false => "requests",
    };
    let title = format!(
        "{what} served, % of {}, load {}, {} seeds, 95 % confidence",
        report.requests, report.load, report.seeds
    );
    picture.text((LEFT, 22.0), Anchor::Start, BLACK, title);
}

fn series(picture: &mut Picture, report: &Report, axes: &Axes, (rank, place): (usize, usize)) {
    let tint = colour(rank);
    let points = report
        .rows
        .iter()
        .map(|row| (axes.x(row.capacity_gb), row.reached[place].percent));
    let line = points.clone().map(|(x, percent)| (x, axes.y(percent.mean)));
    picture.line(line.collect(), width(place), tint);
    let steps = drawn().count().saturating_sub(1).max(1) as f32;
    for (x, percent) in points {
        // Whiskers stand side by side.
        let x = x + WHISKERS * (2.0 * rank as f32 / steps - 1.0);
        let (low, high) = ends(percent);
        picture.line(vec![(x, axes.y(low)), (x, axes.y(high))], 1.0, tint);
        picture.bar((x - 1.5, axes.y(percent.mean) - 1.5), (3.0, 3.0), tint);
    }
}

/// The last one, grey, for the integral bound, on which the best is seen well.
fn colour(rank: usize) -> Colour {
    SERIES[(rank + SERIES.len() - 1) % SERIES.len()]
}

/// Bounds are broad, so that what reaches them can be seen on them.
fn width(place: usize) -> f32 {
    match place > BEST {
        true => 5.0,
        false => 2.0,
    }
}

/// The confidence interval.
fn ends(percent: Mean) -> (f64, f64) {
    let half = percent.confidence.unwrap_or(0.0);
    (percent.mean - half, percent.mean + half)
}

/// In the order of the last values, so that names stand near their lines.
fn legend(picture: &mut Picture, report: &Report) {
    let Some(last) = report.rows.last() else {
        return;
    };
    let mut order: Vec<_> = drawn().enumerate().collect();
    order.sort_by(|one, other| {
        let mean = |place: usize| last.reached[place].percent.mean;
        mean(other.1).total_cmp(&mean(one.1))
    });
    for (row, (rank, place)) in order.into_iter().enumerate() {
        let y = TOP + 20.0 + row as f32 * 22.0;
        let x = WIDTH - RIGHT + 22.0;
        let thick = width(place) + 1.0;
        picture.bar((x, y - thick / 2.0), (18.0, thick), colour(rank));
        picture.text((x + 26.0, y), Anchor::Start, BLACK, ALGORITHMS[place]);
    }
}

fn not_drawn(picture: &mut Picture, report: &Report) {
    let range = |place: usize| {
        let means = report
            .rows
            .iter()
            .map(|row| row.reached[place].percent.mean);
        let (least, most) = means.fold((f64::MAX, f64::MIN), |(least, most), mean| {
            (least.min(mean), most.max(mean))
        });
        format!("{} {least:.1} to {most:.1} %", ALGORITHMS[place])
    };
    let words = format!("not drawn: {}", NOT_DRAWN.map(range).join(", "));
    picture.text((LEFT, HEIGHT - 18.0), Anchor::Start, GREY, words);
}

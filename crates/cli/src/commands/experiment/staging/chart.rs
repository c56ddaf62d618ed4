//! The experiment's picture: what is served over the size of the stage, a line for each algorithm, with confidence intervals.

use super::Report;
use super::run::ALGORITHMS;
use crate::commands::stage::picture::{Anchor, BLACK, GREY, PALE, Picture, SERIES};

const WIDTH: f32 = 1_000.0;
const HEIGHT: f32 = 620.0;
const LEFT: f32 = 70.0;
const RIGHT: f32 = 170.0;
const TOP: f32 = 50.0;
const BOTTOM: f32 = 60.0;

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
        let all = report.rows.iter().flat_map(|row| &row.reached);
        let (least, most) = all.fold((100.0, 0.0), |(least, most): (f64, f64), reached| {
            let (mean, half) = (reached.mean_percent, reached.confidence_percent);
            (least.min(mean - half), most.max(mean + half))
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
    for place in 0..ALGORITHMS.len() {
        series(&mut picture, report, &axes, place);
    }
    legend(&mut picture, report);
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
        (middle, HEIGHT - 18.0),
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

fn series(picture: &mut Picture, report: &Report, axes: &Axes, place: usize) {
    let colour = SERIES[place % SERIES.len()];
    let points = report.rows.iter().map(|row| {
        let reached = &row.reached[place];
        (axes.x(row.capacity_gb), reached)
    });
    let points: Vec<_> = points.collect();
    let line = points
        .iter()
        .map(|(x, reached)| (*x, axes.y(reached.mean_percent)));
    picture.line(line.collect(), 2.0, colour);
    for (x, reached) in points {
        // Whiskers stand side by side.
        let x = x + (place as f32 - 3.5) * 1.5;
        let (mean, half) = (reached.mean_percent, reached.confidence_percent);
        picture.line(
            vec![(x, axes.y(mean - half)), (x, axes.y(mean + half))],
            1.0,
            colour,
        );
        picture.bar((x - 2.5, axes.y(mean) - 2.5), (5.0, 5.0), colour);
    }
}

/// In the order of the last values, so that names stand near their lines.
fn legend(picture: &mut Picture, report: &Report) {
    let Some(last) = report.rows.last() else {
        return;
    };
    let mut order: Vec<_> = (0..ALGORITHMS.len()).collect();
    order.sort_by(|one, other| {
        let mean = |place: usize| last.reached[place].mean_percent;
        mean(*other).total_cmp(&mean(*one))
    });
    for (row, place) in order.into_iter().enumerate() {
        let y = TOP + 20.0 + row as f32 * 22.0;
        let x = WIDTH - RIGHT + 22.0;
        picture.bar((x, y - 2.0), (18.0, 4.0), SERIES[place % SERIES.len()]);
        picture.text((x + 26.0, y), Anchor::Start, BLACK, ALGORITHMS[place]);
    }
}

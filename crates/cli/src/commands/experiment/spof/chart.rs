//! The states over time: all repeats in one picture, and when something was dead.

use std::path::Path;

use mutual_node::model::job::JobState::{self, Assigned, Preparing, Queued, Running, Succeeded};

use super::Row;
use super::play::Sample;
use crate::commands::experiment::chaos::chart::save as save_picture;
use crate::commands::stage::picture::{Anchor, BLACK, Colour, GREY, PALE, Picture, SERIES};
use crate::failure::Outcome;

const WIDTH: f32 = 1_000.0;
const HEIGHT: f32 = 480.0;
const LEFT: f32 = 60.0;
const RIGHT: f32 = 170.0;
const TOP: f32 = 50.0;
const BOTTOM: f32 = 60.0;
/// Marks on an axis, about.
const MARKS: f64 = 8.0;
/// Red, so thin that lines shine through.
const DEAD: Colour = [204, 51, 63, 24];

/// What is drawn, over each other.
const LINES: [(&str, &[JobState], Colour); 4] = [
    ("queued", &[Queued], SERIES[1]),
    ("held, not yet running", &[Assigned, Preparing], SERIES[4]),
    ("running", &[Running], SERIES[0]),
    ("succeeded", &[Succeeded], SERIES[2]),
];

/// Writes `spof-WHAT.svg` and `spof-WHAT.png`.
pub(super) fn save(row: &Row, dir: &Path) -> Outcome {
    save_picture(&draw(row), dir, &format!("spof-{}", row.what.name()))
}

fn draw(row: &Row) -> Picture {
    let mut picture = Picture::new(WIDTH as u32, HEIGHT as u32);
    let last_s = row.runs.iter().map(|run| run.over_s).fold(1.0, f64::max);
    let tasks = row
        .runs
        .iter()
        .map(|run| run.verdict.tasks)
        .max()
        .unwrap_or(1) as f64;
    let x = |at_s: f64| LEFT + (WIDTH - LEFT - RIGHT) * (at_s / last_s) as f32;
    let y = |count: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (count / tasks) as f32;
    grid(&mut picture, (last_s, &x), (tasks, &y));
    for run in &row.runs {
        let (from, to) = (x(run.killed_s), x(run.back_s));
        picture.bar((from, TOP), (to - from, HEIGHT - TOP - BOTTOM), DEAD);
        for (_, states, colour) in LINES {
            let point = |sample: &Sample| (x(sample.at_s), y(sample.count(states) as f64));
            picture.line(run.samples.iter().map(point).collect(), 1.5, colour);
        }
    }
    legend(&mut picture, row);
    picture
}

type Scale<'a> = (f64, &'a dyn Fn(f64) -> f32);

fn grid(picture: &mut Picture, (last_s, x): Scale<'_>, (tasks, y): Scale<'_>) {
    for count in marks(tasks) {
        picture.line(vec![(LEFT, y(count)), (WIDTH - RIGHT, y(count))], 1.0, PALE);
        picture.text(
            (LEFT - 8.0, y(count)),
            Anchor::End,
            BLACK,
            format!("{count:.0}"),
        );
    }
    let bottom = HEIGHT - BOTTOM;
    for at_s in marks(last_s) {
        picture.line(vec![(x(at_s), bottom), (x(at_s), bottom + 5.0)], 1.0, GREY);
        picture.text(
            (x(at_s), bottom + 16.0),
            Anchor::Middle,
            BLACK,
            format!("{at_s:.0}"),
        );
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    picture.text(
        (middle, HEIGHT - 18.0),
        Anchor::Middle,
        BLACK,
        "seconds since the submission",
    );
}

/// Round numbers from 0 to `last`.
fn marks(last: f64) -> Vec<f64> {
    let rough = (last / MARKS).max(1.0);
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = steps
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let count = (last / step).floor() as u32;
    (0..=count).map(|mark| f64::from(mark) * step).collect()
}

fn legend(picture: &mut Picture, row: &Row) {
    let title = format!(
        "tasks by state, {} dead in between, {} runs",
        row.what.name(),
        row.runs.len()
    );
    picture.text((LEFT, 22.0), Anchor::Start, BLACK, title);
    for (number, (name, _, colour)) in LINES.into_iter().enumerate() {
        let (x, y) = (WIDTH - RIGHT + 12.0, TOP + 20.0 + number as f32 * 22.0);
        picture.bar((x, y - 1.5), (16.0, 3.0), colour);
        picture.text((x + 22.0, y), Anchor::Start, BLACK, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        assert_eq!(marks(50.0), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(marks(163.0).last(), Some(&150.0));
        assert_eq!(marks(3.0), [0.0, 1.0, 2.0, 3.0]);
    }
}

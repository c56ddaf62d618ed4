//! Times over something that grows: a line for each measurement, with the range of its repeats.

use std::path::Path;

use crate::commands::spread::Spread;
use crate::commands::stage::picture::{Anchor, BLACK, Colour, GREY, PALE, Picture, RED, SERIES};
use crate::failure::{Naming as _, Outcome};

const WIDTH: f32 = 1_000.0;
const HEIGHT: f32 = 560.0;
const LEFT: f32 = 80.0;
const RIGHT: f32 = 270.0;
const TOP: f32 = 50.0;
const BOTTOM: f32 = 70.0;
/// What no measurement falls below.
const LEAST_S: f64 = 0.001;

/// One measurement.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Seconds of the repeats, for each place on the axis where there are any.
    pub(crate) points: Vec<(f64, Spread)>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What grows from left to right.
    pub(crate) axis: String,
    pub(crate) series: Vec<Series>,
    /// What shall not be exceeded, in seconds.
    pub(crate) bars: Vec<(f64, f64)>,
}

impl Chart {
    /// Writes NAME.svg and NAME.png into a directory, which is made if it is not there.
    pub(crate) fn save(&self, dir: &Path, name: &str) -> Outcome {
        save(&self.draw(), dir, name)
    }

    fn draw(&self) -> Picture {
        let mut picture = Picture::new(WIDTH as u32, HEIGHT as u32);
        let axes = Axes::of(self);
        axes.grid(&mut picture, self);
        for (series, colour) in self.series.iter().zip(SERIES.iter().cycle()) {
            axes.series(&mut picture, series, *colour);
        }
        let bars = self
            .bars
            .iter()
            .map(|(at, bar)| (axes.x(*at), axes.y(*bar)));
        picture.line(bars.collect(), 1.5, RED);
        self.legend(&mut picture);
        picture
    }

    fn legend(&self, picture: &mut Picture) {
        let named = self.series.iter().map(|series| series.name.as_str());
        let coloured = named.zip(SERIES.iter().copied().cycle());
        let bar = (!self.bars.is_empty()).then_some(("shall not be exceeded", RED));
        for (row, (name, colour)) in coloured.chain(bar).enumerate() {
            let y = TOP + 20.0 + row as f32 * 22.0;
            let x = WIDTH - RIGHT + 22.0;
            picture.bar((x, y - 1.5), (18.0, 3.0), colour);
            picture.text((x + 26.0, y), Anchor::Start, BLACK, name);
        }
    }
}

/// Writes a picture as NAME.svg and NAME.png.
pub(crate) fn save(picture: &Picture, dir: &Path, name: &str) -> Outcome {
    std::fs::create_dir_all(dir).naming(dir.display())?;
    for kind in ["svg", "png"] {
        picture.save(&dir.join(format!("{name}.{kind}")))?;
    }
    Ok(())
}

/// Places on both axes; times by their logarithm, since a lease is a thousand times a kill.
struct Axes {
    first: f64,
    last: f64,
    /// Powers of ten.
    least: i32,
    most: i32,
}

impl Axes {
    fn of(chart: &Chart) -> Self {
        let points = || chart.series.iter().flat_map(|series| &series.points);
        let places = points().map(|(at, _)| *at);
        let (first, last) = ends(places);
        let ranges = points().flat_map(|(_, spread)| [spread.least(), spread.greatest()]);
        let (low, high) = ends(ranges.chain(chart.bars.iter().map(|(_, bar)| *bar)));
        let least = low.max(LEAST_S).log10().floor() as i32;
        Self {
            first,
            last: last.max(first + 1e-9),
            least,
            most: (high.max(LEAST_S).log10().ceil() as i32).max(least + 1),
        }
    }

    fn x(&self, at: f64) -> f32 {
        let part = (at - self.first) / (self.last - self.first);
        LEFT + 20.0 + (WIDTH - LEFT - RIGHT - 40.0) * part as f32
    }

    fn y(&self, seconds: f64) -> f32 {
        let height = f64::from(self.most - self.least);
        let part = (seconds.max(LEAST_S).log10() - f64::from(self.least)) / height;
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part as f32
    }

    fn grid(&self, picture: &mut Picture, chart: &Chart) {
        for power in self.least..=self.most {
            let steps = if power == self.most { 1 } else { 9 };
            for step in 1..=steps {
                self.level(picture, f64::from(step) * 10_f64.powi(power), step == 1);
            }
        }
        let points = chart.series.iter().flat_map(|series| &series.points);
        let mut places: Vec<_> = points.map(|(at, _)| *at).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        for at in places {
            let (x, y) = (self.x(at), HEIGHT - BOTTOM);
            picture.line(vec![(x, y), (x, y + 5.0)], 1.0, GREY);
            picture.text((x, y + 16.0), Anchor::Middle, BLACK, at.to_string());
        }
        let middle = (LEFT + WIDTH - RIGHT) / 2.0;
        picture.text((middle, HEIGHT - 22.0), Anchor::Middle, BLACK, &*chart.axis);
        picture.text((LEFT, 22.0), Anchor::Start, BLACK, &*chart.title);
    }

    fn level(&self, picture: &mut Picture, seconds: f64, is_power: bool) {
        let y = self.y(seconds);
        let thick = if is_power { 1.5 } else { 0.5 };
        picture.line(vec![(LEFT, y), (WIDTH - RIGHT, y)], thick, PALE);
        if is_power {
            let words = seconds_words(seconds);
            picture.text((LEFT - 8.0, y), Anchor::End, BLACK, words);
        }
    }

    fn series(&self, picture: &mut Picture, series: &Series, colour: Colour) {
        let median = |(at, spread): &(f64, Spread)| (self.x(*at), self.y(spread.percentile(50)));
        picture.line(series.points.iter().map(median).collect(), 2.0, colour);
        for (at, spread) in &series.points {
            let x = self.x(*at);
            let range = [spread.least(), spread.greatest()].map(|end| (x, self.y(end)));
            picture.line(range.to_vec(), 1.0, colour);
            let (x, y) = median(&(*at, spread.clone()));
            picture.bar((x - 2.5, y - 2.5), (5.0, 5.0), colour);
        }
    }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, f64::MIN), |(least, most), value| {
        (least.min(value), most.max(value))
    })
}

fn seconds_words(seconds: f64) -> String {
    match seconds < 0.999 {
        true => format!("{:.0} ms", seconds * 1e3),
        false => format!("{seconds:.0} s"),
    }
}

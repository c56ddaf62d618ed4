//! Bars, lines and words on a canvas, written as SVG or PNG.
//!
//! One list of shapes, two ways to write it down, so that both files show the same. Text in a PNG comes from a font that is compiled
//! in: a server without fonts draws the same picture.

use std::fmt::Write as _;
use std::path::Path;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster};
use tiny_skia::{Color, Paint, PathBuilder, Pixmap, PremultipliedColorU8, Rect, Stroke, Transform};

use crate::failure::{Failure, Naming as _, Outcome};

/// Red, green, blue, and how much of it covers what is below, 0 to 255.
pub(crate) type Colour = [u8; 4];

pub(crate) const BLACK: Colour = [30, 30, 36, 255];
pub(crate) const GREY: Colour = [130, 130, 140, 255];
pub(crate) const PALE: Colour = [226, 228, 234, 255];
pub(crate) const RED: Colour = [204, 51, 63, 255];

/// Distinct also for most who do not see all colours (Okabe and Ito).
pub(crate) const SERIES: [Colour; 8] = [
    [0, 114, 178, 255],
    [230, 159, 0, 255],
    [0, 158, 115, 255],
    [204, 121, 167, 255],
    [86, 180, 233, 255],
    [213, 94, 0, 255],
    [120, 94, 240, 255],
    [90, 90, 90, 255],
];

/// Height of a line of text, and width of a letter in it.
pub(crate) const TEXT_HEIGHT: f32 = 16.0;
pub(crate) const LETTER_WIDTH: f32 = 7.0;

/// Where a text's position lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Debug, Clone)]
enum Shape {
    Bar {
        x: f32,
        y: f32,
        width: f32,
        height: f32,
        colour: Colour,
    },
    Line {
        points: Vec<(f32, f32)>,
        width: f32,
        colour: Colour,
    },
    Text {
        x: f32,
        y: f32,
        anchor: Anchor,
        colour: Colour,
        text: String,
    },
}

/// A picture of a size in pixels.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    width: u32,
    height: u32,
    shapes: Vec<Shape>,
}

/// Refuses a file name before any work is done for it.
pub(crate) fn check_name(path: &Path) -> Outcome {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg" | "png") => Ok(()),
        _ => Err(
            Failure::user(format!("--plot {}: no picture's name", path.display()))
                .hint("end it in .svg or .png"),
        ),
    }
}

impl Picture {
    pub(crate) fn new(width: u32, height: u32) -> Self {
        let shapes = Vec::new();
        Self {
            width,
            height,
            shapes,
        }
    }

    pub(crate) fn bar(&mut self, (x, y): (f32, f32), (width, height): (f32, f32), colour: Colour) {
        self.shapes.push(Shape::Bar {
            x,
            y,
            width,
            height,
            colour,
        });
    }

    pub(crate) fn line(&mut self, points: Vec<(f32, f32)>, width: f32, colour: Colour) {
        self.shapes.push(Shape::Line {
            points,
            width,
            colour,
        });
    }

    /// A text whose middle line is at y.
    pub(crate) fn text(
        &mut self,
        (x, y): (f32, f32),
        anchor: Anchor,
        colour: Colour,
        text: impl Into<String>,
    ) {
        self.shapes.push(Shape::Text {
            x,
            y,
            anchor,
            colour,
            text: text.into(),
        });
    }

    /// Writes it as what its name ends in.
    pub(crate) fn save(&self, path: &Path) -> Outcome {
        check_name(path)?;
        let bytes = match path.extension().is_some_and(|extension| extension == "svg") {
            true => self.svg().into_bytes(),
            false => self.png()?,
        };
        std::fs::write(path, bytes).naming(path.display())
    }

    fn svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"monospace\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        for shape in &self.shapes {
            svg_shape(&mut svg, shape);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn png(&self) -> Outcome<Vec<u8>> {
        let too_large = || Failure::internal("the picture is too large");
        let mut pixels = Pixmap::new(self.width, self.height).ok_or_else(too_large)?;
        pixels.fill(Color::WHITE);
        for shape in &self.shapes {
            paint(&mut pixels, shape);
        }
        pixels.encode_png().map_err(Failure::internal)
    }
}

fn svg_colour([red, green, blue, cover]: Colour) -> String {
    match cover {
        255 => format!("#{red:02x}{green:02x}{blue:02x}"),
        _ => format!("rgba({red},{green},{blue},{:.2})", f32::from(cover) / 255.0),
    }
}

/// Writing to a string cannot fail.
fn svg_shape(svg: &mut String, shape: &Shape) {
    let _ = match shape {
        Shape::Bar {
            x,
            y,
            width,
            height,
            colour,
        } => writeln!(
            svg,
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" fill=\"{}\"/>",
            svg_colour(*colour)
        ),
        Shape::Line {
            points,
            width,
            colour,
        } => {
            let points: Vec<_> = points
                .iter()
                .map(|(x, y)| format!("{x:.2},{y:.2}"))
                .collect();
            writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"/>",
                points.join(" "),
                svg_colour(*colour)
            )
        }
        Shape::Text {
            x,
            y,
            anchor,
            colour,
            text,
        } => {
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            writeln!(
                svg,
                "<text x=\"{x:.2}\" y=\"{:.2}\" text-anchor=\"{anchor}\" fill=\"{}\">{}</text>",
                y + 4.0,
                svg_colour(*colour),
                escaped(text)
            )
        }
    };
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

fn paint(pixels: &mut Pixmap, shape: &Shape) {
    match shape {
        Shape::Bar {
            x,
            y,
            width,
            height,
            colour,
        } => {
            // Nothing is drawn for a bar of no area.
            if let Some(rect) = Rect::from_xywh(*x, *y, *width, *height) {
                pixels.fill_rect(rect, &brush(*colour), Transform::identity(), None);
            }
        }
        Shape::Line {
            points,
            width,
            colour,
        } => paint_line(pixels, points, *width, *colour),
        Shape::Text {
            x,
            y,
            anchor,
            colour,
            text,
        } => {
            let whole = text.chars().count() as f32 * LETTER_WIDTH;
            let left = match anchor {
                Anchor::Start => *x,
                Anchor::Middle => x - whole / 2.0,
                Anchor::End => x - whole,
            };
            paint_text(pixels, (left, y - TEXT_HEIGHT / 2.0), *colour, text);
        }
    }
}

fn brush([red, green, blue, cover]: Colour) -> Paint<'static> {
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, cover);
    paint
}

fn paint_line(pixels: &mut Pixmap, points: &[(f32, f32)], width: f32, colour: Colour) {
    let mut path = PathBuilder::new();
    for (place, (x, y)) in points.iter().enumerate() {
        match place {
            0 => path.move_to(*x, *y),
            _ => path.line_to(*x, *y),
        }
    }
    let Some(path) = path.finish() else {
        return;
    };
    let stroke = Stroke {
        width,
        ..Stroke::default()
    };
    pixels.stroke_path(&path, &brush(colour), &stroke, Transform::identity(), None);
}

/// Letters the font lacks become question marks.
fn paint_text(pixels: &mut Pixmap, (left, top): (f32, f32), colour: Colour, text: &str) {
    for (place, letter) in text.chars().enumerate() {
        let raster = |letter| get_raster(letter, FontWeight::Regular, RasterHeight::Size16);
        let Some(glyph) = raster(letter).or_else(|| raster('?')) else {
            continue;
        };
        let x = left + place as f32 * LETTER_WIDTH;
        for (row, line) in glyph.rows().enumerate() {
            for (column, cover) in line.iter().enumerate() {
                blend(
                    pixels,
                    (x + column as f32, top + row as f32),
                    colour,
                    *cover,
                );
            }
        }
    }
}

fn blend(pixels: &mut Pixmap, (x, y): (f32, f32), colour: Colour, cover: u8) {
    let (width, height) = (pixels.width() as f32, pixels.height() as f32);
    if cover == 0 || x < 0.0 || y < 0.0 || x >= width || y >= height {
        return;
    }
    let place = y as usize * pixels.width() as usize + x as usize;
    let below = pixels.pixels()[place];
    let mix = |over: u8, under: u8| {
        let sum = u32::from(over) * u32::from(cover) + u32::from(under) * u32::from(255 - cover);
        u8::try_from(sum / 255).unwrap_or(u8::MAX)
    };
    let [red, green, blue, _] = colour;
    let mixed = PremultipliedColorU8::from_rgba(
        mix(red, below.red()),
        mix(green, below.green()),
        mix(blue, below.blue()),
        255,
    );
    if let Some(mixed) = mixed {
        pixels.pixels_mut()[place] = mixed;
    }
}

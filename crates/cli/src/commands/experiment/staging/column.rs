//! One column of numbers from a CSV file that the user names.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;

use csv::{Reader, StringRecord};

use crate::failure::{Failure, Naming as _, Outcome};

/// Bytes that are read, unpacked: what is beyond is refused.
const BYTES_MAX: u64 = 1 << 30;
/// Columns that an error lists.
const LISTED_MAX: usize = 20;
/// Letters of a wrong cell that an error repeats.
const SHOWN_MAX: usize = 40;

/// The numbers of `FILE:COLUMN`, a CSV file with a header line that may be gzipped; empty cells are passed over.
pub(super) fn column(named: &str, range: RangeInclusive<f64>) -> Outcome<Vec<f64>> {
    let (path, name) = named.rsplit_once(':').ok_or_else(|| {
        Failure::user(format!("{named}: no column is named")).hint("write FILE:COLUMN")
    })?;
    read(open(path)?, name, &range).map_err(|failure| failure.about(path))
}

fn open(path: &str) -> Outcome<Box<dyn Read>> {
    let file = File::open(path).naming(path)?;
    Ok(
        match Path::new(path).extension().is_some_and(|end| end == "gz") {
            true => Box::new(flate2::read::MultiGzDecoder::new(file)),
            false => Box::new(file),
        },
    )
}

fn read(from: impl Read, name: &str, range: &RangeInclusive<f64>) -> Outcome<Vec<f64>> {
    let mut rows = Reader::from_reader(from.take(BYTES_MAX + 1));
    let headers = rows.headers().map_err(Failure::user)?;
    let place = headers.iter().position(|header| header == name);
    let place = place.ok_or_else(|| {
        let names: Vec<_> = headers.iter().take(LISTED_MAX).collect();
        Failure::user(format!("there is no column {name}"))
            .hint(format!("columns: {}", names.join(", ")))
    })?;
    let mut values = Vec::new();
    let mut row = StringRecord::new();
    while rows.read_record(&mut row).map_err(Failure::user)? {
        values.extend(value(&row, place, name, range)?);
    }
    if rows.position().byte() > BYTES_MAX {
        return Err(Failure::user("the file is too large").hint("at most 1 GiB is read, unpacked"));
    }
    match values.is_empty() {
        true => Err(Failure::user(format!("{name} holds no numbers"))),
        false => Ok(values),
    }
}

/// The number in a row's cell, if there is anything in it.
fn value(
    row: &StringRecord,
    place: usize,
    name: &str,
    range: &RangeInclusive<f64>,
) -> Outcome<Option<f64>> {
    let cell = row.get(place).unwrap_or("").trim();
    if cell.is_empty() {
        return Ok(None);
    }
    let value = cell.parse().ok().filter(|value| range.contains(value));
    value.map(Some).ok_or_else(|| {
        let line = row.position().map_or(0, csv::Position::line);
        let shown: String = cell.chars().take(SHOWN_MAX).collect();
        let (least, most) = (range.start(), range.end());
        Failure::user(format!("line {line}: {name} is {shown:?}"))
            .hint(format!("it must be a number from {least} to {most:e}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&[f64], &str>) {
        let read = read(text.as_bytes(), "b", &(1.0..=1e6));
        let read = read.map_err(|failure| failure.to_string());
        assert_eq!(read.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn a_column_is_read_by_its_name() {
        check("a,b\n1,2\nx, 3.5 \n4,\n,1e3\n", Ok(&[2.0, 3.5, 1000.0]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_field() {
        check("a,b\n1,2\n2,no\n", Err("line 3: b is \"no\""));
        check("a,b\n1,-2\n", Err("line 2: b is \"-2\""));
        check("a,b\n1,nan\n", Err("line 2: b is \"nan\""));
        check("a,b\n1,1e300\n", Err("line 2: b is \"1e300\""));
        check("a,c\n1,2\n", Err("there is no column b"));
        check("a,b\n1,\n", Err("b holds no numbers"));
        check("", Err("there is no column b"));
        check(
            "a,b\n1,2\n1,2,3\n",
            Err(
                "CSV error: record 2 (line: 3, byte: 8): found record with 3 fields, but the previous record has 2 fields",
            ),
        );
    }
}

//! What an agent costs while it has nothing to do: memory, and processor time over a while.
//!
//! An agent keeps a shim waiting that will start its next task. The shim is this same program, so
//! most of what it has resident is the agent's own code once more; it is shown apart.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::args::Session;
use crate::cloud::Cloud;
use crate::commands::spread::Spread;
use crate::commands::status;
use crate::failure::{Failure, Outcome};
use crate::output::{table, table_text};

/// How long the cloud rests before the measurement, so that starting is not counted.
const SETTLE: Duration = Duration::from_secs(5);
const KIB_PER_MIB: f64 = 1024.0;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long processor time is counted
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
}

/// What the kernel says of an agent.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    /// Of the agent and all below it.
    cpu_ticks: u64,
    /// Of the agent.
    resident_kib: u64,
    /// Of all below it.
    resident_below_kib: u64,
}

pub(super) async fn run(session: &Session, cloud: &Cloud, args: &Args) -> Outcome {
    let pids: Vec<_> = cloud.agents().iter().map(|agent| agent.pid()).collect();
    let look = || -> Outcome<Vec<_>> { pids.iter().map(|pid| usage(*pid)).collect() };
    tokio::time::sleep(SETTLE).await;
    let (since, before) = (Instant::now(), look()?);
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let (seconds, after) = (since.elapsed().as_secs_f64(), look()?);
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let cpu = before.iter().zip(&after).map(|(before, after)| {
        let ticks = after.cpu_ticks.saturating_sub(before.cpu_ticks);
        100.0 * ticks as f64 / ticks_per_second / seconds
    });
    let memory = |of: fn(&Usage) -> u64| {
        Spread::of(
            after
                .iter()
                .map(|usage| of(usage) as f64 / KIB_PER_MIB)
                .collect(),
        )
    };
    let rows = [
        ("memory (RSS), MiB", memory(|usage| usage.resident_kib)),
        (
            "memory of its waiting shim, MiB",
            memory(|usage| usage.resident_below_kib),
        ),
        ("processor, % of one core", Spread::of(cpu.collect())),
    ];
    report(session, args.seconds, &rows);
    Ok(())
}

fn usage(root: u32) -> Outcome<Usage> {
    let mut total = Usage::default();
    for pid in family(root)? {
        let stat = read(pid, "stat")?;
        let fields = after_name(&stat);
        // Fields 14 and 15 of proc(5), counted here from the third one: user and system time.
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        total.cpu_ticks += ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0);
        let resident = status::kib(&read(pid, "status")?, "VmRSS");
        match pid == root {
            true => total.resident_kib = resident,
            false => total.resident_below_kib += resident,
        }
    }
    Ok(total)
}

/// A process and all below it.
fn family(root: u32) -> Outcome<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").map_err(Failure::internal)?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may be gone by now.
        let Ok(stat) = read(pid, "stat") else {
            continue;
        };
        let parent = after_name(&stat)
            .get(1)
            .and_then(|text| text.parse::<u32>().ok());
        parents.extend(parent.map(|parent| (pid, parent)));
    }
    let mut family = vec![root];
    let mut at = 0;
    while let Some(above) = family.get(at).copied() {
        let children = parents.iter().filter(|(_, parent)| *parent == above);
        family.extend(children.map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(family)
}

fn read(pid: u32, file: &str) -> Outcome<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| Failure::internal(format!("{path}: {error}")))
}

/// The fields of `/proc/PID/stat` from the third on: the second, a name in brackets, may hold
/// blanks.
fn after_name(stat: &str) -> Vec<&str> {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().collect()
}

fn report(session: &Session, seconds: u64, rows: &[(&str, Spread)]) {
    let mut shown = table(&["IDLE AGENT", "MEDIAN", "MIN–MAX"]);
    for (what, spread) in rows {
        shown.add_row([
            (*what).to_owned(),
            format!("{:.2}", spread.percentile(50)),
            format!("{:.2}–{:.2}", spread.least(), spread.greatest()),
        ]);
    }
    let document = |(what, spread): &(&str, Spread)| {
        json!({
            "what": what, "median": spread.percentile(50),
            "min": spread.least(), "max": spread.greatest(),
        })
    };
    let documents: Vec<_> = rows.iter().map(document).collect();
    session
        .output
        .answer(&json!({ "seconds": seconds, "idle": documents }), || {
            format!(
                "three agents, {seconds} s without work\n{}",
                table_text(&shown)
            )
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_lines_are_read() {
        let stat = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 0 0 0 13 5 0 0 20 0 1 0 1 1 1";
        assert_eq!(after_name(stat)[1], "7");
        assert_eq!((after_name(stat)[11], after_name(stat)[12]), ("13", "5"));
    }

    #[test]
    fn this_process_uses_memory() {
        let own = usage(std::process::id()).unwrap();
        assert!(own.resident_kib > 0);
    }
}

//! Looks at a tree of processes and at a directory: what a watcher needs where no cgroup counts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, Signal};

use super::super::wire::Reaped;

/// A tree larger than this is not walked further: the watcher has seen enough to judge.
const PROCESSES_MAX: usize = 100_000;
/// Bytes of a block as `stat` counts them.
const BLOCK_BYTES: u64 = 512;

/// What a tree of processes uses now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// Resident memory without what files back.
    pub(super) memory_bytes: u64,
    pub(super) threads: u32,
    pub(super) usage: Reaped,
}

/// All descendants of `root`, without itself.
pub(super) fn descendants(root: Pid) -> Vec<Pid> {
    let mut found = children(root);
    let mut next = 0;
    while next < found.len() && found.len() < PROCESSES_MAX {
        let more = children(found[next]);
        found.extend(more);
        next += 1;
    }
    found
}

/// The children of every thread of a process. One that ends meanwhile has none.
fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())) else {
        return Vec::new();
    };
    let lists = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| parse_pids(&list)).collect()
}

fn parse_pids(list: &str) -> Vec<Pid> {
    list.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter_map(Pid::from_raw)
        .collect()
}

/// Sums up what the descendants of `root` use.
pub(super) fn look(root: Pid) -> Look {
    let mut sum = Look::default();
    for pid in descendants(root) {
        add(&mut sum, pid);
    }
    sum.usage.memory_bytes_peak = sum.memory_bytes;
    sum
}

fn add(sum: &mut Look, pid: Pid) {
    let dir = format!("/proc/{}", pid.as_raw_pid());
    let status = fs::read_to_string(format!("{dir}/status")).unwrap_or_default();
    let kib = number(&status, "RssAnon:") + number(&status, "RssShmem:");
    sum.memory_bytes += kib * 1024;
    sum.threads += u32::try_from(number(&status, "Threads:")).unwrap_or(u32::MAX);
    let stat = fs::read_to_string(format!("{dir}/stat")).unwrap_or_default();
    sum.usage.cpu_us += cpu_us(&stat);
    let io = fs::read_to_string(format!("{dir}/io")).unwrap_or_default();
    sum.usage.read_bytes += number(&io, "read_bytes:");
    sum.usage.write_bytes += number(&io, "\nwrite_bytes:");
}

/// Processor time of a process and of the children it has waited for: fields 14 to 17 of its `stat`, in clock ticks.
fn cpu_us(stat: &str) -> u64 {
    // The command's name may hold spaces and brackets; fields are counted after its last bracket.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let fields = rest.split_whitespace().skip(11).take(4);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * 1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// The number after `label` in a `/proc` file; 0 if it is not there.
fn number(text: &str, label: &str) -> u64 {
    let rest = text.split_once(label).map_or("", |(_, rest)| rest);
    rest.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Kills the descendants of `root` until none is left to see. Orphans must come back to `root` (a subreaper).
pub(super) fn kill_descendants(root: Pid) {
    for pid in descendants(root) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

/// Signals all descendants of `root` once.
pub(super) fn signal_descendants(root: Pid, signal: Signal) {
    for pid in descendants(root) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Bytes on disk below `dir`, `input/` left out; stops counting beyond `enough`.
pub(super) fn directory_bytes(dir: &Path, enough: u64) -> u64 {
    let mut sum = 0;
    let parts = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut todo: Vec<_> = parts
        .map(|part| part.path())
        .filter(|path| !path.ends_with("input"))
        .collect();
    while let Some(path) = todo.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        sum += metadata.blocks() * BLOCK_BYTES;
        if sum > enough {
            break;
        }
        if metadata.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
    }
    sum
}

/// What the kernel counted for all descendants that were waited for.
pub(super) fn reaped() -> Reaped {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return Reaped::default();
    };
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Reaped {
        cpu_us: unsigned(cpu),
        memory_bytes_peak: unsigned(usage.max_rss()) * 1024,
        read_bytes: unsigned(usage.block_reads()) * BLOCK_BYTES,
        write_bytes: unsigned(usage.block_writes()) * BLOCK_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_label() {
        let io = "rchar: 1\nwchar: 2\nread_bytes: 30\nwrite_bytes: 40\ncancelled_write_bytes: 50\n";
        assert_eq!(number(io, "read_bytes:"), 30);
        assert_eq!(number(io, "\nwrite_bytes:"), 40);
        assert_eq!(number(io, "missing:"), 0);
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 100";
        let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!(cpu_us(stat), 100 * tick_us);
        assert_eq!(cpu_us(""), 0);
    }

    #[test]
    fn a_directory_is_measured_without_its_input() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for part in ["input", "output"] {
            fs::create_dir(dir.path().join(part)).expect("a new directory");
            fs::write(dir.path().join(part).join("file"), vec![1; 1 << 20]).expect("a file");
        }
        let bytes = directory_bytes(dir.path(), u64::MAX);
        assert!((1 << 20..3 << 19).contains(&bytes), "{bytes}");
        assert!(directory_bytes(dir.path(), 4096) > 4096);
    }
}

//! Control groups, version 1: one directory per controller; a file that is not there belongs to another controller.

use std::fs;
use std::io;
use std::path::Path;

use super::super::oci::{CPU_PERIOD_US, cpu_quota_us};
use super::super::spec::Limits;
use super::super::wire::Reaped;
use super::{number, write};

/// Writes those limits whose files this directory has.
pub(super) fn limit(dir: &Path, limits: &Limits) -> io::Result<()> {
    let has = |file: &str| dir.join(file).exists();
    if let (Some(bytes), true) = (limits.memory_bytes, has("memory.limit_in_bytes")) {
        write(dir, "memory.limit_in_bytes", bytes)?;
        if has("memory.memsw.limit_in_bytes") {
            write(dir, "memory.memsw.limit_in_bytes", bytes)?;
        }
    }
    if let (Some(millis), true) = (limits.cpu_millis, has("cpu.cfs_quota_us")) {
        write(dir, "cpu.cfs_period_us", CPU_PERIOD_US)?;
        write(dir, "cpu.cfs_quota_us", cpu_quota_us(millis))?;
    }
    if let (Some(count), true) = (limits.pids, has("pids.max")) {
        // One for the init.
        write(dir, "pids.max", u64::from(count) + 1)?;
    }
    Ok(())
}

pub(super) fn freeze(dir: &Path, frozen: bool) -> bool {
    let state = if frozen { "FROZEN" } else { "THAWED" };
    let file = dir.join("freezer.state");
    file.exists() && fs::write(file, state).is_ok()
}

pub(super) fn usage(dir: &Path) -> Reaped {
    let io = fs::read_to_string(dir.join("blkio.throttle.io_service_bytes")).unwrap_or_default();
    Reaped {
        cpu_us: number(&dir.join("cpuacct.usage")).unwrap_or(0) / 1000,
        memory_bytes_peak: number(&dir.join("memory.max_usage_in_bytes")).unwrap_or(0),
        read_bytes: sum(&io, "Read"),
        write_bytes: sum(&io, "Write"),
    }
}

/// Sums `MAJOR:MINOR WORD NUMBER` over all devices.
fn sum(text: &str, word: &str) -> u64 {
    let value = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        (words.next()? == word).then(|| words.next()?.parse::<u64>().ok())?
    };
    text.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_summed_over_devices() {
        let text = "254:0 Read 4096\n254:0 Write 10\n254:0 Total 4106\n8:0 Read 1\nTotal 4107\n";
        assert_eq!(sum(text, "Read"), 4097);
        assert_eq!(sum(text, "Write"), 10);
        assert_eq!(sum("", "Read"), 0);
    }
}

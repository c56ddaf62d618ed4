//! Control groups, version 2: one directory for all controllers.

use std::fs;
use std::io;
use std::path::Path;

use super::super::oci::{CPU_PERIOD_US, cpu_quota_us};
use super::super::spec::Limits;
use super::super::wire::Reaped;
use super::{keyed, number, write};

/// Writes those limits whose controllers are enabled here.
pub(super) fn limit(dir: &Path, limits: &Limits) -> io::Result<()> {
    let has = |file: &str| dir.join(file).exists();
    if let (Some(bytes), true) = (limits.memory_bytes, has("memory.max")) {
        write(dir, "memory.max", bytes)?;
        if has("memory.swap.max") {
            write(dir, "memory.swap.max", 0)?;
        }
    }
    if let (Some(millis), true) = (limits.cpu_millis, has("cpu.max")) {
        write(
            dir,
            "cpu.max",
            format!("{} {CPU_PERIOD_US}", cpu_quota_us(millis)),
        )?;
    }
    if let (Some(count), true) = (limits.pids, has("pids.max")) {
        // One for the init.
        write(dir, "pids.max", u64::from(count) + 1)?;
    }
    Ok(())
}

pub(super) fn freeze(dir: &Path, frozen: bool) -> bool {
    let file = dir.join("cgroup.freeze");
    file.exists() && fs::write(file, if frozen { "1" } else { "0" }).is_ok()
}

pub(super) fn usage(dir: &Path) -> Reaped {
    let io = fs::read_to_string(dir.join("io.stat")).unwrap_or_default();
    Reaped {
        cpu_us: keyed(&dir.join("cpu.stat"), "usage_usec"),
        memory_bytes_peak: number(&dir.join("memory.peak")).unwrap_or(0),
        read_bytes: sum(&io, "rbytes="),
        write_bytes: sum(&io, "wbytes="),
    }
}

/// Sums `MAJOR:MINOR rbytes=N wbytes=N …` over all devices.
fn sum(text: &str, key: &str) -> u64 {
    let words = text.split_whitespace();
    words
        .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for the kernel's files: only their presence and format matter here.
    fn files(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in names {
            fs::write(dir.path().join(name), "").expect("a file");
        }
        dir
    }

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let dir = files(&["memory.max", "memory.swap.max", "cpu.max", "pids.max"]);
        let limits = Limits {
            cpu_millis: Some(1500),
            memory_bytes: Some(1 << 30),
            pids: Some(64),
            ..Limits::default()
        };
        limit(dir.path(), &limits).expect("writable files");
        let read = |name| fs::read_to_string(dir.path().join(name)).expect("a file");
        assert_eq!(read("memory.max"), "1073741824");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("cpu.max"), "150000 100000");
        assert_eq!(read("pids.max"), "65");
    }

    #[test]
    fn a_controller_that_is_not_enabled_is_left_alone() {
        let dir = files(&[]);
        let limits = Limits {
            memory_bytes: Some(1 << 30),
            ..Limits::default()
        };
        limit(dir.path(), &limits).expect("nothing to write");
        assert!(!dir.path().join("memory.max").exists());
        assert!(!freeze(dir.path(), true));
    }

    #[test]
    fn counts_are_read() {
        let dir = files(&[]);
        fs::write(
            dir.path().join("cpu.stat"),
            "usage_usec 12345\nuser_usec 1\n",
        )
        .expect("a file");
        fs::write(dir.path().join("memory.peak"), "4096\n").expect("a file");
        fs::write(
            dir.path().join("io.stat"),
            "254:0 rbytes=10 wbytes=20 rios=1\n8:0 rbytes=1 wbytes=2\n",
        )
        .expect("a file");
        let usage = usage(dir.path());
        assert_eq!((usage.cpu_us, usage.memory_bytes_peak), (12345, 4096));
        assert_eq!((usage.read_bytes, usage.write_bytes), (11, 22));
    }
}

//! One line about the machine, to stand beside every figure.

use std::fs;
use std::thread;

/// Bytes in a gibibyte, counted in the kibibytes of `/proc/meminfo`.
const KIB_PER_GIB: f64 = 1_048_576.0;

/// Processor, cores, memory and kernel; parts that this system does not tell are left out.
pub(crate) fn line() -> String {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let memory_info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let mut parts = vec![format!("{cores} cores")];
    if let Some(model) = field(&cpu_info, "model name") {
        parts.push(model.to_owned());
    }
    if let Some(gib) = memory_gib(&memory_info) {
        parts.push(format!("{gib:.0} GiB"));
    }
    if !kernel.trim().is_empty() {
        parts.push(format!("Linux {}", kernel.trim()));
    }
    parts.join(", ")
}

fn memory_gib(info: &str) -> Option<f64> {
    let total = field(info, "MemTotal")?;
    let kib: f64 = total.split_whitespace().next()?.parse().ok()?;
    Some(kib / KIB_PER_GIB)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_memory_from_the_kernel_s_own_format() {
        let info = "MemTotal:       24677380 kB\nMemFree:        19349988 kB\n";
        assert_eq!(memory_gib(info).map(f64::round), Some(24.0));
        assert_eq!(memory_gib("MemFree: 3 kB\n"), None);
    }
}

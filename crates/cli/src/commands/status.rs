//! What the kernel tells of a process in `/proc/PID/status`.

/// A field in KiB, such as `VmRSS`; 0 if it is not there.
pub(crate) fn kib(status: &str, field: &str) -> u64 {
    let value = |line: &str| {
        Some(
            line.strip_prefix(field)?
                .strip_prefix(':')?
                .trim()
                .to_owned(),
        )
    };
    let value = status.lines().find_map(value);
    let number = value.as_deref().and_then(|value| value.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_lines_are_read() {
        let status = "Name:\tVmRSS\nVmHWM:\t    4096 kB\nVmRSS:\t   2048 kB\n";
        assert_eq!((kib(status, "VmRSS"), kib(status, "VmHWM")), (2048, 4096));
        assert_eq!((kib(status, "Vm"), kib(status, "VmSwap")), (0, 0));
    }
}

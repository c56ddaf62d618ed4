//! Limits that a process sets on itself before it becomes the task: resource limits and processors.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::super::spec::Limits;

/// Bounds what a resource limit can: no core files, the length of one file, and the processors.
///
/// # Errors
/// Whatever the kernel reports.
pub(super) fn apply(limits: &Limits, bound_processors: bool) -> io::Result<()> {
    lower(Resource::Core, 0)?;
    if let Some(bytes) = limits.scratch_bytes {
        lower(Resource::Fsize, bytes)?;
    }
    if bound_processors && let Some(millis) = limits.cpu_millis {
        use_processors(millis.div_ceil(1000))?;
    }
    Ok(())
}

/// Bounds the processes of this user in this user namespace.
pub(super) fn processes(count: u32) -> io::Result<()> {
    lower(Resource::Nproc, count.into())
}

/// Sets both limits to `value`, or to the hard limit if that is lower.
fn lower(resource: Resource, value: u64) -> io::Result<()> {
    let hard = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(value.min(hard));
    setrlimit(
        resource,
        Rlimit {
            current: value,
            maximum: value,
        },
    )?;
    Ok(())
}

/// Keeps the process on the first `count` of its processors: a bound in whole processors.
fn use_processors(count: u32) -> io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut chosen = CpuSet::new();
    let usable = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    for cpu in usable.take(usize::try_from(count).unwrap_or(usize::MAX)) {
        chosen.set(cpu);
    }
    sched_setaffinity(None, &chosen)?;
    Ok(())
}

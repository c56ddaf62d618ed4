//! A run as an OCI runtime description: what the embedded engine and `runc` are both told.

use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxMemoryBuilder,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompBuilder,
    LinuxSyscallBuilder, Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, Process,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::spec::{CONTAINER_DIR, Layout, Limits};
use super::wire::Order;

/// The period over which processor time is bounded, in microseconds: the kernel's default.
pub(super) const CPU_PERIOD_US: u64 = 100_000;
/// Size of `/dev/shm`; it counts as memory.
const SHM_BYTES: u64 = 64 * 1024 * 1024;
/// Paths of `/proc` that tell about the machine, as container engines hide them.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
/// Paths of `/proc` that change the machine.
const READONLY: &[&str] = &[
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What runs the description.
pub(super) enum Host {
    /// Our shim: it has entered the user namespace, and enters cgroups, seccomp and the working directory itself.
    Embedded,
    /// `runc`, which does everything.
    Runc {
        identity: Option<u32>,
        cgroup: Option<PathBuf>,
    },
}

/// Where the directories of a task are that its container is given.
pub(super) struct TaskDirs {
    pub(super) layout: Layout,
    pub(super) input: PathBuf,
}

/// Describes a run whose root is at `root`, with `binds` mounted read-only.
pub(super) fn describe(
    order: &Order,
    root: &Path,
    task: &TaskDirs,
    binds: &[PathBuf],
    host: Host,
) -> Result<Spec, OciSpecError> {
    let mut mounts = system_mounts()?;
    for path in binds {
        mounts.push(bind(path, path, &["rbind", "rro", "nosuid", "nodev"])?);
    }
    mounts.extend(task_mounts(task)?);
    SpecBuilder::default()
        .version("1.0.2")
        .hostname("mutual")
        .root(RootBuilder::default().path(root).readonly(true).build()?)
        .process(process(order, &host)?)
        .mounts(mounts)
        .linux(linux(order, host)?)
        .build()
}

fn process(order: &Order, host: &Host) -> Result<Process, OciSpecError> {
    let id = match host {
        Host::Runc {
            identity: Some(id), ..
        } => *id,
        _ => 0,
    };
    let cwd = match host {
        Host::Embedded => Path::new("/"),
        Host::Runc { .. } => &order.cwd,
    };
    let variables = order
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let mut process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(id).gid(id).build()?)
        .args(order.argv.clone())
        .env(variables.collect::<Vec<_>>())
        .cwd(cwd)
        .no_new_privileges(true)
        .build()?;
    process.set_capabilities(Some(no_capabilities()?));
    process.set_rlimits(None);
    if let Host::Runc { .. } = host {
        process.set_rlimits(Some(rlimits(&order.limits)?));
    }
    Ok(process)
}

fn no_capabilities() -> Result<oci_spec::runtime::LinuxCapabilities, OciSpecError> {
    LinuxCapabilitiesBuilder::default()
        .bounding(std::collections::HashSet::new())
        .effective(std::collections::HashSet::new())
        .inheritable(std::collections::HashSet::new())
        .permitted(std::collections::HashSet::new())
        .ambient(std::collections::HashSet::new())
        .build()
}

fn rlimits(limits: &Limits) -> Result<Vec<oci_spec::runtime::PosixRlimit>, OciSpecError> {
    let rlimit = |typ, value: u64| {
        PosixRlimitBuilder::default()
            .typ(typ)
            .hard(value)
            .soft(value)
            .build()
    };
    let mut all = vec![rlimit(PosixRlimitType::RlimitCore, 0)?];
    if let Some(bytes) = limits.scratch_bytes {
        all.push(rlimit(PosixRlimitType::RlimitFsize, bytes)?);
    }
    Ok(all)
}

fn mount(typ: &str, destination: &str, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(ToString::to_string).collect();
    MountBuilder::default()
        .typ(typ)
        .source(typ)
        .destination(destination)
        .options(options)
        .build()
}

fn bind(source: &Path, destination: &Path, options: &[&str]) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.iter().map(ToString::to_string).collect();
    MountBuilder::default()
        .typ("bind")
        .source(source)
        .destination(destination)
        .options(options)
        .build()
}

fn system_mounts() -> Result<Vec<Mount>, OciSpecError> {
    let shm = format!("size={SHM_BYTES}");
    let pts = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    Ok(vec![
        mount("proc", "/proc", &["nosuid", "noexec", "nodev"])?,
        mount(
            "tmpfs",
            "/dev",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        )?,
        mount("devpts", "/dev/pts", &pts)?,
        mount(
            "tmpfs",
            "/dev/shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm],
        )?,
    ])
}

fn task_mounts(task: &TaskDirs) -> Result<Vec<Mount>, OciSpecError> {
    let inside = Layout::of(CONTAINER_DIR);
    let writable = ["rbind", "nosuid", "nodev"];
    let layout = &task.layout;
    Ok(vec![
        bind(&layout.dir, &inside.dir, &writable)?,
        bind(
            &task.input,
            &inside.input(),
            &["rbind", "rro", "nosuid", "nodev"],
        )?,
        bind(&layout.tmp(), Path::new("/tmp"), &writable)?,
    ])
}

fn linux(order: &Order, host: Host) -> Result<Linux, OciSpecError> {
    let mut namespaces = vec![
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
    ];
    // The shim has entered a network namespace itself, to raise the loopback there.
    if !order.network && matches!(host, Host::Runc { .. }) {
        namespaces.push(LinuxNamespaceType::Network);
    }
    let namespaces = namespaces
        .into_iter()
        .map(|typ| LinuxNamespaceBuilder::default().typ(typ).build());
    let paths = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces.collect::<Result<Vec<_>, _>>()?)
        .masked_paths(paths(MASKED))
        .readonly_paths(paths(READONLY))
        .build()?;
    linux.set_resources(None);
    linux.set_devices(None);
    linux.set_cgroups_path(Some(PathBuf::from("/mutual")));
    if let Host::Runc { cgroup, .. } = host {
        linux.set_cgroups_path(cgroup);
        linux.set_resources(Some(resources(&order.limits)?));
        linux.set_seccomp(Some(seccomp()?));
    }
    Ok(linux)
}

fn resources(limits: &Limits) -> Result<LinuxResources, OciSpecError> {
    let mut resources = LinuxResourcesBuilder::default().build()?;
    if let Some(bytes) = limits.memory_bytes {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        resources.set_memory(Some(LinuxMemoryBuilder::default().limit(bytes).build()?));
    }
    if let Some(millis) = limits.cpu_millis {
        let cpu = LinuxCpuBuilder::default()
            .period(CPU_PERIOD_US)
            .quota(cpu_quota_us(millis))
            .build()?;
        resources.set_cpu(Some(cpu));
    }
    if let Some(count) = limits.pids {
        resources.set_pids(Some(
            LinuxPidsBuilder::default()
                .limit(i64::from(count))
                .build()?,
        ));
    }
    Ok(resources)
}

/// Processor time per period; the kernel takes no less than a millisecond.
pub(super) fn cpu_quota_us(millis: u32) -> i64 {
    i64::from(millis).saturating_mul(100).max(1000)
}

fn seccomp() -> Result<LinuxSeccomp, OciSpecError> {
    let names: Vec<String> = super::shim::allowed_calls()
        .map(str::to_owned)
        .chain(["clone".to_owned()])
        .collect();
    let allowed = LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()?;
    let absent = LinuxSyscallBuilder::default()
        .names(["clone3".to_owned()])
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(libc::ENOSYS.unsigned_abs())
        .build()?;
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .syscalls(vec![allowed, absent])
        .build()
}

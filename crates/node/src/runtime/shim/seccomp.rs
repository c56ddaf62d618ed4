//! The system calls a task may make: an allow-list in the manner of container engines, compiled without a C library.
//!
//! Left out are calls that change the machine (clock, modules, swap, reboot), make or enter namespaces, mount, load
//! programs into the kernel, hold kernel keys, or open files past the path look-up. A call that is not listed fails
//! with `EPERM`, and `clone3` with `ENOSYS`, because its flags lie in memory where a filter cannot read them: C
//! libraries then use `clone`, whose flags are checked.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::super::wire::Failure;
use super::failed;

/// A compiled filter.
#[derive(Clone)]
pub(super) struct Filter {
    unknown_clone: BpfProgram,
    allowed: BpfProgram,
}

impl Filter {
    /// Binds this process and all it starts, for good.
    pub(super) fn apply(&self) -> Result<(), Failure> {
        seccompiler::apply_filter(&self.allowed).map_err(failed("applying seccomp"))?;
        seccompiler::apply_filter(&self.unknown_clone).map_err(failed("applying seccomp"))
    }
}

/// Compiles the filter for this machine.
pub(super) fn compile() -> Result<Filter, Failure> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed("compiling seccomp"))?;
    Ok(Filter {
        allowed: allowed(arch)?,
        unknown_clone: unknown_clone(arch)?,
    })
}

/// Allowed calls, `clone` only without new namespaces; everything else fails with `EPERM`.
fn allowed(arch: TargetArch) -> Result<BpfProgram, Failure> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|(_, call)| (*call, Vec::new())).collect();
    // For the second filter to answer it.
    rules.insert(libc::SYS_clone3, Vec::new());
    rules.insert(libc::SYS_clone, vec![no_namespaces()?]);
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    program(rules, denied, SeccompAction::Allow, arch)
}

fn unknown_clone(arch: TargetArch) -> Result<BpfProgram, Failure> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    program(rules, SeccompAction::Allow, absent, arch)
}

/// `clone` with none of the namespace flags.
fn no_namespaces() -> Result<SeccompRule, Failure> {
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET;
    let masked = SeccompCmpOp::MaskedEq(u64::from(flags.unsigned_abs()));
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, masked, 0)
        .map_err(failed("compiling seccomp"))?;
    SeccompRule::new(vec![condition]).map_err(failed("compiling seccomp"))
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, Failure> {
    let wrong = failed("compiling seccomp");
    let filter = SeccompFilter::new(rules, otherwise, matched, arch).map_err(&wrong)?;
    BpfProgram::try_from(filter).map_err(&wrong)
}

/// Names of all allowed calls, for runtimes that want names.
pub(in super::super) fn names() -> impl Iterator<Item = &'static str> {
    CALLS.iter().map(|(name, _)| *name)
}

macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name).split_at("SYS_".len()).1, libc::$name)),*] };
}

/// Calls that every supported architecture has.
const COMMON: &[(&str, i64)] = calls! {
    SYS_accept SYS_accept4 SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_getres SYS_clock_gettime
    SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat SYS_exit SYS_exit_group
    SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchmodat2
    SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr
    SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_get_mempolicy
    SYS_get_robust_list SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups
    SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid
    SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday
    SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel
    SYS_io_destroy SYS_io_getevents SYS_io_setup SYS_io_submit SYS_ioctl SYS_ioprio_get
    SYS_ioprio_set SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self
    SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr
    SYS_madvise SYS_mbind SYS_membarrier SYS_memfd_create SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2
    SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive
    SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock
    SYS_munlockall SYS_munmap SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2 SYS_personality SYS_pidfd_open
    SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64
    SYS_preadv SYS_preadv2 SYS_prlimit64 SYS_process_mrelease SYS_pselect6 SYS_pwrite64 SYS_pwritev SYS_pwritev2
    SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages
    SYS_removexattr SYS_renameat SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending
    SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
    SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getaffinity
    SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity
    SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget
    SYS_semop SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_mempolicy SYS_set_robust_list
    SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid SYS_setpriority
    SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit SYS_setsid SYS_setsockopt SYS_setuid
    SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socket
    SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs SYS_sysinfo
    SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime
    SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate SYS_umask SYS_uname
    SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
};

/// Older calls that only x86-64 has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[(&str, i64)] = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_wait
    SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_inotify_init SYS_lchown SYS_link SYS_lstat
    SYS_mkdir SYS_mknod SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select
    SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[(&str, i64)] = &[];

/// All allowed calls.
static CALLS: std::sync::LazyLock<Vec<(&str, i64)>> =
    std::sync::LazyLock::new(|| COMMON.iter().chain(OLDER).copied().collect());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_leaves_out_what_changes_the_machine() {
        compile().unwrap_or_else(|failure| panic!("{}", failure.message));
        for call in [
            "mount",
            "bpf",
            "unshare",
            "setns",
            "ptrace",
            "reboot",
            "open_by_handle_at",
            "keyctl",
        ] {
            assert!(
                !names().any(|name| name == call),
                "{call} must not be allowed"
            );
        }
        assert!(names().any(|name| name == "openat"));
    }
}

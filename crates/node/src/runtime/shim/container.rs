//! Class `container`, embedded: namespaces and root file system by `libcontainer`, cgroups and identity by ourselves.
//!
//! The shim first enters a mount namespace and a user namespace of its own, so that the rest is the same for root and
//! for an ordinary user, and so that no privilege in the container is one on the machine. As root it becomes an
//! unprivileged user before that: root inside is that user outside, or the agent's own user.
//!
//! `libcontainer` is given no cgroup to make (it sees a read-only hierarchy and goes on, as it does for any rootless
//! container): its way into one costs a wait for all processors, and it cannot do it as an ordinary user at all. Our
//! init enters cgroups that the agent made (see [`super::init::join_cgroups`]). All of `libcontainer`'s own files lie
//! on a small tmpfs that only the shim sees and that is gone with it.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use super::super::spec::{Layout, Rootfs};
use super::super::wire::{
    self, Failure, FailureKind, FromInit, Kind, Order, Reaped, Status, ToInit,
};
use super::super::{host_root, oci};
use super::init::Init;
use super::seccomp::Filter;
use super::supervise::{News, Supervised, Task};
use super::{failed, tree};

/// A directory over which the shim's tmpfs is mounted; only the shim sees it so. All these exist on usual systems, and
/// everything needed below them is taken out before.
const STAGES: [&str; 5] = ["/mnt", "/tmp", "/run", "/var/tmp", "/home"];
/// The tmpfs holds a few small files and the writable layer that mount points of an image are made in.
const STAGE_BYTES: u64 = 16 * 1024 * 1024;

/// A descriptor that the parent keeps and the forked init must close: held here so that it can.
pub(super) type Held = Rc<RefCell<Option<UnixStream>>>;

/// Where the parts lie on the shim's tmpfs.
struct Stage {
    dir: PathBuf,
}

impl Stage {
    fn part(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Builds the container and waits until the task runs, or init has said why it does not.
pub(super) fn begin(order: Order, filter: Filter, control: &Held) -> Result<Supervised, Failure> {
    let Kind::Embedded { rootfs } = order.kind.clone() else {
        return Err(Failure::setup("not an embedded container"));
    };
    let join = open_join(&order.join)?;
    let thaw = open_thaw(&order.thaw);
    let stage = enter(&order, &rootfs)?;
    hide_cgroups()?;
    let spec = describe(&order, &rootfs, &stage)?;
    let bundle = stage.part("bundle");
    spec.save(bundle.join("config.json"))
        .map_err(failed("writing the bundle"))?;
    if !order.network {
        raise_loopback();
    }
    let (dir, watch) = (stage.part("task"), order.watch);
    let task = build(order, filter, join, control, &stage, &bundle)?;
    Ok(Supervised {
        task: Box::new(task),
        dir,
        watch,
        thaw,
    })
}

/// Opens the freezers, while this process may; none is no fault.
pub(super) fn open_thaw(files: &[PathBuf]) -> Vec<File> {
    files
        .iter()
        .filter_map(|path| File::options().write(true).open(path).ok())
        .collect()
}

/// `127.0.0.1` works inside, as programs expect; without it the task still runs.
fn raise_loopback() {
    use libcontainer::network::{link::LinkClient, wrapper::create_network_client};
    const LOOPBACK: u32 = 1;
    let up = LinkClient::new(create_network_client()).and_then(|mut link| link.set_up(LOOPBACK));
    let _ = up;
}

/// Opens the files through which init enters its cgroups, while this process may.
pub(super) fn open_join(files: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let open = |path: &PathBuf| File::options().write(true).open(path);
    files
        .iter()
        .map(open)
        .collect::<io::Result<_>>()
        .map_err(failed("opening the cgroup"))
}

/// Enters the namespaces and mounts the stage. As root the stage is made first, while every path can be reached.
fn enter(order: &Order, rootfs: &Rootfs) -> Result<Stage, Failure> {
    let own = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
    let network = if order.network {
        CloneFlags::empty()
    } else {
        CloneFlags::CLONE_NEWNET
    };
    let Some(id) = order.identity else {
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        unshare(own | network).map_err(no_user_namespace)?;
        map_ids(uid.as_raw(), gid.as_raw())?;
        return make_stage(order, rootfs, 0);
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("entering a mount namespace"))?;
    let stage = make_stage(order, rootfs, id)?;
    drop_identity(id)?;
    unshare(own | network).map_err(no_user_namespace)?;
    map_ids(id, id)?;
    Ok(stage)
}

/// Says what keeps a user namespace away, as far as the kernel tells (user_namespaces(7)).
fn no_user_namespace(error: nix::errno::Errno) -> Failure {
    let why = match error {
        nix::errno::Errno::ENOSPC => "user.max_user_namespaces allows no more of them here",
        nix::errno::Errno::EPERM => "the kernel's or a surrounding container's policy forbids them",
        other => other.desc(),
    };
    Failure::setup(format!("entering a user namespace: {why}"))
}

/// Becomes the unprivileged user `id`, whose the task's output pipes are then.
pub(super) fn drop_identity(id: u32) -> Result<(), Failure> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    let owner = (
        Some(rustix::fs::Uid::from_raw(id)),
        Some(rustix::fs::Gid::from_raw(id)),
    );
    for pipe in [io::stdout().as_fd(), io::stderr().as_fd()] {
        rustix::fs::fchown(pipe, owner.0, owner.1).map_err(failed("handing over the output"))?;
    }
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    nix::unistd::setgroups(&[]).map_err(failed("leaving groups"))?;
    nix::unistd::setresgid(gid, gid, gid).map_err(failed("changing group"))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(failed("changing user"))?;
    // Changing identity made this process's own /proc files root's; the id maps are among them.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed("changing user"))
}

/// Makes the caller's user and group root of the user namespace, and nobody else anyone.
fn map_ids(uid: u32, gid: u32) -> Result<(), Failure> {
    let wrong = failed("mapping users");
    fs::write("/proc/self/setgroups", "deny").map_err(&wrong)?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).map_err(&wrong)?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).map_err(&wrong)
}

/// Mounts a tmpfs and moves the task directory and the image onto it.
fn make_stage(order: &Order, rootfs: &Rootfs, owner: u32) -> Result<Stage, Failure> {
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .map_err(failed("making mounts private"))?;
    let task = take_tree(&order.dir).map_err(failed("opening the task directory"))?;
    let input = order.input.as_deref().map(take_tree).transpose();
    let input = input.map_err(failed("opening the input"))?;
    let image = match rootfs {
        Rootfs::Host => None,
        Rootfs::Image { dir } => Some(take_tree(dir).map_err(bad_image(dir))?),
    };
    let stage = Stage { dir: stage_dir()? };
    let options = format!("mode=755,size={STAGE_BYTES},uid={owner},gid={owner}");
    let options = std::ffi::CString::new(options).map_err(failed("mounting a tmpfs"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("mutual", &stage.dir, "tmpfs", flags, options.as_c_str())
        .map_err(failed("mounting a tmpfs"))?;
    let trees = Trees { task, input, image };
    fill_stage(&stage, &trees, owner).map_err(failed("filling the tmpfs"))?;
    Ok(stage)
}

fn bad_image(dir: &Path) -> impl Fn(rustix::io::Errno) -> Failure {
    move |error| Failure {
        kind: FailureKind::BadImage,
        message: format!("image root {}: {error}", dir.display()),
    }
}

fn stage_dir() -> Result<PathBuf, Failure> {
    let is_dir = |path: &str| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let found = STAGES.iter().find(|path| is_dir(path)).map(PathBuf::from);
    found.ok_or_else(|| Failure::setup(format!("none of {STAGES:?} is a directory")))
}

/// A detached copy of the mounts at `path`, to be attached elsewhere.
fn take_tree(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags)
}

/// Copies of mounts to be attached to the stage.
struct Trees {
    task: OwnedFd,
    input: Option<OwnedFd>,
    image: Option<OwnedFd>,
}

fn fill_stage(stage: &Stage, trees: &Trees, owner: u32) -> io::Result<()> {
    let parts = [
        "bundle", "state", "root", "task", "input", "image", "upper", "work",
    ];
    for name in parts {
        fs::create_dir(stage.part(name))?;
        std::os::unix::fs::chown(stage.part(name), Some(owner), Some(owner))?;
    }
    attach(&trees.task, &stage.part("task"))?;
    for (tree, name) in [(&trees.input, "input"), (&trees.image, "image")] {
        if let Some(tree) = tree {
            attach(tree, &stage.part(name))?;
        }
    }
    Ok(())
}

fn attach(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    rustix::mount::move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Shows `libcontainer` a read-only cgroup hierarchy, in this mount namespace only.
fn hide_cgroups() -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    rustix::mount::mount("mutual", "/sys/fs/cgroup", "cgroup2", flags, None)
        .map_err(failed("mounting cgroup2"))
}

/// Fills the root and describes the container.
fn describe(
    order: &Order,
    rootfs: &Rootfs,
    stage: &Stage,
) -> Result<oci_spec::runtime::Spec, Failure> {
    let root = stage.part("root");
    let binds = match rootfs {
        Rootfs::Host => {
            host_root::build(&root, order.network).map_err(failed("building the root"))?
        }
        Rootfs::Image { .. } => {
            overlay(stage)?;
            host_root::network_files(&root, order.network)
                .map_err(failed("adding network files"))?;
            Vec::new()
        }
    };
    let layout = Layout::of(stage.part("task"));
    let task = oci::TaskDirs {
        input: match order.input {
            Some(_) => stage.part("input"),
            None => layout.input(),
        },
        layout,
    };
    oci::describe(order, &root, &task, &binds, oci::Host::Embedded)
        .map_err(failed("describing the container"))
}

/// Lays a small writable layer over the image, in which mount points can be made.
fn overlay(stage: &Stage) -> Result<(), Failure> {
    let part = |name| stage.part(name).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        part("image"),
        part("upper"),
        part("work")
    );
    let options = std::ffi::CString::new(options).map_err(failed("mounting the image"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(
        "mutual",
        stage.part("root"),
        "overlay",
        flags,
        options.as_c_str(),
    )
    .map_err(failed("mounting the image through overlayfs"))
}

/// What `libcontainer` runs in the container's first process instead of the command.
#[derive(Clone)]
struct InitExecutor(Rc<InitParts>);

struct InitParts {
    order: Order,
    filter: Filter,
    join: Vec<File>,
    init_end: UnixStream,
    shim_end: Held,
    control: Held,
}

impl Executor for InitExecutor {
    fn exec(&self, _: &oci_spec::runtime::Spec) -> Result<(), ExecutorError> {
        let parts = &self.0;
        // Copies of the shim's ends would keep the lifelines alive.
        drop(parts.shim_end.take());
        drop(parts.control.take());
        let init = Init {
            shim: &parts.init_end,
            join: &parts.join,
            filter: &parts.filter,
            argv: &parts.order.argv,
            env: &parts.order.env,
            cwd: &parts.order.cwd,
            limits: &parts.order.limits,
            watch: parts.order.watch,
        };
        let code = i32::from(init.run().is_err());
        std::process::exit(code)
    }

    fn validate(&self, _: &oci_spec::runtime::Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(
        &self,
        _: std::collections::HashMap<String, String>,
    ) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

fn build(
    order: Order,
    filter: Filter,
    join: Vec<File>,
    control: &Held,
    stage: &Stage,
    bundle: &Path,
) -> Result<Contained, Failure> {
    let (shim_end, init_end) = UnixStream::pair().map_err(failed("opening a socket pair"))?;
    let held = Held::new(RefCell::new(Some(shim_end)));
    let name = order.name.clone();
    let (shim_end, control) = (held.clone(), control.clone());
    let executor = InitExecutor(Rc::new(InitParts {
        order,
        filter,
        join,
        init_end,
        shim_end,
        control,
    }));
    let mut container = ContainerBuilder::new(name, SyscallType::default())
        .with_executor(executor)
        .with_root_path(stage.part("state"))
        .and_then(|builder| {
            builder
                .as_init(bundle)
                .with_systemd(false)
                .with_detach(true)
                .build()
        })
        .map_err(|error| Failure::setup(format!("building the container: {}", chain(&error))))?;
    let pid = container.pid().and_then(|pid| Pid::from_raw(pid.as_raw()));
    let pid = pid.ok_or_else(|| Failure::setup("the container has no init"))?;
    container
        .start()
        .map_err(|error| Failure::setup(format!("starting the container: {}", chain(&error))))?;
    let shim = held
        .take()
        .ok_or_else(|| Failure::setup("the container's socket is gone"))?;
    Contained { shim, pid }.started()
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// A container with our init in it.
struct Contained {
    shim: UnixStream,
    pid: Pid,
}

impl Contained {
    fn started(mut self) -> Result<Self, Failure> {
        match wire::receive(&self.shim) {
            Ok(Some(FromInit::Started)) => Ok(self),
            Ok(Some(FromInit::Failed(failure))) => {
                let _ = self.end();
                Err(failure)
            }
            _ => {
                let _ = self.end();
                Err(Failure::setup(
                    "the container's init died while it started; is the memory limit too low?",
                ))
            }
        }
    }
}

impl Task for Contained {
    fn wakes(&self) -> BorrowedFd<'_> {
        self.shim.as_fd()
    }

    fn news(&mut self) -> io::Result<News> {
        match wire::receive(&self.shim)? {
            Some(FromInit::Ended { status, usage }) => {
                self.end()?;
                Ok(News::Ended(status, usage))
            }
            Some(_) => Ok(News::Nothing),
            None => {
                let (status, usage) = self.end()?;
                Ok(News::Ended(status, usage))
            }
        }
    }

    fn signal(&mut self, signal: i32) -> io::Result<()> {
        wire::send(&self.shim, &ToInit::Signal(signal))
    }

    fn pause(&mut self, paused: bool) -> io::Result<()> {
        wire::send(&self.shim, &ToInit::Pause(paused))
    }

    /// The kernel kills a PID namespace with its init and lets it be waited for only when the others are gone.
    fn end(&mut self) -> io::Result<(Status, Reaped)> {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        loop {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(rustix::io::Errno::CHILD) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok((Status::Signal(Signal::KILL.as_raw()), tree::reaped()))
    }

    fn task(&self) -> Pid {
        self.pid
    }

    fn root(&self) -> Pid {
        self.pid
    }
}

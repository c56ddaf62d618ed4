//! Starting shims, and keeping one that waits for its order.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::output::Output;

/// A started shim that has no order yet.
#[derive(Debug)]
pub(super) struct Shim {
    pub(super) child: Child,
    pub(super) control: UnixStream,
    pub(super) output: Output,
}

impl Shim {
    /// Starts `program shim` with a socket as its standard input and the task's pipes as its outputs.
    pub(super) fn spawn(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let (stdout, task_stdout) = io::pipe()?;
        let (stderr, task_stderr) = io::pipe()?;
        let child = Command::new(program)
            .arg("shim")
            .current_dir("/")
            .env_clear()
            .envs(kept_variables())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(task_stdout)
            .stderr(task_stderr)
            .spawn()?;
        ours.set_nonblocking(true)?;
        Ok(Self {
            child,
            control: UnixStream::from_std(ours)?,
            output: Output::new(stdout, stderr)?,
        })
    }
}

/// What the shim needs to be loaded and to find `runc`; a task inherits nothing.
fn kept_variables() -> impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)> {
    std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "LD_LIBRARY_PATH")
}

/// This very program: what to start as a shim unless told otherwise.
pub(super) fn own_program() -> PathBuf {
    // Survives an update that replaces or removes the file.
    PathBuf::from("/proc/self/exe")
}

//! What an agent writes down before it starts a run, so that its next incarnation can clear it away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::cgroup::Group;

/// A record longer than this is not ours.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// A run, as its agent's next incarnation must know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(skip)]
    file: PathBuf,
    pub(super) name: String,
    /// The kernel's boot; process ids mean nothing after another.
    boot: String,
    shim: Process,
    pub(super) groups: Vec<PathBuf>,
    /// The task directory.
    pub(super) dir: PathBuf,
    /// A bundle for `runc`, and where `runc` keeps its state.
    pub(super) runc: Option<(PathBuf, PathBuf)>,
}

/// A process named so that another one with the same id is not mistaken for it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Process {
    pid: i32,
    started_ticks: u64,
}

impl Record {
    pub(super) fn write(
        runs: &Path,
        name: &str,
        shim: u32,
        groups: Vec<PathBuf>,
        dir: &Path,
        runc: Option<(PathBuf, PathBuf)>,
    ) -> io::Result<Self> {
        let pid = i32::try_from(shim).map_err(io::Error::other)?;
        let record = Self {
            file: runs.join(format!("{name}.json")),
            name: name.to_owned(),
            boot: boot(),
            shim: Process {
                pid,
                started_ticks: started_ticks(pid).unwrap_or(0),
            },
            groups,
            dir: dir.to_owned(),
            runc,
        };
        fs::write(&record.file, serde_json::to_vec(&record)?)?;
        Ok(record)
    }

    /// All readable records; others are removed.
    pub(super) fn all(runs: &Path) -> io::Result<Vec<Self>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(runs)? {
            let file = entry?.path();
            match Self::read(&file) {
                Some(record) => records.push(record),
                None => drop(fs::remove_file(file)),
            }
        }
        Ok(records)
    }

    fn read(file: &Path) -> Option<Self> {
        let small = fs::symlink_metadata(file)
            .is_ok_and(|found| found.is_file() && found.len() <= RECORD_BYTES_MAX);
        let record = small.then(|| fs::read(file).ok()).flatten()?;
        let record: Self = serde_json::from_slice(&record).ok()?;
        Some(Self {
            file: file.to_owned(),
            ..record
        })
    }

    /// Kills the shim and everything it started.
    pub(super) fn kill(&self) {
        if self.boot == boot() {
            self.kill_processes();
        }
        if let Some((bundle, root)) = &self.runc {
            let mut delete = std::process::Command::new("runc");
            let _ = delete
                .arg("--root")
                .arg(root)
                .args(["delete", "--force", &self.name])
                .output();
            let _ = fs::remove_dir_all(bundle);
        }
        if !self.groups.is_empty() {
            Group::of_dirs(self.groups.clone()).remove();
        }
    }

    /// The task's processes stay in the shim's tree while it lives; when it is dead those in containers have died with
    /// it, and the others carry the task directory in their environment.
    fn kill_processes(&self) {
        let shim = Pid::from_raw(self.shim.pid);
        let same = started_ticks(self.shim.pid) == Some(self.shim.started_ticks);
        if let (Some(pid), true) = (shim, same) {
            super::shim::kill_tree(pid);
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        for pid in marked(&self.dir) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }

    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Processes whose environment names this task directory as theirs.
fn marked(dir: &Path) -> Vec<Pid> {
    let mark = format!("MUTUAL_DIR={}", dir.display()).into_bytes();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark)
    };
    pids.filter(is_marked).filter_map(Pid::from_raw).collect()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// When a process started, in clock ticks since boot: field 22 of its `stat`.
fn started_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and brackets; fields are counted after its last bracket.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(started_ticks(own).is_some_and(|ticks| ticks > 0));
        assert_eq!(started_ticks(-1), None);
    }

    #[test]
    fn foreign_records_are_dropped_and_do_no_harm() {
        let runs = tempfile::tempdir().expect("a temporary directory");
        fs::write(runs.path().join("x.json"), b"{\"name\": 3}").expect("a file");
        assert!(Record::all(runs.path()).expect("a directory").is_empty());
        assert!(!runs.path().join("x.json").exists());
    }

    #[test]
    fn fuzz_records_never_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let _ = serde_json::from_slice::<Record>(bytes);
        });
    }
}

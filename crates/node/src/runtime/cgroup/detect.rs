//! Finds where this agent may make control groups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Version;

/// Controllers used; in version 1 each has its own hierarchy.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "freezer", "blkio"];
const MOUNTS: &str = "/proc/self/mountinfo";
const OWN: &str = "/proc/self/cgroup";

/// Where groups can be made and with which controllers.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    pub(super) version: Version,
    /// One directory per hierarchy, all ours.
    pub(super) bases: Vec<PathBuf>,
    pub(super) controllers: Vec<String>,
}

impl Hierarchy {
    /// Makes a directory `name` for this agent's groups in every hierarchy that allows it.
    ///
    /// # Errors
    /// A sentence for the owner: why there is none.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string(MOUNTS).map_err(|error| format!("{MOUNTS}: {error}"))?;
        let own = fs::read_to_string(OWN).map_err(|error| format!("{OWN}: {error}"))?;
        let mut reasons = Vec::new();
        for found in [version1(&mounts, &own, name), version2(&mounts, &own, name)] {
            match found {
                Ok(hierarchy) => return Ok(hierarchy),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join("; "))
    }

    /// Removes the agent's own directories; those still in use stay.
    pub(crate) fn remove(&self) {
        for base in &self.bases {
            let _ = fs::remove_dir(base);
        }
    }

    pub(crate) fn bases(&self) -> &[PathBuf] {
        &self.bases
    }
}

/// A line of `mountinfo`: where, which type, which super-block options.
struct MountLine<'a> {
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

fn mount_lines(text: &str) -> impl Iterator<Item = MountLine<'_>> {
    text.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut words = right.split_whitespace();
        let kind = words.next()?;
        let options = words.nth(1)?;
        Some(MountLine {
            point: left.split_whitespace().nth(4)?,
            kind,
            options,
        })
    })
}

/// The agent's own group in the hierarchy of `controller` (empty: version 2), from `/proc/self/cgroup`.
fn own_path<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let names = fields.next()?;
        names
            .split(',')
            .any(|name| name == controller)
            .then(|| fields.next())?
    })
}

fn version1(mounts: &str, own: &str, name: &str) -> Result<Hierarchy, String> {
    let mut hierarchy = Hierarchy {
        version: Version::One,
        bases: Vec::new(),
        controllers: Vec::new(),
    };
    let mut reason = "no cgroup v1 controllers are mounted".to_owned();
    for controller in CONTROLLERS {
        match version1_base(mounts, own, controller, name) {
            Some(Ok(base)) => {
                hierarchy.controllers.push(controller.to_owned());
                if !hierarchy.bases.contains(&base) {
                    hierarchy.bases.push(base);
                }
            }
            Some(Err(error)) => reason = format!("cgroup v1: {error}"),
            None => {}
        }
    }
    if hierarchy.bases.is_empty() {
        Err(reason)
    } else {
        Ok(hierarchy)
    }
}

fn version1_base(
    mounts: &str,
    own: &str,
    controller: &str,
    name: &str,
) -> Option<io::Result<PathBuf>> {
    let is = |line: &MountLine<'_>| {
        line.kind == "cgroup" && line.options.split(',').any(|option| option == controller)
    };
    let mount = mount_lines(mounts).find(is)?;
    let own = own_path(own, controller)?;
    // Inside a container the path may be told as seen from outside: then the mount's root is our own group.
    let below = Path::new(mount.point).join(own.trim_start_matches('/'));
    let parent = if below.is_dir() {
        below
    } else {
        PathBuf::from(mount.point)
    };
    Some(make(&parent, name))
}

fn make(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let base = parent.join(name);
    match fs::create_dir(&base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io::Error::new(
            error.kind(),
            format!("{}: {error}", base.display()),
        )),
        _ => Ok(base),
    }
}

fn version2(mounts: &str, own: &str, name: &str) -> Result<Hierarchy, String> {
    let mount = mount_lines(mounts)
        .find(|line| line.kind == "cgroup2")
        .ok_or("cgroup v2 is not mounted")?;
    let root = Path::new(mount.point);
    let own = own_path(own, "").unwrap_or("/");
    let below = root.join(own.trim_start_matches('/'));
    let parent = if below.is_dir() {
        below
    } else {
        root.to_owned()
    };
    let available = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
    let wanted: Vec<String> = available
        .split_whitespace()
        .filter(|found| ["cpu", "memory", "pids", "io"].contains(found))
        .map(str::to_owned)
        .collect();
    if wanted.is_empty() {
        return Err("cgroup v2 delegates no controllers to this agent".to_owned());
    }
    let base = make(&parent, name).map_err(|error| format!("cgroup v2: {error}"))?;
    let result = enable(&parent, &wanted).and_then(|()| enable(&base, &wanted));
    if let Err(error) = result {
        let _ = fs::remove_dir(&base);
        return Err(format!(
            "cgroup v2: enabling controllers in {}: {error}",
            parent.display()
        ));
    }
    Ok(Hierarchy {
        version: Version::Two,
        bases: vec![base],
        controllers: wanted,
    })
}

/// Passes controllers on to children. Where the agent itself sits in the group this is refused (no inner processes), so
/// it moves into a leaf of its own first; it does so only when it is alone there.
fn enable(dir: &Path, controllers: &[String]) -> io::Result<()> {
    let all: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    let control = dir.join("cgroup.subtree_control");
    match fs::write(&control, all.join(" ")) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && alone(dir) => {
            let leaf = dir.join("mutual-agent");
            make(dir, "mutual-agent")?;
            fs::write(leaf.join("cgroup.procs"), "0")?;
            fs::write(&control, all.join(" "))
        }
        other => other,
    }
}

fn alone(dir: &Path) -> bool {
    let own = std::process::id().to_string();
    fs::read_to_string(dir.join("cgroup.procs"))
        .is_ok_and(|list| list.lines().all(|line| line == own))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNT: &str = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
                            31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn mounts_and_own_groups_are_found() {
        let lines: Vec<_> = mount_lines(V1_MOUNT)
            .map(|line| (line.point, line.kind))
            .collect();
        assert_eq!(
            lines,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", "cgroup"),
                ("/sys/fs/cgroup/unified", "cgroup2")
            ]
        );
        let own = "4:memory:/a/b\n3:cpu,cpuacct:/c\n0::/d\n";
        assert_eq!(own_path(own, "memory"), Some("/a/b"));
        assert_eq!(own_path(own, "cpu"), Some("/c"));
        assert_eq!(own_path(own, ""), Some("/d"));
        assert_eq!(own_path(own, "pids"), None);
    }

    #[test]
    fn fuzz_kernel_tables_never_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let _ = mount_lines(&text).count();
            let _ = own_path(&text, "cpu");
        });
    }
}

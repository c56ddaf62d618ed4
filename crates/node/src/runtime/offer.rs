//! What a machine offers to run: classes that a probe proved, limits and by what they hold, and why the rest is missing.

use std::fmt;

use serde::Serialize;

use super::spec::{Backend, Class};

/// What makes a limit hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// The kernel, through control groups version 1 (or hybrid).
    CgroupV1,
    /// The kernel, through control groups version 2.
    CgroupV2,
    /// The kernel, through a resource limit.
    Rlimit,
    /// The kernel, through the set of processors: whole processors only.
    Affinity,
    /// The shim, which looks several times a second and kills.
    Watcher,
    /// Nothing: the limit is only a promise.
    NotEnforced,
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupV1 => "cgroup v1",
            Self::CgroupV2 => "cgroup v2",
            Self::Rlimit => "resource limit",
            Self::Affinity => "processor set (whole processors)",
            Self::Watcher => "watched by the shim",
            Self::NotEnforced => "not enforced",
        })
    }
}

/// What holds each limit of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Enforcements {
    /// Processor time.
    pub cpu: Enforcement,
    /// Memory.
    pub memory: Enforcement,
    /// Processes.
    pub pids: Enforcement,
    /// Bytes in the task directory; one file's length is a resource limit besides.
    pub scratch: Enforcement,
    /// Running time.
    pub time: Enforcement,
}

/// A class that works here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassOffer {
    /// The class.
    pub class: Class,
    /// What runs it, for containers.
    pub backend: Option<Backend>,
    /// What holds its limits.
    pub limits: Enforcements,
    /// Sentences for the owner: what else holds, and what does not.
    pub notes: Vec<String>,
}

/// A class that does not work here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// The class.
    pub class: Class,
    /// Why, and what would change it.
    pub reason: String,
}

/// Everything a machine offers to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Classes that a probe proved, strongest first.
    pub classes: Vec<ClassOffer>,
    /// The others.
    pub absent: Vec<Absent>,
}

impl Offer {
    /// The offer for one class.
    #[must_use]
    pub fn class(&self, class: Class) -> Option<&ClassOffer> {
        self.classes.iter().find(|offer| offer.class == class)
    }

    /// The strongest class offered.
    #[must_use]
    pub fn strongest(&self) -> Option<Class> {
        self.classes.iter().map(|offer| offer.class).min()
    }

    /// Why a class is missing.
    #[must_use]
    pub fn reason(&self, class: Class) -> &str {
        let absent = self.absent.iter().find(|absent| absent.class == class);
        absent.map_or("it was not probed", |absent| &absent.reason)
    }
}

//! Tries at start which classes and limits work here, by running a tiny task in each.

use super::cgroup::{self, Hierarchy};
use super::offer::{Absent, ClassOffer, Enforcement, Enforcements, Offer};
use super::spec::{Backend, Class, Layout, Limits, MEMORY_BYTES_MIN, RunSpec};
use super::{Exit, Inner, Outcome, shim};

/// Memory for the tiny task: enough for any `true`.
const PROBE_MEMORY_BYTES: u64 = 16 * MEMORY_BYTES_MIN;

/// Tries all classes, strongest first. `no_groups` says why there are no control groups.
pub(super) async fn probe(inner: &Inner, no_groups: Option<String>) -> Offer {
    let mut offer = Offer::default();
    for class in Class::ALL {
        match try_class(inner, class, no_groups.as_deref()).await {
            Ok(found) => offer.classes.push(found),
            Err(reason) => offer.absent.push(Absent { class, reason }),
        }
    }
    offer
}

async fn try_class(
    inner: &Inner,
    class: Class,
    no_groups: Option<&str>,
) -> Result<ClassOffer, String> {
    match class {
        Class::Vm | Class::Sandbox => {
            return Err(
                "needs containerd with Kata or gVisor, which this version does not drive"
                    .to_owned(),
            );
        }
        Class::Process if !inner.config.allow_process => {
            return Err("the machine's owner does not allow it".to_owned());
        }
        Class::Container | Class::Process => {}
    }
    let exit = run_tiny(inner, class).await?;
    let counted = exit.usage.mem_peak_bytes > 0;
    if exit.outcome != Outcome::Code(0) {
        return Err(format!("a first task ended with {:?}", exit.outcome));
    }
    Ok(describe(inner, class, no_groups, counted))
}

/// Runs `true` with every limit set.
async fn run_tiny(inner: &Inner, class: Class) -> Result<Exit, String> {
    let dir = inner.config.state_dir.join("probe");
    let text = |error: std::io::Error| error.to_string();
    let layout = Layout::prepare(&dir).map_err(text)?;
    let mut spec = RunSpec::new(
        format!("probe-{class}"),
        class,
        vec!["true".to_owned()],
        layout.dir,
    );
    spec.limits = Limits {
        cpu_millis: Some(1000),
        memory_bytes: Some(PROBE_MEMORY_BYTES),
        pids: Some(16),
        scratch_bytes: Some(MEMORY_BYTES_MIN),
        time: Some(std::time::Duration::from_secs(10)),
    };
    let started = inner.launch(spec).await.map_err(|error| error.to_string());
    let exit = match started {
        Ok(running) => Ok(running.wait().await),
        Err(reason) => Err(reason),
    };
    let _ = std::fs::remove_dir_all(dir);
    exit
}

fn describe(inner: &Inner, class: Class, no_groups: Option<&str>, counted: bool) -> ClassOffer {
    let hierarchy = inner.hierarchy.as_ref().filter(|_| counted);
    let container = class == Class::Container;
    let mut notes = Vec::new();
    if let Some(reason) = no_groups {
        notes.push(format!("no control groups: {reason}"));
    }
    if !container {
        notes.push(shim::landlock_enforced().to_owned());
        notes.push("input/ is write-protected only from a root agent's tasks".to_owned());
    }
    ClassOffer {
        class,
        backend: container.then_some(inner.config.backend),
        limits: enforcements(hierarchy, inner.config.backend, container),
        notes,
    }
}

fn enforcements(hierarchy: Option<&Hierarchy>, backend: Backend, container: bool) -> Enforcements {
    let by_group = |controller| hierarchy.and_then(|found| cgroup::enforcement(found, controller));
    let own_user_namespace = container && backend == Backend::Embedded;
    let pids = if own_user_namespace {
        Enforcement::Rlimit
    } else {
        Enforcement::Watcher
    };
    Enforcements {
        cpu: by_group("cpu").unwrap_or(Enforcement::Affinity),
        memory: by_group("memory").unwrap_or(Enforcement::Watcher),
        pids: by_group("pids").unwrap_or(pids),
        scratch: Enforcement::Watcher,
        time: Enforcement::Watcher,
    }
}

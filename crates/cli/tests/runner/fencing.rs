//! Agents that stand still, die alone or lose their store: nothing runs past its lease, judged from outside by what the
//! tasks themselves write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::lab::{Lab, PATIENCE};

const ANN: &str = "ann/context.toml";
const LEASE: Duration = Duration::from_secs(4);
const DEMAND: &str = "[demand]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\n\
                      lease = \"4s\"\nrenew = \"1s\"\n";
const AGENTS: &str = "[agent]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\ncpus = 2\n\
                      memory = \"1GiB\"\ntasks = 4\nprocess_for = [\"lab\"]\npoll = \"100ms\"\n";
/// Writes its fence and the time, until told to end.
const TICKS: &str = "cd \"$MUTUAL_OUTPUT\"; until test -e end; do
                     echo \"$MUTUAL_FENCE $(date +%s%N)\" >> ticks; sleep 0.03; done";

fn now_ns() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

fn submit(lab: &Lab, flags: &[&str]) -> String {
    let run = [
        "run", "--detach", "--cpus", "0.2", "--memory", "64MiB", "--class", "process",
    ];
    let script = ["--", "/bin/sh", "-c", TICKS];
    let submitted = lab.run(ANN, &[&run[..], flags, &script].concat());
    assert_eq!(submitted.code, 0, "{}", submitted.all());
    submitted.stdout.trim().to_owned()
}

/// First and last time that each attempt of a job wrote, by its fence's sequence. Files are read while they are there.
type Ticks = BTreeMap<u64, (u128, u128)>;

fn read_ticks(lab: &Lab, job: &str, into: &mut Ticks) {
    for run in lab.runs(job) {
        let text = std::fs::read_to_string(run.join("output/ticks")).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let (fence, time) = line.split_once(' ').unwrap();
            let sequence = fence.split_once('.').unwrap().1.parse().unwrap();
            let time = time.parse().unwrap();
            let seen = into.entry(sequence).or_insert((time, time));
            *seen = (seen.0.min(time), seen.1.max(time));
        }
    }
}

/// Reads on until the condition holds.
fn watch(
    lab: &Lab,
    jobs: &mut BTreeMap<String, Ticks>,
    what: &str,
    holds: impl Fn(&BTreeMap<String, Ticks>) -> bool,
) {
    let since = Instant::now();
    loop {
        for (job, ticks) in jobs.iter_mut() {
            read_ticks(lab, job, ticks);
        }
        if holds(jobs) {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "not yet: {what}: {jobs:?}");
        // may sleep: polls for the event, with a bound
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn holder(lab: &Lab, job: &str) -> String {
    let shown = lab.run(ANN, &["--json", "show", job]).json();
    let attempts = shown["attempts"].as_array().unwrap();
    attempts.last().unwrap()["agent"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn ends_well(lab: &Lab, job: &str) -> serde_json::Value {
    let ended = Arc::new(AtomicBool::new(false));
    let show = ["--json", "show", job];
    let shown = lab.until(ANN, &show, |shown| {
        // Whoever runs it now is told.
        lab.signal(job, "end");
        ended.store(true, Ordering::Relaxed);
        shown["state"] == "succeeded"
    });
    let attempts = shown["attempts"].as_array().unwrap();
    let good = attempts
        .iter()
        .filter(|attempt| attempt["end"] == "succeeded");
    assert_eq!(good.count(), 1, "{shown}");
    shown
}

#[test]
fn an_agent_that_stands_still_runs_nothing_past_its_lease() {
    let mut lab = Lab::start(3, DEMAND, AGENTS);
    let plain = submit(&lab, &[]);
    let exclusive = submit(&lab, &["--exclusive"]);
    let mut jobs: BTreeMap<String, Ticks> = [&plain, &exclusive]
        .map(|job| (job.clone(), Ticks::new()))
        .into();
    watch(&lab, &mut jobs, "both run", |jobs| {
        jobs.values().all(|ticks| !ticks.is_empty())
    });
    let holders = [holder(&lab, &plain), holder(&lab, &exclusive)];
    for agent in &holders {
        lab.agent(agent).signal(Signal::STOP);
    }
    let stopped = now_ns();
    watch(&lab, &mut jobs, "both run elsewhere", |jobs| {
        jobs.values().all(|ticks| ticks.len() == 2)
    });
    let over = stopped + LEASE.as_nanos();
    // Nothing was asked to stop it but its own watchdog.
    watch(&lab, &mut jobs, "the leases are over", |_| {
        now_ns() > over + 1_000_000_000
    });
    for agent in &holders {
        lab.agent(agent).signal(Signal::CONT);
    }
    for agent in &holders {
        let since = Instant::now();
        while lab.agent(agent).counted("mutual_agent_held_jobs") > 0 {
            assert!(since.elapsed() < PATIENCE, "it still holds what it lost");
            // may sleep: polls for the event, with a bound
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    watch(&lab, &mut jobs, "a last look", |_| true);
    for (job, ticks) in &jobs {
        let (old, new) = (ticks[&1], ticks[&2]);
        assert!(
            old.1 <= over,
            "{job} wrote {} ms past its lease",
            (old.1 - over) / 1_000_000
        );
        if *job == exclusive {
            assert!(
                new.0 >= old.1,
                "two executions of an exclusive task overlapped"
            );
        }
    }
    for job in [&plain, &exclusive] {
        let shown = ends_well(&lab, job);
        assert_eq!(shown["attempts"].as_array().unwrap().len(), 2, "{shown}");
    }
}

/// Whether any process of a job lives.
fn is_alive(job: &str) -> bool {
    let mark = format!("MUTUAL_JOB={job}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut environments =
        processes.filter_map(|one| std::fs::read(one.path().join("environ")).ok());
    environments.any(|text| String::from_utf8_lossy(&text).contains(&mark))
}

#[test]
fn an_agent_killed_alone_takes_its_tasks_along_and_goes_on_when_it_is_back() {
    let mut lab = Lab::start(1, DEMAND, AGENTS);
    let job = submit(&lab, &[]);
    let mut jobs = BTreeMap::from([(job.clone(), Ticks::new())]);
    watch(&lab, &mut jobs, "it runs", |jobs| !jobs[&job].is_empty());
    assert!(is_alive(&job));
    lab.agents[0].kill();
    let since = Instant::now();
    while is_alive(&job) {
        assert!(
            since.elapsed() < Duration::from_secs(2),
            "tasks outlive their agent"
        );
        // may sleep: polls for the event, with a bound
        std::thread::sleep(Duration::from_millis(2));
    }
    let gone = now_ns();
    let place = lab.place.path("");
    assert!(place.exists());
    lab.agents[0].restart(&lab.place);
    watch(&lab, &mut jobs, "it runs again", |jobs| {
        jobs[&job].len() == 2
    });
    assert!(jobs[&job][&1].1 <= gone);
    let shown = ends_well(&lab, &job);
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 2, "{shown}");
}

#[test]
fn a_task_whose_store_stands_still_is_paused_stopped_or_left_alone_as_it_asked() {
    let lab = Lab::start(1, DEMAND, AGENTS);
    let wishes = ["pause", "stop", "finish"];
    let names = wishes.map(|wish| submit(&lab, &["--on-disconnect", wish]));
    let mut jobs: BTreeMap<String, Ticks> = names.clone().map(|job| (job, Ticks::new())).into();
    watch(&lab, &mut jobs, "all run", |jobs| {
        jobs.values().all(|ticks| !ticks.is_empty())
    });
    lab.demand.signal(Signal::STOP);
    let stopped = now_ns();
    let over = stopped + LEASE.as_nanos();
    watch(&lab, &mut jobs, "the leases are over", |_| {
        now_ns() > over + 1_000_000_000
    });
    let [paused, killed, left] = &names;
    assert!(
        jobs[paused][&1].1 <= over && jobs[killed][&1].1 <= over,
        "{jobs:?} {over}"
    );
    assert!(jobs[left][&1].1 > over, "{jobs:?} {over}");
    assert!(is_alive(paused) && !is_alive(killed) && is_alive(left));
    lab.demand.signal(Signal::CONT);
    let resumed = now_ns();
    watch(&lab, &mut jobs, "all go on", |jobs| {
        jobs.values()
            .all(|ticks| ticks.values().any(|(_, last)| *last > resumed))
    });
    for job in &names {
        ends_well(&lab, job);
    }
}

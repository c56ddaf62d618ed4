//! Agents that fall silent, watched by other agents.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::lab::{Lab, Node, PATIENCE};

const ANN: &str = "ann/context.toml";
/// Leases so long that none ends within a test.
const PATIENT: &str = "[demand]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\n\
                       lease = \"10m\"\nrenew = \"1m\"\n";
const FAST: &str = "[agent]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\ncpus = 2\n\
                    memory = \"1GiB\"\ntasks = 2\nprocess_for = [\"lab\"]\nprofile = \"fast\"\n";
/// Its first attempt never ends by itself.
const SCRIPT: &str = "if [ \"$MUTUAL_ATTEMPT\" = 1 ]; then sleep 600; else echo again; fi";

fn signal(node: &Node, signal: Signal) {
    let pid = i32::try_from(node.ready["pid"].as_u64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[track_caller]
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        // may sleep: polls for the event, with a bound
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_frozen_agents_task_goes_on_elsewhere_long_before_its_lease_ends() {
    let lab = Lab::start(4, PATIENT, FAST);
    let watched = |agent: &Node| agent.counted("mutual_agent_guardians") == 3;
    wait_until("every agent has three guardians", || {
        lab.agents.iter().all(watched)
    });
    let submit = [
        "run", "--detach", "--cpus", "0.5", "--", "/bin/sh", "-c", SCRIPT,
    ];
    let submitted = lab.run(ANN, &submit);
    assert_eq!(submitted.code, 0, "{}", submitted.all());
    let job = submitted.stdout.trim().to_owned();
    let show = ["--json", "show", &job];
    let shown = lab.until(ANN, &show, |shown| shown["state"] == "running");
    let holder = shown["attempts"][0]["agent"].clone();
    let is_holder = |agent: &&Node| agent.ready["node"] == holder;
    let frozen = lab.agents.iter().find(is_holder).unwrap();
    signal(frozen, Signal::STOP);
    let shown = lab.until(ANN, &show, |shown| shown["state"] == "succeeded");
    assert_ne!(shown["attempts"][1]["agent"], holder);
    assert_eq!(shown["attempts"][0]["end"], "revoked");
    let others = || lab.agents.iter().filter(|agent| !is_holder(agent));
    let verdicts = "mutual_agent_verdicts_total{kind=\"silent\"}";
    assert!(others().map(|agent| agent.counted(verdicts)).sum::<u64>() >= 2);

    // It wakes up, learns that it was declared dead, ends what it ran, and is of use again.
    signal(frozen, Signal::CONT);
    wait_until("the revoked run ends", || {
        frozen.counted("mutual_agent_held_jobs") == 0
    });
    wait_until("it is watched again", || watched(frozen));
    assert_eq!(
        lab.run(ANN, &show).json()["attempts"][2],
        serde_json::Value::Null
    );
}

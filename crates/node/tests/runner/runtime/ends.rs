//! How runs end, and how they fail to start.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use mutual_node::runtime::{Class, Leash, Outcome, Runtime, Slack, StartError};

use super::{Ground, PATIENCE, bounded, until};

#[tokio::test(flavor = "multi_thread")]
async fn codes_and_signals_are_told_apart() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let cases = [
            ("exit 0", Outcome::Code(0)),
            ("exit 7", Outcome::Code(7)),
            ("exit 137", Outcome::Code(137)),
            ("kill -SEGV $$", Outcome::Signal(11)),
            ("kill -KILL $$", Outcome::Signal(9)),
        ];
        for (script, expected) in cases {
            let done = ground.run(ground.shell("ends", class, script)).await;
            assert_eq!(done.exit.outcome, expected, "{class}: {script}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_task_and_have_their_usual_effect() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
        let mut running = ground.start(ground.shell("trap", class, script)).await;
        let mut output = running.take_output().expect("output");
        until(&mut output, "ready").await;
        running.signal(15).await.expect("a living task");
        until(&mut output, "caught").await;
        assert_eq!(
            bounded(running.wait()).await.outcome,
            Outcome::Code(5),
            "{class}"
        );

        let running = ground
            .start(ground.spec("term", class, &["sleep", "100"]))
            .await;
        running.signal(15).await.expect("a living task");
        assert_eq!(
            bounded(running.wait()).await.outcome,
            Outcome::Signal(15),
            "{class}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_takes_the_whole_tree_along() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let script = "(setsid sleep 1234.5 &) ; sleep 1234.5 & echo ready; wait";
        let mut running = ground.start(ground.shell("tree", class, script)).await;
        let mut output = running.take_output().expect("output");
        until(&mut output, "ready").await;
        running.kill().await.expect("a living task");
        assert_eq!(
            bounded(running.wait()).await.outcome,
            Outcome::Killed,
            "{class}"
        );
        // The pipes end only when every process that held them is gone.
        bounded(output.discard()).await;
        assert!(
            running.kill().await.is_err(),
            "an order after the end is refused"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_main_process_leaves_behind_goes_with_it() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let done = ground
            .run(ground.shell("orphan", class, "setsid sleep 1234 & exit 3"))
            .await;
        assert_eq!(done.exit.outcome, Outcome::Code(3), "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_run_kills_it() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let mut running = ground
            .start(ground.spec("dropped", class, &["sleep", "100"]))
            .await;
        let output = running.take_output().expect("output");
        drop(running);
        bounded(output.discard()).await;
    }
}

/// A leash that is over after this time.
fn leash(after: Duration, then: Slack) -> Leash {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let now = Duration::from_secs(now.tv_sec.unsigned_abs())
        + Duration::from_nanos(now.tv_nsec.unsigned_abs());
    let until_us = u64::try_from((now + after).as_micros()).expect("not that long");
    Leash { until_us, then }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_leash_is_over_is_frozen_until_there_is_more_time() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let mut spec = ground.shell("leash", class, "while :; do echo tick; sleep 0.01; done");
        spec.leash = Some(leash(Duration::from_millis(500), Slack::Pause));
        let mut running = ground.start(spec).await;
        let mut output = running.take_output().expect("output");
        until(&mut output, "tick").await;
        let quiet = Duration::from_millis(500);
        let silence = async { while tokio::time::timeout(quiet, output.next()).await.is_ok() {} };
        bounded(silence).await;
        // Paused and resumed by the agent, which does not know.
        running.pause().await.expect("a living task");
        let more = leash(PATIENCE, Slack::Pause);
        running.leash(more).await.expect("a living task");
        let still = tokio::time::timeout(quiet, output.next()).await;
        assert!(still.is_err(), "{class}: the agent's own pause was undone");
        running.resume().await.expect("a living task");
        until(&mut output, "tick").await;
        // Held again, and let go by more time alone.
        let over = leash(Duration::ZERO, Slack::Pause);
        running.leash(over).await.expect("a living task");
        let silence = async { while tokio::time::timeout(quiet, output.next()).await.is_ok() {} };
        bounded(silence).await;
        running.leash(more).await.expect("a living task");
        until(&mut output, "tick").await;
        running.kill().await.expect("a living task");
        bounded(running.wait()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_to_end_with_its_leash_does() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let mut spec = ground.shell("leash", class, "sleep 1000");
        spec.leash = Some(leash(Duration::from_millis(200), Slack::Kill));
        let running = ground.start(spec).await;
        let exit = bounded(running.wait()).await;
        assert_eq!(exit.outcome, Outcome::Killed, "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_stops_everything_and_the_clock() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let mut spec = ground.shell("pause", class, "while :; do echo tick; sleep 0.01; done");
        spec.limits.time = Some(Duration::from_secs(2));
        let mut running = ground.start(spec).await;
        let mut output = running.take_output().expect("output");
        until(&mut output, "tick").await;
        running.pause().await.expect("a living task");
        let quiet = Duration::from_millis(500);
        // What was written before the pause may still come; then there is silence for as long as the time limit.
        let silence = async { while tokio::time::timeout(quiet, output.next()).await.is_ok() {} };
        bounded(silence).await;
        let longer = tokio::time::timeout(Duration::from_secs(2), running.wait()).await;
        assert!(longer.is_err(), "{class}: the clock ran during the pause");
        running.resume().await.expect("a living task");
        until(&mut output, "tick").await;
        running.pause().await.expect("a living task");
        running.kill().await.expect("a paused task");
        assert_eq!(
            bounded(running.wait()).await.outcome,
            Outcome::Killed,
            "{class}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_limit_ends_a_task() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let mut spec = ground.spec("late", class, &["sleep", "100"]);
        spec.limits.time = Some(Duration::from_millis(200));
        let start = Instant::now();
        let done = ground.run(spec).await;
        assert_eq!(done.exit.outcome, Outcome::TimeLimit, "{class}");
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{class}: {:?}",
            start.elapsed()
        );
        assert!(done.exit.usage.ran >= Duration::from_millis(200), "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_start_say_why() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let missing = ground
            .refused(ground.spec("missing", class, &["no-such-program"]))
            .await;
        assert!(
            matches!(&missing, StartError::NotFound(text) if text.contains("no-such-program")),
            "{missing}"
        );
        let path = ground
            .refused(ground.spec("path", class, &["/no/such/program"]))
            .await;
        assert!(matches!(path, StartError::NotFound(_)), "{path}");

        let spec = ground.spec("plain", class, &["output/plain"]);
        std::fs::write(spec.dir.join("output/plain"), "#!/bin/sh\n").expect("a file");
        let plain = ground.refused(spec).await;
        assert!(
            matches!(&plain, StartError::NotExecutable(text) if text.contains("chmod")),
            "{class}: {plain}"
        );

        let spec = ground.spec("garbage", class, &["output/garbage"]);
        let file = spec.dir.join("output/garbage");
        std::fs::write(&file, "no program").expect("a file");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("own file");
        // In class `process` the C library runs such a file with the shell, as every shell does.
        if class == Class::Container {
            let garbage = ground.refused(spec).await;
            assert!(matches!(garbage, StartError::NotExecutable(_)), "{garbage}");
        }

        let mut spec = ground.spec("nowhere", class, &["true"]);
        spec.workdir = Some("/no/such/place".into());
        let nowhere = ground.refused(spec).await;
        assert!(
            matches!(&nowhere, StartError::BadWorkdir(text) if text.contains("/no/such/place")),
            "{nowhere}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_that_is_not_offered_is_refused_not_weakened() {
    let ground = Ground::with(|config| config.allow_process = false).await;
    for class in [Class::Vm, Class::Sandbox, Class::Process] {
        let error = ground
            .refused(ground.spec("absent", class, &["true"]))
            .await;
        let StartError::ClassAbsent {
            class: named,
            reason,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*named, class);
        assert!(!reason.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_has_one_agent() {
    let ground = Ground::new().await;
    let second = Runtime::open(super::config(ground.dir.path().join("state"))).await;
    assert!(second.is_err_and(|error| error.to_string().contains("another agent")));
}

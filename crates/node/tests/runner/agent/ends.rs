//! How tasks end, and what is left of them.

use std::time::Duration;

use mutual_demand::{AttemptEnd, DemandStore, Reason};
use mutual_model::job::{ArrayIndex, Failure, JobState};

use super::cloud::{Cloud, script};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_finds_its_input_and_its_result_is_fetched_and_opened_by_its_submitter() {
    let cloud = Cloud::start().await;
    let source = cloud.dir.path().join("source");
    std::fs::create_dir_all(source.join("deep")).unwrap();
    std::fs::write(source.join("deep/words"), "b\na\n").unwrap();
    let input = cloud.input(&source).await;
    let _agent = cloud.agent(20).await;
    let mut spec = script(
        "sort \"$MUTUAL_INPUT/deep/words\" > \"$MUTUAL_OUTPUT/sorted\"; echo x > \"$MUTUAL_OUTPUT/junk\"
         echo out $MUTUAL_ARRAY_INDEX/$MUTUAL_ARRAY_COUNT; echo err $MUTUAL_ATTEMPT >&2",
    );
    spec.has_input = true;
    spec.outputs = vec!["sorted".into()];
    spec.array = Some(ArrayIndex { index: 2, count: 3 });
    let job = cloud.submit_with(spec, Some(input)).await;
    let view = cloud.ended(job).await;
    assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
    let result = view.result.as_ref().unwrap();
    let names: Vec<_> = result.artifacts.iter().map(|a| a.path.as_str()).collect();
    assert_eq!(names, ["sorted"]);
    assert!(result.metrics.mem_peak_bytes > 0);
    let got = cloud.fetch(result.output.as_ref().unwrap()).await;
    assert_eq!(
        std::fs::read_to_string(got.join("sorted")).unwrap(),
        "a\nb\n"
    );
    assert!(!got.join("junk").exists());
    assert_eq!(cloud.log(&view).await, ["Stdout: out 2/3", "Stderr: err 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart() {
    let cloud = Cloud::start().await;
    let _agent = cloud.agent(20).await;
    let cases = [
        ("exit 3", JobState::Failed, Failure::ExitCode { code: 3 }),
        (
            "kill -SEGV $$",
            JobState::Failed,
            Failure::Signal { signal: 11 },
        ),
        ("sleep 60", JobState::TimedOut, Failure::TimeLimit),
    ];
    let mut jobs = Vec::new();
    for (text, state, failure) in cases {
        let mut spec = script(text);
        if failure == Failure::TimeLimit {
            spec.timeout_ms = 300;
        }
        jobs.push((cloud.submit(spec).await, state, failure));
    }
    for (job, state, failure) in jobs {
        let view = cloud.ended(job).await;
        assert_eq!(view.reason, Some(Reason::Failure(failure)));
        assert_eq!(view.state, state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_an_attempt_fails_what_it_printed_is_stored() {
    let cloud = Cloud::start().await;
    let _agent = cloud.agent(20).await;
    let says = "echo out $MUTUAL_ATTEMPT; echo err $MUTUAL_ATTEMPT >&2; printf unfinished; ";
    let ends = [
        ("exit 3", Failure::ExitCode { code: 3 }),
        ("kill -SEGV $$", Failure::Signal { signal: 11 }),
        (
            "head -c 200M /dev/zero | tail -c 199M",
            Failure::OutOfMemory,
        ),
        ("sleep 60", Failure::TimeLimit),
    ];
    for (how, failure) in ends {
        let mut spec = script(&format!("{says}{how}"));
        spec.retries = 1;
        if failure == Failure::TimeLimit {
            spec.timeout_ms = 300;
        }
        let view = cloud.ended(cloud.submit(spec).await).await;
        assert_eq!(view.reason, Some(Reason::Failure(failure)), "{how}");
        assert_eq!(view.attempts.len(), 2, "{how}");
        for (attempt, number) in view.attempts.iter().zip(1..) {
            let log = cloud.stored_log(attempt.log.as_ref().unwrap()).await;
            for line in [
                format!("Stdout: out {number}"),
                format!("Stderr: err {number}"),
                "Stdout: unfinished".to_owned(),
            ] {
                assert!(log.contains(&line), "{how}: {line:?} is missing in {log:?}");
            }
        }
        assert_eq!(view.result.unwrap().log, view.attempts[1].log, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_not_there_is_said_in_clear_text() {
    let cloud = Cloud::start().await;
    let _agent = cloud.agent(20).await;
    let mut spec = script("");
    spec.command = vec!["no-such-program".into()];
    let job = cloud.submit(spec).await;
    let view = cloud.ended(job).await;
    let Some(Reason::Failure(Failure::NotStarted { reason, .. })) = view.reason else {
        panic!("{view:#?}");
    };
    assert!(reason.contains("no-such-program"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_tried_again_as_often_as_the_user_said() {
    let cloud = Cloud::start().await;
    let _agent = cloud.agent(20).await;
    let mut spec = script("test $MUTUAL_ATTEMPT = 2");
    spec.retries = 1;
    let job = cloud.submit(spec).await;
    let view = cloud.ended(job).await;
    assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
    let ends: Vec<_> = view.attempts.iter().map(|attempt| attempt.end).collect();
    assert_eq!(
        ends,
        [Some(AttemptEnd::Failed), Some(AttemptEnd::Succeeded)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_is_killed() {
    let cloud = Cloud::with_lease(Duration::from_secs(2)).await;
    let agent = cloud.agent(20).await;
    let job = cloud.submit(script("sleep 600")).await;
    cloud
        .until(job, |view| view.state == JobState::Running)
        .await;
    cloud
        .store
        .cancel(&cloud.user(), job, "changed my mind")
        .await
        .unwrap();
    let mut status = agent.status();
    let free = status.wait_for(|status| status.runs.is_empty() && status.free.slots == 2);
    tokio::time::timeout(super::cloud::WITHIN, free)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(cloud.job(job).await.state, JobState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_attempt_finds_the_last_checkpoint() {
    let cloud = Cloud::start().await;
    let _agent = cloud.agent(20).await;
    let mut spec = script(
        "cd \"$MUTUAL_CHECKPOINT_DIR\"
         if test -e done; then cp done \"$MUTUAL_OUTPUT/done\"; exit 0; fi
         echo half > part; mv part done; sleep 600",
    );
    spec.checkpoint_ms = Some(100);
    spec.timeout_ms = 3_000;
    spec.retries = 1;
    let job = cloud.submit(spec).await;
    cloud.until(job, |view| !view.checkpoints.is_empty()).await;
    let view = cloud.ended(job).await;
    assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
    let output = view.result.as_ref().unwrap().output.as_ref().unwrap();
    let got = cloud.fetch(output).await;
    assert_eq!(std::fs::read_to_string(got.join("done")).unwrap(), "half\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_gives_back_what_runs_without_counting_an_attempt() {
    let cloud = Cloud::start().await;
    let agent = cloud.agent(20).await;
    let job = cloud.submit(script("sleep 600")).await;
    cloud
        .until(job, |view| view.state == JobState::Running)
        .await;
    assert!(agent.shutdown(super::cloud::WITHIN).await);
    let view = cloud.job(job).await;
    assert_eq!(view.state, JobState::Queued);
    assert_eq!(view.attempts_counted, 0);
    assert_eq!(view.attempts[0].end, Some(AttemptEnd::Released));
}

//! How long a task waits on an idle agent; run by name, it prints what it measured.

use std::time::{Duration, Instant};

use mutual_model::job::JobState;

use super::cloud::{Cloud, script};

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

/// From the accepted submission, over an offer, to the started program as the log tells it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run it alone with --ignored --nocapture"]
async fn from_submission_to_first_instruction() {
    let cloud = Cloud::start().await;
    let agent = cloud.agent(20).await;
    let first = cloud.submit(script("true")).await;
    cloud.ended(first).await;
    let (mut assigned, mut started) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let spec = script("exit 0");
        let job = cloud.submit(spec).await;
        let began = Instant::now();
        let mut status = agent.status();
        cloud.offer(&agent, 20, job).await;
        let held = status.wait_for(|status| status.runs.iter().any(|run| run.key.job == job));
        drop(held.await.unwrap());
        assigned.push(began.elapsed());
        let runs = status.wait_for(|status| {
            let mut runs = status.runs.iter();
            runs.all(|run| run.key.job != job || run.phase == mutual_model::lease::Phase::Running)
        });
        drop(runs.await.unwrap());
        started.push(began.elapsed());
        assert_eq!(cloud.ended(job).await.state, JobState::Succeeded);
    }
    for (name, times) in [("assigned", &mut assigned), ("started", &mut started)] {
        times.sort();
        let (half, most) = (quantile(times, 50), quantile(times, 99));
        println!("offer → {name}: p50 {half:?}, p99 {most:?}");
    }
}

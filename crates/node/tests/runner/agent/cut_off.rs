//! What happens to a task while its agent cannot reach the store.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mutual_demand::JobView;
use mutual_model::ids::JobId;
use mutual_model::job::{JobState, OnDisconnect};
use mutual_node::agent::AgentNode;

use super::cloud::{Cloud, WITHIN, script};

/// A task that counts in a file until another file appears.
async fn counting(cloud: &Cloud, policy: OnDisconnect) -> JobId {
    let text = "cd \"$MUTUAL_OUTPUT\"; until test -e stop; do echo tick >> ticks; sleep 0.02; done";
    let mut spec = script(text);
    spec.on_disconnect = policy;
    spec.retries = 3;
    cloud.submit(spec).await
}

/// The output directory of the one task there is.
fn output(cloud: &Cloud) -> Option<PathBuf> {
    let tasks = cloud.agent_dir(20).join("state/tasks");
    let mut tasks = std::fs::read_dir(tasks).unwrap();
    Some(tasks.next()?.unwrap().path().join("output"))
}

fn ticks(cloud: &Cloud) -> u64 {
    let file = output(cloud).map(|output| output.join("ticks"));
    let size = file.and_then(|file| std::fs::metadata(file).ok());
    size.map_or(0, |data| data.len())
}

fn tell_to_stop(cloud: &Cloud) {
    std::fs::write(output(cloud).unwrap().join("stop"), "").unwrap();
}

/// Waits until the task ticks, or stands still for a quarter of a second.
async fn wait_for_ticking(cloud: &Cloud, wanted: bool) {
    let began = Instant::now();
    loop {
        let before = ticks(cloud);
        // may sleep: a standstill can only be seen by looking twice
        tokio::time::sleep(Duration::from_millis(250)).await;
        if (ticks(cloud) > before) == wanted {
            return;
        }
        assert!(began.elapsed() < WITHIN, "ticking should be {wanted}");
    }
}

async fn cut_while_running(policy: OnDisconnect) -> (Cloud, AgentNode, JobId) {
    let mut cloud = Cloud::with_lease(Duration::from_millis(1_500)).await;
    let agent = cloud.agent(20).await;
    let job = counting(&cloud, policy).await;
    let running = |view: &JobView| view.state == JobState::Running;
    cloud.until(job, running).await;
    wait_for_ticking(&cloud, true).await;
    cloud.cut();
    (cloud, agent, job)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_paused_and_goes_on_after_a_renewal() {
    let (mut cloud, _agent, job) = cut_while_running(OnDisconnect::Pause).await;
    wait_for_ticking(&cloud, false).await;
    cloud.mend();
    wait_for_ticking(&cloud, true).await;
    tell_to_stop(&cloud);
    let view = cloud.ended(job).await;
    assert_eq!(view.state, JobState::Succeeded);
    assert_eq!(view.attempts.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_stopped_if_it_wants_that_and_tried_again() {
    let (mut cloud, agent, job) = cut_while_running(OnDisconnect::Stop).await;
    let mut status = agent.status();
    let gone = status.wait_for(|status| status.runs.is_empty());
    drop(tokio::time::timeout(WITHIN, gone).await.unwrap().unwrap());
    cloud.mend();
    wait_for_ticking(&cloud, true).await;
    tell_to_stop(&cloud);
    let view = cloud.ended(job).await;
    assert_eq!(view.state, JobState::Succeeded);
    assert_eq!(view.attempts.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_on_if_it_wants_that_and_its_finish_still_counts() {
    let (mut cloud, agent, job) = cut_while_running(OnDisconnect::Finish).await;
    // Longer than the lease: by now it would have been paused or stopped.
    // may sleep: the lease has to run out
    tokio::time::sleep(Duration::from_secs(2)).await;
    wait_for_ticking(&cloud, true).await;
    tell_to_stop(&cloud);
    let mut status = agent.status();
    let idle = status.wait_for(|status| status.free.slots == 2);
    drop(tokio::time::timeout(WITHIN, idle).await.unwrap().unwrap());
    cloud.mend();
    let view = cloud.ended(job).await;
    assert_eq!(view.state, JobState::Succeeded);
    assert_eq!(view.attempts.len(), 1);
}

//! Checkpoints: what travels, what counts, what is let go, and what the next attempt finds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mutual_demand::{DemandStore, JobView};
use mutual_model::ids::JobId;
use mutual_model::job::{JobState, TaskSpec};
use mutual_model::lease::Fence;
use mutual_node::agent::{AgentConfig, AgentNode};
use mutual_node::swarm::Swarm;

use super::cloud::{Cloud, WITHIN, organisation, script, swarm};
use super::delivery::Lossy;

/// Renewals, which carry requests, come four times in it.
const LEASE: Duration = Duration::from_secs(2);
const MEBIBYTE: u64 = 1 << 20;

/// A task for files of some megabytes.
fn large(text: &str) -> TaskSpec {
    let mut spec = script(text);
    spec.resources.scratch_bytes = 200 * MEBIBYTE;
    spec.retries = 3;
    spec
}

fn roomy(config: &mut AgentConfig) {
    config.resources.scratch_bytes = 400 * MEBIBYTE;
}

async fn roomy_agent(cloud: &Cloud, seed: u8) -> (AgentNode, Swarm) {
    cloud.agent_and_swarm(seed, roomy, |store| store).await
}

/// Nothing of it answers any more.
async fn die((agent, swarm): (AgentNode, Swarm)) {
    drop(agent);
    swarm.shutdown().await;
}

/// Signals the running task by a file in its output directory.
async fn signal(cloud: &Cloud, seed: u8, job: JobId, name: &str) {
    cloud.touch_output(seed, job, fence(cloud, job).await, name);
}

async fn fence(cloud: &Cloud, job: JobId) -> Fence {
    cloud.job(job).await.attempts.last().unwrap().fence
}

/// Asks for a checkpoint and waits until it is acknowledged.
async fn saved(cloud: &Cloud, job: JobId) -> JobView {
    let last = |view: &JobView| view.checkpoints.first().map(|c| (c.fence, c.sequence));
    let before = last(&cloud.job(job).await);
    let user = cloud.user();
    cloud.store.request_checkpoint(&user, job).await.unwrap();
    cloud.until(job, |view| last(view) > before).await
}

/// Waits until the task has said so.
async fn until_there(cloud: &Cloud, seed: u8, job: JobId, name: &str) {
    let run = format!("{job}-{}-", fence(cloud, job).await);
    let tasks = cloud.agent_dir(seed).join("state/tasks");
    eventually(name, || {
        let tasks = std::fs::read_dir(&tasks).unwrap();
        let mut tasks = tasks.map(|task| task.unwrap().path());
        tasks.any(|task| {
            let is_it = task
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(&run);
            is_it && task.join("output").join(name).exists()
        })
    })
    .await;
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WITHIN, "not yet: {what}");
        // may sleep: polls for the event, with a bound
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Number and bytes of the files below.
fn files(dir: &Path) -> (usize, u64) {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let each = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => files(&entry.path()),
        Ok(data) => (1, data.len()),
        // Removed meanwhile.
        Err(_) => (0, 0),
    });
    each.fold((0, 0), |(count, bytes), (more, length)| {
        (count + more, bytes + length)
    })
}

/// A store's disk loses a block.
fn lose(store: &Path, block: &str) {
    let shards = std::fs::read_dir(store.join("blocks")).unwrap().flatten();
    let files = shards.map(|shard| shard.path().join(block));
    let found: Vec<PathBuf> = files.filter(|file| file.exists()).collect();
    assert_eq!(found.len(), 1);
    std::fs::remove_file(&found[0]).unwrap();
}

/// Number and bytes of a store's blocks.
fn blocks(store: &Path) -> (usize, u64) {
    let (settled, fresh) = (files(&store.join("blocks")), files(&store.join("fresh")));
    (settled.0 + fresh.0, settled.1 + fresh.1)
}

fn holder_dir(cloud: &Cloud) -> PathBuf {
    cloud.agent_dir(20).join("blocks-agent-20")
}

/// How many objects of a store somebody pins whose name begins so.
fn pinned(store: &Path, by: &str) -> usize {
    let pins = std::fs::read_dir(store.join("pins")).unwrap().flatten();
    let texts = pins.filter_map(|pin| std::fs::read_to_string(pin.path()).ok());
    texts
        .filter(|text| text.contains(&format!("\"owner\":\"{by}")))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_new_chunks_travel_to_the_keeper() {
    let cloud = Cloud::with_lease(LEASE).await;
    let _agent = roomy_agent(&cloud, 20).await;
    let text = "cd \"$MUTUAL_CHECKPOINT_DIR\"; wait_for() { until test -e \"$MUTUAL_OUTPUT/$1\"; do sleep 0.01; done; }
        for n in 1 2 3 4; do head -c 8M /dev/urandom > $n.partial; mv $n.partial $n; done; touch \"$MUTUAL_OUTPUT/made\"
        wait_for change; cp 3 3.partial; head -c 1000 /dev/urandom | dd of=3.partial bs=1000 seek=4000 conv=notrunc
        mv 3.partial 3; touch \"$MUTUAL_OUTPUT/changed\"; wait_for end";
    let job = cloud.submit(large(text)).await;
    cloud
        .until(job, |view| view.state == JobState::Running)
        .await;
    until_there(&cloud, 20, job, "made").await;
    let nothing = blocks(&cloud.keeper_dir()).0;
    let view = saved(&cloud, job).await;
    assert!(view.checkpoints[0].manifest.bytes > 32 * MEBIBYTE);
    let first = blocks(&cloud.keeper_dir()).0 - nothing;
    // 32 MiB in chunks of 256 KiB on average and 1 MiB at most, and what links them.
    assert!(first > 32, "{first}");
    signal(&cloud, 20, job, "change").await;
    until_there(&cloud, 20, job, "changed").await;
    let before = blocks(&cloud.keeper_dir()).1;
    let view = saved(&cloud, job).await;
    assert_eq!(view.checkpoints.len(), 2);
    let second = blocks(&cloud.keeper_dir()).0 - nothing - first;
    // The changed chunk, perhaps its neighbour; index of names, links, root.
    assert!((1..=8).contains(&second), "{second} of {first}");
    let travelled = blocks(&cloud.keeper_dir()).1 - before;
    assert!(travelled < 3 * MEBIBYTE, "{travelled}");
    signal(&cloud, 20, job, "end").await;
    assert_eq!(cloud.ended(job).await.state, JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_are_kept_and_older_ones_freed_on_holder_and_keeper() {
    let cloud = Cloud::start().await;
    let agent = roomy_agent(&cloud, 20).await;
    let text = "cd \"$MUTUAL_CHECKPOINT_DIR\"; until test -e \"$MUTUAL_OUTPUT/end\"; do
        head -c 2M /dev/urandom > state.partial; mv state.partial state; sleep 0.05; done";
    let mut spec = large(text);
    spec.checkpoint_ms = Some(100);
    let job = cloud.submit(spec).await;
    let many = |view: &JobView| view.checkpoints.first().is_some_and(|c| c.sequence >= 6);
    let view = cloud.until(job, many).await;
    assert_eq!(view.checkpoints.len(), 2);
    let (holder, keeper) = (holder_dir(&cloud), cloud.keeper_dir());
    // Another is on its way at any time.
    eventually("freed", || {
        pinned(&keeper, "series:") <= 3
            && blocks(&keeper).1 < 7 * MEBIBYTE
            && pinned(&holder, "checkpoint:") <= 3
            && blocks(&holder).1 < 9 * MEBIBYTE
    })
    .await;
    signal(&cloud, 20, job, "end").await;
    assert_eq!(cloud.ended(job).await.state, JobState::Succeeded);
    eventually("forgotten", || {
        pinned(&keeper, "series:") == 0 && pinned(&holder, "checkpoint:") == 0
    })
    .await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_the_owner_deems_too_large_is_not_saved_and_the_task_is_told() {
    let cloud = Cloud::with_lease(LEASE).await;
    let bounded = |config: &mut AgentConfig| {
        roomy(config);
        config.policy.checkpoint_bytes_max = MEBIBYTE;
    };
    let _agent = cloud.agent_with(20, bounded, |store| store).await;
    let text = "head -c 2M /dev/zero > \"$MUTUAL_CHECKPOINT_DIR/big\"
        until test -e \"$MUTUAL_OUTPUT/end\"; do sleep 0.01; done";
    let mut spec = large(text);
    spec.checkpoint_ms = Some(100);
    let job = cloud.submit(spec).await;
    cloud
        .until(job, |view| view.state == JobState::Running)
        .await;
    let logs = cloud.agent_dir(20).join("state/logs");
    let words = "not saved: $MUTUAL_CHECKPOINT_DIR holds more than 1048576 bytes";
    eventually(words, || says(&logs, words)).await;
    signal(&cloud, 20, job, "end").await;
    let view = cloud.ended(job).await;
    assert_eq!(view.state, JobState::Succeeded);
    assert!(view.checkpoints.is_empty());
    let log = cloud.log(&view).await;
    let told = log
        .iter()
        .any(|line| line.starts_with("Stderr: mutual: ") && line.contains(words));
    assert!(told, "{log:?}");
}

/// Whether any file below says so.
fn says(dir: &Path, words: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.any(|path| match path.is_dir() {
        true => says(&path, words),
        false => std::fs::read_to_string(path).is_ok_and(|text| text.contains(words)),
    })
}

/// Counts up whenever told to; the next attempt hands out what it found.
const COUNTER: &str = "cd \"$MUTUAL_CHECKPOINT_DIR\"
    if test $MUTUAL_ATTEMPT -gt 1; then cp -r . \"$MUTUAL_OUTPUT/found\"; exit 0; fi
    for n in 1 2 3; do
        echo $n > state.partial; mv state.partial state; echo half > other.partial
        touch \"$MUTUAL_OUTPUT/at-$n\"; until test -e \"$MUTUAL_OUTPUT/go-$n\"; do sleep 0.01; done
    done";

/// A counter that stands at 1, saved.
async fn counter(cloud: &Cloud) -> JobId {
    let job = cloud.submit(large(COUNTER)).await;
    cloud
        .until(job, |view| view.state == JobState::Running)
        .await;
    until_there(cloud, 20, job, "at-1").await;
    saved(cloud, job).await;
    job
}

async fn counts_to(cloud: &Cloud, job: JobId, number: u32) {
    signal(cloud, 20, job, &format!("go-{}", number - 1)).await;
    until_there(cloud, 20, job, &format!("at-{number}")).await;
}

/// The state that the next attempt found, once it has ended.
async fn found(cloud: &Cloud, job: JobId) -> Option<String> {
    let view = cloud.ended(job).await;
    assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
    let result = view.result.unwrap();
    let got: PathBuf = cloud
        .fetch(result.output.as_ref().unwrap())
        .await
        .join("found");
    assert!(!got.join("other.partial").exists());
    std::fs::read_to_string(got.join("state")).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_was_not_acknowledged_is_never_resumed_from() {
    let cloud = Cloud::with_lease(LEASE).await;
    let mut swallows = None;
    let agent = cloud.agent_and_swarm(20, roomy, |inner| {
        let store = Arc::new(Lossy::of(inner));
        swallows = Some(store.clone());
        store
    });
    let agent = agent.await;
    let store = swallows.unwrap();
    let job = counter(&cloud).await;
    store.swallow_checkpoints();
    counts_to(&cloud, job, 2).await;
    let user = cloud.user();
    cloud.store.request_checkpoint(&user, job).await.unwrap();
    eventually("sent", || store.swallowed() > 0).await;
    assert_eq!(cloud.job(job).await.checkpoints.len(), 1);
    die(agent).await;
    let _next = roomy_agent(&cloud, 21).await;
    assert_eq!(found(&cloud, job).await.as_deref(), Some("1\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_before_is_taken_if_the_last_cannot_be_fetched_and_none_if_neither_can() {
    let cases = [(0, Some("2\n")), (1, Some("1\n")), (2, None)];
    let each = cases.map(|(lost, expected)| async move {
        let cloud = Cloud::with_lease(LEASE).await;
        let agent = roomy_agent(&cloud, 20).await;
        let job = counter(&cloud).await;
        counts_to(&cloud, job, 2).await;
        let view = saved(&cloud, job).await;
        // Its part in the data plane still answers, but has lost the same blocks.
        drop(agent.0);
        for checkpoint in view.checkpoints.iter().take(lost) {
            for store in [cloud.keeper_dir(), holder_dir(&cloud)] {
                lose(&store, checkpoint.manifest.root.as_str());
            }
        }
        let _next = roomy_agent(&cloud, 21).await;
        assert_eq!(found(&cloud, job).await.as_deref(), expected, "{lost} lost");
    });
    futures::future::join_all(each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_keeper_is_asked_when_one_dies() {
    let cloud = Cloud::with_lease(LEASE).await;
    let agent = roomy_agent(&cloud, 20).await;
    let job = counter(&cloud).await;
    let first = cloud.job(job).await.checkpoints[0].manifest.receipts[0].holder;
    let (spare, _blocks) = swarm(&organisation(), cloud.dir.path(), 6, "spare").await;
    cloud.keepers.add(spare.listen_addrs());
    cloud.kill_keeper().await;
    counts_to(&cloud, job, 2).await;
    let view = saved(&cloud, job).await;
    assert_ne!(view.checkpoints[0].manifest.receipts[0].holder, first);
    die(agent).await;
    let _next = roomy_agent(&cloud, 21).await;
    assert_eq!(found(&cloud, job).await.as_deref(), Some("2\n"));
}

//! Finishes reach their store whatever fails in between, and claims survive a lost reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mutual_demand::{
    CheckpointReport, ClaimReply, ClaimRequest, DemandStore, EventPage, FinishReply, FinishRequest,
    JobFilter, JobPage, JobView, Manifest, Principal, ReleaseRequest, RenewReply, RenewRequest,
    RequeueReport, Revocation, RevocationReply, StoreError, StoreInfo, StoreResult, Submission,
    Submitted,
};
use mutual_model::ids::JobId;
use mutual_model::job::JobState;

use super::cloud::{Cloud, WITHIN, script};

fn outbox(cloud: &Cloud, seed: u8) -> usize {
    let entries = std::fs::read_dir(cloud.agent_dir(seed).join("state/outbox")).unwrap();
    let names = entries.map(|entry| entry.unwrap().path());
    names
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .count()
}

async fn wait_for_outbox(cloud: &Cloud, seed: u8, wanted: usize) {
    let began = Instant::now();
    while outbox(cloud, seed) != wanted {
        assert!(began.elapsed() < WITHIN, "outbox should hold {wanted}");
        // may sleep: polls for the event, with a bound
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finish_waits_for_its_store() {
    let mut cloud = Cloud::start().await;
    let _agent = cloud.agent(20).await;
    let job = cloud.submit(script("sleep 0.3")).await;
    cloud
        .until(job, |view| view.state == JobState::Running)
        .await;
    cloud.cut();
    wait_for_outbox(&cloud, 20, 1).await;
    assert_eq!(cloud.job(job).await.state, JobState::Running);
    cloud.mend();
    assert_eq!(cloud.ended(job).await.state, JobState::Succeeded);
    wait_for_outbox(&cloud, 20, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finish_survives_the_death_of_its_agent() {
    let mut cloud = Cloud::start().await;
    let agent = cloud.agent(20).await;
    let done = cloud.submit(script("sleep 0.3")).await;
    let mut again = script("test $MUTUAL_ATTEMPT = 2 || sleep 600");
    again.retries = 1;
    let lost = cloud.submit(again).await;
    for job in [done, lost] {
        cloud
            .until(job, |view| view.state == JobState::Running)
            .await;
    }
    cloud.cut();
    wait_for_outbox(&cloud, 20, 1).await;
    drop(agent);
    cloud.mend();
    let _successor = restarted(&cloud).await;
    let view = cloud.ended(done).await;
    assert_eq!(view.state, JobState::Succeeded);
    assert_eq!(
        view.attempts.len(),
        1,
        "the outbox came before the revocation"
    );
    // What was running died with the agent; its successor says so and takes it again.
    let view = cloud.ended(lost).await;
    assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
    assert_eq!(view.attempts.len(), 2);
}

/// An agent over the same state, once the dropped one has let go of it.
async fn restarted(cloud: &Cloud) -> mutual_node::agent::AgentNode {
    let state = cloud.agent_dir(20).join("runtime");
    let began = Instant::now();
    while mutual_node::runtime::Runtime::sweep(&state).is_err() {
        assert!(began.elapsed() < WITHIN, "the first agent does not let go");
        // may sleep: polls for the event, with a bound
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cloud.agent(20).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_claim_reply_costs_no_attempt() {
    let cloud = Cloud::start().await;
    let job = cloud.submit(script("true")).await;
    let wrap = |inner| -> Arc<dyn DemandStore> {
        Arc::new(Lossy {
            claims_lost: AtomicU32::new(2),
            ..Lossy::of(inner)
        })
    };
    let _agent = cloud.agent_with(20, |_| (), wrap).await;
    let view = cloud.ended(job).await;
    assert_eq!(view.state, JobState::Succeeded, "{view:#?}");
    assert_eq!(view.attempts.len(), 1);
}

/// A store whose first answers to claims, or reports of checkpoints, are lost on the way.
#[derive(Debug)]
pub(super) struct Lossy {
    inner: Arc<dyn DemandStore>,
    claims_lost: AtomicU32,
    swallows: AtomicBool,
    swallowed: AtomicU32,
}

impl Lossy {
    pub(super) fn of(inner: Arc<dyn DemandStore>) -> Self {
        Self {
            inner,
            claims_lost: AtomicU32::new(0),
            swallows: AtomicBool::new(false),
            swallowed: AtomicU32::new(0),
        }
    }

    /// From now on no report of a checkpoint gets through or is answered.
    pub(super) fn swallow_checkpoints(&self) {
        self.swallows.store(true, Ordering::SeqCst);
    }

    /// How many reports did not get through.
    pub(super) fn swallowed(&self) -> u32 {
        self.swallowed.load(Ordering::SeqCst)
    }
}

macro_rules! pass_on {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $reply:ty;)*) => {
        #[async_trait]
        impl DemandStore for Lossy {
            async fn info(&self) -> StoreResult<StoreInfo> {
                self.inner.info().await
            }

            async fn try_claim(
                &self,
                who: &Principal,
                request: ClaimRequest,
            ) -> StoreResult<ClaimReply> {
                let reply = self.inner.try_claim(who, request).await;
                let left = self.claims_lost.fetch_update(
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                    |left| left.checked_sub(1),
                );
                match left {
                    Ok(_) => Err(StoreError::Unknown("lost on the way".into())),
                    Err(_) => reply,
                }
            }

            async fn checkpoint(&self, who: &Principal, report: CheckpointReport) -> StoreResult<()> {
                if self.swallows.load(Ordering::SeqCst) {
                    self.swallowed.fetch_add(1, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
                self.inner.checkpoint(who, report).await
            }

            $(async fn $name(&self, who: &Principal, $($arg: $kind),*) -> StoreResult<$reply> {
                self.inner.$name(who, $($arg),*).await
            })*
        }
    };
}

pass_on! {
    submit(tasks: Vec<Submission>) -> Vec<Submitted>;
    attach_manifest(job: JobId, input: Manifest) -> JobView;
    job(job: JobId) -> JobView;
    jobs(filter: &JobFilter) -> JobPage;
    cancel(job: JobId, reason: &str) -> JobView;
    renew(request: RenewRequest) -> RenewReply;
    release(request: ReleaseRequest) -> ();
    finish(request: FinishRequest) -> FinishReply;
    revoke(revocation: Revocation) -> RevocationReply;
    requeue(limit: u32) -> RequeueReport;
    events(after: u64, limit: u32) -> EventPage;
    request_checkpoint(job: JobId) -> ();
    new_epoch() -> u64;
}

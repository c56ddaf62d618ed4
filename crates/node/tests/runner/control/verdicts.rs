//! The demand server notices a killed agent and gives its job to another.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mutual_demand::http::{HttpStore, HttpStoreConfig};
use mutual_demand::{AttemptEnd, ClaimScope};
use mutual_model::identity::Role;
use mutual_model::ids::JobId;
use mutual_model::job::JobState;
use mutual_model::lease::LeaseTerms;
use mutual_node::auth::unix_now;
use mutual_node::liveness::{AgentDoor, keep_session};

use super::agents::{Listed, Taker, claim, incarnation};
use super::cloud::Cloud;
use crate::auth::fixture::Organisation;

const DEMAND: &str = "MUTUAL_TEST_DEMAND_URL";
const LIVENESS: &str = "MUTUAL_TEST_LIVENESS";
const JOB: &str = "MUTUAL_TEST_JOB";
const VICTIM: u8 = 30;

/// An agent process to be killed. As an ordinary test it has nothing to do and ends at once.
#[tokio::test]
async fn agent_process() {
    let (Ok(url), Ok(server)) = (std::env::var(DEMAND), std::env::var(LIVENESS)) else {
        return;
    };
    let job: JobId = std::env::var(JOB).unwrap().parse().unwrap();
    let organisation = Organisation::at(1, unix_now());
    let signer = organisation.node(VICTIM, &["lab"], &[Role::Agent]);
    let store = HttpStore::new(&[url], Arc::new(signer.clone()), HttpStoreConfig::default());
    let key = Arc::new(signer.key().clone());
    let certificate = signer.certificate().clone();
    let local = "127.0.0.1:0".parse().unwrap();
    let (door, _pokes) = AgentDoor::open(local, key, certificate).await.unwrap();
    let run = incarnation();
    door.live(run, None);
    let session = tokio::spawn(keep_session(door, server, run));
    let scope = ClaimScope::Jobs(vec![job]);
    claim(&store.unwrap(), &signer, run, scope, "http://127.0.0.1:9").await;
    session.await.unwrap();
}

/// Kills its process when dropped, so that no failed test leaves one behind.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        // Already gone in the good case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(cloud: &Cloud, job: JobId) -> Victim {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "control::verdicts::agent_process"])
        .env(DEMAND, cloud.demand.url())
        .env(LIVENESS, cloud.demand.liveness().to_string())
        .env(JOB, job.to_string())
        .stdout(Stdio::null())
        .spawn();
    Victim(child.unwrap())
}

async fn session_is_open(cloud: &Cloud) {
    comes("a session", || !cloud.demand.present().is_empty()).await;
}

async fn comes(what: &str, is_there: impl Fn() -> bool) {
    let seen = async {
        while !is_there() {
            // may sleep: polls for the event, with a bound
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let seen = tokio::time::timeout(super::cloud::PATIENCE, seen).await;
    seen.unwrap_or_else(|_| panic!("{what} comes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agents_job_is_claimed_elsewhere_at_once() {
    let listed = Arc::new(Listed::default());
    let cloud = Cloud::among(listed.clone()).await;
    let control = cloud.control(10).await;
    let job = cloud.submit(&control, "one").await;
    let mut victim = spawn(&cloud, job);
    let held = cloud.wait_for_state(job, JobState::Assigned).await;
    session_is_open(&cloud).await;
    let heir = cloud.organisation.node(31, &["lab"], &[Role::Agent]);
    let taker = Taker {
        store: cloud.store_as(&heir),
        trusted: [cloud.organisation.key.public()],
        declines: None,
        signer: heir.clone(),
    };
    listed.forget_all();
    listed.add(taker.serve(4).await);
    let (killed, killed_at) = (Instant::now(), unix_now());
    victim.0.kill().unwrap();
    let heir = heir.key().id();
    let is_elsewhere = |view: &mutual_demand::JobView| {
        view.current()
            .is_some_and(|attempt| attempt.holder.agent == heir)
    };
    let view = cloud.wait_for(job, is_elsewhere).await;
    let took = killed.elapsed();
    let [first, second] = [&view.attempts[0], &view.attempts[1]];
    let ended = first.ended_at.expect("a verdict ends the first attempt");
    println!(
        "from SIGKILL to claimed elsewhere: {took:?}; to the verdict {} ms, then {} ms",
        ended.since(killed_at).as_millis(),
        second.claimed_at.since(ended).as_millis(),
    );
    // The lease lasts 20 s: only a verdict explains that it was so fast.
    assert!(took < Duration::from_secs(5), "{took:?}");
    let fences: Vec<_> = view.attempts.iter().map(|attempt| attempt.fence).collect();
    assert!(fences[1] > held.current().unwrap().fence);
    // Counted once the store has answered, while the job may be taken up already.
    for count in [
        "mutual_recoveries_total{phase=\"revoked\"} 1",
        "mutual_death_detection_seconds_count 1",
    ] {
        comes(count, || cloud.demand.counts().render().contains(count)).await;
    }
}

#[tokio::test]
async fn a_lease_that_expires_in_silence_is_swept_and_offered_again() {
    let terms = LeaseTerms {
        lease_ms: 200,
        renew_ms: 50,
    };
    let listed = Arc::new(Listed::default());
    let cloud = Cloud::with_terms(listed.clone(), terms).await;
    let controls = [cloud.control(10).await, cloud.control(11).await];
    let job = cloud.submit(&controls[0], "one").await;
    // It claims, has no session, and is never heard of again.
    let silent = cloud.organisation.node(VICTIM, &["lab"], &[Role::Agent]);
    let store = cloud.store_as(&silent);
    let scope = ClaimScope::Jobs(vec![job]);
    claim(&store, &silent, incarnation(), scope, "http://127.0.0.1:9").await;
    let heir = cloud.organisation.node(31, &["lab"], &[Role::Agent]);
    let taker = Taker {
        store: cloud.store_as(&heir),
        trusted: [cloud.organisation.key.public()],
        declines: None,
        signer: heir.clone(),
    };
    listed.add(taker.serve(4).await);
    let heir = heir.key().id();
    let was_elsewhere = |view: &mutual_demand::JobView| {
        view.attempts
            .iter()
            .any(|attempt| attempt.holder.agent == heir)
    };
    let view = cloud.wait_for(job, was_elsewhere).await;
    assert_eq!(view.attempts[0].end, Some(AttemptEnd::LeaseExpired));
    // The heir does not renew either, so that its own lease may have ended by now.
    assert!(view.attempts_counted >= 1);
}

//! People, machines and tasks that the cases are about.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mutual_model::history::{Deed, Observation};
use mutual_model::identity::{NodeKey, SealingPublic};
use mutual_model::ids::{ContentId, Incarnation, JobId, Namespace, Nonce};
use mutual_model::job::{Failure, IsolationClass, JobState, TaskSpec};
use mutual_model::lease::{Claim, HeldJob, Phase};
use mutual_model::receipt::StorageReceipt;
use mutual_model::resources::Resources;
use mutual_model::time::UnixMillis;

use super::recorder::Recorder;
use super::{Stand, config};
use crate::{
    CheckpointReport, ClaimGrant, ClaimRequest, ClaimScope, DemandStore, EncMeta, FinishReply,
    FinishRequest, JobView, Manifest, Metrics, Offer, Outcome, Principal, ReleaseRequest,
    RenewReply, RenewRequest, ResultView, Revocation, RevocationReply, Right, StoreError,
    StoreInfo, StoreResult, Submission, Verdict,
};

/// Copies that the cases' tasks ask for.
pub(super) const COPIES: u32 = 1;
const SCHEME: &str = "aes-256-gcm-stream/1";

/// One store on trial and everybody who uses it.
#[derive(Debug)]
pub struct World {
    pub(super) store: Recorder,
    stand: Arc<dyn Stand>,
    info: StoreInfo,
    counter: AtomicU32,
    /// A user of namespace `lab`.
    pub(super) user: Principal,
    /// A user of namespace `other`.
    pub(super) stranger: Principal,
    /// The store's own server.
    pub(super) operator: Principal,
}

impl std::fmt::Debug for dyn Stand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stand")
    }
}

/// One run of one agent.
#[derive(Debug, Clone)]
pub(super) struct Agent {
    pub(super) who: Principal,
    pub(super) incarnation: Incarnation,
}

fn lab() -> Namespace {
    "lab".parse().expect("a plain name is a namespace")
}

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed(&[seed; 32])
}

fn principal(subject: &str, namespace: &str, rights: &[Right]) -> Principal {
    let namespace = namespace.parse().expect("a plain name is a namespace");
    Principal {
        subject: subject.to_owned(),
        node: None,
        sealing: key(200).sealing_public(),
        namespaces: vec![namespace],
        rights: rights.to_vec(),
    }
}

impl World {
    /// A world around an empty store.
    pub(super) async fn new(stand: Arc<dyn Stand>) -> Self {
        let store = Recorder::new(Arc::clone(&stand));
        let info = store.info().await.expect("a fresh store says what it is");
        let user_rights = [Right::Read, Right::Submit];
        let world = Self {
            store,
            stand,
            info,
            counter: AtomicU32::new(0),
            user: principal("user", "lab", &user_rights),
            stranger: principal("stranger", "other", &user_rights),
            operator: principal("server", "lab", &[Right::Read, Right::Operate]),
        };
        world.note_opening(world.info.epoch, false);
        world
    }

    /// Everything that was said so far.
    pub(super) fn history(&self) -> Vec<Observation> {
        self.store.history()
    }

    fn note_opening(&self, epoch: u64, reopened: bool) {
        let lease_ms = config().terms.lease_ms;
        let deed = Deed::Opened {
            epoch,
            lease_ms,
            reopened,
        };
        self.store.note(self.store.stamp(), deed);
    }

    pub(super) fn number(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::SeqCst)
    }

    /// The id of a job that is nowhere.
    pub(super) fn missing_job(&self) -> JobId {
        JobId::new(UnixMillis(1), [255; 10])
    }

    pub(super) fn nonce(&self) -> Nonce {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.number().to_be_bytes());
        Nonce(bytes)
    }

    pub(super) async fn pass(&self, time: Duration) {
        self.stand.pass(time).await;
    }

    /// Lets every lease run out that is not renewed, and every grace.
    pub(super) async fn pass_lease(&self) {
        self.pass(config().terms.lease() + Duration::from_millis(100))
            .await;
    }

    pub(super) async fn restart(&self) -> StoreInfo {
        let called = self.store.stamp();
        self.stand.restart().await;
        let info = self
            .store
            .info()
            .await
            .expect("a restarted store says what it is");
        let lease_ms = config().terms.lease_ms;
        let deed = Deed::Opened {
            epoch: info.epoch,
            lease_ms,
            reopened: true,
        };
        self.store.note(called, deed);
        info
    }

    pub(super) async fn set_clock_forward(&self, by: Duration) {
        self.stand.set_clock_forward(by).await;
        self.store.note(self.store.stamp(), Deed::ClockSet);
    }

    pub(super) async fn lose_next_reply(&self) {
        self.stand.lose_next_reply().await;
    }

    pub(super) fn epoch(&self) -> u64 {
        self.info.epoch
    }

    /// A run of the agent with this number.
    pub(super) fn agent(&self, seed: u8) -> Agent {
        let node = key(seed);
        let mut who = principal(
            &format!("agent-{seed}"),
            "lab",
            &[Right::Work, Right::Read, Right::Guard],
        );
        who.node = Some(node.id());
        who.sealing = node.sealing_public();
        let run = UnixMillis(1_000 + u64::from(self.number()));
        Agent {
            who,
            incarnation: Incarnation::new(run, [seed; 10]),
        }
    }

    /// A secret as it is sealed to this store, or nothing where no server stands in between.
    fn sealed(&self, purpose: &str) -> Vec<u8> {
        let to: Option<SealingPublic> = self.info.sealing;
        let sealed = to.map(|to| to.seal(purpose, &[7; 32], &mut rand::rng()));
        sealed.map_or_else(Vec::new, |sealed| sealed.expect("a store's key is one"))
    }

    /// An object that the peer with this number vouches for.
    pub(super) fn object(&self, name: &str, purpose: &str, peer: u8) -> Manifest {
        let root: ContentId = name.parse().expect("a plain name is a content id");
        Manifest {
            receipts: vec![StorageReceipt::sign(
                &key(peer),
                root.clone(),
                10,
                UnixMillis(u64::MAX),
            )],
            root,
            bytes: 10,
            seeders: vec!["/ip4/192.0.2.1/udp/4001/quic-v1".into()],
            enc_meta: EncMeta {
                scheme: SCHEME.into(),
                sealed_key: self.sealed(purpose),
            },
        }
    }

    pub(super) fn input(&self, name: &str) -> Manifest {
        self.object(name, "input key v1", 100)
    }

    pub(super) fn task(&self) -> TaskSpec {
        let need = Resources {
            cpu_millis: 1_000,
            memory_bytes: 64 << 20,
            ..Resources::ZERO
        };
        TaskSpec {
            result_copies: COPIES,
            retries: 2,
            ..TaskSpec::new(vec!["true".into()], need)
        }
    }

    pub(super) fn submission(&self, spec: TaskSpec) -> Submission {
        let number = self.number();
        Submission {
            namespace: lab(),
            client_key: format!("task-{number}")
                .parse()
                .expect("a plain name is a key"),
            spec,
            result_key: None,
            input: None,
        }
    }

    /// Submits one ordinary task.
    pub(super) async fn submit(&self) -> JobId {
        self.submit_as(|_| {}).await
    }

    pub(super) async fn submit_as(&self, change: impl FnOnce(&mut TaskSpec)) -> JobId {
        let mut spec = self.task();
        change(&mut spec);
        let submitted = self
            .store
            .submit(&self.user, vec![self.submission(spec)])
            .await;
        submitted.expect("an ordinary task is taken")[0].job
    }

    pub(super) async fn view(&self, job: JobId) -> JobView {
        self.store
            .job(&self.user, job)
            .await
            .expect("a user sees their job")
    }

    pub(super) async fn state(&self, job: JobId) -> JobState {
        self.view(job).await.state
    }

    pub(super) async fn check_state(&self, job: JobId, expected: JobState) {
        assert_eq!(self.state(job).await, expected, "{job}");
    }

    pub(super) fn offer(slots: u32) -> Offer {
        Offer {
            free: Resources {
                cpu_millis: 1_000_000,
                memory_bytes: 1 << 40,
                gpus: 8,
                scratch_bytes: 1 << 40,
            },
            slots,
            classes: IsolationClass::ALL.to_vec(),
            labels: std::collections::BTreeMap::new(),
        }
    }

    pub(super) fn claim_request(&self, agent: &Agent, slots: u32) -> ClaimRequest {
        ClaimRequest {
            incarnation: agent.incarnation,
            nonce: self.nonce(),
            scope: ClaimScope::Any,
            offer: Self::offer(slots),
            agent_url: "http://192.0.2.1:7000".into(),
        }
    }

    pub(super) async fn claim(&self, agent: &Agent, slots: u32) -> Vec<ClaimGrant> {
        let request = self.claim_request(agent, slots);
        let reply = self.store.try_claim(&agent.who, request).await;
        reply.expect("a living agent may ask").grants
    }

    /// Claims the one job there is to claim.
    pub(super) async fn claim_one(&self, agent: &Agent) -> ClaimGrant {
        let mut grants = self.claim(agent, 1).await;
        assert_eq!(grants.len(), 1, "one job was to be had");
        grants.remove(0)
    }

    pub(super) async fn renew(
        &self,
        agent: &Agent,
        held: &[(Claim, Phase)],
        complete: bool,
    ) -> StoreResult<RenewReply> {
        let held = held.iter().map(|&(claim, phase)| HeldJob { claim, phase });
        let request = RenewRequest {
            incarnation: agent.incarnation,
            held: held.collect(),
            complete,
        };
        self.store.renew(&agent.who, request).await
    }

    pub(super) fn result(&self, root: &str, peer: u8) -> ResultView {
        ResultView {
            output: Some(self.object(root, "result key v1", peer)),
            artifacts: Vec::new(),
            log: None,
            metrics: Metrics {
                cpu_avg: 0.25,
                running_ms: 7,
                ..Metrics::default()
            },
        }
    }

    /// A success that another peer vouches for.
    pub(super) fn success(&self, claim: Claim) -> FinishRequest {
        FinishRequest {
            claim,
            outcome: Outcome::Success,
            result: self.result("bafyresult", 100),
        }
    }

    pub(super) fn failure(&self, claim: Claim, failure: Failure) -> FinishRequest {
        FinishRequest {
            claim,
            outcome: Outcome::Failure(failure),
            result: ResultView {
                output: None,
                artifacts: Vec::new(),
                log: None,
                metrics: Metrics::default(),
            },
        }
    }

    pub(super) async fn finish(
        &self,
        agent: &Agent,
        request: &FinishRequest,
    ) -> StoreResult<FinishReply> {
        self.store.finish(&agent.who, request.clone()).await
    }

    pub(super) async fn release(&self, agent: &Agent, claim: Claim) -> StoreResult<()> {
        let reason = "too warm here".to_owned();
        self.store
            .release(&agent.who, ReleaseRequest { claim, reason })
            .await
    }

    pub(super) fn saved(&self, claim: Claim, sequence: u64) -> CheckpointReport {
        CheckpointReport {
            claim,
            sequence,
            manifest: self.object(&format!("bafysaved{sequence}"), "checkpoint key v1", 100),
        }
    }

    pub(super) async fn checkpoint(
        &self,
        agent: &Agent,
        claim: Claim,
        sequence: u64,
    ) -> StoreResult<()> {
        let report = self.saved(claim, sequence);
        self.store.checkpoint(&agent.who, report).await
    }

    pub(super) async fn revoke(
        &self,
        judge: &Principal,
        agent: &Agent,
        verdict: Verdict,
        silent_ms: u64,
    ) -> StoreResult<RevocationReply> {
        let revocation = Revocation {
            agent: agent.who.node.expect("an agent is a node"),
            incarnation: agent.incarnation,
            verdict,
            silent_ms,
            nonce: self.nonce(),
        };
        self.store.revoke(judge, revocation).await
    }

    /// Repeats a call until its outcome is known.
    pub(super) async fn settle<T, F>(&self, mut call: impl FnMut() -> F) -> StoreResult<T>
    where
        F: Future<Output = StoreResult<T>>,
    {
        for _ in 0..10 {
            match call().await {
                Err(StoreError::Unknown(_) | StoreError::Unavailable(_)) => {}
                outcome => return outcome,
            }
        }
        panic!("ten repeats did not settle a call");
    }
}

/// Whether an answer says that a claim is not in force.
pub(super) fn is_fenced<T>(outcome: &StoreResult<T>) -> bool {
    matches!(outcome, Err(StoreError::Fenced { .. }))
}

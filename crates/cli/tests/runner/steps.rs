//! Every role killed after every step of a task's life, and every step taken twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mutual_node::demand::http::{HttpStore, HttpStoreConfig, INPUT_KEY_PURPOSE};
use mutual_node::demand::{
    CheckpointReport, ClaimRequest, ClaimScope, DemandStore as _, EncMeta, FinishRequest, JobView,
    Manifest, Metrics, Outcome, Principal, RenewRequest, ResultView, StoreError, StoreResult,
    Submission,
};
use mutual_node::model::identity::SealingPublic;
use mutual_node::model::ids::{Incarnation, JobId, Nonce};
use mutual_node::model::job::steps::Step;
use mutual_node::model::job::{IsolationClass, JobState, TaskSpec};
use mutual_node::model::lease::{Claim, HeldJob, Phase};
use mutual_node::model::matching::Offer;
use mutual_node::model::resources::Resources;
use mutual_node::model::time::UnixMillis;
use reqwest::header::HeaderValue;
use rustix::process::Signal;

use super::lab::{Lab, PATIENCE};

const ANN: &str = "ann/context.toml";
const DEMAND: &str = "[demand]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\n";
const AGENT: &str = "[agent]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\ncpus = 2\n\
                     memory = \"1GiB\"\ntasks = 4\nprocess_for = [\"lab\"]\npoll = \"50ms\"\n";
/// Saves something, waits for its signal, hands out its input.
const SCRIPT: &str = "echo here > \"$MUTUAL_CHECKPOINT_DIR/place\"
    until test -e \"$MUTUAL_OUTPUT/go\"; do sleep 0.02; done
    rm \"$MUTUAL_OUTPUT/go\"; cp \"$MUTUAL_INPUT/words\" \"$MUTUAL_OUTPUT/words\"";

fn spec() -> TaskSpec {
    let resources = Resources {
        cpu_millis: 100,
        memory_bytes: 64 << 20,
        ..Resources::ZERO
    };
    let command = ["/bin/sh", "-c", SCRIPT].map(str::to_owned).to_vec();
    TaskSpec {
        class: Some(IsolationClass::Process),
        has_input: true,
        ..TaskSpec::new(command, resources)
    }
}

/// The store's real HTTP interface.
struct Store {
    runtime: tokio::runtime::Runtime,
    store: HttpStore,
    who: Principal,
}

impl Store {
    fn of(lab: &Lab, credentials: Arc<dyn mutual_node::demand::http::Credentials>) -> Self {
        let bases = [lab.demand.text("demand_url").to_owned()];
        Self {
            runtime: tokio::runtime::Runtime::new().unwrap(),
            store: HttpStore::new(&bases, credentials, HttpStoreConfig::default()).unwrap(),
            // The credential counts.
            who: Principal {
                subject: String::new(),
                node: None,
                sealing: SealingPublic([0; 32]),
                namespaces: Vec::new(),
                rights: Vec::new(),
            },
        }
    }

    fn of_user(lab: &Lab) -> Self {
        let token = std::fs::read_to_string(lab.place.path("ann/token")).unwrap();
        let bearer = HeaderValue::from_str(&format!("Bearer {}", token.trim())).unwrap();
        Self::of(lab, Arc::new(bearer))
    }

    fn ask<T>(&self, request: impl Future<Output = StoreResult<T>>) -> T {
        self.try_ask(request).unwrap()
    }

    fn try_ask<T>(&self, request: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        self.runtime.block_on(request)
    }

    fn submission(&self, key: &str) -> Submission {
        Submission {
            namespace: "lab".parse().unwrap(),
            client_key: key.parse().unwrap(),
            spec: spec(),
            result_key: None,
            input: None,
        }
    }

    fn submit(&self, key: &str) -> JobId {
        let tasks = vec![self.submission(key)];
        self.ask(self.store.submit(&self.who, tasks))[0].job
    }

    fn job(&self, job: JobId) -> JobView {
        self.ask(self.store.job(&self.who, job))
    }

    fn until(&self, job: JobId, what: &str, holds: impl Fn(&JobView) -> bool) -> JobView {
        let since = Instant::now();
        loop {
            let view = self.job(job);
            if holds(&view) {
                return view;
            }
            assert!(since.elapsed() < PATIENCE, "not {what}: {view:#?}");
            // may sleep: polls for the event, with a bound
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// A seeded input, as the command line makes one: that of a job which is then cancelled.
fn seeded(lab: &Lab, store: &Store) -> Manifest {
    lab.place.write("data/words", "to be handed out\n");
    let run = [
        "run", "--detach", "--input", "data", "--label", "no=where", "--", "true",
    ];
    let submitted = lab.run(ANN, &run);
    assert_eq!(submitted.code, 0, "{}", submitted.all());
    let job: JobId = submitted.stdout.trim().parse().unwrap();
    let input = store.job(job).input.unwrap();
    store.ask(
        store
            .store
            .cancel(&store.who, job, "only its input is wanted"),
    );
    input
}

/// Every role in turn, the agent last; the demand server comes before it, since it may be standing still.
fn kill_all(lab: &mut Lab) {
    let place = &lab.place;
    lab.control.restart(place);
    lab.bootstrap.as_mut().unwrap().restart(place);
    lab.seeder.as_mut().unwrap().restart(place);
    lab.demand.restart(place);
    lab.agents[0].restart(place);
}

/// Takes a job to just behind a step and holds it there.
fn bring(lab: &mut Lab, store: &Store, input: &Manifest, step: Step) -> JobId {
    let job = store.submit(&format!("killed-after-{step:?}").to_lowercase());
    if step == Step::Submit {
        return job;
    }
    if step == Step::Attach {
        // Nobody is there to take it.
        lab.agents[0].kill();
    }
    store.ask(store.store.attach_manifest(&store.who, job, input.clone()));
    match step {
        Step::Submit | Step::Attach => {}
        Step::Claim => {
            store.until(job, "held", |view| view.state.is_held());
            // Whatever it is doing for it now, it stops here.
            lab.agents[0].signal(Signal::STOP);
        }
        Step::Run => drop(store.until(job, "running", |view| view.state == JobState::Running)),
        Step::Checkpoint => {
            store.until(job, "running", |view| view.state == JobState::Running);
            let saved = lab.run(ANN, &["checkpoint", &job.to_string()]);
            assert_eq!(saved.code, 0, "{}", saved.all());
        }
        Step::Finish => {
            store.until(job, "running", |view| view.state == JobState::Running);
            lab.demand.signal(Signal::STOP);
            lab.signal(&job.to_string(), "go");
            await_outbox(lab);
        }
    }
    job
}

/// Waits until the finish is durable on the agent's disk, where nobody answers it.
fn await_outbox(lab: &Lab) {
    let outbox = lab.place.path("agent/agent/outbox");
    let since = Instant::now();
    let is_there =
        |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|end| end == "json");
    while !std::fs::read_dir(&outbox).unwrap().flatten().any(is_there) {
        assert!(since.elapsed() < PATIENCE, "no finish in the outbox");
        // may sleep: polls for the event, with a bound
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until it has succeeded, signalling whoever runs it; exactly one attempt did.
fn ends_once(lab: &Lab, store: &Store, job: JobId, step: Step) {
    let name = job.to_string();
    let view = store.until(job, "succeeded", |view| {
        if view.state == JobState::Running {
            lab.signal(&name, "go");
        }
        view.state == JobState::Succeeded
    });
    let ends = view.attempts.iter().filter_map(|attempt| attempt.end);
    let good = ends.filter(|end| *end == mutual_node::demand::AttemptEnd::Succeeded);
    assert_eq!(good.count(), 1, "{step:?}: {view:#?}");
    // One holder's death at most.
    assert!(view.attempts_counted <= 1, "{step:?}: {view:#?}");
    let mut after = 0;
    let mut ended = 0;
    loop {
        let page = store.ask(store.store.events(&store.who, after, 1_000));
        let here = page.events.iter().filter(|event| event.job == job);
        ended += here.filter(|event| event.state.is_terminal()).count();
        if page.events.is_empty() {
            break;
        }
        after = page.next;
    }
    assert_eq!(ended, 1, "{step:?} ended once");
    let target = format!("got-{step:?}");
    let got = lab.run(ANN, &["get", &name, "--output", &target]);
    assert_eq!(got.code, 0, "{}", got.all());
    let words = std::fs::read_to_string(lab.place.path(&target).join("words")).unwrap();
    assert_eq!(words, "to be handed out\n", "{step:?}");
}

#[test]
fn every_role_killed_after_every_step_and_each_job_ends_once() {
    let mut lab = Lab::apart(DEMAND, AGENT);
    let store = Store::of_user(&lab);
    let input = seeded(&lab, &store);
    for step in Step::ALL {
        let job = bring(&mut lab, &store, &input, step);
        kill_all(&mut lab);
        if step == Step::Submit {
            assert_eq!(store.job(job).state, step.state());
            store.ask(store.store.attach_manifest(&store.who, job, input.clone()));
        }
        ends_once(&lab, &store, job, step);
    }
    each_step_taken_twice(&mut lab, &input);
}

/// Asks, kills and starts the demand server, and asks the same again.
fn twice<T: PartialEq + std::fmt::Debug>(lab: &mut Lab, ask: impl Fn() -> T) -> T {
    let first = ask();
    lab.demand.restart(&lab.place);
    assert_eq!(ask(), first);
    first
}

fn each_step_taken_twice(lab: &mut Lab, input: &Manifest) {
    // Jobs are left to the one who plays an agent here.
    lab.agents[0].kill();
    let user = Store::of_user(lab);
    let signer = lab.signer("worker");
    let agent = Store::of(lab, Arc::new(signer));
    let mut play = Play {
        incarnation: Incarnation::new(UnixMillis(1), [1; 10]),
        nonce: Nonce([7; 16]),
        job: None,
        claim: None,
        user,
        agent,
    };
    for step in Step::ALL {
        play.take_twice(lab, step, input);
    }
    let view = play.user.job(play.job.unwrap());
    assert_eq!(view.state, JobState::Succeeded);
    assert_eq!(view.attempts.len(), 1, "{view:#?}");
    assert_eq!(view.checkpoints.len(), 1, "{view:#?}");
}

/// A user and an agent, made of nothing but their requests.
struct Play {
    user: Store,
    agent: Store,
    incarnation: Incarnation,
    nonce: Nonce,
    job: Option<JobId>,
    claim: Option<Claim>,
}

impl Play {
    fn take_twice(&mut self, lab: &mut Lab, step: Step, input: &Manifest) {
        let (user, agent) = (&self.user, &self.agent);
        match step {
            Step::Submit => {
                let mut task = user.submission("twice");
                // No other peer is asked to vouch for what is made up here.
                task.spec.result_copies = 0;
                let submit = |task: &Submission| user.store.submit(&user.who, vec![task.clone()]);
                self.job = Some(twice(lab, || user.ask(submit(&task))[0].job));
                task.spec.priority = 9;
                let other = user.try_ask(submit(&task));
                assert!(matches!(other, Err(StoreError::Conflict(_))), "{other:?}");
            }
            Step::Attach => {
                let job = self.job.unwrap();
                let attach = |input: &Manifest| {
                    let attached = user.store.attach_manifest(&user.who, job, input.clone());
                    user.try_ask(attached).map(|view| (view.state, view.input))
                };
                twice(lab, || attach(input).unwrap());
                let mut other = input.clone();
                other.bytes += 1;
                assert!(matches!(attach(&other), Err(StoreError::Conflict(_))));
            }
            Step::Claim => {
                let request = self.claim_request();
                let claim = || {
                    let reply = agent.store.try_claim(&agent.who, request.clone());
                    let grants = agent.ask(reply).grants.into_iter();
                    grants.map(|grant| grant.claim).collect::<Vec<_>>()
                };
                let claims = twice(lab, claim);
                assert_eq!(claims.len(), 1);
                self.claim = Some(claims[0]);
            }
            Step::Run => {
                let renewal = RenewRequest {
                    incarnation: self.incarnation,
                    held: vec![HeldJob {
                        claim: self.claim.unwrap(),
                        phase: Phase::Running,
                    }],
                    complete: true,
                };
                let renew = || {
                    agent
                        .ask(agent.store.renew(&agent.who, renewal.clone()))
                        .held
                };
                assert_eq!(twice(lab, renew), [self.job.unwrap()]);
            }
            Step::Checkpoint => {
                let report = CheckpointReport {
                    claim: self.claim.unwrap(),
                    sequence: 1,
                    manifest: made_up(agent, mutual_node::demand::http::CHECKPOINT_KEY_PURPOSE),
                };
                twice(lab, || {
                    agent.ask(agent.store.checkpoint(&agent.who, report.clone()))
                });
            }
            Step::Finish => {
                let finish = FinishRequest {
                    claim: self.claim.unwrap(),
                    outcome: Outcome::Success,
                    result: ResultView {
                        output: Some(made_up(agent, INPUT_KEY_PURPOSE)),
                        artifacts: Vec::new(),
                        log: None,
                        metrics: Metrics::default(),
                    },
                };
                let send = |finish: &FinishRequest| agent.store.finish(&agent.who, finish.clone());
                twice(lab, || agent.ask(send(&finish)));
                let mut other = finish.clone();
                other.result.metrics.running_ms = 1;
                let refused = agent.try_ask(send(&other));
                assert!(
                    matches!(refused, Err(StoreError::Conflict(_))),
                    "{refused:?}"
                );
            }
        }
    }

    fn claim_request(&self) -> ClaimRequest {
        ClaimRequest {
            incarnation: self.incarnation,
            nonce: self.nonce,
            scope: ClaimScope::Jobs(vec![self.job.unwrap()]),
            offer: Offer {
                free: Resources {
                    cpu_millis: 1_000,
                    memory_bytes: 1 << 30,
                    ..Resources::ZERO
                },
                slots: 1,
                classes: IsolationClass::ALL.to_vec(),
                labels: BTreeMap::new(),
            },
            agent_url: "http://127.0.0.1:1".to_owned(),
        }
    }
}

/// An object that nobody will ever fetch.
fn made_up(agent: &Store, purpose: &str) -> Manifest {
    let sealing = agent.ask(agent.store.info()).sealing.unwrap();
    Manifest {
        root: "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
            .parse()
            .unwrap(),
        bytes: 1,
        seeders: Vec::new(),
        enc_meta: EncMeta {
            scheme: "aes-256-gcm-stream/1".to_owned(),
            sealed_key: sealing.seal(purpose, &[1; 32], &mut rand::rng()).unwrap(),
        },
        receipts: Vec::new(),
    }
}

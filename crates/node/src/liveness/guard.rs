//! A guardian's driver: sessions with its wards, their heartbeats, and the verdicts it passes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mutual_demand::{DemandStore, Principal, Revocation, StoreError, Verdict};
use mutual_model::agent::StoreUrl;
use mutual_model::guardian::{
    Answer, Cause, Charge, Health, Loss, Silence, Watcher, WatcherAction, WatcherConfig,
    WatcherEvent,
};
use mutual_model::identity::{NodeId, PublicKey};
use mutual_model::ids::{Incarnation, Nonce};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::entrust::{Entrust, Entrusted, decode, encode};
use super::metrics::GuardianMetrics;
use super::pulse::Pulse;
use super::watch::{self, Dialler, Notice, WatchConfig};
use super::wire::Pass;
use crate::clock;

/// Questions that wait for the loop.
const QUESTIONS_MAX: usize = 256;
/// How long the loop may take to answer; it takes microseconds.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// How long a store may take to answer a verdict.
const VERDICT_WITHIN: Duration = Duration::from_secs(5);

type Find = dyn Fn(&StoreUrl) -> Option<Arc<dyn DemandStore>> + Send + Sync;

/// What a guardian passes verdicts with.
#[derive(Clone)]
pub struct Bench {
    /// The stores it may speak to; those that its owner does not accept are not found.
    pub find: Arc<Find>,
    /// In whose name.
    pub who: Principal,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench")
            .field("who", &self.who)
            .finish_non_exhaustive()
    }
}

struct Question {
    agent: NodeId,
    from: SocketAddr,
    asked: Entrust,
    accepted: oneshot::Sender<bool>,
}

/// A guardian at work. Cheap to clone; it ends when the last clone is gone.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    questions: mpsc::Sender<Question>,
    beats: u16,
    _loop: Arc<AbortOnDropHandle<()>>,
}

impl Guard {
    pub(super) fn start(
        pulse: Arc<Pulse>,
        trusted: Vec<PublicKey>,
        bench: Bench,
        metrics: GuardianMetrics,
    ) -> std::io::Result<Self> {
        let beats = pulse.port()?;
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let (dialler, notices) = Dialler::new(WatchConfig::new(trusted));
        let (answers, answered) = mpsc::channel(QUESTIONS_MAX);
        let driver = Driver {
            core: Watcher::new(WatcherConfig::default()),
            pulse,
            bench,
            dialler,
            sessions: BTreeMap::new(),
            answers,
            metrics,
        };
        let run = tokio::spawn(driver.run(asked, notices, answered));
        Ok(Self {
            questions,
            beats,
            _loop: Arc::new(AbortOnDropHandle::new(run)),
        })
    }

    /// Answers the question of the agent at `from`; `None` to what is none.
    pub(super) async fn answer(
        &self,
        agent: NodeId,
        from: SocketAddr,
        question: &[u8],
    ) -> Option<Vec<u8>> {
        let asked = match Entrust::from_bytes(question) {
            Ok(asked) => asked,
            Err(error) => {
                tracing::debug!(%agent, %error, "not watched");
                return None;
            }
        };
        let (accepted, answer) = oneshot::channel();
        let question = Question {
            agent,
            from,
            asked,
            accepted,
        };
        self.questions.send(question).await.ok()?;
        let accepted = tokio::time::timeout(ANSWER_WITHIN, answer).await;
        let beats = self.beats;
        encode(&match accepted {
            Ok(Ok(true)) => Entrusted::Yes { beats },
            _ => Entrusted::No,
        })
    }
}

/// The UDP port of an answer that accepts.
pub(super) fn accepted_port(answer: &[u8]) -> Option<u16> {
    match decode(answer)? {
        Entrusted::Yes { beats } => Some(beats),
        Entrusted::No => None,
    }
}

struct Session {
    run: Incarnation,
    pass: Pass,
    _open: AbortOnDropHandle<()>,
}

struct Driver {
    core: Watcher,
    pulse: Arc<Pulse>,
    bench: Bench,
    dialler: Dialler,
    sessions: BTreeMap<NodeId, Session>,
    answers: mpsc::Sender<WatcherEvent>,
    metrics: GuardianMetrics,
}

impl Driver {
    async fn run(
        mut self,
        mut asked: mpsc::Receiver<Question>,
        mut notices: mpsc::Receiver<Notice>,
        mut answered: mpsc::Receiver<WatcherEvent>,
    ) {
        loop {
            let wake = self.core.next_wake().map(|wake| wake.since(clock::now()));
            tokio::select! {
                biased;
                readable = self.pulse.readable() => if readable.is_ok() {
                    self.hear();
                },
                question = asked.recv() => match question {
                    Some(question) => self.take_charge(question),
                    None => return,
                },
                Some(notice) = notices.recv() => self.notice(notice),
                Some(event) = answered.recv() => self.handle(event),
                () = pause(wake) => {
                    // What lies in the socket goes before the judgement.
                    self.hear();
                    self.handle(WatcherEvent::HeldUp(self.pulse.lateness()));
                }
            }
        }
    }

    fn hear(&mut self) {
        for (agent, beat) in self.pulse.heard() {
            self.metrics.heard();
            self.feed(WatcherEvent::Beat { agent, beat });
        }
    }

    fn take_charge(&mut self, question: Question) {
        let Question {
            agent,
            from,
            asked,
            accepted,
        } = question;
        let may = self.core.has_place_for(&agent);
        if may {
            let door = SocketAddr::new(from.ip(), asked.port);
            self.open_session(agent, door, asked.run, asked.pass);
            self.handle(WatcherEvent::Entrusted(Charge {
                agent,
                run: asked.run,
                silence: asked.silence(Silence::WIDE.phi),
                stores: asked.stores,
            }));
        }
        // Whoever asked may have given up.
        let _ = accepted.send(may);
    }

    fn open_session(&mut self, agent: NodeId, door: SocketAddr, run: Incarnation, pass: Pass) {
        let is_same = |session: &Session| session.run == run && session.pass == pass;
        if self.sessions.get(&agent).is_some_and(is_same) {
            return;
        }
        let session = Session {
            run,
            pass,
            _open: self.dialler.dial(agent, door, run, pass),
        };
        self.sessions.insert(agent, session);
    }

    fn notice(&mut self, notice: Notice) {
        let Notice::Lost { peer, loss, .. } = notice else {
            return;
        };
        let loss = match loss {
            watch::Loss::Refused => Loss::Refused,
            watch::Loss::Silent => Loss::Unreachable,
            watch::Loss::Replaced(_) | watch::Loss::Left => Loss::Over,
        };
        let (agent, run) = (peer.agent, peer.incarnation);
        // A ward that asks again gets a new session.
        let is_this = |session: &Session| session.run == run && Some(session.pass) == peer.pass;
        if self.sessions.get(&agent).is_some_and(is_this) {
            self.sessions.remove(&agent);
            self.handle(WatcherEvent::Lost { agent, run, loss });
        }
    }

    fn handle(&mut self, event: WatcherEvent) {
        self.feed(event);
        self.metrics
            .wards(self.core.wards().map(|(_, _, health, _)| health));
    }

    fn feed(&mut self, event: WatcherEvent) {
        let actions = self.core.handle(clock::now(), event);
        for action in actions {
            match action {
                WatcherAction::Verdict { .. } => self.pass_verdict(action),
                WatcherAction::Forget { agent, .. } => {
                    self.sessions.remove(&agent);
                }
            }
        }
    }

    fn pass_verdict(&self, action: WatcherAction) {
        let WatcherAction::Verdict {
            agent,
            store,
            incarnation,
            cause,
            silent_for,
            ..
        } = action
        else {
            return;
        };
        self.metrics.verdict(cause);
        tracing::info!(%agent, %store, ?cause, ?silent_for, "passing a verdict on a ward");
        let verdict = Revocation {
            agent,
            incarnation,
            verdict: match cause {
                Cause::Closed => Verdict::Closed,
                Cause::Silent => Verdict::Silent,
            },
            silent_ms: u64::try_from(silent_for.as_millis()).unwrap_or(u64::MAX),
            nonce: Nonce(rand::random()),
        };
        let (bench, answers) = (self.bench.clone(), self.answers.clone());
        tokio::spawn(async move {
            let answer = bench.pass(&store, verdict).await;
            let event = WatcherEvent::Answered {
                agent,
                store,
                incarnation,
                answer,
            };
            // The loop is gone only when the agent stops.
            let _ = answers.send(event).await;
        });
    }
}

impl Bench {
    async fn pass(&self, url: &StoreUrl, verdict: Revocation) -> Answer {
        let Some(store) = (self.find)(url) else {
            return Answer::Settled;
        };
        let agent = verdict.agent;
        let passed = tokio::time::timeout(VERDICT_WITHIN, store.revoke(&self.who, verdict)).await;
        match passed {
            Err(_) => Answer::Failed,
            Ok(Ok(reply)) if reply.revoked => Answer::Settled,
            Ok(Ok(_)) => Answer::Counted,
            Ok(Err(StoreError::HeardFrom { heard_ms_ago })) => {
                // The store cuts to whole milliseconds.
                Answer::Heard(Duration::from_millis(heard_ms_ago.saturating_sub(1)))
            }
            Ok(Err(error)) if error.is_retryable() => Answer::Failed,
            Ok(Err(error)) => {
                tracing::debug!(%agent, %url, %error, "a verdict was not accepted");
                Answer::Settled
            }
        }
    }
}

async fn pause(wake: Option<Duration>) {
    match wake {
        Some(wake) => tokio::time::sleep(wake).await,
        None => std::future::pending().await,
    }
}

/// Wards by what the guardian makes of them: alive, suspect, dead.
pub(super) fn counted(health: impl Iterator<Item = Health>) -> [i64; 3] {
    let mut counts = [0; 3];
    for health in health {
        counts[match health {
            Health::Alive => 0,
            Health::Suspect => 1,
            Health::Dead => 2,
        }] += 1;
    }
    counts
}

//! Requests to the store: from whom, through which server, and what became of them.

use std::rc::Rc;
use std::time::Duration;

use mutual_demand::{StoreError, StoreResult, deeds};
use mutual_model::agent::RunKey;
use mutual_model::history::Deed;
use mutual_model::identity::NodeId;
use mutual_model::ids::{Incarnation, JobId, Nonce};
use mutual_model::time::Timestamp;
use rand::RngExt as _;

use super::database::Taken;
use super::wire::{CallId, Message, Place, Reply, Request};
use super::{Timer, World, unknown};

/// How long a caller waits, as half a lease does by default.
const ANSWER_WITHIN: Duration = Duration::from_millis(800);
/// How long a server waits for the database.
const COMMIT_WITHIN: Duration = Duration::from_millis(700);

/// Why a call is made.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Claim(Nonce, Incarnation),
    Renew(Incarnation),
    Checkpoint(RunKey),
    Release(RunKey),
    Finish(RunKey, u32),
    Leftover(RunKey),
    Supersede(u32),
    Submit(usize, u32),
    /// A user's call whose answer nobody needs.
    Tell,
    Verdict(usize, Incarnation, u32),
    Slander,
    /// A guardian's vote against an incarnation.
    Vote(NodeId, Incarnation),
    Sweep,
    Queued,
    /// A server's call on behalf of another.
    Forward(Place, CallId),
}

/// A call that is not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) from: Place,
    run: u32,
    called: Timestamp,
    request: Rc<Request>,
    purpose: Purpose,
}

impl World {
    /// Makes a call; its answer comes to `on_answer` of the caller.
    pub(super) fn ask(&mut self, from: Place, request: Request, purpose: Purpose) {
        let to = match from {
            Place::Agent(machine) => Place::Server(self.machines[machine].server),
            Place::Users => Place::Server(self.users.server),
            Place::Server(_) | Place::Database => Place::Database,
        };
        self.call(from, from, to, Rc::new(request), purpose);
    }

    fn call(&mut self, from: Place, who: Place, to: Place, request: Rc<Request>, purpose: Purpose) {
        let Some(run) = self.run_of(from) else { return };
        self.counter += 1;
        let call = self.counter;
        let within = match to {
            Place::Database => COMMIT_WITHIN,
            _ => ANSWER_WITHIN,
        };
        let entry = Call {
            from,
            run,
            called: self.now,
            request: Rc::clone(&request),
            purpose,
        };
        self.calls.insert(call, entry);
        self.timer(from, within, Timer::Unanswered(call));
        self.send(from, to, Message::Ask { call, who, request });
    }

    /// A server passes a request on.
    pub(super) fn forward(
        &mut self,
        server: usize,
        from: Place,
        call: CallId,
        request: Rc<Request>,
    ) {
        let purpose = Purpose::Forward(from, call);
        self.call(
            Place::Server(server),
            from,
            Place::Database,
            request,
            purpose,
        );
    }

    pub(super) fn give_up_call(&mut self, call: CallId) {
        self.answered(call, Err(unknown("no answer in time")));
    }

    /// An answer came, or waiting for it ended.
    pub(super) fn answered(&mut self, call: CallId, answer: StoreResult<Reply>) {
        let Some(entry) = self.calls.remove(&call) else {
            return;
        };
        if self.run_of(entry.from) != Some(entry.run) {
            return;
        }
        if let Purpose::Forward(to, call) = entry.purpose {
            if let (Place::Server(server), Ok(reply)) = (entry.from, &answer) {
                self.notice_queued(server, reply);
            }
            return self.send(entry.from, to, Message::Answer { call, answer });
        }
        self.note_call(entry.from, entry.called, &entry.request, &answer);
        if answer.as_ref().is_err_and(StoreError::is_retryable) {
            self.try_another_server(entry.from);
        }
        match entry.from {
            Place::Agent(machine) => self.agent_answered(machine, entry.purpose, answer),
            Place::Server(server) => self.server_answered(server, entry.purpose, answer),
            Place::Users => self.users_answered(entry.purpose, answer),
            Place::Database => {}
        }
    }

    fn try_another_server(&mut self, from: Place) {
        let server = self.random.random_range(0..self.servers.len());
        match from {
            Place::Agent(machine) => self.machines[machine].server = server,
            Place::Users => self.users.server = server,
            Place::Server(_) | Place::Database => {}
        }
    }

    /// Calls of a process that is gone are not observed to end; their outcome is unknown.
    pub(super) fn abandon_calls(&mut self, from: Place) {
        let gone = self.calls.extract_if(.., |_, call| call.from == from);
        for (_, call) in gone.collect::<Vec<_>>() {
            match call.purpose {
                // The kernel closes the caller's connection.
                Purpose::Forward(to, of) => {
                    let answer = Err(unknown("connection reset"));
                    self.send(from, to, Message::Answer { call: of, answer });
                }
                _ => self.note_call(from, call.called, &call.request, &Err(unknown("died"))),
            }
        }
    }

    pub(super) fn note_call(
        &mut self,
        from: Place,
        called: Timestamp,
        request: &Request,
        answer: &StoreResult<Reply>,
    ) {
        let agent = match from {
            Place::Agent(machine) => self.machines[machine].key.id(),
            _ => NodeId([0; 32]),
        };
        if let Some(deed) = self.deed(agent, request, answer) {
            self.log.note(called, self.now, deed);
        }
    }

    fn deed(&self, agent: NodeId, request: &Request, answer: &StoreResult<Reply>) -> Option<Deed> {
        Some(match request {
            Request::Submit(task) => deeds::submit(task, &picked(answer, submitted)).ok()?,
            Request::Cancel(job) => deeds::cancel(*job, &picked(answer, viewed)),
            Request::Claim(request) => deeds::claim(agent, request, &picked(answer, claimed)),
            Request::Renew(request) => deeds::renew(agent, request, &picked(answer, renewed)),
            Request::Checkpoint(report) => deeds::checkpoint(report, &picked(answer, done)),
            Request::Release(request) => deeds::release(request, &picked(answer, done)),
            Request::Finish(request) => {
                let needed = self.users.copies_needed(request.claim.job);
                deeds::finish(agent, request, needed, &picked(answer, finished)).ok()?
            }
            Request::Revoke(verdict) => deeds::revoke(verdict, &picked(answer, revoked)),
            Request::Requeue(_) => deeds::requeue(&picked(answer, swept)),
            Request::Look(job) => match answer {
                Ok(Reply::View(view)) => deeds::seen(&[super::users::namespace()], view),
                Err(StoreError::NotFound) => Deed::Missing { job: *job },
                _ => return None,
            },
            Request::WantCheckpoint(_) | Request::Queued => return None,
        })
    }

    /// A request reaches the database.
    pub(super) fn reach_database(&mut self, from: Place, message: Message) {
        let Message::Ask { call, who, request } = message else {
            return;
        };
        if !self.database.is_up {
            let answer = Err(StoreError::Unavailable("nobody listens".to_owned()));
            return self.send(Place::Database, from, Message::Answer { call, answer });
        }
        let taken = Taken {
            server: from,
            who,
            request,
        };
        self.database.taken.insert(call, taken);
        // On a slow disk what came first need not be done first.
        let wait = self.up_to(self.database.disk / 2);
        self.timer(Place::Database, wait, Timer::Apply(call));
    }

    pub(super) fn ring_database(&mut self, timer: Timer) {
        match timer {
            Timer::Apply(call) => {
                let Some(taken) = self.database.taken.get(&call).cloned() else {
                    return;
                };
                let who = self.principal(taken.who);
                let answer = self.database.apply(self.now, &who, &taken.request);
                let commit = self.up_to(self.database.disk / 2);
                self.timer(
                    Place::Database,
                    commit,
                    Timer::Respond(call, Box::new(answer)),
                );
            }
            Timer::Respond(call, answer) => {
                if let Some(taken) = self.database.taken.remove(&call) {
                    let answer = *answer;
                    self.send(
                        Place::Database,
                        taken.server,
                        Message::Answer { call, answer },
                    );
                }
            }
            _ => {}
        }
    }

    /// The database's process dies; whoever waited for it sees the connection close.
    pub(super) fn kill_database(&mut self) {
        self.database.is_up = false;
        self.database.run += 1;
        for (call, taken) in std::mem::take(&mut self.database.taken) {
            let answer = Err(unknown("connection reset"));
            self.send(
                Place::Database,
                taken.server,
                Message::Answer { call, answer },
            );
        }
    }
}

fn picked<T>(
    answer: &StoreResult<Reply>,
    pick: impl FnOnce(&Reply) -> Option<T>,
) -> StoreResult<T> {
    let reply = answer.as_ref().map_err(Clone::clone)?;
    pick(reply).ok_or_else(|| StoreError::Internal("an answer to something else".to_owned()))
}

/// Declares a function that picks one kind of reply.
macro_rules! picks {
    ($($name:ident: $variant:ident => $kind:ty),*) => {
        $(pub(super) fn $name(reply: &Reply) -> Option<$kind> {
            match reply {
                Reply::$variant(value) => Some(value.clone().into()),
                _ => None,
            }
        })*
    };
}

picks! {
    submitted: Submitted => JobId,
    claimed: Claimed => mutual_demand::ClaimReply,
    renewed: Renewed => mutual_demand::RenewReply,
    finished: Finished => mutual_demand::FinishReply,
    revoked: Revoked => mutual_demand::RevocationReply,
    swept: Swept => mutual_demand::RequeueReport
}

fn viewed(reply: &Reply) -> Option<mutual_demand::JobView> {
    match reply {
        Reply::View(view) => Some((**view).clone()),
        _ => None,
    }
}

const fn done(reply: &Reply) -> Option<()> {
    match reply {
        Reply::Done => Some(()),
        _ => None,
    }
}

impl World {
    /// The reply of the kind that was asked for.
    pub(super) fn expect<T>(
        answer: StoreResult<Reply>,
        pick: fn(&Reply) -> Option<T>,
    ) -> StoreResult<T> {
        picked(&answer, pick)
    }
}

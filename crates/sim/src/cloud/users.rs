//! Users: they submit, look, cancel and ask for checkpoints, and repeat until they are answered.

use std::collections::BTreeMap;
use std::time::Duration;

use mutual_demand::{EncMeta, Manifest, StoreResult, Submission};
use mutual_model::ids::{ContentId, JobId, Namespace};
use mutual_model::receipt::StorageReceipt;
use mutual_model::time::UnixMillis;
use rand::RngExt as _;

use super::attempts::users_root;
use super::calls::{Purpose, submitted};
use super::plan::{Plan, Task};
use super::wire::{Place, Reply, Request};
use super::{Timer, World, log};

/// Pause before a submission is repeated; jittered.
const AGAIN: Duration = Duration::from_millis(150);
/// How often some job is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(700);
/// The key of a peer that holds copies.
const COPIES_AT: usize = 98;

/// Something a user does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Submit(usize, u32),
    Cancel(usize),
    WantCheckpoint(usize),
    Look,
}

/// What the users know.
#[derive(Debug)]
pub(super) struct Users {
    tasks: Vec<Task>,
    /// The job of each task, once acknowledged.
    jobs: BTreeMap<usize, JobId>,
    receipts: BTreeMap<ContentId, StorageReceipt>,
    /// The server that they talk to.
    pub(super) server: usize,
}

pub(super) fn namespace() -> Namespace {
    "lab"
        .parse()
        .unwrap_or_else(|_| unreachable!("a plain name is a namespace"))
}

impl Users {
    pub(super) fn new(plan: &Plan) -> Self {
        let copied = plan.tasks.iter().filter(|task| task.spec.result_copies > 0);
        let roots =
            copied.flat_map(|task| ["r", "c"].map(|kind| users_root(kind, &task.spec.name)));
        let receipts = roots.map(|root| {
            let receipt =
                StorageReceipt::sign(&log::key(COPIES_AT), root.clone(), 0, UnixMillis(u64::MAX));
            (root, receipt)
        });
        Self {
            receipts: receipts.collect(),
            tasks: plan.tasks.clone(),
            jobs: BTreeMap::new(),
            server: 0,
        }
    }

    pub(super) fn receipts(&self, root: &ContentId) -> Vec<StorageReceipt> {
        self.receipts.get(root).cloned().into_iter().collect()
    }

    /// How long a task works and how many of its first attempts fail.
    pub(super) fn behaviour(&self, name: &str) -> (Duration, u32) {
        let task = self.tasks.iter().find(|task| task.spec.name == name);
        task.map_or((Duration::ZERO, 0), |task| (task.work, task.fails))
    }

    pub(super) fn copies_needed(&self, job: JobId) -> u32 {
        let of = self.jobs.iter().find(|(_, known)| **known == job);
        of.map_or(0, |(task, _)| self.tasks[*task].spec.result_copies)
    }

    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.jobs.values().copied().collect()
    }

    /// Whether every submission was answered.
    pub(super) fn is_settled(&self) -> bool {
        self.jobs.len() == self.tasks.len()
    }
}

impl World {
    pub(super) fn plan_users(&mut self, plan: &Plan) {
        for (number, task) in plan.tasks.iter().enumerate() {
            self.user_timer(task.at, Act::Submit(number, 0));
            if task.twice {
                self.user_timer(task.at, Act::Submit(number, 0));
            }
            if let Some(at) = task.cancelled {
                self.user_timer(at, Act::Cancel(number));
            }
            if let Some(at) = task.wanted {
                self.user_timer(at, Act::WantCheckpoint(number));
            }
        }
        self.user_timer(LOOK_EVERY, Act::Look);
    }

    fn user_timer(&mut self, after: Duration, act: Act) {
        self.timer(Place::Users, after, Timer::User(act));
    }

    pub(super) fn act(&mut self, act: Act) {
        match act {
            Act::Submit(number, tries) => self.submit(number, tries),
            Act::Cancel(number) => {
                if let Some(job) = self.users.jobs.get(&number).copied() {
                    self.ask(Place::Users, Request::Cancel(job), Purpose::Tell);
                }
            }
            Act::WantCheckpoint(number) => {
                if let Some(job) = self.users.jobs.get(&number).copied() {
                    let request = Request::WantCheckpoint(job);
                    self.ask(Place::Users, request, Purpose::Tell);
                }
            }
            Act::Look => {
                let jobs = self.users.jobs();
                if !jobs.is_empty() {
                    let job = jobs[self.random.random_range(0..jobs.len())];
                    self.ask(Place::Users, Request::Look(job), Purpose::Tell);
                }
                if !self.is_calm {
                    self.user_timer(LOOK_EVERY, Act::Look);
                }
            }
        }
    }

    fn submit(&mut self, number: usize, tries: u32) {
        let task = &self.users.tasks[number];
        let submission = Submission {
            namespace: namespace(),
            client_key: format!("key-{number}")
                .parse()
                .unwrap_or_else(|_| unreachable!("a plain name is a key")),
            spec: task.spec.clone(),
            result_key: None,
            input: None,
        };
        let purpose = Purpose::Submit(number, tries);
        self.ask(Place::Users, Request::Submit(submission), purpose);
    }

    pub(super) fn users_answered(&mut self, purpose: Purpose, answer: StoreResult<Reply>) {
        let Purpose::Submit(number, tries) = purpose else {
            return;
        };
        match Self::expect(answer, submitted) {
            Ok(job) => drop(self.users.jobs.insert(number, job)),
            // Whatever was said: the same submission again settles it.
            Err(_) => {
                let pause = AGAIN + self.up_to(AGAIN);
                self.user_timer(pause, Act::Submit(number, tries + 1));
            }
        }
    }
}

/// An object nobody needs a key for.
pub(super) fn plain(root: ContentId, bytes: u64, receipts: Vec<StorageReceipt>) -> Manifest {
    Manifest {
        root,
        bytes,
        seeders: Vec::new(),
        enc_meta: EncMeta {
            scheme: "none".to_owned(),
            sealed_key: Vec::new(),
        },
        receipts,
    }
}

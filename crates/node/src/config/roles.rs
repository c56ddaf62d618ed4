//! What each role is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mutual_model::guardian::Silence;
use mutual_model::ids::Namespace;
use mutual_model::job::FieldError;
use mutual_model::lease::LeaseTerms;
use serde::{Deserialize, Serialize};

use crate::agent::CHECKPOINT_BYTES_MAX_DEFAULT;

use super::{Period, Size, check_url, require};

/// The role `control`: REST for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// TCP address of the REST interface. Default `127.0.0.1:7610`.
    pub listen: SocketAddr,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7610)),
        }
    }
}

/// How eagerly deaths are noticed by silence; closed sessions are noticed at once in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LivenessProfile {
    /// A heartbeat each second: any network.
    #[default]
    Wide,
    /// A heartbeat each 20 ms, silence after 60 ms: one local network (DESIGN §7).
    Fast,
}

impl LivenessProfile {
    /// How often a node is to be heard, and how its silence is judged.
    pub const fn silence(self) -> Silence {
        match self {
            Self::Wide => Silence::WIDE,
            Self::Fast => Silence::FAST,
        }
    }
}

/// The role `demand`: a demand store's server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DemandConfig {
    /// TCP address of the store's HTTP interface. Default `127.0.0.1:7620`.
    pub listen: SocketAddr,
    /// TCP address of the liveness sessions. Default `127.0.0.1:7621`.
    pub liveness: SocketAddr,
    /// Base URL that others use, if it is not the listen address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The SQLite file; `demand.db` in the data directory if neither this nor `postgres` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<PathBuf>,
    /// The PostgreSQL connection string, several hosts allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<String>,
    /// Whether an asynchronous set of PostgreSQL replicas is accepted although a failover can
    /// lose acknowledged writes.
    pub accept_data_loss: bool,
    /// The key that input keys are sealed to, shared by all servers of one store. Default: the
    /// node's own key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_key_file: Option<PathBuf>,
    /// Length of a lease. Default 20 s.
    pub lease: Period,
    /// Interval of renewals, at most a third of the lease. Default 5 s.
    pub renew: Period,
    /// How eagerly agents' deaths are noticed.
    pub profile: LivenessProfile,
    /// How many guardians must agree within a lease before an agent's run is ended, 1 to 16; what the
    /// server sees itself needs nobody's consent. Default 2: one broken link is no verdict.
    pub quorum: u32,
    /// Whether the server offers queued jobs to agents and announces them. Default true. Without
    /// it control servers and users' programs do, and agents ask by themselves.
    pub offers: bool,
}

impl Default for DemandConfig {
    fn default() -> Self {
        let terms = LeaseTerms::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7620)),
            liveness: SocketAddr::from(([127, 0, 0, 1], 7621)),
            url: None,
            sqlite: None,
            postgres: None,
            accept_data_loss: false,
            store_key_file: None,
            lease: Period(terms.lease()),
            renew: Period(terms.renewal()),
            profile: LivenessProfile::default(),
            quorum: 2,
            offers: true,
        }
    }
}

impl DemandConfig {
    /// The lease terms of the store.
    pub fn terms(&self) -> LeaseTerms {
        LeaseTerms {
            lease_ms: self.lease.millis(),
            renew_ms: self.renew.millis(),
        }
    }

    pub(super) fn check(&self) -> Result<(), FieldError> {
        require(
            self.sqlite.is_none() || self.postgres.is_none(),
            "demand.postgres",
            "both sqlite and postgres are given",
            "keep one of them",
        )?;
        let day = Duration::from_secs(24 * 3600);
        require(
            self.lease.0 >= Duration::from_millis(100) && self.lease.0 <= day,
            "demand.lease",
            "out of range",
            "give 100ms to 24h",
        )?;
        require(
            self.renew.0 >= Duration::from_millis(10) && self.renew.0 <= self.lease.0 / 3,
            "demand.renew",
            "out of range: a claim must survive two lost renewals",
            "give at least 10ms and at most a third of the lease",
        )?;
        require(
            (1..=16).contains(&self.quorum),
            "demand.quorum",
            "out of range",
            "give 1 to 16 guardians",
        )?;
        match &self.url {
            Some(url) => check_url("demand.url", url),
            None => Ok(()),
        }
    }
}

/// The role `agent`: what this machine's owner offers, and to whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentConfig {
    /// TCP address of logs and offers. Default `127.0.0.1:7630`.
    pub listen: SocketAddr,
    /// TCP and UDP address of liveness sessions and heartbeats. Default `127.0.0.1:7631`.
    pub liveness: SocketAddr,
    /// Base URL that others use, if it is not the listen address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Cores offered, fractions allowed. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Memory offered. Default: three quarters of what the machine has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// GPUs offered. Default: none.
    pub gpus: u32,
    /// Scratch disk offered. Default: half of what is free below the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Size>,
    /// Tasks at once, 1 to 1,024. Default: as many as whole cores are offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u32>,
    /// Largest checkpoint saved of one task, in bytes of its files. Default 16 GiB.
    pub checkpoint_max: Size,
    /// Namespaces whose tasks may run in the class `process`, which keeps them apart from this
    /// machine only weakly: name none but your own. Default: none, the class is not offered.
    pub process_for: Vec<Namespace>,
    /// OCI runtime: `embedded`, or a program such as `runc`, `crun` or `youki`.
    pub runtime: String,
    /// Labels that tasks can ask for.
    pub labels: BTreeMap<String, String>,
    /// How often the known stores are asked for work when nobody offers any. Default 1 s.
    pub poll: Period,
    /// How often this agent is heard by its guardians, and how fast they take its silence for death.
    pub profile: LivenessProfile,
    /// Pause between heartbeats, if not the profile's; 5 ms to 10 s. The bounds of silence scale with
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Period>,
    /// How many other agents watch this one, 0 to 16. Default 3.
    pub guardians: u32,
    /// How many tasks of dead agents this one claims and prepares while it has no room to run them,
    /// 0 to 64. Default 2.
    pub ahead: u32,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7630)),
            liveness: SocketAddr::from(([127, 0, 0, 1], 7631)),
            url: None,
            cpus: None,
            memory: None,
            gpus: 0,
            scratch: None,
            tasks: None,
            checkpoint_max: Size(CHECKPOINT_BYTES_MAX_DEFAULT),
            process_for: Vec::new(),
            runtime: "embedded".to_owned(),
            labels: BTreeMap::new(),
            poll: Period(Duration::from_secs(1)),
            profile: LivenessProfile::default(),
            heartbeat: None,
            guardians: 3,
            ahead: 2,
        }
    }
}

impl AgentConfig {
    /// How often this agent is to be heard, and how its silence is judged.
    pub fn silence(&self) -> Silence {
        let profile = self.profile.silence();
        let Some(Period(interval)) = self.heartbeat else {
            return profile;
        };
        let scaled = |bound: Duration| bound.mul_f64(interval.div_duration_f64(profile.interval));
        Silence {
            interval,
            least: scaled(profile.least),
            most: scaled(profile.most),
            ..profile
        }
    }

    /// Cores offered in thousandths, if the owner gave a number.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie between 0.1 and 4,096"
    )]
    pub fn cpu_millis(&self) -> Option<u32> {
        self.cpus.map(|cpus| (cpus * 1000.0).round() as u32)
    }

    pub(super) fn check(&self) -> Result<(), FieldError> {
        require(
            self.cpus.is_none_or(|cpus| (0.1..=4096.0).contains(&cpus)),
            "agent.cpus",
            "out of range",
            "give 0.1 to 4096, or leave it out to offer every core",
        )?;
        require(
            self.memory
                .is_none_or(|Size(bytes)| ((16 << 20)..=(1 << 50)).contains(&bytes)),
            "agent.memory",
            "out of range",
            "give 16MiB to 1PiB, or leave it out",
        )?;
        require(
            self.scratch.is_none_or(|Size(bytes)| bytes <= 1 << 50),
            "agent.scratch",
            "out of range",
            "give at most 1PiB, or leave it out",
        )?;
        require(
            self.tasks.is_none_or(|tasks| (1..=1024).contains(&tasks)),
            "agent.tasks",
            "out of range",
            "give 1 to 1024, or leave it out",
        )?;
        require(
            (1..=1 << 50).contains(&self.checkpoint_max.0),
            "agent.checkpoint_max",
            "out of range",
            "give 1B to 1PiB, or leave it out",
        )?;
        require(
            self.gpus <= 1024,
            "agent.gpus",
            "out of range",
            "give 0 to 1024",
        )?;
        self.check_guarding()?;
        self.check_texts()
    }

    fn check_guarding(&self) -> Result<(), FieldError> {
        let (least, most) = (Duration::from_millis(5), Duration::from_secs(10));
        let is_fine = |period: Period| (least..=most).contains(&period.0);
        require(
            self.heartbeat.is_none_or(is_fine),
            "agent.heartbeat",
            "out of range",
            "give 5ms to 10s, or leave it out",
        )?;
        require(
            self.guardians <= 16,
            "agent.guardians",
            "out of range",
            "give 0 to 16",
        )?;
        require(
            self.ahead <= 64,
            "agent.ahead",
            "out of range",
            "give 0 to 64",
        )
    }

    fn check_texts(&self) -> Result<(), FieldError> {
        require(
            !self.runtime.is_empty() && self.runtime.len() <= 256,
            "agent.runtime",
            "empty or too long",
            "write embedded, runc, crun or youki",
        )?;
        require(
            self.poll.0 >= Duration::from_millis(10) && self.poll.0 <= Duration::from_secs(3600),
            "agent.poll",
            "out of range",
            "give 10ms to 1h",
        )?;
        require(
            self.labels.len() <= 64,
            "agent.labels",
            "too many",
            "give at most 64",
        )?;
        match &self.url {
            Some(url) => check_url("agent.url", url),
            None => Ok(()),
        }
    }
}

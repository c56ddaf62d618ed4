//! The demo's processes: started, found ready, killed, and always gone at the end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mutual_node::config::keys::{load_or_create_key, store_certificate, write_atomically};
use mutual_node::config::ready::NodeReady;
use mutual_node::config::{BootstrapPeer, LivenessProfile, NodeConfig, Period, Size};
use mutual_node::demand::Right;
use mutual_node::model::identity::{NodeId, Role};
use mutual_node::model::ids::Namespace;
use mutual_node::model::job::IsolationClass;
use mutual_node::model::resources::Resources;
use rustix::process::{Pid, Signal, kill_process};

use super::watch::Room;
use crate::commands::org::NewUser;
use crate::context::{Context, ContextFile};
use crate::failure::{Failure, Naming as _, Outcome};
use crate::organisation::{Organisation, Terms};

/// How long a process may take until it is ready.
const START: Duration = Duration::from_secs(30);
/// How long a process may take to end in order before it is killed.
const STOP: Duration = Duration::from_secs(3);
/// How often the ready file is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// Certificates and token of the demo end with it, more or less.
const VALID: Duration = Duration::from_secs(3600);
/// Lines of a process's log shown when something goes wrong.
const LOG_LINES: usize = 8;

pub(crate) const NAMESPACE: &str = "demo";
pub(crate) const AGENTS: usize = 3;
/// What each task needs.
pub(crate) const NEED: Resources = Resources {
    cpu_millis: 250,
    memory_bytes: 128 << 20,
    gpus: 0,
    scratch_bytes: 0,
};

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    dir: PathBuf,
    child: Child,
    pub(crate) ready: Option<NodeReady>,
    pub(crate) is_killed: bool,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn node(&self) -> Option<NodeId> {
        self.ready.as_ref().map(|ready| ready.node)
    }

    /// SIGKILL: no last words, no clean-up.
    pub(crate) fn kill(&mut self) -> Outcome<Instant> {
        let at = Instant::now();
        self.child.kill().map_err(Failure::internal)?;
        self.is_killed = true;
        Ok(at)
    }

    async fn wait_ready(&mut self) -> Outcome {
        let since = Instant::now();
        while since.elapsed() < START {
            if let Some(status) = self.child.try_wait().map_err(Failure::internal)? {
                return Err(Failure::internal(format!(
                    "{} ended at once: {status}",
                    self.name
                )));
            }
            if let Some(ready) = NodeReady::read(&self.dir)? {
                self.ready = Some(ready);
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Failure::internal(format!(
            "{} is not ready after {START:?}",
            self.name
        )))
    }

    fn ask_to_end(&self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        lines[from..]
            .iter()
            .map(|line| format!("\n  {}: {line}", self.name))
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All of them, with the organisation they belong to.
#[derive(Debug)]
pub(crate) struct Cloud {
    dir: PathBuf,
    program: PathBuf,
    organisation: Organisation,
    namespace: Namespace,
    slots: u32,
    pub(crate) processes: Vec<Process>,
}

impl Cloud {
    /// Makes organisation and directories for agents that take so many tasks at once; starts nothing.
    pub(crate) fn new(dir: &Path, slots: u32) -> Outcome<Self> {
        let namespace: Namespace = NAMESPACE.parse().map_err(Failure::internal)?;
        let organisation = Organisation::create(&dir.join("org"), "demo", vec![namespace.clone()])?;
        Ok(Self {
            dir: dir.to_owned(),
            program: std::env::current_exe().map_err(Failure::internal)?,
            organisation,
            namespace,
            slots,
            processes: Vec::new(),
        })
    }

    /// Starts demand, control and agents, and makes the user.
    pub(crate) async fn start(&mut self) -> Outcome {
        self.spawn(
            "demand",
            &[Role::Demand, Role::Bootstrap, Role::Seeder],
            Vec::new(),
        )?;
        self.processes[0].wait_ready().await?;
        let first = self.bootstrap();
        self.spawn("control", &[Role::Control, Role::Bootstrap], first)?;
        self.processes[1].wait_ready().await?;
        let both = self.bootstrap();
        for number in 1..=AGENTS {
            self.spawn(
                &format!("agent-{number}"),
                &[Role::Agent, Role::Seeder],
                both.clone(),
            )?;
        }
        for process in &mut self.processes[2..] {
            process.wait_ready().await?;
        }
        self.make_user()
    }

    /// Where everything of it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// How much the agents can hold at once.
    pub(super) fn room(&self) -> Room {
        Room {
            agents: AGENTS,
            slots: self.slots as usize,
        }
    }

    fn bootstrap(&self) -> Vec<BootstrapPeer> {
        let ready = self
            .processes
            .iter()
            .filter_map(|process| process.ready.as_ref());
        ready.map(NodeReady::bootstrap_peer).collect()
    }

    fn spawn(&mut self, name: &str, roles: &[Role], bootstrap: Vec<BootstrapPeer>) -> Outcome {
        let dir = self.dir.join(name);
        let config = self.config(name, &dir, roles, bootstrap)?;
        let file = self.dir.join(format!("{name}.toml"));
        write_atomically(&file, config.to_toml()?.as_bytes(), 0o644)?;
        std::fs::create_dir_all(&dir).naming(dir.display())?;
        let log = std::fs::File::create(dir.join("log")).naming(dir.display())?;
        let child = command(&self.program, &file)
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::internal(format!("{name} cannot be started: {error}")))?;
        self.processes.push(Process {
            name: name.to_owned(),
            dir,
            child,
            ready: None,
            is_killed: false,
        });
        Ok(())
    }

    fn config(
        &self,
        name: &str,
        dir: &Path,
        roles: &[Role],
        bootstrap: Vec<BootstrapPeer>,
    ) -> Outcome<NodeConfig> {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = NodeConfig::new(name, dir);
        config.roles = roles.iter().copied().collect();
        config.trusted_organisations = vec![self.organisation.file.key];
        config.known_stores = self.demand_urls();
        config.network.discovery = any_port;
        config.network.p2p = any_port;
        config.network.bootstrap = bootstrap;
        config.control.listen = any_port;
        config.demand.listen = any_port;
        config.demand.liveness = any_port;
        config.demand.profile = LivenessProfile::Fast;
        config.agent.listen = any_port;
        config.agent.liveness = any_port;
        config.agent.profile = LivenessProfile::Fast;
        config.agent.cpus = Some(f64::from(self.slots * NEED.cpu_millis) / 1000.0);
        config.agent.memory = Some(Size(u64::from(self.slots) * NEED.memory_bytes));
        config.agent.scratch = Some(Size(1 << 30));
        config.agent.tasks = Some(self.slots);
        config.agent.process_for = vec![self.namespace.clone()];
        self.certify(&config)?;
        Ok(config)
    }

    fn certify(&self, config: &NodeConfig) -> Outcome {
        let key = load_or_create_key(&config.key_path())?;
        let terms = Terms {
            name: config.name.clone(),
            namespaces: vec![self.namespace.clone()],
            roles: config.roles.iter().copied().collect(),
            valid: VALID,
        };
        let certificate = self
            .organisation
            .certify(key.public(), key.sealing_public(), terms)?;
        Ok(store_certificate(&config.certificate_path(), &certificate)?)
    }

    fn demand_urls(&self) -> Vec<String> {
        let ready = self
            .processes
            .iter()
            .filter_map(|process| process.ready.as_ref());
        ready.filter_map(|ready| ready.demand_url.clone()).collect()
    }

    fn make_user(&self) -> Outcome {
        let user = NewUser {
            subject: "visitor".to_owned(),
            namespaces: vec![self.namespace.clone()],
            rights: vec![Right::Read, Right::Submit],
            valid: Period(VALID),
        };
        let file = user.create(&self.organisation, &self.dir.join("user"))?;
        let ready = || {
            self.processes
                .iter()
                .filter_map(|process| process.ready.as_ref())
        };
        let file = ContextFile {
            control: ready()
                .filter_map(|ready| ready.control_url.clone())
                .collect(),
            demand: self.demand_urls(),
            bootstrap: self.bootstrap().into_iter().take(2).collect(),
            ..file
        };
        Context::store(&self.context_path(), &file)
    }

    pub(crate) fn context_path(&self) -> PathBuf {
        self.dir.join("user/context.toml")
    }

    pub(crate) fn agents(&self) -> &[Process] {
        self.processes.get(2..).unwrap_or_default()
    }

    pub(crate) fn process(&mut self, name: &str) -> Outcome<&mut Process> {
        let found = self
            .processes
            .iter_mut()
            .find(|process| process.name == name);
        found.ok_or_else(|| Failure::internal(format!("no process {name}")))
    }

    /// What people call a node.
    pub(crate) fn name_of(&self, node: &NodeId) -> String {
        let found = self
            .processes
            .iter()
            .find(|process| process.node() == Some(*node));
        found.map_or_else(
            || crate::document::short(node),
            |process| process.name.clone(),
        )
    }

    /// What people call a peer of the block exchange.
    pub(crate) fn name_of_peer(&self, peer: &str) -> String {
        let has_it = |process: &&Process| {
            let ready = process.ready.as_ref();
            ready.is_some_and(|ready| ready.p2p.iter().any(|address| address.contains(peer)))
        };
        let found = self.processes.iter().find(has_it);
        found.map_or_else(|| peer.to_owned(), |process| process.name.clone())
    }

    /// The strongest class that every agent proved.
    pub(crate) fn strongest(&self) -> Outcome<IsolationClass> {
        let offers = |class: &IsolationClass| {
            self.agents().iter().all(|agent| {
                agent
                    .ready
                    .as_ref()
                    .is_some_and(|ready| ready.classes.contains(class))
            })
        };
        let strongest = IsolationClass::ALL.into_iter().rev().find(offers);
        strongest.ok_or_else(|| Failure::configuration("no isolation class works on this machine"))
    }

    /// Adds the last words of processes that ended without being killed.
    pub(crate) fn explain(&mut self, mut failure: Failure) -> Failure {
        for process in &mut self.processes {
            let has_ended = process
                .child
                .try_wait()
                .is_ok_and(|status| status.is_some());
            if !process.is_killed && (has_ended || process.ready.is_none()) {
                failure.message.push_str(&process.log_tail());
            }
        }
        failure
    }

    /// Ends everything, in order if possible; what a killed agent left behind is swept too.
    pub(crate) async fn stop(&mut self) {
        for process in &self.processes {
            process.ask_to_end();
        }
        let since = Instant::now();
        let all_ended = |processes: &mut [Process]| {
            processes
                .iter_mut()
                .all(|process| !matches!(process.child.try_wait(), Ok(None)))
        };
        while since.elapsed() < STOP && !all_ended(&mut self.processes) {
            tokio::time::sleep(LOOK).await;
        }
        self.processes.clear();
    }
}

/// The process ends when our end of its standard input closes, whatever becomes of us; a group of
/// its own keeps a terminal's Ctrl-C from it.
fn command(program: &Path, file: &Path) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(program);
    command
        .args(["node", "--until-stdin-closes", "-v", "--config"])
        .arg(file)
        .env_remove("MUTUAL_CONTROL")
        .env_remove("MUTUAL_CONTEXT")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0);
    command
}

//! A cloud of real processes on this machine, with an organisation of its own: for the demo, for
//! measurements and for experiments.
//!
//! Everything of it lies in one directory, every port is a free one, and every process ends with
//! its owner, however that ends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutual_node::config::keys::{load_or_create_key, store_certificate};
use mutual_node::config::ready::NodeReady;
use mutual_node::config::{BootstrapPeer, LivenessProfile, NodeConfig, Period, Size};
use mutual_node::demand::Right;
use mutual_node::model::identity::{NodeId, Role};
use mutual_node::model::ids::Namespace;
use mutual_node::model::job::IsolationClass;
use mutual_node::model::resources::Resources;
use rustix::process::Signal;

use crate::commands::org::NewUser;
use crate::context::{Context, ContextFile};
use crate::failure::{Failure, Outcome};
use crate::organisation::{Organisation, Terms};

pub(crate) mod postgres;
pub(crate) mod process;

pub(crate) use process::{Member, Process};

/// How long a process may take to end in order before it is killed.
const STOP: Duration = Duration::from_secs(3);
/// How often the ready files are looked for.
const LOOK: Duration = Duration::from_millis(10);
/// Processes that start at the same time: enough to keep a few cores busy.
const STARTING_MAX: usize = 8;
/// All heartbeats of a cloud together leave this long between two agents' turns.
const HEARTBEAT_SHARE: Duration = Duration::from_millis(1);
/// Certificates and token end with it, more or less.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// What a cloud is made of: a demand server, a control server, and these agents.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Of the organisation and of its one namespace.
    pub(crate) name: &'static str,
    pub(crate) agents: usize,
    /// This many agents are a process each.
    pub(crate) alone: usize,
    /// The others share processes, this many in each.
    pub(crate) together: usize,
    /// Tasks at once on each agent.
    pub(crate) slots: u32,
    /// What each task needs.
    pub(crate) need: Resources,
    pub(crate) profile: LivenessProfile,
    /// Whether another process does nothing but keep blocks.
    pub(crate) seeder: bool,
    /// The demand store's PostgreSQL, instead of a file of its own.
    pub(crate) postgres: Option<String>,
    /// Whether the first agents live elsewhere.
    pub(crate) beyond: Option<Beyond>,
}

/// Agents in a network namespace of their own.
#[derive(Debug, Clone)]
pub(crate) struct Beyond {
    pub(crate) agents: usize,
    /// The address at which everybody else is.
    pub(crate) near: IpAddr,
    /// Theirs.
    pub(crate) far: IpAddr,
    /// What `nsenter` enters.
    pub(crate) namespace: PathBuf,
}

impl Plan {
    /// Agents that are a process each. Deaths are seen in milliseconds in any profile; one machine under
    /// load is no place to judge silence by milliseconds.
    pub(crate) const fn new(
        name: &'static str,
        agents: usize,
        slots: u32,
        need: Resources,
    ) -> Self {
        Self {
            name,
            agents,
            alone: agents,
            together: 1,
            slots,
            need,
            profile: LivenessProfile::Wide,
            seeder: false,
            postgres: None,
            beyond: None,
        }
    }

    /// Pause between heartbeats, if it is not the profile's: the more agents share this machine, the
    /// more rarely each beats, so that most of its time is left for their tasks.
    fn heartbeat(&self) -> Option<Period> {
        let shared = HEARTBEAT_SHARE * u32::try_from(self.agents).unwrap_or(u32::MAX);
        (shared > self.profile.silence().interval).then_some(Period(shared))
    }

    /// Numbers of the agents in each process, from 1.
    fn groups(&self) -> Vec<Vec<usize>> {
        let alone = self.alone.min(self.agents);
        let numbers: Vec<_> = (1..=self.agents).collect();
        let (single, shared) = numbers.split_at(alone);
        let groups = single.iter().map(|number| vec![*number]);
        groups
            .chain(shared.chunks(self.together.max(1)).map(<[_]>::to_vec))
            .collect()
    }
}

/// All processes, with the organisation they belong to.
#[derive(Debug)]
pub(crate) struct Cloud {
    dir: PathBuf,
    program: PathBuf,
    organisation: Organisation,
    namespace: Namespace,
    plan: Plan,
    processes: Vec<Process>,
    /// Those before are servers.
    first_agent: usize,
}

impl Cloud {
    /// Makes organisation and directories; starts nothing.
    pub(crate) fn new(dir: &Path, plan: Plan) -> Outcome<Self> {
        let namespace: Namespace = plan.name.parse().map_err(Failure::internal)?;
        let organisation =
            Organisation::create(&dir.join("org"), plan.name, vec![namespace.clone()])?;
        Ok(Self {
            dir: dir.to_owned(),
            program: std::env::current_exe().map_err(Failure::internal)?,
            organisation,
            namespace,
            plan,
            processes: Vec::new(),
            first_agent: 0,
        })
    }

    /// Starts demand, control and agents, and makes the user.
    pub(crate) async fn start(&mut self) -> Outcome {
        self.serve(
            "demand",
            &[Role::Demand, Role::Bootstrap, Role::Seeder],
            Vec::new(),
        )
        .await?;
        let first = self.bootstrap();
        self.serve("control", &[Role::Control, Role::Bootstrap], first)
            .await?;
        let both = self.bootstrap();
        if self.plan.seeder {
            self.serve("seeder", &[Role::Seeder], both.clone()).await?;
        }
        self.first_agent = self.processes.len();
        self.start_agents(&both).await?;
        self.make_user()
    }

    async fn serve(
        &mut self,
        name: &str,
        roles: &[Role],
        bootstrap: Vec<BootstrapPeer>,
    ) -> Outcome {
        let member = self.member(name, roles, bootstrap, self.near())?;
        self.spawn(name.to_owned(), vec![member], None)?;
        self.all_ready(self.processes.len() - 1).await
    }

    async fn start_agents(&mut self, bootstrap: &[BootstrapPeer]) -> Outcome {
        for group in self.plan.groups() {
            let far = self
                .plan
                .beyond
                .clone()
                .filter(|beyond| group[0] <= beyond.agents);
            let at = far
                .as_ref()
                .map_or_else(|| self.near(), |beyond| beyond.far);
            let member = |number: &usize| {
                let name = format!("agent-{number}");
                self.member(&name, &[Role::Agent, Role::Seeder], bootstrap.to_vec(), at)
            };
            let members = group.iter().map(member).collect::<Outcome<Vec<_>>>()?;
            let name = members[0].config.name.clone();
            self.fewer_starting_than(STARTING_MAX).await?;
            let namespace = far.map(|beyond| beyond.namespace);
            self.spawn(name, members, namespace)?;
        }
        self.all_ready(self.first_agent).await
    }

    async fn fewer_starting_than(&mut self, most: usize) -> Outcome {
        loop {
            let mut starting = 0;
            for process in &mut self.processes {
                starting += usize::from(!process.is_ready() && !process.look()?);
            }
            if starting < most {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for all processes from one on.
    async fn all_ready(&mut self, from: usize) -> Outcome {
        for process in self.processes.iter_mut().skip(from) {
            while !process.look()? {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    fn spawn(&mut self, name: String, members: Vec<Member>, namespace: Option<PathBuf>) -> Outcome {
        let process = Process::start(&self.program, name, members, namespace)?;
        self.processes.push(process);
        Ok(())
    }

    /// Starts a killed process again, at the addresses it had, and waits until it is ready.
    pub(crate) async fn start_again(&mut self, name: &str) -> Outcome {
        let program = self.program.clone();
        let process = self.process(name)?;
        process.start_again(&program)?;
        while !process.look()? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Where everybody is who does not live elsewhere.
    fn near(&self) -> IpAddr {
        let beyond = self.plan.beyond.as_ref();
        beyond.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |beyond| beyond.near)
    }

    /// Where everything of it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) const fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What every ready node opened.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeReady> {
        let members = self.processes.iter().flat_map(|process| &process.members);
        members.filter_map(|member| member.ready.as_ref())
    }

    fn bootstrap(&self) -> Vec<BootstrapPeer> {
        self.nodes()
            .map(NodeReady::bootstrap_peer)
            .take(2)
            .collect()
    }

    fn member(
        &self,
        name: &str,
        roles: &[Role],
        bootstrap: Vec<BootstrapPeer>,
        address: IpAddr,
    ) -> Outcome<Member> {
        let any_port = SocketAddr::new(address, 0);
        let mut config = NodeConfig::new(name, self.dir.join(name));
        config.roles = roles.iter().copied().collect();
        config.trusted_organisations = vec![self.organisation.file.key];
        config.known_stores = self.demand_urls();
        config.network.discovery = any_port;
        config.network.p2p = any_port;
        config.network.bootstrap = bootstrap;
        config.control.listen = any_port;
        config.demand.listen = any_port;
        config.demand.liveness = any_port;
        config.demand.profile = self.plan.profile;
        config.demand.postgres = self.plan.postgres.clone();
        config.agent.listen = any_port;
        config.agent.liveness = any_port;
        config.agent.profile = self.plan.profile;
        config.agent.heartbeat = self.plan.heartbeat();
        let (slots, need) = (self.plan.slots, &self.plan.need);
        config.agent.cpus = Some(f64::from(slots * need.cpu_millis) / 1000.0);
        config.agent.memory = Some(Size(u64::from(slots) * need.memory_bytes));
        config.agent.scratch = Some(Size(1 << 30));
        config.agent.tasks = Some(slots);
        config.agent.process_for = vec![self.namespace.clone()];
        self.certify(&config)?;
        Ok(Member::new(config))
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

    pub(crate) fn demand_urls(&self) -> Vec<String> {
        let urls = self.nodes().filter_map(|ready| ready.demand_url.clone());
        urls.collect()
    }

    fn make_user(&self) -> Outcome {
        let user = NewUser {
            subject: "visitor".to_owned(),
            namespaces: vec![self.namespace.clone()],
            rights: vec![Right::Read, Right::Submit],
            valid: Period(VALID),
        };
        let file = user.create(&self.organisation, &self.dir.join("user"))?;
        let control = self.nodes().filter_map(|ready| ready.control_url.clone());
        let file = ContextFile {
            control: control.collect(),
            demand: self.demand_urls(),
            bootstrap: self.bootstrap(),
            ..file
        };
        Context::store(&self.context_path(), &file)
    }

    pub(crate) fn context_path(&self) -> PathBuf {
        self.dir.join("user/context.toml")
    }

    /// Processes that are agents.
    pub(crate) fn agents(&self) -> &[Process] {
        self.processes.get(self.first_agent..).unwrap_or_default()
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
        let found = self.nodes().find(|ready| ready.node == *node);
        found.map_or_else(|| crate::document::short(node), |ready| ready.name.clone())
    }

    /// What people call a peer of the block exchange.
    pub(crate) fn name_of_peer(&self, peer: &str) -> String {
        let has_it = |ready: &&NodeReady| ready.p2p.iter().any(|address| address.contains(peer));
        let found = self.nodes().find(has_it);
        found.map_or_else(|| peer.to_owned(), |ready| ready.name.clone())
    }

    /// The strongest class that every agent proved.
    pub(crate) fn strongest(&self) -> Outcome<IsolationClass> {
        let offers = |class: &IsolationClass| {
            let mut agents = self
                .nodes()
                .filter(|node| node.roles.contains(&Role::Agent));
            agents.all(|agent| agent.classes.contains(class))
        };
        let strongest = IsolationClass::ALL.into_iter().rev().find(offers);
        strongest.ok_or_else(|| Failure::configuration("no isolation class works on this machine"))
    }

    /// Adds the last words of processes that ended without being killed.
    pub(crate) fn explain(&mut self, mut failure: Failure) -> Failure {
        let complaints = self.processes.iter_mut().filter_map(Process::complaint);
        failure.message.extend(complaints);
        failure
    }

    /// Ends everything, in order if possible; what a killed agent left behind is swept too.
    pub(crate) async fn stop(&mut self) {
        for process in &self.processes {
            // One that has stopped hears the rest only when it goes on.
            for signal in [Signal::TERM, Signal::CONT] {
                let _ = process.signal(signal);
            }
        }
        let since = Instant::now();
        while since.elapsed() < STOP && !self.processes.iter_mut().all(Process::has_ended) {
            tokio::time::sleep(LOOK).await;
        }
        self.processes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_agents_are_alone_and_the_others_share_processes() {
        let need = Resources {
            cpu_millis: 100,
            memory_bytes: 1 << 20,
            gpus: 0,
            scratch_bytes: 0,
        };
        let plan = Plan {
            alone: 2,
            together: 3,
            ..Plan::new("test", 7, 1, need)
        };
        let expected: [&[usize]; 4] = [&[1], &[2], &[3, 4, 5], &[6, 7]];
        assert_eq!(plan.groups(), expected);
        assert_eq!(Plan::new("test", 3, 1, need).groups().len(), 3);
    }
}

//! One process of a cloud: started, found ready, killed, started again, and gone with its owner.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mutual_node::config::NodeConfig;
use mutual_node::config::keys::write_atomically;
use mutual_node::config::ready::NodeReady;
use mutual_node::model::identity::Role;
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Failure, Naming as _, Outcome};

/// How long a process may take until all its nodes are ready.
const START: Duration = Duration::from_secs(60);
/// Lines of a process's log shown when something goes wrong.
const LOG_LINES: usize = 8;

/// One node, in a directory of its own.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) config: NodeConfig,
    /// What it opened, once it is ready.
    pub(crate) ready: Option<NodeReady>,
}

impl Member {
    pub(super) const fn new(config: NodeConfig) -> Self {
        Self {
            config,
            ready: None,
        }
    }

    fn file(&self) -> PathBuf {
        self.config.data_dir.with_extension("toml")
    }

    fn write(&self) -> Outcome {
        let text = self.config.to_toml()?;
        Ok(write_atomically(&self.file(), text.as_bytes(), 0o644)?)
    }

    /// Whether it is ready, as its file says.
    fn look(&mut self) -> Outcome<bool> {
        if self.ready.is_none() {
            self.ready = NodeReady::read(&self.config.data_dir)?;
        }
        Ok(self.ready.is_some())
    }

    /// From now on it opens what it opened before, so that others find it again.
    fn keep_ports(&mut self) {
        let Some(ready) = self.ready.take() else {
            return;
        };
        let config = &mut self.config;
        config.network.discovery.set_port(ready.discovery.port());
        if let Some(port) = ready.p2p.iter().find_map(|address| udp_port(address)) {
            config.network.p2p.set_port(port);
        }
        keep_port(&mut config.control.listen, ready.control_url.as_deref());
        keep_port(&mut config.demand.listen, ready.demand_url.as_deref());
        keep_port(&mut config.agent.listen, ready.agent_url.as_deref());
        // The demand store's place stands first.
        let mut sessions = ready.liveness.iter();
        for (role, place) in [
            (Role::Demand, &mut config.demand.liveness),
            (Role::Agent, &mut config.agent.liveness),
        ] {
            if let (true, Some(held)) = (config.roles.contains(&role), sessions.next()) {
                place.set_port(held.port());
            }
        }
    }
}

fn keep_port(address: &mut SocketAddr, url: Option<&str>) {
    let port = url.and_then(|url| url.rsplit_once(':')?.1.parse().ok());
    if let Some(port) = port {
        address.set_port(port);
    }
}

/// The port in a multiaddress such as `/ip4/127.0.0.1/udp/4711/quic-v1/p2p/…`.
fn udp_port(address: &str) -> Option<u16> {
    let (_, rest) = address.split_once("/udp/")?;
    rest.split('/').next()?.parse().ok()
}

/// One process with one node or several.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) members: Vec<Member>,
    log: PathBuf,
    /// The network namespace it is in, if not this one.
    namespace: Option<PathBuf>,
    child: Child,
    since: Instant,
    is_killed: bool,
}

impl Process {
    /// Starts `program` with these nodes.
    pub(super) fn start(
        program: &Path,
        name: String,
        members: Vec<Member>,
        namespace: Option<PathBuf>,
    ) -> Outcome<Self> {
        let first = members
            .first()
            .ok_or_else(|| Failure::internal("a process without a node"))?;
        let log = first.config.data_dir.with_extension("log");
        for member in &members {
            let dir = &member.config.data_dir;
            std::fs::create_dir_all(dir).naming(dir.display())?;
            NodeReady::remove(dir);
            member.write()?;
        }
        let child = launch(program, &members, &log, namespace.as_deref())
            .map_err(|error| Failure::internal(format!("{name} cannot be started: {error}")))?;
        Ok(Self {
            name,
            members,
            log,
            namespace,
            child,
            since: Instant::now(),
            is_killed: false,
        })
    }

    /// Starts a killed one again, at the same addresses.
    pub(super) fn start_again(&mut self, program: &Path) -> Outcome {
        self.child.wait().map_err(Failure::internal)?;
        let mut members = std::mem::take(&mut self.members);
        members.iter_mut().for_each(Member::keep_ports);
        let namespace = self.namespace.take();
        *self = Self::start(program, self.name.clone(), members, namespace)?;
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What its first node opened.
    pub(crate) fn ready(&self) -> Option<&NodeReady> {
        self.members.first()?.ready.as_ref()
    }

    /// SIGKILL: no last words, no clean-up.
    pub(crate) fn kill(&mut self) -> Outcome<Instant> {
        let at = Instant::now();
        self.is_killed = true;
        self.child.kill().map_err(Failure::internal)?;
        Ok(at)
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, signal: Signal) -> Outcome {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let pid = pid.ok_or_else(|| Failure::internal("a process without an id"))?;
        kill_process(pid, signal)
            .map_err(|error| Failure::internal(format!("{}: {error}", self.name)))
    }

    /// Whether all its nodes are ready.
    ///
    /// # Errors
    /// If it has ended, or takes too long.
    pub(super) fn look(&mut self) -> Outcome<bool> {
        if self.has_ended() {
            return Err(Failure::internal(format!("{} ended at once", self.name)));
        }
        for member in &mut self.members {
            if !member.look()? {
                return self.in_time().map(|()| false);
            }
        }
        Ok(true)
    }

    fn in_time(&self) -> Outcome {
        match self.since.elapsed() < START {
            true => Ok(()),
            false => Err(Failure::internal(format!(
                "{} is not ready after {START:?}",
                self.name
            ))),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.members.iter().all(|member| member.ready.is_some())
    }

    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Its last words, unless it was meant to end and was ready before.
    pub(super) fn complaint(&mut self) -> Option<String> {
        let is_odd = !self.is_killed && (self.has_ended() || !self.is_ready());
        is_odd.then(|| self.log_tail())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
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

/// The process ends when our end of its standard input closes, whatever becomes of us; a group of
/// its own keeps a terminal's Ctrl-C from it.
fn launch(
    program: &Path,
    members: &[Member],
    log: &Path,
    namespace: Option<&Path>,
) -> std::io::Result<Child> {
    use std::os::unix::process::CommandExt as _;
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = match namespace {
        None => Command::new(program),
        Some(namespace) => {
            let mut entered = Command::new("nsenter");
            entered
                .arg(format!("--net={}", namespace.display()))
                .arg(program);
            entered
        }
    };
    command.args(["node", "--until-stdin-closes", "-v"]);
    for member in members {
        command.arg("--config").arg(member.file());
    }
    command
        .env_remove("MUTUAL_CONTROL")
        .env_remove("MUTUAL_CONTEXT")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_in_addresses() {
        assert_eq!(
            udp_port("/ip4/127.0.0.1/udp/4711/quic-v1/p2p/x"),
            Some(4711)
        );
        assert_eq!(udp_port("/ip4/127.0.0.1/tcp/4711"), None);
        let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
        keep_port(&mut address, Some("http://127.0.0.1:99"));
        assert_eq!(address.port(), 99);
    }
}

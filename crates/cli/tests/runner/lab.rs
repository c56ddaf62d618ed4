//! A small organisation on this machine: every role a process of its own, each killed with the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mutual_node::auth::NodeSigner;
use mutual_node::config::keys::{load_certificate, load_key};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Place, Ran};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);
const NOWHERE: &str = "http://127.0.0.1:1";

/// A node's process and what it said when it was ready.
#[derive(Debug)]
pub(super) struct Node {
    child: Child,
    file: String,
    pub(super) ready: serde_json::Value,
}

impl Node {
    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL, and then the same again, over the same files and at the same addresses.
    pub(super) fn restart(&mut self, place: &Place) {
        self.kill();
        let text = std::fs::read_to_string(place.path(&self.file)).unwrap();
        place.write(&self.file, &at_the_same_addresses(&text, &self.ready));
        *self = launch(place, &self.file);
    }

    pub(super) fn text(&self, field: &str) -> &str {
        self.ready[field].as_str().unwrap()
    }

    fn peer(&self) -> String {
        format!("{}@{}", self.text("public"), self.text("discovery"))
    }

    /// A counter of the agent, as its page of metrics shows it; 0 if it was never counted.
    pub(super) fn counted(&self, metric: &str) -> u64 {
        let address = self.text("agent_url").strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.contains("mutual_agent_held_jobs"), "{page}");
        let line = page.lines().find_map(|line| line.strip_prefix(metric));
        line.map_or(0, |count| count.trim().parse().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The organisation, its nodes and one user.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) place: Place,
    key: String,
    pub(super) demand: Node,
    pub(super) control: Node,
    /// Processes of their own, if the lab is apart.
    pub(super) bootstrap: Option<Node>,
    pub(super) seeder: Option<Node>,
    pub(super) agents: Vec<Node>,
}

impl Lab {
    /// Starts everything. `settings` go into every node file, section by section.
    pub(super) fn start(agents: usize, demand_settings: &str, agent_settings: &str) -> Self {
        let place = Place::new();
        let made = ["--json", "org", "create", "lab", "--dir", "org"];
        let made = place.run(&made).json();
        let key = made["key"].as_str().unwrap().to_owned();
        let roles = ["demand", "bootstrap", "seeder"];
        let demand = start_node(&place, &key, "demand", &roles, &[], &[], demand_settings);
        let stores = [demand.text("demand_url").to_owned()];
        let first = [demand.peer()];
        let roles = ["control", "bootstrap"];
        let control = start_node(&place, &key, "control", &roles, &stores, &first, "");
        let both = [demand.peer(), control.peer()];
        let agent = |number| {
            let (name, roles) = (format!("agent-{number}"), ["agent", "seeder"]);
            start_node(&place, &key, &name, &roles, &stores, &both, agent_settings)
        };
        let agents = (0..agents).map(agent).collect();
        let lab = Self {
            key,
            demand,
            control,
            bootstrap: None,
            seeder: None,
            agents,
            place,
        };
        lab.user("ann");
        lab
    }

    /// One process for each role.
    pub(super) fn apart(demand_settings: &str, agent_settings: &str) -> Self {
        let place = Place::new();
        let made = ["--json", "org", "create", "lab", "--dir", "org"];
        let made = place.run(&made).json();
        let key = made["key"].as_str().unwrap().to_owned();
        let bootstrap = start_node(&place, &key, "bootstrap", &["bootstrap"], &[], &[], "");
        let first = [bootstrap.peer()];
        let start = |role: &str, stores: &[String], settings: &str| {
            start_node(&place, &key, role, &[role], stores, &first, settings)
        };
        let seeder = start("seeder", &[], "");
        let demand = start("demand", &[], demand_settings);
        let stores = [demand.text("demand_url").to_owned()];
        let control = start("control", &stores, "");
        let agents = vec![start("agent", &stores, agent_settings)];
        let lab = Self {
            key,
            demand,
            control,
            bootstrap: Some(bootstrap),
            seeder: Some(seeder),
            agents,
            place,
        };
        lab.user("ann");
        lab
    }

    fn bootstrap_peers(&self) -> Vec<String> {
        match &self.bootstrap {
            Some(bootstrap) => vec![bootstrap.peer()],
            None => vec![self.demand.peer(), self.control.peer()],
        }
    }

    /// Credentials of another machine of the organisation, for a program that plays an agent.
    pub(super) fn signer(&self, name: &str) -> NodeSigner {
        certify(&self.place, &self.key, name, &["agent"]);
        let path = |file: &str| self.place.path(&format!("{name}/{file}"));
        let key = load_key(&path("node.key")).unwrap();
        let certificate = load_certificate(&path("node.cert")).unwrap();
        NodeSigner::new(key, certificate).unwrap()
    }

    /// Directories of a job's runs on all agents.
    pub(super) fn runs(&self, job: &str) -> Vec<PathBuf> {
        let agents = std::fs::read_dir(self.place.path("")).unwrap().flatten();
        let tasks =
            agents.filter_map(|agent| std::fs::read_dir(agent.path().join("agent/tasks")).ok());
        let runs = tasks.flatten().flatten().map(|run| run.path());
        runs.filter(|run| run.file_name().unwrap().to_string_lossy().starts_with(job))
            .collect()
    }

    /// Makes a file in the output directories of a job's runs, as a signal to the task.
    pub(super) fn signal(&self, job: &str, name: &str) {
        for run in self.runs(job) {
            // A run that ended meanwhile has no directory.
            let _ = std::fs::write(run.join("output").join(name), "");
        }
    }

    /// Makes a user with a context file of its own.
    pub(super) fn user(&self, name: &str) {
        self.user_with(name, "org", &[]);
    }

    /// The same, by the organisation in a directory and with further flags.
    pub(super) fn user_with(&self, name: &str, organisation: &str, flags: &[&str]) {
        let token = [
            "org",
            "token",
            name,
            "--output",
            name,
            "--dir",
            organisation,
        ];
        let made = self.place.run(&[&token[..], flags].concat());
        assert_eq!(made.code, 0, "{}", made.all());
        let control = self.control.text("control_url");
        let demand = self.demand.text("demand_url");
        self.context(name, "context.toml", control, demand);
        // What a user sees who reaches no server, while they live.
        self.context(name, "cut-off.toml", NOWHERE, NOWHERE);
    }

    fn context(&self, user: &str, file: &str, control: &str, demand: &str) {
        let text = format!(
            "namespace = \"lab\"\ncontrol = [\"{control}\"]\ndemand = [\"{demand}\"]\n\
             bootstrap = [{}]\ntoken_file = \"token\"\nkey_file = \"user.key\"\n\
             certificate_file = \"user.cert\"\ntrusted_organisations = [\"{}\"]\n",
            quoted(&self.bootstrap_peers()),
            self.key
        );
        self.place.write(&format!("{user}/{file}"), &text);
    }

    /// Runs the program in somebody's name.
    pub(super) fn run(&self, context: &str, arguments: &[&str]) -> Ran {
        self.place
            .run(&[&["--context", context], arguments].concat())
    }

    /// Asks again until the answer holds, or fails after a while.
    pub(super) fn until(
        &self,
        context: &str,
        arguments: &[&str],
        holds: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let since = Instant::now();
        loop {
            let ran = self.run(context, arguments);
            let answer = serde_json::from_str(&ran.stdout).unwrap_or_default();
            if ran.code == 0 && holds(&answer) {
                return answer;
            }
            assert!(since.elapsed() < PATIENCE, "{}", ran.all());
            // may sleep: polls for the event, with a bound
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks again until it is refused with this code and word, or fails after a while.
    pub(super) fn until_refused(&self, context: &str, arguments: &[&str], code: i32, word: &str) {
        let since = Instant::now();
        loop {
            let ran = self.run(context, arguments);
            if ran.code == code && ran.stderr.contains(word) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{}", ran.all());
            // may sleep: polls for the event, with a bound
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks again until the output holds a text, or fails after a while.
    pub(super) fn until_says(&self, context: &str, arguments: &[&str], text: &str) {
        let since = Instant::now();
        loop {
            let ran = self.run(context, arguments);
            if ran.code == 0 && ran.stdout.contains(text) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "{}", ran.all());
            // may sleep: polls for the event, with a bound
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The agent with this id.
    pub(super) fn agent(&mut self, id: &str) -> &mut Node {
        let mut agents = self.agents.iter_mut();
        agents.find(|agent| agent.text("node") == id).unwrap()
    }

    /// A counter of all agents together.
    pub(super) fn counted(&self, metric: &str) -> u64 {
        self.agents.iter().map(|agent| agent.counted(metric)).sum()
    }
}

fn quoted(texts: &[impl AsRef<str>]) -> String {
    let quoted = texts.iter().map(|text| format!("\"{}\"", text.as_ref()));
    quoted.collect::<Vec<_>>().join(", ")
}

fn start_node(
    place: &Place,
    key: &str,
    name: &str,
    roles: &[&str],
    stores: &[String],
    bootstrap: &[String],
    settings: &str,
) -> Node {
    certify(place, key, name, roles);
    let text = format!(
        "name = \"{name}\"\ndata_dir = \".\"\ntrusted_organisations = [\"{key}\"]\n\
         roles = [{}]\nknown_stores = [{}]\n\
         [network]\ndiscovery = \"127.0.0.1:0\"\np2p = \"127.0.0.1:0\"\nbootstrap = [{}]\n\
         [control]\nlisten = \"127.0.0.1:0\"\n{settings}",
        quoted(roles),
        quoted(stores),
        quoted(bootstrap),
    );
    let file = format!("{name}/node.toml");
    place.write(&file, &text);
    launch(place, &file)
}

/// The file of a node with the ports that it found at its first start.
fn at_the_same_addresses(text: &str, ready: &serde_json::Value) -> String {
    let address = |field: &str| {
        let text = ready[field].as_str().unwrap_or_default();
        text.trim_start_matches("http://").to_owned()
    };
    let p2p = ready["p2p"][0].as_str().unwrap();
    let port = p2p.split('/').nth(4).unwrap();
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let pinned = match line.split(" = ").next() {
            Some("discovery") => address("discovery"),
            Some("p2p") => format!("127.0.0.1:{port}"),
            Some("listen") => address(&format!("{section}_url")),
            Some("liveness") => ready["liveness"][0].as_str().unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let (name, _) = line.split_once(" = ").unwrap_or((line, ""));
        lines.push(match pinned.is_empty() {
            true => line.to_owned(),
            false => format!("{name} = \"{pinned}\""),
        });
    }
    lines.join("\n")
}

fn launch(place: &Place, file: &str) -> Node {
    let mut child = place
        .command(&["--json", "node", "--until-stdin-closes", "--config", file])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    Node {
        ready: serde_json::from_str(&line).unwrap(),
        file: file.to_owned(),
        child,
    }
}

/// Key and certificate, the way of a machine without a wire.
fn certify(place: &Place, key: &str, name: &str, roles: &[&str]) {
    let request = format!("{name}.request");
    let certificate = format!("{name}.cert");
    let mut sign = vec!["org", "sign", &request, "--name", name, "--dir", "org"];
    sign.extend(["--output", &certificate]);
    sign.extend(roles.iter().flat_map(|role| ["--role", role]));
    let join = |what: &str, file: &str| {
        let steps = [
            "org",
            "join",
            what,
            file,
            "--organisation",
            key,
            "--dir",
            name,
        ];
        place.run(&steps)
    };
    for ran in [
        join("--request", &request),
        place.run(&sign),
        join("--certificate", &certificate),
    ] {
        assert_eq!(ran.code, 0, "{}", ran.all());
    }
}

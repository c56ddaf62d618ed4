//! Measures how fast an object travels between nodes, beside `cp` and a plain TCP copy of the same bytes in the same run.
//!
//! ```text
//! cargo run --release -p mutual-node --example transfer -- [MEBIBYTES] [DIRECTORY]
//! ```
//!
//! Every node is a process of its own with a store of its own below DIRECTORY (a scratch directory by default). The
//! seeder packs and encrypts the file beforehand (AES-256-GCM); blocks travel by a lane (plain TCP, as between nodes that
//! reach each other), and by the encrypted transports beside it. A fetch is timed from the first dial to the last verified block on
//! the agent's disk. Neither `cp` nor the stores wait for the disk itself. Memory is each process's peak above what it
//! had before the fetch.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mutual_data::store::Options;
use mutual_data::transfer::FetchOptions;
use mutual_data::tree::{PackOptions, pack};
use mutual_data::{BlockStore, DataKey, address};
use mutual_model::identity::{Certificate, Membership, NodeKey, Role};
use mutual_model::time::UnixMillis;
use mutual_node::swarm::{Members, PeerAddr, Swarm, SwarmConfig};
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const MEBIBYTE: u64 = 1 << 20;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["tcp-serve", file] => tcp_serve(Path::new(file)),
        ["tcp-fetch", address, file] => tcp_fetch(address, Path::new(file)),
        ["seed", dir, file] => runtime()?.block_on(seed(Path::new(dir), Path::new(file))),
        ["fetch", way, number, dir, root, peer] => {
            runtime()?.block_on(fetch(way, number.parse()?, Path::new(dir), root, peer))
        }
        [] => compare(1024, None),
        [mebibytes] => compare(mebibytes.parse()?, None),
        [mebibytes, dir] => compare(mebibytes.parse()?, Some(dir)),
        _ => Err("usage: transfer [MEBIBYTES] [DIRECTORY]".into()),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

// ---- the comparison ----

/// One line of the table.
struct Row {
    what: &'static str,
    mebibytes: u64,
    copies: u64,
    seconds: f64,
    cpu_seconds: f64,
    memory: String,
}

impl Row {
    fn print(&self) {
        let total = (self.mebibytes * self.copies) as f64;
        let rate = total * MEBIBYTE as f64 / 1e6 / self.seconds;
        let cpu = self.cpu_seconds * 1024.0 / total;
        println!("| {} | {rate:.0} | {cpu:.2} | {} |", self.what, self.memory);
    }
}

fn compare(mebibytes: u64, dir: Option<&str>) -> Result<(), Failure> {
    let scratch = match dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let file = scratch.path().join("file");
    write_noise(&file, mebibytes)?;
    println!(
        "{mebibytes} MiB, {} cores",
        std::thread::available_parallelism()?
    );
    println!("| what | MB/s together | CPU s per GiB copied | peak MiB above idle |");
    println!("|---|---|---|---|");
    measure_cp(&file, mebibytes)?.print();
    measure_tcp(&file, mebibytes)?.print();
    let mut seeder = Helper::start(&[
        "seed",
        &shown(&scratch.path().join("seeder")),
        &shown(&file),
    ])?;
    let ready = seeder.read()?;
    for way in ["lane", "quic", "tcp"] {
        for agents in [1, 4] {
            measure_fetch(scratch.path(), &mut seeder, &ready, way, agents, mebibytes)?.print();
        }
    }
    Ok(())
}

fn write_noise(path: &Path, mebibytes: u64) -> std::io::Result<()> {
    let mut noise = blake3::Hasher::new().update(b"transfer").finalize_xof();
    let mut file = std::fs::File::create(path)?;
    let mut part = vec![0; 1 << 20];
    for _ in 0..mebibytes {
        noise.fill(&mut part);
        file.write_all(&part)?;
    }
    Ok(())
}

fn measure_cp(file: &Path, mebibytes: u64) -> Result<Row, Failure> {
    let copy = file.with_extension("cp");
    let (start, cpu) = (Instant::now(), cpu_of_children()?);
    let status = Command::new("cp")
        .arg("--reflink=never")
        .arg(file)
        .arg(&copy)
        .status()?;
    if !status.success() {
        return Err("cp failed".into());
    }
    let row = Row {
        what: "cp",
        mebibytes,
        copies: 1,
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu_of_children()? - cpu,
        memory: "–".into(),
    };
    std::fs::remove_file(copy)?;
    Ok(row)
}

fn measure_tcp(file: &Path, mebibytes: u64) -> Result<Row, Failure> {
    let copy = file.with_extension("tcp");
    let mut server = Helper::start(&["tcp-serve", &shown(file)])?;
    let address = server.read()?;
    let address = address["address"].as_str().ok_or("no address")?;
    let cpu = cpu_of_children()?;
    let mut client = Helper::start(&["tcp-fetch", address, &shown(&copy)])?;
    let seconds = number(&client.read()?, "seconds")?;
    client.end()?;
    server.end()?;
    std::fs::remove_file(copy)?;
    Ok(Row {
        what: "plain TCP to a file",
        mebibytes,
        copies: 1,
        seconds,
        cpu_seconds: cpu_of_children()? - cpu,
        memory: "–".into(),
    })
}

fn measure_fetch(
    scratch: &Path,
    seeder: &mut Helper,
    ready: &Value,
    way: &'static str,
    agents: usize,
    mebibytes: u64,
) -> Result<Row, Failure> {
    let root = ready["root"].as_str().ok_or("no root")?;
    let transport = if way == "tcp" { "tcp" } else { "quic" };
    let peer = ready[transport].as_str().ok_or("no address")?;
    let dir = |n: usize| scratch.join(format!("agent-{n}"));
    let mut running = Vec::new();
    for n in 0..agents {
        let mut agent = Helper::start(&[
            "fetch",
            way,
            &(n + 2).to_string(),
            &shown(&dir(n)),
            root,
            peer,
        ])?;
        agent.read()?;
        running.push(agent);
    }
    seeder.ask("reset")?;
    let start = Instant::now();
    for agent in &mut running {
        agent.tell("go")?;
    }
    let reports = running
        .iter_mut()
        .map(Helper::read)
        .collect::<Result<Vec<_>, _>>()?;
    let seconds = start.elapsed().as_secs_f64();
    let served = seeder.ask("report")?;
    let sum = |field| {
        reports
            .iter()
            .map(|r| number(r, field))
            .sum::<Result<f64, _>>()
    };
    let most = reports
        .iter()
        .filter_map(|r| r["memory"].as_f64())
        .fold(0.0, f64::max);
    let row = Row {
        what: match (way, agents) {
            ("lane", 1) => "lane, seeder → 1 agent",
            ("lane", _) => "lane, seeder → 4 agents",
            ("quic", 1) => "QUIC, seeder → 1 agent",
            ("quic", _) => "QUIC, seeder → 4 agents",
            (_, 1) => "TCP + noise, seeder → 1 agent",
            _ => "TCP + noise, seeder → 4 agents",
        },
        mebibytes,
        copies: agents as u64,
        seconds,
        cpu_seconds: sum("cpu")? + number(&served, "cpu")?,
        memory: format!("agent {most:.0}, seeder {:.0}", number(&served, "memory")?),
    };
    for (n, agent) in running.into_iter().enumerate() {
        agent.end()?;
        std::fs::remove_dir_all(dir(n))?;
    }
    Ok(row)
}

fn number(report: &Value, field: &str) -> Result<f64, Failure> {
    report[field]
        .as_f64()
        .ok_or_else(|| format!("no {field} in {report}").into())
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

// ---- processes of this program ----

/// A child that writes a line of JSON for each line it is told.
struct Helper {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Helper {
    fn start(arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no stdin")?;
        let output = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self {
            child,
            input,
            output,
        })
    }

    fn tell(&mut self, word: &str) -> Result<(), Failure> {
        Ok(writeln!(self.input, "{word}")?)
    }

    fn read(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| "a child failed; its error stands above".into())
    }

    fn ask(&mut self, word: &str) -> Result<Value, Failure> {
        self.tell(word)?;
        self.read()
    }

    /// Ends it and waits.
    fn end(mut self) -> Result<(), Failure> {
        drop(self.input);
        self.child.wait()?;
        Ok(())
    }
}

/// What a process used since the last reset.
struct Meter {
    cpu: f64,
    resident: f64,
}

impl Meter {
    /// Starts anew; the kernel's peak is set back to the present.
    fn reset() -> Result<Self, Failure> {
        std::fs::write("/proc/self/clear_refs", "5")?;
        Ok(Self {
            cpu: own_cpu()?,
            resident: status_mebibytes("VmRSS:")?,
        })
    }

    fn report(&self) -> Result<Value, Failure> {
        let memory = status_mebibytes("VmHWM:")? - self.resident;
        Ok(json!({ "cpu": own_cpu()? - self.cpu, "memory": memory }))
    }
}

fn status_mebibytes(field: &str) -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .ok_or("no such field")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes / 1024.0)
}

/// Seconds of CPU in two neighbouring fields of `/proc/self/stat` (proc(5); 100 ticks a second).
fn stat_seconds(first: usize) -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |n: usize| -> Result<f64, Failure> {
        Ok(after_name
            .split_whitespace()
            .nth(n - 3)
            .ok_or("no such field")?
            .parse()?)
    };
    Ok((ticks(first)? + ticks(first + 1)?) / 100.0)
}

fn own_cpu() -> Result<f64, Failure> {
    stat_seconds(14)
}

fn cpu_of_children() -> Result<f64, Failure> {
    stat_seconds(16)
}

// ---- the parts ----

fn tcp_serve(file: &Path) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!(
        "{}",
        json!({ "address": listener.local_addr()?.to_string() })
    );
    let (mut stream, _) = listener.accept()?;
    let mut file = std::fs::File::open(file)?;
    let mut part = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&part[..read])?;
    }
}

fn tcp_fetch(address: &str, file: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    let mut file = std::fs::File::create(file)?;
    let mut part = vec![0; 1 << 20];
    loop {
        let read = stream.read(&mut part)?;
        if read == 0 {
            break;
        }
        file.write_all(&part[..read])?;
    }
    println!("{}", json!({ "seconds": start.elapsed().as_secs_f64() }));
    Ok(())
}

fn certificate(organisation: &NodeKey, node: &NodeKey) -> Result<Certificate, Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = UnixMillis(mutual_model::time::millis(now));
    let membership = Membership {
        organisation: organisation.public(),
        node: node.public(),
        sealing: node.sealing_public(),
        name: "bench".into(),
        namespaces: vec!["bench".parse()?],
        roles: vec![Role::Seeder],
        not_before: UnixMillis(now.0.saturating_sub(60_000)),
        not_after: now.after(Duration::from_secs(3600)),
    };
    Ok(Certificate::issue(organisation, membership)?)
}

async fn start(number: u8, dir: &Path) -> Result<(Swarm, BlockStore), Failure> {
    let organisation = NodeKey::from_seed(&[0; 32]);
    let key = NodeKey::from_seed(&[number; 32]);
    let certificate = certificate(&organisation, &key)?;
    let options = Options {
        durable: false,
        ..Options::default()
    };
    let store = BlockStore::open(dir, options)?;
    let gate = Arc::new(Members::of(vec![organisation.public()]));
    let swarm = Swarm::start(
        SwarmConfig::loopback(),
        Arc::new(key),
        &certificate,
        store.clone(),
        gate,
    )
    .await?;
    Ok((swarm, store))
}

async fn seed(dir: &Path, file: &Path) -> Result<(), Failure> {
    let (swarm, store) = start(1, dir).await?;
    let file: PathBuf = file.into();
    let root = tokio::task::spawn_blocking(move || -> Result<_, Failure> {
        let batch = store.batch();
        let packed = pack(
            &batch,
            &DataKey::generate()?,
            &PackOptions::private("bench"),
            &file,
        )?;
        batch.commit(&packed.root.cid, "bench", None)?;
        Ok(packed.root.cid)
    })
    .await??;
    let addresses = swarm.listen_addrs();
    let (quic, tcp) = (addresses.first(), addresses.get(1));
    println!(
        "{}",
        json!({ "root": root.to_string(), "quic": quic, "tcp": tcp })
    );
    let mut meter = Meter::reset()?;
    for word in std::io::stdin().lines() {
        if word? == "reset" {
            meter = Meter::reset()?;
        }
        println!("{}", meter.report()?);
    }
    Ok(())
}

async fn fetch(way: &str, number: u8, dir: &Path, root: &str, peer: &str) -> Result<(), Failure> {
    let (swarm, _) = start(number, dir).await?;
    let peer: PeerAddr = peer.parse()?;
    // The agent has run for a while before its first task: the warm-up is over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("{}", json!({ "ready": true }));
    let mut word = String::new();
    std::io::stdin().read_line(&mut word)?;
    let meter = Meter::reset()?;
    let mut options = FetchOptions::new("bench");
    if way == "lane" {
        options.bytes_expected = u64::MAX;
    }
    swarm
        .fetch(address::parse(root)?, &[peer], options)
        .finish()
        .await?;
    println!("{}", meter.report()?);
    std::io::stdin().read_line(&mut word)?;
    Ok(())
}

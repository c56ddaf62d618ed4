//! Measures discovery with many real nodes in one process: every one has its own socket, keys and
//! driver, and joins by the protocol.
//!
//! `cargo run --release -p mutual-node --example discovery_latency -- 1000`

#![expect(clippy::print_stdout, reason = "a program that prints its measurement")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mutual_model::identity::{Certificate, Membership, NodeKey, Role};
use mutual_model::ids::{Incarnation, JobId};
use mutual_model::job::JobState;
use mutual_model::kademlia::Identity;
use mutual_model::record::{Body, Record, StatusMirror, Trust, mirror_key};
use mutual_model::time::UnixMillis;
use mutual_node::discovery::{Discovery, DiscoveryConfig};

const LOOKUPS: usize = 1_000;
const DEADLINE: Duration = Duration::from_secs(10);

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let count = std::env::args()
        .nth(1)
        .map_or(Ok(1_000), |text| text.parse())?;
    let organisation = NodeKey::from_seed(&[1; 32]);
    let idle = resident_kib()?;
    let began = Instant::now();
    let mut nodes: Vec<Discovery> = Vec::with_capacity(count);
    for number in 0..count {
        let bootstrap = nodes
            .iter()
            .take(2)
            .map(|node| node.contact().into())
            .collect();
        let config = DiscoveryConfig::new("127.0.0.1:0".parse()?, bootstrap);
        let node = Discovery::start(config, identity(&organisation, number)?).await?;
        if number > 0 && !node.wait_for_peers(number.min(5), DEADLINE).await {
            return Err(format!("node {number} found nobody").into());
        }
        nodes.push(node);
    }
    let joined = began.elapsed();
    let mut messages = 0;
    for node in &nodes {
        messages += node.stats().await.sent;
    }
    let kib = (resident_kib()? - idle) / count;
    println!(
        "{count} nodes joined in {joined:.1?}: {} messages, {kib} KiB a node",
        messages as usize / count
    );
    measure(&nodes).await
}

async fn measure(nodes: &[Discovery]) -> Result<(), Failure> {
    let jobs: Vec<JobId> = (0..100)
        .map(|number| JobId::new(UnixMillis(number), [7; 10]))
        .collect();
    let began = Instant::now();
    for (number, job) in jobs.iter().enumerate() {
        let publisher = &nodes[number * 7 % nodes.len()];
        publisher.publish(mirror(*job)?, DEADLINE * 60).await?;
    }
    println!("store: mean {:?}", began.elapsed() / 100);
    for pass in ["first", "again"] {
        let mut times = Vec::with_capacity(LOOKUPS);
        let mut missed = 0;
        for number in 0..LOOKUPS {
            let asker = &nodes[number * 31 % nodes.len()];
            let began = Instant::now();
            let found = asker
                .get(mirror_key(jobs[number % jobs.len()]), 1, DEADLINE)
                .await;
            times.push(began.elapsed());
            missed += usize::from(found.is_empty());
        }
        times.sort();
        let mean = times.iter().sum::<Duration>() / LOOKUPS as u32;
        let at = |share: usize| times[LOOKUPS * share / 100];
        println!(
            "look-up, {pass}: mean {mean:?}, p50 {:?}, p99 {:?}, {missed} missed",
            at(50),
            at(99)
        );
    }
    Ok(())
}

fn mirror(job: JobId) -> Result<Record, Failure> {
    let mirror = StatusMirror {
        job,
        state: JobState::Running,
        holder: None,
        fence: None,
        result: None,
        sealed_key: Vec::new(),
        providers: vec![],
    };
    Ok(Record {
        namespace: "lab".parse()?,
        body: Body::Mirror(mirror),
    })
}

fn identity(organisation: &NodeKey, number: usize) -> Result<Identity, Failure> {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let key = NodeKey::from_seed(&seed);
    let now = UnixMillis(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)?
            .as_millis()
            .try_into()?,
    );
    let membership = Membership {
        organisation: organisation.public(),
        node: key.public(),
        sealing: key.sealing_public(),
        name: format!("node-{number}"),
        namespaces: vec!["lab".parse()?],
        roles: vec![Role::Agent],
        not_before: UnixMillis(0),
        not_after: now.after(DEADLINE * 1_000),
    };
    Ok(Identity {
        certificate: Certificate::issue(organisation, membership)?,
        key,
        trust: Trust::in_organisation(organisation.public()),
        incarnation: Incarnation::new(now, [0; 10]),
    })
}

/// Resident memory of this process.
fn resident_kib() -> Result<usize, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let figure = line.and_then(|line| line.split_whitespace().next());
    Ok(figure.ok_or("no VmRSS in /proc/self/status")?.parse()?)
}

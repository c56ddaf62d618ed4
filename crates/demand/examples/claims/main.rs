//! Measures how many durable no-op tasks a demand store takes from submission to end, beside the raw SQL of the same
//! commits in the same run.
//!
//! ```text
//! cargo run --release -p mutual-demand --example claims -- [SECONDS] [ROUNDS] [sqlite | postgres]
//! ```
//!
//! One by one, a task is three commits: submit, claim, finish. Raw SQL makes the same three with plain statements on the
//! same tables, triggers included, and checks nothing. Both take turns for SECONDS (1 by default) in each of ROUNDS (5).
//! Over HTTP, a client and a service on this machine pass tasks in batches, each request signed and verified; a batch is
//! three commits. PostgreSQL is a fresh server with its default settings, so `fsync` is on; without its programs only
//! SQLite is measured.
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mutual_demand::postgres::PostgresStore;
use mutual_demand::sqlite::SqliteStore;
use mutual_demand::{DemandStore, StoreConfig};

mod figures;
mod people;
#[path = "../../tests/shared/postgres_server.rs"]
#[expect(dead_code, reason = "other programs that include it use the rest")]
mod postgres_server;
mod raw_postgres;
mod raw_sqlite;
mod through;

use figures::{Lane, Rates, rate};
use people::Worker;
use postgres_server::PostgresServer;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How many agents work at once.
const AGENTS: [u8; 3] = [1, 8, 32];
/// Agents and tasks in a batch on the whole way over HTTP.
const HTTP: [(u8, u32); 2] = [(8, 64), (32, 64)];

/// How long each figure is looked for.
#[derive(Clone, Copy)]
struct Plan {
    time: Duration,
    rounds: usize,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let seconds: f64 = arguments
        .next()
        .map_or(Ok(1.0), |seconds| seconds.parse())?;
    let rounds = arguments.next().map_or(Ok(5), |rounds| rounds.parse())?;
    let only = arguments.next();
    let wants = |store: &str| only.as_deref().is_none_or(|only| only == store);
    let plan = Plan {
        time: Duration::from_secs_f64(seconds),
        rounds,
    };
    let scratch = tempfile::tempdir()?;
    println!("{}", disk(scratch.path())?);
    let postgres = if wants("postgres") { server()? } else { None };
    println!("\n| store | agents | raw SQL, tasks/s | through the store, tasks/s | ratio |");
    println!("|---|---|---|---|---|");
    for agents in AGENTS.into_iter().filter(|_| wants("sqlite")) {
        sqlite_one_by_one(plan, scratch.path(), agents).await?;
    }
    for agents in postgres.iter().flat_map(|_| AGENTS) {
        postgres_one_by_one(plan, postgres.as_ref(), agents).await?;
    }
    println!("\n| store behind HTTP | agents | batch | tasks/s |");
    println!("|---|---|---|---|");
    for (agents, batch) in HTTP.into_iter().filter(|_| wants("sqlite")) {
        let file = scratch.path().join(format!("http-{agents}.db"));
        let store = Arc::new(SqliteStore::open(file, StoreConfig::default())?);
        over_http(plan, "SQLite", store, agents, batch).await?;
    }
    for (agents, batch) in postgres.iter().flat_map(|_| HTTP) {
        let store = postgres_store(postgres.as_ref(), &format!("http_{agents}")).await?;
        over_http(plan, "PostgreSQL", store, agents, batch).await?;
    }
    Ok(())
}

fn server() -> Result<Option<PostgresServer>, Failure> {
    let Some(bin) = postgres_server::programs() else {
        println!("no PostgreSQL below /usr/lib/postgresql: only SQLite is measured");
        return Ok(None);
    };
    Ok(Some(PostgresServer::start(&bin, &[])?))
}

/// What the disk does: it bounds how often one by one is possible at all.
fn disk(dir: &Path) -> Result<String, Failure> {
    let mut file = std::fs::File::create(dir.join("probe"))?;
    let mut waits = Vec::new();
    for _ in 0..50 {
        file.write_all(&[0; 4_096])?;
        let began = Instant::now();
        file.sync_data()?;
        waits.push(began.elapsed());
    }
    waits.sort();
    let median = waits[waits.len() / 2];
    Ok(format!(
        "the disk takes {:.2} ms to keep one write",
        median.as_secs_f64() * 1e3
    ))
}

fn workers(count: u8) -> Result<Vec<Worker>, Failure> {
    (1..=count).map(Worker::new).collect()
}

/// Lets both take turns and prints the line.
async fn compare(
    plan: Plan,
    name: &str,
    mut raw: Vec<Lane>,
    mut store: Vec<Lane>,
) -> Result<(), Failure> {
    let agents = raw.len();
    let (mut raw_rates, mut store_rates) = (Rates::default(), Rates::default());
    for round in 0..=plan.rounds {
        let (raw_rate, raw_again) = rate(raw, plan.time).await?;
        let (store_rate, store_again) = rate(store, plan.time).await?;
        (raw, store) = (raw_again, store_again);
        // The first round only warms up.
        if round > 0 {
            raw_rates.add(raw_rate);
            store_rates.add(store_rate);
        }
    }
    let ratio = store_rates.median() / raw_rates.median();
    println!("| {name} | {agents} | {raw_rates} | {store_rates} | {ratio:.2} |");
    Ok(())
}

async fn sqlite_one_by_one(plan: Plan, dir: &Path, agents: u8) -> Result<(), Failure> {
    let raw_file = dir.join(format!("raw-{agents}.db"));
    // The store makes the layout, then lets go of the file.
    drop(SqliteStore::open(&raw_file, StoreConfig::default())?);
    let connection = raw_sqlite::open(&raw_file)?;
    let file = dir.join(format!("store-{agents}.db"));
    let store: Arc<dyn DemandStore> = Arc::new(SqliteStore::open(file, StoreConfig::default())?);
    let workers = workers(agents)?;
    let raw = workers
        .iter()
        .map(|worker| raw_sqlite::lane(Arc::clone(&connection), worker));
    let raw = raw.collect::<Result<Vec<_>, _>>()?;
    let through = workers
        .into_iter()
        .map(|worker| through::lane(Arc::clone(&store), worker, 1));
    compare(plan, "SQLite", raw, through.collect()).await
}

async fn postgres_store(
    server: Option<&PostgresServer>,
    name: &str,
) -> Result<Arc<dyn DemandStore>, Failure> {
    let server = server.ok_or("no server")?;
    let url = server.database(name)?;
    Ok(Arc::new(
        PostgresStore::connect(&url, StoreConfig::default()).await?,
    ))
}

async fn postgres_one_by_one(
    plan: Plan,
    server: Option<&PostgresServer>,
    agents: u8,
) -> Result<(), Failure> {
    let raw_name = format!("raw_{agents}");
    // The store makes the layout.
    drop(postgres_store(server, &raw_name).await?);
    let store = postgres_store(server, &format!("store_{agents}")).await?;
    let url = server.map_or_else(String::new, |server| server.url(&raw_name));
    let mut raw = Vec::new();
    let mut through = Vec::new();
    for worker in workers(agents)? {
        raw.push(raw_postgres::lane(&url, &worker).await?);
        through.push(through::lane(Arc::clone(&store), worker, 1));
    }
    compare(plan, "PostgreSQL", raw, through).await
}

async fn over_http(
    plan: Plan,
    name: &str,
    store: Arc<dyn DemandStore>,
    agents: u8,
    batch: u32,
) -> Result<(), Failure> {
    let workers = workers(agents)?;
    let clients = through::serve(store, &workers).await?;
    let lanes = workers.into_iter().zip(clients);
    let mut lanes: Vec<Lane> = lanes
        .map(|(worker, client)| through::lane(client, worker, batch))
        .collect();
    let mut rates = Rates::default();
    for round in 0..=plan.rounds {
        let (found, again) = rate(lanes, plan.time).await?;
        lanes = again;
        if round > 0 {
            rates.add(found);
        }
    }
    println!("| {name} | {agents} | {batch} | {rates} |");
    Ok(())
}

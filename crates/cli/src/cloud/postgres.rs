//! A PostgreSQL primary and its synchronous standby, in a directory of their own.
//!
//! The server's own programs do everything. They refuse to run as root: then they run as the user
//! `postgres`, whom the distribution's package makes.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Naming as _, Outcome};
use crate::scratch::Scratch;

/// Where Debian and Ubuntu keep the programs, below the version.
const DEBIAN: &str = "/usr/lib/postgresql";
const DATABASE: &str = "mutual";
/// How long a server may take to answer, and a standby to follow.
const START: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// The directory with `initdb`, `postgres`, `pg_basebackup` and `psql`.
pub(crate) fn programs(named: Option<&Path>) -> Outcome<PathBuf> {
    let has_them = |dir: &PathBuf| {
        ["initdb", "postgres", "pg_basebackup", "psql"]
            .iter()
            .all(|program| dir.join(program).exists())
    };
    let found = match named {
        Some(dir) => Some(dir.to_owned()).filter(has_them),
        None => on_debian().into_iter().chain(in_path()).find(has_them),
    };
    found.ok_or_else(|| {
        let place = named.map_or_else(|| DEBIAN.to_owned(), |dir| dir.display().to_string());
        let words = format!("no PostgreSQL server programs in {place}");
        Failure::configuration(words)
            .hint("`apt-get install postgresql`, or name their directory with --postgres")
    })
}

/// The newest version first.
fn on_debian() -> Vec<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut numbered: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin")))
        })
        .collect();
    numbered.sort_by(|one, other| other.cmp(one));
    numbered.into_iter().map(|(_, bin)| bin).collect()
}

fn in_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

/// Both servers. Gone when dropped.
#[derive(Debug)]
pub(crate) struct Pair {
    programs: PathBuf,
    home: Scratch,
    primary: Server,
    standby: Server,
}

#[derive(Debug)]
struct Server {
    port: u16,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pair {
    /// Starts both, and waits until no commit is acknowledged before both have it.
    pub(crate) async fn start(programs: &Path) -> Outcome<Self> {
        let home = Scratch::new("mutual-postgres-")?;
        give(home.path())?;
        let data = |name: &str| home.path().join(name);
        let (first, second) = (free_port()?, free_port()?);
        let place = data("primary");
        let initdb = [
            "--username=mutual",
            "--auth=trust",
            "--no-sync",
            "--no-instructions",
        ];
        run(
            program(programs, "initdb")
                .arg("--pgdata")
                .arg(&place)
                .args(initdb),
            &home,
        )?;
        let primary = serve(programs, &home, "primary", first)?;
        answers(programs, first).await?;
        sql(
            programs,
            first,
            "postgres",
            &format!("CREATE DATABASE {DATABASE}"),
        )?;
        let mut copy = program(programs, "pg_basebackup");
        copy.args([
            "--host=127.0.0.1",
            "--username=mutual",
            "--write-recovery-conf",
        ])
        .args(["--checkpoint=fast", "--no-sync"])
        .arg(format!("--port={first}"))
        .arg("--pgdata")
        .arg(data("standby"));
        run(&mut copy, &home)?;
        let standby = serve(programs, &home, "standby", second)?;
        answers(programs, second).await?;
        let pair = Self {
            programs: programs.to_owned(),
            home,
            primary,
            standby,
        };
        pair.make_synchronous().await?;
        Ok(pair)
    }

    async fn make_synchronous(&self) -> Outcome {
        let port = self.primary.port;
        // Each in a transaction of its own, as ALTER SYSTEM wants it.
        for statement in [
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        ] {
            sql(&self.programs, port, DATABASE, statement)?;
        }
        let since = Instant::now();
        let question =
            "SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')";
        while sql(&self.programs, port, DATABASE, question)?.trim() != "1" {
            in_time(since, "the standby does not become synchronous")?;
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// What a demand server is told: whichever of both is the primary.
    pub(crate) fn url(&self) -> String {
        let (primary, standby) = (self.primary.port, self.standby.port);
        format!("postgres://mutual@127.0.0.1:{primary},127.0.0.1:{standby}/{DATABASE}")
    }

    /// SIGKILL to the primary's first process, as a crash would end it; the others see it and end.
    pub(crate) fn kill_primary(&mut self) -> Outcome {
        self.primary.child.kill().map_err(Failure::internal)
    }

    /// What an operator does; returns when the standby is the primary.
    pub(crate) fn promote(&self) -> Outcome {
        let promoted = sql(
            &self.programs,
            self.standby.port,
            DATABASE,
            "SELECT pg_promote(true, 60)",
        )?;
        match promoted.trim() {
            "t" => Ok(()),
            said => Err(Failure::internal(format!(
                "the standby was not promoted: {said:?}"
            ))),
        }
    }

    /// Ends both and clears their directory away.
    pub(crate) fn close(self) -> Outcome {
        let Self {
            home,
            primary,
            standby,
            ..
        } = self;
        drop((primary, standby));
        // Their children end a moment after them and may still write.
        let since = Instant::now();
        while is_used(home.path()) && since.elapsed() < START {
            std::thread::sleep(LOOK);
        }
        home.close().naming("the directory of PostgreSQL")
    }
}

/// Whether some process works below a directory, as all of PostgreSQL's do in theirs.
fn is_used(dir: &Path) -> bool {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut places = all.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok());
    places.any(|place| place.starts_with(dir))
}

fn in_time(since: Instant, words: &str) -> Outcome {
    match since.elapsed() < START {
        true => Ok(()),
        false => Err(Failure::internal(words)),
    }
}

fn free_port() -> Outcome<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").naming("loopback")?;
    Ok(listener.local_addr().naming("loopback")?.port())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that the server accepts must own what it writes to.
fn give(dir: &Path) -> Outcome {
    if !is_root() {
        return Ok(());
    }
    let mut chown = Command::new("chown");
    checked(chown.arg("postgres").arg(dir)).map(drop)
}

/// A program as a user that the server accepts.
fn program(programs: &Path, name: &str) -> Command {
    let mut command = Command::new("setpriv");
    // It ends with whoever started it, however that ends.
    command.arg("--pdeathsig=KILL");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg("--").arg(programs.join(name));
    command
}

fn run(command: &mut Command, home: &Scratch) -> Outcome {
    checked(command.current_dir(home.path())).map(drop)
}

fn checked(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| Failure::configuration(format!("PostgreSQL: {error}")))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(Failure::internal(format!("PostgreSQL: {}", said.trim())))
        }
    }
}

fn serve(programs: &Path, home: &Scratch, name: &str, port: u16) -> Outcome<Server> {
    use std::os::unix::process::CommandExt as _;
    let log = home.path().join(format!("{name}.log"));
    let log = File::create(&log).naming(log.display())?;
    let child = program(programs, "postgres")
        .arg("-D")
        .arg(home.path().join(name))
        .args(["-p", &port.to_string()])
        .args([
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=200",
        ])
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn();
    let child =
        child.map_err(|error| Failure::internal(format!("PostgreSQL's {name}: {error}")))?;
    Ok(Server { port, child })
}

async fn answers(programs: &Path, port: u16) -> Outcome {
    let since = Instant::now();
    while let Err(failure) = sql(programs, port, "postgres", "SELECT 1") {
        in_time(since, &failure.message)?;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

fn sql(programs: &Path, port: u16, database: &str, statement: &str) -> Outcome<String> {
    let mut psql = Command::new(programs.join("psql"));
    psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args(["--set", "ON_ERROR_STOP=1", "--command", statement])
        .arg(format!("postgres://mutual@127.0.0.1:{port}/{database}"));
    checked(&mut psql)
}

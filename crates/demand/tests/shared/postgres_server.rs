//! A PostgreSQL server of one's own in a scratch directory: real, durable, gone when dropped.
//!
//! Included by path where a real server is needed: the tests of this crate and of the node, and the bench `claims`. It
//! uses the server's own programs only, so whoever includes it needs no driver.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for the server to answer after a start.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// A database server with one user, `mutual`, that needs no password.
pub(crate) struct PostgresServer {
    bin: PathBuf,
    home: TempDir,
    settings: Vec<String>,
    process: Option<Child>,
    port: u16,
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Where Debian puts the newest server's programs.
pub(crate) fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let found = versions.filter_map(|version| {
        let path = version.ok()?.path();
        let number: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let bin = path.join("bin");
        bin.join("initdb").exists().then_some((number, bin))
    });
    found.max().map(|(_, bin)| bin)
}

/// The programs for a test; `None` if tests are to do without them.
pub(crate) fn programs_for_tests() -> Option<PathBuf> {
    if std::env::var("MUTUAL_SKIP_POSTGRES").is_ok_and(|value| value == "1") {
        eprintln!("SKIPPED: MUTUAL_SKIP_POSTGRES=1, so PostgreSQL is not tested");
        return None;
    }
    let found = programs().expect(
        "no PostgreSQL below /usr/lib/postgresql: run `apt-get install postgresql`, or set \
         MUTUAL_SKIP_POSTGRES=1 to do without",
    );
    Some(found)
}

/// A port that nobody listens at.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

fn is_root() -> io::Result<bool> {
    Ok(Command::new("id").arg("-u").output()?.stdout == b"0\n")
}

/// A command as a user that the server accepts: it refuses to run as root.
fn as_user(program: &Path) -> io::Result<Command> {
    if !is_root()? {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "--",
    ]);
    command.arg(program);
    Ok(command)
}

fn checked(what: &str, output: Output) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{what}: {}", said.trim())))
}

impl PostgresServer {
    /// Makes and starts a server with these settings, such as `fsync=off`, beside the defaults.
    pub(crate) fn start(bin: &Path, settings: &[&str]) -> io::Result<Self> {
        let options = [
            "--username=mutual",
            "--auth=trust",
            "--no-sync",
            "--no-instructions",
        ];
        Self::start_made_by(bin, "initdb", &options, settings)
    }

    /// Starts a server whose data directory is made by one of PostgreSQL's own programs.
    pub(crate) fn start_made_by(
        bin: &Path,
        program: &str,
        options: &[&str],
        settings: &[&str],
    ) -> io::Result<Self> {
        let home = tempfile::tempdir()?;
        if is_root()? {
            let owned = Command::new("chown")
                .arg("postgres")
                .arg(home.path())
                .output()?;
            checked("chown", owned)?;
        }
        let made = as_user(&bin.join(program))?
            .arg("--pgdata")
            .arg(home.path().join("data"))
            .args(options)
            .current_dir(home.path())
            .output()?;
        checked(program, made)?;
        let mut server = Self {
            bin: bin.to_owned(),
            home,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            process: None,
            port: free_port(),
        };
        server.start_again()?;
        Ok(server)
    }

    /// Starts the server over its data, after a [`kill`](Self::kill), and waits until it answers.
    pub(crate) fn start_again(&mut self) -> io::Result<()> {
        let mut server = as_user(&self.bin.join("postgres"))?;
        server
            .arg("-D")
            .arg(self.home.path().join("data"))
            .arg("-p")
            .arg(self.port.to_string())
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "log_min_messages=fatal"])
            .current_dir(self.home.path());
        for setting in &self.settings {
            server.arg("-c").arg(setting);
        }
        let process = server
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        self.process = Some(process);
        self.wait()
    }

    fn wait(&mut self) -> io::Result<()> {
        let until = Instant::now() + START_PATIENCE;
        while self.sql("postgres", "SELECT 1").is_err() {
            let ended = self.process.as_mut().map(Child::try_wait).transpose()?;
            if ended.flatten().is_some() || Instant::now() > until {
                return Err(io::Error::other("the PostgreSQL server does not answer"));
            }
            // may sleep: polls for the event, with a bound
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Kills the server's first process with SIGKILL, as a crash would end it, and waits until the
    /// others that it had started are gone too: nothing of it writes any more.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        process.kill()?;
        process.wait()?;
        let until = Instant::now() + START_PATIENCE;
        while self.has_processes() && Instant::now() < until {
            // may sleep: polls for the event, with a bound
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether any process works in the data directory, as every one of the server's does.
    fn has_processes(&self) -> bool {
        let data = self.home.path().join("data");
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok())
            .any(|cwd| cwd == data)
    }

    /// Puts a file into the data directory that only the server may read.
    pub(crate) fn put_file(&self, name: &str, text: &str) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.home.path().join("data").join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        if is_root()? {
            let owned = Command::new("chown").arg("postgres").arg(&path).output()?;
            checked("chown", owned)?;
        }
        Ok(())
    }

    /// Where the server listens, on this machine only.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The connection string of a database, reached through `port`.
    pub(crate) fn url_through(&self, port: u16, database: &str) -> String {
        format!("postgres://mutual@127.0.0.1:{port}/{database}")
    }

    /// The connection string of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_through(self.port, database)
    }

    /// Runs SQL and returns what it printed, unadorned.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> io::Result<String> {
        self.sql_each(database, &[sql])
    }

    /// Runs statements one after the other in one session.
    pub(crate) fn sql_each(&self, database: &str, statements: &[&str]) -> io::Result<String> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set", "ON_ERROR_STOP=1"]);
        for statement in statements {
            psql.args(["--command", statement]);
        }
        let output = psql.arg(self.url(database)).stdin(Stdio::null()).output()?;
        checked("psql", output)
    }

    /// Makes a new, empty database and returns its connection string.
    pub(crate) fn database(&self, name: &str) -> io::Result<String> {
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(self.url(name))
    }
}

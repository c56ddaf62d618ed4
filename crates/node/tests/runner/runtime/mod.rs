//! The runtime on the real kernel: real containers, real signals, real limits.
//!
//! Run as root, the suite also runs itself as an ordinary user and inside one of its own containers. What cannot be
//! tried on a machine prints `SKIPPED` with the reason.

mod ends;
mod engines;
mod identity;
mod isolation;
mod lifeline;
mod limits;
mod output;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use mutual_node::runtime::{
    Backend, Class, Config, Exit, Layout, Piece, RunSpec, Running, Runtime, StartError, Stream,
};

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime with its own state, and room for task directories.
struct Ground {
    runtime: Runtime,
    dir: tempfile::TempDir,
}

fn config(state: PathBuf) -> Config {
    let mut config = Config::new(state);
    config.shim = Some(env!("CARGO_BIN_EXE_mutual-shim").into());
    config.allow_process = true;
    config
}

/// Says that something could not be tried, past the test harness, which hides what a passing test prints.
fn skipped(what: &str, reason: &str) {
    say(&format!("SKIPPED {what}: {reason}"));
}

fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Ground {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Tasks of a root agent run as somebody else, who must get here in class `process`.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))
            .expect("own directory");
        let mut config = config(dir.path().join("state"));
        change(&mut config);
        let runtime = Runtime::open(config).await.expect("a runtime");
        Self { runtime, dir }
    }

    /// The classes offered here; the missing ones are named.
    fn classes(&self) -> Vec<Class> {
        let offer = self.runtime.offer();
        for absent in offer
            .absent
            .iter()
            .filter(|absent| absent.class >= Class::Container)
        {
            skipped(absent.class.name(), &absent.reason);
        }
        offer.classes.iter().map(|offer| offer.class).collect()
    }

    fn has(&self, class: Class) -> bool {
        self.classes().contains(&class)
    }

    fn spec(&self, name: &str, class: Class, argv: &[&str]) -> RunSpec {
        let dir = self.dir.path().join(format!("{name}-{class}"));
        let layout = Layout::prepare(dir).expect("a task directory");
        let argv = argv.iter().map(ToString::to_string).collect();
        RunSpec::new(format!("{name}-{class}"), class, argv, layout.dir)
    }

    fn shell(&self, name: &str, class: Class, script: &str) -> RunSpec {
        self.spec(name, class, &["sh", "-c", script])
    }

    async fn start(&self, spec: RunSpec) -> Running {
        bounded(self.runtime.start(spec))
            .await
            .expect("a started task")
    }

    async fn refused(&self, spec: RunSpec) -> StartError {
        bounded(self.runtime.start(spec))
            .await
            .expect_err("a task that cannot start")
    }

    /// Runs to the end with all output.
    async fn run(&self, spec: RunSpec) -> Done {
        let mut running = self.start(spec).await;
        let mut output = running.take_output().expect("output, once");
        let mut pieces = Vec::new();
        let exit = bounded(async {
            while let Some(piece) = output.next().await {
                pieces.push(piece);
            }
            running.wait().await
        });
        let exit = exit.await;
        Done { exit, pieces }
    }
}

async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it hangs")
}

struct Done {
    exit: Exit,
    pieces: Vec<Piece>,
}

impl Done {
    fn text(&self, stream: Stream) -> String {
        let bytes = self
            .pieces
            .iter()
            .filter(|piece| piece.stream == stream)
            .flat_map(|piece| piece.bytes.to_vec());
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
    }

    fn stdout(&self) -> String {
        self.text(Stream::Stdout)
    }
}

/// Reads output until it contains `word`.
async fn until(output: &mut mutual_node::runtime::Output, word: &str) -> String {
    let mut text = String::new();
    bounded(async {
        while !text.contains(word) {
            let piece = output
                .next()
                .await
                .unwrap_or_else(|| panic!("{word:?} never came, only {text:?}"));
            text.push_str(&String::from_utf8_lossy(&piece.bytes));
        }
    })
    .await;
    text
}

fn runc_backend(config: &mut Config) {
    config.backend = Backend::Runc;
}

//! SIGKILL of the agent takes its tasks along; what even that leaves, the next incarnation sweeps.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mutual_node::runtime::{Class, Layout, OpenError, RunSpec, Runtime};

use super::{Ground, PATIENCE, config};

const STATE: &str = "MUTUAL_TEST_AGENT_STATE";
const CLASS: &str = "MUTUAL_TEST_AGENT_CLASS";

/// Not a test by itself: an agent that starts one task and waits to be killed.
#[tokio::test(flavor = "multi_thread")]
async fn as_an_agent_to_be_killed() {
    let (Some(state), Ok(class)) = (std::env::var_os(STATE), std::env::var(CLASS)) else {
        return;
    };
    let class = if class == "container" {
        Class::Container
    } else {
        Class::Process
    };
    let state = PathBuf::from(state);
    let runtime = Runtime::open(config(state.clone()))
        .await
        .expect("a runtime");
    let layout = Layout::prepare(state.join("task")).expect("a task directory");
    let script = "(setsid sleep 4321 &); sleep 4321 & echo $$ > output/started; wait";
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let running = runtime
        .start(RunSpec::new("victim", class, argv, layout.dir))
        .await
        .expect("a task");
    running.wait().await;
}

fn start_agent(state: &Path, class: Class) -> Child {
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "runtime::lifeline::as_an_agent_to_be_killed",
            "--nocapture",
        ])
        .env(STATE, state)
        .env(CLASS, class.name())
        .stdout(Stdio::null())
        .spawn()
        .expect("an agent");
    let started = state.join("task/output/started");
    wait_until("the task", || {
        std::fs::read_to_string(&started).is_ok_and(|text| text.ends_with('\n'))
    });
    child
}

fn wait_until(what: &str, done: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        // may sleep: polls for the event, with a bound
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

/// Processes of the task: they stand in its directory.
fn processes_in(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let marked = |path: &PathBuf| {
        let mark = "MUTUAL_JOB=victim\0";
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let name = format!("{}", dir.display());
        let text = String::from_utf8_lossy(&environment).into_owned();
        text.contains(mark) && (text.contains(&name) || text.contains("MUTUAL_DIR=/mutual\0"))
    };
    let paths = entries.map(|entry| entry.path()).filter(marked);
    paths.map(|path| path.display().to_string()).collect()
}

fn shim_of(state: &Path) -> i32 {
    let file = state.join("runs/victim-1.json");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).expect("a record")).expect("JSON");
    record["shim"]["pid"]
        .as_i64()
        .and_then(|pid| pid.try_into().ok())
        .expect("a pid")
}

async fn offered() -> Vec<Class> {
    Ground::new().await.classes()
}

/// One at a time: tasks are told apart by their job alone when they are in containers.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_alone_takes_its_tasks_along() {
    let _one = ONE.lock().await;
    for class in offered().await {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .expect("own");
        let mut agent = start_agent(dir.path(), class);
        assert!(
            processes_in(dir.path()).len() >= 3,
            "{class}: {:?}",
            processes_in(dir.path())
        );
        agent.kill().expect("an agent to kill");
        agent.wait().expect("a killed agent");
        let took = wait_until("the task's end", || processes_in(dir.path()).is_empty());
        super::say(&format!(
            "{class}: the task was gone {took:?} after its agent"
        ));
    }
}

/// The next incarnation, once the kernel has let go of what the killed one held.
async fn reopened(dir: &Path) -> Runtime {
    let start = Instant::now();
    loop {
        match Runtime::open(config(dir.to_owned())).await {
            Ok(runtime) => return runtime,
            Err(error @ OpenError::Busy { .. }) => {
                assert!(start.elapsed() < PATIENCE, "{error}");
            }
            Err(error) => panic!("the next incarnation: {error}"),
        }
        // may sleep: a killed process lets go of its lock when the kernel has ended it
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_incarnation_sweeps_what_is_left() {
    let _one = ONE.lock().await;
    for class in offered().await {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .expect("own");
        let mut agent = start_agent(dir.path(), class);
        let shim = rustix::process::Pid::from_raw(shim_of(dir.path())).expect("a pid");
        // Both at once: nobody is left who could tidy up.
        rustix::process::kill_process(shim, rustix::process::Signal::STOP).expect("a shim");
        agent.kill().expect("an agent to kill");
        agent.wait().expect("a killed agent");
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).expect("a shim");
        let runtime = reopened(dir.path()).await;
        assert_eq!(runtime.swept().runs, ["victim-1"], "{class}");
        wait_until("the sweep", || processes_in(dir.path()).is_empty());
        assert!(
            !dir.path().join("task").exists(),
            "{class}: the task directory is left"
        );
        assert!(
            !dir.path().join("runs/victim-1.json").exists(),
            "{class}: the record is left"
        );
        let left = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(
            !left.contains(&dir.path().display().to_string()),
            "{class}: {left}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_killed_alone_is_noticed_and_its_task_killed() {
    let _one = ONE.lock().await;
    let ground = Ground::new().await;
    for class in ground.classes() {
        let mut spec = ground.spec("shimless", class, &["sleep", "4321"]);
        spec.job = "victim".to_owned();
        let running = ground.start(spec).await;
        let shim = rustix::process::Pid::from_raw(shim_of(&ground.dir.path().join("state")))
            .expect("a pid");
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).expect("a shim");
        let exit = super::bounded(running.wait()).await;
        assert!(
            matches!(exit.outcome, mutual_node::runtime::Outcome::Lost(_)),
            "{class}: {exit:?}"
        );
        wait_until("the task's end", || {
            processes_in(ground.dir.path()).is_empty()
        });
    }
}

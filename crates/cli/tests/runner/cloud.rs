//! A real cloud: `up`, everything a user does with it, and the demo.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Place, Ran};

/// A cloud in one process, gone with the test.
#[derive(Debug)]
struct Up {
    place: Place,
    child: Child,
    context: String,
    ready: serde_json::Value,
}

impl Drop for Up {
    fn drop(&mut self) {
        // Its standard input closes with us, so even a test that is killed leaves nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Up {
    fn start() -> Self {
        let place = Place::new();
        let arguments = [
            "--json",
            "up",
            "--any-port",
            "--until-stdin-closes",
            "--dir",
            "cloud",
        ];
        let mut child = place
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        if line.is_empty() {
            let mut words = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut words)
                .unwrap();
            panic!("up ended: {words}");
        }
        let document: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self {
            context: document["context"].as_str().unwrap().to_owned(),
            ready: document["node"].clone(),
            place,
            child,
        }
    }

    /// Asks again until the answer holds, or fails after a while.
    fn until(
        &self,
        arguments: &[&str],
        holds: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let since = Instant::now();
        loop {
            let answer = self.run(arguments).json();
            if holds(&answer) {
                return answer;
            }
            assert!(since.elapsed() < PATIENCE, "{answer}");
            // may sleep: polls for the event, with a bound
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.place
            .run(&[&["--context", &self.context], arguments].concat())
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

const SCRIPT: &str = "echo to out; echo to err >&2; sort \"$MUTUAL_INPUT/words\" > \"$MUTUAL_OUTPUT/sorted\"; exit $CODE";

#[test]
fn a_task_goes_in_and_its_result_comes_out() {
    let up = Up::start();
    up.place.write("data/words", "pear\napple\n");
    let ran = up.run(&[
        "run", "--name", "sort", "--input", "data", "--env", "CODE=0", "--output", "result", "--",
        "/bin/sh", "-c", SCRIPT,
    ]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "to out\n"),
        "{}",
        ran.all()
    );
    assert!(ran.stderr.contains("to err\n"), "{}", ran.all());
    let sorted = std::fs::read_to_string(up.place.path("result/sorted")).unwrap();
    assert_eq!(sorted, "apple\npear\n");

    let jobs = up.run(&["--json", "ls"]).json();
    let job = jobs["jobs"][0]["job"].as_str().unwrap().to_owned();
    assert_eq!(jobs["jobs"][0]["state"], "succeeded");
    let shown = up.run(&["--json", "show", &job]).json();
    assert_eq!(shown["name"], "sort");
    assert_eq!(shown["result"]["artifacts"][0]["path"], "sorted");
    assert!(shown["input_cid"].is_string());

    let logs = up.run(&["logs", &job]);
    assert_eq!(
        (logs.code, logs.stdout.as_str()),
        (0, "to out\n"),
        "{}",
        logs.all()
    );
    let fetched = up.run(&["--json", "get", &job, "--output", "again"]).json();
    assert_eq!(fetched["cid"], shown["result"]["cid"]);
    assert!(up.place.path("again/sorted").exists());

    let nodes = up.run(&["--json", "nodes"]).json();
    assert_eq!(nodes["nodes"][0]["node"], up.ready["node"]);
}

/// An image with this machine's `cat` and a file, as an older `docker save` writes it.
const MAKE_IMAGE: &str = r#"
    mkdir -p root && for file in /bin/cat $(ldd /bin/cat | grep -o '/[^ ]*'); do cp -L --parents "$file" root; done
    echo from the image > root/greeting && chmod -R a+rX root && tar -C root -cf layer.tar . &&
    echo '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}' > config.json &&
    echo '[{"Config":"config.json","Layers":["layer.tar"]}]' > manifest.json &&
    tar -cf image.tar config.json manifest.json layer.tar"#;

#[test]
fn a_task_runs_in_an_image_of_ones_own() {
    let up = Up::start();
    let made = std::process::Command::new("sh")
        .args(["-ec", MAKE_IMAGE])
        .current_dir(up.place.path(""))
        .status();
    assert!(made.unwrap().success());
    let added = up.run(&["--json", "image", "add", "image.tar"]).json();
    assert_eq!(added["copies"], 1);
    let image = added["image"].as_str().unwrap();
    let ran = up.run(&["run", "--image", image, "--", "cat", "/greeting"]);
    if ran.all().contains("ask for class container") {
        // No containers here, and class process takes no image: it said so.
        return assert_ne!(ran.code, 0);
    }
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "from the image\n"),
        "{}",
        ran.all()
    );
    let refused = up.run(&["image", "add", "layer.tar"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("not an OCI image"),
        "{}",
        refused.all()
    );
}

#[test]
fn a_failed_task_ends_the_program_as_it_ended() {
    let up = Up::start();
    up.place.write("words", "x\n");
    let ran = up.run(&[
        "run",
        "--input",
        "words",
        "--env",
        "CODE=7",
        "--retries",
        "0",
        "--",
        "/bin/sh",
        "-c",
        SCRIPT,
    ]);
    assert_eq!(ran.code, 7, "{}", ran.all());
    let none = up.run(&["run", "--retries", "0", "--", "/no/such/program"]);
    assert_eq!(none.code, 1, "{}", none.all());
}

#[test]
fn a_job_that_fits_nowhere_is_explained_and_cancelled() {
    let up = Up::start();
    let ran = up.run(&["run", "--detach", "--memory", "1TiB", "--", "true"]);
    let job = ran.stdout.trim().to_owned();
    let explained = up.until(&["--json", "explain", &job], |explained| {
        explained["machines"]
            .as_array()
            .is_some_and(|machines| !machines.is_empty())
    });
    assert_eq!(explained["state"], "queued");
    let why = explained["machines"][0]["unfit"].to_string();
    assert!(why.contains("memory"), "{explained}");
    assert_eq!(up.run(&["cancel", &job, "--reason", "too big"]).code, 0);
    let shown = up.run(&["--json", "show", &job]).json();
    assert_eq!(
        (&shown["state"], &shown["reason"]),
        (&"cancelled".into(), &"cancelled: too big".into())
    );
}

#[test]
fn a_dead_control_is_passed_over() {
    let up = Up::start();
    let control = up.ready["control_url"].as_str().unwrap();
    for controls in [
        format!("http://127.0.0.1:1,{control}"),
        "http://127.0.0.1:1".to_owned(),
    ] {
        let mut command =
            up.place
                .command(&["--context", &up.context, "run", "--", "echo", "hello"]);
        let output = command.env("MUTUAL_CONTROL", controls).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.stdout, b"hello\n");
    }
}

#[test]
fn the_demo_verifies_everything_in_time() {
    let place = Place::new();
    for number in 0..60 {
        place.write(
            &format!("input/{}/file {number}", number % 7),
            &"line\n".repeat(number),
        );
    }
    verify_demo(&place, "9");
}

#[test]
fn the_demo_needs_neither_many_files_nor_many_tasks() {
    let place = Place::new();
    place.write("input/alone", "one line\n");
    verify_demo(&place, "6");
}

fn verify_demo(place: &Place, tasks: &str) {
    let since = Instant::now();
    let ran = place.run(&["--json", "demo", "--input", "input", "--tasks", tasks]);
    assert_eq!(ran.code, 0, "{}", ran.all());
    assert!(
        ran.stdout.trim_end().ends_with(r#"{"verified":true}"#),
        "{}",
        ran.all()
    );
    assert!(since.elapsed() < Duration::from_secs(120));
}

/// A demo that has submitted its tasks, with its scratch directory in `tmp` of the place. Its output
/// must stay open: a program whose reader has gone ends.
fn demo_under_way(place: &Place) -> (Child, BufReader<ChildStdout>) {
    std::fs::create_dir_all(place.path("tmp")).unwrap();
    place.write("input/alone", "one line\n");
    let mut child = place
        .command(&["--json", "demo", "--input", "input", "--tasks", "6"])
        .env("TMPDIR", place.path("tmp"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = output.by_ref().lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("submitted")));
    (child, output)
}

/// Waits until no process has the place's path in its command line.
fn all_gone(place: &Place) {
    let path = place.path("tmp").to_str().unwrap().to_owned();
    let mentions = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&path)
    };
    let since = Instant::now();
    while std::fs::read_dir("/proc").unwrap().flatten().any(mentions) {
        assert!(since.elapsed() < PATIENCE, "processes are left");
        // may sleep: polls for the event, with a bound
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn left_in_tmp(place: &Place) -> usize {
    std::fs::read_dir(place.path("tmp")).unwrap().count()
}

#[test]
fn an_interrupted_demo_cleans_up_and_so_does_the_one_after_a_killed_one() {
    let place = Place::new();
    let (mut killed, _) = demo_under_way(&place);
    killed.kill().unwrap();
    killed.wait().unwrap();
    all_gone(&place);
    assert!(left_in_tmp(&place) >= 1);

    let (interrupted, _output) = demo_under_way(&place);
    let pid = Pid::from_child(&interrupted);
    kill_process(pid, Signal::INT).unwrap();
    let output = interrupted.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("interrupted; everything is cleaned up"),
        "{words}"
    );
    all_gone(&place);
    assert_eq!(left_in_tmp(&place), 0);
}

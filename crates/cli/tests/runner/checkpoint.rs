//! The example task: counts, is saved on request, and goes on elsewhere when its machine dies.

use super::lab::Lab;

const ANN: &str = "ann/context.toml";
const JOB: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/checkpoint/job.toml"
);
const DEMAND: &str = "[demand]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\n";
const AGENTS: &str = "[agent]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\ncpus = 2\n\
                      memory = \"1GiB\"\ntasks = 4\nprocess_for = [\"lab\"]\npoll = \"100ms\"\n";

#[test]
fn the_example_goes_on_where_its_last_checkpoint_stood() {
    let mut lab = Lab::start(2, DEMAND, AGENTS);
    // Saved on request only, so that what it must find again is known.
    let flags = ["--checkpoint", "1h", "--env", "COUNT_TO=40"];
    let submitted = lab.run(ANN, &[&["submit", JOB][..], &flags].concat());
    assert_eq!(submitted.code, 0, "{}", submitted.all());
    let job = submitted.stdout.trim().to_owned();
    let show = ["--json", "show", &job];
    lab.until(ANN, &show, |shown| shown["state"] == "running");
    lab.until_says(ANN, &["logs", &job], "10\n");
    let saved = lab.run(ANN, &["--json", "checkpoint", &job]).json();
    assert_eq!(saved["sequence"], 1);
    assert_eq!(saved["copies"].as_array().unwrap().len(), 1);
    let shown = lab.run(ANN, &show).json();
    assert_eq!(shown["checkpoints"][0]["cid"], saved["cid"]);
    let words = lab.run(ANN, &["show", &job]).all();
    assert!(words.contains("checkpoint 1 of attempt 1"), "{words}");

    let holder = shown["attempts"][0]["agent"].as_str().unwrap();
    lab.agent(holder).kill();
    let ended = lab.until(ANN, &show, |shown| shown["state"] == "succeeded");
    assert_eq!(ended["attempts"].as_array().unwrap().len(), 2, "{ended}");
    assert_ne!(ended["attempts"][1]["agent"], holder);
    let log = lab.run(ANN, &["logs", &job]).stdout;
    let words = "attempt 2 goes on at ";
    let at = log.lines().find_map(|line| line.strip_prefix(words));
    let at: u32 = at.unwrap_or_else(|| panic!("{log}")).parse().unwrap();
    assert!((10..40).contains(&at), "{log}");
    assert!(!log.contains("\n9\n"), "it began again: {log}");
    let got = lab.run(ANN, &["get", &job, "--output", "got"]);
    assert_eq!(got.code, 0, "{}", got.all());
    let count = std::fs::read_to_string(lab.place.path("got/count")).unwrap();
    assert_eq!(count, "40\n");
    let late = lab.run(ANN, &["checkpoint", &job]);
    assert_eq!(late.code, 64, "{}", late.all());
}

//! What still works while servers are dead.

use super::lab::Lab;

const ANN: &str = "ann/context.toml";
const ACCEPTED: &str = "mutual_agent_offers_total{kind=\"accepted\"}";
/// Agents that hardly ever ask by themselves.
const SHY: &str = "[agent]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\ncpus = 2\n\
                   memory = \"1GiB\"\ntasks = 4\nprocess_for = [\"lab\"]\npoll = \"1h\"\n";
const OFFERING: &str =
    "[demand]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\noffers = true\n";
const SILENT: &str =
    "[demand]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\noffers = false\n";

/// Nobody is left to offer the job but the program that submits it.
#[test]
fn with_control_dead_the_command_line_offers_the_job_itself() {
    let mut lab = Lab::start(2, SILENT, SHY);
    lab.control.kill();
    assert_eq!(lab.counted(ACCEPTED), 0);
    let ran = lab.run(ANN, &["run", "--cpus", "0.5", "--", "echo", "hello"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "hello\n"),
        "{}",
        ran.all()
    );
    assert!(lab.counted(ACCEPTED) >= 1);
    assert_eq!(lab.counted("mutual_agent_claims_won_total"), 1);
}

#[test]
fn with_control_and_store_dead_a_result_is_found_and_opened_by_its_owner_alone() {
    let mut lab = Lab::start(3, OFFERING, SHY);
    lab.user("bob");
    let script = "echo precious > \"$MUTUAL_OUTPUT/answer\"";
    let submit = [
        "run", "--detach", "--cpus", "0.5", "--", "/bin/sh", "-c", script,
    ];
    let submitted = lab.run(ANN, &submit);
    assert_eq!(submitted.code, 0, "{}", submitted.all());
    let job = submitted.stdout.trim().to_owned();
    let show = ["--json", "show", &job];
    let in_dht = |shown: &serde_json::Value| {
        shown["state"] == "succeeded" && shown["result"]["cid"].is_string()
    };
    for user in ["ann", "bob"] {
        // Each meets the agents too, and will find them when the bootstrap peers are gone.
        lab.until(&format!("{user}/cut-off.toml"), &show, in_dht);
    }
    let cid = lab.run(ANN, &show).json()["result"]["cid"].clone();

    lab.control.kill();
    lab.demand.kill();
    let shown = lab.until(ANN, &show, in_dht);
    assert_eq!(shown["result"]["cid"], cid);
    assert_eq!(shown["possibly_old"], true);
    let got = lab
        .run(ANN, &["--json", "get", &job, "--output", "got"])
        .json();
    assert_eq!(got["cid"], cid);
    let answer = std::fs::read_to_string(lab.place.path("got/answer")).unwrap();
    assert_eq!(answer, "precious\n");

    let stolen = lab.run("bob/context.toml", &["get", &job, "--output", "stolen"]);
    assert_eq!(stolen.code, 64, "{}", stolen.all());
    assert!(stolen.stderr.contains("another key"), "{}", stolen.all());
    assert!(!lab.place.path("stolen").exists());
}

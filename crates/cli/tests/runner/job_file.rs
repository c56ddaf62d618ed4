//! Job files: good ones pass whole, bad ones are pointed at.

use std::fmt::Write as _;

use crate::program::Place;

const GOOD: &str = r#"
name = "count"
command = ["/bin/sh", "-c", "wc -l $MUTUAL_INPUT/* > $MUTUAL_OUTPUT/lines"]
inputs = ["data"]
outputs = ["lines"]
cpus = 0.5
memory = "1GiB"
timeout = "10m"
array = "1-2"
on_disconnect = "finish"
[env]
LANG = "C"
"#;

#[test]
fn a_good_file_passes() {
    let place = Place::new();
    place.write("job.toml", GOOD);
    insta::assert_snapshot!(place.run(&["submit", "--check", "job.toml"]).all());
    let tasks = place
        .run(&["submit", "--check", "--json", "--retries", "0", "job.toml"])
        .json();
    assert_eq!(tasks["tasks"][1]["array"]["index"], 2);
    assert_eq!(tasks["tasks"][0]["retries"], 0);
    assert_eq!(tasks["tasks"][0]["resources"]["cpu_millis"], 500);
}

#[test]
fn bad_files_are_pointed_at() {
    let place = Place::new();
    let mut table = String::new();
    for text in [
        "",
        "command = []",
        "command = \"ls\"",
        "command = [\"ls\"]\ncolour = \"red\"",
        "command = [\"ls\"]\ncpus = 0",
        "command = [\"ls\"]\ncpus = -1.5",
        "command = [\"ls\"]\ncpus = nan",
        "command = [\"ls\"]\nmemory = \"lots\"",
        "command = [\"ls\"]\nmemory = \"1KiB\"",
        "command = [\"ls\"]\nmemory = \"9EiB\"",
        "command = [\"ls\"]\ntimeout = \"soon\"",
        "command = [\"ls\"]\ntimeout = \"0s\"",
        "command = [\"ls\"]\nretries = -1",
        "command = [\"ls\"]\npriority = 101",
        "command = [\"ls\"]\narray = 0",
        "command = [\"ls\"]\narray = \"2-8\"",
        "command = [\"ls\"]\nimage = \"ubuntu\"",
        "command = [\"ls\"]\nclass = \"jail\"",
        "command = [\"ls\"]\nnamespace = \"My Lab\"",
        "command = [\"ls\"]\noutputs = [\"ok\", \"[\"]",
        "command = [\"ls\"]\noutputs = [\"../*\"]",
        "command = [\"ls\"]\noutputs = [\"/etc/*\"]",
        "command = [\"ls\"]\n[env]\nMUTUAL_JOB = \"x\"",
        "command = [\"ls\"]\n[env]\n\"A=B\" = \"x\"",
        "command = [\"ls",
    ] {
        place.write("job.toml", text);
        let ran = place.run(&["submit", "--check", "job.toml"]);
        assert_eq!(ran.code, 64, "{text}: {}", ran.all());
        writeln!(
            table,
            "{text}\n{}",
            ran.stderr.replace("\n", "\n    ").trim_end()
        )
        .unwrap();
        table.push('\n');
    }
    insta::assert_snapshot!(table);
}

#[test]
fn other_bytes_are_no_job_file() {
    let place = Place::new();
    std::fs::write(place.path("job.toml"), b"command = [\"\xff\"]").unwrap();
    insta::assert_snapshot!(place.run(&["submit", "job.toml"]).all());
    insta::assert_snapshot!(place.run(&["submit", "absent.toml"]).all());
    insta::assert_snapshot!(place.run(&["submit", "/dev/zero"]).all());
}

//! What a cloud of real processes does with bad credentials, bad tasks and a full disk: a clear
//! word, an exit code, and nothing half-stored.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use super::lab::Lab;

const ANN: &str = "ann/context.toml";
const WILLING: &str = "[agent]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\ncpus = 2\n\
                       memory = \"1GiB\"\ntasks = 4\nprocess_for = [\"lab\"]\n";
const DEMAND: &str = "[demand]\nlisten = \"127.0.0.1:0\"\nliveness = \"127.0.0.1:0\"\n";
const SMALL: [&str; 5] = ["run", "--cpus", "0.25", "--retries", "0"];

fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

/// Runs something and expects a refusal with this code that says all of `words`.
#[track_caller]
fn refused(lab: &Lab, context: &str, arguments: &[&str], code: i32, words: &[&str]) {
    let ran = lab.run(context, arguments);
    assert_eq!(ran.code, code, "{}", ran.all());
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "{word:?} is not in:\n{}",
            ran.all()
        );
    }
}

#[track_caller]
fn nothing_is_stored(lab: &Lab) {
    let jobs = lab.run(ANN, &["--json", "ls"]).json();
    assert_eq!(jobs["jobs"], serde_json::json!([]));
}

#[test]
fn credentials_that_do_not_do() {
    let lab = Lab::start(0, DEMAND, "");
    let run = ["run", "--", "true"];
    lab.user_with("reader", "org", &["--right", "read"]);
    let may_not = ["right", "org token"];
    refused(&lab, "reader/context.toml", &run, 64, &may_not);
    lab.user_with("gone", "org", &["--valid", "1s"]);
    lab.until_refused("gone/context.toml", &["ls"], 64, "expired");
    let other = ["org", "create", "lab", "--dir", "other"];
    assert_eq!(lab.place.run(&other).code, 0);
    lab.user_with("stranger", "other", &[]);
    refused(&lab, "stranger/context.toml", &["ls"], 64, &["trusted"]);
    let elsewhere = ["run", "--namespace", "elsewhere", "--", "true"];
    refused(&lab, ANN, &elsewhere, 64, &["elsewhere"]);

    lab.place.write("ann/token", "no token at all");
    refused(&lab, ANN, &["ls"], 64, &["token"]);
    let token = std::fs::read(lab.place.path("reader/token")).unwrap();
    std::fs::write(lab.place.path("ann/token"), token).unwrap();
    nothing_is_stored(&lab);
    lab.place.write("ann/user.key", "no key at all");
    let with_input = ["run", "--input", "org", "--", "true"];
    refused(&lab, ANN, &with_input, 78, &["user.key"]);
}

#[test]
fn tasks_that_cannot_be_run() {
    let lab = Lab::start(2, DEMAND, WILLING);
    for (arguments, field) in [
        (["--cpus", "0"], "cpus"),
        (["--gpus", "4000000000"], "gpus"),
        (["--memory", "8EiB"], "memory"),
        (["--timeout", "0s"], "timeout"),
        (["--priority", "101"], "priority"),
        (["--result-copies", "99"], "result_copies"),
        (["--output-glob", "../*"], "outputs[0]"),
        (["--input", "absent"], "absent"),
    ] {
        let arguments = [&["run"], &arguments[..], &["--", "true"]].concat();
        refused(&lab, ANN, &arguments, 64, &[field]);
    }
    nothing_is_stored(&lab);

    let absent = small(&["--", "/no/such/program"]);
    refused(&lab, ANN, &absent, 1, &["/no/such/program", "not found"]);
    let directory = small(&["--", "/usr"]);
    refused(&lab, ANN, &directory, 1, &["/usr", "may not be executed"]);
    let nowhere = small(&["--image", "oci:127.0.0.1:1/none:1", "--", "true"]);
    refused(&lab, ANN, &nowhere, 1, &["image"]);
    lab.place.write("data/file", "no image");
    let seeded = small(&["--input", "data", "--", "true"]);
    assert_eq!(lab.run(ANN, &seeded).code, 0);
    let jobs = lab.run(ANN, &["--json", "ls", "--limit", "1"]).json();
    let job = jobs["jobs"][0]["job"].as_str().unwrap().to_owned();
    let shown = lab.run(ANN, &["--json", "show", &job]).json();
    let image = format!("cid:{}", shown["input_cid"].as_str().unwrap());
    let no_image = small(&["--image", &image, "--", "true"]);
    refused(&lab, ANN, &no_image, 1, &["image"]);
}

#[test]
fn names_that_are_no_text_and_a_disk_that_is_full() {
    let lab = Lab::start(2, DEMAND, WILLING);
    let odd = OsStr::from_bytes(b"caf\xe9 \n'x");
    lab.place.write("data/plain", &"x".repeat(300_000));
    std::fs::write(lab.place.path("data").join(odd), "odd").unwrap();
    let script = "cp -r \"$MUTUAL_INPUT/.\" \"$MUTUAL_OUTPUT\"; \
                  ln -s /etc/passwd \"$MUTUAL_OUTPUT/link\"";
    let run = [
        "--input", "data", "--output", "out", "--", "sh", "-c", script,
    ];
    let ran = lab.run(ANN, &small(&run));
    assert_eq!(ran.code, 0, "{}", ran.all());
    let found = std::fs::read_to_string(lab.place.path("out").join(odd)).unwrap();
    assert_eq!(found, "odd");
    let link = std::fs::read_link(lab.place.path("out/link")).unwrap();
    assert_eq!(link, std::path::Path::new("/etc/passwd"));

    let jobs = lab.run(ANN, &["--json", "ls"]).json();
    let job = jobs["jobs"][0]["job"].as_str().unwrap();
    let full = lab.run(ANN, &["get", job, "--output", "out"]);
    assert_eq!(full.code, 64, "{}", full.all());
    if std::env::var_os("MUTUAL_SKIP_NETNS").is_some() {
        eprintln!("left out: a full disk needs `unshare`");
        return;
    }
    std::fs::create_dir(lab.place.path("tiny")).unwrap();
    let script = "mount -t tmpfs -o size=64k tiny tiny && \"$0\" --context \"$1\" get \"$2\" \
                  --output tiny; code=$?; ls -A tiny; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script]);
    command.args([env!("CARGO_BIN_EXE_mutual"), ANN, job]);
    let output = command.current_dir(lab.place.path("")).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{words}");
    assert!(words.contains("No space left"), "{words}");
    // Nothing was printed by `ls` either.
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
}

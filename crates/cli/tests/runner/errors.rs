//! What goes wrong says so: kind, hint, exit code, for people and for programs.

use crate::program::Place;

const CONTEXT: &str = r#"
namespace = "home"
control = ["http://127.0.0.1:1"]
demand = ["http://127.0.0.1:1"]
token_file = "token"
key_file = "user.key"
"#;

#[test]
fn without_a_cloud_the_way_to_one_is_shown() {
    let place = Place::new();
    insta::assert_snapshot!(place.run(&["ls"]).all());
    insta::assert_snapshot!(place.run(&["--json", "ls"]).all());
}

#[test]
fn nobody_there() {
    let place = Place::new();
    place.write("context.toml", CONTEXT);
    place.write("token", "abc");
    insta::assert_snapshot!(place.run(&["--context", "context.toml", "ls"]).all());
}

#[test]
fn a_bad_context_is_pointed_at() {
    let place = Place::new();
    let context = place.write(
        "context.toml",
        &CONTEXT.replace("http://127.0.0.1:1\"]\nd", "nowhere\"]\nd"),
    );
    let context = context.to_str().unwrap();
    insta::assert_snapshot!(place.run(&["--context", context, "ls"]).all());
    place.write("context.toml", &CONTEXT.replace("key_file", "keyfile"));
    insta::assert_snapshot!(place.run(&["--context", context, "ls"]).all());
}

#[test]
fn a_bad_control_variable_is_named() {
    let place = Place::new();
    place.write("context.toml", CONTEXT);
    let mut command = place.command(&["--context", "context.toml", "ls"]);
    let output = command
        .env("MUTUAL_CONTROL", "http://127.0.0.1:1,/etc/passwd")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    insta::assert_snapshot!(stderr);
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn wrong_usage() {
    let place = Place::new();
    insta::assert_snapshot!(place.run(&["show", "not-a-job"]).all());
    insta::assert_snapshot!(place.run(&["run", "--memory", "much", "--", "true"]).all());
    insta::assert_snapshot!(place.run(&["ls", "--state", "done"]).all());
}

#[test]
fn a_bad_node_file_starts_nothing() {
    let place = Place::new();
    place.write(
        "node.toml",
        "name = \"a\"\ndata_dir = \"d\"\nroles = [\"king\"]\ntrusted_organisations = []\n",
    );
    insta::assert_snapshot!(place.run(&["node", "--config", "node.toml"]).all());
    assert!(!place.path("d").exists());
    insta::assert_snapshot!(place.run(&["node", "--config", "absent.toml"]).all());
}

#[test]
fn nodes_of_one_process_need_directories_of_their_own() {
    let place = Place::new();
    let key = "ab".repeat(32);
    let file = |name: &str, dir: &str| {
        let text = format!(
            "name = \"{name}\"\ndata_dir = \"{dir}\"\nroles = [\"seeder\"]\ntrusted_organisations = [\"{key}\"]\n"
        );
        place.write(&format!("{name}.toml"), &text);
    };
    file("a", "d");
    file("b", "d");
    let both = [
        "node", "--check", "--config", "a.toml", "--config", "b.toml",
    ];
    let refused = place.run(&both);
    assert_eq!(refused.code, 78, "{}", refused.all());
    assert!(
        refused
            .stderr
            .contains("a and b both keep their state in DIR/d"),
        "{}",
        refused.all()
    );
    file("b", "e");
    let checked = place.run(&both);
    assert_eq!(checked.code, 0, "{}", checked.all());
    assert_eq!(checked.stdout, "a.toml: in order\nb.toml: in order\n");
}

#[test]
fn a_directory_for_a_result_must_be_empty() {
    let place = Place::new();
    place.write("out/file", "x");
    let job = "01890a5d-ac96-774b-bcce-b302099a8057";
    insta::assert_snapshot!(place.run(&["get", job, "--output", "out"]).all());
}

//! The command reference: the help of every command, as one snapshot.

use crate::program::Place;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["demo"],
    &["up"],
    &["node"],
    &["run"],
    &["submit"],
    &["ls"],
    &["show"],
    &["logs"],
    &["get"],
    &["cancel"],
    &["nodes"],
    &["explain"],
    &["image"],
    &["image", "add"],
    &["org"],
    &["org", "create"],
    &["org", "invite"],
    &["org", "join"],
    &["org", "sign"],
    &["org", "token"],
    &["store"],
    &["store", "new-epoch"],
    &["store", "info"],
    &["stage"],
    &["stage", "solve"],
    &["stage", "check"],
    &["stage", "gen"],
    &["stage", "bench"],
    &["experiment"],
    &["experiment", "staging"],
    &["experiment", "scale"],
    &["experiment", "faults"],
    &["experiment", "spof"],
    &["completions"],
];

#[test]
fn command_reference() {
    let place = Place::new();
    let mut reference = String::new();
    for command in COMMANDS {
        let ran = place.run(&[command, &["--help"][..]].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        reference.push_str(&format!(
            "===== mutual {}\n{}\n",
            command.join(" "),
            ran.stdout
        ));
    }
    insta::assert_snapshot!(reference);
}

#[test]
fn completions_exist_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = place.run(&["completions", shell]);
        assert_eq!(ran.code, 0, "{}", ran.all());
        assert!(ran.stdout.contains("mutual"), "{shell}");
    }
}

//! Organisations: made, joined over a wire and without one, and never overwritten.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::program::Place;

fn create(place: &Place) -> String {
    let made = place
        .run(&["--json", "org", "create", "lab", "--dir", "org"])
        .json();
    made["key"].as_str().unwrap().to_owned()
}

#[test]
fn an_organisation_is_made_once_with_a_private_key() {
    let place = Place::new();
    create(&place);
    let mode = std::fs::metadata(place.path("org/org.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    insta::assert_snapshot!(place.run(&["org", "create", "lab", "--dir", "org"]).all());
    insta::assert_snapshot!(place.run(&["org", "create", "My Lab", "--dir", "b"]).all());
}

#[test]
fn an_invitation_admits_one_machine() {
    let place = Place::new();
    create(&place);
    let mut inviting = place
        .command(&["--json", "org", "invite", "--name", "box", "--dir", "org"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(inviting.stdout.take().unwrap()).lines();
    let first: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let invitation = first["invitation"].as_str().unwrap().to_owned();
    let joined = place
        .run(&["--json", "org", "join", &invitation, "--dir", "node"])
        .json();
    let admitted: serde_json::Value =
        serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(joined, admitted);
    assert_eq!(joined["name"], "box");
    assert!(inviting.wait().unwrap().success());
    assert!(place.path("node/node.cert").exists());
    let again = place.run(&["org", "join", &invitation, "--dir", "other"]);
    assert_eq!(again.code, 69, "{}", again.all());
}

#[test]
fn a_machine_without_a_wire_joins_by_files() {
    let place = Place::new();
    let key = create(&place);
    let request = [
        "org",
        "join",
        "--request",
        "r",
        "--organisation",
        &key,
        "--dir",
        "node",
    ];
    assert_eq!(place.run(&request).code, 0);
    let sign = [
        "org", "sign", "r", "--name", "box", "--output", "cert", "--dir", "org",
    ];
    assert_eq!(place.run(&sign).code, 0);
    let join = [
        "--json",
        "org",
        "join",
        "--certificate",
        "cert",
        "--organisation",
        &key,
        "--dir",
        "node",
    ];
    assert_eq!(
        place.run(&join).json()["roles"],
        serde_json::json!(["agent", "seeder"])
    );
    let other = [
        "org",
        "join",
        "--certificate",
        "cert",
        "--organisation",
        &key,
        "--dir",
        "other",
    ];
    insta::assert_snapshot!(place.run(&other).all());
    std::fs::write(place.path("r"), "{}").unwrap();
    insta::assert_snapshot!(place.run(&sign).all());
}

#[test]
fn a_user_gets_a_directory_to_take_away() {
    let place = Place::new();
    create(&place);
    let token = ["org", "token", "ann", "--output", "ann", "--dir", "org"];
    assert_eq!(place.run(&token).code, 0);
    for (file, mode) in [
        ("user.key", 0o600),
        ("token", 0o600),
        ("context.toml", 0o644),
    ] {
        let metadata = std::fs::metadata(place.path("ann").join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{file}");
    }
    insta::assert_snapshot!(
        place
            .run(&["org", "token", "a b", "--output", "x", "--dir", "org"])
            .all()
    );
}

//! `mutual experiment` on real processes: few of them, and only what must hold on any machine.

use serde_json::Value;

use crate::program::Place;

/// Every task succeeded once, and nothing was left behind.
#[track_caller]
fn check_verdict(run: &Value, tasks: u64) {
    let verdict = &run["verdict"];
    assert_eq!(verdict["violations"], serde_json::json!([]), "{run}");
    for (field, expected) in [
        ("tasks", tasks),
        ("succeeded", tasks),
        ("accepted_duplicates", 0),
    ] {
        assert_eq!(verdict[field], expected, "{field} in {run}");
    }
}

/// Directories of experiments in a place.
fn left(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with("mutual-experiment-"))
        .collect()
}

/// Runs an experiment that is to hold, and gives its report; nothing of it is left afterwards.
fn report(place: &Place, arguments: &[&str]) -> Value {
    let mut command = place.command(&["--json", "experiment"]);
    let ran = command
        .args(arguments)
        .env("TMPDIR", place.path(""))
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&ran.stderr);
    let told = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{words}\n{told}");
    for dir in [place.path("").to_str().unwrap(), "/dev/shm"] {
        assert_eq!(left(dir), Vec::<String>::new(), "{dir}");
    }
    serde_json::from_str(&told).unwrap()
}

const FEW: [&str; 8] = [
    "--repeat", "1", "--tasks", "3", "--task", "1s", "--plot", "plots",
];

#[test]
fn killed_agents_lose_no_task_at_scale() {
    let place = Place::new();
    let report = report(&place, &[&["scale", "--agents", "3"], &FEW[..]].concat());
    let rows = report["rows"].as_array().unwrap();
    let settings: Vec<_> = rows.iter().map(|row| &row["setting"]).collect();
    assert_eq!(settings, ["saturated", "headroom"]);
    for row in rows {
        assert_eq!(
            (&row["agents"], &row["lost_agents"]),
            (&3.into(), &1.into())
        );
        let run = &row["runs"][0];
        check_verdict(run, 9);
        assert_eq!(run["verdict"]["overlaps"], 0, "{run}");
        assert_eq!(run["baseline"]["count"], 1);
        assert_eq!(run["recovery"]["eof"]["count"], 1);
        assert!(run["agent_mib"].as_u64().unwrap() > 0);
        assert!(run["at_work"]["packets_per_node_s"].as_f64().unwrap() > 0.0);
    }
    for plot in ["plots/scale.svg", "plots/scale.png"] {
        assert!(place.path(plot).exists());
    }
}

/// Long enough for everything that may take a verdict of silence, and a lease.
const BACK_AFTER: [&str; 4] = ["--how", "silenced", "--back-after", "25s"];

#[test]
fn silenced_agents_lose_no_task_and_come_back() {
    let place = Place::new();
    let half = [
        "faults",
        "--agents",
        "4",
        "--percent",
        "50",
        "--setting",
        "headroom",
    ];
    let report = report(&place, &[&half[..], &BACK_AFTER, &FEW].concat());
    let row = &report["rows"][0];
    assert_eq!(
        (&row["how"], &row["lost_agents"]),
        (&"silenced".into(), &2.into())
    );
    check_verdict(&row["runs"][0], 12);
    assert!(row["runs"][0]["baseline"].is_null());
    assert!(place.path("plots/faults-silenced.svg").exists());
}

/// Kills a server under fifty tasks of a few seconds, and brings it back.
#[track_caller]
fn check_survives(what: &str) {
    let place = Place::new();
    let once = [
        "spof", "--fast", "--repeat", "1", "--plot", "plots", "--what", what,
    ];
    let report = report(&place, &once);
    let row = &report["rows"][0];
    assert_eq!(row["what"], what);
    check_verdict(&row["runs"][0], 50);
    assert!(
        row["runs"][0]["samples"].as_array().unwrap().len() > 5,
        "{row}"
    );
    assert!(place.path(&format!("plots/spof-{what}.svg")).exists());
}

#[test]
fn control_and_three_agents_are_no_single_point_of_failure() {
    check_survives("control+agents");
}

#[test]
fn the_demand_server_is_no_single_point_of_failure() {
    check_survives("demand");
}

#[test]
fn a_postgres_primary_is_no_single_point_of_failure() {
    if std::env::var("MUTUAL_SKIP_POSTGRES").is_ok_and(|value| value == "1") {
        return eprintln!("SKIPPED: MUTUAL_SKIP_POSTGRES=1, so no primary is killed");
    }
    check_survives("postgres");
}

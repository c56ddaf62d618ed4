//! Whatever is wrong with what `mutual stage` is given is told with its place, and nothing panics.

use serde_json::json;

use crate::program::Place;

/// What each command line says about files of these contents.
fn all(command: &[&str], files: &[(&str, &[u8])]) -> String {
    let place = Place::new();
    let mut all = String::new();
    for (name, content) in files {
        std::fs::write(place.path(name), content).unwrap();
        let ran = place.run(&[command, &[*name][..]].concat());
        assert_eq!(ran.code, 64, "{name}: {}", ran.all());
        all.push_str(&ran.stderr);
    }
    all
}

const SOLVE: [&str; 4] = ["stage", "solve", "--model", "integral"];

#[test]
fn fields_that_are_missing_or_no_numbers_are_named() {
    let jobs = |job: &str| format!(r#"{{"capacity": 9, "jobs": [{job}]}}"#);
    let files = [
        ("cut.json", jobs(r#"{"id": 1, "size": 4"#)),
        ("empty.json", String::new()),
        ("list.json", "[]".to_owned()),
        ("no-jobs.json", r#"{"capacity": 9}"#.to_owned()),
        ("no-capacity.json", r#"{"jobs": []}"#.to_owned()),
        ("inner.json", r#"{"instance": {"capacity": 9}}"#.to_owned()),
        ("no-due.json", jobs(r#"{"id": 1, "size": 4, "weight": 1}"#)),
        (
            "id.json",
            jobs(r#"{"id": true, "size": 4, "due": 9, "weight": 1}"#),
        ),
        (
            "id-list.json",
            jobs(r#"{"id": [1], "size": 4, "due": 9, "weight": 1}"#),
        ),
        (
            "weight.json",
            jobs(r#"{"id": 1, "size": 4, "due": 9, "weight": "1"}"#),
        ),
        (
            "minus.json",
            jobs(r#"{"id": 1, "size": 4, "due": -9, "weight": 1}"#),
        ),
        (
            "heavy.json",
            jobs(r#"{"id": 1, "size": 4, "due": 9, "weight": 18446744073709551616}"#),
        ),
        (
            "extra.json",
            jobs(r#"{"id": 1, "size": 4, "due": 9, "weight": 1, "deu": 3}"#),
        ),
        ("deep.json", r#"{"instance": "#.repeat(1_000)),
    ];
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_bytes()))
        .collect();
    insta::assert_snapshot!(all(&SOLVE, &files));
}

#[test]
fn numbers_out_of_range_are_named() {
    let jobs = |job: &str| format!(r#"{{"capacity": 9, "jobs": [{job}]}}"#);
    let site = |more: &str| format!(r#"{{"capacity": 9, "jobs": [], {more}}}"#);
    let files = [
        (
            "nothing.json",
            jobs(r#"{"id": 1, "size": 0, "due": 9, "weight": 1}"#),
        ),
        (
            "large.json",
            jobs(r#"{"id": 1, "size": 4611686018427387905, "due": 9, "weight": 1}"#),
        ),
        (
            "late.json",
            jobs(r#"{"id": 1, "size": 4, "due": 18446744073709551615, "weight": 1}"#),
        ),
        (
            "at-once.json",
            jobs(r#"{"id": 1, "size": 4, "due": 9, "weight": 1, "load_time": 0}"#),
        ),
        ("no-stage.json", r#"{"capacity": 0, "jobs": []}"#.to_owned()),
        (
            "any-stage.json",
            r#"{"capacity": 18446744073709551615, "jobs": []}"#.to_owned(),
        ),
        (
            "full.json",
            site(r#""prestaged": [{"size": 5, "due": 1}, {"size": 5, "due": 2}]"#),
        ),
        ("unload.json", site(r#""unload": 18446744073709551615"#)),
        ("steps.json", site(r#""bandwidth": [[5, 1], [3, 2]]"#)),
        (
            "layers.json",
            jobs(r#"{"id": 1, "size": 4, "due": 9, "weight": 1, "layers": [["a", 1], ["b", 2]]}"#),
        ),
        (
            "image.json",
            jobs(
                r#"{"id": 1, "size": 4, "due": 9, "weight": 1, "image": "a"},
                {"id": 2, "size": 5, "due": 9, "weight": 1, "image": "a"}"#,
            ),
        ),
        (
            "twice.json",
            jobs(
                r#"{"id": "a", "size": 4, "due": 9, "weight": 1},
                {"id": "b", "size": 4, "due": 9, "weight": 1}, {"id": "a", "size": 5, "due": 9, "weight": 1}"#,
            ),
        ),
    ];
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, text.as_bytes()))
        .collect();
    insta::assert_snapshot!(all(&SOLVE, &files));
}

#[test]
fn other_bytes_are_no_instance() {
    let told = all(
        &SOLVE,
        &[
            ("raw.json", b"{\"capacity\": \xff}"),
            ("zero.json", &[0; 64]),
        ],
    );
    assert!(
        told.contains("raw.json: invalid utf-8") && told.contains("zero.json: expected value"),
        "{told}"
    );
    let place = Place::new();
    let ran = place.run(&[&SOLVE[..], &["missing.json"]].concat());
    assert_eq!(ran.code, 64, "{}", ran.all());
    assert!(
        ran.stderr.contains("missing.json: No such file"),
        "{}",
        ran.all()
    );
}

#[test]
fn jobs_that_cannot_be_served_say_why() {
    let place = Place::new();
    let job = |id, size: u64, due: u64, weight: u64| json!({"id": id, "size": size, "due": due, "weight": weight});
    let jobs = [
        job(json!("large"), 11, 90, 1),
        job(json!("soon"), 5, 4, 1),
        job(json!("now"), 5, 0, 1),
        job(json!("idle"), 5, 50, 0),
        job(json!(1), 5, 50, 7),
        job(json!("1"), 5, 60, 7),
        job(json!(-1), 1 << 62, 1 << 62, u64::MAX),
    ];
    place.write(
        "mixed.json",
        &json!({"capacity": 10, "jobs": jobs}).to_string(),
    );
    for model in ["continuous", "integral"] {
        let answer = place
            .run(&["--json", "stage", "solve", "mixed.json", "--model", model])
            .json();
        assert_eq!(answer["weight"], 14);
        assert_eq!(
            answer["rejected"],
            json!([
                {"id": "large", "reason": "the image of 11 is larger than the stage of 10"},
                {"id": "soon", "reason": "the load takes 5, which ends after the due date 4"},
                {"id": "now", "reason": "the load takes 5, which ends after the due date 0"},
                {"id": "idle", "reason": "its weight is 0"},
                {"id": -1, "reason": "the image of 4611686018427387904 is larger than the stage of 10"},
            ])
        );
    }
}

#[test]
fn schedules_that_are_none_are_refused() {
    let place = Place::new();
    let job = |id| json!({"id": id, "size": 4, "due": 9, "weight": u64::MAX});
    let instance = json!({"capacity": 9, "jobs": [job(1), job(2)]});
    place.write("instance.json", &instance.to_string());
    let check = |schedule: &str, more: &[&str]| {
        place.write("schedule.json", schedule);
        place.run(&[&["stage", "check", "instance.json", "schedule.json"], more].concat())
    };
    let integral = ["--model", "integral"];
    let mut told = String::new();
    for schedule in [
        "",
        "{}",
        "[1]",
        r#"[{"id": 1}]"#,
        r#"[{"id": 1, "start": -1}]"#,
        r#"[{"id": 3, "start": 1}]"#,
        r#"[{"id": "1", "start": 1}]"#,
    ] {
        let ran = check(schedule, &integral);
        assert_eq!(ran.code, 64, "{schedule}: {}", ran.all());
        told.push_str(&ran.stderr);
    }
    told.push_str(&check("[]", &[]).all());
    for schedule in [
        r#"[{"id": 1, "start": 0}, {"id": 1, "start": 4}]"#,
        r#"[{"id": 1, "start": 0}, {"id": 2, "start": 3}]"#,
        r#"[{"id": 1, "start": 18446744073709551615}]"#,
    ] {
        let ran = check(schedule, &integral);
        assert_eq!(ran.code, 1, "{schedule}: {}", ran.all());
        told.push_str(&ran.stdout);
    }
    let held = check(
        r#"[{"id": 1, "start": 0}, {"id": 2, "start": 5}]"#,
        &integral,
    );
    assert_eq!(held.code, 0, "{}", held.all());
    told.push_str(&held.stdout);
    insta::assert_snapshot!(told);
}

#[test]
fn instances_that_cannot_be_made_are_refused() {
    let place = Place::new();
    for wrong in [
        &["paper", "10000001"][..],
        &["paper", "-1"],
        &["paper", "1e3"],
        &["papers", "10"],
        &["paper", "10", "--capacity", "0"],
        &["paper", "10", "--seed", "18446744073709551616"],
    ] {
        let ran = place.run(&[&["stage", "gen"], wrong].concat());
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (64, ""),
            "{wrong:?}: {}",
            ran.all()
        );
    }
    let none = place.run(&["stage", "gen", "paper", "0"]);
    place.write("none.json", &none.stdout);
    let answer = place
        .run(&[
            "--json",
            "stage",
            "solve",
            "none.json",
            "--model",
            "integral",
        ])
        .json();
    assert_eq!(
        (&answer["weight"], &answer["schedule"]),
        (&json!(0), &json!([]))
    );
}

#[test]
fn columns_of_traces_are_read_or_pointed_at() {
    let place = Place::new();
    place.write("trace.csv", "at,bytes\n1,500000000\n2,many\n");
    let few = ["experiment", "staging", "--requests", "2", "--seeds", "1"];
    for (more, expected) in [
        (
            ["--sizes", "trace.csv:bytes"],
            "trace.csv: line 3: bytes is \"many\"",
        ),
        (
            ["--sizes", "trace.csv:size"],
            "trace.csv: there is no column size\nhint: columns: at, bytes",
        ),
        (["--sizes", "trace.csv"], "trace.csv: no column is named"),
        (["--times", "gone.csv:at"], "gone.csv: No such file"),
        (
            ["--times", "trace.csv:at"],
            "--times: 2 values are not enough for 2 requests",
        ),
        (["--load", "nan"], "--load NaN: it must be above 0"),
        (
            ["--capacities", "0"],
            "--capacities 0: from 0.001 to 10^9 GB",
        ),
    ] {
        let ran = place.run(&[&few[..], &more[..]].concat());
        assert_eq!(ran.code, 64, "{more:?}: {}", ran.all());
        assert!(ran.stderr.contains(expected), "{more:?}: {}", ran.all());
    }
}

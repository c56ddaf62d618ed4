//! `mutual stage` and `mutual experiment staging`: files in, schedules, pictures and tables out.

use serde_json::{Value, json};

use crate::program::Place;

/// Made by hand: three jobs of which the last two do not fit together.
const SMALL: &str = r#"{"capacity": 10, "jobs": [
    {"id": 1, "size": 4, "due": 6, "weight": 1},
    {"id": "b", "size": 9, "due": 18, "weight": 5},
    {"id": "c", "size": 8, "due": 19, "weight": 4},
    {"id": "large", "size": 11, "due": 90, "weight": 9}]}"#;

fn solved(place: &Place, arguments: &[&str]) -> Value {
    let ran = place.run(&[&["--json", "stage", "solve"], arguments].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{}", ran.all());
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn a_solution_has_everything_that_is_promised() {
    let place = Place::new();
    place.write("small.json", SMALL);
    let mut answer = solved(&place, &["small.json", "--model", "integral"]);
    for field in ["solve_ms", "elapsed_ms"] {
        assert!(answer[field].take().as_f64().unwrap() > 0.0);
    }
    let expected = json!({
        "model": "integral", "algorithm": "best", "weight": 6, "upper_bound": 6, "proved": true,
        "schedule": [{"id": 1, "start": 2}, {"id": "b", "start": 9}],
        "rejected": [
            {"id": "c", "reason": "no schedule of this weight has room for it"},
            {"id": "large", "reason": "the image of 11 is larger than the stage of 10"},
        ],
        "solve_ms": null, "elapsed_ms": null,
    });
    assert_eq!(answer, expected);
}

#[test]
fn what_is_solved_passes_the_check_and_what_is_wrong_does_not() {
    let place = Place::new();
    for kind in [
        "paper",
        "weighted",
        "general",
        "shared",
        "layers",
        "load-times",
        "prestaged",
        "bandwidth",
    ] {
        let made = place.run(&["stage", "gen", kind, "30", "--seed", "3"]);
        let file = place.write("instance.json", &made.stdout);
        assert_eq!(made.code, 0, "{}", made.all());
        for model in ["continuous", "integral"] {
            let answer = solved(
                &place,
                &["instance.json", "--model", model, "--budget", "2s"],
            );
            place.write("answer.json", &answer.to_string());
            let checked = place.run(&["--json", "stage", "check", "instance.json", "answer.json"]);
            assert_eq!(checked.code, 0, "{kind} {model}: {}", checked.all());
            let checked: Value = serde_json::from_str(&checked.stdout).unwrap();
            assert_eq!(checked["weight"], answer["weight"]);
            let mut wrong = answer["schedule"].clone();
            wrong[0]["start"] = json!(u64::MAX / 2);
            wrong[0]["start_bytes"] = json!(u64::MAX / 2);
            wrong[0].as_object_mut().unwrap().remove("layers");
            place.write("wrong.json", &wrong.to_string());
            let checked = place.run(&[
                "stage",
                "check",
                "instance.json",
                "wrong.json",
                "--model",
                model,
            ]);
            assert!(
                matches!(checked.code, 1 | 64),
                "{kind} {model}: {}",
                checked.all()
            );
        }
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn an_instance_may_lie_inside_another_document() {
    let place = Place::new();
    place.write(
        "wrapped.json",
        &format!(r#"{{"note": "any", "instance": {SMALL}}}"#),
    );
    assert_eq!(
        solved(&place, &["wrapped.json", "--model", "continuous"])["weight"],
        6
    );
}

#[test]
fn weights_beyond_64_bits_are_strings() {
    let place = Place::new();
    let job = |id: u64| json!({"id": id, "size": 1, "due": id, "weight": u64::MAX});
    let document = json!({"capacity": 5, "jobs": [job(1), job(2)]});
    place.write("heavy.json", &document.to_string());
    let answer = solved(&place, &["heavy.json", "--model", "continuous"]);
    assert_eq!(answer["weight"], (2 * u128::from(u64::MAX)).to_string());
}

#[test]
fn bad_files_are_pointed_at() {
    let place = Place::new();
    let job = r#"{"id": 1, "size": 4, "due": 6, "weight": 1}"#;
    let bad = [
        (
            "negative",
            r#"{"capacity": 10, "jobs": [{"id": 1, "size": -4, "due": 6, "weight": 1}]}"#
                .to_owned(),
        ),
        (
            "enormous",
            r#"{"capacity": 10, "jobs": [{"id": 1, "size": 1e30, "due": 6, "weight": 1}]}"#
                .to_owned(),
        ),
        (
            "empty-stage",
            format!(r#"{{"capacity": 0, "jobs": [{job}]}}"#),
        ),
        (
            "twice",
            format!(r#"{{"capacity": 9, "jobs": [{job}, {job}]}}"#),
        ),
        (
            "unknown",
            format!(r#"{{"capacity": 9, "jobs": [{job}], "prestagd": []}}"#),
        ),
        ("no-json", "capacity 9".to_owned()),
    ];
    let mut all = String::new();
    for (name, text) in bad {
        let file = format!("{name}.json");
        place.write(&file, &text);
        all.push_str(
            &place
                .run(&["stage", "solve", &file, "--model", "integral"])
                .all(),
        );
    }
    insta::assert_snapshot!(all);
}

#[test]
fn nothing_to_do_is_done() {
    let place = Place::new();
    place.write("none.json", r#"{"capacity": 10, "jobs": []}"#);
    let answer = solved(
        &place,
        &["none.json", "--model", "integral", "--plot", "none.svg"],
    );
    assert_eq!(
        (&answer["weight"], &answer["proved"]),
        (&json!(0), &json!(true))
    );
}

#[test]
fn a_plot_is_a_picture() {
    let place = Place::new();
    place.write("small.json", SMALL);
    solved(
        &place,
        &["small.json", "--model", "continuous", "--plot", "a.svg"],
    );
    solved(
        &place,
        &["small.json", "--model", "continuous", "--plot", "a.png"],
    );
    let svg = std::fs::read_to_string(place.path("a.svg")).unwrap();
    assert!(
        svg.starts_with("<svg")
            && svg.contains("capacity 10")
            && svg.contains("2 of 4 jobs served")
    );
    let png = std::fs::read(place.path("a.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    let refused = place.run(&[
        "stage",
        "solve",
        "small.json",
        "--model",
        "continuous",
        "--plot",
        "a.gif",
    ]);
    assert_eq!(refused.code, 64, "{}", refused.all());
}

#[test]
fn the_experiment_tells_tables_documents_and_pictures() {
    let place = Place::new();
    place.write("sizes.csv", "name,bytes\na,800000000\nb,2500000000\n");
    let few = [
        "--seeds",
        "2",
        "--requests",
        "40",
        "--budget",
        "2s",
        "--capacities",
        "4,8",
    ];
    let own = ["--sizes", "sizes.csv:bytes", "--weights", "--plot", "plots"];
    let ran = place.run(&[&["--json", "experiment", "staging"], &few[..], &own].concat());
    assert_eq!(ran.code, 0, "{}", ran.all());
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 2);
    for row in report["rows"].as_array().unwrap() {
        let reached = |name: &str| {
            let all = row["reached"].as_array().unwrap().iter();
            let one = all.clone().find(|one| one["algorithm"] == name).unwrap();
            one["percent"]["mean"].as_f64().unwrap()
        };
        assert!(reached("best found") >= reached("refilled"));
        assert!(reached("continuous") >= reached("best found"));
        assert!(reached("refilled") >= reached("forest"));
        assert!(reached("integral bound") >= reached("best found"));
        assert!(row["reached"][0]["percent"]["confidence"].as_f64().unwrap() >= 0.0);
        if row["proved"] == 2 {
            assert_eq!(row["optimum_percent"]["mean"], reached("best found"));
        }
    }
    assert!(place.path("plots/staging.svg").exists() && place.path("plots/staging.png").exists());
    let text = place.run(&[&["experiment", "staging"], &few[..]].concat());
    assert!(text.stdout.contains("backward EDD"), "{}", text.all());
    let missing = place.run(&["experiment", "staging", "--sizes", "sizes.csv:size"]);
    assert_eq!(missing.code, 64, "{}", missing.all());
}

#[test]
fn the_bench_prints_lines_or_a_document() {
    let place = Place::new();
    let few = [
        "stage",
        "bench",
        "--jobs",
        "1000",
        "--repeats",
        "1",
        "--budget",
        "50ms",
    ];
    let report = place.run(&[&["--json"], &few[..]].concat()).json();
    let rows = |name: &str| report[name].as_array().unwrap().len();
    assert_eq!((rows("growth"), rows("memory"), rows("files")), (3, 0, 0));
    assert_eq!(report["integral"][0]["goal_ms"]["below"], 1_000.0);
    assert_eq!(report["offers"]["goal_ms"]["below"], 5.0);
    for row in report["growth"].as_array().unwrap() {
        assert!(row["median_ms"].as_f64().unwrap() > 0.0, "{row}");
    }
    let text = place.run(&few);
    assert!(text.stdout.contains("goal < 5 ms"), "{}", text.all());
}

#[test]
fn a_process_measures_its_own_memory() {
    let place = Place::new();
    let measured = place
        .run(&["stage", "bench", "--memory-of", "50000"])
        .json();
    let bytes = |field: &str| measured[field].as_u64().unwrap();
    assert!(
        bytes("peak_bytes") > 50_000 && bytes("instance_bytes") > 50_000,
        "{measured}"
    );
}

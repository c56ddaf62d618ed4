//! Standard output and error.

use mutual_node::runtime::{Outcome, Stream};

use super::Ground;

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_apart_and_in_one_order() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let script = "for i in 1 2 3 4; do echo out$i; sleep 0.1; echo err$i >&2; sleep 0.1; done";
        let done = ground.run(ground.shell("order", class, script)).await;
        let seen: Vec<_> = done
            .pieces
            .iter()
            .map(|piece| (piece.stream, piece.bytes.to_vec()))
            .collect();
        let line = |stream, word: &str, i| (stream, format!("{word}{i}\n").into_bytes());
        let expected: Vec<_> = (1..=4)
            .flat_map(|i| {
                [
                    line(Stream::Stdout, "out", i),
                    line(Stream::Stderr, "err", i),
                ]
            })
            .collect();
        assert_eq!(seen, expected, "{class}");
        let numbers: Vec<_> = done.pieces.iter().map(|piece| piece.sequence).collect();
        assert_eq!(numbers, (0..8).collect::<Vec<_>>(), "{class}");
        assert!(done.pieces.is_sorted_by_key(|piece| piece.at_ms), "{class}");
        assert!(
            done.pieces[7].at_ms >= 600,
            "{class}: {}",
            done.pieces[7].at_ms
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_arrives_whole() {
    let ground = Ground::new().await;
    const BYTES: usize = 20_000_000;
    for class in ground.classes() {
        let script = format!("head -c {BYTES} /dev/zero; head -c {BYTES} /dev/zero >&2");
        let done = ground.run(ground.shell("much", class, &script)).await;
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pieces = done.pieces.iter().filter(|piece| piece.stream == stream);
            assert_eq!(
                pieces.map(|piece| piece.bytes.len()).sum::<usize>(),
                BYTES,
                "{class}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_may_open_its_own_output_by_name() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let done = ground
            .run(ground.shell(
                "named",
                class,
                "echo one > /dev/stdout; echo two > /dev/stderr",
            ))
            .await;
        if class == mutual_node::runtime::Class::Process && done.exit.outcome != Outcome::Code(0) {
            // Landlock allows opening a pipe only through rules that pipes cannot have.
            super::skipped("/dev/stdout in class process", "Landlock");
            continue;
        }
        assert_eq!(
            done.exit.outcome,
            Outcome::Code(0),
            "{class}: {}",
            done.text(Stream::Stderr)
        );
        assert_eq!(
            (done.stdout().as_str(), done.text(Stream::Stderr).as_str()),
            ("one\n", "two\n"),
            "{class}"
        );
    }
}

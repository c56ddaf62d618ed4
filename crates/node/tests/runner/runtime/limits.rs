//! Limits hold, and what is used is counted.

use std::time::Duration;

use mutual_node::runtime::{Class, Enforcement, Outcome};

use super::{Ground, skipped};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_and_its_end_told_apart() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let script = "x=$(head -c 300000000 /dev/zero | tr '\\0' x); sleep 1; echo survived";
        let mut spec = ground.shell("memory", class, script);
        spec.limits.memory_bytes = Some(64 * MIB);
        let done = ground.run(spec).await;
        assert_eq!(
            done.exit.outcome,
            Outcome::OutOfMemory,
            "{class}: {:?}",
            done.exit
        );
        assert!(!done.stdout().contains("survived"), "{class}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_within_the_limit_is_counted() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ${#x}";
        let mut spec = ground.shell("counted", class, script);
        spec.limits.memory_bytes = Some(512 * MIB);
        let done = ground.run(spec).await;
        assert_eq!(done.exit.outcome, Outcome::Code(0), "{class}");
        assert_eq!(done.stdout().trim(), "20000000", "{class}");
        assert!(
            done.exit.usage.mem_peak_bytes > 15 * MIB,
            "{class}: {:?}",
            done.exit.usage
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_is_bounded_and_counted() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let script = "i=0; while :; do i=$((i+1)); done";
        let mut spec = ground.shell("cpu", class, script);
        spec.limits.cpu_millis = Some(200);
        spec.limits.time = Some(Duration::from_secs(2));
        let done = ground.run(spec).await;
        assert_eq!(done.exit.outcome, Outcome::TimeLimit, "{class}");
        let usage = done.exit.usage;
        assert!(usage.cpu_avg > 0.05, "{class}: {usage:?}");
        let enforced = ground
            .runtime
            .offer()
            .class(class)
            .expect("an offered class")
            .limits
            .cpu;
        if matches!(enforced, Enforcement::CgroupV1 | Enforcement::CgroupV2) {
            assert!(usage.cpu_avg < 0.4, "{class}: {usage:?}");
        } else {
            skipped("a fraction of a processor", &enforced.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_bounded() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let script = "i=0; while [ $i -lt 200 ]; do sleep 3 & i=$((i+1)); done; wait; echo all";
        let mut spec = ground.shell("pids", class, script);
        spec.limits.pids = Some(16);
        let done = ground.run(spec).await;
        assert!(!done.stdout().contains("all"), "{class}: {:?}", done.exit);
        let stopped = matches!(done.exit.outcome, Outcome::Code(1..) | Outcome::PidsLimit);
        assert!(stopped, "{class}: {:?}", done.exit);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_directory_is_bounded() {
    let ground = Ground::new().await;
    for class in ground.classes() {
        let many =
            "i=0; while :; do head -c 1000000 /dev/zero > output/$i; i=$((i+1)); sleep 0.005; done";
        let one = "head -c 100000000 /dev/zero > output/one; kill -XFSZ $$";
        for (name, script) in [("many", many), ("one", one)] {
            let mut spec = ground.shell(name, class, script);
            spec.limits.scratch_bytes = Some(8 * MIB);
            let done = ground.run(spec).await;
            assert_eq!(done.exit.outcome, Outcome::ScratchLimit, "{class}: {name}");
        }
        let file = ground.dir.path().join(format!("one-{class}/output/one"));
        assert!(
            std::fs::metadata(file).expect("a cut file").len() <= 8 * MIB,
            "{class}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_offered_class_says_what_enforces_its_limits() {
    let ground = Ground::new().await;
    for offer in &ground.runtime.offer().classes {
        super::say(&format!(
            "{}: {:?} {:?}",
            offer.class, offer.limits, offer.notes
        ));
        let limits = offer.limits;
        for held in [
            limits.cpu,
            limits.memory,
            limits.pids,
            limits.scratch,
            limits.time,
        ] {
            assert_ne!(held, Enforcement::NotEnforced, "{}", offer.class);
        }
    }
    for absent in [Class::Vm, Class::Sandbox] {
        assert!(ground.runtime.offer().reason(absent).contains("containerd"));
    }
}

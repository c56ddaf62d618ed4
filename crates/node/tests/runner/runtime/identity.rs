//! The same suite as an ordinary user, and inside an unprivileged container.

use std::path::Path;
use std::process::Command;

use mutual_node::runtime::{Class, Outcome, Runtime, Stream};

use super::{Ground, config, is_root, skipped};

/// Set in the second round, so that it does not start a third.
const AGAIN: &str = "MUTUAL_TEST_ORDINARY_USER";
const INSIDE: &str = "MUTUAL_TEST_INSIDE";
/// Nobody.
const USER: &str = "65534";

#[test]
fn the_suite_passes_as_an_ordinary_user() {
    if std::env::var_os(AGAIN).is_some() || std::env::var_os(INSIDE).is_some() {
        return;
    }
    if !is_root() {
        return skipped("an ordinary user", "this is one already");
    }
    let test = std::env::current_exe().expect("this test");
    let output = Command::new("setpriv")
        .args(["--reuid", USER, "--regid", USER, "--clear-groups", "--"])
        .arg(&test)
        .args(["runtime::", "--nocapture", "--test-threads", "2"])
        .env(AGAIN, "1")
        .current_dir("/")
        .output();
    match output {
        Err(error) => skipped("an ordinary user", &format!("setpriv: {error}")),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            for line in text
                .lines()
                .filter(|line| line.contains("SKIPPED") || line.contains(": Enforcements"))
            {
                super::say(&format!("as an ordinary user: {line}"));
            }
            assert!(
                output.status.success(),
                "{}\n{text}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
    }
}

/// Not a test by itself: what an agent inside a container finds.
#[tokio::test(flavor = "multi_thread")]
async fn as_an_agent_inside_a_container() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let mut config = config("/mutual/output/state".into());
    config.shim = Some("/mutual/input/shim".into());
    let runtime = Runtime::open(config).await.expect("a runtime");
    let offer = runtime.offer();
    super::say(&format!(
        "inside: container: {}",
        offer.reason(Class::Container)
    ));
    assert!(
        offer.class(Class::Container).is_none(),
        "a container inside cannot make namespaces"
    );
    assert!(
        offer.reason(Class::Container).contains("user namespace"),
        "{}",
        offer.reason(Class::Container)
    );
    let process = offer.class(Class::Process);
    assert!(
        process.is_some(),
        "class process: {}",
        offer.reason(Class::Process)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_inside_a_container_offers_what_still_works() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let ground = Ground::new().await;
    if !ground.has(Class::Container) {
        return;
    }
    let argv = [
        "input/test",
        "--exact",
        "runtime::identity::as_an_agent_inside_a_container",
        "--nocapture",
    ];
    let mut spec = ground.spec("inside", Class::Container, &argv);
    let copy = |from: &Path, to: &str| std::fs::copy(from, spec.dir.join(to)).expect("a copy");
    copy(&std::env::current_exe().expect("this test"), "input/test");
    copy(Path::new(env!("CARGO_BIN_EXE_mutual-shim")), "input/shim");
    spec.env.insert(INSIDE.to_owned(), "1".to_owned());
    let done = ground.run(spec).await;
    let errors = done.text(Stream::Stderr);
    assert_eq!(
        done.exit.outcome,
        Outcome::Code(0),
        "{}\n{errors}",
        done.stdout()
    );
    let told = errors
        .lines()
        .find(|line| line.starts_with("inside: container:"));
    super::say(told.unwrap_or_else(|| panic!("{errors}")));
}

use super::*;

const KEY: &str = "abababababababababababababababababababababababababababababababab";

fn text(rest: &str) -> String {
    format!(
        "name = \"a\"\ndata_dir = \"data\"\nroles = [\"agent\"]\n\
         trusted_organisations = [\"{KEY}\"]\nknown_stores = [\"http://127.0.0.1:1\"]\n{rest}"
    )
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(NodeConfig::parse(text).unwrap_err().to_string(), expected);
}

#[test]
fn the_shortest_file_takes_every_default() {
    let config = NodeConfig::parse(&text("")).unwrap();
    assert_eq!(config.network, NetworkConfig::default());
    assert_eq!(config.key_path(), Path::new("data/node.key"));
    assert_eq!(
        config.demand.terms(),
        mutual_model::lease::LeaseTerms::default()
    );
}

#[test]
fn what_is_written_reads_back() {
    let mut config = NodeConfig::parse(&text("")).unwrap();
    config.agent.memory = Some(Size(1 << 30));
    config.agent.labels.insert("site".into(), "north".into());
    config.network.bootstrap = vec![format!("{KEY}@host.example:7600").parse().unwrap()];
    let written = config.to_toml().unwrap();
    assert_eq!(NodeConfig::parse(&written).unwrap(), config);
}

#[test]
fn relative_paths_start_at_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    fs::write(&path, text("[demand]\nsqlite = \"jobs.db\"\n")).unwrap();
    let config = NodeConfig::load(&path).unwrap();
    assert_eq!(config.data_dir, dir.path().join("data"));
    assert_eq!(config.demand.sqlite, Some(dir.path().join("jobs.db")));
}

#[test]
fn each_bad_field_is_named_with_place_and_fix() {
    check(
        &text("[agent]\ncpus = 0\n"),
        "line 7, column 8: agent.cpus: out of range; give 0.1 to 4096, or leave it out to offer every core",
    );
    check(
        &text("[agent]\nmemory = -1\n"),
        "line 7, column 10: memory: invalid value: integer `-1`; expected a size like \"512MiB\" or \"2GiB\", or bytes",
    );
    check(
        &text("[network]\nbootstrap = [\"nowhere\"]\n"),
        "line 7, column 13: bootstrap: no @ in the bootstrap peer; write PUBLICKEY@HOST:PORT",
    );
    check(
        &text("colour = 1\n"),
        "line 6, column 1: colour: unknown field `colour`; expected one of `name`, `data_dir`, `key_file`, `certificate_file`, `trusted_organisations`, `roles`, `known_stores`, `network`, `storage`, `control`, `demand`, `agent`",
    );
    check(
        &text("").replace("http://127.0.0.1:1", "ftp://x"),
        "line 5, column 17: known_stores[0]: \"ftp://x\" is no base URL; write http://HOST:PORT",
    );
    check(
        &text("").replace("[\"agent\"]", "[]"),
        "line 3, column 9: roles: empty; list one or more of agent, control, demand, seeder, bootstrap",
    );
}

#[test]
fn two_databases_or_a_hasty_lease_are_refused() {
    let demand = |rest: &str| text(&format!("[demand]\n{rest}\n")).replace("agent", "demand");
    for (rest, field) in [
        ("sqlite = \"a\"\npostgres = \"b\"", "demand.postgres"),
        ("lease = \"1ms\"", "demand.lease"),
        ("renew = \"19s\"", "demand.renew"),
        ("url = \"here\"", "demand.url"),
    ] {
        assert_eq!(
            NodeConfig::parse(&demand(rest)).unwrap_err().error.field,
            field
        );
    }
}

#[test]
fn fuzz_node_configs_never_panic() {
    bolero::check!().with_type::<String>().for_each(|text| {
        let _ = NodeConfig::parse(text);
    });
}

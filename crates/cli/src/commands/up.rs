//! `mutual up`: a whole cloud in one process, ready for `mutual run`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mutual_node::config::keys::{load_certificate, load_or_create_key, store_certificate};
use mutual_node::config::ready::NodeReady;
use mutual_node::config::{NodeConfig, Period, Size};
use mutual_node::demand::Right;
use mutual_node::model::identity::Role;
use mutual_node::model::ids::Namespace;
use serde_json::json;

use crate::args::Session;
use crate::commands::node;
use crate::commands::org::NewUser;
use crate::context::{Context, ContextFile, state_dir};
use crate::failure::Outcome;
use crate::organisation::{Organisation, Terms};

/// Certificates and token of one's own cloud.
const VALID: Duration = Duration::from_secs(3_650 * 24 * 3600);
const NAMESPACE: &str = "home";
const ROLES: [Role; 5] = [
    Role::Agent,
    Role::Control,
    Role::Demand,
    Role::Seeder,
    Role::Bootstrap,
];

/// Run a whole cloud in one process, with credentials of its own, until SIGINT or SIGTERM
///
/// Afterwards `mutual run -- COMMAND` works without further ado. With only one machine nobody else
/// can hold a copy of a result: the context file says `result_copies = 0`, so that jobs ask for
/// none. Set it to 1 once other machines have joined; it stays as you set it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it keeps its state [default: ~/.local/share/mutual]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Take free ports instead of 7600, 7601, 7610, 7620, 7621, 7630 and 7631
    #[arg(long)]
    any_port: bool,
    /// Cores offered to tasks [default: all]
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,
    /// Memory offered to tasks [default: three quarters]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// End when standard input closes
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let dir = std::path::absolute(args.dir.clone().unwrap_or_else(state_dir))
        .map_err(crate::failure::Failure::user)?;
    let namespace: Namespace = NAMESPACE
        .parse()
        .map_err(crate::failure::Failure::internal)?;
    let organisation = open_organisation(&dir.join("org"), &namespace)?;
    let config = config(&args, &dir, &organisation, &namespace)?;
    config.check()?;
    let node = node::start(config).await?;
    let context = write_context(&dir, &organisation, &namespace, node.ready())?;
    session.output.answer(
        &json!({ "node": node.ready(), "context": context, "result_copies": copies(&context) }),
        || ready_text(node.ready(), &context, copies(&context)),
    );
    node::ended_or_stdin(args.until_stdin_closes).await?;
    session.output.note("stopping");
    node.shutdown(node::GRACE).await;
    Ok(())
}

fn open_organisation(dir: &Path, namespace: &Namespace) -> Outcome<Organisation> {
    match dir.join("org.key").exists() {
        true => Organisation::load(dir),
        false => Organisation::create(dir, NAMESPACE, vec![namespace.clone()]),
    }
}

fn config(
    args: &Args,
    dir: &Path,
    organisation: &Organisation,
    namespace: &Namespace,
) -> Outcome<NodeConfig> {
    let mut config = NodeConfig::new("up", dir.join("node"));
    config.roles = ROLES.into_iter().collect();
    config.trusted_organisations = vec![organisation.file.key];
    let local = |port: u16| {
        let port = if args.any_port { 0 } else { port };
        SocketAddr::from(([127, 0, 0, 1], port))
    };
    config.network.discovery = local(7600);
    config.network.p2p = local(7601);
    config.control.listen = local(7610);
    config.demand.listen = local(7620);
    config.demand.liveness = local(7621);
    config.agent.listen = local(7630);
    config.agent.liveness = local(7631);
    config.agent.cpus = args.cpus;
    config.agent.memory = args.memory;
    config.agent.process_for = vec![namespace.clone()];
    let key = load_or_create_key(&config.key_path())?;
    let path = config.certificate_path();
    if !path.exists() || load_certificate(&path)?.membership().node != key.public() {
        let terms = Terms {
            name: config.name.clone(),
            namespaces: vec![namespace.clone()],
            roles: ROLES.to_vec(),
            valid: VALID,
        };
        let certificate = organisation.certify(key.public(), key.sealing_public(), terms)?;
        store_certificate(&path, &certificate)?;
    }
    Ok(config)
}

/// Makes the user on the first start; brings the addresses up to date on every start.
fn write_context(
    dir: &Path,
    organisation: &Organisation,
    namespace: &Namespace,
    ready: &NodeReady,
) -> Outcome<PathBuf> {
    let user = dir.join("user");
    if !user.join("user.key").exists() {
        let new = NewUser {
            subject: "owner".to_owned(),
            namespaces: vec![namespace.clone()],
            rights: vec![Right::Read, Right::Submit, Right::Operate],
            valid: Period(VALID),
        };
        new.create(organisation, &user)?;
    }
    let path = dir.join("context.toml");
    let file = ContextFile {
        namespace: namespace.clone(),
        control: ready.control_url.iter().cloned().collect(),
        demand: ready.demand_url.iter().cloned().collect(),
        bootstrap: vec![ready.bootstrap_peer()],
        token_file: "user/token".into(),
        key_file: "user/user.key".into(),
        certificate_file: Some("user/user.cert".into()),
        trusted_organisations: vec![organisation.file.key],
        result_copies: copies(&path),
    };
    Context::store(&path, &file)?;
    Ok(path)
}

/// What the user has set; none at first, since one machine has nobody who could vouch for it.
fn copies(context: &Path) -> Option<u32> {
    match Context::load(context) {
        Ok(context) => context.file.result_copies,
        Err(_) => Some(0),
    }
}

fn ready_text(ready: &NodeReady, context: &Path, copies: Option<u32>) -> String {
    let url = |url: &Option<String>| url.clone().unwrap_or_default();
    let classes: Vec<_> = ready.classes.iter().map(|class| class.name()).collect();
    let copies = match copies {
        Some(0) => {
            "\n  copies     none: this machine alone holds results, and they die with its disk; once\n             other machines have joined, set result_copies = 1 in the context file"
        }
        _ => "",
    };
    format!(
        "ready\n  control    {}\n  demand     {}\n  isolation  {}\n  context    {}{copies}\nTry: mutual run -- echo hello",
        url(&ready.control_url),
        url(&ready.demand_url),
        classes.join(", "),
        context.display(),
    )
}

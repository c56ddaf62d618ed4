//! `mutual org`: who belongs to the organisation.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use mutual_node::config::keys::{
    load_certificate, load_or_create_key, store_certificate, store_new_key, write_atomically,
};
use mutual_node::config::{BootstrapPeer, NodeConfig, Period, check_url};
use mutual_node::demand::Right;
use mutual_node::model::identity::{Certificate, NodeKey, PublicKey, Role};
use mutual_node::model::ids::Namespace;
use serde_json::json;

use crate::args::Session;
use crate::context::{Context, ContextFile, state_dir};
use crate::failure::{Failure, Naming as _, Outcome};
use crate::organisation::invitation::{Host, Invitation};
use crate::organisation::request::JoinRequest;
use crate::organisation::{Organisation, Terms};
use crate::output::{length, local_time, utc_time};

/// Make an organisation; admit machines and users
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    Invite(Invite),
    Join(Join),
    Sign(Sign),
    Token(Token),
}

/// Make an organisation: its secret key, readable by you alone, and its public part
#[derive(Debug, clap::Args)]
struct Create {
    /// A name for people
    name: String,
    /// A namespace that its members serve; repeatable [default: the name]
    #[arg(long = "namespace", value_name = "NAME")]
    namespaces: Vec<Namespace>,
    /// A node that newcomers ask first; repeatable
    #[arg(long, value_name = "KEY@HOST:PORT")]
    bootstrap: Vec<BootstrapPeer>,
    /// The base URL of a control server for its users; repeatable
    #[arg(long, value_name = "URL")]
    control: Vec<String>,
    /// The base URL of a demand store that its members work for; repeatable
    #[arg(long = "store", value_name = "URL")]
    stores: Vec<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Where the organisation is kept [default: ~/.local/share/mutual/org]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| state_dir().join("org"))
    }
}

/// What a new certificate says.
#[derive(Debug, clap::Args)]
struct Membership {
    /// A name for the machine
    #[arg(long)]
    name: String,
    /// What it may do: agent, control, demand, seeder, bootstrap; repeatable [default: agent, seeder]
    #[arg(long = "role", value_name = "ROLE", value_parser = parse_role)]
    roles: Vec<Role>,
    /// A namespace it serves; repeatable [default: those of the organisation]
    #[arg(long = "namespace", value_name = "NAME")]
    namespaces: Vec<Namespace>,
    /// How long the certificate is valid
    #[arg(long, value_name = "TIME", default_value = "365d")]
    certificate_valid: Period,
}

impl Membership {
    fn terms(self, organisation: &Organisation) -> Terms {
        let or = |given: Vec<Namespace>| match given.is_empty() {
            true => organisation.file.namespaces.clone(),
            false => given,
        };
        Terms {
            name: self.name,
            namespaces: or(self.namespaces),
            roles: match self.roles.is_empty() {
                true => vec![Role::Agent, Role::Seeder],
                false => self.roles,
            },
            valid: self.certificate_valid.0,
        }
    }
}

/// Invite one machine: prints an invitation and waits until it is used or expires
#[derive(Debug, clap::Args)]
struct Invite {
    #[command(flatten)]
    membership: Membership,
    /// How long the invitation is valid
    #[arg(long, value_name = "TIME", default_value = "10m")]
    valid: Period,
    /// Where to wait for the newcomer
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The host name or address that the newcomer reaches this machine at [default: the listen address]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Join an organisation: with an invitation, or offline with --request and --certificate
#[derive(Debug, clap::Args)]
struct Join {
    /// The text that `mutual org invite` printed
    #[arg(required_unless_present_any = ["request", "certificate"])]
    invitation: Option<String>,
    /// Offline, first half: write a request for `mutual org sign` into this file
    #[arg(long, value_name = "FILE", requires = "organisation", conflicts_with_all = ["invitation", "certificate"])]
    request: Option<PathBuf>,
    /// Offline, second half: take the certificate that `mutual org sign` wrote
    #[arg(
        long,
        value_name = "FILE",
        requires = "organisation",
        conflicts_with = "invitation"
    )]
    certificate: Option<PathBuf>,
    /// The organisation's public key
    #[arg(long, value_name = "KEY")]
    organisation: Option<PublicKey>,
    /// Where this machine's key, certificate and node file go [default: ~/.local/share/mutual/node]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Sign the join request of a machine that cannot reach this one
#[derive(Debug, clap::Args)]
struct Sign {
    /// The file that `mutual org join --request` wrote
    request: PathBuf,
    #[command(flatten)]
    membership: Membership,
    /// Where the certificate goes
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    place: Place,
}

/// Make a user: key, token, certificate and context file in a directory to hand over
#[derive(Debug, clap::Args)]
struct Token {
    /// The user's name: letters, digits and . _ - @ +
    subject: String,
    /// Where the files go
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// A namespace the user may use; repeatable [default: those of the organisation]
    #[arg(long = "namespace", value_name = "NAME")]
    namespaces: Vec<Namespace>,
    /// A right: read, submit, operate; repeatable [default: read, submit]
    #[arg(long = "right", value_name = "RIGHT", value_parser = parse_right)]
    rights: Vec<Right>,
    /// How long token and certificate are valid
    #[arg(long, value_name = "TIME", default_value = "30d")]
    valid: Period,
    #[command(flatten)]
    place: Place,
}

fn parse_role(text: &str) -> Result<Role, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "use agent, control, demand, seeder or bootstrap".to_owned())
}

fn parse_right(text: &str) -> Result<Right, String> {
    match text {
        "read" => Ok(Right::Read),
        "submit" => Ok(Right::Submit),
        "operate" => Ok(Right::Operate),
        _ => Err("use read, submit or operate; the others are for nodes".to_owned()),
    }
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    match args.command {
        Command::Create(create) => create.run(session),
        Command::Invite(invite) => invite.run(session).await,
        Command::Join(join) => join.run(session).await,
        Command::Sign(sign) => sign.run(session),
        Command::Token(token) => token.run(session),
    }
}

impl Create {
    fn run(self, session: &Session) -> Outcome {
        let dir = self.place.dir();
        let namespaces = match self.namespaces.is_empty() {
            true => vec![self.name.parse::<Namespace>().map_err(|error| {
                Failure::user(format!("{error}")).hint("name the namespaces with --namespace")
            })?],
            false => self.namespaces,
        };
        for (field, urls) in [("--control", &self.control), ("--store", &self.stores)] {
            urls.iter().try_for_each(|url| check_url(field, url))?;
        }
        let mut organisation = Organisation::create(&dir, &self.name, namespaces)?;
        organisation.file.bootstrap = self.bootstrap;
        organisation.file.control = self.control;
        organisation.file.stores = self.stores;
        organisation.store(&dir)?;
        session.output.answer(
            &json!({ "name": self.name, "key": organisation.file.key, "dir": dir }),
            || {
                format!(
                    "organisation {}\n  key  {}\n  dir  {}\nKeep org.key safe: whoever has it decides who belongs to {}.",
                    self.name,
                    organisation.file.key,
                    dir.display(),
                    self.name
                )
            },
        );
        Ok(())
    }
}

impl Invite {
    async fn run(self, session: &Session) -> Outcome {
        let organisation = Organisation::load(&self.place.dir())?;
        let terms = self.membership.terms(&organisation);
        let host = Host::open(&organisation, self.listen, self.host, terms, self.valid.0).await?;
        let text = host.invitation.to_text()?;
        session.output.answer(
            &json!({ "invitation": text, "expires": utc_time(host.invitation.expires) }),
            || text.clone(),
        );
        session.output.note(format!(
            "Run `mutual org join INVITATION` on the new machine. Waiting for {} …",
            length(self.valid.0)
        ));
        let certificate = host.serve().await?;
        report(session, "admitted", &certificate);
        Ok(())
    }
}

fn report(session: &Session, what: &str, certificate: &Certificate) {
    let said = certificate.membership();
    session.output.answer(
        &json!({
            "node": certificate.node_id(), "name": said.name, "organisation": said.organisation,
            "namespaces": said.namespaces, "roles": said.roles, "expires": utc_time(said.not_after),
        }),
        || {
            format!(
                "{what} {} ({}) until {}",
                said.name,
                certificate.node_id(),
                local_time(said.not_after)
            )
        },
    );
}

impl Join {
    async fn run(self, session: &Session) -> Outcome {
        let dir = self.dir.clone().unwrap_or_else(|| state_dir().join("node"));
        let key = load_or_create_key(&dir.join("node.key"))?;
        match (
            &self.invitation,
            &self.request,
            &self.certificate,
            self.organisation,
        ) {
            (Some(text), ..) => {
                let invitation = Invitation::from_text(text)?;
                let certificate = invitation.accept(&key).await?;
                install(&dir, &certificate, invitation.bootstrap, invitation.stores)?;
                report(session, "joined as", &certificate);
                say_next(session, &dir);
            }
            (None, Some(path), None, Some(organisation)) => {
                write_request(session, path, organisation, &key)?;
            }
            (None, None, Some(path), Some(organisation)) => {
                let certificate = fitting_certificate(path, organisation, &key)?;
                install(&dir, &certificate, Vec::new(), Vec::new())?;
                report(session, "joined as", &certificate);
                say_next(session, &dir);
            }
            _ => {
                return Err(Failure::user(
                    "give an invitation, --request or --certificate",
                ));
            }
        }
        Ok(())
    }
}

fn say_next(session: &Session, dir: &Path) {
    let file = dir.join("node.toml");
    session.output.note(format!(
        "Look over {0}, then start it: mutual node --config {0}",
        file.display()
    ));
}

fn write_request(
    session: &Session,
    path: &Path,
    organisation: PublicKey,
    key: &NodeKey,
) -> Outcome {
    let request = JoinRequest::new(organisation, key);
    let bytes = serde_json::to_vec_pretty(&request).map_err(Failure::internal)?;
    write_atomically(path, &bytes, 0o644)?;
    session
        .output
        .answer(&json!({ "request": path, "node": key.id() }), || {
            format!(
                "{}: take it to the organisation and run `mutual org sign` there",
                path.display()
            )
        });
    Ok(())
}

fn fitting_certificate(
    path: &Path,
    organisation: PublicKey,
    key: &NodeKey,
) -> Outcome<Certificate> {
    let certificate = load_certificate(path)?;
    certificate.verify(&[organisation], mutual_node::auth::unix_now())?;
    if certificate.membership().node != key.public() {
        return Err(Failure::user(format!(
            "{}: the certificate of another node",
            path.display()
        ))
        .hint("name the directory of that node's key with --dir"));
    }
    Ok(certificate)
}

/// Writes the certificate, and a node file to begin with unless there is one.
fn install(
    dir: &Path,
    certificate: &Certificate,
    bootstrap: Vec<BootstrapPeer>,
    stores: Vec<String>,
) -> Outcome {
    store_certificate(&dir.join("node.cert"), certificate)?;
    let path = dir.join("node.toml");
    if path.exists() {
        return Ok(());
    }
    let said = certificate.membership();
    let mut config = NodeConfig::new(said.name.clone(), ".");
    config.trusted_organisations = vec![said.organisation];
    config.roles = said.roles.iter().copied().collect();
    config.network.bootstrap = bootstrap;
    config.known_stores = stores;
    Ok(write_atomically(
        &path,
        config.to_toml()?.as_bytes(),
        0o644,
    )?)
}

impl Sign {
    fn run(self, session: &Session) -> Outcome {
        let organisation = Organisation::load(&self.place.dir())?;
        let bytes = std::fs::read(&self.request).naming(self.request.display())?;
        let request = JoinRequest::verified(&bytes, &organisation.file.key)?;
        let terms = self.membership.terms(&organisation);
        let certificate = organisation.certify(request.node, request.sealing, terms)?;
        store_certificate(&self.output, &certificate)?;
        report(session, "signed", &certificate);
        Ok(())
    }
}

impl Token {
    fn run(self, session: &Session) -> Outcome {
        let organisation = Organisation::load(&self.place.dir())?;
        let namespaces = match self.namespaces.is_empty() {
            true => organisation.file.namespaces.clone(),
            false => self.namespaces,
        };
        let rights = match self.rights.is_empty() {
            true => vec![Right::Read, Right::Submit],
            false => self.rights,
        };
        let user = NewUser {
            subject: self.subject.clone(),
            namespaces,
            rights,
            valid: self.valid,
        };
        let file = user.create(&organisation, &self.output)?;
        let path = self.output.join("context.toml");
        Context::store(&path, &file)?;
        if file.control.is_empty() && file.demand.is_empty() {
            session.output.note(format!(
                "name a control server or a demand store in {}",
                path.display()
            ));
        }
        session
            .output
            .answer(&json!({ "subject": self.subject, "context": path }), || {
                format!(
                    "{}: hand this directory to {}",
                    self.output.display(),
                    self.subject
                )
            });
        Ok(())
    }
}

/// A user about to be made.
#[derive(Debug)]
pub(crate) struct NewUser {
    pub(crate) subject: String,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) rights: Vec<Right>,
    pub(crate) valid: Period,
}

impl NewUser {
    /// Makes key, token and certificate in `dir`; gives what a context file beside them says.
    pub(crate) fn create(self, organisation: &Organisation, dir: &Path) -> Outcome<ContextFile> {
        let key = NodeKey::generate(&mut rand::rng());
        let sealing = key.sealing_public();
        let namespace = self.namespaces.first().cloned();
        let token = organisation.mint(
            &self.subject,
            sealing,
            self.namespaces.clone(),
            self.rights,
            self.valid.0,
        )?;
        let terms = Terms {
            name: self.subject,
            namespaces: self.namespaces,
            roles: vec![Role::Seeder],
            valid: self.valid.0,
        };
        let certificate = organisation.certify(key.public(), sealing, terms)?;
        store_new_key(&dir.join("user.key"), &key)?;
        write_atomically(&dir.join("token"), token.as_str().as_bytes(), 0o600)?;
        store_certificate(&dir.join("user.cert"), &certificate)?;
        Ok(ContextFile {
            namespace: namespace.ok_or_else(|| Failure::user("a user needs a namespace"))?,
            control: organisation.file.control.clone(),
            demand: organisation.file.stores.clone(),
            bootstrap: organisation.file.bootstrap.clone(),
            token_file: "token".into(),
            key_file: "user.key".into(),
            certificate_file: Some("user.cert".into()),
            trusted_organisations: vec![organisation.file.key],
            result_copies: None,
        })
    }
}

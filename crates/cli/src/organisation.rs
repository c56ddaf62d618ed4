//! An organisation on its owner's disk: its key, its namespaces, and what it signs.
//!
//! Whoever holds `org.key` decides who belongs to the organisation; no server needs it. Nodes get
//! certificates, users get tokens, each for a limited time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mutual_node::auth::{UserGrant, UserToken, unix_now};
use mutual_node::config::BootstrapPeer;
use mutual_node::config::keys::{load_key, store_new_key, write_atomically};
use mutual_node::demand::Right;
use mutual_node::model::identity::{
    Certificate, Membership, NodeKey, PublicKey, Role, SealingPublic,
};
use mutual_node::model::ids::Namespace;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Naming as _, Outcome};

pub(crate) mod invitation;
pub(crate) mod request;

/// Certificates are valid from a little before they are signed, for clocks that lag.
const BACKDATED: Duration = Duration::from_secs(300);

/// What everybody in the organisation may know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrganisationFile {
    /// A name for people.
    pub(crate) name: String,
    /// Its public key.
    pub(crate) key: PublicKey,
    /// Namespaces that members serve and users submit to, unless told otherwise.
    pub(crate) namespaces: Vec<Namespace>,
    /// Nodes that newcomers ask first.
    #[serde(default)]
    pub(crate) bootstrap: Vec<BootstrapPeer>,
    /// Control servers that users ask.
    #[serde(default)]
    pub(crate) control: Vec<String>,
    /// Demand stores that members work for.
    #[serde(default)]
    pub(crate) stores: Vec<String>,
}

/// An organisation whose secret key is at hand.
#[derive(Debug)]
pub(crate) struct Organisation {
    key: NodeKey,
    pub(crate) file: OrganisationFile,
}

/// What a certificate is to say.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) name: String,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) roles: Vec<Role>,
    pub(crate) valid: Duration,
}

fn key_path(dir: &Path) -> PathBuf {
    dir.join("org.key")
}

/// Where an organisation's public part is kept.
pub(crate) fn file_path(dir: &Path) -> PathBuf {
    dir.join("org.toml")
}

impl Organisation {
    /// Makes a new one in `dir`, which must not hold one yet.
    pub(crate) fn create(dir: &Path, name: &str, namespaces: Vec<Namespace>) -> Outcome<Self> {
        if key_path(dir).exists() {
            return Err(
                Failure::user(format!("{} exists already", key_path(dir).display())).hint(
                    "choose another directory with --dir; an organisation's key is never replaced",
                ),
            );
        }
        let key = NodeKey::generate(&mut rand::rng());
        let file = OrganisationFile {
            name: name.to_owned(),
            key: key.public(),
            namespaces,
            bootstrap: Vec::new(),
            control: Vec::new(),
            stores: Vec::new(),
        };
        store_new_key(&key_path(dir), &key)?;
        let organisation = Self { key, file };
        organisation.store(dir)?;
        Ok(organisation)
    }

    /// Opens the one in `dir`.
    pub(crate) fn load(dir: &Path) -> Outcome<Self> {
        if !key_path(dir).exists() {
            return Err(
                Failure::user(format!("no organisation in {}", dir.display()))
                    .hint("make one with `mutual org create`, or name its directory with --dir"),
            );
        }
        let path = file_path(dir);
        let text = std::fs::read_to_string(&path).naming(path.display())?;
        let file: OrganisationFile = toml::from_str(&text)
            .map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))?;
        let key = load_key(&key_path(dir))?;
        if key.public() != file.key {
            return Err(Failure::configuration(format!(
                "{} names another key than {} holds",
                path.display(),
                key_path(dir).display()
            )));
        }
        Ok(Self { key, file })
    }

    /// Writes the public part.
    pub(crate) fn store(&self, dir: &Path) -> Outcome {
        let text = toml::to_string(&self.file).map_err(Failure::internal)?;
        Ok(write_atomically(&file_path(dir), text.as_bytes(), 0o644)?)
    }

    /// Signs a certificate for a node's keys.
    pub(crate) fn certify(
        &self,
        node: PublicKey,
        sealing: SealingPublic,
        terms: Terms,
    ) -> Outcome<Certificate> {
        let now = unix_now();
        let membership = Membership {
            organisation: self.key.public(),
            node,
            sealing,
            name: terms.name,
            namespaces: terms.namespaces,
            roles: terms.roles,
            not_before: mutual_node::model::time::UnixMillis(
                now.0
                    .saturating_sub(mutual_node::model::time::millis(BACKDATED)),
            ),
            not_after: now.after(terms.valid),
        };
        Certificate::issue(&self.key, membership)
            .map_err(|error| Failure::user(format!("the certificate cannot be made: {error}")))
    }

    /// Makes a user's token.
    pub(crate) fn mint(
        &self,
        subject: &str,
        sealing: SealingPublic,
        namespaces: Vec<Namespace>,
        rights: Vec<Right>,
        valid: Duration,
    ) -> Outcome<UserToken> {
        let grant = UserGrant {
            subject: subject.to_owned(),
            sealing,
            namespaces,
            rights,
            expires: unix_now().after(valid),
        };
        UserToken::mint(&self.key, &grant)
            .map_err(|error| Failure::user(format!("the token cannot be made: {error}")))
    }
}

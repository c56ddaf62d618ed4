//! Whose cloud this is: the user's context file.
//!
//! It names the control servers, the demand stores and the bootstrap peers, and where the user's
//! token and key are. `mutual up` writes one; `mutual org token` makes what it points to.

use std::path::{Path, PathBuf};

use mutual_node::config::document::Document;
use mutual_node::config::keys::{load_certificate, load_key, write_atomically};
use mutual_node::config::{BootstrapPeer, check_url};
use mutual_node::model::identity::{Certificate, NodeKey, PublicKey};
use mutual_node::model::ids::Namespace;
use mutual_node::model::job::FieldError;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// Control addresses that go before those of the context file, separated by commas.
pub(crate) const CONTROL_VARIABLE: &str = "MUTUAL_CONTROL";

/// A token file is a line of text; a longer one is another kind of file.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContextFile {
    /// Where jobs go unless the command names another.
    pub(crate) namespace: Namespace,
    /// Base URLs of control servers, tried in order.
    #[serde(default)]
    pub(crate) control: Vec<String>,
    /// Base URLs of the servers of ONE demand store, used when no control is alive.
    #[serde(default)]
    pub(crate) demand: Vec<String>,
    /// Whom to ask for the rest of the cloud.
    #[serde(default)]
    pub(crate) bootstrap: Vec<BootstrapPeer>,
    /// The user's token.
    pub(crate) token_file: PathBuf,
    /// The user's secret key: results are sealed to it.
    pub(crate) key_file: PathBuf,
    /// The user's certificate, with which inputs are served to members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_file: Option<PathBuf>,
    /// Public keys of the organisations whose members are believed.
    #[serde(default)]
    pub(crate) trusted_organisations: Vec<PublicKey>,
    /// Other peers that must hold a result before it counts, unless the job says: 1 if absent. With
    /// 0, which `mutual up` sets for a cloud of one machine, a result dies with the disk it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) result_copies: Option<u32>,
}

/// A context file and where it was found.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    dir: PathBuf,
    pub(crate) file: ContextFile,
}

impl Context {
    /// Reads the file that a flag or the environment names, else the user's own, else the one
    /// that `mutual up` left.
    pub(crate) fn find(named: Option<&Path>) -> Outcome<Self> {
        let standard = [
            config_dir().join("context.toml"),
            state_dir().join("context.toml"),
        ];
        let found = match named {
            Some(path) => Some(path.to_owned()),
            None => standard.iter().find(|path| path.exists()).cloned(),
        };
        match found {
            Some(path) => Self::load(&path),
            None => Err(Failure::configuration(format!(
                "no context file at {}",
                standard[0].display()
            ))
            .hint("start a cloud with `mutual up`, or name a file with --context")),
        }
    }

    pub(crate) fn load(path: &Path) -> Outcome<Self> {
        let located = |error: &dyn std::fmt::Display| {
            Failure::configuration(format!("{}: {error}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| located(&error))?;
        let document = Document::<ContextFile>::parse(&text).map_err(|error| located(&error))?;
        check(&document.value).map_err(|error| located(&document.locate(error)))?;
        let mut file = document.value;
        if let Some(urls) = control_override()? {
            file.control = urls;
        }
        let absolute = std::path::absolute(path).map_err(|error| located(&error))?;
        Ok(Self {
            dir: absolute.parent().unwrap_or(Path::new("/")).to_owned(),
            file,
        })
    }

    /// Writes the file, replacing an older one as a whole.
    pub(crate) fn store(path: &Path, file: &ContextFile) -> Outcome {
        let text = toml::to_string(file).map_err(Failure::internal)?;
        Ok(write_atomically(path, text.as_bytes(), 0o644)?)
    }

    /// The user's token.
    pub(crate) fn token(&self) -> Outcome<Zeroizing<String>> {
        let path = self.dir.join(&self.file.token_file);
        let unreadable = |error: &dyn std::fmt::Display| {
            Failure::configuration(format!("{}: {error}", path.display()))
                .hint("your organisation makes tokens with `mutual org token`")
        };
        let length = std::fs::metadata(&path)
            .map_err(|error| unreadable(&error))?
            .len();
        if length > TOKEN_BYTES_MAX {
            return Err(unreadable(&"too long for a token"));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&error))?;
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    /// Where the peers met last are kept, for when every bootstrap peer is down.
    pub(crate) fn peers_path(&self) -> PathBuf {
        self.dir.join("peers")
    }

    /// The user's secret key.
    pub(crate) fn key(&self) -> Outcome<NodeKey> {
        Ok(load_key(&self.dir.join(&self.file.key_file))?)
    }

    /// The user's certificate, if there is one.
    pub(crate) fn certificate(&self) -> Outcome<Option<Certificate>> {
        let path = self.file.certificate_file.as_ref();
        let loaded = path.map(|path| load_certificate(&self.dir.join(path)));
        Ok(loaded.transpose()?)
    }
}

fn check(file: &ContextFile) -> Result<(), FieldError> {
    for (field, urls) in [("control", &file.control), ("demand", &file.demand)] {
        for (number, url) in urls.iter().enumerate() {
            check_url(&format!("{field}[{number}]"), url)?;
        }
    }
    if file.control.is_empty() && file.demand.is_empty() {
        return Err(FieldError::new(
            "control",
            "neither a control server nor a demand store is named",
            "give the URL of one, like control = [\"http://127.0.0.1:7610\"]",
        ));
    }
    Ok(())
}

fn control_override() -> Outcome<Option<Vec<String>>> {
    let Ok(text) = std::env::var(CONTROL_VARIABLE) else {
        return Ok(None);
    };
    let urls: Vec<_> = text
        .split(',')
        .map(|url| url.trim().to_owned())
        .filter(|url| !url.is_empty())
        .collect();
    for url in &urls {
        check_url(CONTROL_VARIABLE, url)?;
    }
    Ok((!urls.is_empty()).then_some(urls))
}

fn home() -> PathBuf {
    std::env::home_dir().unwrap_or_else(|| PathBuf::from("/"))
}

fn base(variable: &str, below_home: &str) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let absolute = named.filter(|path| path.is_absolute());
    absolute
        .unwrap_or_else(|| home().join(below_home))
        .join("mutual")
}

/// `~/.config/mutual`, by the XDG base directory specification.
pub(crate) fn config_dir() -> PathBuf {
    base("XDG_CONFIG_HOME", ".config")
}

/// `~/.local/share/mutual`, by the same.
pub(crate) fn state_dir() -> PathBuf {
    base("XDG_DATA_HOME", ".local/share")
}

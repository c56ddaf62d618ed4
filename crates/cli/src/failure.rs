//! What a command answers when it could not do what it was asked: four kinds, a hint, an exit code.

use std::fmt;

use mutual_node::config::ConfigError;
use mutual_node::config::keys::KeyFileError;
use mutual_node::demand::StoreError;
use mutual_node::model::identity::IdentityError;
use mutual_node::model::job::FieldError;
use serde::Serialize;

/// The result of everything a command does.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Who can mend a failure. Numbers are those of BSD's `sysexits.h`, out of the way of the exit
/// codes that tasks use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The caller, by asking for something else.
    User,
    /// Whoever set up this machine: context, keys, certificates, node files.
    Configuration,
    /// Time: nobody who could answer is reachable.
    Unavailable,
    /// The programmers.
    Internal,
    /// Nobody: the user wanted it to end.
    Interrupted,
}

impl Kind {
    /// The process's exit code.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::User => 64,
            Self::Unavailable => 69,
            Self::Internal => 70,
            Self::Configuration => 78,
            Self::Interrupted => 130,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::User => "error",
            Self::Configuration => "configuration error",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal error",
            Self::Interrupted => "ended",
        }
    }
}

/// The exit codes, as `mutual --help` shows them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    a task failed without an exit code of its own; a check did not hold
  64   user error: a flag, a file or an id is wrong
  69   unavailable: no control and no demand store answers
  70   internal error
  75   a task expired in the queue or its holders died too often
  78   configuration error: context, key, certificate or node file
  124  a task ran past its time limit
  130  interrupted, or a task was cancelled
`mutual run` exits with the task's own code; 128 + N if signal N ended it.";

/// Why a command was not done.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            hint: None,
        }
    }

    pub(crate) fn user(message: impl fmt::Display) -> Self {
        Self::new(Kind::User, message)
    }

    pub(crate) fn configuration(message: impl fmt::Display) -> Self {
        Self::new(Kind::Configuration, message)
    }

    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    pub(crate) fn internal(message: impl fmt::Display) -> Self {
        Self::new(Kind::Internal, message)
    }

    pub(crate) fn interrupted(message: impl fmt::Display) -> Self {
        Self::new(Kind::Interrupted, message)
    }

    /// Says what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts the thing it happened to in front.
    pub(crate) fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// For people, two lines at most.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}: {}", self.kind.name(), self.message);
        if let Some(hint) = &self.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text
    }

    /// For programs: `{"error": {"kind", "message", "hint"}}`.
    pub(crate) fn json(&self) -> String {
        serde_json::json!({
            "error": { "kind": self.kind, "message": self.message, "hint": self.hint }
        })
        .to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<FieldError> for Failure {
    fn from(error: FieldError) -> Self {
        Self::user(format!("{}: {}", error.field, error.problem)).hint(error.fix)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::configuration(error)
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::configuration(error)
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Self::configuration(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Invalid(field) => field.into(),
            StoreError::NotFound => Self::user(error)
                .hint("`mutual ls` lists the jobs of your namespace; --namespace names another"),
            StoreError::Forbidden(_) => Self::user(error)
                .hint("ask your organisation for a token with that right: `mutual org token`"),
            StoreError::Unavailable(_) | StoreError::Overloaded { .. } | StoreError::Unknown(_) => {
                Self::unavailable(error).hint("try again; a repeated request is recognised")
            }
            StoreError::Internal(_) => Self::internal(error),
            _ => Self::user(error),
        }
    }
}

/// Puts a path or name in front of a system error.
pub(crate) trait Naming<T> {
    /// The failure of a file the caller named.
    fn naming(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T> Naming<T> for std::io::Result<T> {
    fn naming(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| Failure::user(format!("{what}: {error}")))
    }
}

//! Names of things: jobs, namespaces, agents' incarnations, nonces and content.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::bytes::HexError;
use crate::bytes::fixed_bytes;
use crate::time::UnixMillis;

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty or longer than allowed.
    #[error("{what} must have 1 to {longest} characters, found {found}")]
    Length {
        /// What was being read.
        what: &'static str,
        /// The longest allowed, in bytes.
        longest: usize,
        /// The length found, in bytes.
        found: usize,
    },
    /// A character outside the allowed set.
    #[error("{what} may hold only {allowed}; found {found:?}")]
    Character {
        /// What was being read.
        what: &'static str,
        /// The allowed set, for people.
        allowed: &'static str,
        /// The first offending character.
        found: char,
    },
}

fn check_name(
    what: &'static str,
    text: &str,
    longest: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() || text.len() > longest {
        return Err(NameError::Length {
            what,
            longest,
            found: text.len(),
        });
    }
    match text.chars().find(|&c| !is_allowed(c)) {
        Some(found) => Err(NameError::Character {
            what,
            allowed,
            found,
        }),
        None => Ok(()),
    }
}

/// Declares a checked, immutable string.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $longest:literal, $allowed:literal, $test:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check_name($what, &text, $longest, $allowed, $test)?;
                Ok(Self(text))
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A group of users and nodes that share tasks; nothing crosses from one to another.
    /// 1 to 63 characters of `a-z`, `0-9` and `-`.
    Namespace, "namespace", 63, "a-z, 0-9 and -",
    |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
);

name!(
    /// The submitter's own name for a job, unique within its namespace, so that a repeated
    /// submission is recognised. 1 to 128 printable ASCII characters.
    ClientKey, "client key", 128, "printable ASCII",
    |c: char| c.is_ascii_graphic()
);

name!(
    /// A CID in its text form. Its meaning is checked by `mutual-data`; here it is only bounded.
    ContentId, "content id", 128, "letters and digits",
    |c: char| c.is_ascii_alphanumeric()
);

/// One job of the demand store: a UUIDv7 (RFC 9562 §5.7), so that ids sort by submission time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A new id from a wall-clock reading and ten random bytes.
    pub fn new(now: UnixMillis, random: [u8; 10]) -> Self {
        Self(uuid_v7(now, random))
    }
}

/// One run of an agent process. Later runs of one agent have greater incarnations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub Uuid);

impl Incarnation {
    /// A new incarnation from a wall-clock reading and ten random bytes.
    pub fn new(now: UnixMillis, random: [u8; 10]) -> Self {
        Self(uuid_v7(now, random))
    }
}

fn uuid_v7(now: UnixMillis, random: [u8; 10]) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(now.0, &random).into_uuid()
}

macro_rules! uuid_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0.as_hyphenated())
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::try_parse(text).map(Self)
            }
        }
    };
}
uuid_text!(JobId);
uuid_text!(Incarnation);

fixed_bytes!(
    /// A random number used once: it names a claim or a verdict, so that a repeat is recognised.
    Nonce,
    16,
    "nonce"
);

fixed_bytes!(
    /// The identity of one demand store, the same behind every server that fronts it.
    StoreId,
    16,
    "store id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_say_what_is_wrong() {
        assert!("lab-7".parse::<Namespace>().is_ok());
        let error = "Lab".parse::<Namespace>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "namespace may hold only a-z, 0-9 and -; found 'L'"
        );
        assert!("".parse::<Namespace>().is_err());
        assert!("x".repeat(64).parse::<Namespace>().is_err());
        assert!(serde_json::from_str::<ClientKey>("\"a b\"").is_err());
    }

    #[test]
    fn ids_sort_by_time() {
        let early = JobId::new(UnixMillis(1_000), [0xff; 10]);
        let late = JobId::new(UnixMillis(1_001), [0; 10]);
        assert!(early < late);
        assert_eq!(early.0.get_version_num(), 7);
        assert_eq!(early.to_string().parse::<JobId>().unwrap(), early);
    }

    #[test]
    fn fixed_bytes_read_hex_and_refuse_other_lengths() {
        let nonce = Nonce([7; 16]);
        let json = serde_json::to_string(&nonce).unwrap();
        assert_eq!(serde_json::from_str::<Nonce>(&json).unwrap(), nonce);
        assert!(serde_json::from_str::<Nonce>("\"07\"").is_err());
        let mut cbor = Vec::new();
        ciborium::into_writer(&nonce, &mut cbor).unwrap();
        assert_eq!(cbor.len(), 17);
        assert_eq!(ciborium::from_reader::<Nonce, _>(&cbor[..]).unwrap(), nonce);
    }
}

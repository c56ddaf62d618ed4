//! The few Datalog sentences that our tokens may hold, written and read.
//!
//! A token's first block states facts, one a line; every block may add checks of three forms. A
//! block is read from the source that the Biscuit library prints for it, by exact match: what this
//! module would not have written itself is refused. Names come from small alphabets without quotes
//! or semicolons, so no name can pass for syntax.

use mutual_demand::Right;
use mutual_model::identity::SealingPublic;
use mutual_model::ids::Namespace;
use mutual_model::time::UnixMillis;

use super::TokenError;

/// A limit that a block puts on the whole token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caveat {
    /// Only before this instant.
    Before(UnixMillis),
    /// Only these namespaces.
    Namespaces(Vec<Namespace>),
    /// Only these rights.
    Rights(Vec<Right>),
}

/// Something that the first block states of the token's bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// Who it is.
    User(String),
    /// Where secrets for it are sealed to.
    Sealing(SealingPublic),
    /// A namespace it belongs to.
    Namespace(Namespace),
    /// A right it has there.
    Right(Right),
}

/// One line of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A fact.
    Claim(Claim),
    /// A check.
    Caveat(Caveat),
}

const BEFORE: &str = "check if time($time), $time < ";
const BEFORE_OR_AT: &str = "check if time($time), $time <= ";
const NAMESPACES: (&str, &str) = (
    "check if resource_namespace($namespace), {",
    "}.contains($namespace)",
);
const RIGHTS: (&str, &str) = ("check if operation($right), {", "}.contains($right)");
/// Stands in a set that would otherwise be empty; no right has this name.
const NO_RIGHT: &str = "none";

const RIGHT_NAMES: [(Right, &str); 5] = [
    (Right::Read, "read"),
    (Right::Submit, "submit"),
    (Right::Work, "work"),
    (Right::Guard, "guard"),
    (Right::Operate, "operate"),
];

/// The name of a right in tokens and on the command line.
pub(super) fn right_name(right: Right) -> &'static str {
    let known = RIGHT_NAMES.iter().find(|(known, _)| *known == right);
    known.map_or(NO_RIGHT, |(_, name)| name)
}

fn right_named(text: &str) -> Option<Right> {
    let known = RIGHT_NAMES.iter().find(|(_, name)| *name == text);
    known.map(|(right, _)| *right)
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    quoted.join(", ")
}

impl Caveat {
    /// The sentence, without its final semicolon. Instants are cut to whole seconds.
    pub(super) fn to_source(&self) -> Result<String, TokenError> {
        Ok(match self {
            Self::Before(instant) => format!("{BEFORE}{}", date(*instant)?),
            Self::Namespaces(names) => {
                let set = quoted(names.iter().map(Namespace::as_str));
                format!("{}{set}{}", NAMESPACES.0, NAMESPACES.1)
            }
            Self::Rights(rights) if rights.is_empty() => {
                format!("{}\"{NO_RIGHT}\"{}", RIGHTS.0, RIGHTS.1)
            }
            Self::Rights(rights) => {
                let set = quoted(rights.iter().map(|right| right_name(*right)));
                format!("{}{set}{}", RIGHTS.0, RIGHTS.1)
            }
        })
    }

    fn parse(line: &str) -> Option<Self> {
        let between = |(start, end): (&str, &str)| -> Option<Vec<String>> {
            let set = line.strip_prefix(start)?.strip_suffix(end)?;
            set.split(", ").map(unquote).collect()
        };
        // `<=` differs from `<` by an instant; reading it as `<` can only end the token earlier.
        let instant = line
            .strip_prefix(BEFORE_OR_AT)
            .or_else(|| line.strip_prefix(BEFORE));
        if let Some(instant) = instant {
            return Some(Self::Before(instant_of(instant)?));
        }
        if let Some(names) = between(NAMESPACES) {
            let names: Result<_, _> = names.into_iter().map(Namespace::try_from).collect();
            return names.ok().map(Self::Namespaces);
        }
        // A name that is no right allows nothing, like any name that no request asks for.
        between(RIGHTS)
            .map(|names| Self::Rights(names.iter().filter_map(|name| right_named(name)).collect()))
    }
}

impl Claim {
    /// The sentence, without its final semicolon.
    pub(super) fn to_source(&self) -> String {
        match self {
            Self::User(subject) => format!("user(\"{subject}\")"),
            Self::Sealing(key) => format!("sealing(\"{key}\")"),
            Self::Namespace(name) => format!("namespace(\"{name}\")"),
            Self::Right(right) => format!("right(\"{}\")", right_name(*right)),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (predicate, argument) = line.strip_suffix(')')?.split_once('(')?;
        let argument = unquote(argument)?;
        match predicate {
            "user" => is_subject(&argument).then_some(Self::User(argument)),
            "sealing" => argument.parse().ok().map(Self::Sealing),
            "namespace" => argument.parse().ok().map(Self::Namespace),
            "right" => right_named(&argument).map(Self::Right),
            _ => None,
        }
    }
}

/// Reads a block's source, line by line.
pub(super) fn parse_block(source: &str) -> Result<Vec<Line>, TokenError> {
    source
        .split_terminator(";\n")
        .map(|line| {
            let line = line.trim_end_matches(';');
            let claim = || Claim::parse(line).map(Line::Claim);
            let known = Caveat::parse(line).map(Line::Caveat).or_else(claim);
            known.ok_or_else(|| TokenError::UnknownSentence(line.chars().take(80).collect()))
        })
        .collect()
}

fn unquote(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | ';');
    (!inner.is_empty() && inner.chars().all(is_plain)).then(|| inner.to_owned())
}

/// Whether a text may name a user: 1 to 63 of letters, digits and `. _ - @ +`.
pub(super) fn is_subject(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
    (1..=63).contains(&text.len()) && text.chars().all(allowed)
}

fn date(instant: UnixMillis) -> Result<String, TokenError> {
    let seconds = i64::try_from(instant.0 / 1_000).map_err(|_| TokenError::Date)?;
    let timestamp = jiff::Timestamp::from_second(seconds).map_err(|_| TokenError::Date)?;
    Ok(timestamp.to_string())
}

fn instant_of(text: &str) -> Option<UnixMillis> {
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(timestamp.as_millisecond())
        .ok()
        .map(UnixMillis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_read_back() {
        let caveats = [
            Caveat::Before(UnixMillis(1_763_774_627_000)),
            Caveat::Namespaces(vec!["lab".parse().unwrap(), "b-2".parse().unwrap()]),
            Caveat::Rights(vec![Right::Read, Right::Submit]),
            Caveat::Rights(vec![]),
        ];
        for caveat in caveats {
            let source = format!("{};\n", caveat.to_source().unwrap());
            assert_eq!(parse_block(&source).unwrap(), [Line::Caveat(caveat)]);
        }
    }

    #[test]
    fn other_sentences_are_refused() {
        for source in [
            "check if true;\n",
            "reject if time($time), $time < 2026-01-01T00:00:00Z;\n",
            "check if operation($right), {\"read\"}.contains($right) or true;\n",
            "check if operation($right), !{\"read\"}.contains($right);\n",
            "right(\"everything\");\n",
            "user(\"a\\\"b\");\n",
            "user($x);\n",
            "right(\"read\") <- user($u);\n",
            "namespace(\"lab\"), right(\"read\");\n",
        ] {
            assert!(parse_block(source).is_err(), "{source}");
        }
    }
}

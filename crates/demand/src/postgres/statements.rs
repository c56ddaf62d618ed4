//! PostgreSQL's statements, each in a plain file of its own below `sql/`.
//!
//! Parameters are written by name with their type, `:now::bigint`; [`positional`] numbers them as
//! the protocol wants.

macro_rules! statements {
    ($($name:ident = $file:literal,)*) => {
        $(pub(super) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*
    };
}

statements! {
    ADVANCE = "advance",
    ATTACH = "attach",
    ATTEMPT_CANCEL = "attempt_cancel",
    ATTEMPT_START = "attempt_start",
    ATTEMPTS = "attempts",
    ATTEMPTS_END = "attempts_end",
    CANCEL = "cancel",
    CANDIDATE = "candidate",
    CANDIDATES = "candidates",
    CHECKPOINT = "checkpoint",
    CLAIM = "claim",
    CLAIM_STATE = "claim_state",
    CLAIMED_BEFORE = "claimed_before",
    EPOCH_RENEW = "epoch_renew",
    EVENTS = "events",
    FINISH_REPEAT = "finish_repeat",
    FORGET_EVENTS = "forget_events",
    FORGET_LEASES = "forget_leases",
    FORGET_VERDICTS = "forget_verdicts",
    GIVE_BACK = "give_back",
    GRACE = "grace",
    GRACE_OF_OPENING = "grace_of_opening",
    GRACE_OF_START = "grace_of_start",
    GRANTED_BEFORE = "granted_before",
    HELD = "held",
    IDENTITY = "identity",
    INCARNATIONS_BEFORE = "incarnations_before",
    JOB = "job",
    JOBS = "jobs",
    LEASE_EXTEND = "lease_extend",
    LEASE_LOCK = "lease_lock",
    LEASE_REVOKE = "lease_revoke",
    LEASES_DUE = "leases_due",
    LIVING = "living",
    LOSE_ALL = "lose_all",
    LOSE_DUE = "lose_due",
    LOST_ATTEMPT = "lost_attempt",
    MOMENT = "moment",
    NEXT_EXPIRY = "next_expiry",
    RELEASE = "release",
    RELEASE_REPEAT = "release_repeat",
    REQUEST_CHECKPOINT = "request_checkpoint",
    SPARED = "spared",
    STORE_ROW = "store_row",
    SUPERSEDE = "supersede",
    TOUCH = "touch",
    UNLIST = "unlist",
    VERDICT_ADD = "verdict_add",
    VERDICT_VOTES = "verdict_votes",
    WAITED_OUT = "waited_out",
}

/// Statements whose beginning says what they are about, which the database does faster for one than for many.
macro_rules! begun {
    ($($(#[$doc:meta])* $name:ident = $beginning:literal + $rest:literal,)*) => {
        $($(#[$doc])* pub(super) const $name: &str =
            concat!(include_str!(concat!("sql/", $beginning, ".sql")), include_str!(concat!("sql/", $rest, ".sql")));)*
    };
}

begun! {
    /// Claims the best job of one namespace; no row if there is none, or if something has to be looked into.
    CLAIM_BEST = "best_of_namespace" + "claim_best",
    /// The same among jobs that are named.
    CLAIM_BEST_OF_THESE = "best_of_these" + "claim_best",
    FINISH = "finish_these" + "finish",
    FINISH_ONE = "finish_one" + "finish",
    SUBMIT = "submit_these" + "submit",
    SUBMIT_ONE = "submit_one" + "submit",
}

/// Layouts in the order in which they came; the table `layout` counts how many a database has.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/first.sql"),
    include_str!("migrations/attempt_logs.sql"),
];

/// A statement with numbered parameters, and their names in that order.
pub(super) fn positional(named: &'static str) -> (String, Vec<&'static str>) {
    let mut sql = String::with_capacity(named.len());
    let mut names: Vec<&'static str> = Vec::new();
    let mut rest = named;
    while let Some(at) = rest.find([':', '-']) {
        let (before, from) = rest.split_at(at);
        sql.push_str(before);
        if from.starts_with("--") {
            rest = from.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        if let Some(after) = from.strip_prefix('-') {
            sql.push('-');
            rest = after;
            continue;
        }
        if let Some(after) = from.strip_prefix("::") {
            sql.push_str("::");
            rest = after;
            continue;
        }
        let name = &from[1..];
        let end = name
            .find(|c: char| !c.is_ascii_lowercase() && c != '_')
            .unwrap_or(name.len());
        let (name, after) = name.split_at(end);
        let number = names
            .iter()
            .position(|known| *known == name)
            .unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
        sql.push_str(&format!("${}", number + 1));
        rest = after;
    }
    sql.push_str(rest);
    (sql, names)
}

#[cfg(test)]
mod tests {
    use super::positional;

    #[test]
    fn parameters_are_numbered_once_each() {
        let (sql, names) = positional("a = :one::text AND b > :two::bigint OR c = :one::text");
        assert_eq!(sql, "a = $1::text AND b > $2::bigint OR c = $1::text");
        assert_eq!(names, ["one", "two"]);
        let (sql, names) = positional("-- why: because\nSELECT 1 - :one::bigint -- so: there");
        assert_eq!(
            (sql.as_str(), names.as_slice()),
            ("SELECT 1 - $1::bigint ", ["one"].as_slice())
        );
    }
}

//! SQLite's statements, each in a plain file of its own below `sql/`.

macro_rules! statements {
    ($($name:ident = $file:literal,)*) => {
        $(pub(super) const $name: &str = include_str!(concat!("sql/", $file, ".sql"));)*

        /// Every statement, so that a test can prepare them all.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, &str)] = &[$(($file, $name)),*];
    };
}

statements! {
    ADVANCE = "advance",
    ATTACH = "attach",
    ATTEMPT_BEGIN = "attempt_begin",
    ATTEMPT_CANCEL = "attempt_cancel",
    ATTEMPT_END = "attempt_end",
    ATTEMPT_FINISH = "attempt_finish",
    ATTEMPT_START = "attempt_start",
    ATTEMPTS = "attempts",
    CANCEL = "cancel",
    CANDIDATE = "candidate",
    CANDIDATES = "candidates",
    CHECKPOINT = "checkpoint",
    CLAIM = "claim",
    CLAIM_STATE = "claim_state",
    CLAIMED_BEFORE = "claimed_before",
    EPOCH_RENEW = "epoch_renew",
    EVENTS = "events",
    FINISH = "finish",
    FINISH_REPEAT = "finish_repeat",
    FORGET_EVENTS = "forget_events",
    FORGET_LEASES = "forget_leases",
    FORGET_VERDICTS = "forget_verdicts",
    GRANTED_BEFORE = "granted_before",
    HELD = "held",
    INCARNATIONS_BEFORE = "incarnations_before",
    JOB = "job",
    JOB_OF_KEY = "job_of_key",
    JOBS = "jobs",
    LEASE = "lease",
    LEASE_EXPIRED = "lease_expired",
    LEASE_EXTEND = "lease_extend",
    LEASE_REVOKE = "lease_revoke",
    LOSE = "lose",
    LOSE_ALL = "lose_all",
    LOST_ATTEMPT = "lost_attempt",
    NEXT_EXPIRY = "next_expiry",
    POSITION = "position",
    RELEASE = "release",
    RELEASE_REPEAT = "release_repeat",
    REQUEST_CHECKPOINT = "request_checkpoint",
    SPARED = "spared",
    STORE_ROW = "store_row",
    SUBMIT = "submit",
    SUPERSEDE = "supersede",
    SUPERSEDED = "superseded",
    TOUCH = "touch",
    UNLIST = "unlist",
    VERDICT_ADD = "verdict_add",
    VERDICT_USED = "verdict_used",
    VERDICT_VOTES = "verdict_votes",
    WAITED_OUT = "waited_out",
}

/// Layouts in the order in which they came; a file's `user_version` counts how many it has.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/first.sql"),
    include_str!("migrations/attempt_logs.sql"),
];

#[cfg(test)]
mod tests {
    use super::{ALL, MIGRATIONS};

    #[test]
    fn every_statement_fits_the_layout() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for migration in MIGRATIONS {
            connection.execute_batch(migration).unwrap();
        }
        for (name, sql) in ALL {
            if let Err(error) = connection.prepare(sql) {
                panic!("{name}: {error}");
            }
        }
    }
}

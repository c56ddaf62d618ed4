//! Opening the file: lock, connection settings, migrations.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::statements::MIGRATIONS;
use super::{SQLITE_VERSION_MIN, failed};
use crate::{StoreError, StoreResult};

/// How long a connection waits for another's lock; only a checkpoint of the WAL takes any.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Pages that the writing connection keeps at most, taken as they are needed.
const CACHE_KIB: i64 = 32 << 10;
/// Pages of 4 KiB in the log before it is folded into the file.
const LOG_PAGES: i64 = 4_096;
/// Prepared statements kept per connection; more than there are.
const STATEMENTS_KEPT: usize = 128;

/// Takes the store for this process; the lock goes with the returned file.
pub(super) fn lock(path: &Path) -> StoreResult<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let unavailable = |error: &dyn std::fmt::Display| {
        StoreError::Unavailable(format!("cannot lock {}: {error}", name.display()))
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(|error| unavailable(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(unavailable(&"another process has the store open")),
        Err(TryLockError::Error(error)) => Err(unavailable(&error)),
    }
}

/// The connection that writes, on a file of the newest layout.
pub(super) fn writing(path: &Path) -> StoreResult<Connection> {
    check_version()?;
    let connection = Connection::open(path).map_err(|error| cannot_open(path, &error))?;
    settle(&connection).map_err(failed)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(|error| cannot_open(path, &error))?;
    if mode != "wal" {
        return Err(StoreError::Unavailable(format!(
            "{} cannot hold a write-ahead log (journal mode {mode}): put it on a local disk",
            path.display()
        )));
    }
    make_room(&connection).map_err(failed)?;
    migrate(&connection)?;
    restrict(path)?;
    Ok(connection)
}

/// Durable commits, and room for large ones: what a batch changes stays in memory until it is
/// committed, undo included, and the log is folded into the file every 16 MiB instead of every 4.
fn make_room(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)
}

/// A connection that only reads.
pub(super) fn reading(path: &Path) -> StoreResult<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| cannot_open(path, &error))?;
    settle(&connection).map_err(failed)?;
    Ok(connection)
}

fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "foreign_keys", "on")?;
    connection.pragma_update(None, "trusted_schema", "off")
}

fn cannot_open(path: &Path, error: &rusqlite::Error) -> StoreError {
    StoreError::Unavailable(format!("cannot open {}: {error}", path.display()))
}

fn check_version() -> StoreResult<()> {
    let found = rusqlite::version_number();
    if found >= SQLITE_VERSION_MIN {
        return Ok(());
    }
    Err(StoreError::Internal(format!(
        "SQLite {} is too old: build with the bundled one",
        rusqlite::version()
    )))
}

fn migrate(connection: &Connection) -> StoreResult<()> {
    let done: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    let Some(missing) = MIGRATIONS.get(done..) else {
        return Err(StoreError::Internal(format!(
            "the store has layout {done}, this program knows {}: use a newer program",
            MIGRATIONS.len()
        )));
    };
    for (migration, version) in missing.iter().zip(done + 1..) {
        let script =
            format!("BEGIN IMMEDIATE; {migration}; PRAGMA user_version = {version}; COMMIT;");
        connection.execute_batch(&script).map_err(failed)?;
    }
    Ok(())
}

/// Sealed keys and tasks' environments stand in the file: nobody else reads it.
#[cfg(unix)]
fn restrict(path: &Path) -> StoreResult<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|error| {
        StoreError::Unavailable(format!("cannot restrict {}: {error}", path.display()))
    })
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> StoreResult<()> {
    Ok(())
}

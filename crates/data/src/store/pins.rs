//! Pins: who needs which root, and until when. One small file each, written only after the blocks are durable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{BlockStore, StoreError, lock};
use crate::address::{self, Cid};

/// One owner's wish to keep the DAG below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The root.
    pub root: Cid,
    /// Who wants it kept, for example `job:0191…` or `keep:<node>`. Any text; compared exactly.
    pub owner: String,
    /// When the wish ends, in milliseconds since 1970 by this machine's clock; `None` = when unpinned.
    pub until: Option<u64>,
}

/// Root (as text) and owner.
pub(super) type Key = (String, String);

/// A pin as its file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    root: String,
    owner: String,
    until: Option<u64>,
}

/// Reads all pins. A file that is no pin (torn by a crash before it was synchronised) is removed: its pin was never
/// acknowledged.
pub(super) fn load(dir: &Path) -> Result<BTreeMap<Key, Option<u64>>, StoreError> {
    let mut pins = BTreeMap::new();
    for path in super::files(dir)? {
        let stored = fs::read(&path).map_err(StoreError::io(&path))?;
        match serde_json::from_slice::<Stored>(&stored) {
            Ok(pin) if address::parse(&pin.root).is_ok() => {
                pins.insert((pin.root, pin.owner), pin.until);
            }
            _ => fs::remove_file(&path).map_err(StoreError::io(&path))?,
        }
    }
    Ok(pins)
}

/// One file per root and owner; the owner's text may hold anything, so it is hashed.
fn file_name(root: &str, owner: &str) -> String {
    let owner = blake3::hash(owner.as_bytes()).to_hex();
    format!("{root}.{}", &owner[..16])
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl BlockStore {
    /// Pins a root whose blocks are all here already.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if any block below it is not here; [`StoreError::Dag`], [`StoreError::Io`].
    pub fn pin(&self, root: &Cid, owner: &str, until: Option<u64>) -> Result<(), StoreError> {
        let batch = self.batch();
        self.walk(root, &mut |cid, _| batch.contains(cid))?;
        batch.commit(root, owner, until)
    }

    /// Ends an owner's pin. False if there was none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn unpin(&self, root: &Cid, owner: &str) -> Result<bool, StoreError> {
        let key = (root.to_string(), owner.to_owned());
        if lock(&self.inner.pins).remove(&key).is_none() {
            return Ok(false);
        }
        let path = self.pin_dir().join(file_name(&key.0, owner));
        fs::remove_file(&path).map_err(StoreError::io(&path))?;
        Ok(true)
    }

    /// Ends all of an owner's pins but those on `roots`, and frees what nobody needs any more, unless much time was
    /// spent on that just now: then a later call does. Returns how many pins ended.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn retain(&self, owner: &str, roots: &[Cid]) -> Result<usize, StoreError> {
        let mut pins = self.pins();
        pins.retain(|pin| pin.owner == owner && !roots.contains(&pin.root));
        for pin in &pins {
            self.unpin(&pin.root, owner)?;
        }
        if !pins.is_empty() {
            self.collect_in_turn()?;
        }
        Ok(pins.len())
    }

    /// Whether anyone has this root pinned now, and so all its blocks are here.
    pub fn is_pinned(&self, root: &Cid) -> bool {
        let now = now_ms();
        self.pins()
            .iter()
            .any(|pin| pin.root == *root && !expired(pin.until, now))
    }

    /// All pins, expired ones included until the next collection.
    pub fn pins(&self) -> Vec<Pin> {
        let pins = lock(&self.inner.pins);
        pins.iter()
            .filter_map(|((root, owner), until)| {
                Some(Pin {
                    root: address::parse(root).ok()?,
                    owner: owner.clone(),
                    until: *until,
                })
            })
            .collect()
    }

    pub(super) fn write_pin(&self, pin: &Pin) -> Result<(), StoreError> {
        let root = pin.root.to_string();
        let stored = Stored {
            root: root.clone(),
            owner: pin.owner.clone(),
            until: pin.until,
        };
        let bytes = serde_json::to_vec(&stored).expect("a pin is two texts and a number");
        self.write_pin_file(&file_name(&root, &pin.owner), &bytes)?;
        lock(&self.inner.pins).insert((root, pin.owner.clone()), pin.until);
        Ok(())
    }

    fn write_pin_file(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = self.temporary_path();
        let dir = self.pin_dir();
        let write = || {
            let mut file = File::create_new(&temporary)?;
            file.write_all(bytes)?;
            if self.inner.options.durable {
                file.sync_data()?;
            }
            fs::rename(&temporary, dir.join(name))?;
            if self.inner.options.durable {
                File::open(&dir)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            StoreError::io(&dir)(error)
        })
    }

    /// Forgets pins whose time is over.
    pub(super) fn expire_pins(&self) -> Result<(), StoreError> {
        let now = now_ms();
        for pin in self.pins() {
            if expired(pin.until, now) {
                self.unpin(&pin.root, &pin.owner)?;
            }
        }
        Ok(())
    }
}

fn expired(until: Option<u64>, now: u64) -> bool {
    until.is_some_and(|until| until <= now)
}

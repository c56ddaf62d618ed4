//! Finishes that their stores have not answered yet, kept on disk until they do.
//!
//! One file per claim, written aside, synchronised and renamed into place before the first try, and
//! removed only after an answer. So a result survives the death of the agent, the control and the
//! demand server, in any order.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mutual_demand::FinishRequest;
use mutual_model::agent::{RunKey, StoreUrl};
use serde::{Deserialize, Serialize};

const SUFFIX: &str = "json";
/// Larger files are no entries.
const ENTRY_BYTES_MAX: u64 = 4 << 20;

/// One finish on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where it goes.
    pub store: StoreUrl,
    /// What it says.
    pub finish: FinishRequest,
}

impl Entry {
    /// The claim it ends.
    pub fn key(&self) -> RunKey {
        RunKey::of(&self.store, &self.finish.claim)
    }

    fn name(&self) -> String {
        let store = blake3::hash(self.store.as_str().as_bytes()).to_hex();
        let claim = &self.finish.claim;
        format!("{}-{}-{}.{SUFFIX}", claim.job, claim.fence, &store[..8])
    }
}

/// The directory of entries.
#[derive(Debug, Clone)]
pub struct Outbox {
    dir: PathBuf,
}

impl Outbox {
    /// The outbox in `dir`, which is made if it is missing.
    ///
    /// # Errors
    /// Whatever making the directory reports.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Makes an entry durable. A second entry for the same claim replaces nothing: the first one
    /// may have been delivered already.
    ///
    /// # Errors
    /// Whatever writing reports; nothing is there then.
    pub fn put(&self, entry: &Entry) -> io::Result<()> {
        let path = self.dir.join(entry.name());
        if path.exists() {
            return Ok(());
        }
        let aside = path.with_extension("tmp");
        let mut file = File::create(&aside)?;
        serde_json::to_writer(&mut file, entry)?;
        file.flush()?;
        file.sync_data()?;
        fs::rename(&aside, &path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Forgets an entry that was answered.
    pub fn remove(&self, entry: &Entry) {
        if let Err(error) = fs::remove_file(self.dir.join(entry.name())) {
            tracing::warn!(%error, "an answered finish stays in the outbox");
        }
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.files().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that waits. What cannot be read is set aside, once, and said.
    pub fn entries(&self) -> Vec<Entry> {
        let files = self.files().into_iter();
        let read = files.filter_map(|path| match read_entry(&path) {
            Ok(entry) => Some(entry),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "unreadable outbox entry");
                let _ = fs::rename(&path, path.with_extension("unreadable"));
                None
            }
        });
        read.collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|end| end == SUFFIX))
            .collect();
        paths.sort();
        paths
    }
}

fn read_entry(path: &Path) -> io::Result<Entry> {
    if fs::metadata(path)?.len() > ENTRY_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too large"));
    }
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutual_demand::{Metrics, Outcome, ResultView};
    use mutual_model::ids::{JobId, Nonce};
    use mutual_model::lease::{Claim, Fence};

    fn entry(n: u128) -> Entry {
        Entry {
            store: StoreUrl::from("http://store"),
            finish: FinishRequest {
                claim: Claim {
                    job: JobId(uuid::Uuid::from_u128(n)),
                    fence: Fence {
                        epoch: 1,
                        sequence: 2,
                    },
                    nonce: Nonce([3; 16]),
                },
                outcome: Outcome::Success,
                result: ResultView {
                    output: None,
                    artifacts: vec![],
                    log: None,
                    metrics: Metrics::default(),
                },
            },
        }
    }

    #[test]
    fn entries_survive_and_are_removed_when_answered() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path().join("outbox")).unwrap();
        outbox.put(&entry(1)).unwrap();
        outbox.put(&entry(2)).unwrap();
        outbox.put(&entry(2)).unwrap();
        let again = Outbox::open(dir.path().join("outbox")).unwrap();
        assert_eq!(again.entries(), [entry(1), entry(2)]);
        again.remove(&entry(1));
        assert_eq!(again.entries(), [entry(2)]);
    }

    #[test]
    fn damaged_and_unfinished_files_harm_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(dir.path().to_owned()).unwrap();
        outbox.put(&entry(1)).unwrap();
        fs::write(dir.path().join("half.tmp"), b"{").unwrap();
        fs::write(dir.path().join("bad.json"), b"{\"store\":").unwrap();
        assert_eq!(outbox.entries(), [entry(1)]);
        assert_eq!(outbox.len(), 1);
        assert!(dir.path().join("bad.unreadable").exists());
    }
}

//! Objects of a user: inputs sealed, seeded and vouched for; results fetched, verified, opened.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mutual_node::agent::SCHEME;
use mutual_node::data::transfer::FetchOptions;
use mutual_node::data::tree::{
    Choice, Kind as EntryKind, Limits, PackOptions, Tree, Unpacked, pack_selected,
};
use mutual_node::data::{Cid, DataKey};
use mutual_node::demand::http::{INPUT_KEY_PURPOSE, RESULT_KEY_PURPOSE};
use mutual_node::demand::{EncMeta, JobView, Manifest};
use mutual_node::model::ids::{JobId, Namespace};
use mutual_node::model::job::JobState;
use mutual_node::model::receipt::StorageReceipt;
use mutual_node::swarm::{PeerAddr, SwarmError};

use super::Client;
use super::exchange::{Exchange, addresses};
use crate::failure::{Failure, Kind, Naming as _, Outcome};

/// Peers asked to keep an input, if there are so many; one is enough to go on.
const COPIES: usize = 2;
/// How long they are asked to keep it: as long as a job may wait in the queue by default.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Addresses in a manifest.
const SEEDERS_MAX: usize = 16;
/// Longest log shown, in bytes.
const LOG_BYTES_MAX: u64 = 256 << 20;

/// An image that peers hold.
#[derive(Debug)]
pub(crate) struct AddedImage {
    /// Its content id.
    pub(crate) root: String,
    /// Bytes of all its blocks.
    pub(crate) bytes: u64,
    /// Peers that keep a copy.
    pub(crate) copies: usize,
}

/// What a download brought.
#[derive(Debug)]
pub(crate) struct Downloaded {
    /// The result's content id.
    pub(crate) root: String,
    /// Files.
    pub(crate) files: u64,
    /// Bytes of the files.
    pub(crate) bytes: u64,
    /// Ids of the peers that sent blocks.
    pub(crate) peers: Vec<String>,
}

/// An object to be fetched.
#[derive(Debug)]
struct Sought {
    namespace: Namespace,
    manifest: Manifest,
}

impl Client {
    /// Seals what `choose` takes below `path`, serves it, and has other peers vouch for copies.
    pub(crate) async fn seed(
        &self,
        path: &Path,
        choose: &(dyn Fn(&Path, bool) -> Choice + Sync),
    ) -> Outcome<Manifest> {
        self.seed_for(&self.context.file.namespace, path, choose)
            .await
    }

    async fn seed_for(
        &self,
        namespace: &Namespace,
        path: &Path,
        choose: &(dyn Fn(&Path, bool) -> Choice + Sync),
    ) -> Outcome<Manifest> {
        let sealing = self.store_info().await?.sealing.ok_or_else(|| {
            Failure::configuration("the demand store names no key to seal inputs to")
                .hint("inputs need a demand store behind its HTTP server")
        })?;
        let exchange = self.exchange().await?;
        let key = DataKey::generate().map_err(Failure::internal)?;
        let bar = self.output.spinner("sealing");
        let packed = tokio::task::block_in_place(|| {
            let batch = exchange.blocks.batch();
            let options = PackOptions::private(namespace.as_str());
            let packed = pack_selected(&batch, &key, &options, path, choose)
                .map_err(|error| Failure::user(format!("{}: {error}", path.display())))?;
            batch
                .commit(&packed.root.cid, "input", None)
                .map_err(Failure::internal)?;
            Ok::<_, Failure>(packed)
        })?;
        bar.finish_and_clear();
        for skipped in &packed.skipped {
            self.output
                .note(format!("left out {}: {}", skipped.path, skipped.what));
        }
        let sealed_key = sealing
            .seal(INPUT_KEY_PURPOSE, key.expose(), &mut rand::rng())
            .map_err(Failure::internal)?;
        self.vouch(
            exchange,
            namespace,
            packed.root.cid,
            packed.root.bytes,
            sealed_key,
        )
        .await
    }

    async fn vouch(
        &self,
        exchange: &Exchange,
        namespace: &Namespace,
        root: Cid,
        bytes: u64,
        sealed_key: Vec<u8>,
    ) -> Outcome<Manifest> {
        let (peers, receipts) = self.keep_copies(exchange, namespace, root).await?;
        let vouches =
            |peer: &&PeerAddr| receipts.iter().any(|receipt| receipt.holder == peer.node());
        let mut seeders: Vec<_> = peers
            .iter()
            .filter(vouches)
            .map(ToString::to_string)
            .collect();
        seeders.extend(
            exchange
                .swarm
                .listen_addrs()
                .iter()
                .map(ToString::to_string),
        );
        seeders.truncate(SEEDERS_MAX);
        Ok(Manifest {
            root: root.to_string().parse().map_err(Failure::internal)?,
            bytes,
            seeders,
            enc_meta: EncMeta {
                scheme: SCHEME.to_owned(),
                sealed_key,
            },
            receipts,
        })
    }

    /// Has peers of a namespace keep copies of an object; all peers there are, and those who do.
    async fn keep_copies(
        &self,
        exchange: &Exchange,
        namespace: &Namespace,
        root: Cid,
    ) -> Outcome<(Vec<PeerAddr>, Vec<StorageReceipt>)> {
        let bar = self.output.spinner("seeding");
        let peers = exchange.peers(namespace).await?;
        let receipts = match exchange.swarm.keep_at(root, &peers, COPIES, KEEP).await {
            Ok(receipts) => receipts,
            Err(SwarmError::NotKept { receipts, .. }) if !receipts.is_empty() => receipts,
            Err(error) => {
                return Err(Failure::unavailable(format!(
                    "no peer keeps a copy of {root}: {error}"
                ))
                .hint("another node of your namespace must be up, with the role seeder or agent"));
            }
        };
        bar.finish_and_clear();
        Ok((peers, receipts))
    }

    /// Takes an OCI image in and has other peers keep copies of it: those of the namespace may then fetch it, or all
    /// members if it is public.
    pub(crate) async fn add_image(&self, path: &Path, is_public: bool) -> Outcome<AddedImage> {
        let namespace = &self.context.file.namespace;
        let exchange = self.exchange().await?;
        let bar = self.output.spinner("taking the image in");
        let root = tokio::task::block_in_place(|| {
            let batch = exchange.blocks.batch();
            let owner = (!is_public).then(|| namespace.to_string());
            let root = mutual_node::data::image::import(&batch, path, owner)
                .map_err(|error| Failure::user(format!("{}: {error}", path.display())))?;
            let committed = batch.commit(&root.cid, "image", None);
            committed.map_err(Failure::internal)?;
            Ok::<_, Failure>(root)
        })?;
        bar.finish_and_clear();
        let (_, receipts) = self.keep_copies(exchange, namespace, root.cid).await?;
        Ok(AddedImage {
            root: root.cid.to_string(),
            bytes: root.bytes,
            copies: receipts.len(),
        })
    }

    /// Seeds a draft's inputs: one directory as it is, anything else gathered by name.
    pub(super) async fn seed_inputs(
        &self,
        namespace: &Namespace,
        inputs: &[PathBuf],
    ) -> Outcome<Manifest> {
        let take = |_: &Path, _: bool| Choice::Take;
        if let [input] = inputs
            && input.is_dir()
        {
            return self.seed_for(namespace, input, &take).await;
        }
        let gathered = self.exchange().await?.scratch().join("inputs");
        tokio::task::block_in_place(|| gather(inputs, &gathered))?;
        self.seed_for(namespace, &gathered, &take).await
    }

    /// Fetches a job's result by its content id, verifies and opens it, and writes it to `dir`.
    pub(crate) async fn download(&self, job: JobId, dir: &Path) -> Outcome<Downloaded> {
        let output = self.output_of(job).await?;
        let (root, peers) = self.fetch(&output).await?;
        let key = self.open_key(&output.manifest).await?;
        let exchange = self.exchange().await?;
        let unpacked = tokio::task::block_in_place(|| {
            let tree = Tree::open(&exchange.blocks, &root, &key).map_err(Failure::internal)?;
            unpack_whole(&tree, dir)
        })?;
        Ok(Downloaded {
            root: root.to_string(),
            files: unpacked.entries,
            bytes: unpacked.bytes,
            peers,
        })
    }

    /// Where a job's result is: from control or store, else from what the DHT remembers.
    async fn output_of(&self, job: JobId) -> Outcome<Sought> {
        let view = match self.job(job).await {
            Err(failure) if failure.kind == Kind::Unavailable => {
                return self.remembered_output(job, failure).await;
            }
            answered => answered?,
        };
        let output = view
            .result
            .as_ref()
            .and_then(|result| result.output.clone());
        Ok(Sought {
            manifest: output.ok_or_else(|| no_result(&view))?,
            namespace: view.namespace,
        })
    }

    /// With control and store down; `failure` stands if the DHT knows nothing of the job either.
    async fn remembered_output(&self, job: JobId, failure: Failure) -> Outcome<Sought> {
        let remembered = self.mirror(job).await;
        let mirror = remembered.ok().flatten().ok_or(failure)?;
        let root = mirror.result.ok_or_else(|| {
            Failure::unavailable(format!(
                "no control and no demand store answers; by the DHT the job is {} and has no result",
                mirror.state
            ))
        })?;
        Ok(Sought {
            namespace: self.context.file.namespace.clone(),
            manifest: Manifest {
                root,
                bytes: 0,
                seeders: mirror.providers,
                enc_meta: EncMeta {
                    scheme: SCHEME.to_owned(),
                    sealed_key: mirror.sealed_key,
                },
                receipts: Vec::new(),
            },
        })
    }

    /// Downloads the results of several jobs: one straight into `dir`, more into numbered ones below.
    pub(crate) async fn download_results(&self, views: &[JobView], dir: &Path) -> Outcome {
        for view in views
            .iter()
            .filter(|view| view.state == JobState::Succeeded)
        {
            let target = match view.spec.array {
                Some(array) => dir.join(array.index.to_string()),
                None => dir.to_owned(),
            };
            self.download(view.id, &target).await?;
        }
        Ok(())
    }

    /// The text of a job's stored log.
    pub(super) async fn stored_log(&self, view: &JobView, log: &Manifest) -> Outcome<String> {
        let sought = Sought {
            namespace: view.namespace.clone(),
            manifest: log.clone(),
        };
        let (root, _) = self.fetch(&sought).await?;
        let key = self.open_key(log).await?;
        let exchange = self.exchange().await?;
        tokio::task::block_in_place(|| {
            let tree = Tree::open(&exchange.blocks, &root, &key).map_err(Failure::internal)?;
            read_files(&tree)
        })
    }

    async fn open_key(&self, manifest: &Manifest) -> Outcome<DataKey> {
        let exchange = self.exchange().await?;
        let secret = exchange
            .key
            .open(RESULT_KEY_PURPOSE, &manifest.enc_meta.sealed_key)
            .map_err(|_| {
                Failure::user("the result is sealed to another key than yours")
                    .hint("use the context of whoever submitted the job")
            })?;
        let bytes = secret.as_slice().try_into().map_err(|_| {
            Failure::user("the result's key has not 32 bytes: its agent made it wrong")
        })?;
        Ok(DataKey::from_bytes(bytes))
    }

    /// Brings an object here from its seeders and from whoever vouched for it. Gives the ids of
    /// those that sent something.
    async fn fetch(&self, sought: &Sought) -> Outcome<(Cid, Vec<String>)> {
        let manifest = &sought.manifest;
        let exchange = self.exchange().await?;
        let root = mutual_node::data::address::parse(manifest.root.as_str())
            .map_err(|error| Failure::user(format!("the result's address is none: {error}")))?;
        let known = addresses(&manifest.seeders);
        let mut options = FetchOptions::new("result");
        options.namespace = Some(sought.namespace.to_string());
        options.bytes_expected = manifest.bytes;
        options.lonely = Duration::from_secs(5);
        let fetch = exchange.swarm.fetch(root, &known, options);
        let progress = fetch.progress();
        let bar = self.output.bytes_bar("fetching", manifest.bytes);
        self.add_holders(exchange, manifest, &known, &fetch).await;
        let watching = async {
            let mut progress = progress.clone();
            while progress.changed().await.is_ok() {
                bar.set_position(progress.borrow_and_update().bytes);
            }
            std::future::pending::<()>().await;
        };
        let fetched = tokio::select! {
            fetched = fetch.finish() => fetched,
            () = watching => return Err(Failure::internal("a fetch outlived itself")),
        };
        bar.finish_and_clear();
        fetched.map_err(|error| {
            Failure::unavailable(format!("{} cannot be fetched: {error}", manifest.root))
                .hint("a peer that holds it must be up; try again")
        })?;
        let senders = progress
            .borrow()
            .providers
            .iter()
            .filter(|peer| peer.bytes > 0)
            .map(|peer| peer.name.clone())
            .collect();
        Ok((root, senders))
    }

    /// Adds the peers that vouched and are not among the seeders; where they are now, the DHT says.
    async fn add_holders(
        &self,
        exchange: &Exchange,
        manifest: &Manifest,
        known: &[PeerAddr],
        fetch: &mutual_node::data::transfer::Fetch,
    ) {
        let is_unknown = |holder: &_| known.iter().all(|peer| peer.node() != *holder);
        for receipt in manifest
            .receipts
            .iter()
            .filter(|receipt| is_unknown(&receipt.holder))
        {
            let found = exchange.addresses_of(receipt.holder.node_id()).await;
            if let Some(provider) = found.ok().and_then(|found| exchange.swarm.provider(&found)) {
                fetch.add(provider);
            }
        }
    }
}

/// Checks that a result may go to `dir`: it is absent or empty.
pub(crate) fn check_target(dir: &Path) -> Outcome {
    match std::fs::read_dir(dir).map(|mut entries| entries.next()) {
        Ok(Some(_)) => Err(Failure::user(format!("{} is not empty", dir.display()))
            .hint("name a new or empty directory with --output")),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).naming(dir.display()),
        _ => Ok(()),
    }
}

/// Writes a tree to `dir`, all of it or nothing: with a full disk no half of a result is left.
fn unpack_whole(tree: &Tree<'_>, dir: &Path) -> Outcome<Unpacked> {
    let is_new = !dir.exists();
    std::fs::create_dir_all(dir).naming(dir.display())?;
    let unpacked = unpack_aside(tree, dir);
    if unpacked.is_err() && is_new {
        // Of what stood above it nothing is removed.
        let _ = std::fs::remove_dir(dir);
    }
    unpacked
}

fn unpack_aside(tree: &Tree<'_>, dir: &Path) -> Outcome<Unpacked> {
    let aside = tempfile::Builder::new()
        .prefix(".mutual-")
        .tempdir_in(dir)
        .naming(dir.display())?;
    let unpacked = tree
        .unpack(aside.path(), Limits::default())
        .map_err(|error| Failure::user(format!("{}: {error}", dir.display())))?;
    for entry in std::fs::read_dir(aside.path()).naming(dir.display())? {
        let entry = entry.naming(dir.display())?;
        let place = dir.join(entry.file_name());
        std::fs::rename(entry.path(), &place).naming(place.display())?;
    }
    Ok(unpacked)
}

fn no_result(view: &JobView) -> Failure {
    match view.state {
        JobState::Succeeded => Failure::user("the job left no output"),
        state if state.is_terminal() => {
            Failure::user(format!("the job ended {state} without a result")).hint(format!(
                "see `mutual show {}` and `mutual logs {0}`",
                view.id
            ))
        }
        state => Failure::user(format!("the job is still {state}"))
            .hint(format!("wait for it with `mutual logs -f {}`", view.id)),
    }
}

/// The files of an object one after the other, in the order of their names.
fn read_files(tree: &Tree<'_>) -> Outcome<String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    for entry in tree.entries(Limits::default()) {
        let entry = entry.map_err(Failure::internal)?;
        if !matches!(entry.kind, EntryKind::File { .. }) {
            continue;
        }
        let left = LOG_BYTES_MAX.saturating_sub(text.len() as u64);
        let reader = tree
            .file(&entry.path, Limits::default())
            .map_err(Failure::internal)?;
        reader
            .take(left)
            .read_to_end(&mut text)
            .map_err(Failure::internal)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Brings files and directories together under their own names, by hard links where possible.
fn gather(inputs: &[PathBuf], target: &Path) -> Outcome {
    std::fs::create_dir_all(target).naming(target.display())?;
    for (number, input) in inputs.iter().enumerate() {
        let absolute = std::path::absolute(input).naming(input.display())?;
        let name = absolute.file_name().ok_or_else(|| {
            Failure::user(format!(
                "inputs[{number}]: {} has no name of its own",
                input.display()
            ))
            .hint("give it alone, or name what is in it")
        })?;
        let place = target.join(name);
        if place.exists() {
            return Err(
                Failure::user(format!("inputs[{number}]: a second {}", name.display())).hint(
                    "rename one of them: inputs stand beside each other under their own names",
                ),
            );
        }
        bring(input, &place)?;
    }
    Ok(())
}

fn bring(from: &Path, to: &Path) -> Outcome {
    let kind = std::fs::symlink_metadata(from)
        .naming(from.display())?
        .file_type();
    if kind.is_dir() {
        std::fs::create_dir(to).naming(to.display())?;
        for entry in std::fs::read_dir(from).naming(from.display())? {
            let entry = entry.naming(from.display())?;
            bring(&entry.path(), &to.join(entry.file_name()))?;
        }
        let mode = std::fs::metadata(from)
            .naming(from.display())?
            .permissions();
        return std::fs::set_permissions(to, mode).naming(to.display());
    }
    if kind.is_symlink() {
        let target = std::fs::read_link(from).naming(from.display())?;
        return std::os::unix::fs::symlink(target, to).naming(to.display());
    }
    if !kind.is_file() {
        return Err(Failure::user(format!(
            "{}: neither file, directory nor link",
            from.display()
        )));
    }
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(_) => std::fs::copy(from, to).map(drop).naming(from.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn inputs_are_gathered_under_their_own_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("a/sub")).unwrap();
        fs::write(path("a/sub/x"), "1").unwrap();
        fs::write(path("b"), "2").unwrap();
        gather(&[path("a"), path("b")], &path("out")).unwrap();
        assert_eq!(fs::read_to_string(path("out/a/sub/x")).unwrap(), "1");
        assert_eq!(fs::read_to_string(path("out/b")).unwrap(), "2");
        let twice = gather(&[path("b"), path("b")], &path("other")).unwrap_err();
        assert!(twice.message.starts_with("inputs[1]"), "{twice}");
        assert!(gather(&[path("absent")], &path("third")).is_err());
    }
}

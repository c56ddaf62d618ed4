//! Disks that are really full: a small tmpfs as the place of blocks, and as the place of files.

mod heavy {
    use std::fs;
    use std::path::Path;

    use mutual_data::image::{Image, UnpackOptions};
    use mutual_data::store::StoreError;
    use mutual_data::transfer::TransferError;
    use mutual_data::tree::{Limits, PackOptions, Tree, pack};
    use mutual_data::{BlockStore, DataKey};
    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

    use crate::image::layout;
    use crate::transfer::{assert_whole, fetch_all};
    use crate::world::{MEBIBYTE, Peer, noise};

    /// A tmpfs over a directory, gone with this.
    struct Disk<'a>(&'a Path);

    impl<'a> Disk<'a> {
        /// None where mounting is not allowed.
        fn over(dir: &'a Path, mebibytes: usize) -> Option<Self> {
            let size = size(mebibytes);
            match mount("none", dir, "tmpfs", MountFlags::empty(), size.as_c_str()) {
                Ok(()) => Some(Self(dir)),
                Err(error) => {
                    use std::io::Write as _;
                    let _ = writeln!(
                        std::io::stderr(),
                        "SKIPPED full disks: cannot mount a tmpfs: {error}"
                    );
                    None
                }
            }
        }

        fn grow(&self, mebibytes: usize) {
            mount_remount(self.0, MountFlags::empty(), size(mebibytes).as_c_str()).unwrap();
        }
    }

    impl Drop for Disk<'_> {
        fn drop(&mut self) {
            let _ = unmount(self.0, UnmountFlags::DETACH);
        }
    }

    fn size(mebibytes: usize) -> std::ffi::CString {
        std::ffi::CString::new(format!("size={mebibytes}m")).unwrap()
    }

    /// Every file of the store but its lock, with its bytes.
    fn files(dir: &Path) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.metadata().unwrap() {
                data if data.is_dir() => found.extend(files(&entry.path())),
                data => found.push((entry.path().display().to_string(), data.len())),
            }
        }
        found
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_fetch_onto_a_full_disk_ends_clearly_and_goes_on_when_there_is_room() {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().to_owned();
        let Some(disk) = Disk::over(&place, 8) else {
            return;
        };
        let seeder = Peer::new(2);
        let (root, key) = seeder.publish(16 * MEBIBYTE);
        let agent = Peer::in_dir(3, scratch, 1 << 32);
        let (result, _) = fetch_all(&agent, &root, vec![seeder.provider()]).await;
        let error = result.unwrap_err();
        assert!(
            matches!(&error, TransferError::Store(StoreError::DiskFull(_))),
            "{error}"
        );
        assert!(
            error.to_string().contains("no space left on the disk"),
            "{error}"
        );
        let stored = files(&agent.path("store"));
        let half = files(&agent.path("store/tmp"));
        assert_eq!(half, [], "something half-written is left");
        let bytes: u64 = stored.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(
            agent.store.usage().bytes,
            bytes,
            "the quota counts what is there"
        );
        disk.grow(64);
        let (result, _) = fetch_all(&agent, &root, vec![seeder.provider()]).await;
        let fetched = result.unwrap();
        assert_eq!(
            fetched.received + bytes,
            fetched.root.bytes,
            "what was stored is not fetched again"
        );
        assert_whole(&agent, &root, &key, 16 * MEBIBYTE);
        drop(disk);
    }

    #[test]
    fn a_full_disk_first_gives_up_what_nobody_needs() {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().to_owned();
        let Some(disk) = Disk::over(&place, 16) else {
            return;
        };
        let peer = Peer::in_dir(3, scratch, 1 << 32);
        // Six MiB that no pin reaches, since their batch was dropped.
        let input = tempfile::tempdir().unwrap();
        fs::write(input.path().join("file"), noise(6 * MEBIBYTE)).unwrap();
        store(&peer.store, input.path()).unwrap();
        let pinned = store(&peer.store, input.path()).unwrap();
        peer.store.pin(&pinned, "test", None).unwrap();
        let third = store(&peer.store, input.path());
        assert!(third.is_ok(), "{third:?}");
        assert!(
            peer.store.complete(&pinned).unwrap().is_some(),
            "what is pinned stays"
        );
        peer.store.pin(&third.unwrap(), "test", None).unwrap();
        let error = store(&peer.store, input.path()).unwrap_err();
        assert!(error.is_full(), "{error}");
        drop(disk);
    }

    fn store(
        store: &BlockStore,
        input: &Path,
    ) -> Result<mutual_data::Cid, mutual_data::tree::TreeError> {
        let key = DataKey::generate().unwrap();
        let packed = pack(&store.batch(), &key, &PackOptions::private("lab"), input)?;
        Ok(packed.root.cid)
    }

    #[test]
    fn unpacking_onto_a_full_disk_leaves_nothing() {
        let target = tempfile::tempdir().unwrap();
        let Some(_disk) = Disk::over(target.path(), 4) else {
            return;
        };
        let peer = Peer::new(2);
        let (root, key) = peer.publish(8 * MEBIBYTE);
        let tree = Tree::open(&peer.store, &root.cid, &key).unwrap();
        let error = tree
            .unpack(&target.path().join("out"), Limits::default())
            .unwrap_err();
        assert!(error.is_full(), "{error}");
        assert_eq!(files(target.path()), []);
        let image = layout(
            &peer.path(""),
            &[crate::image::layer_with_file("big", 8 * MEBIBYTE)],
        );
        let image = Image::from_layout(&image).unwrap();
        let unpacked =
            image.unpack_rootfs(None, &target.path().join("root"), UnpackOptions::default());
        let error = unpacked.unwrap_err();
        assert!(error.is_local(), "{error}");
        assert!(error.to_string().contains("No space left"), "{error}");
        assert_eq!(files(target.path()), []);
    }
}

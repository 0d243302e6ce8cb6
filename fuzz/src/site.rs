//! What a run of the walk target stands on: directories of the host, and the tree made of them.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use duet_vfs::host::{HostFs, HostOptions};
use duet_vfs::overlay::{OverlayFs, Upper};
use duet_vfs::tmp::{TmpFs, TmpOptions};
use duet_vfs::{
    BackingId, Context, Creds, FileSystem, Location, Lookup, MountFlags, NewNode, NoCaller, Store,
    Vfs,
};
use tempfile::TempDir;

/// Modification time, in seconds, of everything that lies outside; no operation sets it.
pub const OUTSIDE_TIME: i64 = 987_654_321;

/// The host's side.
///
/// `lower` and `volume` are shown in the tree, `outside` and the directory of all are not; planted
/// links lead there.
pub struct Host {
    dir: TempDir,
    /// Host inodes that nothing in the tree may ever be.
    pub sentinels: HashSet<BackingId>,
    before: [BTreeMap<PathBuf, String>; 2],
}

impl Host {
    pub fn new() -> Host {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a temporary directory");
        let base = dir.path();
        for name in ["files", "dirs", "lower", "volume", "outside", "outside/dir"] {
            fs::create_dir(base.join(name)).expect("mkdir");
        }
        for name in ["outside/secret", "outside/dir/secret"] {
            fs::write(base.join(name), "SECRET").expect("write");
        }
        for name in ["lower", "volume"] {
            populate(&base.join(name), &base.join("outside"));
        }
        let mode = |path: &str, mode| {
            fs::set_permissions(base.join(path), PermissionsExt::from_mode(mode)).expect("chmod");
        };
        mode("lower/set-id", 0o6755);
        mode("lower/d", 0o700);
        mode("lower", 0o777);
        mode("volume", 0o777);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(OUTSIDE_TIME as u64);
        for name in [
            "outside/secret",
            "outside/dir/secret",
            "outside/dir",
            "outside",
            ".",
        ] {
            let file = File::open(base.join(name)).expect("open");
            file.set_modified(time).expect("utimes");
        }
        let outside = [
            "outside",
            "outside/dir",
            "outside/secret",
            "outside/dir/secret",
            ".",
        ];
        let outside = outside.map(|name| base.join(name));
        let host = [
            "/",
            "/etc",
            "/etc/passwd",
            "/proc",
            "/dev",
            "/dev/shm",
            "/tmp",
        ];
        let all = outside.into_iter().chain(host.map(PathBuf::from));
        let sentinels = all
            .filter_map(|path| fs::metadata(path).ok())
            .map(|m| id(&m))
            .collect();
        let before = ["lower", "outside"].map(|name| snapshot(&base.join(name)));
        Host {
            sentinels,
            before,
            dir,
        }
    }

    fn open(&self, name: &str) -> OwnedFd {
        let dir = File::open(self.dir.path().join(name));
        dir.expect("a directory of ours").into()
    }

    /// The tree: an overlay of a `tmp` over `lower`; at `/t` a `tmp`; at `/v` `volume` itself.
    pub fn tree(&self, options: TmpOptions) -> Arc<Vfs> {
        let files = || self.open("files");
        let upper = TmpFs::new(files(), options).expect("a tmp");
        let root = upper.root();
        let layer = |name: &[u8]| {
            let new = NewNode {
                mode: 0o777,
                uid: 0,
                gid: 0,
            };
            root.mkdir(name, new).expect("room for two directories")
        };
        let (changes, work) = (layer(b"upper"), layer(b"work"));
        let lower = HostOptions {
            read_only: true,
            layer: true,
            ..HostOptions::default()
        };
        let lower = HostFs::new(self.open("lower"), lower).expect("a host tree");
        let upper = Upper {
            fs: upper,
            root: changes,
            work,
        };
        let overlay = OverlayFs::new(upper, vec![lower.root()]).expect("an overlay");
        let store = Store {
            files: files(),
            dirs: self.open("dirs"),
        };
        // The root of all cannot be unmounted: an empty one that is covered can be forgotten.
        let bottom = TmpFs::new(files(), TmpOptions::default()).expect("a tmp");
        let vfs = Vfs::new(store, bottom, MountFlags::empty(), "none").expect("a name space");
        let volume = HostOptions {
            shared: true,
            ..HostOptions::default()
        };
        let volume = HostFs::new(self.open("volume"), volume).expect("a host tree");
        let tmp = TmpFs::new(files(), options).expect("a tmp");
        let mounts: [(&[u8], Arc<dyn FileSystem>); 3] =
            [(b"/", overlay), (b"t", tmp), (b"v", volume)];
        for (name, fs) in mounts {
            let at = find(&vfs, name);
            vfs.mount(&at, fs, MountFlags::empty(), "fuzz")
                .expect("a mount");
        }
        vfs
    }

    /// That nothing outside has changed, and that the volume holds nothing dangerous.
    pub fn check(&self) {
        let base = self.dir.path();
        let after = ["lower", "outside"].map(|name| snapshot(&base.join(name)));
        assert_eq!(self.before, after, "the host was changed");
        let mut todo = vec![base.join("volume")];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).expect("a directory of the volume") {
                let path = entry.expect("an entry").path();
                let m = fs::symlink_metadata(&path).expect("what is listed");
                let kind = m.file_type();
                let device = kind.is_block_device() || kind.is_char_device() && m.rdev() != 0;
                assert!(!device, "{path:?} is a real device");
                assert!(
                    !kind.is_file() || m.mode() & 0o6000 == 0,
                    "{path:?} is really set-id"
                );
                if kind.is_dir() {
                    todo.push(path);
                }
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Whoever is not root must be able to look into what is to be removed.
        let mut todo = vec![self.dir.path().to_owned()];
        while let Some(dir) = todo.pop() {
            let _ = fs::set_permissions(&dir, PermissionsExt::from_mode(0o700));
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    todo.push(entry.path());
                }
            }
        }
    }
}

/// The same things to find in both trees.
fn populate(dir: &Path, outside: &Path) {
    for name in ["a", "a/b", "a/b/c", "d", "d/dir", "t", "v"] {
        fs::create_dir(dir.join(name)).expect("mkdir");
    }
    for name in ["file", "a/file", "a/b/file", "d/file", "set-id"] {
        fs::write(dir.join(name), name).expect("write");
    }
    let outside_text = outside.to_str().expect("a path of ours");
    let deep = format!("../../../../../../../../../..{outside_text}/secret");
    let links = [
        ("abs", outside_text),
        ("rel", "../outside/dir"),
        ("up", ".."),
        ("a/up", "../../outside"),
        ("a/b/up", "../../.."),
        ("root", "/"),
        ("deep", &deep),
        ("fd", "/proc/self/fd/3"),
        ("l", "a/b"),
        ("m", "l/file"),
        ("loop", "loop"),
        ("gone", "nothing/here"),
    ];
    for (name, target) in links {
        symlink(target, dir.join(name)).expect("symlink");
    }
}

/// What root finds at a path from the top.
pub fn find(vfs: &Vfs, path: &[u8]) -> Location {
    let (root, creds) = (vfs.root(), Creds::root());
    let cx = Context {
        root: &root,
        cwd: &root,
        creds: &creds,
        umask: 0,
        caller: &NoCaller,
    };
    let found = vfs.resolve(&cx, &root, path, Lookup::FOLLOW);
    found.expect("a place that was made")
}

/// Takes the tree apart, in which nobody may sit any more: mounts hold one another, and the places cached in
/// them.
pub fn unmount(vfs: &Vfs) {
    for path in [&b"t"[..], b"v", b"/"] {
        let unmounted = vfs.umount(&find(vfs, path), duet_vfs::Recursion::One);
        unmounted.expect("nothing sits in these mounts");
    }
}

/// Identity on the host.
pub fn id(m: &fs::Metadata) -> BackingId {
    BackingId {
        dev: m.dev(),
        ino: m.ino(),
    }
}

/// Everything below a directory but times of access.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let m = fs::symlink_metadata(&path).expect("what is listed");
        let text = if m.is_file() {
            fs::read_to_string(&path).unwrap_or_default()
        } else {
            String::new()
        };
        let line = format!(
            "{} {:o} {} {} {} {}.{} {text}",
            m.ino(),
            m.mode(),
            m.nlink(),
            m.uid(),
            m.gid(),
            m.mtime(),
            m.mtime_nsec()
        );
        if m.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory of ours");
            todo.extend(entries.map(|e| e.expect("an entry").path()));
        }
        all.insert(path, line);
    }
    all
}

//! Nothing holds a tree that has been dropped, nor a file system that has been unmounted.

use std::path::Path;
use std::sync::{Arc, Weak};

use super::Fixture;
use crate::inode::FileSystem;
use crate::mount::{MountFlags, Recursion};
use crate::tmp::{TmpFs, TmpOptions};

/// Makes files of every kind that hold something, some open, some watched, below a directory.
fn furnish(f: &Fixture, dir: &str) {
    let at = |name: &str| format!("{dir}/{name}");
    f.mkdir(&at("sub"));
    f.mkdir(&at("sub/deeper"));
    for name in ["a", "b", "sub/c", "sub/deeper/d"] {
        f.write(&at(name), "text");
    }
    f.symlink("a", &at("link"));
    f.vfs.watched_path(&f.at(&at("sub"))).unwrap();
    f.write(&at("sub/e"), "more");
    f.unlink(&at("b")).unwrap();
    f.rename(&at("a"), &at("sub/deeper/a"), 0).unwrap();
    assert!(f.find(&at("none"), crate::Lookup::FOLLOW).is_err());
    drop(f.open(&at("sub"), libc::O_RDONLY | libc::O_DIRECTORY));
}

fn left(store: &Path) -> Vec<String> {
    let names = std::fs::read_dir(store.join("files")).unwrap();
    let names = names.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    // What a watched directory has left goes with the store.
    names.filter(|n| !n.starts_with('w')).collect()
}

fn inodes(fs: &Arc<dyn FileSystem>) -> Vec<Weak<dyn crate::Inode>> {
    vec![Arc::downgrade(&fs.root())]
}

#[test]
fn a_tree() {
    let f = Fixture::new();
    f.mkdir("/mnt");
    let other: Arc<dyn FileSystem> = f.tmp();
    let held = inodes(&other);
    let mount = |at: &str, fs| f.vfs.mount(&f.at(at), fs, MountFlags::empty(), "tmp");
    mount("/mnt", other).unwrap();
    f.mkdir("/mnt/inner");
    mount("/mnt/inner", f.tmp()).unwrap();
    f.mkdir("/bound");
    f.vfs
        .bind(&f.at("/bound"), &f.at("/mnt"), Recursion::Tree)
        .unwrap();
    for dir in ["", "/mnt", "/mnt/inner"] {
        furnish(&f, dir);
    }
    let root = Arc::downgrade(f.root.inode());
    let vfs = Arc::downgrade(&f.vfs);
    let Fixture {
        vfs: tree,
        root: top,
        cwd,
        store,
        ..
    } = f;
    drop((top, cwd, tree));
    assert!(vfs.upgrade().is_none() && root.upgrade().is_none());
    assert!(held.iter().all(|i| i.upgrade().is_none()));
    assert_eq!(left(store.path()), Vec::<String>::new());
}

#[test]
fn a_mount() {
    let f = Fixture::new();
    f.mkdir("/mnt");
    let before = left(f.store.path());
    let files = || f.vfs.store().files.try_clone().unwrap();
    for _ in 0..50 {
        let fs = TmpFs::new(files(), TmpOptions::default()).unwrap();
        let held = inodes(&(fs.clone() as Arc<dyn FileSystem>));
        let mounted = f.vfs.mount(&f.at("/mnt"), fs, MountFlags::empty(), "tmp");
        mounted.unwrap();
        // Nothing but directories: the table of open files may hold others for a while.
        f.mkdir("/mnt/x");
        f.mkdir("/mnt/x/y");
        f.vfs.watched_path(&f.at("/mnt/x")).unwrap();
        f.mkdir("/mnt/x/z");
        f.vfs.umount(&f.at("/mnt"), Recursion::One).unwrap();
        assert!(held.iter().all(|i| i.upgrade().is_none()));
    }
    assert_eq!(left(f.store.path()), before);
    let names = std::fs::read_dir(f.store.path().join("files")).unwrap();
    assert_eq!(names.count(), before.len(), "shadows are left behind");
}

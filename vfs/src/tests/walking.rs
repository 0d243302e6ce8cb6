use std::sync::Arc;

use super::*;
use crate::inode::FileSystem;
use crate::mount::Recursion;
use crate::walk::PathState;

#[test]
fn components_slashes_and_dots() {
    let f = Fixture::new();
    f.mkdir("a");
    f.mkdir("a/b");
    f.write("a/b/c", "x");
    assert_eq!(f.path(&f.at("///a/./b//../b/c")), "/a/b/c");
    assert_eq!(f.path(&f.at("/../../a/")), "/a");
    assert_eq!(f.path(&f.at("/")), "/");
    assert_eq!(f.missing(""), Errno::ENOENT);
    assert_eq!(f.missing("a/b/c/"), Errno::ENOTDIR);
    assert_eq!(f.missing("a/b/c/."), Errno::ENOTDIR);
    assert_eq!(f.missing("a/x/c"), Errno::ENOENT);
    assert_eq!(f.missing(&"n".repeat(256)), Errno::ENAMETOOLONG);
    assert_eq!(f.missing(&"n".repeat(255)), Errno::ENOENT);
    assert_eq!(f.missing(&"./".repeat(2048)), Errno::ENAMETOOLONG);
    assert!(f.find(&"./".repeat(2047), Lookup::empty()).is_ok());
}

#[test]
fn symlinks_and_their_limit() {
    let f = Fixture::new();
    f.mkdir("d");
    f.write("d/file", "x");
    f.symlink("d", "l0");
    for n in 1..=40 {
        f.symlink(&format!("l{}", n - 1), &format!("l{n}"));
    }
    assert_eq!(f.path(&f.at("l39/file")), "/d/file");
    assert_eq!(f.missing("l40/file"), Errno::ELOOP);
    f.symlink("loop", "loop");
    assert_eq!(f.missing("loop"), Errno::ELOOP);
    f.symlink("/d/file", "abs");
    assert_eq!(f.path(&f.at("abs")), "/d/file");
    assert_eq!(
        f.find("l0", Lookup::empty()).unwrap().kind(),
        FileType::Symlink
    );
    assert_eq!(
        f.find("l0/", Lookup::empty()).unwrap().kind(),
        FileType::Directory
    );
    assert_eq!(f.missing("abs/"), Errno::ENOTDIR);
}

#[test]
fn chroot_and_openat2_scopes() {
    let mut f = Fixture::new();
    f.mkdir("jail");
    f.mkdir("jail/in");
    f.write("out", "x");
    f.write("jail/in/file", "x");
    f.symlink("/in/file", "jail/abs");
    f.symlink("../../out", "jail/in/up");
    let jail = f.at("jail");
    let find = |path: &str, how| f.vfs.resolve(&f.cx(), &jail, path.as_bytes(), how);
    let full = Lookup::FOLLOW;
    assert_eq!(
        f.path(&find("/in/file", full | Lookup::IN_ROOT).unwrap()),
        "/jail/in/file"
    );
    assert_eq!(
        f.path(&find("abs", full | Lookup::IN_ROOT).unwrap()),
        "/jail/in/file"
    );
    assert_eq!(
        find("in/up", full | Lookup::IN_ROOT).err(),
        Some(Errno::ENOENT)
    );
    assert_eq!(
        f.path(&find("../../..", full | Lookup::IN_ROOT).unwrap()),
        "/jail"
    );
    assert_eq!(
        find("abs", full | Lookup::BENEATH).err(),
        Some(Errno::EXDEV)
    );
    assert_eq!(
        find("/in", full | Lookup::BENEATH).err(),
        Some(Errno::EXDEV)
    );
    assert_eq!(
        find("in/../..", full | Lookup::BENEATH).err(),
        Some(Errno::EXDEV)
    );
    assert_eq!(
        find("in/up", full | Lookup::BENEATH).err(),
        Some(Errno::EXDEV)
    );
    assert!(find("in/../in/file", full | Lookup::BENEATH).is_ok());
    assert_eq!(
        find("in/up", full | Lookup::NO_SYMLINKS).err(),
        Some(Errno::ELOOP)
    );

    f.root = jail.clone();
    f.cwd = jail;
    assert_eq!(f.path(&f.at("/abs")), "/in/file");
    assert_eq!(f.path(&f.at("../../in")), "/in");
    assert_eq!(f.missing("in/up"), Errno::ENOENT);
    let top = f.vfs.root();
    assert_eq!(top.path(&f.root).1, PathState::Unreachable);
}

#[test]
fn mounts_hide_stack_and_come_off() {
    let f = Fixture::new();
    f.mkdir("m");
    f.write("m/below", "x");
    f.mkdir("other");
    f.vfs
        .mount(&f.at("m"), f.tmp(), MountFlags::empty(), "one")
        .unwrap();
    assert_eq!(f.missing("m/below"), Errno::ENOENT);
    f.mkdir("m/sub");
    assert_eq!(f.path(&f.at("m/sub/../..")), "/");
    assert_eq!(f.path(&f.at("m/sub")), "/m/sub");
    assert_eq!(f.find("m/sub", Lookup::NO_XDEV).err(), Some(Errno::EXDEV));
    assert_eq!(f.rmdir("m"), Err(Errno::EBUSY));
    assert_eq!(f.rename("m", "n", 0), Err(Errno::EBUSY));
    assert_eq!(f.rename("m/sub", "sub", 0), Err(Errno::EXDEV));
    f.vfs
        .mount(&f.at("m"), f.tmp(), MountFlags::RDONLY, "two")
        .unwrap();
    assert_eq!(f.missing("m/sub"), Errno::ENOENT);
    assert_eq!(
        f.open("m/x", libc::O_CREAT | libc::O_WRONLY).err(),
        Some(Errno::EROFS)
    );
    let table = f.vfs.mounts();
    assert_eq!(table.len(), 3);
    assert_eq!(table[2].mountpoint, b"/m");
    assert_eq!(table[2].parent, table[1].id);
    assert_ne!(table[2].dev, table[1].dev);
    assert_eq!(f.vfs.umount(&f.root, Recursion::One), Err(Errno::EBUSY));
    f.vfs.umount(&f.at("m"), Recursion::One).unwrap();
    f.vfs
        .bind(&f.at("other"), &f.at("m/sub"), Recursion::One)
        .unwrap();
    f.write("other/seen", "x");
    assert_eq!(f.path(&f.at("m/sub/seen")), "/m/sub/seen");
    assert_eq!(f.vfs.mounts()[2].root, b"/sub");
    assert_eq!(f.rmdir("m/sub"), Err(Errno::ENOTEMPTY));
    assert_eq!(
        f.vfs.umount(&f.at("m/sub"), Recursion::One),
        Err(Errno::EINVAL)
    );
    f.vfs.umount(&f.at("other"), Recursion::One).unwrap();
    f.vfs.umount(&f.at("m"), Recursion::One).unwrap();
    assert!(f.find("m/below", Lookup::empty()).is_ok());
    f.rename("m", "n", 0).unwrap();

    f.write("file", "x");
    f.write("target", "y");
    let bind = |at: &str, from: &str| f.vfs.bind(&f.at(at), &f.at(from), Recursion::One);
    assert_eq!(bind("other", "file"), Err(Errno::ENOTDIR));
    bind("target", "file").unwrap();
    assert_eq!(f.unlink("target"), Err(Errno::EBUSY));
    assert_eq!(
        f.at("target").attr().unwrap().ino,
        f.at("file").attr().unwrap().ino
    );
}

#[test]
fn trees_of_mounts_are_bound_moved_and_detached() {
    let f = Fixture::new();
    for dir in ["m", "twin", "elsewhere"] {
        f.mkdir(dir);
    }
    let mount = |at: &str| f.vfs.mount(&f.at(at), f.tmp(), MountFlags::NODEV, at);
    mount("m").unwrap();
    f.mkdir("m/a");
    f.mkdir("m/b");
    mount("m/a").unwrap();
    f.write("m/a/deep", "x");
    let bind = |at: &str, from: &str, how| f.vfs.bind(&f.at(at), &f.at(from), how);
    bind("twin", "m", Recursion::Tree).unwrap();
    assert_eq!(f.path(&f.at("twin/a/deep")), "/twin/a/deep");
    bind("m/b", "m", Recursion::Tree).unwrap();
    assert!(f.find("m/b/a/deep", Lookup::empty()).is_ok());
    assert!(f.find("m/b/b/a", Lookup::empty()).is_err());
    assert_eq!(f.vfs.mounts().len(), 7);

    let moved = |at: &str, from: &str| f.vfs.move_mount(&f.at(at), &f.at(from));
    assert_eq!(moved("m/b/a", "m"), Err(Errno::ELOOP));
    assert_eq!(moved("elsewhere", "m/a/deep"), Err(Errno::EINVAL));
    assert_eq!(moved("elsewhere", "/"), Err(Errno::EINVAL));
    moved("elsewhere", "m").unwrap();
    assert_eq!(f.missing("m/a"), Errno::ENOENT);
    assert_eq!(f.path(&f.at("elsewhere/b/a/deep")), "/elsewhere/b/a/deep");

    let place = f.at("elsewhere/a/deep");
    let off = |at: &str, how| f.vfs.umount(&f.at(at), how);
    assert_eq!(off("elsewhere", Recursion::One), Err(Errno::EBUSY));
    off("elsewhere", Recursion::Tree).unwrap();
    assert_eq!(place.path(&f.root).1, PathState::Unreachable);
    off("twin", Recursion::Tree).unwrap();
    assert_eq!(f.vfs.mounts().len(), 1);
    assert!(place.attr().is_ok());
}

#[test]
fn what_is_sealed_stays_read_only() {
    let f = Fixture::new();
    f.mkdir("m");
    f.mkdir("b");
    let locked = MountFlags::RDONLY;
    f.vfs.mount(&f.at("m"), f.tmp(), locked, "one").unwrap();
    f.vfs.seal();
    f.vfs.bind(&f.at("b"), &f.at("m"), Recursion::One).unwrap();
    let remount = |at: &str, flags| f.vfs.remount(&f.at(at), flags);
    for at in ["m", "b"] {
        assert_eq!(remount(at, MountFlags::empty()), Err(Errno::EPERM));
        remount(at, locked | MountFlags::NOEXEC).unwrap();
        remount(at, locked).unwrap();
    }
    f.mkdir("free");
    f.vfs.mount(&f.at("free"), f.tmp(), locked, "two").unwrap();
    remount("free", MountFlags::empty()).unwrap();
    assert_eq!(remount("free/..", MountFlags::empty()), Ok(()));
}

#[test]
fn deleted_and_renamed_places() {
    let mut f = Fixture::new();
    f.mkdir("d");
    f.mkdir("d/e");
    let e = f.at("d/e");
    f.rename("d", "moved", 0).unwrap();
    assert_eq!(f.path(&e), "/moved/e");
    assert_eq!(f.path(&f.at("moved/e")), "/moved/e");
    assert!(e.same(&f.at("moved/e")));
    f.rmdir("moved/e").unwrap();
    assert_eq!(e.path(&f.root), (b"/moved/e".to_vec(), PathState::Deleted));
    f.cwd = e.clone();
    assert_eq!(
        f.open("new", libc::O_CREAT | libc::O_WRONLY).err(),
        Some(Errno::ENOENT)
    );
    assert_eq!(
        f.vfs.mkdir(&f.cx(), &f.cwd, b"new", 0o777),
        Err(Errno::ENOENT)
    );
    assert_eq!(f.path(&f.at("..")), "/moved");
    let read = f.vfs.read_dir(&f.cx(), &e, 0, &mut |_| true);
    assert_eq!(read, Err(Errno::ENOENT));
}

#[test]
fn deep_trees_do_not_exhaust_the_stack() {
    const DEPTH: usize = 60_000;
    let mut f = Fixture::new();
    for _ in 0..DEPTH {
        f.mkdir("d");
        f.cwd = f.at("d");
    }
    assert_eq!(f.cwd.path(&f.root).0.len(), DEPTH * 2);
    // Removed from below, all kept alive by the last; then all let go at once.
    let bottom = f.cwd.clone();
    for _ in 0..DEPTH {
        f.cwd = f.at("..");
        f.rmdir("d").unwrap();
    }
    drop(bottom);
    for _ in 0..DEPTH {
        f.mkdir("d");
        f.cwd = f.at("d");
    }
    let root: Arc<dyn FileSystem> = f.vfs.root().mount.sb().fs().clone();
    drop(f);
    drop(root);
}

use super::*;
use crate::inode::NoCaller;

fn fs(options: TmpOptions) -> (tempfile::TempDir, Arc<TmpFs>) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let files = std::fs::File::open(dir.path()).unwrap().into();
    (dir, TmpFs::new(files, options).unwrap())
}

fn new(mode: u32) -> NewNode {
    NewNode {
        mode,
        uid: 0,
        gid: 0,
    }
}

#[test]
fn contents_are_made_late_and_removed_with_the_last_link() {
    let (store, fs) = fs(TmpOptions::default());
    let count = || std::fs::read_dir(store.path()).unwrap().count();
    let root = fs.root();
    let file = root.create(b"f", new(0o600)).unwrap();
    let past = SetTime::At(Timespec { sec: 5, nsec: 6 });
    file.set_attr(&SetAttr {
        mtime: Some(past),
        ..SetAttr::default()
    })
    .unwrap();
    assert_eq!(count(), 0);
    let opened = file.open(libc::O_RDONLY, &NoCaller).unwrap();
    assert_eq!(count(), 1);
    let attr = file.attr().unwrap();
    assert_eq!(attr.mtime, Timespec { sec: 5, nsec: 6 });
    root.link(b"g", &file).unwrap();
    file.set_attr(&SetAttr {
        size: Some(9000),
        ..SetAttr::default()
    })
    .unwrap();
    root.unlink(b"f").unwrap();
    assert_eq!(count(), 1);
    root.unlink(b"g").unwrap();
    assert_eq!(count(), 0);
    assert_eq!(nix::sys::stat::fstat(&opened.fd).unwrap().st_size, 9000);
    assert_eq!(file.attr().unwrap().size, 9000);
    root.mknod(b"p", FileType::Fifo, 0, new(0o600)).unwrap();
    root.create(b"h", new(0o600))
        .unwrap()
        .open(libc::O_RDWR, &NoCaller)
        .unwrap();
    assert_eq!(count(), 2);
    drop((root, file, fs));
    assert_eq!(count(), 0);
}

#[test]
fn memory_is_bounded() {
    let (_store, fs) = fs(TmpOptions {
        inodes: 4,
        metadata: 1200,
        size: Some(1 << 20),
        ..TmpOptions::default()
    });
    let root = fs.root();
    for name in [b"a", b"b", b"c"] {
        root.create(name, new(0o600)).unwrap();
    }
    assert_eq!(root.create(b"d", new(0o600)).err(), Some(Errno::ENOSPC));
    root.unlink(b"a").unwrap();
    let long = root.symlink(b"d", &[b'x'; 2000], new(0o777));
    assert_eq!(long.err(), Some(Errno::ENOSPC));
    let file = root.create(b"d", new(0o600)).unwrap();
    assert_eq!(file.set_xattr(b"user.x", &[0; 2000], 0), Err(Errno::ENOSPC));
    file.set_xattr(b"user.x", &[0; 500], 0).unwrap();
    file.set_xattr(b"user.x", &[0; 900], 0).unwrap_err();
    for n in 0..100 {
        let (from, to) = if n % 2 == 0 {
            (b"d", b"e")
        } else {
            (b"e", b"d")
        };
        root.rename(from, &root, to, 0).unwrap();
    }
    root.unlink(b"d").unwrap();
    drop(file);
    root.symlink(b"d", &[b'x'; 900], new(0o777)).unwrap();
    let file = root.lookup(b"b", &NoCaller).unwrap();
    let size = SetAttr {
        size: Some(2 << 20),
        ..SetAttr::default()
    };
    assert_eq!(file.set_attr(&size), Err(Errno::ENOSPC));
}

#[test]
fn no_number_of_trees_or_of_renames_takes_more() {
    let (_store, first) = fs(TmpOptions {
        inodes: 6,
        metadata: 1000,
        ..TmpOptions::default()
    });
    // The two roots are inodes too.
    let second = first.beside(TmpOptions::default()).unwrap();
    let link =
        |fs: &TmpFs, name: &[u8]| fs.root().symlink(name, &[b'x'; 300], new(0o777)).map(drop);
    link(&first, b"a").unwrap();
    link(&second, b"a").unwrap();
    assert_eq!(link(&second, b"b"), Err(Errno::ENOSPC));
    let root = first.root();
    let long = [b'n'; 255];
    assert_eq!(root.rename(b"a", &root, &long, 0), Err(Errno::ENOSPC));
    assert!(root.lookup(b"a", &NoCaller).is_ok());
    drop(second);
    root.rename(b"a", &root, &long, 0).unwrap();
    for n in [b"b", b"c", b"d", b"e"] {
        root.create(n, new(0o600)).map(drop).unwrap_or_else(|e| {
            assert_eq!((e, n), (Errno::ENOSPC, b"e"));
        });
    }
}

#[test]
fn whiteouts_as_overlayfs_wants_them() {
    let (_store, fs) = fs(TmpOptions::default());
    let root = fs.root();
    root.create(b"f", new(0o600)).unwrap();
    root.rename(b"f", &root, b"g", libc::RENAME_WHITEOUT)
        .unwrap();
    let whiteout = root.lookup(b"f", &NoCaller).unwrap();
    assert_eq!(whiteout.kind(), FileType::CharDevice);
    assert_eq!(whiteout.attr().unwrap().rdev, 0);
    root.rename(b"g", &root, b"f", libc::RENAME_EXCHANGE)
        .unwrap();
    assert_eq!(
        root.lookup(b"f", &NoCaller).unwrap().kind(),
        FileType::Regular
    );
}

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::host::tests::as_both;
use crate::host::{HostFs, HostOptions};
use crate::tmp::{TmpFs, TmpOptions};

/// Two lower trees and an upper one in a directory of their own.
struct Bed {
    dir: tempfile::TempDir,
    /// The upper tree, if it is not on the host.
    memory: Option<(Arc<TmpFs>, tempfile::TempDir)>,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        for name in ["top", "bottom", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Bed { dir, memory: None }
    }

    /// With an upper tree in memory.
    fn in_memory() -> Bed {
        let store = tempfile::tempdir_in("/dev/shm").unwrap();
        let files = std::fs::File::open(store.path()).unwrap();
        let fs = TmpFs::new(files.into(), TmpOptions::default()).unwrap();
        fs.root().mkdir(b"upper", new(0o755)).unwrap();
        fs.root().mkdir(b"work", new(0o755)).unwrap();
        Bed {
            memory: Some((fs, store)),
            ..Bed::new()
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn host(&self, name: &str, read_only: bool) -> Arc<HostFs> {
        let options = HostOptions {
            layer: true,
            read_only,
            ..HostOptions::default()
        };
        HostFs::open(&self.path(name), options).unwrap()
    }

    fn mount(&self) -> Arc<OverlayFs> {
        let fs: Arc<dyn FileSystem> = match &self.memory {
            Some((fs, _)) => fs.clone(),
            None => self.host(".", false),
        };
        let dir = |name: &[u8]| fs.root().lookup(name, &NoCaller).unwrap();
        let upper = Upper {
            root: dir(b"upper"),
            work: dir(b"work"),
            fs: fs.clone(),
        };
        let lowers = ["top", "bottom"].map(|name| self.host(name, true).root());
        OverlayFs::new(upper, lowers.to_vec()).unwrap()
    }
}

fn new(mode: u32) -> NewNode {
    NewNode {
        mode,
        uid: 0,
        gid: 0,
    }
}

fn walk(root: &Arc<dyn Inode>, path: &str) -> Result<Arc<dyn Inode>> {
    let mut names = path.split('/').filter(|name| !name.is_empty());
    names.try_fold(root.clone(), |at, name| {
        at.lookup(name.as_bytes(), &NoCaller)
    })
}

fn list(dir: &Arc<dyn Inode>) -> Vec<DirEntry> {
    let mut entries = Vec::new();
    dir.read_dir(0, &NoCaller, &mut |entry| {
        entries.push(entry);
        true
    })
    .unwrap();
    entries
}

fn names(dir: &Arc<dyn Inode>) -> BTreeSet<String> {
    let entries = list(dir);
    let names: BTreeSet<_> = entries
        .iter()
        .map(|e| String::from_utf8(e.name.clone()).unwrap())
        .collect();
    assert_eq!(names.len(), entries.len());
    names
}

fn read(file: &Arc<dyn Inode>) -> String {
    let fd = file.open(libc::O_RDONLY, &NoCaller).unwrap().fd;
    let mut text = String::new();
    std::fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

fn write(file: &Arc<dyn Inode>, flags: i32, text: &str) -> Result<()> {
    let fd = file.open(libc::O_WRONLY | flags, &NoCaller)?.fd;
    std::fs::File::from(fd).write_all(text.as_bytes()).unwrap();
    Ok(())
}

/// Everything of a tree that a program can see and that does not depend on the time.
fn dump(dir: &Arc<dyn Inode>, at: &str, numbers: bool, out: &mut BTreeMap<String, String>) {
    for entry in list(dir) {
        let name = String::from_utf8(entry.name.clone()).unwrap();
        let node = dir.lookup(&entry.name, &NoCaller).unwrap();
        let attr = node.attr().unwrap();
        assert_eq!(node.kind(), attr.kind());
        assert_eq!(entry.kind, Some(attr.kind()), "{at}/{name}");
        if numbers {
            assert_eq!(entry.ino, attr.ino, "{at}/{name}");
        }
        let path = format!("{at}/{name}");
        let mut line = format!("{:o} {}:{}", attr.mode, attr.uid, attr.gid);
        match node.kind() {
            FileType::Directory => dump(&node, &path, numbers, out),
            FileType::Regular => line += &format!(" {} {:?}", attr.nlink, read(&node)),
            FileType::Symlink => line += &format!(" {:?}", node.readlink(&NoCaller).unwrap()),
            _ => line += &format!(" {} {:x}", attr.nlink, attr.rdev),
        }
        out.insert(path, line);
    }
}

fn dumped(root: &Arc<dyn Inode>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    dump(root, "", false, &mut out);
    out
}

#[test]
fn a_lower_file_is_copied_up_when_it_is_changed_and_keeps_its_identity() {
    as_both(|| {
        let bed = Bed::new();
        std::fs::create_dir_all(bed.path("bottom/d/e")).unwrap();
        std::fs::write(bed.path("bottom/d/e/f"), "lower").unwrap();
        std::fs::write(bed.path("top/hides"), "top").unwrap();
        std::fs::write(bed.path("bottom/hides"), "bottom").unwrap();
        let fs = bed.mount();
        let root = fs.root();
        assert_eq!(fs.statfs().unwrap().magic, 0x794c_7630);
        assert_eq!(read(&walk(&root, "hides").unwrap()), "top");
        let f = walk(&root, "d/e/f").unwrap();
        let before = f.attr().unwrap();
        let lower = f.open(libc::O_RDONLY, &NoCaller).unwrap().backing;
        write(&f, libc::O_APPEND, " and upper").unwrap();
        let after = f.attr().unwrap();
        assert_eq!((before.dev, before.ino), (after.dev, after.ino));
        assert_ne!(lower, f.open(libc::O_RDONLY, &NoCaller).unwrap().backing);
        assert_eq!(read(&f), "lower and upper");
        assert!(Arc::ptr_eq(&f, &walk(&root, "d/e/f").unwrap()));
        assert_eq!(
            std::fs::read_to_string(bed.path("bottom/d/e/f")).unwrap(),
            "lower"
        );
        assert_eq!(
            std::fs::read_to_string(bed.path("upper/d/e/f")).unwrap(),
            "lower and upper"
        );
        assert_eq!(list(&walk(&root, "d/e").unwrap())[0].ino, after.ino);
        assert!(
            std::fs::read_dir(bed.path("work"))
                .unwrap()
                .next()
                .is_none()
        );
        // Times and holes survive.
        let sparse = std::fs::File::create(bed.path("top/sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        let s = walk(&root, "sparse").unwrap();
        let old = SetAttr {
            mtime: Some(SetTime::At(Timespec { sec: 5, nsec: 6 })),
            ..SetAttr::default()
        };
        s.set_attr(&old).unwrap();
        s.set_attr(&SetAttr {
            mode: Some(0o600),
            ..SetAttr::default()
        })
        .unwrap();
        let attr = s.attr().unwrap();
        assert_eq!(
            (attr.size, attr.mtime),
            (1 << 30, Timespec { sec: 5, nsec: 6 })
        );
        assert!(attr.blocks < 100);
    });
}

#[test]
fn removed_names_leave_whiteouts_and_new_directories_hide_old_ones() {
    as_both(|| {
        let bed = Bed::new();
        std::fs::create_dir_all(bed.path("bottom/d/sub")).unwrap();
        std::fs::write(bed.path("bottom/d/f"), "f").unwrap();
        let fs = bed.mount();
        let root = fs.root();
        assert_eq!(root.rmdir(b"d"), Err(Errno::ENOTEMPTY));
        let d = walk(&root, "d").unwrap();
        let f = walk(&root, "d/f").unwrap();
        assert_eq!(d.unlink(b"sub"), Err(Errno::EISDIR));
        d.unlink(b"f").unwrap();
        assert_eq!(f.attr().unwrap().nlink, 0);
        // A file that is gone can still be written to.
        write(&f, libc::O_APPEND, "more").unwrap();
        assert_eq!(read(&f), "fmore");
        assert_eq!(d.unlink(b"f"), Err(Errno::ENOENT));
        d.rmdir(b"sub").unwrap();
        let white = std::fs::symlink_metadata(bed.path("upper/d/f")).unwrap();
        assert!(white.file_type().is_char_device() && white.rdev() == 0);
        root.rmdir(b"d").unwrap();
        assert_eq!(d.create(b"x", new(0o644)).err(), Some(Errno::ENOENT));
        assert!(names(&root).is_empty());
        let d = root.mkdir(b"d", new(0o755)).unwrap();
        assert!(names(&d).is_empty());
        d.mkdir(b"sub", new(0o755)).unwrap();
        // A device 0:0 of the guest's own is no whiteout.
        let w = d.mknod(b"w", FileType::CharDevice, 0, new(0o600)).unwrap();
        assert_eq!(w.attr().unwrap().rdev, 0);
        assert_eq!(
            names(&walk(&bed.mount().root(), "d").unwrap()),
            ["sub".to_owned(), "w".to_owned()].into()
        );
    });
}

#[test]
fn marks_cannot_be_forged_and_are_not_shown() {
    let bed = Bed::new();
    std::fs::create_dir(bed.path("bottom/d")).unwrap();
    std::fs::write(bed.path("bottom/d/f"), "f").unwrap();
    let fs = bed.mount();
    let d = walk(&fs.root(), "d").unwrap();
    d.set_xattr(b"user.overlay.opaque", b"y", 0).unwrap();
    d.set_xattr(b"user.mine", b"1", 0).unwrap();
    assert_eq!(d.get_xattr(b"user.overlay.opaque").unwrap(), b"y");
    let listed: BTreeSet<_> = d.list_xattr().unwrap().into_iter().collect();
    assert_eq!(
        listed,
        [b"user.mine".to_vec(), b"user.overlay.opaque".to_vec()].into()
    );
    let d = walk(&bed.mount().root(), "d").unwrap();
    assert_eq!(names(&d), ["f".to_owned()].into());
    fs.root().rename(b"d", &fs.root(), b"e", 0).unwrap();
    let e = walk(&fs.root(), "e").unwrap();
    assert_eq!(e.get_xattr(b"user.overlay.redirect"), Err(Errno::ENODATA));
    e.remove_xattr(b"user.overlay.opaque").unwrap();
    assert_eq!(
        names(&walk(&bed.mount().root(), "e").unwrap()),
        ["f".to_owned()].into()
    );
}

#[test]
fn hostile_redirects_end() {
    let bed = Bed::new();
    let root = bed.host("top", false).root();
    for name in [b"a", b"b"] {
        root.mkdir(name, new(0o755)).unwrap();
        std::fs::create_dir(bed.path("bottom").join(std::str::from_utf8(name).unwrap())).unwrap();
    }
    for (name, to) in [(b"a", b"/b/../..".as_slice()), (b"b", b"/b/b/b/b")] {
        let node = root.lookup(name, &NoCaller).unwrap();
        node.set_xattr(b"user.overlay.redirect", to, 0).unwrap();
    }
    let fs = bed.mount();
    assert!(names(&walk(&fs.root(), "a").unwrap()).is_empty());
    assert!(names(&walk(&fs.root(), "b").unwrap()).is_empty());
}

#[test]
fn lower_sockets_and_fifos_lead_nowhere() {
    let bed = Bed::new();
    let _listener = std::os::unix::net::UnixListener::bind(bed.path("top/sock")).unwrap();
    nix::unistd::mkfifo(&bed.path("top/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fs = bed.mount();
    assert_eq!(
        walk(&fs.root(), "sock").unwrap().host_path().err(),
        Some(Errno::ECONNREFUSED)
    );
    let fifo = walk(&fs.root(), "fifo").unwrap();
    fifo.open(libc::O_RDWR | libc::O_NONBLOCK, &NoCaller)
        .unwrap();
    assert!(bed.path("upper/fifo").exists());
}

#[test]
fn a_deep_tree_is_dropped_without_deep_recursion() {
    let bed = Bed::new();
    let depth = 3000;
    let mut at = bed.host("top", false).root();
    for _ in 0..depth {
        at = at.mkdir(b"d", new(0o755)).unwrap();
    }
    let run = move || {
        let fs = bed.mount();
        let mut at = fs.root();
        for _ in 0..depth {
            at = at.lookup(b"d", &NoCaller).unwrap();
        }
        drop(fs);
        drop(at);
        let _ = std::process::Command::new("rm")
            .arg("-rf")
            .arg(bed.dir.path())
            .status();
    };
    std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

#[test]
fn readers_continue_while_a_merged_directory_is_emptied() {
    let bed = Bed::new();
    for n in 0..3000 {
        std::fs::write(bed.path("bottom").join(n.to_string()), "").unwrap();
    }
    let fs = bed.mount();
    let root = fs.root();
    let (mut seen, mut cookie) = (0, 0);
    loop {
        let mut batch = Vec::new();
        root.read_dir(cookie, &NoCaller, &mut |e| {
            if batch.len() == 100 {
                return false;
            }
            cookie = e.next;
            batch.push(e.name);
            true
        })
        .unwrap();
        if batch.is_empty() {
            break;
        }
        seen += batch.len();
        batch.iter().for_each(|name| root.unlink(name).unwrap());
    }
    assert_eq!(seen, 3000);
    assert!(names(&root).is_empty());
    root.create(b"5", new(0o644)).unwrap();
    assert_eq!(names(&root), ["5".to_owned()].into());
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    fn path(&mut self) -> (String, String) {
        let depth = self.below(3);
        let dir: Vec<_> = (0..depth).map(|_| self.name()).collect();
        (dir.join("/"), self.name())
    }

    fn name(&mut self) -> String {
        ["a", "b", "c", "d"][self.below(4)].to_owned()
    }
}

/// Fills two lower trees at random, and `merged` with what the two show together.
fn fill(random: &mut Random, bed: &Bed, merged: &Path) {
    for (layer, tree) in [(0, "bottom"), (1, "top")] {
        for n in 0..14 {
            let (dir, name) = random.path();
            let (at, shown) = (bed.path(tree).join(&dir), merged.join(&dir));
            // Names that clash between the layers would hide each other: left to other tests.
            if std::fs::create_dir_all(&shown).is_err() || std::fs::create_dir_all(&at).is_err() {
                continue;
            }
            let (at, shown) = (at.join(&name), shown.join(&name));
            if shown.is_dir() || at.is_dir() {
                continue;
            }
            if random.below(4) == 0 {
                let _ = std::fs::create_dir(&shown).and_then(|()| std::fs::create_dir(&at));
            } else {
                let text = format!("{layer}-{n}");
                std::fs::write(&at, &text).unwrap();
                std::fs::write(&shown, &text).unwrap();
            }
        }
    }
}

/// One random operation; its outcome as text.
fn step<const N: usize>(
    random: &mut Random,
    roots: [&Arc<dyn Inode>; N],
    move_directories: bool,
) -> [String; N] {
    let op = random.below(11);
    let (from_dir, from) = random.path();
    let (to_dir, to) = random.path();
    let number = random.below(4);
    let apply = |root: &Arc<dyn Inode>| -> Result<()> {
        let name = from.as_bytes();
        let dir = walk(root, &from_dir)?;
        match op {
            0 => dir.create(name, new(0o640)).map(drop),
            1 | 2 => dir.mkdir(name, new(0o750)).map(drop),
            3 => dir.unlink(name),
            4 => dir.rmdir(name),
            5 => dir.symlink(name, to.as_bytes(), new(0o777)).map(drop),
            6 => {
                let node = dir.lookup(name, &NoCaller)?;
                let flags = if number == 0 {
                    libc::O_TRUNC
                } else {
                    libc::O_APPEND
                };
                match node.kind() {
                    FileType::Regular => write(&node, flags, &to),
                    _ => Ok(()),
                }
            }
            7 => {
                let node = dir.lookup(name, &NoCaller)?;
                // Of a symbolic link an ordinary supervisor keeps the owner no longer than a run.
                let real = node.kind() != FileType::Symlink;
                node.set_attr(&SetAttr {
                    mode: real.then_some(0o700 | number as u32),
                    uid: real.then_some(7),
                    ..SetAttr::default()
                })
            }
            8 => {
                let node = dir.lookup(name, &NoCaller)?;
                walk(root, &to_dir)?.link(to.as_bytes(), &node)
            }
            _ => {
                let source = format!("{from_dir}/{from}/");
                let target = format!("{to_dir}/{to}/");
                let inside = |a: &str, b: &str| {
                    a.trim_start_matches('/')
                        .starts_with(b.trim_start_matches('/'))
                };
                // The walk rules these out.
                if inside(&source, &target) || inside(&target, &source) {
                    return Ok(());
                }
                let kinds = [walk(root, &source), walk(root, &target)];
                let directory = |n: &Result<Arc<dyn Inode>>| {
                    n.as_ref().is_ok_and(|n| n.kind() == FileType::Directory)
                };
                if !move_directories && kinds.iter().any(directory) {
                    return Ok(());
                }
                let flags = [0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE][number];
                dir.rename(name, &walk(root, &to_dir)?, to.as_bytes(), flags)
            }
        }
    };
    roots.map(|root| {
        format!(
            "{op} {from_dir}/{from} {to_dir}/{to} {number}: {:?}",
            apply(root)
        )
    })
}

/// Runs random operations on an overlay and on a plain directory with the same contents.
fn differ(
    bed: Bed,
    seed: u64,
    move_directories: bool,
    check: impl Fn(&Bed, &BTreeMap<String, String>),
) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    std::fs::create_dir(bed.path("plain")).unwrap();
    fill(&mut random, &bed, &bed.path("plain"));
    let plain = bed.host("plain", false);
    let mut overlay = bed.mount();
    let mut log = vec![];
    assert_eq!(
        dumped(&overlay.root()),
        dumped(&plain.root()),
        "seed {seed}: at the start"
    );
    for n in 0..120 {
        let [ours, theirs] = step(
            &mut random,
            [&overlay.root(), &plain.root()],
            move_directories,
        );
        log.push(ours.clone());
        assert_eq!(ours, theirs, "seed {seed}: {log:#?}");
        if n % 10 == 9 {
            if random.below(2) == 0 {
                overlay = bed.mount();
            }
            let (ours, theirs) = (dumped(&overlay.root()), dumped(&plain.root()));
            assert_eq!(ours, theirs, "seed {seed}: {log:#?}");
        }
    }
    assert!(list(&overlay.layers.work).is_empty(), "seed {seed}");
    // What is in memory keeps its number over a copy-up; afterwards listings and attributes agree.
    dump(&bed.mount().root(), "", true, &mut BTreeMap::new());
    check(&bed, &dumped(&overlay.root()));
}

#[test]
fn random_operations_act_as_on_a_plain_directory() {
    as_both(|| (1..24).for_each(|seed| differ(Bed::new(), seed, true, |_, _| ())));
}

#[test]
fn random_operations_act_as_on_a_plain_directory_with_the_upper_tree_in_memory() {
    (1..24).for_each(|seed| differ(Bed::in_memory(), seed, true, |_, _| ()));
}

#[test]
fn operations_at_the_same_time_leave_a_tree_that_is_whole() {
    let bed = Bed::new();
    let plain = bed.path("plain");
    std::fs::create_dir(&plain).unwrap();
    fill(&mut Random(99), &bed, &plain);
    let fs = bed.mount();
    std::thread::scope(|scope| {
        for seed in 1..5 {
            let root = fs.root();
            scope.spawn(move || {
                let mut random = Random(seed << 32 | 1);
                for _ in 0..400 {
                    step(&mut random, [&root], true);
                }
            });
        }
    });
    assert!(list(&fs.layers.work).is_empty());
    assert_eq!(dumped(&fs.root()), dumped(&bed.mount().root()));
}

/// The kernel's overlayfs over the same layers; `None`, with a word about it, where that may not be.
fn kernel_mount(bed: &Bed) -> Option<Mounted> {
    use nix::mount::{MsFlags, mount};
    let at = bed.path("kernel");
    std::fs::create_dir(&at).unwrap();
    let options = format!(
        "userxattr,lowerdir={}:{},upperdir={},workdir={}",
        bed.path("top").display(),
        bed.path("bottom").display(),
        bed.path("upper").display(),
        bed.path("work").display()
    );
    let kind = Some("overlay");
    match mount(kind, &at, kind, MsFlags::empty(), Some(&options[..])) {
        Ok(()) => Some(Mounted(at)),
        Err(e) => {
            eprintln!("SKIPPED: the kernel's overlayfs cannot be mounted here: {e}");
            None
        }
    }
}

/// Unmounts, also when a test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn the_kernel_sees_the_same_tree_in_our_layers() {
    for seed in 1..16 {
        differ(Bed::new(), seed, false, |bed, ours| {
            if let Some(mounted) = kernel_mount(bed) {
                let theirs = dumped(&bed.host("kernel", true).root());
                drop(mounted);
                assert_eq!(*ours, theirs, "seed {seed}");
            }
        });
    }
}

#[test]
fn we_see_the_same_tree_in_the_layers_of_the_kernel() {
    for seed in 100..116 {
        let bed = Bed::new();
        let mut random = Random(seed << 32 | 1);
        std::fs::create_dir(bed.path("plain")).unwrap();
        fill(&mut random, &bed, &bed.path("plain"));
        let Some(mounted) = kernel_mount(&bed) else {
            return;
        };
        let root = bed.host("kernel", false).root();
        for _ in 0..120 {
            step(&mut random, [&root], true);
        }
        let theirs = dumped(&root);
        drop(root);
        drop(mounted);
        assert_eq!(dumped(&bed.mount().root()), theirs, "seed {seed}");
    }
}

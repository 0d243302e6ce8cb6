//! Random sequences of operations, done by the VFS and by Linux on a tmpfs of the host, must give the
//! same errors and the same tree.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd};

use super::*;

/// xorshift64*
pub(super) struct Rng(pub(super) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) as usize) % n
    }

    pub(super) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

#[derive(Clone, Debug)]
enum Op {
    Open(String, i32, u32),
    Mkdir(String, u32),
    Mknod(String, u32),
    Symlink(String, String),
    Link(String, String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, u32),
    Chmod(String, u32),
    Chown(String, Option<u32>, Option<u32>),
    Truncate(String, u64),
    Access(String, u32),
    Readlink(String),
    Times(String, bool),
    Stat(String, bool),
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "l", "m"];

fn path(rng: &mut Rng) -> String {
    let mut path = String::new();
    if rng.below(30) == 0 {
        return [
            ".", "..", "./", "../", "a/.", "a/..", "", "../base", "../base/",
        ][rng.below(9)]
        .to_owned();
    }
    for _ in 0..rng.below(3) {
        path += match rng.below(12) {
            0 => ".",
            1 => "../base",
            _ => NAMES[rng.below(NAMES.len())],
        };
        path += if rng.below(10) == 0 { "//" } else { "/" };
    }
    path += NAMES[rng.below(NAMES.len())];
    if rng.below(8) == 0 {
        path += "/";
    }
    path
}

fn op(rng: &mut Rng) -> Op {
    use libc::*;
    let p = path(rng);
    let mode = *rng.of(&[
        0o777, 0o755, 0o700, 0o500, 0o644, 0o600, 0o400, 0o000, 0o1777, 0o2775, 0o4755, 0o6777,
        0o2640,
    ]);
    match rng.below(22) {
        0..=4 => {
            let mut flags = *rng.of(&[O_RDONLY, O_WRONLY, O_RDWR]) | O_NONBLOCK;
            for (flag, odds) in [
                (O_CREAT, 2),
                (O_EXCL, 6),
                (O_TRUNC, 5),
                (O_NOFOLLOW, 6),
                (O_DIRECTORY, 8),
                (O_NOATIME, 12),
                (O_PATH, 12),
                (O_TMPFILE, 20),
            ] {
                if rng.below(odds) == 0 {
                    flags |= flag;
                }
            }
            Op::Open(p, flags, mode)
        }
        5..=6 => Op::Mkdir(p, mode & 0o1777),
        7 => Op::Mknod(
            p,
            *rng.of(&[S_IFREG, S_IFIFO, S_IFSOCK, 0, S_IFDIR, S_IFCHR]) | mode,
        ),
        8..=9 => {
            let target = *rng.of(&[
                "a",
                "b",
                "../base/a",
                "a/b",
                "l",
                ".",
                "m/",
                "nothing",
                "c/d",
            ]);
            Op::Symlink(target.to_owned(), p)
        }
        10 => Op::Link(p, path(rng)),
        11 => Op::Unlink(p),
        12 => Op::Rmdir(p),
        13..=15 => {
            let flags = *rng.of(&[0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE, 8]);
            Op::Rename(p, path(rng), flags)
        }
        16 => Op::Chmod(p, mode),
        17 => {
            let ids = [None, Some(0), Some(7), Some(8)];
            Op::Chown(p, *rng.of(&ids), *rng.of(&ids))
        }
        18 => Op::Truncate(p, rng.next() % 5000),
        19 => Op::Access(p, rng.below(8) as u32),
        20 => match rng.below(2) {
            0 => Op::Readlink(p),
            _ => Op::Times(p, rng.below(2) == 0),
        },
        _ => Op::Stat(p, rng.below(2) == 0),
    }
}

/// What a caller can tell of a node: mode, links, owner, size of what has one everywhere.
fn seen(mode: u32, nlink: u64, uid: u32, gid: u32, size: i64) -> String {
    let size = if mode & libc::S_IFMT == libc::S_IFDIR {
        0
    } else {
        size
    };
    format!("{mode:o} {nlink} {uid} {gid} {size}")
}

fn ours(f: &Fixture, op: &Op) -> std::result::Result<String, Errno> {
    let (cx, vfs, base) = (f.cx(), &f.vfs, &f.cwd);
    let done = |r: Result<()>| r.map(|()| String::new());
    let find = |p: &String, how| vfs.resolve(&cx, base, p.as_bytes(), how);
    match op {
        Op::Open(p, flags, mode) => {
            let how = OpenHow {
                flags: *flags,
                mode: *mode,
                lookup: Lookup::empty(),
            };
            match vfs.open(&cx, base, p.as_bytes(), &how)? {
                Opened::File(fd) | Opened::Other(fd) => {
                    let a = locate(f, &fd).ok_or(Errno::EIO)?.attr()?;
                    Ok(seen(a.mode, a.nlink.into(), a.uid, a.gid, a.size as i64))
                }
                Opened::Blocking(..) => Err(Errno::EWOULDBLOCK),
            }
        }
        Op::Mkdir(p, mode) => done(vfs.mkdir(&cx, base, p.as_bytes(), *mode)),
        Op::Mknod(p, mode) => done(vfs.mknod(&cx, base, p.as_bytes(), *mode, libc::makedev(1, 3))),
        Op::Symlink(t, p) => done(vfs.symlink(&cx, t.as_bytes(), base, p.as_bytes())),
        Op::Link(a, b) => {
            let src = find(a, Lookup::empty())?;
            done(vfs.link(&cx, &src, base, b.as_bytes()))
        }
        Op::Unlink(p) => done(f.unlink(p)),
        Op::Rmdir(p) => done(f.rmdir(p)),
        Op::Rename(a, b, flags) => done(f.rename(a, b, *flags)),
        Op::Chmod(p, mode) => done(vfs.chmod(&cx, &find(p, Lookup::FOLLOW)?, *mode)),
        Op::Chown(p, u, g) => done(vfs.chown(&cx, &find(p, Lookup::empty())?, *u, *g)),
        Op::Truncate(p, size) => done(vfs.truncate(&cx, &find(p, Lookup::FOLLOW)?, *size)),
        Op::Access(p, mask) => done(vfs.access(&cx, &find(p, Lookup::FOLLOW)?, *mask)),
        Op::Readlink(p) => {
            let text = vfs.readlink(&cx, &find(p, Lookup::empty())?)?;
            Ok(String::from_utf8(text).unwrap())
        }
        Op::Times(p, explicit) => {
            let t = if *explicit {
                SetTime::At(Timespec { sec: 5, nsec: 0 })
            } else {
                SetTime::Now
            };
            done(vfs.utimes(&cx, &find(p, Lookup::empty())?, Some(t), Some(t)))
        }
        Op::Stat(p, follow) => {
            let how = if *follow {
                Lookup::FOLLOW
            } else {
                Lookup::empty()
            };
            let a = find(p, how)?.attr()?;
            Ok(seen(a.mode, a.nlink.into(), a.uid, a.gid, a.size as i64))
        }
    }
}

fn linux(dir: i32, op: &Op) -> std::result::Result<String, Errno> {
    let c = |p: &String| CString::new(p.as_str()).unwrap();
    let done = |r: i32| Errno::result(r).map(|_| String::new());
    let show = |st: libc::stat| seen(st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_size);
    let id = |i: &Option<u32>| i.unwrap_or(u32::MAX);
    // SAFETY: plain system calls with NUL-terminated paths and buffers of the sizes told.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        match op {
            Op::Open(p, flags, mode) => {
                let fd = Errno::result(libc::openat(dir, c(p).as_ptr(), *flags, *mode))?;
                let fd = OwnedFd::from_raw_fd(fd);
                // The VFS clears set-id bits at an open to write, Linux at the first write: make one.
                Errno::result(libc::fstat(fd.as_raw_fd(), &mut st))?;
                libc::ftruncate(fd.as_raw_fd(), st.st_size);
                Errno::result(libc::fstat(fd.as_raw_fd(), &mut st))?;
                Ok(show(st))
            }
            Op::Mkdir(p, mode) => done(libc::mkdirat(dir, c(p).as_ptr(), *mode)),
            Op::Mknod(p, mode) => done(libc::mknodat(
                dir,
                c(p).as_ptr(),
                *mode,
                libc::makedev(1, 3),
            )),
            Op::Symlink(t, p) => done(libc::symlinkat(c(t).as_ptr(), dir, c(p).as_ptr())),
            Op::Link(a, b) => done(libc::linkat(dir, c(a).as_ptr(), dir, c(b).as_ptr(), 0)),
            Op::Unlink(p) => done(libc::unlinkat(dir, c(p).as_ptr(), 0)),
            Op::Rmdir(p) => done(libc::unlinkat(dir, c(p).as_ptr(), libc::AT_REMOVEDIR)),
            Op::Rename(a, b, flags) => done(libc::renameat2(
                dir,
                c(a).as_ptr(),
                dir,
                c(b).as_ptr(),
                *flags,
            )),
            Op::Chmod(p, mode) => done(libc::fchmodat(dir, c(p).as_ptr(), *mode, 0)),
            Op::Chown(p, u, g) => {
                let nofollow = libc::AT_SYMLINK_NOFOLLOW;
                done(libc::fchownat(dir, c(p).as_ptr(), id(u), id(g), nofollow))
            }
            Op::Truncate(p, size) => {
                let path = CString::new(format!("/proc/self/fd/{dir}/{p}")).unwrap();
                if p.is_empty() {
                    return Err(Errno::ENOENT);
                }
                done(libc::truncate(path.as_ptr(), *size as i64))
            }
            Op::Access(p, mask) => {
                let mask = *mask as i32;
                done(libc::faccessat(dir, c(p).as_ptr(), mask, 0))
            }
            Op::Readlink(p) => {
                let mut buf = [0u8; 256];
                // An empty path means the descriptor itself to this call alone.
                let n = libc::readlinkat(dir, c(p).as_ptr(), buf.as_mut_ptr().cast(), 256);
                let n = Errno::result(n)?;
                Ok(String::from_utf8(buf[..n as usize].to_vec()).unwrap())
            }
            Op::Times(p, explicit) => {
                let time = libc::timespec {
                    tv_sec: 5,
                    tv_nsec: if *explicit { 0 } else { libc::UTIME_NOW },
                };
                let times = [time, time];
                let nofollow = libc::AT_SYMLINK_NOFOLLOW;
                done(libc::utimensat(
                    dir,
                    c(p).as_ptr(),
                    times.as_ptr(),
                    nofollow,
                ))
            }
            Op::Stat(p, follow) => {
                let flags = if *follow {
                    0
                } else {
                    libc::AT_SYMLINK_NOFOLLOW
                };
                done(libc::fstatat(dir, c(p).as_ptr(), &mut st, flags))?;
                Ok(show(st))
            }
        }
    }
}

fn our_tree(f: &Fixture, path: &str, tree: &mut BTreeMap<String, String>) {
    for name in f.names(path) {
        if name == "." || name == ".." {
            continue;
        }
        let path = format!("{path}/{name}");
        let node = f.find(&path, Lookup::empty()).unwrap();
        let a = node.attr().unwrap();
        tree.insert(
            path.clone(),
            seen(a.mode, a.nlink.into(), a.uid, a.gid, a.size as i64),
        );
        if node.kind() == FileType::Directory {
            our_tree(f, &path, tree);
        }
    }
}

fn linux_tree(top: &Path, path: &Path, tree: &mut BTreeMap<String, String>) {
    use std::os::unix::fs::MetadataExt;
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let m = std::fs::symlink_metadata(&path).unwrap();
        let name = format!("base/{}", path.strip_prefix(top).unwrap().display());
        let size = m.size() as i64;
        tree.insert(name, seen(m.mode(), m.nlink(), m.uid(), m.gid(), size));
        if m.is_dir() {
            linux_tree(top, &path, tree);
        }
    }
}

/// Whether two of [`seen`] agree. A directory with one link does not count its subdirectories, as
/// those of overlayfs do not.
fn alike(ours: &str, linux: &str) -> bool {
    let uncounted = |s: &str| {
        let mut fields: Vec<_> = s.split(' ').collect();
        if fields.len() == 5 && fields[0].starts_with("4") {
            fields[1] = "1";
        }
        fields.join(" ")
    };
    ours == linux || ours.contains(" 1 ") && ours == uncounted(linux)
}

/// Runs `count` operations as user `uid`, both ways.
fn compare(mut f: Fixture, seed: u64, uid: u32, count: usize) {
    let real = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = real.path().join("base");
    std::fs::create_dir(&base).unwrap();
    f.mkdir("base");
    let top = f.root.clone();
    for (path, mode) in [(real.path(), 0o777), (&base, 0o777)] {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    f.vfs.chmod(&f.cx(), &f.root, 0o777).unwrap();
    f.vfs.chmod(&f.cx(), &f.at("base"), 0o777).unwrap();
    f.cwd = f.at("base");
    let dir = open_dir(&base);
    let mut rng = Rng(seed);
    let ops: Vec<Op> = (0..count).map(|_| op(&mut rng)).collect();
    let switch = |to: u32| {
        // SAFETY: plain system calls; unlike glibc's functions they change this thread only.
        unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>());
            assert_eq!(libc::syscall(libc::SYS_setresgid, to, to, 0), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, to, to, 0), 0);
        }
    };
    for (n, op) in ops.iter().enumerate() {
        // Every third operation is root's, so that there is something not to be allowed.
        let who = if n % 3 == 0 { 0 } else { uid };
        f.creds = Creds::user(who, who, Arc::from([]));
        let ours = ours(&f, op);
        switch(who);
        let linux = linux(dir.as_raw_fd(), op);
        // SAFETY: as above.
        unsafe {
            libc::syscall(libc::SYS_setresuid, 0, 0, 0);
            libc::syscall(libc::SYS_setresgid, 0, 0, 0);
        }
        let same = match (&ours, &linux) {
            (Ok(ours), Ok(linux)) => alike(ours, linux),
            _ => ours == linux,
        };
        if !same {
            panic!(
                "seed {seed}, operation {n}, user {who}: {op:?}\nours {ours:?}, Linux {linux:?}"
            );
        }
    }
    f.creds = Creds::root();
    f.cwd = top;
    let kept = |l: Location| l.kind() == FileType::Directory;
    if !f.find("base", Lookup::empty()).is_ok_and(kept) {
        // The operations have removed the very directory they worked in.
        assert!(!base.is_dir() || base.is_symlink());
        return;
    }
    let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
    our_tree(&f, "base", &mut a);
    linux_tree(&base, &base, &mut b);
    for (path, ours) in &a {
        let linux = b.get(path).map_or("nothing", |s| s);
        assert!(
            alike(ours, linux),
            "seed {seed}: {path}: ours {ours}, Linux {linux}"
        );
    }
    assert_eq!(a.len(), b.len(), "seed {seed}");
}

fn compare_many(fixture: fn() -> Fixture, default: u64) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root, to act as several users on the host");
        return;
    }
    // SAFETY: sets the process's umask, to what the fixture has; no other test depends on it.
    unsafe { libc::umask(0o022) };
    let seeds = std::env::var("DUET_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok());
    for seed in 1..=seeds.unwrap_or(default) {
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // A thread of its own, as it changes its ids.
        std::thread::spawn(move || compare(fixture(), seed, [0, 7][seed as usize % 2], 400))
            .join()
            .unwrap();
    }
}

#[test]
fn random_operations_on_tmp() {
    compare_many(Fixture::new, 60);
}

#[test]
fn random_operations_on_a_host_directory() {
    compare_many(|| host(false), 30);
}

#[test]
fn random_operations_on_a_shared_host_directory() {
    compare_many(|| host(true), 30);
}

#[test]
fn random_operations_on_an_overlay() {
    use crate::overlay::{OverlayFs, Upper};
    compare_many(
        || {
            Fixture::over(|files, _| {
                let fs = TmpFs::new(files, TmpOptions::default()).unwrap();
                let new = NewNode {
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                };
                let root = fs.root();
                let make = |name: &[u8]| root.mkdir(name, new).unwrap();
                let (upper, work, lower) = (make(b"upper"), make(b"work"), make(b"lower"));
                let upper = Upper {
                    fs,
                    root: upper,
                    work,
                };
                OverlayFs::new(upper, vec![lower]).unwrap()
            })
        },
        30,
    );
}

fn host(shared: bool) -> Fixture {
    use crate::host::{HostFs, HostOptions};
    Fixture::over(|_, dir| {
        let options = HostOptions {
            shared,
            ..HostOptions::default()
        };
        HostFs::open(dir, options).unwrap()
    })
}

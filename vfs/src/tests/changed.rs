//! A tree that others change: what they have changed is seen as soon as their call has returned, however often
//! the guest has been there before.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::against_linux::Rng;
use super::*;
use crate::account;
use crate::host::{HostFs, HostOptions};

/// A shared tree on a directory of the host.
struct Shared {
    f: Fixture,
    host: PathBuf,
}

impl Shared {
    fn new() -> Shared {
        let mut host = PathBuf::new();
        let f = Fixture::over(|_, dir| {
            host = dir.to_owned();
            let options = HostOptions {
                shared: true,
                ..HostOptions::default()
            };
            HostFs::open(dir, options).unwrap()
        });
        fs::create_dir_all(host.join("a/b/c")).unwrap();
        fs::write(host.join("a/b/c/file"), "1").unwrap();
        Shared { f, host }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.host.join(path)
    }

    /// Has a path walked often enough for its directories to be watched.
    fn heat(&self, path: &str) {
        for _ in 0..200 {
            let _ = self.f.find(path, Lookup::FOLLOW);
        }
    }

    /// What the guest sees at a path.
    fn seen(&self, path: &str) -> Result<(u64, u32)> {
        let attr = self.f.find(path, Lookup::empty())?.attr()?;
        Ok((attr.ino, attr.mode))
    }

    /// Compares with what the host sees.
    #[track_caller]
    fn check(&self, path: &str) {
        let host = match fs::symlink_metadata(self.at(path)) {
            Ok(m) => Ok((m.ino(), m.mode())),
            Err(e) => Err(Errno::from_raw(e.raw_os_error().unwrap())),
        };
        assert_eq!(self.seen(path), host, "{path}");
    }
}

/// Calls to the host that finding `path` takes.
fn calls(s: &Shared, path: &str) -> Vec<(&'static str, u64)> {
    account::keep();
    account::begin();
    s.f.at(path);
    let account = account::take().expect("one was begun");
    account.host.iter().map(|c| (c.name, c.count)).collect()
}

#[test]
fn a_path_that_is_used_often_takes_one_question() {
    let s = Shared::new();
    s.f.at("a/b/c/file");
    assert_eq!(calls(&s, "a/b/c/file"), [("statx", 4)]);
    s.heat("a/b/c/file");
    assert_eq!(calls(&s, "a/b/c/file"), [("epoll_wait", 1), ("statx", 1)]);
    // A change of a name asks for that name anew, or for those that share its cell.
    fs::write(s.at("a/new"), "").unwrap();
    s.f.at("a/b/c/file");
    fs::rename(s.at("a/b"), s.at("a/away")).unwrap();
    assert_eq!(s.f.missing("a/b/c/file"), Errno::ENOENT);
    fs::rename(s.at("a/away"), s.at("a/b")).unwrap();
    // Found anew, then confirmed.
    s.f.at("a/b/c/file");
    s.f.at("a/b/c/file");
    assert_eq!(calls(&s, "a/b/c/file"), [("epoll_wait", 1), ("statx", 1)]);
}

/// Whoever is told of a change must find it.
#[test]
fn nothing_is_relied_on_once_the_guest_watches() {
    let s = Shared::new();
    s.heat("a/b/c/file");
    s.f.vfs.watched_path(&s.f.at("a")).unwrap();
    s.heat("a/b/c/file");
    assert_eq!(calls(&s, "a/b/c/file"), [("statx", 4)]);
    fs::rename(s.at("a/b"), s.at("a/x")).unwrap();
    s.check("a/b/c/file");
}

#[test]
fn a_directory_on_the_way_is_replaced() {
    let s = Shared::new();
    fs::create_dir_all(s.at("other/c")).unwrap();
    fs::write(s.at("other/c/file"), "2").unwrap();
    let path = "a/b/c/file";
    let remake: [&dyn Fn(); 8] = [
        &|| fs::rename(s.at("a/b"), s.at("a/old")).unwrap(),
        &|| fs::rename(s.at("other"), s.at("a/b")).unwrap(),
        &|| {
            nix::fcntl::renameat2(
                nix::fcntl::AT_FDCWD,
                &s.at("a/b"),
                nix::fcntl::AT_FDCWD,
                &s.at("a/old"),
                nix::fcntl::RenameFlags::RENAME_EXCHANGE,
            )
            .unwrap();
        },
        &|| fs::remove_dir_all(s.at("a/b")).unwrap(),
        &|| symlink("old", s.at("a/b")).unwrap(),
        &|| fs::remove_file(s.at("a/b")).unwrap(),
        &|| fs::create_dir_all(s.at("a/b/c")).unwrap(),
        &|| fs::write(s.at(path), "3").unwrap(),
    ];
    for change in remake {
        s.heat(path);
        change();
        s.check(path);
        s.check("a/b/c");
        s.check("a/b");
    }
    s.heat(path);
    fs::rename(s.at("a"), s.at("z")).unwrap();
    s.check(path);
    s.check("z/b/c/file");
}

#[test]
fn a_link_in_place_of_a_directory_does_not_lead_out() {
    let s = Shared::new();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("c")).unwrap();
    fs::write(outside.path().join("c/file"), "outside").unwrap();
    s.heat("a/b/c/file");
    fs::rename(s.at("a/b"), s.at("a/old")).unwrap();
    symlink(outside.path(), s.at("a/b")).unwrap();
    assert_eq!(s.f.missing("a/b/c/file"), Errno::ENOENT);
    s.heat("a/old/c/file");
    fs::remove_file(s.at("a/b")).unwrap();
    symlink("../../../../../../../..", s.at("a/b")).unwrap();
    assert_eq!(s.f.path(&s.f.at("a/b/a/old/c")), "/a/old/c");
}

#[test]
fn permissions_of_a_directory_are_those_of_the_moment() {
    let mut s = Shared::new();
    s.f.creds = Creds::user(1234, 1234, Arc::from([]));
    s.heat("a/b/c/file");
    for _ in 0..3 {
        fs::set_permissions(s.at("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(s.f.missing("a/b/c/file"), Errno::EACCES);
        s.heat("a/b/c/file");
        fs::set_permissions(s.at("a/b"), fs::Permissions::from_mode(0o711)).unwrap();
        s.check("a/b/c/file");
        s.heat("a/b/c/file");
    }
    // The record of another owner, which is an attribute of the directory.
    s.f.creds = Creds::user(77, 77, Arc::from([]));
    fs::set_permissions(s.at("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(s.f.missing("a/b/c/file"), Errno::EACCES);
    s.heat("a/b/c/file");
    let path = format!("{}\0", s.at("a/b").display());
    let record = b"1:40700:77:77:0:0";
    // SAFETY: two C strings and a value of that length.
    let set = unsafe {
        libc::setxattr(
            path.as_ptr().cast(),
            c"user.duet.meta".as_ptr(),
            record.as_ptr().cast(),
            record.len(),
            0,
        )
    };
    if set == 0 {
        assert!(s.f.find("a/b/c/file", Lookup::FOLLOW).is_ok());
    }
}

#[test]
fn own_changes_are_seen_as_before() {
    let s = Shared::new();
    for n in 0..100 {
        s.heat("a/b/c/file");
        s.f.rename("a/b", "a/x", 0).unwrap();
        s.check("a/b/c/file");
        s.check("a/x/c/file");
        s.f.mkdir("a/b");
        s.check("a/b");
        s.f.rmdir("a/b").unwrap();
        s.f.rename("a/x", "a/b", 0).unwrap();
        s.f.write(&format!("a/b/c/f{n}"), "");
        s.check("a/b/c/file");
    }
}

#[test]
fn more_changes_than_the_queue_holds_lose_nothing() {
    let s = Shared::new();
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    s.heat("a/b/c/file");
    let file = |n: usize| s.at(&format!("a/b/n{}", n % 1000));
    for n in 0..most.min(100_000) {
        match n / 1000 % 2 {
            0 => fs::write(file(n), "").unwrap(),
            _ => fs::remove_file(file(n)).unwrap(),
        }
    }
    // Not told of any more.
    fs::rename(s.at("a/b"), s.at("a/x")).unwrap();
    fs::create_dir(s.at("a/b")).unwrap();
    for _ in 0..2 * most / 100 {
        s.check("a/b/c/file");
        s.check("a/x/c/file");
    }
    s.heat("a/x/c/file");
    assert_eq!(calls(&s, "a/x/c/file"), [("epoll_wait", 1), ("statx", 1)]);
}

#[test]
fn more_directories_than_are_watched() {
    let s = Shared::new();
    let path = |n: usize| format!("a/d{n}/e/file");
    for n in 0..700 {
        fs::create_dir_all(s.at(&format!("a/d{n}/e"))).unwrap();
        fs::write(s.at(&path(n)), "").unwrap();
        s.heat(&path(n));
    }
    for n in 0..700 {
        let dir = s.at(&format!("a/d{n}"));
        fs::rename(dir.join("e"), dir.join("f")).unwrap();
        s.check(&path(n));
    }
    fs::remove_dir_all(s.at("a")).unwrap();
    for n in 0..700 {
        s.check(&path(n));
    }
}

/// Mounts below a tree in a mount namespace of its own.
#[test]
fn a_mount_of_the_host_shows_at_once() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let none = None::<&str>;
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).unwrap();
            let s = Shared::new();
            for _ in 0..3 {
                s.heat("a/b/c/file");
                mount(
                    Some("x"),
                    &s.at("a/b"),
                    Some("tmpfs"),
                    MsFlags::empty(),
                    none,
                )
                .unwrap();
                s.check("a/b/c/file");
                s.check("a/b");
                s.heat("a/b/c/file");
                umount2(&s.at("a/b"), MntFlags::MNT_DETACH).unwrap();
                s.check("a/b/c/file");
                s.check("a/b");
            }
        });
    });
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn some_path(rng: &mut Rng) -> String {
    let depth = 1 + rng.below(4);
    let names: Vec<_> = (0..depth).map(|_| *rng.of(&NAMES)).collect();
    names.join("/")
}

/// One random change by the host; most fail, which is as well.
fn change(rng: &mut Rng, root: &Path) {
    let (one, two) = (root.join(some_path(rng)), root.join(some_path(rng)));
    let cwd = nix::fcntl::AT_FDCWD;
    match rng.below(9) {
        0 | 1 => drop(fs::create_dir(&one)),
        2 => drop(fs::write(&one, "x")),
        3 => drop(fs::remove_dir_all(&one)),
        4 => drop(fs::remove_file(&one)),
        5 => drop(symlink(rng.of(&NAMES), &one)),
        6 => drop(fs::set_permissions(
            &one,
            fs::Permissions::from_mode(*rng.of(&[0o755, 0o700, 0o777])),
        )),
        7 => drop(fs::rename(&one, &two)),
        _ => drop(nix::fcntl::renameat2(
            cwd,
            &one,
            cwd,
            &two,
            nix::fcntl::RenameFlags::RENAME_EXCHANGE,
        )),
    }
}

/// Two threads take turns: one changes the tree, the other compares what the guest sees with the host.
#[test]
fn random_changes_are_seen_at_once() {
    let s = Shared::new();
    let (to_host, orders) = mpsc::channel::<()>();
    let (to_guest, done) = mpsc::channel::<()>();
    let host = s.host.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut rng = Rng(0x1234_5678_9abc_def1);
            for () in orders {
                for _ in 0..rng.below(4) {
                    change(&mut rng, &host);
                }
                to_guest.send(()).unwrap();
            }
        });
        let mut rng = Rng(0xfeed_beef_dead_f00d);
        for _ in 0..4000 {
            to_host.send(()).unwrap();
            done.recv().unwrap();
            for _ in 0..20 {
                s.check(&some_path(&mut rng));
            }
            if rng.below(10) == 0 {
                // The guest changes something itself.
                let path = some_path(&mut rng);
                let _ = match rng.below(3) {
                    0 => s.f.rmdir(&path),
                    1 => s.f.unlink(&path),
                    _ => s.f.rename(&path, &some_path(&mut rng), 0),
                };
            }
        }
        drop(to_host);
    });
}

/// While the host keeps replacing a directory by a link to the outside, no walk ends there.
#[test]
fn no_walk_ends_outside() {
    let s = Shared::new();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(outside.path().join("c")).unwrap();
    fs::write(outside.path().join("c/file"), "outside").unwrap();
    let inside = s.seen("a/b/c/file").unwrap().0;
    let stop = AtomicBool::new(false);
    let (mut found, mut errors) = (0, BTreeSet::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(s.at("a/b"), s.at("a/old")).unwrap();
                symlink(outside.path(), s.at("a/b")).unwrap();
                fs::remove_file(s.at("a/b")).unwrap();
                fs::rename(s.at("a/old"), s.at("a/b")).unwrap();
            }
        });
        for _ in 0..100_000 {
            match s.seen("a/b/c/file") {
                Ok((ino, _)) => {
                    assert_eq!(ino, inside);
                    found += 1;
                }
                Err(e) => drop(errors.insert(e as i32)),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(found > 0);
    assert!(errors.iter().all(|&e| e == libc::ENOENT), "{errors:?}");
}

//! What the kernel finds when it looks up the path of a program itself: the start-up stub (`links`), or,
//! for threads that somebody traces, the program.
//!
//! Whom a tracer has stopped at the end of an `execve` must be in its new program already, with all of
//! it mapped: a debugger looks at it then. So the stub, which would be seen there, cannot serve, nor
//! can Duet attach to a thread that has a tracer. Instead the kernel runs the call as it stands, and
//! finds at its path a copy of the program that Duet has checked, and of its interpreters at theirs.
//!
//! The copies lie on a tmpfs of their own. A directory of it is the root of all guest processes,
//! read-only to them, and empty but for those copies. A path that changes between the check and the
//! call can therefore only lead to another program that some process of the sandbox was about to run,
//! or to none; which it was shows in the end ([`Process::state`](crate::process::Process::state)).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use duet_vfs::BackingId;
use duet_vfs::counted::{fstat, linkat, mkdirat, openat, unlinkat};
use duet_vfs::types::{Errno, Result};
use nix::fcntl::{OFlag, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{LinkatFlags, UnlinkatFlags};
use parking_lot::Mutex;

mod links;

/// The directory that the guest has as its root.
pub const ROOT: &str = "root";

/// The directory of the copies.
const COPIES: &str = "copies";

/// Largest file that is copied, in bytes. All wait for a copy that is made.
pub const LARGEST: u64 = 256 << 20;

/// The start-up stub.
const STUB: &str = "stub";

/// A copy on its way to its place.
const MOVING: &str = "moving";

/// The host's file that a copy was made of, and what changes when it is written to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Original {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

#[derive(Default)]
struct Copies {
    by_original: HashMap<Original, (String, BackingId)>,
    next: u64,
}

/// The tmpfs with the copies.
pub struct Images {
    top: OwnedFd,
    /// User and group on the host that own what is made on it.
    ids: (u32, u32),
    copies: Mutex<Copies>,
    /// The start-up stub's file.
    stub: BackingId,
    /// How many directories have been made.
    directories: AtomicUsize,
    /// `None` once programs may stand at paths.
    links: Mutex<Option<links::Links>>,
}

impl Images {
    /// On this tmpfs, which has the directory [`ROOT`] already. Its user namespace knows `ids`, a user
    /// and a group of the host, alone. `stub` is the start-up stub.
    pub fn new(top: OwnedFd, ids: (u32, u32), stub: &[u8]) -> Result<Images> {
        let owner = FileIds::take(ids);
        mkdirat(&top, COPIES, Mode::S_IRWXU)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(&top, STUB, flags, Mode::from_bits_truncate(0o555))?;
        drop(owner);
        let mut file = File::from(file);
        io::Write::write_all(&mut file, stub).map_err(errno)?;
        let stat = fstat(&file)?;
        Ok(Images {
            top,
            ids,
            copies: Mutex::default(),
            stub: BackingId {
                dev: stat.st_dev,
                ino: stat.st_ino,
            },
            directories: AtomicUsize::new(0),
            links: Mutex::new(Some(HashMap::new())),
        })
    }

    /// The user and group that guests are on the host.
    pub fn ids(&self) -> (u32, u32) {
        self.ids
    }

    /// Makes each file found by the kernel at its path, and returns which files the copies are. Paths
    /// start at the root, as every guest process stands there in the kernel's eyes.
    ///
    /// None of them is `running`, the file that the caller executes already: that it executes the one made
    /// for it is how its success shows.
    ///
    /// `ENOSPC` if there is no room, even without all that was there before; `ENOMEM` for a file larger than
    /// [`LARGEST`].
    pub fn place(
        &self,
        files: &[(&[u8], BorrowedFd<'_>)],
        running: Option<BackingId>,
    ) -> Result<Vec<BackingId>> {
        self.stop_leading();
        let mut copies = self.copies.lock();
        let _owner = FileIds::take(self.ids);
        let all = |copies: &mut Copies| -> Result<Vec<BackingId>> {
            let place = |&(path, file): &(&[u8], BorrowedFd<'_>)| {
                let (name, id) = self.copy(copies, file, running)?;
                self.link(&name, path).map(|()| id)
            };
            files.iter().map(place).collect()
        };
        match all(&mut copies) {
            // A directory stands where a file is to be, or the reverse: of another tree, or another time.
            Err(Errno::ENOTDIR | Errno::EISDIR | Errno::EEXIST | Errno::ENOTEMPTY) => {
                self.clear(ROOT)?;
                all(&mut copies)
            }
            Err(Errno::ENOSPC) => {
                self.clear(ROOT)?;
                self.clear(COPIES)?;
                copies.by_original.clear();
                all(&mut copies)
            }
            done => done,
        }
    }

    /// The copy of an open file: its name, and which file it is.
    fn copy(
        &self,
        copies: &mut Copies,
        file: BorrowedFd<'_>,
        running: Option<BackingId>,
    ) -> Result<(String, BackingId)> {
        let mut from = File::from(file.try_clone_to_owned().map_err(errno)?);
        let m = from.metadata().map_err(errno)?;
        let original = Original {
            dev: m.dev(),
            ino: m.ino(),
            size: m.size(),
            mtime: (m.mtime(), m.mtime_nsec()),
            ctime: (m.ctime(), m.ctime_nsec()),
        };
        match copies.by_original.get(&original) {
            Some((name, id)) if Some(*id) == running => {
                unlinkat(&self.top, name.as_str(), UnlinkatFlags::NoRemoveDir)?;
                copies.by_original.remove(&original);
            }
            Some(known) => return Ok(known.clone()),
            None => (),
        }
        if original.size > LARGEST {
            return Err(Errno::ENOMEM);
        }
        let name = format!("{COPIES}/{}", copies.next);
        copies.next += 1;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o555);
        let mut to = File::from(openat(&self.top, name.as_str(), flags, mode)?);
        let whole = io::Seek::rewind(&mut from)
            .and_then(|()| io::copy(&mut io::Read::take(&mut from, m.len()), &mut to));
        if let Err(e) = whole {
            unlinkat(&self.top, name.as_str(), UnlinkatFlags::NoRemoveDir)?;
            return Err(errno(e));
        }
        let stat = fstat(&to)?;
        let id = BackingId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        };
        copies.by_original.insert(original, (name.clone(), id));
        Ok((name, id))
    }

    /// Gives the copy `name` a place below the guest's root.
    fn link(&self, name: &str, path: &[u8]) -> Result<()> {
        let at = self.make_directories(path)?;
        self.move_to(name, &at)
    }

    /// Makes the directories that `path` leads through, and returns where it leads to. As there are no
    /// symbolic links, each `..` leads back to where the component before it came from.
    fn make_directories(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut at = ROOT.as_bytes().to_vec();
        let mut components = path
            .split(|&b| b == b'/')
            .filter(|c| !c.is_empty() && *c != b".")
            .peekable();
        while let Some(component) = components.next() {
            if component == b".." {
                if let Some(slash) = at.iter().rposition(|&b| b == b'/') {
                    at.truncate(slash);
                }
                continue;
            }
            at.push(b'/');
            at.extend_from_slice(component);
            if components.peek().is_none() {
                return Ok(at);
            }
            match mkdirat(&self.top, at.as_slice(), Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    self.directories.fetch_add(1, Ordering::Relaxed);
                }
                Err(Errno::EEXIST) => (),
                Err(e) => return Err(e),
            }
        }
        // Such a path names a directory.
        Err(Errno::EACCES)
    }

    fn move_to(&self, name: &str, at: &[u8]) -> Result<()> {
        let (top, file) = (&self.top, UnlinkatFlags::NoRemoveDir);
        linkat(top, name, top, MOVING, LinkatFlags::empty())?;
        let moved = renameat(top, MOVING, top, at);
        // It is still there if that failed, or if the same file was in the place already.
        match unlinkat(top, MOVING, file) {
            Ok(()) | Err(Errno::ENOENT) => moved,
            Err(e) => Err(e),
        }
    }

    /// Removes all that is in a directory of the tmpfs.
    fn clear(&self, dir: &str) -> Result<()> {
        let path = format!("/proc/self/fd/{}/{dir}", self.top.as_raw_fd());
        for entry in fs::read_dir(path).map_err(errno)? {
            let entry = entry.map_err(errno)?;
            let removed = match entry.file_type().map_err(errno)?.is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            };
            removed.map_err(errno)?;
        }
        Ok(())
    }

    /// Opens the copy that stands at `path`, for the guest to hold in place of the file itself.
    pub fn open(&self, path: &[u8]) -> Result<OwnedFd> {
        let _owner = FileIds::take(self.ids);
        let at = [ROOT.as_bytes(), b"/", path].concat();
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        openat(&self.top, at.as_slice(), flags, Mode::empty())
    }
}

fn errno(e: io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}

/// The calling thread makes files as another user and group while this lives: on a file system of the
/// sandbox's user namespace root of the host has no id, and can make none.
struct FileIds {
    before: Option<(u32, u32)>,
}

impl FileIds {
    fn take((uid, gid): (u32, u32)) -> FileIds {
        let own = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        if own == (uid, gid) {
            return FileIds { before: None };
        }
        set_file_ids(uid, gid);
        FileIds { before: Some(own) }
    }
}

impl Drop for FileIds {
    fn drop(&mut self) {
        if let Some((uid, gid)) = self.before {
            set_file_ids(uid, gid);
        }
    }
}

/// setfsuid(2) and setfsgid(2) of the calling thread. They tell no failure; what it does next will.
fn set_file_ids(uid: u32, gid: u32) {
    // SAFETY: plain numbers. The raw calls concern this thread alone.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    pub(super) fn images() -> (tempfile::TempDir, Images) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(ROOT)).unwrap();
        let top = File::open(dir.path()).unwrap().into();
        let ids = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        let images = Images::new(top, ids, b"stub").unwrap();
        (dir, images)
    }

    fn program(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn files_stand_where_the_kernel_looks() {
        let (dir, images) = images();
        let (one, two) = (program("one"), program("two"));
        let files = [
            (&b"/usr//lib/../bin/./one"[..], one.as_fd()),
            (b"../../two", two.as_fd()),
        ];
        let first = images.place(&files, None).unwrap();
        let read = |p: &str| fs::read_to_string(dir.path().join(ROOT).join(p)).unwrap();
        assert_eq!(
            (read("usr/bin/one"), read("two")),
            ("one".into(), "two".into())
        );
        assert!(dir.path().join(ROOT).join("usr/lib").is_dir());
        // The same files are not copied again.
        assert_eq!(images.place(&files, None).unwrap(), first);
        // Another in the same place is.
        images.place(&[(b"two", one.as_fd())], None).unwrap();
        assert_eq!(read("two"), "one");
    }

    #[test]
    fn a_directory_makes_way_for_a_file_and_the_reverse() {
        let (dir, images) = images();
        let one = program("one");
        for path in [&b"/a/b/c"[..], b"/a/b", b"/a/b/c", b"/a"] {
            images.place(&[(path, one.as_fd())], None).unwrap();
            let path = std::str::from_utf8(path).unwrap().trim_start_matches('/');
            assert!(dir.path().join(ROOT).join(path).is_file());
        }
        for path in [&b"/"[..], b"", b"/a/..", b"."] {
            assert_eq!(
                images.place(&[(path, one.as_fd())], None),
                Err(Errno::EACCES)
            );
        }
    }

    #[test]
    fn a_changed_file_is_copied_again() {
        let (dir, images) = images();
        let mut one = program("one");
        let before = images.place(&[(b"p", one.as_fd())], None).unwrap();
        one.write_all(b", longer").unwrap();
        assert_ne!(images.place(&[(b"p", one.as_fd())], None).unwrap(), before);
        // Whoever runs it already gets another.
        let running = images.place(&[(b"p", one.as_fd())], None).unwrap();
        let again = images.place(&[(b"p", one.as_fd())], running.first().copied());
        let again = again.unwrap();
        assert_ne!(again, running);
        assert_eq!(images.place(&[(b"p", one.as_fd())], None).unwrap(), again);
        let text = fs::read_to_string(dir.path().join(ROOT).join("p")).unwrap();
        assert_eq!(text, "one, longer");
    }
}

//! What others change in a shared tree, as the kernel tells it.
//!
//! A name that paths lead through may lead elsewhere at the next look, so each use of it costs a question to the
//! host. A directory that is asked about again and again is therefore *watched*, inotify(7): the kernel queues
//! an event within the very call that changes a watched directory, so when that call has returned, an empty queue
//! means that nothing has changed. One look at the queue ([`Changes::catch_up`]) then takes the place of a
//! question for each component.
//!
//! What has been found out carries a *stamp*, a number that no other moment has. A directory keeps the
//! stamps of its last changes, in as many cells as [`CELLS`]; a name belongs to one of them. What was found out
//! with the present stamp of its cell still holds. So the memory that this takes is bounded, and names that
//! share a cell cost each other no more than a question.
//!
//! Nobody relies on a watch for more than it tells:
//!
//! - Only on file systems whose every change goes through this kernel, [`TELLING`].
//! - Mounting is no change of a directory. The kernel tells of it at `/proc/self/mountinfo`, for the mounts of
//!   Duet's own mount namespace; a tree that is not among them has no watches.
//! - A directory that takes different names for the same has events of one of them. Whether it does is tried
//!   out, [`Names`].
//! - The names of an encrypted directory change with the keys that are there.
//! - Others are told of a change at the same time, not after Duet, while the call that makes it is still under way.
//!   Once a guest watches a directory itself, it must find what it has been told of: all watches end,
//!   [`Changes::stop`].
//! - When the queue has overflowed, or holds more than is read in one go, everything is asked anew.
//!
//! At most [`MAX_WATCHED`] directories of a tree are watched. One more takes the place of one that has not been
//! used for a while, or is asked about as before, as where the host grants no watch at all.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use parking_lot::Mutex;

use super::sys::{self, FdPath};
use crate::account::host;
use crate::counted::{fstatfs, read_text};
use crate::types::*;

/// Watched directories of one tree at most, and the share of the user's watches that they may take:
/// one in so many.
const MAX_WATCHED: usize = 512;
const SHARE: usize = 16;

/// Cells of a watched directory.
const CELLS: usize = 32;

/// Watched directories looked at when one is to make room.
const STEPS: usize = 8;

/// `f_type` of ext2 to ext4, btrfs, f2fs, overlayfs, ramfs, tmpfs, xfs.
const TELLING: [i64; 7] = [
    0xef53,
    0x9123_683e,
    0xf2f5_2010,
    0x794c_7630,
    0x8584_58f6,
    0x0102_1994,
    0x5846_5342,
];

/// What `Inotify::read_events` reads at once, and the largest event: a `struct inotify_event` and a name.
const BUFFER: usize = 4096;
const EVENT: usize = 16;
const EVENT_MAX: usize = EVENT + 256;

/// Which names a directory holds for the same.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Names {
    /// It has not been tried out.
    Unknown,
    /// Those of the same bytes.
    Bytes,
    /// Others too: those that differ in case.
    Folded,
}

/// A watched directory.
pub(super) struct Directory {
    watch: WatchDescriptor,
    /// Stamps of the last changes of names.
    names: [AtomicU64; CELLS],
    /// Stamp of the last change of its own attributes.
    own: AtomicU64,
    live: AtomicBool,
    used: AtomicBool,
    compares: AtomicU8,
}

impl Directory {
    fn new(watch: WatchDescriptor, stamp: u64) -> Directory {
        Directory {
            watch,
            names: std::array::from_fn(|_| AtomicU64::new(stamp)),
            own: AtomicU64::new(stamp),
            live: AtomicBool::new(true),
            used: AtomicBool::new(true),
            compares: AtomicU8::new(Names::Unknown as u8),
        }
    }

    /// Whether the watch is still there.
    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    fn cell(&self, name: &[u8]) -> &AtomicU64 {
        // FNV-1a.
        let hash = name.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        &self.names[(hash ^ (hash >> 16)) as usize % CELLS]
    }

    /// Whether `name`, which there is, is told apart from all others; `dir` is the directory.
    fn tells_apart(&self, dir: BorrowedFd<'_>, name: &[u8]) -> bool {
        if self.compares.load(Ordering::Relaxed) == Names::Unknown as u8 {
            let found = compares(dir, name);
            self.compares.store(found as u8, Ordering::Relaxed);
        }
        self.compares.load(Ordering::Relaxed) == Names::Bytes as u8
    }
}

/// Whether all that changes in the directory behind `dir` is told.
pub(super) fn tells(dir: BorrowedFd<'_>) -> bool {
    fstatfs(dir).is_ok_and(|s| TELLING.contains(&s.filesystem_type().0))
        && sys::is_encrypted(dir).is_ok_and(|encrypted| !encrypted)
}

/// Tries out which names a directory holds for the same, by the other case of one that there is.
fn compares(dir: BorrowedFd<'_>, name: &[u8]) -> Names {
    let swap = |b: &u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' => b ^ 0x20,
        _ => *b,
    };
    let swapped: Vec<u8> = name.iter().map(swap).collect();
    if swapped == name {
        return Names::Unknown;
    }
    let id = |name: &[u8]| sys::stat(dir, name).map(|stat| stat.id);
    let (before, other, after) = (id(name), id(&swapped), id(name));
    match (before, other, after) {
        (Ok(before), Err(Errno::ENOENT), Ok(after)) if before == after => Names::Bytes,
        (Ok(before), Ok(other), Ok(after)) if before == after && other != before => Names::Bytes,
        (Ok(before), Ok(other), _) if before == other => Names::Folded,
        _ => Names::Unknown,
    }
}

/// What is known of the changes in a tree.
pub(super) struct Changes {
    watcher: OnceLock<Option<Watcher>>,
    /// The last stamp given.
    clock: AtomicU64,
    /// Stamp of the last change that may have been anywhere.
    everywhere: AtomicU64,
}

struct Watcher {
    most: usize,
    /// `None` once nobody relies on it any more.
    state: Mutex<Option<State>>,
}

struct State {
    inotify: Inotify,
    /// Tells whether one of the two has something to say.
    epoll: Epoll,
    /// Keeps `/proc/self/mountinfo` open.
    _mounts: std::fs::File,
    /// Whether events may be left of those that `epoll` has told of.
    pending: bool,
    directories: HashMap<WatchDescriptor, Arc<Directory>>,
    clock: VecDeque<WatchDescriptor>,
}

impl Changes {
    pub(super) fn new() -> Changes {
        Changes {
            watcher: OnceLock::new(),
            clock: AtomicU64::new(1),
            everywhere: AtomicU64::new(1),
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn watcher(&self) -> Option<&Watcher> {
        self.watcher.get().and_then(Option::as_ref)
    }

    /// Takes note of all that has been changed until now. False if it is too much: then no stamp says anything.
    pub(super) fn catch_up(&self) -> bool {
        let Some(watcher) = self.watcher() else {
            return true;
        };
        // Whoever does not get the lock must not believe what another has not yet taken note of.
        let mut state = watcher.state.lock();
        let Some(state) = &mut *state else {
            return false;
        };
        let mut ready = [EpollEvent::empty(); 2];
        match host("epoll_wait", || {
            state.epoll.wait(&mut ready, EpollTimeout::ZERO)
        }) {
            Ok(0) => (),
            Ok(n) => {
                for event in ready.iter().take(n) {
                    match event.data() {
                        QUEUE => state.pending = true,
                        _ => self.everywhere.store(self.tick(), Ordering::Release),
                    }
                }
            }
            Err(_) => return false,
        }
        if state.pending {
            state.pending = !self.read(state);
        }
        !state.pending
    }

    /// Reads events; whether these were all.
    fn read(&self, state: &mut State) -> bool {
        let events = match host("read", || state.inotify.read_events()) {
            Ok(events) => events,
            Err(Errno::EAGAIN) => return true,
            Err(_) => {
                self.everywhere.store(self.tick(), Ordering::Release);
                return false;
            }
        };
        let size = |e: &InotifyEvent| {
            let name = e.name.as_ref().map_or(0, |n| n.len() + 1);
            EVENT + name.next_multiple_of(EVENT)
        };
        let read: usize = events.iter().map(size).sum();
        for event in events {
            self.note(state, &event);
        }
        // Another would have fitted.
        read + EVENT_MAX <= BUFFER
    }

    fn note(&self, state: &mut State, event: &InotifyEvent) {
        let mask = event.mask;
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            self.everywhere.store(self.tick(), Ordering::Release);
            return;
        }
        let Some(directory) = state.directories.get(&event.wd) else {
            return;
        };
        if mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_UNMOUNT) {
            directory.live.store(false, Ordering::Release);
            state.directories.remove(&event.wd);
            return;
        }
        let changed = match &event.name {
            None => &directory.own,
            // Attributes of an entry are not what its name leads to.
            Some(_) if !mask.intersects(ENTRIES) => return,
            Some(name) => directory.cell(name.as_bytes()),
        };
        changed.store(self.tick(), Ordering::Release);
    }

    /// Watches the directory behind `dir`, which [`tells`], if there is a watch left.
    pub(super) fn watch(&self, dir: BorrowedFd<'_>) -> Option<Arc<Directory>> {
        let watcher = self.watcher.get_or_init(|| match Watcher::new(dir) {
            Ok(watcher) => watcher,
            Err(e) => {
                log::debug!("directories of a volume are not watched: {e}");
                None
            }
        });
        let watcher = watcher.as_ref()?;
        let mut state = watcher.state.lock();
        let state = state.as_mut()?;
        if state.directories.len() >= watcher.most && !state.make_room() {
            return None;
        }
        let path = FdPath::new(dir);
        let watch = host("inotify_add_watch", || {
            state.inotify.add_watch(path.full(), watched_for())
        })
        .ok()?;
        let directory = Arc::new(Directory::new(watch, self.tick()));
        match state.directories.insert(watch, directory.clone()) {
            // Of an inode that is about to be forgotten.
            Some(former) => former.live.store(false, Ordering::Release),
            None => state.clock.push_back(watch),
        }
        if state.clock.len() > 2 * MAX_WATCHED {
            let State {
                clock, directories, ..
            } = state;
            clock.retain(|watch| directories.contains_key(watch));
        }
        Some(directory)
    }

    /// Ends a watch.
    pub(super) fn unwatch(&self, directory: &Arc<Directory>) {
        let Some(watcher) = self.watcher() else {
            return;
        };
        let mut state = watcher.state.lock();
        let Some(state) = &mut *state else {
            return;
        };
        let known = state.directories.get(&directory.watch);
        if known.is_some_and(|known| Arc::ptr_eq(known, directory)) {
            state.end(directory.watch);
        }
    }

    /// Ends all watches for good.
    pub(super) fn stop(&self) {
        let Some(watcher) = self.watcher.get_or_init(|| None) else {
            return;
        };
        let state = watcher.state.lock().take();
        for directory in state.iter().flat_map(|s| s.directories.values()) {
            directory.live.store(false, Ordering::Release);
        }
    }

    /// The stamp of `name` in a watched directory, behind `dir`, in which there is this name.
    pub(super) fn stamp(
        &self,
        directory: &Directory,
        dir: BorrowedFd<'_>,
        name: &[u8],
    ) -> Option<u64> {
        directory.touch();
        if !directory.tells_apart(dir, name) {
            return None;
        }
        Some(self.latest(directory.cell(name)))
    }

    /// The stamp of a watched directory's own attributes.
    pub(super) fn own_stamp(&self, directory: &Directory) -> u64 {
        directory.touch();
        self.latest(&directory.own)
    }

    fn latest(&self, cell: &AtomicU64) -> u64 {
        let everywhere = self.everywhere.load(Ordering::Acquire);
        cell.load(Ordering::Acquire).max(everywhere)
    }
}

/// What `epoll` says of the queue of inotify, and of the mounts.
const QUEUE: u64 = 0;
const MOUNTS: u64 = 1;

/// Events that make a name lead elsewhere.
const ENTRIES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO);

fn watched_for() -> AddWatchFlags {
    ENTRIES | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_ONLYDIR
}

impl Watcher {
    /// For the tree in which `dir` is; `None` if nobody would tell of mounts in it.
    fn new(dir: BorrowedFd<'_>) -> Result<Option<Watcher>> {
        let Some(mount) = sys::mount_id(dir)? else {
            return Ok(None);
        };
        // Opened before it is read, so that no change is lost.
        let mounts = host("open", || {
            std::fs::File::open("/proc/thread-self/mountinfo")
        })
        .map_err(sys::errno)?;
        let own = read_text("/proc/thread-self/mountinfo").map_err(sys::errno)?;
        let id = |line: &str| line.split(' ').next().and_then(|id| id.parse().ok());
        if !own.lines().any(|line| id(line) == Some(mount)) {
            return Ok(None);
        }
        let inotify = host("inotify_init1", || {
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        })?;
        let epoll = host("epoll_create1", || {
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
        })?;
        let once = EpollFlags::EPOLLET;
        epoll.add(
            inotify.as_fd(),
            EpollEvent::new(EpollFlags::EPOLLIN | once, QUEUE),
        )?;
        epoll.add(
            &mounts,
            EpollEvent::new(EpollFlags::EPOLLPRI | once, MOUNTS),
        )?;
        let most = read_text("/proc/sys/fs/inotify/max_user_watches")
            .ok()
            .and_then(|text| text.trim().parse::<usize>().ok())
            .map_or(MAX_WATCHED, |n| (n / SHARE).min(MAX_WATCHED));
        let state = State {
            inotify,
            epoll,
            _mounts: mounts,
            pending: false,
            directories: HashMap::new(),
            clock: VecDeque::new(),
        };
        Ok(Some(Watcher {
            most,
            state: Mutex::new(Some(state)),
        }))
    }
}

impl State {
    /// Ends a watch that has not been used since the clock's hand last came by; whether there was one.
    fn make_room(&mut self) -> bool {
        for _ in 0..STEPS {
            let Some(watch) = self.clock.pop_front() else {
                return false;
            };
            match self.directories.get(&watch) {
                None => (),
                Some(d) if d.used.swap(false, Ordering::Relaxed) => self.clock.push_back(watch),
                Some(_) => {
                    self.end(watch);
                    return true;
                }
            }
        }
        false
    }

    fn end(&mut self, watch: WatchDescriptor) {
        if let Some(directory) = self.directories.remove(&watch) {
            directory.live.store(false, Ordering::Release);
        }
        // EINVAL if the kernel has ended it.
        let _ = host("inotify_rm_watch", || self.inotify.rm_watch(watch));
    }
}

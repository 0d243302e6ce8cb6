//! Which node a descriptor of the guest is.
//!
//! A regular file's descriptor is one of the host file that holds its contents. What the guest must not
//! hold itself is represented by *stand-ins* private to Duet, one per place in the tree: an empty
//! directory for a directory, an empty file for an `O_PATH` open. (The kernel passes no descriptor that
//! was opened with `O_PATH` to a guest; the file is open neither for reading nor for writing, so that
//! both are EBADF, as they ought to be.) All are known by the host inode's identity, which survives
//! dup, fork, exec and passing over sockets.
//!
//! Neither table may name the wrong node when the host reuses an inode number. A file's entry is
//! replaced whenever the VFS opens a file with that identity, and a guest gets such descriptors in no
//! other way. A stand-in is forgotten, or taken for another place, only when the kernel says that its inode is gone,
//! or that nobody has it open any more.
//!
//! Most programs open a few directories. Where there are many, the stand-ins that are made from then on are watched
//! from the beginning, and are used again: that takes no call, where to remove one and to make another takes four.
//! The kernel tells of each open file description that ends (inotify(7), `IN_CLOSE_NOWRITE`), however often it was
//! duplicated, inherited or sent; but it may tell of two at once. So it is known that nobody has a stand-in open if it
//! was opened once since that was known last, and an end was told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;
use parking_lot::{Mutex, RwLock};

use crate::counted::{fstat, read_text, unlinkat};
use crate::host_call;
use crate::inode::BackingId;
use crate::types::*;
use crate::walk::Location;
use crate::watch::watched_in;

struct Entry {
    location: Location,
    used: AtomicBool,
}

/// Regular files and devices by the host file behind them, bounded by a clock.
pub(crate) struct FileTable {
    limit: usize,
    entries: RwLock<HashMap<BackingId, Entry>>,
    order: Mutex<Order>,
}

#[derive(Default)]
struct Order {
    clock: VecDeque<BackingId>,
    /// Files without a name. Their entries pin contents that nothing else may need any more.
    nameless: VecDeque<BackingId>,
}

/// Nameless files kept at most, the most removed directories that they may keep together, and the most
/// bytes one of them may hold.
const NAMELESS_MAX: usize = 256;
const NAMELESS_DIRS: usize = 2048;
const NAMELESS_BYTES: u64 = 1 << 20;

impl FileTable {
    pub(crate) fn new(limit: usize) -> FileTable {
        FileTable {
            limit,
            entries: RwLock::default(),
            order: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, id: BackingId) -> Option<Location> {
        let entries = self.entries.read();
        let entry = entries.get(&id)?;
        if !entry.used.load(Ordering::Relaxed) {
            entry.used.store(true, Ordering::Relaxed);
        }
        Some(entry.location.clone())
    }

    pub(crate) fn insert(&self, id: BackingId, location: &Location) {
        let entry = self.entries.read().get(&id).map(|e| {
            e.used.store(true, Ordering::Relaxed);
            e.location.same(location)
        });
        if entry == Some(true) {
            return;
        }
        let entry = Entry {
            location: location.clone(),
            used: AtomicBool::new(true),
        };
        let old = self.entries.write().insert(id, entry);
        let mut dropped = Vec::new();
        let known = old.is_some();
        dropped.extend(old);
        let mut order = self.order.lock();
        if !known {
            order.clock.push_back(id);
        }
        if location.dentry.is_deleted() && !order.nameless.contains(&id) {
            order.nameless.push_back(id);
        }
        for _ in 0..8 {
            if order.clock.len() <= self.limit {
                break;
            }
            let Some(oldest) = order.clock.pop_front() else {
                break;
            };
            let mut entries = self.entries.write();
            match entries.get(&oldest) {
                Some(e) if e.used.swap(false, Ordering::Relaxed) => order.clock.push_back(oldest),
                _ => dropped.extend(entries.remove(&oldest)),
            }
        }
        drop(order);
        drop(dropped);
        self.sweep();
    }

    /// Notes that an open file has lost its name.
    pub(crate) fn unlinked(&self, id: BackingId) {
        if self.entries.read().contains_key(&id) {
            let mut order = self.order.lock();
            if !order.nameless.contains(&id) {
                order.nameless.push_back(id);
            }
            drop(order);
            self.sweep();
        }
    }

    /// Notes that nobody has the file open.
    pub(crate) fn closed(&self, id: BackingId) {
        let dropped = self.entries.write().remove(&id);
        drop(dropped);
    }

    /// Looks at one nameless file, and lets go of it if there are too many of them or it is too big
    /// to be pinned on the mere suspicion that the guest still has it open.
    fn sweep(&self) {
        let (id, others) = {
            let mut order = self.order.lock();
            let Some(id) = order.nameless.pop_front() else {
                return;
            };
            (id, order.nameless.len())
        };
        let Some(location) = self.get(id) else {
            return;
        };
        let held = location.inode().links_and_blocks();
        if held.is_ok_and(|(links, _)| links > 0) {
            return;
        }
        // As if all were like this one.
        let dirs = location.dentry.dead_ancestors(NAMELESS_DIRS) * (others + 1);
        let many = others >= NAMELESS_MAX || dirs > NAMELESS_DIRS;
        if many || !held.is_ok_and(|(_, blocks)| blocks.saturating_mul(512) <= NAMELESS_BYTES) {
            let dropped = self.entries.write().remove(&id);
            drop(dropped);
        } else {
            self.order.lock().nameless.push_back(id);
        }
    }
}

struct StandIn {
    location: Location,
    serial: u64,
    path_only: bool,
    used: AtomicBool,
    /// Its name is gone; it waits for the end of its inode.
    retired: bool,
    /// Whether the kernel tells when it is closed.
    watched: bool,
    /// How often it was opened since nobody had it open; [`UNKNOWN`] if that cannot be told.
    opens: AtomicU32,
}

/// See [`StandIn::opens`].
const UNKNOWN: u32 = 2;

impl StandIn {
    fn is_opened(&self) {
        let more = |n: u32| Some((n + 1).min(UNKNOWN));
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        let _ = self.opens.fetch_update(set, fetch, more);
    }

    /// The kernel tells that it was closed.
    fn is_closed(&self) {
        let left = if self.opens.load(Ordering::Acquire) == 1 {
            0
        } else {
            UNKNOWN
        };
        self.opens.store(left, Ordering::Release);
    }

    /// Whether it can stand for another place: nobody has it open.
    fn is_spare(&self) -> bool {
        self.watched && !self.retired && self.opens.load(Ordering::Acquire) == 0
    }
}

/// A directory that stands for nothing.
struct Spare {
    serial: u64,
    id: BackingId,
    /// Whether the clock still visits it.
    in_clock: bool,
}

/// What a stand-in is for: a place, by addresses that its entry keeps alive, and whether it was opened
/// with `O_PATH`.
type Place = (usize, usize, bool);

fn place(location: &Location, path_only: bool) -> Place {
    (
        Arc::as_ptr(&location.mount) as usize,
        Arc::as_ptr(&location.dentry) as usize,
        path_only,
    )
}

#[derive(Default)]
struct Inner {
    serials: HashMap<Place, (u64, BackingId)>,
    by_id: HashMap<BackingId, StandIn>,
    /// Stand-ins that have a name (and some that had one), in the order the clock visits them.
    clock: VecDeque<BackingId>,
    next: u64,
    /// Those that stand for nothing now.
    spares: Vec<Spare>,
    /// Tells when the inodes of removed stand-ins are gone, and when others are closed.
    inotify: Option<Inotify>,
    watches: HashMap<WatchDescriptor, BackingId>,
}

/// Stand-ins for directories and `O_PATH` opens.
pub(crate) struct StandInTable {
    limit: usize,
    inner: RwLock<Inner>,
}

impl StandInTable {
    pub(crate) fn new(limit: usize) -> StandInTable {
        StandInTable {
            limit,
            inner: RwLock::default(),
        }
    }

    pub(crate) fn get(&self, id: BackingId) -> Option<Location> {
        let inner = self.inner.read();
        let entry = inner.by_id.get(&id)?;
        entry.used.store(true, Ordering::Relaxed);
        Some(entry.location.clone())
    }

    /// Whether this is the stand-in for an `O_PATH` open.
    pub(crate) fn is_path_only(&self, id: BackingId) -> bool {
        self.inner
            .read()
            .by_id
            .get(&id)
            .is_some_and(|e| e.path_only)
    }

    /// A new descriptor of the stand-in for `location`. `flags` say `O_PATH` or not.
    pub(crate) fn open(
        &self,
        dirs: BorrowedFd<'_>,
        location: &Location,
        flags: i32,
    ) -> Result<OwnedFd> {
        let path_only = flags & libc::O_PATH != 0;
        let flags = if path_only {
            // Neither reading nor writing, see open(2).
            OFlag::O_ACCMODE
        } else {
            OFlag::from_bits_retain(flags & libc::O_NONBLOCK) | OFlag::O_DIRECTORY
        };
        let open = |serial: u64, more: OFlag| {
            let flags = flags | OFlag::O_CLOEXEC | more;
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            crate::counted::openat(dirs, name(serial).as_str(), flags, mode)
        };
        let place = place(location, path_only);
        let again = |inner: &Inner, serial: u64, id: BackingId| {
            if let Some(entry) = inner.by_id.get(&id) {
                entry.is_opened();
            }
            open(serial, OFlag::empty())
        };
        {
            let inner = self.inner.read();
            if let Some(&(serial, id)) = inner.serials.get(&place) {
                return again(&inner, serial, id);
            }
        }
        let mut dropped = Vec::new();
        let mut guard = self.inner.write();
        let inner = &mut *guard;
        if let Some(&(serial, id)) = inner.serials.get(&place) {
            return again(inner, serial, id);
        }
        inner.make_room(self.limit, dirs, !path_only, &mut dropped)?;
        let spare = if path_only { None } else { inner.spares.pop() };
        let in_clock = spare.as_ref().is_some_and(|s| s.in_clock);
        let (serial, id, fd, watched) = match spare {
            Some(spare) => match open(spare.serial, OFlag::empty()) {
                Ok(fd) => (spare.serial, spare.id, fd, true),
                Err(e) => {
                    inner.spares.push(spare);
                    return Err(e);
                }
            },
            None => {
                let serial = inner.next;
                inner.next += 1;
                let fd = if path_only {
                    open(serial, OFlag::O_CREAT | OFlag::O_EXCL)?
                } else {
                    crate::counted::mkdirat(dirs, name(serial).as_str(), Mode::S_IRWXU)?;
                    open(serial, OFlag::empty())?
                };
                let id = host_call::backing(&fstat(&fd)?);
                let many = inner.clock.len() >= self.limit / 4;
                let watched = many && !path_only && inner.watch_closes(dirs, serial, id);
                (serial, id, fd, watched)
            }
        };
        inner.serials.insert(place, (serial, id));
        if !in_clock {
            inner.clock.push_back(id);
        }
        inner.by_id.insert(
            id,
            StandIn {
                location: location.clone(),
                serial,
                path_only,
                used: AtomicBool::new(true),
                retired: false,
                watched,
                opens: AtomicU32::new(1),
            },
        );
        drop(guard);
        Ok(fd)
    }

    /// Notes that a place is gone from the tree: its stand-ins stay as long as somebody holds them.
    pub(crate) fn deleted(&self, dirs: BorrowedFd<'_>, location: &Location) {
        let mut dropped = Vec::new();
        for path_only in [false, true] {
            let place = place(location, path_only);
            if !self.inner.read().serials.contains_key(&place) {
                continue;
            }
            let mut inner = self.inner.write();
            let Some(&(serial, id)) = inner.serials.get(&place) else {
                continue;
            };
            inner.reap(&mut dropped);
            if inner.spare(serial, id, true, &mut dropped)
                || inner.retire(dirs, serial, id, path_only).is_ok()
            {
                inner.serials.remove(&place);
                inner.reap(&mut dropped);
            }
        }
    }
}

/// The inodes that an inotify descriptor still watches.
fn watched(inotify: &Inotify) -> std::io::Result<HashSet<BackingId>> {
    let text = read_text(format!("/proc/self/fdinfo/{}", inotify.as_fd().as_raw_fd()))?;
    Ok(watched_in(&text).collect())
}

fn name(serial: u64) -> String {
    serial.to_string()
}

impl Inner {
    /// Has a stand-in stand for nothing, if nobody has it open.
    fn spare(
        &mut self,
        serial: u64,
        id: BackingId,
        in_clock: bool,
        dropped: &mut Vec<StandIn>,
    ) -> bool {
        if !self.by_id.get(&id).is_some_and(StandIn::is_spare) {
            return false;
        }
        dropped.extend(self.by_id.remove(&id));
        self.spares.push(Spare {
            serial,
            id,
            in_clock,
        });
        true
    }

    /// Has the kernel tell when a stand-in is closed. False if it does not.
    fn watch_closes(&mut self, dirs: BorrowedFd<'_>, serial: u64, id: BackingId) -> bool {
        let watch = self.watch(dirs, serial, AddWatchFlags::IN_CLOSE_NOWRITE);
        if let Ok(watch) = watch {
            self.watches.insert(watch, id);
        }
        watch.is_ok()
    }

    fn watch(
        &mut self,
        dirs: BorrowedFd<'_>,
        serial: u64,
        what: AddWatchFlags,
    ) -> Result<WatchDescriptor> {
        if self.inotify.is_none() {
            self.inotify = Some(Inotify::init(
                InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC,
            )?);
        }
        let inotify = self.inotify.as_ref().ok_or(Errno::EMFILE)?;
        let dirs = host_call::proc_fd(dirs.as_raw_fd());
        inotify.add_watch(format!("{dirs}/{}", name(serial)).as_str(), what)
    }

    /// Takes away stand-ins not used lately: one that nobody has open is spare if a `directory` is to be made, of
    /// others the name is removed. ENFILE if the guest holds far too many.
    fn make_room(
        &mut self,
        limit: usize,
        dirs: BorrowedFd<'_>,
        directory: bool,
        dropped: &mut Vec<StandIn>,
    ) -> Result<()> {
        if self.clock.len() < limit || directory && !self.spares.is_empty() {
            return Ok(());
        }
        // Before it is asked which are closed.
        self.reap(dropped);
        for _ in 0..8 {
            if self.clock.len() < limit || directory && !self.spares.is_empty() {
                return Ok(());
            }
            let Some(id) = self.clock.pop_front() else {
                return Ok(());
            };
            let Some(entry) = self.by_id.get(&id).filter(|e| !e.retired) else {
                let spare = self.spares.iter_mut().find(|s| s.id == id);
                spare.into_iter().for_each(|s| s.in_clock = false);
                continue;
            };
            if entry.used.swap(false, Ordering::Relaxed) {
                self.clock.push_back(id);
                continue;
            }
            let path_only = entry.path_only;
            let (place, serial) = (place(&entry.location, path_only), entry.serial);
            if directory && self.spare(serial, id, false, dropped) {
                self.serials.remove(&place);
                return Ok(());
            }
            if self.retire(dirs, serial, id, path_only).is_err() {
                self.clock.push_back(id);
                break;
            }
            self.serials.remove(&place);
        }
        self.reap(dropped);
        if self.clock.len() >= limit.saturating_mul(2) {
            return Err(Errno::ENFILE);
        }
        Ok(())
    }

    /// Removes a stand-in's name, watched so that the end of its inode is heard of.
    fn retire(
        &mut self,
        dirs: BorrowedFd<'_>,
        serial: u64,
        id: BackingId,
        path_only: bool,
    ) -> Result<()> {
        let watch = self.watch(dirs, serial, AddWatchFlags::IN_DELETE_SELF)?;
        self.watches.insert(watch, id);
        let how = if path_only {
            UnlinkatFlags::NoRemoveDir
        } else {
            UnlinkatFlags::RemoveDir
        };
        unlinkat(dirs, name(serial).as_str(), how)?;
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.retired = true;
        }
        Ok(())
    }

    /// Forgets the stand-ins whose inodes are gone, and notes which others have been closed.
    fn reap(&mut self, dropped: &mut Vec<StandIn>) {
        let Some(inotify) = &self.inotify else {
            return;
        };
        let mut overflow = false;
        while let Ok(events) = inotify.read_events() {
            for event in events {
                overflow |= event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                if event.mask.contains(AddWatchFlags::IN_CLOSE_NOWRITE) {
                    let id = self.watches.get(&event.wd);
                    if let Some(entry) = id.and_then(|id| self.by_id.get(id)) {
                        entry.is_closed();
                    }
                } else if let Some(id) = self.watches.remove(&event.wd) {
                    dropped.extend(self.by_id.remove(&id));
                }
            }
        }
        // A guest has let go of more at once than the kernel's queue has room for: it is asked what is left.
        if overflow {
            match watched(inotify) {
                Ok(left) => {
                    let gone = self.watches.extract_if(|_, id| !left.contains(id));
                    dropped.extend(gone.filter_map(|(_, id)| self.by_id.remove(&id)));
                }
                // Wasteful, never wrong.
                Err(e) => log::warn!("stand-ins of directories stay for good: {e}"),
            }
        }
    }
}

//! The path walk, path_resolution(7).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bitflags::bitflags;

use crate::account::{self, Place, Step};
use crate::dentry::{Dentry, Super, Trust};
use crate::inode::{Caller, Inode, MagicLink};
use crate::mount::Mount;
use crate::types::*;

pub use crate::mount::Vfs;
pub use crate::ops::{OpenHow, Opened};

/// Longest path in bytes, its NUL included.
pub const PATH_MAX: usize = 4096;

/// Symbolic links followed in one resolution before ELOOP.
const MAX_LINKS: u32 = 40;

/// A place in the tree.
#[derive(Clone)]
pub struct Location {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The dentry, of the mount's file system.
    pub dentry: Arc<Dentry>,
}

/// Whether a path from [`Location::path`] leads back to the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// It does.
    Reachable,
    /// The place is not below the root asked about.
    Unreachable,
    /// The name has been deleted.
    Deleted,
}

impl Location {
    /// The inode.
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }

    /// The type.
    pub fn kind(&self) -> FileType {
        self.dentry.kind()
    }

    /// Fresh attributes.
    pub fn attr(&self) -> Result<Attr> {
        Ok(self.complete(self.inode().attr()?))
    }

    /// Attributes as the inode gives them, with what only the mount knows.
    fn complete(&self, mut attr: Attr) -> Attr {
        if attr.dev == 0 {
            attr.dev = self.mount.sb().dev();
        }
        attr
    }

    /// Whether both are the same place of the same mount.
    pub fn same(&self, other: &Location) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// The absolute path below `root`. Of an unreachable place, the path from the top of its tree.
    pub fn path(&self, root: &Location) -> (Vec<u8>, PathState) {
        let mut names: Vec<Arc<[u8]>> = Vec::new();
        let mut at = self.clone();
        let reachable = loop {
            if at.same(root) {
                break true;
            }
            if Arc::ptr_eq(&at.dentry, at.mount.root()) {
                match at.mount.at() {
                    Some(below) => at = below,
                    None => break false,
                }
                continue;
            }
            let (parent, name) = at.dentry.parent_and_name();
            names.push(name);
            match parent {
                Some(parent) => at.dentry = parent,
                None => break false,
            }
        };
        let state = if self.dentry.is_deleted() {
            PathState::Deleted
        } else if reachable {
            PathState::Reachable
        } else {
            PathState::Unreachable
        };
        (join(&names), state)
    }

    pub(crate) fn sb(&self) -> &Arc<Super> {
        self.mount.sb()
    }

    /// Steps onto what is mounted here; whether anything is.
    pub(crate) fn cross_mounts(&mut self) -> bool {
        let mut crossed = false;
        while self.dentry.is_mount_point() {
            let Some(mount) = self.mount.child_at(&self.dentry) else {
                break;
            };
            self.dentry = mount.root().clone();
            self.mount = mount;
            crossed = true;
        }
        crossed
    }
}

/// The path of a dentry from the root of its file system.
pub(crate) fn path_in_fs(dentry: &Arc<Dentry>) -> Vec<u8> {
    let mut names = Vec::new();
    let mut at = dentry.clone();
    while let (Some(parent), name) = at.parent_and_name() {
        names.push(name);
        at = parent;
    }
    join(&names)
}

fn join(names: &[Arc<[u8]>]) -> Vec<u8> {
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}

/// On whose behalf an operation is done.
pub struct Context<'a> {
    /// The process's root directory.
    pub root: &'a Location,
    /// Its working directory.
    pub cwd: &'a Location,
    /// Its credentials; the file-system ids decide.
    pub creds: &'a Creds,
    /// Its file mode creation mask.
    pub umask: u32,
    /// Who it is.
    pub caller: &'a dyn Caller,
}

bitflags! {
    /// How to resolve a path.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Lookup: u32 {
        /// Follow a symbolic link at the end.
        const FOLLOW = 1 << 0;
        /// An empty path means the base itself (`AT_EMPTY_PATH`).
        const EMPTY_PATH = 1 << 1;
        /// ENOTDIR unless the path leads to a directory.
        const DIRECTORY = 1 << 2;
        /// `RESOLVE_NO_XDEV` of openat2(2).
        const NO_XDEV = 1 << 3;
        /// `RESOLVE_NO_MAGICLINKS`
        const NO_MAGICLINKS = 1 << 4;
        /// `RESOLVE_NO_SYMLINKS`
        const NO_SYMLINKS = 1 << 5;
        /// `RESOLVE_BENEATH`
        const BENEATH = 1 << 6;
        /// `RESOLVE_IN_ROOT`
        const IN_ROOT = 1 << 7;
    }
}

/// What a path ends in, once all before it has been walked.
pub(crate) enum Last {
    /// A name: `path[start..end]`, followed by slashes or not.
    Name {
        start: usize,
        end: usize,
        slash: bool,
    },
    /// `.`, or nothing at all (`/`): the walk is there.
    Here,
    /// `..`
    DotDot,
}

/// How a symbolic link was followed.
pub(crate) enum Followed {
    /// Its text now stands in the path.
    Text,
    /// The walk has jumped.
    Jumped,
}

/// A walk under way: where it is, and what is left of the path.
pub(crate) struct Walk<'a> {
    vfs: &'a Vfs,
    cx: &'a Context<'a>,
    how: Lookup,
    /// Where `/` leads and `..` stops.
    root: &'a Location,
    pub(crate) at: Location,
    path: Cow<'a, [u8]>,
    pos: usize,
    links: u32,
    renames: u64,
    /// The file system whose changes were last taken note of, by address, and whether that says anything.
    noted: Option<(usize, bool)>,
}

impl<'a> Walk<'a> {
    /// Starts at `base`, or the root if `path` is absolute. ENAMETOOLONG, ENOENT for an empty path
    /// (whose callers see to `EMPTY_PATH`).
    pub(crate) fn new(
        vfs: &'a Vfs,
        cx: &'a Context<'a>,
        base: &'a Location,
        path: &'a [u8],
        how: Lookup,
    ) -> Result<Walk<'a>> {
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let scoped = how.intersects(Lookup::BENEATH | Lookup::IN_ROOT);
        let root = if scoped { base } else { cx.root };
        let absolute = path[0] == b'/';
        account::note(|| Step::Resolve {
            path: account::cut(path),
            from: (!absolute).then(|| account::cut(&base.path(cx.root).0)),
        });
        if absolute && how.contains(Lookup::BENEATH) {
            return Err(Errno::EXDEV);
        }
        Ok(Walk {
            vfs,
            cx,
            how,
            root,
            at: if absolute { root } else { base }.clone(),
            path: Cow::Borrowed(path),
            pos: 0,
            links: 0,
            renames: vfs.renames.load(Ordering::Acquire),
            noted: None,
        })
    }

    /// The bytes of a [`Last::Name`].
    pub(crate) fn name(&self, start: usize, end: usize) -> &[u8] {
        self.path.get(start..end).unwrap_or_default()
    }

    /// Walks up to the last component. Afterwards `at` is a directory that may be searched.
    pub(crate) fn walk_to_last(&mut self) -> Result<Last> {
        loop {
            if self.at.kind() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            let start = self.skip_slashes(self.pos);
            if start == self.path.len() {
                return Ok(Last::Here);
            }
            crate::perm::may_search(self.cx.creds, self.at.inode())?;
            let end = self.path[start..]
                .iter()
                .position(|&b| b == b'/')
                .map_or(self.path.len(), |n| start + n);
            let rest = self.skip_slashes(end);
            let last = rest == self.path.len();
            let slash = end < self.path.len();
            self.pos = end;
            match &self.path[start..end] {
                b"." if last => return Ok(Last::Here),
                b"." => (),
                b".." if last => return Ok(Last::DotDot),
                b".." => self.dotdot()?,
                _ if last => return Ok(Last::Name { start, end, slash }),
                _ => {
                    let trust = self.trust();
                    let Some(next) = self.find(start, end, trust)? else {
                        return Err(Errno::ENOENT);
                    };
                    if next.kind() == FileType::Symlink {
                        self.follow(&next, end)?;
                    } else {
                        self.at = next;
                    }
                }
            }
        }
    }

    fn skip_slashes(&self, from: usize) -> usize {
        self.path[from..]
            .iter()
            .position(|&b| b != b'/')
            .map_or(self.path.len(), |n| from + n)
    }

    /// What may be relied on where the walk is. Changes are taken note of once: all that it passes through was
    /// so at that moment, or is found to be so later.
    fn trust(&mut self) -> Trust {
        let sb = self.at.sb();
        if !sb.is_shared() {
            return Trust::Nothing;
        }
        let key = Arc::as_ptr(sb) as usize;
        let says = match self.noted {
            Some((noted, says)) if noted == key => says,
            _ => sb.fs().catch_up(),
        };
        self.noted = Some((key, says));
        if says { Trust::Stamps } else { Trust::Nothing }
    }

    /// The child `path[start..end]` of `at`, through mounts. What a path ends in is always asked for: when a change
    /// is seen by others before it is told, it concerns a directory on the way at most.
    pub(crate) fn child(&self, start: usize, end: usize) -> Result<Option<Location>> {
        self.find(start, end, Trust::Nothing)
    }

    fn child_only(&self, start: usize, end: usize) -> Result<Option<(Location, Option<Attr>)>> {
        Ok(self.child(start, end)?.map(|child| (child, None)))
    }

    /// As [`Walk::child`], with its attributes if they come along.
    fn child_attr(&self, start: usize, end: usize) -> Result<Option<(Location, Option<Attr>)>> {
        let name = self.name(start, end);
        if let Some((dentry, attr)) = self.at.sb().lookup_attr(&self.at.dentry, name) {
            let mount = self.at.mount.clone();
            let child = Location { mount, dentry };
            account::note(|| Step::At(Place::of(&child, self.cx.root)));
            return Ok(Some((child, Some(attr))));
        }
        self.child_only(start, end)
    }

    fn find(&self, start: usize, end: usize, trust: Trust) -> Result<Option<Location>> {
        let name = self.name(start, end);
        let (dir, caller) = (&self.at.dentry, self.cx.caller);
        let found = self.at.sb().lookup(dir, name, caller, trust)?;
        let Some(dentry) = found else {
            account::note(|| Step::missing(&self.at, self.cx.root, name));
            return Ok(None);
        };
        let mut child = Location {
            mount: self.at.mount.clone(),
            dentry,
        };
        if child.cross_mounts() {
            account::note(|| Step::mount(&child, self.cx.root));
            if self.how.contains(Lookup::NO_XDEV) {
                return Err(Errno::EXDEV);
            }
        }
        account::note(|| Step::At(Place::of(&child, self.cx.root)));
        Ok(Some(child))
    }

    /// Steps to the parent directory.
    pub(crate) fn dotdot(&mut self) -> Result<()> {
        loop {
            if self.at.same(self.root) {
                if self.how.contains(Lookup::BENEATH) {
                    return Err(Errno::EXDEV);
                }
                break;
            }
            if Arc::ptr_eq(&self.at.dentry, self.at.mount.root()) {
                let Some(below) = self.at.mount.at() else {
                    break;
                };
                if self.how.contains(Lookup::NO_XDEV) {
                    return Err(Errno::EXDEV);
                }
                self.at = below;
                account::note(|| Step::mount(&self.at, self.cx.root));
                continue;
            }
            if let Some(parent) = self.at.dentry.parent() {
                self.at.dentry = parent;
            }
            break;
        }
        if self.at.cross_mounts() && self.how.contains(Lookup::NO_XDEV) {
            return Err(Errno::EXDEV);
        }
        // A directory moved meanwhile may have taken the walk out of its scope (openat2(2)).
        if self.how.intersects(Lookup::BENEATH | Lookup::IN_ROOT)
            && self.vfs.renames.load(Ordering::Acquire) != self.renames
        {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// Follows `link`, a symbolic link in `at` whose name ends at `end` of the path.
    pub(crate) fn follow(&mut self, link: &Location, end: usize) -> Result<Followed> {
        self.links += 1;
        if self.links > MAX_LINKS || self.how.contains(Lookup::NO_SYMLINKS) {
            return Err(Errno::ELOOP);
        }
        if let Some(target) = link.inode().magic_link(self.cx.caller) {
            account::note(|| Step::Jump {
                path: account::cut(&link.path(self.cx.root).0),
            });
            self.jump(target?)?;
            self.pos = end;
            return Ok(Followed::Jumped);
        }
        let mut text = link.inode().readlink(self.cx.caller)?;
        account::note(|| Step::Link {
            path: account::cut(&link.path(self.cx.root).0),
            text: account::cut(&text),
        });
        match text.first() {
            None => return Err(Errno::ENOENT),
            Some(b'/') => {
                if self.how.contains(Lookup::BENEATH) {
                    return Err(Errno::EXDEV);
                }
                if self.how.contains(Lookup::NO_XDEV)
                    && !Arc::ptr_eq(&self.root.mount, &self.at.mount)
                {
                    return Err(Errno::EXDEV);
                }
                self.at = self.root.clone();
            }
            Some(_) => (),
        }
        text.truncate(PATH_MAX);
        text.extend_from_slice(&self.path[end..]);
        self.path = Cow::Owned(text);
        self.pos = 0;
        Ok(Followed::Text)
    }

    fn jump(&mut self, target: MagicLink) -> Result<()> {
        if self.how.contains(Lookup::NO_MAGICLINKS) {
            return Err(Errno::ELOOP);
        }
        if self.how.intersects(Lookup::BENEATH | Lookup::IN_ROOT) {
            return Err(Errno::EXDEV);
        }
        let target = match target {
            MagicLink::Location(location) => location,
            MagicLink::Descriptor(fd) => self.vfs.outside(fd)?,
        };
        if self.how.contains(Lookup::NO_XDEV) && !Arc::ptr_eq(&target.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        self.at = target;
        account::note(|| Step::At(Place::of(&self.at, self.cx.root)));
        Ok(())
    }
}

impl Vfs {
    /// Resolves a path. Absolute ones start at `cx.root`. Errors as path_resolution(7) and
    /// openat2(2) tell.
    pub fn resolve(
        &self,
        cx: &Context,
        base: &Location,
        path: &[u8],
        how: Lookup,
    ) -> Result<Location> {
        let (location, _) = self.resolve_by(cx, base, path, how, |walk, start, end| {
            walk.child_only(start, end)
        })?;
        Ok(location)
    }

    /// As [`Vfs::resolve`], with fresh attributes: a question to the host less than asking for them afterwards.
    pub fn resolve_attr(
        &self,
        cx: &Context,
        base: &Location,
        path: &[u8],
        how: Lookup,
    ) -> Result<(Location, Attr)> {
        let (location, attr) = self.resolve_by(cx, base, path, how, |walk, start, end| {
            walk.child_attr(start, end)
        })?;
        let attr = match attr {
            Some(attr) => location.complete(attr),
            None => location.attr()?,
        };
        Ok((location, attr))
    }

    fn resolve_by(
        &self,
        cx: &Context,
        base: &Location,
        path: &[u8],
        how: Lookup,
        last: impl Fn(&Walk, usize, usize) -> Result<Option<(Location, Option<Attr>)>>,
    ) -> Result<(Location, Option<Attr>)> {
        if path.is_empty() && how.contains(Lookup::EMPTY_PATH) {
            if how.contains(Lookup::DIRECTORY) && base.kind() != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
            return Ok((base.clone(), None));
        }
        let mut walk = Walk::new(self, cx, base, path, how)?;
        let mut found = None;
        let mut must_be_dir = how.contains(Lookup::DIRECTORY);
        loop {
            match walk.walk_to_last()? {
                Last::Here => break,
                Last::DotDot => {
                    walk.dotdot()?;
                    break;
                }
                Last::Name { start, end, slash } => {
                    let Some((child, attr)) = last(&walk, start, end)? else {
                        return Err(Errno::ENOENT);
                    };
                    must_be_dir |= slash;
                    if child.kind() == FileType::Symlink && (slash || how.contains(Lookup::FOLLOW))
                    {
                        match walk.follow(&child, end)? {
                            Followed::Text => continue,
                            Followed::Jumped => break,
                        }
                    }
                    walk.at = child;
                    found = attr;
                    break;
                }
            }
        }
        if must_be_dir && walk.at.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok((walk.at, found))
    }
}

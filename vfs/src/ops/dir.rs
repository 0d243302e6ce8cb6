//! getdents64(2).

use crate::mount::Vfs;
use crate::types::*;
use crate::walk::{Context, Location};

/// Cookies behind `.` and `..`; those of the file system follow.
const DOT: u64 = 1;
const DOTDOT: u64 = 2;

impl Vfs {
    /// Entries of a directory behind `cookie` (0: the start), `.` and `..` first, until `sink`
    /// returns false (that entry is then not taken). ENOTDIR; ENOENT for a removed directory. Read
    /// permission was checked by the open.
    pub fn read_dir(
        &self,
        cx: &Context,
        loc: &Location,
        cookie: u64,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        if loc.kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if loc.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        if cookie < DOT {
            let dot = DirEntry {
                ino: loc.attr()?.ino,
                kind: Some(FileType::Directory),
                name: b".".to_vec(),
                next: DOT,
            };
            if !sink(dot) {
                return Ok(());
            }
        }
        if cookie < DOTDOT {
            let dotdot = DirEntry {
                ino: parent_of(cx, loc).attr()?.ino,
                kind: Some(FileType::Directory),
                name: b"..".to_vec(),
                next: DOTDOT,
            };
            if !sink(dotdot) {
                return Ok(());
            }
        }
        let from = cookie.saturating_sub(DOTDOT);
        loc.inode().read_dir(from, cx.caller, &mut |mut entry| {
            entry.next = entry.next.saturating_add(DOTDOT);
            sink(entry)
        })
    }
}

/// Where `..` leads.
fn parent_of(cx: &Context, loc: &Location) -> Location {
    let mut at = loc.clone();
    while !at.same(cx.root) {
        if let Some(parent) = at.dentry.parent()
            && !std::sync::Arc::ptr_eq(&at.dentry, at.mount.root())
        {
            at.dentry = parent;
            return at;
        }
        match at.mount.at() {
            Some(below) => at = below,
            None => break,
        }
    }
    at
}

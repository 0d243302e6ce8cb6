//! The marks of overlayfs on underlying inodes, and the names of attributes as the guest sees them.

use std::borrow::Cow;

use crate::inode::Inode;
use crate::types::*;

/// Number of the device node that stands for one of number 0:0 made by the guest, which would be a
/// whiteout. The kernel's overlayfs has no such node (EPERM).
pub(super) const NO_WHITEOUT: u64 = libc::makedev(0, 0xf_ffff);

const OPAQUE: &[u8] = b"user.overlay.opaque";
const REDIRECT: &[u8] = b"user.overlay.redirect";
const WHITEOUT: &[u8] = b"user.overlay.whiteout";
const PREFIX: &[u8] = b"user.overlay.";
const ESCAPE: &[u8] = b"overlay.";

/// Where the lower contents of a directory are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Below {
    /// Under the same name.
    SameName,
    /// Nowhere: it is opaque.
    Nowhere,
    /// In the same directory under another name.
    Sibling(Vec<u8>),
    /// At a path from the roots of the lower trees, without the leading slash.
    Path(Vec<u8>),
}

/// An attribute that may be missing, or impossible.
fn optional(inode: &dyn Inode, name: &[u8]) -> Result<Option<Vec<u8>>> {
    match inode.get_xattr(name) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EACCES | Errno::EPERM) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A name that may stand in a directory entry.
pub(super) fn is_component(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= 255
        && !name.iter().any(|b| matches!(b, b'/' | 0))
}

/// Where the lower contents of `dir` are. A malformed redirect counts as opaque.
pub(super) fn below(dir: &dyn Inode) -> Result<Below> {
    if optional(dir, OPAQUE)?.is_some_and(|value| value == b"y") {
        return Ok(Below::Nowhere);
    }
    Ok(match optional(dir, REDIRECT)? {
        None => Below::SameName,
        Some(value) => match value.strip_prefix(b"/") {
            Some(path) if path.split(|b| *b == b'/').all(is_component) => {
                Below::Path(path.to_vec())
            }
            None if is_component(&value) => Below::Sibling(value),
            _ => Below::Nowhere,
        },
    })
}

/// Whether `dir` may hold whiteouts in the form of marked empty files.
pub(super) fn holds_marked_whiteouts(dir: &dyn Inode) -> bool {
    optional(dir, OPAQUE).is_ok_and(|value| value.is_some_and(|v| v == b"x"))
}

/// Hides everything below `dir`.
pub(super) fn set_opaque(dir: &dyn Inode) -> Result<()> {
    dir.set_xattr(OPAQUE, b"y", 0)
}

/// Names the lower contents of `dir` by their path (no leading slash).
pub(super) fn set_redirect(dir: &dyn Inode, path: &[u8]) -> Result<()> {
    dir.set_xattr(REDIRECT, &[b"/", path].concat(), 0)
}

/// Whether `inode` hides its name: a character device 0:0 or, where `marked` says that there may be
/// some, an empty file with a mark.
pub(super) fn is_whiteout(inode: &dyn Inode, marked: bool) -> Result<bool> {
    match inode.kind() {
        FileType::CharDevice => Ok(inode.attr()?.rdev == 0),
        FileType::Regular if marked => {
            Ok(inode.attr()?.size == 0 && optional(inode, WHITEOUT)?.is_some())
        }
        _ => Ok(false),
    }
}

/// The name below for a guest's attribute: `user.overlay.X` is kept as `user.overlay.overlay.X`.
pub(super) fn escape(name: &[u8]) -> Cow<'_, [u8]> {
    match name.strip_prefix(PREFIX) {
        Some(rest) => Cow::Owned([PREFIX, ESCAPE, rest].concat()),
        None => Cow::Borrowed(name),
    }
}

/// The guest's name for an attribute below; `None` for a mark of the overlay itself.
pub(super) fn unescape(name: Vec<u8>) -> Option<Vec<u8>> {
    match name.strip_prefix(PREFIX) {
        Some(rest) => rest
            .strip_prefix(ESCAPE)
            .map(|rest| [PREFIX, rest].concat()),
        None => Some(name),
    }
}

/// Whether an attribute below is a mark of the overlay itself.
pub(super) fn is_mark(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| !rest.starts_with(ESCAPE))
}

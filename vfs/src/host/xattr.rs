//! Extended attributes as the guest may see them, xattr(7).
//!
//! `user.*` is kept as it is; `security.*` and `trusted.*` could change what a program may do on the
//! host, so they are kept under `user.duet.x.`; Duet's own and (except in a layer) overlayfs's marks
//! are hidden.

use std::ffi::{CStr, CString};

use super::inode::HostInode;
use super::sys::{self, FdPath};
use crate::types::*;

const OWN: &[u8] = b"user.duet.";
const KEPT: &[u8] = b"user.duet.x.";
const OVERLAY: &[u8] = b"user.overlay.";

impl HostInode {
    /// The name on the host for a guest's name: `None` if it is hidden.
    fn host_name(&self, name: &[u8]) -> Result<Option<CString>> {
        let hidden =
            name.starts_with(OWN) || (name.starts_with(OVERLAY) && !self.tree.options.layer);
        if hidden {
            return Ok(None);
        }
        let host = if name.starts_with(b"user.") {
            CString::new(name)
        } else if name.starts_with(b"security.") || name.starts_with(b"trusted.") {
            CString::new([KEPT, name].concat())
        } else {
            return Err(Errno::EOPNOTSUPP);
        };
        host.map(Some).map_err(|_| Errno::EINVAL)
    }

    /// Only regular files and directories have `user.*` attributes.
    fn has_xattrs(&self) -> bool {
        matches!(self.kind, FileType::Regular | FileType::Directory)
    }

    pub(super) fn xattr_get(&self, name: &[u8]) -> Result<Vec<u8>> {
        match self.host_name(name)? {
            Some(host) if self.has_xattrs() => sys::get_xattr(FdPath::new(self.fd()).full(), &host),
            _ => Err(Errno::ENODATA),
        }
    }

    pub(super) fn xattr_set(&self, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        self.xattr_change(name, Errno::EPERM, |path, host| {
            sys::set_xattr(path, host, value, flags)
        })
    }

    pub(super) fn xattr_remove(&self, name: &[u8]) -> Result<()> {
        self.xattr_change(name, Errno::ENODATA, sys::remove_xattr)
    }

    fn xattr_change(
        &self,
        name: &[u8],
        hidden: Errno,
        change: impl FnOnce(&CStr, &CStr) -> Result<()>,
    ) -> Result<()> {
        self.tree.check_writable()?;
        let host = self.host_name(name)?.ok_or(hidden)?;
        if !self.has_xattrs() {
            return Err(Errno::EPERM);
        }
        change(FdPath::new(self.fd()).full(), &host)
    }

    pub(super) fn xattr_list(&self) -> Result<Vec<Vec<u8>>> {
        if !self.has_xattrs() {
            return Ok(Vec::new());
        }
        let list = match sys::list_xattr(FdPath::new(self.fd()).full()) {
            Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
            other => other?,
        };
        Ok(list
            .split(|b| *b == 0)
            .filter_map(|host| match host.strip_prefix(KEPT) {
                Some(kept) => Some(kept),
                None if !host.starts_with(b"user.") || host.starts_with(OWN) => None,
                None if host.starts_with(OVERLAY) && !self.tree.options.layer => None,
                None => Some(host),
            })
            .map(<[u8]>::to_vec)
            .collect())
    }
}

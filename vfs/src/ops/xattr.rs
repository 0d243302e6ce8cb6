//! Extended attributes with the rules of xattr(7).

use crate::mount::Vfs;
use crate::perm;
use crate::types::*;
use crate::walk::{Context, Location};

/// `XATTR_NAME_MAX`, `XATTR_SIZE_MAX` in bytes.
const NAME_MAX: usize = 255;
const SIZE_MAX: usize = 65536;

#[derive(PartialEq, Eq)]
enum Space {
    User,
    Trusted,
    Security,
}

fn space(name: &[u8]) -> Result<Space> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Errno::ERANGE);
    }
    let (space, rest) = if let Some(rest) = name.strip_prefix(b"user.") {
        (Space::User, rest)
    } else if let Some(rest) = name.strip_prefix(b"trusted.") {
        (Space::Trusted, rest)
    } else if let Some(rest) = name.strip_prefix(b"security.") {
        (Space::Security, rest)
    } else {
        return Err(Errno::EOPNOTSUPP);
    };
    if rest.is_empty() {
        return Err(Errno::EINVAL);
    }
    Ok(space)
}

/// `xattr_permission()` of the kernel's `fs/xattr.c`.
fn may_access(cx: &Context, loc: &Location, name: &[u8], mask: u32) -> Result<()> {
    let writes = mask & perm::WRITE != 0;
    let refused = if writes { Errno::EPERM } else { Errno::ENODATA };
    if writes {
        loc.mount.want_write()?;
    }
    match space(name)? {
        Space::Security => {
            let need = match name {
                b"security.capability" => Caps::SETFCAP,
                _ => Caps::SYS_ADMIN,
            };
            if writes && !cx.creds.has(need) {
                return Err(Errno::EPERM);
            }
            Ok(())
        }
        Space::Trusted if cx.creds.has(Caps::SYS_ADMIN) => Ok(()),
        Space::Trusted => Err(refused),
        Space::User => {
            match loc.kind() {
                FileType::Regular => (),
                FileType::Directory => {
                    let (mode, uid, _) = loc.inode().owner()?;
                    let sticky = mode & libc::S_ISVTX != 0;
                    if writes && sticky && !perm::is_owner(cx.creds, uid) {
                        return Err(Errno::EPERM);
                    }
                }
                _ => return Err(refused),
            }
            perm::check(cx.creds, loc.inode(), mask)
        }
    }
}

impl Vfs {
    /// getxattr(2).
    pub fn get_xattr(&self, cx: &Context, loc: &Location, name: &[u8]) -> Result<Vec<u8>> {
        may_access(cx, loc, name, perm::READ)?;
        loc.inode().get_xattr(name)
    }

    /// setxattr(2); `flags` are `XATTR_CREATE` or `XATTR_REPLACE`.
    pub fn set_xattr(
        &self,
        cx: &Context,
        loc: &Location,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
            return Err(Errno::EINVAL);
        }
        if value.len() > SIZE_MAX {
            return Err(Errno::E2BIG);
        }
        may_access(cx, loc, name, perm::WRITE)?;
        loc.inode().set_xattr(name, value, flags)?;
        self.attributes_changed(loc);
        Ok(())
    }

    /// listxattr(2): the names, without `trusted.*` for the unprivileged.
    pub fn list_xattr(&self, cx: &Context, loc: &Location) -> Result<Vec<Vec<u8>>> {
        let mut names = loc.inode().list_xattr()?;
        if !cx.creds.has(Caps::SYS_ADMIN) {
            names.retain(|n| !n.starts_with(b"trusted."));
        }
        Ok(names)
    }

    /// removexattr(2).
    pub fn remove_xattr(&self, cx: &Context, loc: &Location, name: &[u8]) -> Result<()> {
        may_access(cx, loc, name, perm::WRITE)?;
        loc.inode().remove_xattr(name)?;
        self.attributes_changed(loc);
        Ok(())
    }
}

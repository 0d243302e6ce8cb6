//! mount(2) and umount2(2): the fake root may change the sandbox's one mount table. All of it is the
//! VFS's; the host mounts nothing. Propagation is private throughout.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use duet_vfs::mount::Mount;
use duet_vfs::overlay::{OverlayFs, Upper};
use duet_vfs::tmp::TmpOptions;
use duet_vfs::types::{Caps, Errno, Result};
use duet_vfs::walk::{Location, Lookup};
use duet_vfs::{BackingId, FileSystem, MountFlags, NewNode, Recursion};

use crate::task::{Reply, Task};

/// Longest file-system type and source, and longest options: a page, as in the kernel.
const PAGE: usize = 4096;
/// What old programs put into the upper half of the flags.
const MS_MGC_VAL: u64 = 0xc0ed_0000;
const MS_MGC_MSK: u64 = 0xffff_0000;
const PROPAGATION: u64 = libc::MS_SHARED | libc::MS_PRIVATE | libc::MS_SLAVE | libc::MS_UNBINDABLE;

pub(super) fn mount(t: &Task) -> Result<Reply> {
    let optional = |i: usize| match t.arg(i) {
        0 => Ok(None),
        _ => t.string(i, PAGE, Errno::EINVAL).map(Some),
    };
    let (kind, source) = (optional(2)?, optional(0)?);
    let mut flags = t.arg(3);
    if flags & MS_MGC_MSK == MS_MGC_VAL {
        flags &= !MS_MGC_MSK;
    }
    let data = options(t)?;
    let at = resolve(t, &t.path(1)?, Lookup::FOLLOW)?;
    if !t.state.creds.has(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let vfs = &t.kernel.vfs;
    let from = || {
        let source = source.as_deref().ok_or(Errno::EINVAL)?;
        resolve(t, source, Lookup::FOLLOW)
    };
    let recursion = match flags & libc::MS_REC {
        0 => Recursion::One,
        _ => Recursion::Tree,
    };
    if flags & libc::MS_REMOUNT != 0 {
        vfs.remount(&at, per_mount(flags))?;
    } else if flags & libc::MS_BIND != 0 {
        vfs.bind(&at, &from()?, recursion)?;
    } else if flags & PROPAGATION != 0 {
        if (flags & PROPAGATION).count_ones() > 1 {
            return Err(Errno::EINVAL);
        }
        vfs.mount_of(&at)?;
    } else if flags & libc::MS_MOVE != 0 {
        vfs.move_mount(&at, &from()?)?;
    } else {
        let kind = kind.ok_or(Errno::EINVAL)?;
        let (fs, forced) = new_file_system(t, &kind, &data)?;
        let source = String::from_utf8_lossy(source.as_deref().unwrap_or(b"none"));
        vfs.mount(&at, fs, per_mount(flags) | forced, &source)?;
    }
    Ok(Reply::DONE)
}

/// The options in argument 4: at most a page, which may end where the guest's memory does.
fn options(t: &Task) -> Result<Vec<u8>> {
    match t.arg(4) {
        0 => Ok(Vec::new()),
        _ => t.string(4, PAGE, Errno::EINVAL),
    }
}

fn resolve(t: &Task, path: &[u8], how: Lookup) -> Result<Location> {
    t.kernel.vfs.resolve(&t.cx(), &t.state.cwd, path, how)
}

fn per_mount(flags: u64) -> MountFlags {
    let all = [
        (libc::MS_RDONLY, MountFlags::RDONLY),
        (libc::MS_NOSUID, MountFlags::NOSUID),
        (libc::MS_NODEV, MountFlags::NODEV),
        (libc::MS_NOEXEC, MountFlags::NOEXEC),
    ];
    let set = all.into_iter().filter(|(bit, _)| flags & bit != 0);
    set.map(|(_, flag)| flag).collect()
}

type Made = (Arc<dyn FileSystem>, MountFlags);

/// A file system of this type, and the flags that it is mounted with in any case: ENODEV if there is
/// none such.
fn new_file_system(t: &Task, kind: &[u8], data: &[u8]) -> Result<Made> {
    match kind {
        b"tmpfs" | b"ramfs" => Ok((
            t.kernel.tmpfs.beside(tmpfs_options(data)?)?,
            MountFlags::empty(),
        )),
        b"overlay" => new_overlay(t, data),
        // There is one instance of each.
        _ => {
            let fs = t.kernel.singletons.get(kind).cloned();
            Ok((fs.ok_or(Errno::ENODEV)?, MountFlags::empty()))
        }
    }
}

/// `name=value` pairs, split at commas.
fn pairs(data: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let words = data.split(|&b| b == b',').filter(|w| !w.is_empty());
    words.map(|word| match word.iter().position(|&b| b == b'=') {
        Some(at) => (&word[..at], &word[at + 1..]),
        None => (word, &b""[..]),
    })
}

/// The options of tmpfs(5).
fn tmpfs_options(data: &[u8]) -> Result<TmpOptions> {
    let number = |text: &[u8], radix| -> Result<u32> {
        let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
        u32::from_str_radix(text, radix).map_err(|_| Errno::EINVAL)
    };
    let mut options = TmpOptions::default();
    for (name, value) in pairs(data) {
        match name {
            b"size" => options.size = size(value)?,
            b"nr_blocks" => options.size = size(value)?.map(|n| n.saturating_mul(4096)),
            b"nr_inodes" => options.inodes = size(value)?.unwrap_or(options.inodes),
            b"mode" => options.mode = number(value, 8)? & 0o7777,
            b"uid" => options.uid = number(value, 10)?,
            b"gid" => options.gid = number(value, 10)?,
            // How pages are placed is the host's matter.
            b"huge" | b"mpol" | b"noswap" | b"inode32" | b"inode64" => (),
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(options)
}

/// A number of bytes with a suffix `k`, `m` or `g`; `None` for 0, no limit, and for a share of the
/// memory (`50%`), which is the store's own limit.
fn size(value: &[u8]) -> Result<Option<u64>> {
    let (digits, shift) = match value.split_last().ok_or(Errno::EINVAL)? {
        (b'k' | b'K', rest) => (rest, 10),
        (b'm' | b'M', rest) => (rest, 20),
        (b'g' | b'G', rest) => (rest, 30),
        (b'%', _) => return Ok(None),
        _ => (value, 0),
    };
    let text = std::str::from_utf8(digits).map_err(|_| Errno::EINVAL)?;
    let number: u64 = text.parse().map_err(|_| Errno::EINVAL)?;
    let bytes = number.checked_mul(1 << shift).ok_or(Errno::EINVAL)?;
    Ok(Some(bytes).filter(|&b| b != 0))
}

/// An overlay over directories of the tree, as the kernel's own: `lowerdir=A:B`, and `upperdir` with
/// `workdir`, or neither: then nothing can be written.
fn new_overlay(t: &Task, data: &[u8]) -> Result<Made> {
    let options: HashMap<&[u8], &[u8]> = pairs(data).collect();
    let known: [&[u8]; 8] = [
        b"lowerdir",
        b"upperdir",
        b"workdir",
        b"index",
        b"metacopy",
        b"redirect_dir",
        b"xino",
        b"userxattr",
    ];
    if options.keys().any(|name| !known.contains(name)) {
        return Err(Errno::EINVAL);
    }
    let directory = |path: &[u8]| resolve(t, path, Lookup::FOLLOW | Lookup::DIRECTORY);
    let lowers = options.get(&b"lowerdir"[..]).ok_or(Errno::EINVAL)?;
    let lowers = lowers.split(|&b| b == b':').filter(|p| !p.is_empty());
    let lowers = lowers.map(directory).collect::<Result<Vec<_>>>()?;
    let depth = lowers.iter().map(|l| l.mount.sb().fs().stack_depth()).max();
    let lowers: Vec<_> = lowers.iter().map(|l| l.inode().clone()).collect();
    if lowers.is_empty() {
        return Err(Errno::EINVAL);
    }
    let (upper, flags) = match (options.get(&b"upperdir"[..]), options.get(&b"workdir"[..])) {
        (Some(upper), Some(work)) => {
            let (root, work) = (directory(upper)?, directory(work)?);
            if !Arc::ptr_eq(root.mount.sb(), work.mount.sb()) {
                return Err(Errno::EINVAL);
            }
            if root.mount.flags().contains(MountFlags::RDONLY) {
                return Err(Errno::EROFS);
            }
            let upper = Upper {
                fs: root.mount.sb().fs().clone(),
                root: root.inode().clone(),
                work: own_directory(t, &work)?.inode().clone(),
            };
            (upper, MountFlags::empty())
        }
        (None, None) => {
            let empty = t.kernel.tmpfs.beside(TmpOptions::default())?;
            let make = |name: &[u8]| {
                let (mode, uid, gid) = (0o755, 0, 0);
                empty.root().mkdir(name, NewNode { mode, uid, gid })
            };
            let upper = Upper {
                root: make(b"upper")?,
                work: make(b"work")?,
                fs: empty.clone(),
            };
            (upper, MountFlags::RDONLY)
        }
        _ => return Err(Errno::EINVAL),
    };
    Ok((
        OverlayFs::stacked(upper, lowers, depth.unwrap_or(0))?,
        flags,
    ))
}

/// The directory in `workdir` that is the overlay's own, as the kernel names it.
fn own_directory(t: &Task, workdir: &Location) -> Result<Location> {
    match t.kernel.vfs.mkdir(&t.cx(), workdir, b"work", 0) {
        Ok(()) | Err(Errno::EEXIST) => (),
        Err(e) => return Err(e),
    }
    let how = Lookup::DIRECTORY | Lookup::NO_SYMLINKS;
    t.kernel.vfs.resolve(&t.cx(), workdir, b"work", how)
}

pub(super) fn umount2(t: &Task) -> Result<Reply> {
    let flags = t.int(1);
    // MNT_EXPIRE, a mark that every use takes away, is not offered.
    if flags & !(libc::MNT_FORCE | libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let how = match flags & libc::UMOUNT_NOFOLLOW {
        0 => Lookup::FOLLOW,
        _ => Lookup::empty(),
    };
    let at = resolve(t, &t.path(0)?, how)?;
    if !t.state.creds.has(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let vfs = &t.kernel.vfs;
    if flags & libc::MNT_DETACH != 0 {
        vfs.umount(&at, Recursion::Tree)?;
        return Ok(Reply::DONE);
    }
    let mount = vfs.mount_of(&at)?;
    if in_use(t, &mount) {
        return Err(Errno::EBUSY);
    }
    vfs.umount(&at, Recursion::One)?;
    Ok(Reply::DONE)
}

/// Whether a process works, has its root or an open file in the mount.
fn in_use(t: &Task, mount: &Arc<Mount>) -> bool {
    let here = |l: &Location| Arc::ptr_eq(&l.mount, mount);
    let everyone = t.kernel.processes.everyone();
    everyone.iter().filter(|p| p.is_alive()).any(|process| {
        let state = process.state();
        let runs = state.program.as_ref().is_some_and(|p| here(&p.location));
        runs || here(&state.cwd) || here(&state.root) || {
            let table = std::fs::read_dir(format!("/proc/{}/fd", process.host_pid()));
            let open = table.into_iter().flatten().flatten();
            open.filter_map(|entry| std::fs::metadata(entry.path()).ok())
                .filter_map(|m| {
                    t.kernel.vfs.locate(BackingId {
                        dev: m.dev(),
                        ino: m.ino(),
                    })
                })
                .any(|l| here(&l))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_options_of_tmpfs() {
        assert_eq!(size(b"0"), Ok(None));
        assert_eq!(size(b"50%"), Ok(None));
        assert_eq!(size(b"3k"), Ok(Some(3072)));
        assert_eq!(size(b"2G"), Ok(Some(2 << 30)));
        for bad in [
            &b""[..],
            b"k",
            b"-1",
            b"99999999999999999999",
            b"18446744073709551615k",
        ] {
            assert_eq!(size(bad), Err(Errno::EINVAL));
        }
        let options = tmpfs_options(b"size=1m,mode=1750,uid=7,gid=8,nr_inodes=9").unwrap();
        assert_eq!((options.size, options.inodes), (Some(1 << 20), 9));
        assert_eq!((options.mode, options.uid, options.gid), (0o1750, 7, 8));
        assert!(tmpfs_options(b"").is_ok());
        for bad in [&b"mode=9"[..], b"bogus", b"uid=x", b"size"] {
            assert_eq!(tmpfs_options(bad).err(), Some(Errno::EINVAL));
        }
    }
}

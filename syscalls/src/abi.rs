//! Structures of the x86-64 system-call interface, to and from the bytes in guest memory.

use duet_vfs::inode::StatFs;
use duet_vfs::types::{Attr, Errno, Result, SetTime, Timespec};
use nix::sys::stat::FileStat;

/// Appends fields in the guest's (little-endian) order.
struct Packer(Vec<u8>);

impl Packer {
    fn new(size: usize) -> Packer {
        Packer(Vec::with_capacity(size))
    }
    fn u16(&mut self, v: u16) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    fn u32(&mut self, v: u32) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    fn u64(&mut self, v: u64) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    fn zeros(&mut self, n: usize) -> &mut Self {
        self.0.resize(self.0.len() + n, 0);
        self
    }
    fn time(&mut self, t: Timespec) -> &mut Self {
        self.u64(t.sec as u64).u64(u64::from(t.nsec))
    }
    fn statx_time(&mut self, t: Timespec) -> &mut Self {
        self.u64(t.sec as u64).u32(t.nsec).u32(0)
    }
}

/// `struct stat` (144 bytes).
pub fn stat(a: &Attr) -> Vec<u8> {
    let mut p = Packer::new(144);
    p.u64(a.dev)
        .u64(a.ino)
        .u64(u64::from(a.nlink))
        .u32(a.mode)
        .u32(a.uid)
        .u32(a.gid)
        .u32(0);
    p.u64(a.rdev)
        .u64(a.size)
        .u64(u64::from(a.blksize))
        .u64(a.blocks);
    p.time(a.atime).time(a.mtime).time(a.ctime).zeros(24);
    p.0
}

/// `struct statx` (256 bytes). `attributes` is `stx_attributes`.
pub fn statx(a: &Attr, mount_id: u64, mount_root: bool) -> Vec<u8> {
    const ATTR_MOUNT_ROOT: u64 = 0x2000;
    let mut mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    if a.btime.is_some() {
        mask |= libc::STATX_BTIME;
    }
    let mut p = Packer::new(256);
    p.u32(mask)
        .u32(a.blksize)
        .u64(if mount_root { ATTR_MOUNT_ROOT } else { 0 });
    p.u32(a.nlink)
        .u32(a.uid)
        .u32(a.gid)
        .u16(a.mode as u16)
        .u16(0);
    p.u64(a.ino).u64(a.size).u64(a.blocks).u64(ATTR_MOUNT_ROOT);
    p.statx_time(a.atime)
        .statx_time(a.btime.unwrap_or_default());
    p.statx_time(a.ctime).statx_time(a.mtime);
    p.u32(libc::major(a.rdev)).u32(libc::minor(a.rdev));
    p.u32(libc::major(a.dev))
        .u32(libc::minor(a.dev))
        .u64(mount_id);
    let rest = 256 - p.0.len();
    p.zeros(rest);
    p.0
}

/// `struct statfs` (120 bytes).
pub fn statfs(s: &StatFs, dev: u64, flags: u64) -> Vec<u8> {
    let mut p = Packer::new(120);
    p.u64(s.magic as u64)
        .u64(s.bsize)
        .u64(s.blocks)
        .u64(s.bfree)
        .u64(s.bavail);
    p.u64(s.files)
        .u64(s.ffree)
        .u32(dev as u32)
        .u32((dev >> 32) as u32);
    p.u64(s.namelen).u64(s.bsize).u64(flags).zeros(32);
    p.0
}

/// What the host says of a descriptor, for one that is no node of the tree.
pub fn host_attr(st: &FileStat, uid: u32, gid: u32) -> Attr {
    let time = |sec: i64, nsec: i64| Timespec {
        sec,
        nsec: nsec as u32,
    };
    Attr {
        dev: st.st_dev,
        ino: st.st_ino,
        mode: st.st_mode,
        nlink: st.st_nlink as u32,
        uid,
        gid,
        rdev: st.st_rdev,
        size: st.st_size as u64,
        blksize: st.st_blksize as u32,
        blocks: st.st_blocks as u64,
        atime: time(st.st_atime, st.st_atime_nsec),
        mtime: time(st.st_mtime, st.st_mtime_nsec),
        ctime: time(st.st_ctime, st.st_ctime_nsec),
        btime: None,
    }
}

/// Little-endian `u64` at byte `at`.
pub fn u64_at(b: &[u8], at: usize) -> Result<u64> {
    let s = b
        .get(at..at.checked_add(8).ok_or(Errno::EINVAL)?)
        .ok_or(Errno::EINVAL)?;
    Ok(u64::from_le_bytes(s.try_into().map_err(|_| Errno::EINVAL)?))
}

/// Little-endian `u32` at byte `at`.
pub fn u32_at(b: &[u8], at: usize) -> Result<u32> {
    let s = b
        .get(at..at.checked_add(4).ok_or(Errno::EINVAL)?)
        .ok_or(Errno::EINVAL)?;
    Ok(u32::from_le_bytes(s.try_into().map_err(|_| Errno::EINVAL)?))
}

/// One `struct timespec` of `utimensat(2)`: `None` for `UTIME_OMIT`.
pub fn utime_spec(b: &[u8]) -> Result<Option<SetTime>> {
    const UTIME_NOW: u64 = (1 << 30) - 1;
    const UTIME_OMIT: u64 = (1 << 30) - 2;
    let (sec, nsec) = (u64_at(b, 0)? as i64, u64_at(b, 8)?);
    match nsec {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(SetTime::At(Timespec {
            sec,
            nsec: nsec as u32,
        }))),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_kernels() {
        let a = Attr {
            dev: 1,
            ino: 2,
            mode: libc::S_IFREG | 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 3,
            blksize: 4096,
            blocks: 8,
            atime: Timespec::default(),
            mtime: Timespec::default(),
            ctime: Timespec::default(),
            btime: None,
        };
        assert_eq!(stat(&a).len(), size_of::<libc::stat>());
        assert_eq!(statx(&a, 1, false).len(), size_of::<libc::statx>());
        let s = StatFs {
            magic: 1,
            bsize: 1,
            blocks: 1,
            bfree: 1,
            bavail: 1,
            files: 1,
            ffree: 1,
            namelen: 255,
        };
        assert_eq!(statfs(&s, 1, 0).len(), size_of::<libc::statfs>());
    }

    #[test]
    fn utime_nanoseconds_are_checked() {
        let spec = |nsec: u64| [7u64.to_le_bytes(), nsec.to_le_bytes()].concat();
        assert_eq!(utime_spec(&spec(1_000_000_000)), Err(Errno::EINVAL));
        assert_eq!(utime_spec(&spec((1 << 30) - 2)), Ok(None));
        assert_eq!(utime_spec(&spec((1 << 30) - 1)), Ok(Some(SetTime::Now)));
    }
}

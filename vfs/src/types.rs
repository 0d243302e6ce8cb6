//! The values that cross the boundary between file systems and the walk: attributes, credentials,
//! flags. All of them are plain data in the units of the Linux system-call interface.

use std::sync::Arc;

use bitflags::bitflags;

/// Errors are Linux errno values, exactly as the guest will see them.
pub use nix::errno::Errno;

/// What every operation of this crate returns.
pub type Result<T> = std::result::Result<T, Errno>;

/// A point in time as `struct timespec` holds it (seconds since the epoch, nanoseconds 0..10^9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespec {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds, 0..1_000_000_000.
    pub nsec: u32,
}

/// The type of a node (`S_IFMT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FileType {
    /// `S_IFREG`
    Regular = libc::S_IFREG,
    /// `S_IFDIR`
    Directory = libc::S_IFDIR,
    /// `S_IFLNK`
    Symlink = libc::S_IFLNK,
    /// `S_IFCHR`
    CharDevice = libc::S_IFCHR,
    /// `S_IFBLK`
    BlockDevice = libc::S_IFBLK,
    /// `S_IFIFO`
    Fifo = libc::S_IFIFO,
    /// `S_IFSOCK`
    Socket = libc::S_IFSOCK,
}

impl FileType {
    /// The type in the `S_IFMT` bits of a mode; `None` if they hold no known type.
    pub fn from_mode(mode: u32) -> Option<FileType> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => FileType::Regular,
            libc::S_IFDIR => FileType::Directory,
            libc::S_IFLNK => FileType::Symlink,
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFBLK => FileType::BlockDevice,
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            _ => return None,
        })
    }

    /// The `DT_*` value that `getdents64` reports.
    pub fn dirent_type(self) -> u8 {
        ((self as u32) >> 12) as u8
    }
}

/// What `stat`/`statx` report of a node, in guest terms: owners and modes are the virtual ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Device number of the file system (`st_dev`), an anonymous one (major 0) chosen by Duet.
    pub dev: u64,
    /// Inode number, constant while the node lives (across copy-up too).
    pub ino: u64,
    /// Type and permission bits (`S_IFMT | 07777`).
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, 0 elsewhere (`makedev`).
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Preferred block size.
    pub blksize: u32,
    /// 512-byte blocks.
    pub blocks: u64,
    /// Last access.
    pub atime: Timespec,
    /// Last change of contents.
    pub mtime: Timespec,
    /// Last change of the inode.
    pub ctime: Timespec,
    /// Birth, where known.
    pub btime: Option<Timespec>,
}

impl Attr {
    /// The node's type. A mode without a valid type counts as a regular file.
    pub fn kind(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }
}

/// One time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present.
    Now,
    /// A given time.
    At(Timespec),
}

/// Changes for [`crate::Inode::set_attr`]; `None` leaves a field alone. Permission has been checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a regular file in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

/// Owner and permission bits of a node being made (umask and setgid inheritance already applied).
#[derive(Clone, Copy, Debug)]
pub struct NewNode {
    /// Permission bits (07777), no type bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// One directory entry. `next` is the cookie (`d_off`) that continues behind it.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Inode number as [`Attr::ino`] would say.
    pub ino: u64,
    /// Type, if it is known without a look at the inode.
    pub kind: Option<FileType>,
    /// The name: 1..=255 bytes without `/` and NUL.
    pub name: Vec<u8>,
    /// Cookie to continue after this entry; greater than that of every entry before, below 2^62.
    pub next: u64,
}

bitflags! {
    /// Capabilities that the VFS asks about, as bits of the kernel's capability set.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Caps: u64 {
        /// Change owners.
        const CHOWN = 1 << 0;
        /// Pass every read, write and search check.
        const DAC_OVERRIDE = 1 << 1;
        /// Pass read and search checks.
        const DAC_READ_SEARCH = 1 << 2;
        /// Act as the owner of any file.
        const FOWNER = 1 << 3;
        /// Keep set-id bits.
        const FSETID = 1 << 4;
        /// Signal any process.
        const KILL = 1 << 5;
        /// Change groups.
        const SETGID = 1 << 6;
        /// Change users.
        const SETUID = 1 << 7;
        /// Bind to ports below 1024.
        const NET_BIND_SERVICE = 1 << 10;
        /// chroot(2).
        const SYS_CHROOT = 1 << 18;
        /// Trace any process.
        const SYS_PTRACE = 1 << 19;
        /// Mounts, host names and much else.
        const SYS_ADMIN = 1 << 21;
        /// Raise limits.
        const SYS_RESOURCE = 1 << 24;
        /// Make device nodes.
        const MKNOD = 1 << 27;
        /// Set file capabilities.
        const SETFCAP = 1 << 31;
        const _ = !0;
    }
}

/// Virtual credentials of a process, as credentials(7) describes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creds {
    /// Real user.
    pub uid: u32,
    /// Effective user.
    pub euid: u32,
    /// Saved user.
    pub suid: u32,
    /// User for file-system checks.
    pub fsuid: u32,
    /// Real group.
    pub gid: u32,
    /// Effective group.
    pub egid: u32,
    /// Saved group.
    pub sgid: u32,
    /// Group for file-system checks.
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
    /// Effective capabilities.
    pub effective: Caps,
    /// Permitted capabilities.
    pub permitted: Caps,
    /// Inheritable capabilities.
    pub inheritable: Caps,
    /// Bounding set.
    pub bounding: Caps,
    /// Ambient set.
    pub ambient: Caps,
}

impl Creds {
    /// Capability numbers 0..=40 (`CAP_LAST_CAP` of Linux 6.x).
    pub const ALL_CAPS: u64 = (1 << 41) - 1;

    /// A fresh login as this user and group: full capabilities for uid 0, none for others.
    pub fn user(uid: u32, gid: u32, groups: Arc<[u32]>) -> Creds {
        let full = Caps::from_bits_retain(Self::ALL_CAPS);
        let caps = if uid == 0 { full } else { Caps::empty() };
        Creds {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups,
            effective: caps,
            permitted: caps,
            inheritable: Caps::empty(),
            bounding: full,
            ambient: Caps::empty(),
        }
    }

    /// Root with every capability.
    pub fn root() -> Creds {
        Creds::user(0, 0, Arc::from([]))
    }

    /// Whether the effective set holds all of `caps`.
    pub fn has(&self, caps: Caps) -> bool {
        self.effective.contains(caps)
    }

    /// Whether the file-system group or a supplementary group is `gid`.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}

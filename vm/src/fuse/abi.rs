//! The FUSE protocol as the kernel speaks it: `include/uapi/linux/fuse.h`, version 7.38.
//!
//! Only what [`super::Server`] uses stands here, under the kernel's own names. Integers are in the
//! byte order of the host, which is the guest's.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Version spoken; a guest with a smaller minor number gets that.
pub const KERNEL_VERSION: u32 = 7;
/// See [`KERNEL_VERSION`].
pub const KERNEL_MINOR_VERSION: u32 = 38;
/// The oldest minor number served: replies have had today's sizes since.
pub const OLDEST_MINOR_VERSION: u32 = 31;

/// Node id of the root directory.
pub const ROOT_ID: u64 = 1;

macro_rules! opcodes {
    ($($name:ident = $number:literal),* $(,)?) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Opcode {
            $(#[doc = concat!("`FUSE_", stringify!($name), "`")] $name = $number,)*
        }

        impl Opcode {
            /// The request with this number, if the server knows it.
            pub fn from_number(number: u32) -> Option<Opcode> {
                match number {
                    $($number => Some(Opcode::$name),)*
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    Lookup = 1, Forget = 2, Getattr = 3, Setattr = 4, Readlink = 5, Symlink = 6, Mknod = 8, Mkdir = 9,
    Unlink = 10, Rmdir = 11, Rename = 12, Link = 13, Open = 14, Read = 15, Write = 16, Statfs = 17,
    Release = 18, Fsync = 20, Setxattr = 21, Getxattr = 22, Listxattr = 23, Removexattr = 24,
    Init = 26, Opendir = 27, Readdir = 28, Releasedir = 29, Access = 34, Create = 35, Interrupt = 36,
    Destroy = 38, BatchForget = 42, Fallocate = 43, Readdirplus = 44, Rename2 = 45, Lseek = 46,
    CopyFileRange = 47, Tmpfile = 51,
}

bitflags! {
    /// Features of `FUSE_INIT`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct InitFlags: u32 {
        /// Reads may overtake one another.
        const ASYNC_READ = 1 << 0;
        /// `O_TRUNC` is for the server.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// Writes of more than a page.
        const BIG_WRITES = 1 << 5;
        /// Cached contents go when the modification time or the size changes.
        const AUTO_INVAL_DATA = 1 << 12;
        /// `FUSE_READDIRPLUS`.
        const DO_READDIRPLUS = 1 << 13;
        /// …where the guest's use suggests it.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O may overlap.
        const ASYNC_DIO = 1 << 15;
        /// The guest gathers writes in its page cache.
        const WRITEBACK_CACHE = 1 << 16;
        /// Look-ups and listings of one directory at once.
        const PARALLEL_DIROPS = 1 << 18;
        /// `max_pages` counts.
        const MAX_PAGES = 1 << 22;
        /// The text of symbolic links may be cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// [`ATTR_SUBMOUNT`] is understood.
        const SUBMOUNTS = 1 << 27;
        /// The server clears set-id bits and file capabilities when told to.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
    }
}

/// `FUSE_ATTR_SUBMOUNT`: this directory is the root of another file system.
pub const ATTR_SUBMOUNT: u32 = 1 << 0;
/// `FOPEN_KEEP_CACHE`: what is cached of the file or directory stays.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// `FOPEN_CACHE_DIR`: the listing may be cached.
pub const FOPEN_CACHE_DIR: u32 = 1 << 3;
/// `FUSE_WRITE_KILL_SUIDGID`
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `FUSE_OPEN_KILL_SUIDGID`
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `FUSE_FSYNC_FDATASYNC`
pub const FSYNC_FDATASYNC: u32 = 1 << 0;

bitflags! {
    /// Which fields of [`SetattrIn`] count.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Fattr: u32 {
        #[allow(missing_docs)]
        const MODE = 1 << 0;
        #[allow(missing_docs)]
        const UID = 1 << 1;
        #[allow(missing_docs)]
        const GID = 1 << 2;
        #[allow(missing_docs)]
        const SIZE = 1 << 3;
        #[allow(missing_docs)]
        const ATIME = 1 << 4;
        #[allow(missing_docs)]
        const MTIME = 1 << 5;
        /// `fh` is valid.
        const FH = 1 << 6;
        /// The present, not the time given.
        const ATIME_NOW = 1 << 7;
        /// The present, not the time given.
        const MTIME_NOW = 1 << 8;
        /// Set-id bits go with a change of size.
        const KILL_SUIDGID = 1 << 11;
    }
}

macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident = $size:literal { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
            #[repr(C)]
            #[allow(missing_docs)]
            pub struct $name {
                $(pub $field: $type,)*
            }

            const _: () = assert!(size_of::<$name>() == $size);
        )*
    };
}

structs! {
    /// Before every request. `len` counts all of it, this header included.
    InHeader = 40 {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
    /// Before every reply. `error` is 0 or a negative errno.
    OutHeader = 16 { len: u32, error: i32, unique: u64 }
    /// Attributes of a node.
    FuseAttr = 88 {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// A name and the node behind it (node 0: there is none, and that may be remembered).
    EntryOut = 128 {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64,
        entry_valid_nsec: u32, attr_valid_nsec: u32, attr: FuseAttr,
    }
    /// Reply of `FUSE_GETATTR` and `FUSE_SETATTR`.
    AttrOut = 104 { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: FuseAttr }
    /// `FUSE_FORGET`
    ForgetIn = 8 { nlookup: u64 }
    /// `FUSE_BATCH_FORGET`; as many [`ForgetOne`] follow.
    BatchForgetIn = 8 { count: u32, dummy: u32 }
    /// One of a batch.
    ForgetOne = 16 { nodeid: u64, nlookup: u64 }
    /// `FUSE_SETATTR`
    SetattrIn = 88 {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64,
        atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// `FUSE_MKNOD`
    MknodIn = 16 { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// `FUSE_MKDIR`
    MkdirIn = 8 { mode: u32, umask: u32 }
    /// `FUSE_RENAME`
    RenameIn = 8 { newdir: u64 }
    /// `FUSE_RENAME2`
    Rename2In = 16 { newdir: u64, flags: u32, padding: u32 }
    /// `FUSE_LINK`
    LinkIn = 8 { oldnodeid: u64 }
    /// `FUSE_OPEN`, `FUSE_OPENDIR`
    OpenIn = 8 { flags: u32, open_flags: u32 }
    /// `FUSE_CREATE`, `FUSE_TMPFILE`
    CreateIn = 16 { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// An open file.
    OpenOut = 16 { fh: u64, open_flags: u32, padding: u32 }
    /// `FUSE_RELEASE`, `FUSE_RELEASEDIR`
    ReleaseIn = 24 { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// `FUSE_READ`, `FUSE_READDIR`, `FUSE_READDIRPLUS`
    ReadIn = 40 {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    /// `FUSE_WRITE`
    WriteIn = 40 {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    /// Reply of `FUSE_WRITE` and `FUSE_COPY_FILE_RANGE`.
    WriteOut = 8 { size: u32, padding: u32 }
    /// Reply of `FUSE_STATFS`.
    StatfsOut = 80 {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64,
        bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// `FUSE_FSYNC`
    FsyncIn = 16 { fh: u64, fsync_flags: u32, padding: u32 }
    /// `FUSE_SETXATTR`, without the extension that is not asked for.
    SetxattrIn = 8 { size: u32, flags: u32 }
    /// `FUSE_GETXATTR`, `FUSE_LISTXATTR`
    GetxattrIn = 8 { size: u32, padding: u32 }
    /// The size of an extended attribute, or of the list.
    GetxattrOut = 8 { size: u32, padding: u32 }
    /// `FUSE_ACCESS`
    AccessIn = 8 { mask: u32, padding: u32 }
    /// `FUSE_INIT`, as far as every kernel sends it.
    InitIn = 16 { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// Reply of `FUSE_INIT`.
    InitOut = 64 {
        major: u32, minor: u32, max_readahead: u32, flags: u32,
        max_background: u16, congestion_threshold: u16, max_write: u32, time_gran: u32,
        max_pages: u16, map_alignment: u16, flags2: u32, unused: [u32; 7],
    }
    /// `FUSE_FALLOCATE`
    FallocateIn = 32 { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// `FUSE_LSEEK`
    LseekIn = 24 { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// Reply of `FUSE_LSEEK`.
    LseekOut = 8 { offset: u64 }
    /// `FUSE_COPY_FILE_RANGE`
    CopyFileRangeIn = 56 {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
    /// One entry of a listing; the name follows, padded to eight bytes.
    Dirent = 24 { ino: u64, off: u64, namelen: u32, kind: u32 }
}

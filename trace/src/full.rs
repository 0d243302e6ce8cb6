//! Structures that are cut short as a rule, field by field (`--no-abbrev`, strace's `-v`).

use std::fmt::Write;

use duet_syscalls::table::Set;

use crate::sets::{self, Named};
use crate::shapes::{device, mode};
use crate::structs::Fields;
use crate::text::{flags, hex, quoted, time_comment};

/// `struct stat`, stat(3type).
pub fn stat(out: &mut String, f: &Fields<'_>) {
    // Writing to a string does not fail, here and below.
    out.push_str("{st_dev=");
    device(out, f.u64(0));
    let _ = write!(out, ", st_ino={}, st_mode=", f.u64(8));
    mode(out, f.u32(24));
    let (links, user, group) = (f.u64(16), f.u32(28), f.u32(32));
    let _ = write!(out, ", st_nlink={links}, st_uid={user}, st_gid={group}");
    let _ = write!(out, ", st_blksize={}, st_blocks={}", f.u64(56), f.u64(64));
    match f.u32(24) & libc::S_IFMT {
        libc::S_IFCHR | libc::S_IFBLK => {
            out.push_str(", st_rdev=");
            device(out, f.u64(40));
        }
        _ => {
            let _ = write!(out, ", st_size={}", f.i64(48));
        }
    }
    for (name, at) in [("atime", 72), ("mtime", 88), ("ctime", 104)] {
        let (seconds, nanos) = (f.i64(at), f.i64(at + 8));
        let _ = write!(out, ", st_{name}={seconds}");
        time_comment(out, seconds, nanos, 9);
        if nanos != 0 {
            let _ = write!(out, ", st_{name}_nsec={nanos}");
        }
    }
    out.push('}');
}

const ATTRIBUTES: &[Named] = &[
    ("STATX_ATTR_COMPRESSED", 0x4),
    ("STATX_ATTR_IMMUTABLE", 0x10),
    ("STATX_ATTR_APPEND", 0x20),
    ("STATX_ATTR_NODUMP", 0x40),
    ("STATX_ATTR_ENCRYPTED", 0x800),
    ("STATX_ATTR_AUTOMOUNT", 0x1000),
    ("STATX_ATTR_MOUNT_ROOT", 0x2000),
    ("STATX_ATTR_VERITY", 0x10_0000),
    ("STATX_ATTR_DAX", 0x20_0000),
];

/// `struct statx`, statx(2).
pub fn statx(out: &mut String, f: &Fields<'_>) {
    let mask = f.u32(0);
    out.push_str("{stx_mask=");
    flags(out, mask.into(), sets::of(Set::STATX));
    let _ = write!(out, ", stx_blksize={}, stx_attributes=", f.u32(4));
    flags(out, f.u64(8), ATTRIBUTES);
    let (links, user, group) = (f.u32(16), f.u32(20), f.u32(24));
    let _ = write!(
        out,
        ", stx_nlink={links}, stx_uid={user}, stx_gid={group}, stx_mode="
    );
    mode(out, f.u16(28).into());
    let (inode, size, blocks) = (f.u64(32), f.u64(40), f.u64(48));
    let _ = write!(
        out,
        ", stx_ino={inode}, stx_size={size}, stx_blocks={blocks}"
    );
    out.push_str(", stx_attributes_mask=");
    flags(out, f.u64(56), ATTRIBUTES);
    for (name, at, bit) in [
        ("atime", 64, 0x20),
        ("btime", 80, 0x800),
        ("ctime", 96, 0x80),
        ("mtime", 112, 0x40),
    ] {
        if mask & bit != 0 {
            let (seconds, nanos) = (f.i64(at), f.u32(at + 8));
            let _ = write!(out, ", stx_{name}={{tv_sec={seconds}, tv_nsec={nanos}}}");
            time_comment(out, seconds, nanos.into(), 9);
        }
    }
    for (i, name) in ["rdev_major", "rdev_minor", "dev_major", "dev_minor"]
        .iter()
        .enumerate()
    {
        let _ = write!(out, ", stx_{name}={}", f.u32(128 + 4 * i));
    }
    if mask & 0x1000 != 0 {
        out.push_str(", stx_mnt_id=");
        hex(out, f.u64(144));
    }
    out.push('}');
}

/// `struct utsname`, uname(2).
pub fn utsname(out: &mut String, f: &Fields<'_>) {
    let names = [
        "sysname",
        "nodename",
        "release",
        "version",
        "machine",
        "domainname",
    ];
    for (i, name) in names.iter().enumerate() {
        let _ = write!(out, "{}{name}=", if i == 0 { "{" } else { ", " });
        quoted(out, f.string(65 * i, 65), false);
    }
    out.push('}');
}

/// What follows the times in `struct rusage`, getrusage(2).
pub fn usage(out: &mut String, f: &Fields<'_>) {
    let names = [
        "maxrss", "ixrss", "idrss", "isrss", "minflt", "majflt", "nswap", "inblock", "oublock",
        "msgsnd", "msgrcv", "nsignals", "nvcsw", "nivcsw",
    ];
    for (i, name) in names.iter().enumerate() {
        let _ = write!(out, ", ru_{name}={}", f.u64(32 + 8 * i));
    }
}

//! Structures of a fixed shape, field by field.

use std::fmt::Write;

use duet_syscalls::table::{Set, Struct};

use crate::full;
use crate::sets;
use crate::signals::{sigaction, siginfo, sigset};
use crate::structs::{Fields, Memory};
use crate::text::{address, flags, one, quoted, separate, time_comment};

impl Memory<'_> {
    pub(crate) fn shape(&self, out: &mut String, what: Struct, bytes: &[u8]) {
        let f = Fields(bytes);
        let pair = |out: &mut String, at: usize, unit: &str| {
            let _ = write!(out, "{{tv_sec={}, tv_{unit}={}}}", f.i64(at), f.u64(at + 8));
        };
        let _ = match what {
            Struct::I32 => write!(out, "[{}]", f.i32(0)),
            Struct::U32 => write!(out, "[{}]", f.u32(0)),
            Struct::Gids => write!(out, "{}", f.i32(0)),
            Struct::I64 | Struct::U64 => write!(out, "[{}]", f.i64(0)),
            Struct::FdPair => {
                out.push('[');
                self.fd(out, f.i32(0));
                out.push_str(", ");
                self.fd(out, f.i32(4));
                write!(out, "]")
            }
            Struct::Timespec => return pair(out, 0, "nsec"),
            Struct::Timeval => return pair(out, 0, "usec"),
            Struct::TimespecPair | Struct::TimevalPair => {
                let unit = if what == Struct::TimespecPair {
                    "nsec"
                } else {
                    "usec"
                };
                out.push('[');
                for at in [0, 16] {
                    separate(out, &mut (at == 0), ", ");
                    match f.i64(at + 8) {
                        libc::UTIME_NOW => out.push_str("UTIME_NOW"),
                        libc::UTIME_OMIT => out.push_str("UTIME_OMIT"),
                        fraction => {
                            pair(out, at, unit);
                            let digits = if unit == "nsec" { 9 } else { 6 };
                            time_comment(out, f.i64(at), fraction, digits);
                        }
                    }
                }
                write!(out, "]")
            }
            Struct::Itimerspec | Struct::Itimerval => {
                let unit = if what == Struct::Itimerspec {
                    "nsec"
                } else {
                    "usec"
                };
                out.push_str("{it_interval=");
                pair(out, 0, unit);
                out.push_str(", it_value=");
                pair(out, 16, unit);
                write!(out, "}}")
            }
            Struct::Rlimit => {
                let _ = write!(out, "{{rlim_cur=");
                limit(out, f.u64(0));
                out.push_str(", rlim_max=");
                limit(out, f.u64(8));
                write!(out, "}}")
            }
            Struct::Sigset => return sigset(out, f.u64(0)),
            Struct::SigsetArg => {
                let set = self.read(f.u64(0), 8);
                match set {
                    Some(set) => {
                        out.push('{');
                        out.push_str("sigmask=");
                        sigset(out, Fields(&set).u64(0));
                        write!(out, ", sigsetsize={}}}", f.u64(8))
                    }
                    None => write!(out, "{{sigmask=NULL, sigsetsize={}}}", f.u64(8)),
                }
            }
            Struct::Sigaction => return sigaction(out, &f),
            Struct::Stat if self.full => return full::stat(out, &f),
            Struct::Statx if self.full => return full::statx(out, &f),
            Struct::Utsname if self.full => return full::utsname(out, &f),
            Struct::Stat => {
                out.push_str("{st_mode=");
                mode(out, f.u32(24));
                match f.u32(24) & libc::S_IFMT {
                    libc::S_IFCHR | libc::S_IFBLK => {
                        out.push_str(", st_rdev=");
                        device(out, f.u64(40));
                        write!(out, ", ...}}")
                    }
                    _ => write!(out, ", st_size={}, ...}}", f.i64(48)),
                }
            }
            Struct::Statx => {
                out.push_str("{stx_mask=");
                flags(out, u64::from(f.u32(0)), sets::of(Set::STATX));
                let _ = write!(out, ", stx_attributes={}, stx_mode=", {
                    let mut t = String::new();
                    crate::text::hex(&mut t, f.u64(8));
                    t
                });
                mode(out, u32::from(f.u16(28)));
                write!(out, ", stx_size={}, ...}}", f.u64(40))
            }
            Struct::Statfs => {
                let _ = write!(out, "{{f_type=");
                one(out, f.u64(0), FILE_SYSTEMS, "");
                let _ = write!(
                    out,
                    ", f_bsize={}, f_blocks={}, f_bfree={}, f_bavail={}",
                    f.i64(8),
                    f.u64(16),
                    f.u64(24),
                    f.u64(32)
                );
                let _ = write!(
                    out,
                    ", f_files={}, f_ffree={}, f_fsid={{val=[{:#x}, {:#x}]}}",
                    f.u64(40),
                    f.u64(48),
                    f.u32(56),
                    f.u32(60)
                );
                let _ = write!(
                    out,
                    ", f_namelen={}, f_frsize={}, f_flags=",
                    f.i64(64),
                    f.i64(72)
                );
                flags(out, f.u64(80), STATFS_FLAGS);
                write!(out, "}}")
            }
            Struct::Utsname => {
                out.push_str("{sysname=");
                quoted(out, f.string(0, 65), false);
                out.push_str(", nodename=");
                quoted(out, f.string(65, 65), false);
                write!(out, ", ...}}")
            }
            Struct::Sysinfo => {
                let _ = write!(
                    out,
                    "{{uptime={}, loads=[{}, {}, {}]",
                    f.i64(0),
                    f.u64(8),
                    f.u64(16),
                    f.u64(24)
                );
                let _ = write!(
                    out,
                    ", totalram={}, freeram={}, sharedram={}, bufferram={}",
                    f.u64(32),
                    f.u64(40),
                    f.u64(48),
                    f.u64(56)
                );
                let _ = write!(
                    out,
                    ", totalswap={}, freeswap={}, procs={}",
                    f.u64(64),
                    f.u64(72),
                    f.u16(80)
                );
                write!(
                    out,
                    ", totalhigh={}, freehigh={}, mem_unit={}}}",
                    f.u64(88),
                    f.u64(96),
                    f.u32(104)
                )
            }
            Struct::Rusage => {
                out.push_str("{ru_utime=");
                pair(out, 0, "usec");
                out.push_str(", ru_stime=");
                pair(out, 16, "usec");
                if self.full {
                    full::usage(out, &f);
                } else {
                    out.push_str(", ...");
                }
                write!(out, "}}")
            }
            Struct::Stack => {
                out.push_str("{ss_sp=");
                address(out, f.u64(0));
                out.push_str(", ss_flags=");
                flags(out, u64::from(f.u32(8)), sets::SS);
                write!(out, ", ss_size={}}}", f.u64(16))
            }
            Struct::Pollfd => {
                out.push_str("{fd=");
                self.fd(out, f.i32(0));
                if f.i32(0) >= 0 {
                    out.push_str(", events=");
                    flags(out, u64::from(f.u16(4)), sets::POLL);
                }
                write!(out, "}}")
            }
            Struct::EpollEvent => {
                out.push_str("{events=");
                flags(out, u64::from(f.u32(0)), sets::EPOLL);
                let data = f.u64(4);
                write!(out, ", data={{u32={}, u64={data}}}}}", data as u32)
            }
            Struct::Tms => write!(
                out,
                "{{tms_utime={}, tms_stime={}, tms_cutime={}, tms_cstime={}}}",
                f.i64(0),
                f.i64(8),
                f.i64(16),
                f.i64(24)
            ),
            Struct::Siginfo => return siginfo(out, &f),
            Struct::OpenHow => {
                out.push_str("{flags=");
                open_flags(out, f.u64(0));
                if f.u64(0) & (libc::O_CREAT as u64) != 0 {
                    let _ = write!(out, ", mode=0{:03o}", f.u64(8));
                }
                out.push_str(", resolve=");
                flags(out, f.u64(16), RESOLVE);
                write!(out, "}}")
            }
            Struct::Timezone => write!(
                out,
                "{{tz_minuteswest={}, tz_dsttime={}}}",
                f.i32(0),
                f.i32(4)
            ),
            Struct::SchedParam => write!(out, "[{}]", f.i32(0)),
            Struct::Sembuf => write!(
                out,
                "{{{}, {}, {:#x}}}",
                f.u16(0),
                f.u16(2) as i16,
                f.u16(4)
            ),
            Struct::Utimbuf => write!(out, "{{actime={}, modtime={}}}", f.i64(0), f.i64(8)),
            Struct::CapHeader => {
                let version = match f.u32(0) {
                    0x1998_0330 => "_LINUX_CAPABILITY_VERSION_1".into(),
                    0x2007_1026 => "_LINUX_CAPABILITY_VERSION_2".into(),
                    0x2008_0522 => "_LINUX_CAPABILITY_VERSION_3".into(),
                    other => format!("{other:#x}"),
                };
                write!(out, "{{version={version}, pid={}}}", f.i32(4))
            }
            Struct::CapData => {
                for (i, name) in ["effective", "permitted", "inheritable"].iter().enumerate() {
                    let low = u64::from(f.u32(4 * i));
                    let _ = write!(out, "{}{name}=", if i == 0 { "{" } else { ", " });
                    capabilities(out, low | u64::from(f.u32(12 + 4 * i)) << 32);
                }
                write!(out, "}}")
            }
            Struct::Sigevent => return sigevent(out, &f),
            Struct::CloneArgs => return clone_args(out, &f),
            Struct::Iovec => write!(out, "{{iov_base={:#x}, iov_len={}}}", f.u64(0), f.u64(8)),
            // `size` knows no other.
            _ => Ok(()),
        };
    }
}

/// A set of capabilities.
fn capabilities(out: &mut String, set: u64) {
    let mut first = true;
    for n in (0..64).filter(|n| set >> n & 1 == 1) {
        separate(out, &mut first, "|");
        let _ = match sets::CAPABILITIES.iter().find(|(_, v)| *v == n) {
            Some((name, _)) => write!(out, "1<<{name}"),
            None => write!(out, "1<<{n}"),
        };
    }
    if first {
        out.push('0');
    }
}

/// `struct sigevent`, sigevent(7).
fn sigevent(out: &mut String, f: &Fields<'_>) {
    const NOTIFY: &[sets::Named] = &[
        ("SIGEV_SIGNAL", 0),
        ("SIGEV_NONE", 1),
        ("SIGEV_THREAD", 2),
        ("SIGEV_THREAD_ID", 4),
    ];
    let (value, signal, notify) = (f.u64(0), f.i32(8), f.i32(12));
    out.push('{');
    if value != 0 {
        let _ = write!(out, "sigev_value={{sival_int={}, sival_ptr=", value as i32);
        address(out, value);
        out.push_str("}, ");
    }
    let _ = match notify {
        libc::SIGEV_NONE => write!(out, "sigev_signo={signal}"),
        _ => write!(out, "sigev_signo={}", sets::signal(signal.into())),
    };
    out.push_str(", sigev_notify=");
    one(out, notify as u32 as u64, NOTIFY, "SIGEV_*");
    if notify == libc::SIGEV_THREAD_ID {
        let _ = write!(out, ", sigev_notify_thread_id={}", f.i32(16));
    }
    out.push('}');
}

impl Memory<'_> {
    /// What clone3(2) has written to the places that its `struct clone_args` names.
    pub(crate) fn made_thread(&self, out: &mut String, addr: u64) {
        let Some(bytes) = self.read(addr, 32) else {
            return;
        };
        let (f, mut first) = (Fields(&bytes), true);
        for (name, bit, at) in [
            ("pidfd", libc::CLONE_PIDFD, 8),
            ("parent_tid", libc::CLONE_PARENT_SETTID, 24),
        ] {
            if f.u64(0) & u64::from(bit as u32) == 0 {
                continue;
            }
            if let Some(value) = self.read(f.u64(at), 4) {
                out.push_str(if first { " => {" } else { ", " });
                first = false;
                let _ = write!(out, "{name}=[{}]", Fields(&value).i32(0));
            }
        }
        if !first {
            out.push('}');
        }
    }
}

/// `struct clone_args`, clone(2).
fn clone_args(out: &mut String, f: &Fields<'_>) {
    let bits = f.u64(0);
    let has = |bit: i32| bits & u64::from(bit as u32) != 0;
    out.push_str("{flags=");
    flags(out, bits, sets::of(Set::CLONE));
    let mut place = |name: &str, at: usize| {
        let _ = write!(out, ", {name}=");
        address(out, f.u64(at));
    };
    if has(libc::CLONE_PIDFD) {
        place("pidfd", 8);
    }
    if has(libc::CLONE_CHILD_SETTID) || has(libc::CLONE_CHILD_CLEARTID) {
        place("child_tid", 16);
    }
    if has(libc::CLONE_PARENT_SETTID) {
        place("parent_tid", 24);
    }
    let _ = match f.u64(32) {
        0 => write!(out, ", exit_signal=0"),
        n => write!(out, ", exit_signal={}", sets::signal(n as i64)),
    };
    out.push_str(", stack=");
    address(out, f.u64(40));
    out.push_str(", stack_size=");
    crate::text::hex(out, f.u64(48));
    if has(libc::CLONE_SETTLS) {
        out.push_str(", tls=");
        address(out, f.u64(56));
    }
    out.push('}');
}

const FILE_SYSTEMS: &[sets::Named] = &[
    ("TMPFS_MAGIC", 0x0102_1994),
    ("EXT2_SUPER_MAGIC", 0xef53),
    ("OVERLAYFS_SUPER_MAGIC", 0x794c_7630),
    ("PROC_SUPER_MAGIC", 0x9fa0),
    ("SYSFS_MAGIC", 0x6265_6572),
    ("DEVPTS_SUPER_MAGIC", 0x1cd1),
    ("XFS_SUPER_MAGIC", 0x5846_5342),
    ("BTRFS_SUPER_MAGIC", 0x9123_683e),
];
const STATFS_FLAGS: &[sets::Named] = &[
    ("ST_VALID", 0x20),
    ("ST_RDONLY", 1),
    ("ST_NOSUID", 2),
    ("ST_NODEV", 4),
    ("ST_NOEXEC", 8),
    ("ST_SYNCHRONOUS", 16),
    ("ST_MANDLOCK", 64),
    ("ST_NOATIME", 1024),
    ("ST_NODIRATIME", 2048),
    ("ST_RELATIME", 4096),
];
const RESOLVE: &[sets::Named] = &[
    ("RESOLVE_NO_XDEV", 1),
    ("RESOLVE_NO_MAGICLINKS", 2),
    ("RESOLVE_NO_SYMLINKS", 4),
    ("RESOLVE_BENEATH", 8),
    ("RESOLVE_IN_ROOT", 16),
    ("RESOLVE_CACHED", 32),
];

/// `O_*`: the access mode, then flags.
pub fn open_flags(out: &mut String, value: u64) {
    out.push_str(match value & 3 {
        0 => "O_RDONLY",
        1 => "O_WRONLY",
        2 => "O_RDWR",
        _ => "O_ACCMODE",
    });
    if value & !3 != 0 {
        out.push('|');
        flags(out, value & !3, sets::of(Set::OPEN));
    }
}

/// A device number.
pub fn device(out: &mut String, dev: u64) {
    let part = |v: u32| {
        let mut t = String::new();
        crate::text::hex(&mut t, v.into());
        t
    };
    let _ = write!(
        out,
        "makedev({}, {})",
        part(libc::major(dev)),
        part(libc::minor(dev))
    );
}

/// Type and permissions of a file.
pub fn mode(out: &mut String, mode: u32) {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFREG => "S_IFREG",
        libc::S_IFDIR => "S_IFDIR",
        libc::S_IFLNK => "S_IFLNK",
        libc::S_IFCHR => "S_IFCHR",
        libc::S_IFBLK => "S_IFBLK",
        libc::S_IFIFO => "S_IFIFO",
        libc::S_IFSOCK => "S_IFSOCK",
        _ => "",
    };
    out.push_str(kind);
    let mut rest = mode & !libc::S_IFMT;
    let mut first = kind.is_empty();
    for (name, bit) in [
        ("S_ISUID", 0o4000),
        ("S_ISGID", 0o2000),
        ("S_ISVTX", 0o1000),
    ] {
        if rest & bit != 0 {
            separate(out, &mut first, "|");
            out.push_str(name);
            rest &= !bit;
        }
    }
    separate(out, &mut first, "|");
    let _ = write!(out, "0{rest:03o}");
}

fn limit(out: &mut String, value: u64) {
    let _ = match value {
        u64::MAX => write!(out, "RLIM64_INFINITY"),
        v if v > 1024 && v % 1024 == 0 => write!(out, "{}*1024", v / 1024),
        v => write!(out, "{v}"),
    };
}

//! Structures in guest memory, as strace(1) abbreviates them. Every address, length and content is the
//! guest's; what cannot be read is shown as its address.

use std::fmt::Write;

use duet_intercept::{Tid, mem};
use duet_syscalls::table::{Set, Struct};

use crate::sets;
use crate::signals::{sigaction, siginfo, sigset};
use crate::text::{address, flags, one, quoted, separate};

/// Elements of an array that are shown.
const ELEMENTS: usize = 32;

/// Little-endian numbers out of bytes; 0 beyond the end.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let part = self.0.get(at..at + N);
        part.and_then(|p| p.try_into().ok()).unwrap_or([0; N])
    }

    /// 16 bits.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    /// 32 bits.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    /// 64 bits.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    /// 32 bits with a sign.
    pub fn i32(&self, at: usize) -> i32 {
        self.u32(at) as i32
    }

    /// 64 bits with a sign.
    pub fn i64(&self, at: usize) -> i64 {
        self.u64(at) as i64
    }

    fn string(&self, at: usize, len: usize) -> &[u8] {
        let all = self.0.get(at..(at + len).min(self.0.len()));
        let all = all.unwrap_or_default();
        all.split(|&b| b == 0).next().unwrap_or_default()
    }
}

/// Bytes that a structure takes; `None` for what has no fixed shape here.
pub fn size(what: Struct) -> Option<usize> {
    Some(match what {
        Struct::CapHeader | Struct::FdPair | Struct::Timezone | Struct::EpollEvent => match what {
            Struct::EpollEvent => 12,
            _ => 8,
        },
        Struct::CapData => 24,
        Struct::Sigaction => 32,
        Struct::I32 | Struct::U32 | Struct::Gids | Struct::SchedParam => 4,
        Struct::I64 | Struct::U64 | Struct::Sigset | Struct::Pollfd => 8,
        Struct::Itimerspec | Struct::Itimerval | Struct::TimespecPair | Struct::TimevalPair => 32,
        Struct::Iovec | Struct::Rlimit | Struct::Timespec | Struct::Timeval | Struct::SigsetArg => {
            16
        }
        Struct::Utimbuf => 16,
        Struct::Msghdr => 56,
        Struct::Mmsghdr => 64,
        Struct::OpenHow | Struct::Stack => 24,
        Struct::Rusage => 144,
        Struct::Sembuf => 6,
        Struct::Siginfo => 128,
        Struct::Stat => 144,
        Struct::Statfs => 120,
        Struct::Statx => 256,
        Struct::Sysinfo => 112,
        Struct::Tms => 32,
        Struct::Utsname => 390,
        _ => return None,
    })
}

/// What is shown of guest memory, and how much of it.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Whose.
    pub tid: Tid,
    /// Bytes of strings and buffers that are shown (`-s`).
    pub limit: usize,
}

impl Memory {
    /// Exactly `len` bytes.
    pub fn read(&self, addr: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        mem::read(self.tid, addr, &mut bytes).ok().map(|()| bytes)
    }

    /// A string, cut at the limit; whether it was cut.
    fn string(&self, addr: u64, max: usize) -> Option<(Vec<u8>, bool)> {
        // Read to the end of a page at first: most strings are there, and no more is mapped perhaps.
        let mut bytes: Vec<u8> = Vec::new();
        while bytes.len() <= max {
            let at = addr.checked_add(bytes.len() as u64)?;
            let chunk = (4096 - at % 4096)
                .min(256)
                .min((max + 1 - bytes.len()) as u64) as usize;
            match self.read(at, chunk) {
                Some(part) => bytes.extend(part),
                None => return None,
            }
            if let Some(end) = bytes.iter().position(|&b| b == 0) {
                bytes.truncate(end);
                break;
            }
        }
        let cut = bytes.len() > max;
        bytes.truncate(max);
        Some((bytes, cut))
    }

    /// A path, whole.
    pub fn path(&self, out: &mut String, addr: u64) {
        self.text(out, addr, 4095);
    }

    /// A string, cut at the limit.
    pub fn str(&self, out: &mut String, addr: u64) {
        self.text(out, addr, self.limit);
    }

    fn text(&self, out: &mut String, addr: u64, max: usize) {
        match self.string(addr, max) {
            Some((bytes, cut)) if addr != 0 => quoted(out, &bytes, cut),
            _ => address(out, addr),
        }
    }

    /// The bytes of a path; `None` if they cannot be read.
    pub fn path_bytes(&self, addr: u64) -> Option<Vec<u8>> {
        self.string(addr, 4095).map(|(bytes, _)| bytes)
    }

    /// A buffer of `len` bytes, cut at the limit.
    pub fn buffer(&self, out: &mut String, addr: u64, len: u64) {
        let shown = usize::try_from(len).unwrap_or(usize::MAX).min(self.limit);
        match self.read(addr, shown) {
            Some(bytes) if addr != 0 => quoted(out, &bytes, len > shown as u64),
            _ => address(out, addr),
        }
    }

    /// `argv`.
    pub fn strings(&self, out: &mut String, addr: u64) {
        let (mut text, mut first) = (String::from("["), true);
        let mut at = addr;
        for _ in 0..ELEMENTS {
            let Some(word) = self.read(at, 8) else {
                return address(out, addr);
            };
            let pointer = Fields(&word).u64(0);
            if pointer == 0 {
                text.push(']');
                out.push_str(&text);
                return;
            }
            separate(&mut text, &mut first, ", ");
            self.str(&mut text, pointer);
            at = at.wrapping_add(8);
        }
        text.push_str(", ...]");
        out.push_str(&text);
    }

    /// How many pointers stand in `envp`.
    pub fn count_strings(&self, addr: u64) -> Option<usize> {
        const MOST: usize = 1 << 12;
        let mut count = 0;
        while count < MOST {
            let part = self.read(addr.checked_add(8 * count as u64)?, 8)?;
            if Fields(&part).u64(0) == 0 {
                return Some(count);
            }
            count += 1;
        }
        None
    }

    /// One element.
    pub fn one(&self, out: &mut String, what: Struct, addr: u64) {
        if addr == 0 {
            return out.push_str("NULL");
        }
        let bytes = size(what).and_then(|n| self.read(addr, n));
        match bytes {
            Some(bytes) => self.shape(out, what, &bytes),
            None => address(out, addr),
        }
    }

    /// Several elements.
    pub fn array(&self, out: &mut String, what: Struct, addr: u64, count: u64) {
        if addr == 0 {
            return out.push_str("NULL");
        }
        if count == 0 {
            return out.push_str("[]");
        }
        let shown = usize::try_from(count).unwrap_or(usize::MAX).min(ELEMENTS);
        let Some(each) = size(what) else {
            return address(out, addr);
        };
        let Some(bytes) = self.read(addr, each * shown) else {
            return address(out, addr);
        };
        out.push('[');
        for (i, element) in bytes.chunks(each).enumerate() {
            separate(out, &mut (i == 0), ", ");
            self.shape(out, what, element);
        }
        out.push_str(if count as usize > shown {
            ", ...]"
        } else {
            "]"
        });
    }

    /// Vectors, with at most `total` bytes of their buffers.
    pub fn vectors(&self, out: &mut String, addr: u64, count: u64, total: Option<u64>) {
        let shown = count.min(ELEMENTS as u64) as usize;
        let Some(bytes) = self.read(addr, 16 * shown) else {
            return address(out, addr);
        };
        let mut left = total.unwrap_or(u64::MAX);
        out.push('[');
        for (i, v) in bytes.chunks(16).enumerate() {
            let (base, len) = (Fields(v).u64(0), Fields(v).u64(8));
            separate(out, &mut (i == 0), ", ");
            out.push_str("{iov_base=");
            self.buffer(out, base, len.min(left));
            left = left.saturating_sub(len);
            let _ = write!(out, ", iov_len={len}}}");
        }
        out.push_str(if count as usize > shown {
            ", ...]"
        } else {
            "]"
        });
    }

    /// `struct msghdr`; `total` bytes of it are valid.
    pub fn msghdr(&self, out: &mut String, addr: u64, total: Option<u64>) {
        let Some(bytes) = self.read(addr, 56) else {
            return address(out, addr);
        };
        let f = Fields(&bytes);
        out.push_str("{msg_name=");
        self.sockaddr(out, f.u64(0), u64::from(f.u32(8)));
        let _ = write!(out, ", msg_namelen={}, msg_iov=", f.u32(8));
        self.vectors(out, f.u64(16), f.u64(24), total);
        let _ = write!(out, ", msg_iovlen={}", f.u64(24));
        if f.u64(32) != 0 && f.u64(40) != 0 {
            out.push_str(", msg_control=");
            self.control(out, f.u64(32), f.u64(40));
        }
        let _ = write!(out, ", msg_controllen={}, msg_flags=", f.u64(40));
        flags(out, u64::from(f.u32(48)), sets::of(Set::MSG));
        out.push('}');
    }

    /// `struct msghdr` of a message that did not come.
    pub fn msghdr_names(&self, out: &mut String, addr: u64) {
        match self.read(addr, 56) {
            Some(bytes) => {
                let _ = write!(out, "{{msg_namelen={}}}", Fields(&bytes).u32(8));
            }
            None => address(out, addr),
        }
    }

    fn control(&self, out: &mut String, addr: u64, len: u64) {
        let bytes = self.read(addr, len.min(1024) as usize).unwrap_or_default();
        if bytes.len() < 16 {
            return address(out, addr);
        }
        let (mut at, mut first) = (0usize, true);
        out.push('[');
        while at + 16 <= bytes.len() {
            let f = Fields(bytes.get(at..).unwrap_or_default());
            let len = usize::try_from(f.u64(0)).unwrap_or(usize::MAX);
            separate(out, &mut first, ", ");
            let _ = write!(out, "{{cmsg_len={}, cmsg_level=", f.u64(0));
            one(out, u64::from(f.u32(8)), sets::of(Set::SOL), "SOL_*");
            out.push_str(", cmsg_type=");
            let rights = (f.i32(8), f.i32(12)) == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
            let creds = (f.i32(8), f.i32(12)) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);
            if rights && len >= 16 {
                out.push_str("SCM_RIGHTS, cmsg_data=[");
                let count = (len.min(f.0.len()) - 16) / 4;
                for i in 0..count {
                    separate(out, &mut (i == 0), ", ");
                    let _ = write!(out, "{}", f.i32(16 + 4 * i));
                }
                out.push(']');
            } else if creds {
                let (pid, uid, gid) = (f.u32(16), f.u32(20), f.u32(24));
                let _ = write!(
                    out,
                    "SCM_CREDENTIALS, cmsg_data={{pid={pid}, uid={uid}, gid={gid}}}"
                );
            } else {
                let _ = write!(out, "{:#x}", f.u32(12));
            }
            out.push('}');
            match len.checked_next_multiple_of(8) {
                Some(step) if step >= 16 => at = at.saturating_add(step),
                _ => break,
            }
        }
        out.push(']');
    }

    /// `struct sockaddr` of `len` bytes.
    pub fn sockaddr(&self, out: &mut String, addr: u64, len: u64) {
        let len = len.min(128) as usize;
        let Some(bytes) = self.read(addr, len).filter(|b| addr != 0 && b.len() >= 2) else {
            return address(out, addr);
        };
        let f = Fields(&bytes);
        let family = f.u16(0);
        out.push_str("{sa_family=");
        one(out, u64::from(family), sets::of(Set::AF), "AF_*");
        let port = u16::from_be(f.u16(2));
        match i32::from(family) {
            libc::AF_UNIX if len > 2 => {
                out.push_str(", sun_path=");
                let path = bytes.get(2..).unwrap_or_default();
                match path.split_first() {
                    Some((0, name)) => {
                        out.push('@');
                        quoted(out, name, false);
                    }
                    _ => quoted(
                        out,
                        path.split(|&b| b == 0).next().unwrap_or_default(),
                        false,
                    ),
                }
            }
            libc::AF_INET => {
                let [a, b, c, d] = f.u32(4).to_le_bytes();
                let _ = write!(
                    out,
                    ", sin_port=htons({port}), sin_addr=inet_addr(\"{a}.{b}.{c}.{d}\")"
                );
            }
            libc::AF_INET6 => {
                let ip = std::net::Ipv6Addr::from(f.bytes::<16>(8));
                let flow = u32::from_be(f.u32(4));
                let scope = f.u32(24);
                let _ = write!(
                    out,
                    ", sin6_port=htons({port}), sin6_flowinfo=htonl({flow}), \
                     inet_pton(AF_INET6, \"{ip}\", &sin6_addr), sin6_scope_id={scope}"
                );
            }
            libc::AF_NETLINK => {
                let (pid, groups) = (f.u32(4), f.u32(8));
                let _ = write!(out, ", nl_pid={pid}, nl_groups={groups:08x}");
            }
            _ => (),
        }
        out.push('}');
    }

    /// `nfds` bits of an `fd_set`.
    pub fn fd_set(&self, out: &mut String, addr: u64, nfds: u64) {
        let nfds = nfds.min(1024) as usize;
        let Some(bytes) = self.read(addr, nfds.div_ceil(64) * 8).filter(|_| addr != 0) else {
            return address(out, addr);
        };
        out.push('[');
        let mut first = true;
        for fd in (0..nfds).filter(|fd| bytes.get(fd / 8).is_some_and(|b| b >> (fd % 8) & 1 == 1)) {
            separate(out, &mut first, " ");
            let _ = write!(out, "{fd}");
        }
        out.push(']');
    }

    fn shape(&self, out: &mut String, what: Struct, bytes: &[u8]) {
        let f = Fields(bytes);
        let pair = |out: &mut String, at: usize, unit: &str| {
            let _ = write!(out, "{{tv_sec={}, tv_{unit}={}}}", f.i64(at), f.i64(at + 8));
        };
        let _ = match what {
            Struct::I32 => write!(out, "[{}]", f.i32(0)),
            Struct::U32 => write!(out, "[{}]", f.u32(0)),
            Struct::Gids => write!(out, "{}", f.i32(0)),
            Struct::I64 | Struct::U64 => write!(out, "[{}]", f.i64(0)),
            Struct::FdPair => write!(out, "[{}, {}]", f.i32(0), f.i32(4)),
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
                        _ => pair(out, at, unit),
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
                write!(out, ", ...}}")
            }
            Struct::Stack => {
                out.push_str("{ss_sp=");
                address(out, f.u64(0));
                out.push_str(", ss_flags=");
                flags(out, u64::from(f.u32(8)), sets::SS);
                write!(out, ", ss_size={}}}", f.u64(16))
            }
            Struct::Pollfd => {
                let _ = write!(out, "{{fd={}", f.i32(0));
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
                let set =
                    |low: u32, high: u32| format!("{:#x}", u64::from(low) | u64::from(high) << 32);
                write!(
                    out,
                    "{{effective={}, permitted={}, inheritable={}}}",
                    set(f.u32(0), f.u32(12)),
                    set(f.u32(4), f.u32(16)),
                    set(f.u32(8), f.u32(20))
                )
            }
            Struct::Iovec => write!(out, "{{iov_base={:#x}, iov_len={}}}", f.u64(0), f.u64(8)),
            // `size` knows no other.
            _ => Ok(()),
        };
    }
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

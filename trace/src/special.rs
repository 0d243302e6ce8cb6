//! Arguments that single calls write otherwise than their types say.

use std::fmt::Write;

use duet_syscalls::table::{Set, Struct, Type};

use crate::decode::{Args, Decoder, octal};
use crate::sets;
use crate::shapes::open_flags;
use crate::signals::sigset;
use crate::structs::Fields;
use crate::terminals;
use crate::text::{address, flags, hex, one};

impl Decoder<'_> {
    /// What single calls write otherwise than by type. `None`: by type.
    pub(crate) fn special(
        &self,
        out: &mut String,
        i: usize,
        value: u64,
        result: Option<i64>,
    ) -> Option<bool> {
        let m = self.memory();
        match (self.row.name, i) {
            ("open" | "openat", _) if self.is_mode_of_open(i) => {
                let flags = self.arg(i - 1);
                let creates =
                    flags & libc::O_CREAT as u64 != 0 || flags & 0o20_200_000 == 0o20_200_000;
                if creates {
                    let _ = write!(out, "{}", octal(value as u32));
                }
                Some(creates)
            }
            ("mmap", 5) => {
                hex(out, value);
                Some(true)
            }
            ("mmap", 4) => {
                m.fd(out, value as i32);
                Some(true)
            }
            ("brk", 0) | ("set_tid_address", 0) | ("rseq", 0) => {
                address(out, value);
                Some(true)
            }
            ("rseq", 1 | 3) => {
                hex(out, u64::from(value as u32));
                Some(true)
            }
            ("execve" | "execveat", _)
                if m.full && self.row.args.get(i).is_some_and(|a| a.name == "envp") =>
            {
                m.strings(out, value);
                Some(true)
            }
            ("execve" | "execveat", _)
                if self.row.args.get(i).is_some_and(|a| a.name == "envp") =>
            {
                address(out, value);
                if let Some(n) = m.count_strings(value).filter(|_| value != 0) {
                    let _ = write!(out, " /* {n} var{} */", if n == 1 { "" } else { "s" });
                }
                Some(true)
            }
            ("futex", _) => Some(self.futex(out, i, value)),
            ("fcntl", 2) => Some(self.fcntl(out, value)),
            ("ioctl", 2) => Some(self.ioctl(out, value, result)),
            ("prctl", 1..) => Some(self.prctl(out, i, value, result)),
            ("preadv" | "pwritev" | "preadv2" | "pwritev2", 4) => Some(false),
            ("mknod", 2) | ("mknodat", 3) => {
                let kind = self.arg(i - 1) as u32 & libc::S_IFMT;
                (!matches!(kind, libc::S_IFCHR | libc::S_IFBLK)).then_some(false)
            }
            ("mremap", 4) if self.arg(3) & 6 == 0 => Some(false),
            ("mincore", 2) => {
                let pages = self.arg(1).div_ceil(4096).min(m.limit as u64) as usize;
                match m.read(value, pages).filter(|_| result == Some(0)) {
                    Some(bytes) => {
                        out.push('[');
                        out.extend(bytes.iter().map(|b| if b & 1 == 1 { '1' } else { '0' }));
                        out.push(']');
                    }
                    None => address(out, value),
                }
                Some(true)
            }
            ("membarrier", 2) if self.arg(1) & 1 == 0 => Some(false),
            ("arch_prctl", 1) if matches!(self.arg(0), 0x1003 | 0x1004) && result == Some(0) => {
                let bytes = m.read(value, 8)?;
                let _ = write!(out, "[{:#x}]", Fields(&bytes).u64(0));
                Some(true)
            }
            ("timerfd_create", 1) => {
                flags(out, value, sets::TFD_CREATE);
                Some(true)
            }
            ("personality", 0) if value as u32 == u32::MAX => {
                hex(out, u64::from(u32::MAX));
                Some(true)
            }
            ("sendfile", 2) if value != 0 => {
                let _ = write!(out, "[{}]", self.before as i64);
                if let Some(after) = m.read(value, 8).filter(|_| result.is_some_and(|r| r > 0)) {
                    let _ = write!(out, " => [{}]", Fields(&after).i64(0));
                }
                Some(true)
            }
            (_, _) if value != 0 && self.length_place() == Some(i) => {
                let after = m.read(value, 4).map(|b| u64::from(Fields(&b).u32(0)));
                let _ = match after.filter(|_| result.is_some_and(|r| r >= 0)) {
                    Some(n) if n != self.before => write!(out, "[{} => {n}]", self.before as i32),
                    _ => write!(out, "[{}]", self.before as i32),
                };
                Some(true)
            }
            ("ioctl", 1)
                if !sets::of(Set::IOCTL)
                    .iter()
                    .any(|(_, v)| *v == value & 0xffff_ffff) =>
            {
                request(out, value as u32);
                Some(true)
            }
            ("socket" | "socketpair", 2) if self.arg(0) == libc::AF_NETLINK as u64 => {
                one(out, value, sets::NETLINK, "NETLINK_*");
                Some(true)
            }
            ("wait4", 1) => {
                self.wait_status(out, value, result);
                Some(true)
            }
            ("getsockopt" | "setsockopt", 2) => {
                let names = match self.arg(1) as i32 {
                    libc::SOL_TCP => sets::TCP,
                    libc::SOL_IP => sets::IP,
                    libc::SOL_IPV6 => sets::IPV6,
                    _ => sets::of(Set::SO),
                };
                one(out, u64::from(value as u32), names, "SO_*");
                Some(true)
            }
            ("socket" | "socketpair", 2)
                if self.arg(0) != libc::AF_INET as u64 && self.arg(0) != libc::AF_INET6 as u64 =>
            {
                let _ = write!(out, "{}", value as i32);
                Some(true)
            }
            ("getdents" | "getdents64", 2) | ("prlimit64", 0) => None,
            ("kill", 0) => {
                let _ = write!(out, "{}", value as i32);
                Some(true)
            }
            ("exit" | "exit_group", 0) => {
                let _ = write!(out, "{}", value as i32);
                Some(true)
            }
            _ => None,
        }
    }

    fn is_mode_of_open(&self, i: usize) -> bool {
        self.row.args.get(i).is_some_and(|a| a.ty == Type::Mode)
    }

    fn futex(&self, out: &mut String, i: usize, value: u64) -> bool {
        const PRIVATE: u32 = 128;
        const CLOCK_REALTIME: u32 = 256;
        let op = self.arg(1) as u32;
        let command = (op & !(PRIVATE | CLOCK_REALTIME)) as i32;
        use libc::{
            FUTEX_CMP_REQUEUE, FUTEX_REQUEUE, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE,
            FUTEX_WAKE_BITSET, FUTEX_WAKE_OP,
        };
        match i {
            0 => address(out, value),
            1 => {
                let name = sets::of(Set::FUTEX)
                    .iter()
                    .find(|(_, v)| *v == command as u64);
                match name {
                    Some((name, _)) => out.push_str(name),
                    None => hex(out, command as u64),
                }
                if op & PRIVATE != 0 {
                    out.push_str("_PRIVATE");
                }
                if op & CLOCK_REALTIME != 0 {
                    out.push_str("|FUTEX_CLOCK_REALTIME");
                }
            }
            2 => {
                let _ = write!(out, "{}", value as i32);
            }
            3 => match command {
                FUTEX_WAKE | FUTEX_WAKE_BITSET => return false,
                FUTEX_REQUEUE | FUTEX_CMP_REQUEUE | FUTEX_WAKE_OP => {
                    let _ = write!(out, "{}", value as i32);
                }
                _ => self.memory().one(out, Struct::Timespec, value),
            },
            4 => match command {
                FUTEX_WAIT | FUTEX_WAKE | FUTEX_WAIT_BITSET | FUTEX_WAKE_BITSET => return false,
                _ => address(out, value),
            },
            _ => match command {
                FUTEX_WAIT_BITSET | FUTEX_WAKE_BITSET => match value as u32 {
                    u32::MAX => out.push_str("FUTEX_BITSET_MATCH_ANY"),
                    v => hex(out, v.into()),
                },
                FUTEX_CMP_REQUEUE => {
                    let _ = write!(out, "{}", value as i32);
                }
                FUTEX_WAKE_OP => hex(out, value),
                _ => return false,
            },
        }
        true
    }

    fn fcntl(&self, out: &mut String, value: u64) -> bool {
        match self.arg(1) as i32 {
            libc::F_GETFD
            | libc::F_GETFL
            | libc::F_GETOWN
            | libc::F_GETLEASE
            | libc::F_GETPIPE_SZ => {
                return false;
            }
            libc::F_SETFD => flags(out, value, &[("FD_CLOEXEC", 1)]),
            libc::F_SETFL => open_flags(out, value),
            libc::F_ADD_SEALS => flags(out, value, sets::SEALS),
            libc::F_GET_SEALS => return false,
            libc::F_GETLK
            | libc::F_SETLK
            | libc::F_SETLKW
            | libc::F_OFD_SETLK
            | libc::F_OFD_SETLKW
            | libc::F_OFD_GETLK => {
                let Some(bytes) = self.memory().read(value, 32) else {
                    address(out, value);
                    return true;
                };
                let f = Fields(&bytes);
                out.push_str("{l_type=");
                one(out, f.u16(0).into(), sets::LOCKS, "F_*");
                out.push_str(", l_whence=");
                one(out, f.u16(2).into(), sets::of(Set::SEEK), "SEEK_*");
                let _ = write!(out, ", l_start={}, l_len={}", f.i64(8), f.i64(16));
                if self.arg(1) as i32 == libc::F_GETLK {
                    let _ = write!(out, ", l_pid={}", f.i32(24));
                }
                out.push('}');
            }
            _ => {
                let _ = write!(out, "{}", value as i64);
            }
        }
        true
    }

    fn ioctl(&self, out: &mut String, value: u64, result: Option<i64>) -> bool {
        let m = self.memory();
        let ok = result.is_some_and(|r| r >= 0);
        match self.arg(1) {
            libc::FIOCLEX | libc::FIONCLEX | libc::TIOCNOTTY | libc::TIOCEXCL => return false,
            libc::TIOCGWINSZ if ok => match m.read(value, 8) {
                Some(b) => {
                    let f = Fields(&b);
                    let _ = write!(
                        out,
                        "{{ws_row={}, ws_col={}, ws_xpixel={}, ws_ypixel={}}}",
                        f.u16(0),
                        f.u16(2),
                        f.u16(4),
                        f.u16(6)
                    );
                }
                None => address(out, value),
            },
            libc::TCGETS | libc::TCSETS | libc::TCSETSW | libc::TCSETSF
                if ok || self.arg(1) != libc::TCGETS =>
            {
                match m.read(value, terminals::SIZE) {
                    Some(b) => terminals::termios(out, &Fields(&b), m.full),
                    None => address(out, value),
                }
            }
            libc::FIONREAD | libc::FIONBIO | libc::TIOCGPGRP | libc::TIOCSPGRP | libc::TIOCGSID
                if ok
                    || !matches!(
                        self.arg(1),
                        libc::FIONREAD | libc::TIOCGPGRP | libc::TIOCGSID
                    ) =>
            {
                m.one(out, Struct::I32, value);
            }
            _ => address(out, value),
        }
        true
    }

    fn wait_status(&self, out: &mut String, at: u64, result: Option<i64>) {
        let status = match self.memory().read(at, 4) {
            Some(b) if at != 0 && result.is_some_and(|r| r > 0) => Fields(&b).i32(0),
            _ => return address(out, at),
        };
        let _ = if libc::WIFEXITED(status) {
            write!(
                out,
                "[{{WIFEXITED(s) && WEXITSTATUS(s) == {}}}]",
                libc::WEXITSTATUS(status)
            )
        } else if libc::WIFSIGNALED(status) {
            let core = if libc::WCOREDUMP(status) {
                " && WCOREDUMP(s)"
            } else {
                ""
            };
            write!(
                out,
                "[{{WIFSIGNALED(s) && WTERMSIG(s) == {}{core}}}]",
                sets::signal(libc::WTERMSIG(status).into())
            )
        } else if libc::WIFSTOPPED(status) {
            write!(
                out,
                "[{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}]",
                sets::signal(libc::WSTOPSIG(status).into())
            )
        } else {
            write!(out, "[{{WIFCONTINUED(s)}}]")
        };
    }

    /// The signal mask that is in force again: it lies in the frame that the kernel made on the stack
    /// (`arch/x86/include/asm/sigframe.h`).
    pub(crate) fn restored_mask(&self, out: &mut String) -> bool {
        /// In `struct ucontext`: flags, link, `stack_t`, `struct sigcontext`.
        const MASK: u64 = 8 + 8 + 24 + 256;
        let m = self.memory();
        let text = duet_intercept::mem::read_proc(&format!("/proc/{}/syscall", m.tid.0));
        let text = text.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let stack = text.split_ascii_whitespace().nth(7);
        let stack = stack.and_then(|s| u64::from_str_radix(s.trim_start_matches("0x"), 16).ok());
        let Some(mask) = stack.and_then(|s| m.read(s.wrapping_add(MASK), 8)) else {
            return false;
        };
        out.push_str("{mask=");
        sigset(out, Fields(&mask).u64(0));
        out.push('}');
        true
    }

    /// What clone(2) is asked for.
    pub(crate) fn clone_flags(&self, out: &mut Args) {
        let all = self.arg(0);
        out.add(1, "child_stack=", |text| {
            address(text, self.arg(1));
            true
        });
        out.add(0, "flags=", |text| {
            let (signal, bits) = (all & 0xff, all & !0xff);
            if bits != 0 {
                flags(text, bits, sets::of(Set::CLONE));
            }
            if signal != 0 {
                if bits != 0 {
                    text.push('|');
                }
                text.push_str(&sets::signal(signal as i64));
            } else if bits == 0 {
                text.push('0');
            }
            true
        });
    }

    /// Where clone(2) puts the new thread's id and local storage.
    pub(crate) fn clone_places(&self, out: &mut Args) {
        let has = |bit: i32| self.arg(0) & (bit as u32 as u64) != 0;
        if has(libc::CLONE_PARENT_SETTID) || has(libc::CLONE_PIDFD) {
            out.add(2, "parent_tid=", |text| {
                match self.memory().read(self.arg(2), 4) {
                    Some(b) => {
                        let _ = write!(text, "[{}]", Fields(&b).i32(0));
                    }
                    None => address(text, self.arg(2)),
                }
                true
            });
        }
        let mut place = |i: usize, label: &str| {
            out.add(i, label, |text| {
                address(text, self.arg(i));
                true
            });
        };
        if has(libc::CLONE_SETTLS) {
            place(4, "tls=");
        }
        if has(libc::CLONE_CHILD_SETTID) || has(libc::CLONE_CHILD_CLEARTID) {
            place(3, "child_tidptr=");
        }
    }
}

/// A request of ioctl(2) without a name: its parts.
fn request(out: &mut String, value: u32) {
    let direction = match value >> 30 {
        0 => "_IOC_NONE",
        1 => "_IOC_WRITE",
        2 => "_IOC_READ",
        _ => "_IOC_READ|_IOC_WRITE",
    };
    let _ = write!(out, "_IOC({direction}");
    for part in [value >> 8 & 0xff, value & 0xff, value >> 16 & 0x3fff] {
        out.push_str(", ");
        hex(out, part.into());
    }
    out.push(')');
}

//! From a call to its text: arguments by the types of the table, with what single calls need beside.

use std::fmt::Write;

use duet_intercept::{Call, Tid};
use duet_syscalls::table::{Dir, Len, Ret, Row, Set, Struct, Type};

use crate::sets;
use crate::structs::{Fields, Memory, device, open_flags};
use crate::text::{address, flags, hex, hex_quoted, one, separate};

/// Says what a descriptor of a thread is, as the guest sees it.
pub type NameOf<'a> = &'a dyn Fn(Tid, i32) -> Option<String>;

/// A call about to be written.
pub struct Decoder<'a> {
    /// The call.
    pub call: &'a Call,
    /// Its row.
    pub row: &'a Row,
    /// Bytes of strings and buffers that are shown.
    pub limit: usize,
    /// Names of descriptors, if they are to be shown (`-y`).
    pub name_of: Option<NameOf<'a>>,
}

impl Decoder<'_> {
    fn memory(&self) -> Memory {
        Memory {
            tid: self.call.tid,
            limit: self.limit,
        }
    }

    fn arg(&self, i: usize) -> u64 {
        self.call.args.get(i).copied().unwrap_or(0)
    }

    /// How many arguments can be written before the call has run.
    pub fn known_at_entry(&self) -> usize {
        let late = (0..self.row.args.len()).find(|&i| self.is_late(i));
        late.unwrap_or(self.row.args.len())
    }

    fn is_late(&self, i: usize) -> bool {
        match self.row.name {
            "clone" | "futex" | "set_tid_address" | "rseq" | "poll" | "ppoll" | "select"
            | "pselect6" | "rt_sigreturn" | "brk" => self.row.name == "clone" && i == 0,
            "ioctl" => i == 2,
            _ => self.row.args.get(i).is_some_and(|a| {
                matches!(
                    a.ty,
                    Type::Ptr {
                        dir: Dir::Out | Dir::InOut,
                        ..
                    }
                )
            }),
        }
    }

    /// Writes arguments `from..to`, with separators. `result` is known afterwards.
    pub fn args(&self, out: &mut String, from: usize, to: usize, result: Option<i64>) {
        if self.row.name == "clone" {
            if to > from {
                self.clone_args(out);
            }
            return;
        }
        for i in from..to.min(self.row.args.len()) {
            let before = out.len();
            if i > 0 {
                out.push_str(", ");
            }
            if !self.arg_text(out, i, result) {
                out.truncate(before);
            }
        }
    }

    /// False: it is not shown.
    fn arg_text(&self, out: &mut String, i: usize, result: Option<i64>) -> bool {
        let Some(arg) = self.row.args.get(i) else {
            return false;
        };
        let value = self.arg(i);
        if let Some(shown) = self.special(out, i, value, result) {
            return shown;
        }
        match arg.ty {
            Type::Fd | Type::DirFd => self.fd(out, value as i32),
            Type::Path => self.memory().path(out, value),
            Type::Str => self.memory().str(out, value),
            Type::StrArray => self.memory().strings(out, value),
            Type::Int | Type::Pid => {
                let _ = write!(out, "{}", value as i32);
            }
            Type::UInt => {
                let _ = write!(out, "{}", value as u32);
            }
            Type::Long | Type::Offset => {
                let _ = write!(out, "{}", value as i64);
            }
            Type::ULong | Type::Size => {
                let _ = write!(out, "{value}");
            }
            Type::Uid | Type::Gid => {
                let _ = match value as u32 {
                    u32::MAX => write!(out, "-1"),
                    id => write!(out, "{id}"),
                };
            }
            Type::Mode => {
                let mode = value as u32;
                if mode & libc::S_IFMT != 0 {
                    crate::structs::mode(out, mode);
                } else {
                    let _ = write!(out, "{}", octal(mode));
                }
            }
            Type::Dev => device(out, value),
            Type::Signal => out.push_str(&sets::signal(i64::from(value as i32))),
            Type::Addr => address(out, value),
            Type::Word => hex(out, value),
            Type::Flags(set) => self.flags(out, set, value as u32),
            Type::One(set) => one(out, u64::from(value as u32), sets::of(set), set.name()),
            Type::Ptr { to, dir, len } => self.pointer(out, value, to, dir, len, result),
        }
        true
    }

    fn flags(&self, out: &mut String, set: Set, value: u32) {
        let value = u64::from(value);
        match set {
            Set::OPEN if self.row.name != "dup3" => open_flags(out, value),
            Set::SOCK if self.row.name == "accept4" => flags(out, value, sets::SOCK_FLAGS),
            Set::SOCK => {
                one(out, value & 0xf, sets::of(set), "SOCK_*");
                if value & !0xf != 0 {
                    out.push('|');
                    flags(out, value & !0xf, sets::SOCK_FLAGS);
                }
            }
            Set::AT if self.row.name.starts_with("faccessat") => {
                let names: &[sets::Named] = &[
                    ("AT_SYMLINK_NOFOLLOW", 0x100),
                    ("AT_EACCESS", 0x200),
                    ("AT_EMPTY_PATH", 0x1000),
                ];
                flags(out, value, names);
            }
            Set::AT if self.row.name == "statx" && value & 0x6000 == 0 => {
                out.push_str("AT_STATX_SYNC_AS_STAT");
                if value != 0 {
                    out.push('|');
                    flags(out, value, sets::of(set));
                }
            }
            _ => flags(out, value, sets::of(set)),
        }
    }

    fn fd(&self, out: &mut String, fd: i32) {
        if fd == libc::AT_FDCWD {
            out.push_str("AT_FDCWD");
        } else {
            let _ = write!(out, "{fd}");
        }
        if let Some(name) = self.name_of.and_then(|name_of| name_of(self.call.tid, fd)) {
            let _ = write!(out, "<{name}>");
        }
    }

    fn pointer(
        &self,
        out: &mut String,
        at: u64,
        to: Struct,
        dir: Dir,
        len: Len,
        result: Option<i64>,
    ) {
        let m = self.memory();
        if at == 0 {
            return out.push_str("NULL");
        }
        let failed = result.is_some_and(|r| r < 0);
        if dir == Dir::Out && (failed || result.is_none()) {
            return address(out, at);
        }
        let written = result.filter(|_| dir == Dir::Out).map(|r| r.max(0) as u64);
        let room = match len {
            Len::Single => 1,
            Len::Count(i) | Len::Sized(i) => {
                let room = self.arg(i.into());
                let int = self
                    .row
                    .args
                    .get(usize::from(i))
                    .is_some_and(|a| matches!(a.ty, Type::Int | Type::UInt));
                if int { u64::from(room as u32) } else { room }
            }
            Len::SizedAt(i) => {
                let size = m.read(self.arg(i.into()), 4);
                size.map_or(0, |s| u64::from(Fields(&s).u32(0)))
            }
        };
        let valid = match (self.row.ret, written) {
            (Ret::Bytes | Ret::Count, Some(n)) if !matches!(len, Len::SizedAt(_)) => room.min(n),
            _ => room,
        };
        match to {
            Struct::Bytes if self.row.name == "getrandom" => {
                let shown = valid.min(self.limit as u64) as usize;
                match m.read(at, shown) {
                    Some(bytes) => hex_quoted(out, &bytes, valid > shown as u64),
                    None => address(out, at),
                }
            }
            Struct::Bytes if self.row.name == "getcwd" => m.path(out, at),
            Struct::Bytes if self.row.name.ends_with("sockopt") => self.option(out, at, valid),
            Struct::Bytes => m.buffer(out, at, valid),
            Struct::Iovec => {
                let total = if dir == Dir::Out { written } else { None };
                m.vectors(out, at, room, total);
            }
            Struct::Msghdr => {
                let total = (dir == Dir::InOut).then(|| result.unwrap_or(0).max(0) as u64);
                if dir == Dir::InOut && failed {
                    return m.msghdr_names(out, at);
                }
                m.msghdr(out, at, total);
            }
            Struct::Sockaddr => m.sockaddr(out, at, valid),
            Struct::FdSet => m.fd_set(out, at, self.arg(0)),
            Struct::Dirent | Struct::Dirent64 => {
                let count = self.entries(at, valid);
                address(out, at);
                let _ = write!(out, " /* {count} entries */");
            }
            Struct::CpuMask => self.cpus(out, at, valid),
            Struct::Siginfo | Struct::Utsname if failed => address(out, at),
            Struct::RobustListHead => address(out, at),
            _ if matches!(len, Len::Count(_)) => m.array(out, to, at, valid),
            _ => m.one(out, to, at),
        }
    }

    fn option(&self, out: &mut String, at: u64, len: u64) {
        let m = self.memory();
        match (len, m.read(at, 4)) {
            (4, Some(v)) => {
                let _ = write!(out, "[{}]", Fields(&v).i32(0));
            }
            _ => m.buffer(out, at, len),
        }
    }

    fn entries(&self, at: u64, len: u64) -> usize {
        let bytes = self
            .memory()
            .read(at, len.min(1 << 20) as usize)
            .unwrap_or_default();
        let (mut from, mut count) = (0, 0);
        while from + 18 <= bytes.len() {
            match Fields(bytes.get(from..).unwrap_or_default()).u16(16) {
                0 => break,
                step => from += usize::from(step),
            }
            count += 1;
        }
        count
    }

    fn cpus(&self, out: &mut String, at: u64, len: u64) {
        let Some(bytes) = self.memory().read(at, len.min(128) as usize) else {
            return address(out, at);
        };
        out.push('[');
        let mut first = true;
        for cpu in
            (0..bytes.len() * 8).filter(|c| bytes.get(c / 8).is_some_and(|b| b >> (c % 8) & 1 == 1))
        {
            separate(out, &mut first, " ");
            let _ = write!(out, "{cpu}");
        }
        out.push(']');
    }

    /// What single calls write otherwise than by type. `None`: by type.
    fn special(&self, out: &mut String, i: usize, value: u64, result: Option<i64>) -> Option<bool> {
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
                self.fd(out, value as i32);
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
            ("prctl", 1..) => Some(self.prctl(out, i, value)),
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
            ("rt_sigreturn", _) => Some(false),
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
                FUTEX_WAKE | FUTEX_WAKE_BITSET => {
                    return command == FUTEX_WAKE_BITSET && {
                        out.push_str("NULL");
                        true
                    };
                }
                FUTEX_REQUEUE | FUTEX_CMP_REQUEUE | FUTEX_WAKE_OP => {
                    let _ = write!(out, "{}", value as i32);
                }
                _ => self.memory().one(out, Struct::Timespec, value),
            },
            4 => match command {
                FUTEX_WAIT | FUTEX_WAKE => return false,
                FUTEX_WAIT_BITSET | FUTEX_WAKE_BITSET => address(out, value),
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
                match m.read(value, 36) {
                    Some(b) => {
                        let f = Fields(&b);
                        let _ = write!(
                            out,
                            "{{c_iflag={:#x}, c_oflag={:#x}, c_cflag={:#x}, c_lflag={:#x}, ...}}",
                            f.u32(0),
                            f.u32(4),
                            f.u32(8),
                            f.u32(12)
                        );
                    }
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

    fn prctl(&self, out: &mut String, i: usize, value: u64) -> bool {
        match self.arg(0) as i32 {
            libc::PR_SET_NAME if i == 1 => self.memory().str(out, value),
            libc::PR_GET_DUMPABLE
            | libc::PR_GET_KEEPCAPS
            | libc::PR_GET_SECUREBITS
            | libc::PR_SET_NAME
            | libc::PR_GET_TIMERSLACK => return false,
            libc::PR_SET_PDEATHSIG if i == 1 => out.push_str(&sets::signal(value as i64)),
            libc::PR_SET_PDEATHSIG
            | libc::PR_SET_DUMPABLE
            | libc::PR_CAPBSET_READ
            | libc::PR_CAPBSET_DROP
                if i > 1 =>
            {
                return false;
            }
            _ => hex(out, value),
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

    fn clone_args(&self, out: &mut String) {
        let all = self.arg(0);
        out.push_str("child_stack=");
        address(out, self.arg(1));
        out.push_str(", flags=");
        let (signal, bits) = (all & 0xff, all & !0xff);
        if bits != 0 {
            flags(out, bits, sets::of(Set::CLONE));
        }
        if signal != 0 {
            if bits != 0 {
                out.push('|');
            }
            out.push_str(&sets::signal(signal as i64));
        } else if bits == 0 {
            out.push('0');
        }
        let has = |bit: i32| all & (bit as u32 as u64) != 0;
        if has(libc::CLONE_PARENT_SETTID) || has(libc::CLONE_PIDFD) {
            out.push_str(", parent_tid=");
            match self.memory().read(self.arg(2), 4) {
                Some(b) => {
                    let _ = write!(out, "[{}]", Fields(&b).i32(0));
                }
                None => address(out, self.arg(2)),
            }
        }
        if has(libc::CLONE_SETTLS) {
            out.push_str(", tls=");
            address(out, self.arg(4));
        }
        if has(libc::CLONE_CHILD_SETTID) || has(libc::CLONE_CHILD_CLEARTID) {
            out.push_str(", child_tidptr=");
            address(out, self.arg(3));
        }
    }

    /// The result, with what it means.
    pub fn result(&self, out: &mut String, result: i64) {
        if (-4095..0).contains(&result) {
            let errno = -result as i32;
            let _ = match interrupted(errno) {
                Some((name, meaning)) => write!(out, "? {name} ({meaning})"),
                None => {
                    let (name, text) = errno_text(errno);
                    write!(out, "-1 {name} ({text})")
                }
            };
            return;
        }
        match self.row.ret {
            Ret::Addr => hex(out, result as u64),
            Ret::Mode => {
                let _ = write!(out, "{}", octal(result as u32));
            }
            Ret::Fd => self.fd(out, result as i32),
            _ => self.value(out, result),
        }
    }

    fn value(&self, out: &mut String, result: i64) {
        let m = self.memory();
        match (self.row.name, self.arg(1) as i32) {
            ("fcntl", libc::F_GETFD) if result != 0 => out.push_str("0x1 (flags FD_CLOEXEC)"),
            ("fcntl", libc::F_GETFL) => {
                let _ = write!(out, "{result:#x} (flags ");
                open_flags(out, result as u64);
                out.push(')');
            }
            ("fcntl", libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) => self.fd(out, result as i32),
            ("poll" | "ppoll", _) if result == 0 => out.push_str("0 (Timeout)"),
            ("poll" | "ppoll", count) => {
                let _ = write!(out, "{result} ([");
                let bytes = m.read(self.arg(0), 8 * count.clamp(0, 1024) as usize);
                let mut first = true;
                for e in bytes.unwrap_or_default().chunks(8) {
                    let f = Fields(e);
                    if f.u16(6) != 0 {
                        separate(out, &mut first, ", ");
                        let _ = write!(out, "{{fd={}, revents=", f.i32(0));
                        flags(out, f.u16(6).into(), sets::POLL);
                        out.push('}');
                    }
                }
                out.push_str("])");
            }
            ("select" | "pselect6", _) if result == 0 => out.push_str("0 (Timeout)"),
            ("select" | "pselect6", _) => {
                let _ = write!(out, "{result} (");
                let mut first = true;
                for (i, name) in [(1, "in"), (2, "out"), (3, "except")] {
                    let mut set = String::new();
                    m.fd_set(&mut set, self.arg(i), self.arg(0));
                    if self.arg(i) != 0 && set != "[]" {
                        separate(out, &mut first, ", ");
                        let _ = write!(out, "{name} {set}");
                    }
                }
                out.push(')');
            }
            ("rt_sigtimedwait", _) => {
                let _ = write!(out, "{result} ({})", sets::signal(result));
            }
            _ => {
                let _ = write!(out, "{result}");
            }
        }
    }
}

/// Permission bits.
fn octal(mode: u32) -> String {
    match mode {
        0 => "000".into(),
        m => format!("0{m:o}"),
    }
}

/// The kernel's own errnos for a call that a signal interrupts.
fn interrupted(errno: i32) -> Option<(&'static str, &'static str)> {
    Some(match errno {
        512 => ("ERESTARTSYS", "To be restarted if SA_RESTART is set"),
        513 => ("ERESTARTNOINTR", "To be restarted"),
        514 => ("ERESTARTNOHAND", "To be restarted if no handler"),
        516 => ("ERESTART_RESTARTBLOCK", "Interrupted by signal"),
        _ => return None,
    })
}

/// Name and text of an errno, as the C library has them.
pub fn errno_text(errno: i32) -> (String, String) {
    let name = match duet_intercept::Errno::from_raw(errno) {
        duet_intercept::Errno::UnknownErrno => errno.to_string(),
        e => format!("{e:?}"),
    };
    let mut buf = [0 as libc::c_char; 128];
    // SAFETY: the buffer has the length that is announced, and comes back ended by NUL.
    let text = unsafe {
        if libc::strerror_r(errno, buf.as_mut_ptr(), buf.len()) == 0 {
            std::ffi::CStr::from_ptr(buf.as_ptr())
                .to_string_lossy()
                .into_owned()
        } else {
            "unknown error".into()
        }
    };
    (name, text)
}

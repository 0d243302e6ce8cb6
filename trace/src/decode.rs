//! From a call to its text: arguments by the types of the table, with what single calls need beside.

use std::fmt::Write;
use std::ops::Range;

use duet_intercept::Call;
use duet_syscalls::table::{Dir, Len, Ret, Row, Set, Struct, Type};

use crate::sets;
use crate::shapes::{device, mode, open_flags};
use crate::structs::{Fields, Memory};
use crate::text::{address, flags, hex, hex_quoted, one, separate};

/// Arguments as text, separated by commas, and where each stands in it.
#[derive(Clone, Debug, Default)]
pub struct Args {
    /// All that has been decoded.
    pub text: String,
    spans: Vec<(u8, Range<usize>)>,
}

impl Args {
    /// Each argument that is shown: its place among the registers, and its text.
    pub fn each(&self) -> impl Iterator<Item = (usize, &str)> {
        let part = |(i, range): &(u8, Range<usize>)| {
            (
                usize::from(*i),
                self.text.get(range.clone()).unwrap_or_default(),
            )
        };
        self.spans.iter().map(part)
    }

    /// Adds an argument behind `label`; `write` says whether there is anything to show.
    pub(crate) fn add(&mut self, i: usize, label: &str, write: impl FnOnce(&mut String) -> bool) {
        let before = self.text.len();
        if !self.spans.is_empty() {
            self.text.push_str(", ");
        }
        self.text.push_str(label);
        let start = self.text.len();
        if write(&mut self.text) {
            self.spans.push((i as u8, start..self.text.len()));
        } else {
            self.text.truncate(before);
        }
    }
}

/// A call about to be written.
pub struct Decoder<'a> {
    /// The call.
    pub call: &'a Call,
    /// Its row.
    pub row: &'a Row,
    /// The memory of the thread that makes it.
    pub memory: Memory<'a>,
    /// What [`Decoder::before`] found at the entry of the call.
    pub before: u64,
}

impl Decoder<'_> {
    pub(crate) fn memory(&self) -> Memory<'_> {
        self.memory
    }

    pub(crate) fn arg(&self, i: usize) -> u64 {
        self.call.args.get(i).copied().unwrap_or(0)
    }

    /// How many arguments can be written before the call has run.
    pub fn known_at_entry(&self) -> usize {
        let late = (0..self.row.args.len()).find(|&i| self.is_late(i));
        late.unwrap_or(self.row.args.len())
    }

    fn is_late(&self, i: usize) -> bool {
        match self.row.name {
            "clone" => i == 2,
            "futex" | "set_tid_address" | "rseq" | "poll" | "ppoll" | "select" | "pselect6"
            | "rt_sigreturn" | "brk" => false,
            "ioctl" => i == 2,
            "mincore" => i == 2,
            "arch_prctl" => i == 1 && matches!(self.arg(0), 0x1003 | 0x1004),
            "fcntl" => i == 2 && matches!(self.arg(1) as i32, libc::F_GETLK | libc::F_OFD_GETLK),
            "prctl" => self.prctl_is_late(i),
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

    /// What must be kept of memory that the call changes: the length or the offset that it starts from.
    pub fn before(&self) -> u64 {
        let (place, size) = match self.row.name {
            "sendfile" => (2, 8),
            _ => match self.length_place() {
                Some(i) => (i, 4),
                None => return 0,
            },
        };
        let bytes = self.memory.read(self.arg(place), size);
        bytes.map_or(0, |b| match size {
            4 => u64::from(Fields(&b).u32(0)),
            _ => Fields(&b).u64(0),
        })
    }

    /// The argument that points to the length of another.
    pub(crate) fn length_place(&self) -> Option<usize> {
        self.row.args.iter().find_map(|a| match a.ty {
            Type::Ptr {
                len: Len::SizedAt(i),
                ..
            } => Some(usize::from(i)),
            _ => None,
        })
    }

    /// Adds arguments `from..to`. `result` is known afterwards.
    pub fn args(&self, out: &mut Args, from: usize, to: usize, result: Option<i64>) {
        if self.row.name == "clone" {
            if from == 0 && to > 0 {
                self.clone_flags(out);
            }
            if to == self.row.args.len() {
                self.clone_places(out);
            }
            return;
        }
        if self.row.name == "rt_sigreturn" && from == 0 && result.is_none() {
            out.add(0, "", |text| self.restored_mask(text));
        }
        for i in from..to.min(self.row.args.len()) {
            out.add(i, "", |text| self.arg_text(text, i, result));
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
            Type::Fd | Type::DirFd => self.memory().fd(out, value as i32),
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
                let bits = value as u32;
                if bits & libc::S_IFMT != 0 {
                    mode(out, bits);
                } else {
                    let _ = write!(out, "{}", octal(bits));
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
                let size = size.map_or(0, |s| u64::from(Fields(&s).u32(0)));
                size.min(self.before)
            }
        };
        let valid = match (self.row.ret, written) {
            (Ret::Bytes | Ret::Count, Some(n)) if !matches!(len, Len::SizedAt(_)) => room.min(n),
            _ => room,
        };
        match to {
            Struct::Bytes if self.row.name == "getrandom" => {
                let shown = valid.min(self.memory.limit as u64) as usize;
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
            Struct::Mmsghdr => {
                let done = result.map(|r| r.max(0) as u64);
                m.messages(out, at, room, done, self.row.name == "recvmmsg");
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
            Struct::CloneArgs => {
                m.one(out, to, at);
                if result.is_some_and(|r| r > 0) {
                    m.made_thread(out, at);
                }
            }
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
}

/// Permission bits.
pub(crate) fn octal(mode: u32) -> String {
    match mode {
        0 => "000".into(),
        m => format!("0{m:o}"),
    }
}

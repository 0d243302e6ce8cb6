//! Structures in guest memory, as strace(1) abbreviates them. Every address, length and content is the
//! guest's; what cannot be read is shown as its address.

use std::fmt::Write;

use duet_intercept::{Tid, mem};
use duet_syscalls::table::Struct;

use crate::text::{address, quoted, separate};

/// Elements of an array that are shown.
const ELEMENTS: usize = 32;
/// The same, if all are asked for: what a hostile length may cost.
const MOST: usize = 4096;

/// Bytes of text behind which strings and buffers of a call are shown as addresses only: what many of them
/// may cost together.
const MOST_TEXT: usize = 8 << 20;

/// Little-endian numbers out of bytes; 0 beyond the end.
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub(crate) fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let part = self.0.get(at..at + N);
        part.and_then(|p| p.try_into().ok()).unwrap_or([0; N])
    }

    /// 8 bits.
    pub fn byte(&self, at: usize) -> u8 {
        let [byte] = self.bytes(at);
        byte
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

    pub(crate) fn string(&self, at: usize, len: usize) -> &[u8] {
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
        Struct::Sigevent => 64,
        Struct::CloneArgs => 88,
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

/// Says what a descriptor of a thread is, as the guest sees it, between `<` and `>`.
pub type NameOf<'a> = &'a dyn Fn(Tid, i32) -> Option<String>;

/// What is shown of guest memory, and how much of it.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    /// Whose.
    pub tid: Tid,
    /// Bytes of strings and buffers that are shown (`-s`).
    pub limit: usize,
    /// Structures and arrays are shown whole (`--no-abbrev`).
    pub full: bool,
    /// Names of descriptors, if they are to be shown (`-y`).
    pub name_of: Option<NameOf<'a>>,
}

impl Memory<'_> {
    /// A descriptor.
    pub fn fd(&self, out: &mut String, fd: i32) {
        if fd == libc::AT_FDCWD {
            out.push_str("AT_FDCWD");
        } else {
            let _ = write!(out, "{fd}");
        }
        if let Some(name) = self.name_of.and_then(|name_of| name_of(self.tid, fd)) {
            out.push_str(&name);
        }
    }

    /// Elements of an array that are shown.
    fn elements(&self) -> usize {
        if self.full { MOST } else { ELEMENTS }
    }

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

    /// The name of a thread: 15 bytes at most.
    pub fn name(&self, out: &mut String, addr: u64) {
        self.text(out, addr, 15);
    }

    /// A string, cut at the limit.
    pub fn str(&self, out: &mut String, addr: u64) {
        self.text(out, addr, self.limit);
    }

    fn text(&self, out: &mut String, addr: u64, max: usize) {
        match self.string(addr, max) {
            _ if out.len() > MOST_TEXT => address(out, addr),
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
        if out.len() > MOST_TEXT {
            return address(out, addr);
        }
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
        for _ in 0..self.elements() {
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
        let shown = usize::try_from(count)
            .unwrap_or(usize::MAX)
            .min(self.elements());
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
        let shown = count.min(self.elements() as u64) as usize;
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

    /// `nfds` bits of an `fd_set`, by number only.
    pub fn fd_numbers(&self, out: &mut String, addr: u64, nfds: u64) {
        let plain = Memory {
            name_of: None,
            ..*self
        };
        plain.fd_set(out, addr, nfds);
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
            self.fd(out, fd as i32);
        }
        out.push(']');
    }
}

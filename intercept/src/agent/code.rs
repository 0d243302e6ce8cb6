//! The agent's code, and what makes a site of a guest jump to it.
//!
//! A *site* is an instruction pair `mov eax, NUMBER; syscall`, as every wrapper of glibc has it, seven
//! bytes. Its first five are replaced, so that with the last two, which stay, they read
//!
//! ```text
//! ff 24 25 XX XX 0f 05    jmp qword ptr [0x050fXXXX]
//! ```
//!
//! Whoever jumps to the `syscall` instruction itself still finds it, and so does the agent where it does
//! not serve a call. The address that is jumped to is read from a table, which therefore has to lie at
//! `0x050f0000`: 84 MiB, where programs are rarely. All parts of the agent lie there:
//!
//! | at | what | protection | after `fork` |
//! |---|---|---|---|
//! | [`BASE`] | table of addresses; of each site the return address, the call's number and roles; trampolines | read, execute | kept |
//! | +0x1000 | the code | read, execute | kept |
//! | [`DATA`] | lock, owner, socket | read, write | wiped |
//! | [`KEPT`] | registers of the call under way, the message with a descriptor | read, write | kept |
//! | [`CHANNEL`] | shared with the supervisor | read, write | not there |
//!
//! # Why it is right to run it
//!
//! - It serves the one thread it was made for, which it knows by gettid(2), and one call at a time:
//!   all others, and calls of a handler that has interrupted it, go to the site's `syscall`.
//! - Memory that the caller names is touched only after the kernel has touched it in a call that does
//!   nothing else: rt_sigprocmask(2) with an operation that does not exist reads, rt_sigpending(2)
//!   writes. What the kernel cannot touch is left to the kernel, or is `EFAULT`.
//! - What it receives a descriptor from is the socket that it was given: the kernel's cookie of it tells.
//! - While a call is asked for that changes something, the thread blocks all signals, from before it is asked for
//!   until it has ended or been withdrawn: whatever the handler of a signal does then comes before the call or after
//!   it, as it does with a call of the kernel's.
//! - It needs no stack, and keeps all registers that the kernel keeps, flags included.

use std::arch::global_asm;

use super::channel;

/// Where the agent lies.
pub const BASE: u64 = 0x050f_0000;
/// How many sites one process can have.
pub const MOST_SITES: usize = 48;
/// Where code lies.
pub const CODE: u64 = BASE + 0x1000;
/// Where its private memory lies.
pub const DATA: u64 = BASE + 0x2000;
/// Where the part of it lies that a child keeps.
pub const KEPT: u64 = BASE + 0x3000;
/// Where the channel lies.
pub const CHANNEL: u64 = BASE + 0x4000;
/// Bytes of table and code.
pub const TEXT_SIZE: usize = 0x2000;
/// Bytes of its private memory.
pub const DATA_SIZE: usize = 0x2000;
/// Bytes of that which a child finds zero.
pub const WIPED_SIZE: usize = 0x1000;

/// Parts of the first page.
const RETURNS: u64 = BASE + 0x400;
const ROLES: u64 = BASE + 0x800;
const TRAMPOLINES: u64 = BASE + 0xa00;
const TRAMPOLINE_SIZE: u64 = 16;
const MARK: u64 = BASE + 0xff8;
/// What stands at [`MARK`].
const MARK_TEXT: [u8; 8] = *b"duet agt";

const _: () = assert!(TRAMPOLINES + TRAMPOLINE_SIZE * MOST_SITES as u64 <= MARK);
const _: () = assert!(RETURNS + 8 * MOST_SITES as u64 <= ROLES);
const _: () = assert!(ROLES + 8 * MOST_SITES as u64 <= TRAMPOLINES);

/// Where the owner's thread id is kept, in its own numbers; 0 for nobody.
pub const OWNER: u64 = DATA + 4;
/// Where the number of the socket is kept that descriptors come by; 0 for none.
pub const SOCKET: u64 = DATA + 8;
/// Where a child finds the socket that it has inherited: its cookie, and its number.
pub const COOKIE: u64 = KEPT + 128;
/// The `struct msghdr` that descriptors are received with, and what it points to: an eight-byte tag, and a
/// `struct cmsghdr` with one descriptor.
const MESSAGE: u64 = KEPT + 192;
const VECTOR: u64 = MESSAGE + size_of::<libc::msghdr>() as u64;
const TAG: u64 = VECTOR + size_of::<libc::iovec>() as u64;
const CONTROL: u64 = TAG + 8;
/// `CMSG_SPACE` of one descriptor.
const CONTROL_SIZE: u64 = 24;

const _: () = assert!(size_of::<libc::cmsghdr>() == 16);

global_asm!(
    include_str!("agent.S"),
    LOCK = const DATA,
    OWNER = const OWNER,
    RETURN = const KEPT,
    NUMBER = const KEPT + 8,
    FLAGS = const KEPT + 12,
    PATH_ARG = const KEPT + 16,
    OUT_ARG = const KEPT + 20,
    VALUE = const KEPT + 24,
    SAVED = const KEPT + 64,
    SOCKET = const SOCKET,
    COOKIE = const COOKIE,
    COOKIE_SEEN = const KEPT + 144,
    COOKIE_LEN = const KEPT + 152,
    OTHER_ARG = const KEPT + 32,
    KIND = const KEPT + 36,
    BLOCKED = const KEPT + 40,
    OLD_MASK = const KEPT + 48,
    GIVES = const GIVES,
    CHANGES = const CHANGES,
    OTHER_STRING = const OTHER_STRING,
    OTHER_TIMES = const OTHER_TIMES,
    OTHER_FLAGS = const OTHER_FLAGS,
    OPEN_CHANGES = const libc::O_CREAT | libc::O_TRUNC,
    MESSAGE = const MESSAGE,
    MESSAGE_FLAGS = const MESSAGE + std::mem::offset_of!(libc::msghdr, msg_flags) as u64,
    CONTROL_LEN = const MESSAGE + std::mem::offset_of!(libc::msghdr, msg_controllen) as u64,
    CONTROL_SIZE = const CONTROL_SIZE,
    CONTROL_FD = const CONTROL + size_of::<libc::cmsghdr>() as u64,
    TAG = const TAG,
    RETURNS = const RETURNS,
    ROLES = const ROLES,
    STATE = const CHANNEL + channel::STATE as u64,
    LISTENS = const CHANNEL + channel::LISTENS as u64,
    CALL_NUMBER = const CHANNEL + channel::NUMBER as u64,
    CALL_ARGS = const CHANNEL + channel::ARGS as u64,
    RESULT = const CHANNEL + channel::RESULT as u64,
    OUT_LEN = const CHANNEL + channel::OUT_LEN as u64,
    PATH = const CHANNEL + channel::PATH as u64,
    PATH_ROOM = const channel::PATH_ROOM,
    OTHER = const CHANNEL + channel::OTHER as u64,
    OUT = const CHANNEL + channel::OUT as u64,
    ASKED = const channel::ASKED,
    TAKEN = const channel::TAKEN,
    DONE = const channel::DONE,
    PASSED = const channel::PASSED,
    LOST = const channel::LOST,
    OWED = const channel::OWED,
    PATIENCE = const 200,
    NO_HOW = const 99,
    SYS_GETTID = const libc::SYS_gettid,
    SYS_RT_SIGPROCMASK = const libc::SYS_rt_sigprocmask,
    SYS_RT_SIGPENDING = const libc::SYS_rt_sigpending,
    SYS_SCHED_YIELD = const libc::SYS_sched_yield,
    SYS_GETSOCKOPT = const libc::SYS_getsockopt,
    SYS_RECVMSG = const libc::SYS_recvmsg,
    SYS_CLOSE = const libc::SYS_close,
    SOL_SOCKET = const libc::SOL_SOCKET,
    SO_COOKIE = const libc::SO_COOKIE,
    MSG_CTRUNC = const libc::MSG_CTRUNC,
    MINUS_EINVAL = const -libc::EINVAL,
    MINUS_EFAULT = const -libc::EFAULT,
    MINUS_EMFILE = const -libc::EMFILE,
    MINUS_ENFILE = const -libc::ENFILE,
    SIG_SETMASK = const libc::SIG_SETMASK,
);

unsafe extern "C" {
    static duet_agent_start: u8;
    static duet_agent_end: u8;
}

/// The code that lies at [`CODE`].
pub fn code() -> &'static [u8] {
    // SAFETY: both are labels around one block of read-only bytes.
    unsafe {
        let start = &raw const duet_agent_start;
        let len = (&raw const duet_agent_end).offset_from(start);
        std::slice::from_raw_parts(start, len as usize)
    }
}

/// What the arguments of a call mean to the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// The one that points to a path.
    pub path: Option<u8>,
    /// The one that points to where a result goes.
    pub out: Option<u8>,
    /// What one more says.
    pub other: Option<(u8, Other)>,
    /// Whether the call gives a descriptor.
    pub descriptor: bool,
    /// Whether it changes something, and must not be made twice.
    pub changes: bool,
}

/// What an argument says to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It points to a string.
    String,
    /// It points to [`channel::TIMES_LEN`] bytes, or nowhere.
    Times,
    /// It has the flags of an open, which tell whether that changes something.
    Flags,
}

/// Bits of what a site has of that.
const GIVES: u8 = 1;
const CHANGES: u8 = 2;
const OTHER_STRING: u8 = 4;
const OTHER_TIMES: u8 = 8;
const OTHER_FLAGS: u8 = 16;

impl Roles {
    fn bytes(self, nr: u32) -> [u8; 8] {
        const NONE: u8 = 0xff;
        let [a, b, c, d] = nr.to_le_bytes();
        let (path, out) = (self.path.unwrap_or(NONE), self.out.unwrap_or(NONE));
        let (other, mut kind) = match self.other {
            None => (NONE, 0),
            Some((arg, Other::String)) => (arg, OTHER_STRING),
            Some((arg, Other::Times)) => (arg, OTHER_TIMES),
            Some((arg, Other::Flags)) => (arg, OTHER_FLAGS),
        };
        for (is_so, bit) in [(self.descriptor, GIVES), (self.changes, CHANGES)] {
            kind |= if is_so { bit } else { 0 };
        }
        [a, b, c, d, path, out, other, kind]
    }
}

/// What a process finds of a socket that it is given at `number`: all that receiving needs, and how it is known.
pub fn socket(number: i32, cookie: u64) -> [Piece; 3] {
    let mut message = Vec::new();
    // No name; one vector; one control message; no flags.
    for field in [0, 0, VECTOR, 1, CONTROL, CONTROL_SIZE, 0, TAG, 8] {
        message.extend(field.to_le_bytes());
    }
    let mut known = cookie.to_le_bytes().to_vec();
    known.extend(u64::from(number.unsigned_abs()).to_le_bytes());
    [
        Piece::new(MESSAGE, message),
        Piece::new(COOKIE, known),
        Piece::new(SOCKET, number.to_le_bytes()),
    ]
}

/// Bytes of a site.
pub const SITE_LEN: usize = 7;
/// Bytes of it that are replaced.
pub const PATCH_LEN: usize = 5;

/// Whether `bytes`, which end before `ip`, end in a site of call `nr`. The byte before a site tells
/// whether the site could be part of longer instructions.
pub fn is_site(bytes: &[u8; SITE_LEN + 1], nr: u32) -> bool {
    let [before, mov, n0, n1, n2, n3, s0, s1] = *bytes;
    let prefix = matches!(before, 0x40..=0x4f | 0x66 | 0x0f);
    !prefix && mov == 0xb8 && [s0, s1] == [0x0f, 0x05] && u32::from_le_bytes([n0, n1, n2, n3]) == nr
}

/// A piece of memory to be written.
pub struct Piece {
    /// Where.
    pub addr: u64,
    /// What.
    pub bytes: Vec<u8>,
}

impl Piece {
    fn new(addr: u64, bytes: impl Into<Vec<u8>>) -> Piece {
        Piece {
            addr,
            bytes: bytes.into(),
        }
    }
}

/// What is written once in a process that has no agent.
pub fn text() -> [Piece; 2] {
    [Piece::new(CODE, code()), Piece::new(MARK, MARK_TEXT)]
}

/// Where to read what tells whether a process has an agent's text, one that it was forked with; and what it
/// reads then.
pub fn mark() -> (u64, [u8; 8]) {
    (MARK, MARK_TEXT)
}

/// Where to read the return addresses of the sites that a process has.
pub fn returns() -> (u64, usize) {
    (RETURNS, 8 * MOST_SITES)
}

/// What makes site `index`, whose `syscall` ends at `ip`, go to the agent; the site itself is the last
/// piece.
pub fn site(index: usize, ip: u64, nr: u32, roles: Roles) -> [Piece; 5] {
    let (n, entry) = (index as u64, BASE + 8 * index as u64);
    let trampoline = TRAMPOLINES + TRAMPOLINE_SIZE * n;
    // mov ecx, index; jmp CODE
    let mut jump = vec![0xb9];
    jump.extend((index as u32).to_le_bytes());
    jump.push(0xe9);
    jump.extend((CODE.wrapping_sub(trampoline + 10) as u32).to_le_bytes());
    let low = (entry & 0xffff) as u16;
    let [x, y] = low.to_le_bytes();
    [
        Piece::new(RETURNS + 8 * n, ip.to_le_bytes()),
        Piece::new(ROLES + 8 * n, roles.bytes(nr)),
        Piece::new(trampoline, jump),
        Piece::new(entry, trampoline.to_le_bytes()),
        Piece::new(ip - SITE_LEN as u64, [0xff, 0x24, 0x25, x, y]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_fits() {
        assert!(code().len() <= (DATA - CODE) as usize, "{}", code().len());
        assert_eq!(code().first(), Some(&0x9f));
    }

    #[test]
    fn a_patched_site_still_ends_in_its_call() {
        let pieces = site(
            3,
            0x7000_0007,
            4,
            Roles {
                path: Some(0),
                out: Some(1),
                ..Roles::default()
            },
        );
        let patch = &pieces[4];
        assert_eq!((patch.addr, patch.bytes.len()), (0x7000_0000, PATCH_LEN));
        let mut all = patch.bytes.clone();
        all.extend([0x0f, 0x05]);
        // The address in it is that of the table's entry.
        assert_eq!(all[..3], [0xff, 0x24, 0x25]);
        let address = u32::from_le_bytes([all[3], all[4], all[5], all[6]]);
        assert_eq!(u64::from(address), BASE + 24);
        assert_eq!(pieces[3].addr, BASE + 24);
    }

    #[test]
    fn what_could_be_part_of_another_instruction_is_no_site() {
        let site = [0xca, 0xb8, 4, 0, 0, 0, 0x0f, 0x05];
        assert!(is_site(&site, 4) && !is_site(&site, 5));
        // mov r8d, 4
        assert!(!is_site(&[0x41, 0xb8, 4, 0, 0, 0, 0x0f, 0x05], 4));
        assert!(!is_site(&[0xca, 0xb9, 4, 0, 0, 0, 0x0f, 0x05], 4));
    }
}

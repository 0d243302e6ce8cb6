//! The memory that an agent and the supervisor share, and its protocol.
//!
//! # States
//!
//! ```text
//!            agent            lookout
//!   idle ───────────► ASKED ───────────► TAKEN ──► DONE, PASSED, OWED, DECLINED, LOST ──► idle
//!    ▲                  │ │                                                      (agent)
//!    └──────────────────┘ └────────────► DECLINED
//!      agent: withdrawn      nobody looks
//! ```
//!
//! The agent writes a call and sets the state to `ASKED`. From there two go on, each by a compare-and-swap, so that
//! one of them does: the lookout takes the call (`TAKEN`), or the agent withdraws it when nobody has for a while. The
//! supervisor declines what nobody will look at. Of a call that is `TAKEN` the agent awaits what comes of it, however
//! long that takes:
//!
//! | state | what has come of it | what the agent does |
//! |---|---|---|
//! | `DONE` | a result, and what goes to the caller's memory | returns it |
//! | `PASSED` | a descriptor has been sent over the socket, with the tag that the answer names | receives it |
//! | `OWED` | the call has been made, and its descriptor could not be sent | makes the same call as a notification, which is answered with the descriptor |
//! | `DECLINED` | nothing | makes the call itself |
//! | `LOST` | nothing, and nothing will of calls that give a descriptor | makes the call itself, and these |
//!
//! # Once
//!
//! A call that changes something has to be made once, whatever happens meanwhile. So the lookout declines it before
//! it has begun, or not at all; and the agent blocks all signals while it asks, so that
//!
//! - no handler runs, which could make calls that come in between, jump away, or fork;
//! - no child is forked that finds the call asked for, as the thread itself cannot fork meanwhile, and other threads
//!   fork themselves alone;
//! - a signal that comes meanwhile is delivered behind the call, as if it had come a little later.
//!
//! `SIGKILL` and an `execve` of another thread end the thread at once: a call that is `TAKEN` is then made all the
//! same, as is one that has been received as a notification. One that is `ASKED` goes away with the memory, or is
//! declined. A call that only looks may be made twice, and is asked for with signals as they are.
//!
//! The guest can write all of it at any time: it is read once, and nothing in it is trusted. A guest that does not
//! keep to the protocol has calls made twice or not at all, which it may as well ask for.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::{Errno, Result};

/// Offsets. A call is one cache line, and its path the next; an answer comes in the first, where the arguments
/// have been.
pub(super) const STATE: usize = 0;
pub(super) const NUMBER: usize = 4;
pub(super) const ARGS: usize = 8;
pub(super) const RESULT: usize = 8;
pub(super) const OUT_LEN: usize = 16;
pub(super) const PATH: usize = 64;
pub(super) const OTHER: usize = 2048;
pub(super) const LISTENS: usize = 3072;
pub(super) const OUT: usize = 4096;

const _: () =
    assert!(PATH + PATH_ROOM <= OTHER && OTHER + PATH_ROOM <= LISTENS && ARGS + 6 * 8 <= PATH);

/// Bytes of a path, NUL included; longer ones take the other way.
pub const PATH_ROOM: usize = 1024;
/// Bytes of the two times that a call points to.
pub const TIMES_LEN: usize = 32;
/// Bytes that an answer may put into the caller's memory.
pub const OUT_ROOM: usize = 32 << 10;
/// Bytes in all.
pub const SIZE: usize = OUT + OUT_ROOM;

/// States; 0 is idle.
pub(super) const ASKED: u32 = 1;
pub(super) const TAKEN: u32 = 2;
pub(super) const DONE: u32 = 3;
pub(super) const DECLINED: u32 = 4;
pub(super) const PASSED: u32 = 5;
pub(super) const LOST: u32 = 6;
pub(super) const OWED: u32 = 7;

/// A call that an agent asks for. All of it is chosen by the guest.
pub struct Request {
    /// System call number.
    pub nr: u32,
    /// The argument registers.
    pub args: [u64; 6],
    /// The path without its NUL, if the call has one.
    pub path: Vec<u8>,
}

/// One channel.
pub struct Channel {
    memory: NonNull<u8>,
    fd: OwnedFd,
}

// SAFETY: the memory is mapped until the channel is dropped, and only accessed by atomic operations.
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl Channel {
    /// A channel that nobody uses yet.
    pub fn new() -> Result<Channel> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
        // SAFETY: a C string, and flags.
        let fd = Errno::result(unsafe { libc::memfd_create(c"duet-agent".as_ptr(), flags) })?;
        // SAFETY: the kernel has just returned this descriptor to us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Sealed, so that no guest can shorten what the supervisor reads.
        let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        // SAFETY: integers, and a null hint; the result is checked.
        let memory = unsafe {
            Errno::result(libc::ftruncate(fd.as_raw_fd(), SIZE as libc::off_t))?;
            Errno::result(libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals))?;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                SIZE,
                protection,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let memory = NonNull::new(memory.cast()).ok_or(Errno::ENOMEM)?;
        Ok(Channel { memory, fd })
    }

    /// For the agent to map.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4) && offset + 4 <= SIZE);
        // SAFETY: within the mapping and aligned; every caller passes one of the constants.
        unsafe { self.memory.byte_add(offset).cast().as_ref() }
    }

    fn long(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= SIZE);
        // SAFETY: as above.
        unsafe { self.memory.byte_add(offset).cast().as_ref() }
    }

    fn longs(&self, offset: usize, len: usize) -> &[AtomicU64] {
        assert!(offset.is_multiple_of(8) && offset <= SIZE && len <= (SIZE - offset) / 8);
        // SAFETY: within the mapping and aligned, as has just been checked.
        unsafe {
            let start = self.memory.byte_add(offset).cast();
            std::slice::from_raw_parts(start.as_ptr(), len)
        }
    }

    /// Tells the agent whether somebody looks. What is asked for when that changes is declined: its caller may have
    /// left it by a jump long ago.
    pub fn listen(&self, listens: bool) {
        if listens {
            self.decline_asked();
        }
        self.word(LISTENS).store(listens.into(), Ordering::SeqCst);
        if !listens {
            self.decline_asked();
        }
    }

    fn decline_asked(&self) {
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        let state = self.word(STATE);
        // It was withdrawn, or there is none.
        let _ = state.compare_exchange(ASKED, DECLINED, acquire, relaxed);
    }

    /// Takes the call that is asked for, if there is one.
    pub fn take(&self) -> Option<Request> {
        let state = self.word(STATE);
        if state.load(Ordering::Relaxed) != ASKED {
            return None;
        }
        let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
        state
            .compare_exchange(ASKED, TAKEN, acquire, relaxed)
            .ok()?;
        let mut args = [0; 6];
        for (i, arg) in args.iter_mut().enumerate() {
            *arg = self.long(ARGS + 8 * i).load(relaxed);
        }
        Some(Request {
            nr: self.word(NUMBER).load(relaxed),
            args,
            path: self.string(PATH),
        })
    }

    /// The other string of the call that was taken, without its NUL.
    pub fn other_string(&self) -> Vec<u8> {
        self.string(OTHER)
    }

    /// The times of the call that was taken.
    pub fn times(&self) -> [u8; TIMES_LEN] {
        let mut all = [0; TIMES_LEN];
        let longs = self.longs(OTHER, TIMES_LEN / 8);
        for (to, from) in all.as_chunks_mut::<8>().0.iter_mut().zip(longs) {
            *to = from.load(Ordering::Relaxed).to_le_bytes();
        }
        all
    }

    fn string(&self, at: usize) -> Vec<u8> {
        let mut string = Vec::with_capacity(64);
        for long in self.longs(at, PATH_ROOM / 8) {
            let bytes = long.load(Ordering::Relaxed).to_le_bytes();
            let end = bytes.iter().position(|&b| b == 0);
            string.extend_from_slice(bytes.get(..end.unwrap_or(8)).unwrap_or_default());
            if end.is_some() {
                break;
            }
        }
        string
    }

    /// Answers the call that was taken. `out`, at most [`OUT_ROOM`] bytes, goes to the caller's memory.
    pub fn answer(&self, result: i64, out: &[u8]) {
        let out = out.get(..OUT_ROOM).unwrap_or(out);
        let room = self.longs(OUT, OUT_ROOM / 8);
        for (to, from) in room.iter().zip(out.chunks(8)) {
            let mut bytes = [0; 8];
            if let Some(bytes) = bytes.get_mut(..from.len()) {
                bytes.copy_from_slice(from);
            }
            to.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        self.word(OUT_LEN)
            .store(out.len() as u32, Ordering::Relaxed);
        self.long(RESULT).store(result as u64, Ordering::Relaxed);
        self.word(STATE).store(DONE, Ordering::Release);
    }

    /// Answers the call that was taken with the descriptor that was sent with `tag`.
    pub fn pass(&self, tag: u64, cloexec: bool) {
        let cloexec = if cloexec { libc::MSG_CMSG_CLOEXEC } else { 0 };
        self.word(OUT_LEN)
            .store((libc::MSG_DONTWAIT | cloexec) as u32, Ordering::Relaxed);
        self.long(RESULT).store(tag, Ordering::Relaxed);
        self.word(STATE).store(PASSED, Ordering::Release);
    }

    /// Has the agent make the call that was taken as a notification, for what has come of it.
    pub fn owe(&self) {
        self.word(STATE).store(OWED, Ordering::Release);
    }

    /// Leaves the call that was taken to the agent, and from now on all that give a descriptor.
    pub fn give_up_socket(&self) {
        self.word(STATE).store(LOST, Ordering::Release);
    }

    /// Leaves the call that was taken to the agent.
    pub fn decline(&self) {
        self.word(STATE).store(DECLINED, Ordering::Release);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody refers to it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what an agent does, or a guest in its place.
    fn ask(channel: &Channel, nr: u32, path: &[u8]) {
        let chunks = path.chunks(8);
        for (to, from) in channel.longs(PATH, PATH_ROOM / 8).iter().zip(chunks) {
            let mut bytes = [0; 8];
            bytes[..from.len()].copy_from_slice(from);
            to.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        channel.word(NUMBER).store(nr, Ordering::Relaxed);
        channel.word(STATE).store(ASKED, Ordering::Release);
    }

    #[test]
    fn a_call_is_taken_once_and_answered() {
        let channel = Channel::new().unwrap();
        assert!(channel.take().is_none());
        ask(&channel, 4, b"/some/path\0rubbish");
        let request = channel.take().unwrap();
        assert_eq!((request.nr, &request.path[..]), (4, &b"/some/path"[..]));
        assert!(channel.take().is_none());
        channel.answer(-2, b"twelve bytes");
        assert_eq!(channel.word(STATE).load(Ordering::Acquire), DONE);
        assert_eq!(channel.long(RESULT).load(Ordering::Relaxed) as i64, -2);
        assert_eq!(channel.word(OUT_LEN).load(Ordering::Relaxed), 12);
        let first = channel.long(OUT).load(Ordering::Relaxed).to_le_bytes();
        assert_eq!(&first, b"twelve b");
    }

    #[test]
    fn what_is_withdrawn_is_not_taken_and_what_is_taken_not_withdrawn() {
        let channel = Channel::new().unwrap();
        let withdraw = || {
            let state = channel.word(STATE);
            let relaxed = Ordering::Relaxed;
            state.compare_exchange(ASKED, 0, relaxed, relaxed).is_ok()
        };
        ask(&channel, 87, b"file");
        assert!(withdraw() && channel.take().is_none());
        ask(&channel, 87, b"file");
        assert!(channel.take().is_some() && !withdraw());
        // Nobody looks any more: what was taken is answered all the same.
        channel.listen(false);
        assert_eq!(channel.word(STATE).load(Ordering::Relaxed), TAKEN);
    }

    #[test]
    fn sizes_are_bounded() {
        let channel = Channel::new().unwrap();
        ask(&channel, 4, &[b'x'; PATH_ROOM + 100]);
        assert_eq!(channel.take().unwrap().path.len(), PATH_ROOM);
        for long in channel.longs(OTHER, PATH_ROOM / 8) {
            long.store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(channel.other_string().len(), PATH_ROOM);
        assert_eq!(channel.times(), [0xff; TIMES_LEN]);
        channel.answer(0, &vec![1; OUT_ROOM + 100]);
        assert_eq!(
            channel.word(OUT_LEN).load(Ordering::Relaxed) as usize,
            OUT_ROOM
        );
    }

    #[test]
    fn it_cannot_be_cut_short() {
        let channel = Channel::new().unwrap();
        // SAFETY: integers.
        let n = unsafe { libc::ftruncate(channel.fd().as_raw_fd(), 0) };
        assert_eq!(Errno::result(n), Err(Errno::EPERM));
    }
}

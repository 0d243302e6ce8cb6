//! The two halves of a request in the guest's memory, and file I/O straight to and from them.
//!
//! What the guest has written can change while it is looked at, so every value is copied out once
//! before it is judged. File contents are not judged, and move between file and guest memory without a
//! copy of ours.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use vm_memory::VolatileSlice;

/// Pieces moved by one call of preadv(2) or pwritev(2); `IOV_MAX` is 1024.
const IOV_MAX: usize = 256;

/// Pieces of guest memory, read or written from front to back.
pub struct Segments<'a> {
    pieces: Vec<VolatileSlice<'a>>,
    /// The first piece that is not used up.
    next: usize,
    len: usize,
}

impl<'a> Segments<'a> {
    /// All of `pieces`, in their order.
    pub fn new(pieces: Vec<VolatileSlice<'a>>) -> Segments<'a> {
        // A sum beyond usize would need more memory than there is addresses: pieces may overlap.
        let len = pieces
            .iter()
            .fold(0usize, |sum, p| sum.saturating_add(p.len()));
        Segments {
            pieces,
            next: 0,
            len,
        }
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the first `bytes` off (fewer, if there are fewer) as segments of their own.
    pub fn split_to(&mut self, bytes: usize) -> Segments<'a> {
        let mut front = Vec::new();
        let mut want = bytes;
        while want > 0 {
            let Some(piece) = self.pieces.get_mut(self.next) else {
                break;
            };
            if piece.len() <= want {
                want -= piece.len();
                front.push(*piece);
                self.next += 1;
            } else if let (Ok(head), Ok(tail)) = (piece.subslice(0, want), piece.offset(want)) {
                front.push(head);
                *piece = tail;
                want = 0;
            }
        }
        let front = Segments::new(front);
        self.len -= front.len.min(self.len);
        front
    }

    /// Copies out the next bytes: all of `buf`, or as many as are left. Returns how many.
    pub fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        for piece in self.split_to(buf.len()).pieces {
            done += piece.copy_to(&mut buf[done..]);
        }
        done
    }

    /// Copies `bytes` in, as far as there is room. Returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for piece in self.split_to(bytes.len()).pieces {
            let rest = &bytes[done..];
            piece.copy_from(rest);
            done += piece.len().min(rest.len());
        }
        done
    }

    /// Fills with what `fd` holds at `offset`, until full or the end of the file. Returns how much.
    pub fn fill_from(self, fd: BorrowedFd<'_>, offset: u64) -> Result<usize, Errno> {
        self.transfer(fd, offset, libc::preadv)
    }

    /// Writes all to `fd` at `offset`. Returns how much was written: less than all after an error in
    /// the middle.
    pub fn drain_to(self, fd: BorrowedFd<'_>, offset: u64) -> Result<usize, Errno> {
        self.transfer(fd, offset, libc::pwritev)
    }

    /// Receives what the socket has, without waiting. `Ok(0)`: its other end has closed it.
    pub fn receive_from(self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.message(|header| {
            // SAFETY: the header and its iovecs, which are whole pieces of guest memory, live as long as the
            // call.
            unsafe { libc::recvmsg(socket.as_raw_fd(), header, libc::MSG_DONTWAIT) }
        })
    }

    /// Sends as much as the socket takes, without waiting.
    pub fn send_to(self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        self.message(|header| {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: as above.
            unsafe { libc::sendmsg(socket.as_raw_fd(), header, flags) }
        })
    }

    fn message(&self, call: impl Fn(&mut libc::msghdr) -> isize) -> Result<usize, Errno> {
        let mut iovecs = self.iovecs();
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = iovecs.as_mut_ptr();
        header.msg_iovlen = iovecs.len();
        loop {
            match Errno::result(call(&mut header)) {
                Ok(n) => return Ok(n.unsigned_abs()),
                Err(Errno::EINTR) => (),
                Err(e) => return Err(e),
            }
        }
    }

    /// The next pieces, at most [`IOV_MAX`].
    fn iovecs(&self) -> Vec<libc::iovec> {
        let pieces = self.pieces.get(self.next..).unwrap_or_default();
        let iovec = |piece: &VolatileSlice<'a>| libc::iovec {
            iov_base: piece.ptr_guard_mut().as_ptr().cast(),
            iov_len: piece.len(),
        };
        pieces.iter().take(IOV_MAX).map(iovec).collect()
    }

    fn transfer(
        mut self,
        fd: BorrowedFd<'_>,
        offset: u64,
        call: unsafe extern "C" fn(libc::c_int, *const libc::iovec, libc::c_int, i64) -> isize,
    ) -> Result<usize, Errno> {
        let mut done = 0usize;
        while self.len > 0 {
            let iovecs = self.iovecs();
            let at = offset.checked_add(done as u64).ok_or(Errno::EINVAL)?;
            let at = i64::try_from(at).map_err(|_| Errno::EINVAL)?;
            // SAFETY: each iovec is a whole piece of guest memory, which is mapped readable and
            // writable as long as `self.pieces` borrows it, and which nobody holds a reference into;
            // there are at most IOV_MAX of them, so the count fits.
            let moved = unsafe { call(fd.as_raw_fd(), iovecs.as_ptr(), iovecs.len() as i32, at) };
            match Errno::result(moved) {
                Ok(0) => break,
                Ok(n) => {
                    done += n as usize;
                    drop(self.split_to(n as usize));
                }
                Err(Errno::EINTR) => (),
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

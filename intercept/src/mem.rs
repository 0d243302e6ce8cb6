//! Guest memory, read and written from the supervisor by thread id.
//!
//! Every address and length comes from the guest. A fault is `EFAULT`, as the kernel gives for it.
//!
//! Who shows calls reads what its handler reads too, and what that has written. So while one call of a waiting
//! thread is served (`attend` to `forget`), the serving thread remembers the last pieces that it has read or
//! written: to read them again would tell no more of the call than the first time did.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Errno, Result, Tid};

const PAGE: u64 = 4096;

/// Bytes read at first for a string: enough for nearly every path.
const STRING_CHUNK: u64 = 256;

/// Pieces that are remembered, at most.
const MOST_PIECES: usize = 8;
/// Bytes of a piece that is remembered, at most.
const LARGEST_PIECE: usize = 1024;

/// What is remembered of one thread's memory.
struct Attended {
    /// 0 for none.
    tid: i32,
    pieces: Vec<(u64, Vec<u8>)>,
    foreseen: Option<(u64, Vec<u8>)>,
}

thread_local! {
    static ATTENDED: RefCell<Attended> = const {
        RefCell::new(Attended {
            tid: 0,
            pieces: Vec::new(),
            foreseen: None,
        })
    };
}

static READS_ANEW: AtomicBool = AtomicBool::new(false);

/// From now on nothing is remembered, by any thread: for who counts what is read for a call.
pub fn read_anew() {
    READS_ANEW.store(true, Ordering::Relaxed);
}

/// From now on the calling thread remembers what it reads and writes of `tid`'s memory, which waits.
pub(crate) fn attend(tid: Tid) {
    if !READS_ANEW.load(Ordering::Relaxed) {
        remember_only(tid.0);
    }
}

fn remember_only(tid: i32) {
    ATTENDED.with_borrow_mut(|a| {
        a.tid = tid;
        a.pieces.clear();
        a.foreseen = None;
    });
}

/// Memory may be another from now on.
pub(crate) fn forget() {
    remember_only(0);
}

/// What is about to be in the memory of the thread that is attended to: it is read as if it were there.
pub(crate) fn foresee(addr: u64, bytes: &[u8]) {
    ATTENDED.with_borrow_mut(|a| {
        a.overwrite(addr, bytes.len());
        a.foreseen = Some((addr, bytes.to_vec()));
    });
}

impl Attended {
    /// Fills `buf` if all of it is remembered.
    fn recall(&self, addr: u64, buf: &mut [u8]) -> bool {
        let piece = |(start, bytes): &(u64, Vec<u8>)| {
            let at = usize::try_from(addr.checked_sub(*start)?).ok()?;
            Some(bytes.get(at..at.checked_add(buf.len())?)?.to_vec())
        };
        let found = self.pieces.iter().find_map(piece);
        if let Some(found) = &found {
            buf.copy_from_slice(found);
        }
        found.is_some()
    }

    /// Puts into what was read what is foreseen.
    fn correct(&self, addr: u64, read: &mut [u8]) {
        let Some((start, bytes)) = &self.foreseen else {
            return;
        };
        let skipped = start.saturating_sub(addr) as usize;
        let behind = addr.saturating_sub(*start) as usize;
        let places = read.iter_mut().skip(skipped);
        for (place, byte) in places.zip(bytes.iter().skip(behind)) {
            *place = *byte;
        }
    }

    fn remember(&mut self, addr: u64, bytes: &[u8]) {
        if bytes.len() <= LARGEST_PIECE && !bytes.is_empty() {
            if self.pieces.len() >= MOST_PIECES {
                self.pieces.remove(0);
            }
            self.pieces.push((addr, bytes.to_vec()));
        }
    }

    /// All that overlaps these bytes is not so any more.
    fn overwrite(&mut self, addr: u64, len: usize) {
        let end = addr.saturating_add(len as u64);
        self.pieces.retain(|(start, bytes)| {
            *start >= end || start.saturating_add(bytes.len() as u64) <= addr
        });
    }
}

/// Fills `buf` from `addr` on. A range that is not mapped in full is `EFAULT`.
pub fn read(tid: Tid, addr: u64, buf: &mut [u8]) -> Result<()> {
    match read_some(tid, addr, buf)? {
        n if n == buf.len() => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// Reads up to `buf.len()` bytes; less if the range runs into unmapped memory.
pub fn read_some(tid: Tid, addr: u64, buf: &mut [u8]) -> Result<usize> {
    if buf.is_empty() {
        return Ok(0);
    }
    let attended = ATTENDED.with_borrow(|a| (a.tid == tid.0).then(|| a.recall(addr, buf)));
    if attended == Some(true) {
        return Ok(buf.len());
    }
    let local = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    let remote = libc::iovec {
        iov_base: addr as *mut libc::c_void,
        iov_len: buf.len(),
    };
    // SAFETY: `local` covers exactly `buf`; the remote range is checked by the kernel.
    let n = unsafe { libc::process_vm_readv(tid.0, &local, 1, &remote, 1, 0) };
    let n = Errno::result(n)? as usize;
    if attended.is_some() {
        let read = buf.get_mut(..n).unwrap_or_default();
        ATTENDED.with_borrow_mut(|a| {
            a.correct(addr, read);
            a.remember(addr, read);
        });
    }
    Ok(n)
}

/// Writes all of `buf` at `addr`. A range that is not writable in full is `EFAULT`.
pub fn write(tid: Tid, addr: u64, buf: &[u8]) -> Result<()> {
    if buf.is_empty() {
        return Ok(());
    }
    write_pieces(tid, [(addr, buf)])
}

/// Writes each piece at its address, with one call. If one is not writable in full, it is `EFAULT`, and some may be
/// written.
pub fn write_pieces<const N: usize>(tid: Tid, pieces: [(u64, &[u8]); N]) -> Result<()> {
    let local = pieces.map(|(_, buf)| libc::iovec {
        iov_base: buf.as_ptr() as *mut libc::c_void,
        iov_len: buf.len(),
    });
    let remote = pieces.map(|(addr, buf)| libc::iovec {
        iov_base: addr as *mut libc::c_void,
        iov_len: buf.len(),
    });
    let (count, total) = (N as libc::c_ulong, pieces.iter().map(|p| p.1.len()).sum());
    // SAFETY: `local` covers exactly the pieces, which the kernel only reads.
    let n =
        unsafe { libc::process_vm_writev(tid.0, local.as_ptr(), count, remote.as_ptr(), count, 0) };
    let written = Errno::result(n).map(|n| n as usize == total);
    ATTENDED.with_borrow_mut(|a| {
        for (addr, buf) in pieces {
            a.overwrite(addr, buf.len());
            if a.tid == tid.0 && written == Ok(true) {
                a.remember(addr, buf);
            }
        }
    });
    match written? {
        true => Ok(()),
        false => Err(Errno::EFAULT),
    }
}

/// Reads a NUL-terminated string without the NUL, at most `max` bytes with it; `too_long` if there is
/// no NUL within them. Reads never cross into a page that the string does not reach.
pub fn read_string(tid: Tid, addr: u64, max: usize, too_long: Errno) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = addr;
    while out.len() < max {
        let to_page_end = PAGE - at % PAGE;
        let chunk = if out.is_empty() {
            STRING_CHUNK.min(to_page_end)
        } else {
            to_page_end
        };
        let chunk = (chunk as usize).min(max - out.len());
        let old = out.len();
        out.resize(old + chunk, 0);
        let tail = out.get_mut(old..).ok_or(Errno::EFAULT)?;
        read(tid, at, tail)?;
        if let Some(end) = tail.iter().position(|&b| b == 0) {
            out.truncate(old + end);
            return Ok(out);
        }
        at = at.checked_add(chunk as u64).ok_or(Errno::EFAULT)?;
    }
    Err(too_long)
}

/// What a file of `/proc` says, up to 4 KiB, in one read.
pub fn read_proc(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = vec![0; PAGE as usize];
    let n = std::fs::File::open(path)?.read(&mut text)?;
    text.truncate(n);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Tid {
        Tid(std::process::id() as i32)
    }

    #[test]
    fn strings_stop_at_the_nul_and_at_the_limit() {
        let text = b"hello\0world\0";
        let addr = text.as_ptr() as u64;
        let read = read_string(own(), addr, 64, Errno::ENAMETOOLONG);
        assert_eq!(read.as_deref(), Ok(&b"hello"[..]));
        assert_eq!(
            read_string(own(), addr, 5, Errno::ENAMETOOLONG),
            Err(Errno::ENAMETOOLONG)
        );
        assert_eq!(
            read_string(own(), 8, 64, Errno::ENAMETOOLONG),
            Err(Errno::EFAULT)
        );
    }

    #[test]
    fn what_was_read_or_written_is_remembered_until_it_is_forgotten() {
        let mut text = *b"hello world";
        let addr = text.as_mut_ptr() as u64;
        let at = |offset: u64, len: usize| {
            let mut buf = vec![0; len];
            read(own(), addr + offset, &mut buf).unwrap();
            String::from_utf8(buf).unwrap()
        };
        attend(own());
        assert_eq!(at(0, 11), "hello world");
        // Behind its back.
        // SAFETY: a byte of ours; read by the kernel alone.
        unsafe { std::ptr::write_volatile(addr as *mut u8, b'j') };
        assert_eq!(at(0, 5), "hello");
        write(own(), addr + 6, b"there").unwrap();
        assert_eq!((at(6, 5), at(0, 6)), ("there".into(), "jello ".into()));
        forget();
        assert_eq!(at(0, 11), "jello there");
        attend(own());
        for i in 0..=MOST_PIECES as u64 {
            at(i, 1);
        }
        // SAFETY: as above.
        unsafe { std::ptr::write_volatile(addr as *mut u8, b'c') };
        assert_eq!(at(0, 1), "c");
        foresee(addr + 4, b"y, th");
        assert_eq!((at(0, 11), at(5, 3)), ("celly, thre".into(), ", t".into()));
        forget();
        assert_eq!(at(0, 11), "cello there");
    }

    #[test]
    fn a_long_string_is_read_across_pages() {
        let mut text = vec![b'x'; 10_000];
        text.push(0);
        let got = read_string(own(), text.as_ptr() as u64, 20_000, Errno::E2BIG);
        assert_eq!(got.map(|s| s.len()), Ok(10_000));
    }

    #[test]
    fn writing_to_read_only_memory_faults() {
        static TEXT: &[u8] = b"constant";
        assert_eq!(write(own(), TEXT.as_ptr() as u64, b"x"), Err(Errno::EFAULT));
        assert_eq!(write(own(), u64::MAX - 3, b"abcdef"), Err(Errno::EFAULT));
    }
}

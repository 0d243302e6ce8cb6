//! Guest memory, read and written from the supervisor by thread id.
//!
//! Every address and length comes from the guest. A fault is `EFAULT`, as the kernel gives for it.

use crate::{Errno, Result, Tid};

const PAGE: u64 = 4096;

/// Bytes read at first for a string: enough for nearly every path.
const STRING_CHUNK: u64 = 256;

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
    Errno::result(n).map(|n| n as usize)
}

/// Writes all of `buf` at `addr`. A range that is not writable in full is `EFAULT`.
pub fn write(tid: Tid, addr: u64, buf: &[u8]) -> Result<()> {
    if buf.is_empty() {
        return Ok(());
    }
    let local = libc::iovec {
        iov_base: buf.as_ptr() as *mut libc::c_void,
        iov_len: buf.len(),
    };
    let remote = libc::iovec {
        iov_base: addr as *mut libc::c_void,
        iov_len: buf.len(),
    };
    // SAFETY: `local` covers exactly `buf`, which the kernel only reads.
    let n = unsafe { libc::process_vm_writev(tid.0, &local, 1, &remote, 1, 0) };
    match Errno::result(n)? {
        n if n as usize == buf.len() => Ok(()),
        _ => Err(Errno::EFAULT),
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

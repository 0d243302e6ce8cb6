//! Datagrams to the path of a Unix socket: sendto(2), sendmsg(2), sendmmsg(2).
//!
//! The path is looked up in the tree, and the supervisor sends through a copy of the caller's socket, so
//! that the receiver sees its name. Descriptors that go along are copies of the caller's; beside them
//! goes who it is, as the kernel would add it (unix(7)).
//!
//! All else runs as it stands: without an address, with one that is no path, or on a socket that looks
//! nothing up: a stream refuses an address, sequenced packets ignore it. Should its memory say otherwise
//! by then, the kernel looks in a root that holds no socket.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use duet_intercept::mem;
use duet_vfs::account::host;
use duet_vfs::types::{Caps, Errno, Result};

use super::net::{host_address, nonblocking, option, socket_at, unix_path};
use crate::abi::{u32_at, u64_at};
use crate::task::{Reply, Task};
use crate::wait::{self, Blocked};

/// `UIO_MAXIOV`: buffers of a message, and messages of a call.
const MOST_PARTS: usize = 1024;
/// Longest message sent on the guest's behalf, in bytes, whatever the socket's buffer.
const MOST_DATA: usize = 16 << 20;
/// What a message needs of the socket's buffer beside its data: `unix_dgram_sendmsg()` of the kernel.
const OVERHEAD: usize = 32;
/// Longest control data, in bytes; `net.core.optmem_max` is less on most hosts.
const MOST_CONTROL: u64 = 1 << 20;
/// What messages that wait hold together, at most, in bytes; each descriptor counts as a page.
const MOST_HELD: usize = 64 << 20;
/// `SCM_MAX_FD`: descriptors in one message.
const MOST_DESCRIPTORS: usize = 253;
/// `sizeof(struct cmsghdr)`.
const CMSG_HEADER: usize = 16;

/// `struct msghdr`, as the caller has it.
#[derive(Clone, Copy, Default)]
struct Header {
    name: u64,
    name_len: i32,
    parts: u64,
    part_count: u64,
    control: u64,
    control_len: u64,
}

impl Header {
    /// `sizeof(struct msghdr)`.
    const SIZE: usize = 56;

    fn parse(b: &[u8]) -> Result<Header> {
        Ok(Header {
            name: u64_at(b, 0)?,
            name_len: u32_at(b, 8)? as i32,
            parts: u64_at(b, 16)?,
            part_count: u64_at(b, 24)?,
            control: u64_at(b, 32)?,
            control_len: u64_at(b, 40)?,
        })
    }

    /// Its buffers: `import_iovec()` of the kernel.
    fn parts(&self, t: &Task) -> Result<Vec<Part>> {
        const SIZE: usize = size_of::<libc::iovec>();
        let count = usize::try_from(self.part_count).ok();
        let count = count.filter(|&n| n <= MOST_PARTS).ok_or(Errno::EMSGSIZE)?;
        let table = t.read(self.parts, count * SIZE)?;
        let part = |b: &[u8]| {
            let (base, len) = (u64_at(b, 0)?, u64_at(b, 8)?);
            match i64::try_from(len) {
                Ok(_) => Ok(Part { base, len }),
                Err(_) => Err(Errno::EINVAL),
            }
        };
        table.chunks_exact(SIZE).map(part).collect()
    }

    /// The path that it is addressed to, if it is one.
    fn path(&self, t: &Task) -> Result<Option<Vec<u8>>> {
        match usize::try_from(self.name_len) {
            Ok(len) if self.name != 0 && len <= size_of::<libc::sockaddr_un>() => {
                Ok(unix_path(&t.read(self.name, len)?))
            }
            // There is no address, or one that Linux refuses.
            _ => Ok(None),
        }
    }
}

/// A buffer of the caller.
struct Part {
    base: u64,
    len: u64,
}

/// The caller's socket, if it is one that looks up paths: of Unix datagrams.
fn datagram_socket(t: &Task) -> Result<Option<OwnedFd>> {
    let socket = t.copy_of(t.int(0))?;
    let is = |name, value| option(&socket, name).map(|v| v == value);
    let found = is(libc::SO_DOMAIN, libc::AF_UNIX)? && is(libc::SO_TYPE, libc::SOCK_DGRAM)?;
    Ok(found.then_some(socket))
}

/// A message that is ready to be sent.
struct Message {
    data: Vec<u8>,
    control: Control,
    /// Names the receiver: by its descriptor.
    node: OwnedFd,
}

impl Message {
    fn new(
        t: &Task,
        socket: &OwnedFd,
        parts: &[Part],
        control: Control,
        path: &[u8],
    ) -> Result<Message> {
        let room = usize::try_from(option(socket, libc::SO_SNDBUF)?).unwrap_or(0);
        let room = room.saturating_sub(OVERHEAD).min(MOST_DATA);
        Ok(Message {
            data: gather(t, parts, room)?,
            control,
            node: socket_at(t, path)?,
        })
    }

    fn of(t: &Task, socket: &OwnedFd, header: &Header, path: &[u8]) -> Result<Message> {
        let parts = header.parts(t)?;
        let control = Control::read(t, header.control, header.control_len)?;
        Message::new(t, socket, &parts, control, path)
    }

    /// What it holds, as [`MOST_HELD`] counts.
    fn weight(&self) -> usize {
        const DESCRIPTOR: usize = 4096;
        self.data.len() + DESCRIPTOR * self.control.passed.len()
    }

    /// Sends it. ENOBUFS if it may have to wait and too much waits already.
    fn send(&self, socket: &OwnedFd, flags: i32) -> Result<i64> {
        let _held = if flags & libc::MSG_DONTWAIT == 0 {
            Some(Held::take(self.weight())?)
        } else {
            None
        };
        let addr = host_address(format!("/proc/self/fd/{}", self.node.as_raw_fd()).as_bytes())?;
        let mut part = libc::iovec {
            iov_base: self.data.as_ptr().cast_mut().cast(),
            iov_len: self.data.len(),
        };
        let mut send = |control: &[u64]| {
            // SAFETY: all zeros is a valid value of this plain structure.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_name = addr.as_ptr().cast_mut().cast();
            message.msg_namelen = addr.len() as libc::socklen_t;
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            if !control.is_empty() {
                message.msg_control = control.as_ptr().cast_mut().cast();
                message.msg_controllen = size_of_val(control);
            }
            // SAFETY: each pointer has the length that is announced, and is only read from.
            let n = host("sendmsg", || unsafe {
                libc::sendmsg(socket.as_raw_fd(), &message, flags | libc::MSG_NOSIGNAL)
            });
            Errno::result(n).map(|n| n as i64)
        };
        match send(&self.control.with_sender) {
            // The host grants nobody's name but Duet's own.
            Err(Errno::EPERM) => send(&self.control.plain),
            other => other,
        }
    }
}

/// A part of what messages that wait may hold.
struct Held(usize);

static HELD: AtomicUsize = AtomicUsize::new(0);

impl Held {
    fn take(weight: usize) -> Result<Held> {
        let before = HELD.fetch_add(weight, Ordering::Relaxed);
        let held = Held(weight);
        if before.saturating_add(weight) > MOST_HELD {
            return Err(Errno::ENOBUFS);
        }
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// What these buffers of the caller hold, one after the other: at most `room` bytes.
fn gather(t: &Task, parts: &[Part], room: usize) -> Result<Vec<u8>> {
    let total = parts
        .iter()
        .try_fold(0u64, |sum, part| sum.checked_add(part.len));
    let total = total.and_then(|n| usize::try_from(n).ok());
    let total = total.filter(|&n| n <= room).ok_or(Errno::EMSGSIZE)?;
    let mut data = vec![0; total];
    let mut rest = data.as_mut_slice();
    for part in parts {
        let (here, behind) = rest
            .split_at_mut_checked(part.len as usize)
            .ok_or(Errno::EMSGSIZE)?;
        host("process_vm_readv", || {
            mem::read(t.call.tid, part.base, here)
        })?;
        rest = behind;
    }
    Ok(data)
}

/// Control data for the host: in words, as it must be aligned.
struct Control {
    /// With the caller's name.
    with_sender: Vec<u64>,
    /// Without, unless the caller gave one.
    plain: Vec<u64>,
    /// What descriptors in it stand for.
    passed: Vec<OwnedFd>,
}

/// Appends one piece of control data.
fn push(control: &mut Vec<u64>, level: i32, kind: i32, data: &[u8]) {
    control.push((CMSG_HEADER + data.len()) as u64);
    control.push(u64::from(level as u32) | u64::from(kind as u32) << 32);
    for word in data.chunks(8) {
        let mut bytes = [0; 8];
        bytes
            .iter_mut()
            .zip(word)
            .for_each(|(to, from)| *to = *from);
        control.push(u64::from_le_bytes(bytes));
    }
}

impl Control {
    /// Of the caller's control data at `addr`: `__scm_send()` of the kernel.
    fn read(t: &Task, addr: u64, len: u64) -> Result<Control> {
        if len > MOST_CONTROL {
            return Err(Errno::ENOBUFS);
        }
        let bytes = t.read(addr, len as usize)?;
        let (mut plain, mut passed) = (Vec::new(), Vec::new());
        let mut sender = None;
        let mut rest = bytes.as_slice();
        // What is shorter than a header is not looked at.
        while rest.len() >= CMSG_HEADER {
            let len = usize::try_from(u64_at(rest, 0)?).unwrap_or(usize::MAX);
            let (level, kind) = (u32_at(rest, 8)? as i32, u32_at(rest, 12)? as i32);
            let data = rest.get(CMSG_HEADER..len).ok_or(Errno::EINVAL)?;
            match (level, kind) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let numbers = descriptors(t, data, &mut passed)?;
                    push(&mut plain, level, kind, &numbers);
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => sender = Some(claimed(t, data)?),
                // The kernel passes over other levels, and refuses what it does not know of its own.
                _ => push(&mut plain, level, kind, data),
            }
            rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
        }
        let pid = sender.unwrap_or(t.process.host_pid());
        let (uid, gid) = t.kernel.images.ids();
        let ids: Vec<u8> = [pid as u32, uid, gid]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        let mut with_sender = plain.clone();
        push(
            &mut with_sender,
            libc::SOL_SOCKET,
            libc::SCM_CREDENTIALS,
            &ids,
        );
        Ok(Control {
            with_sender,
            plain,
            passed,
        })
    }
}

/// Copies the caller's descriptors of these numbers; the copies' numbers.
fn descriptors(t: &Task, numbers: &[u8], passed: &mut Vec<OwnedFd>) -> Result<Vec<u8>> {
    let (numbers, _) = numbers.as_chunks::<4>();
    if passed.len() + numbers.len() > MOST_DESCRIPTORS {
        return Err(Errno::EINVAL);
    }
    let mut copies = Vec::with_capacity(4 * numbers.len());
    for &number in numbers {
        let copy = t.copy_of(i32::from_le_bytes(number))?;
        copies.extend_from_slice(&copy.as_raw_fd().to_le_bytes());
        passed.push(copy);
    }
    Ok(copies)
}

/// The process that the caller says it is, in the supervisor's numbers. It may lie with the capabilities
/// for it: `scm_check_creds()` of the kernel.
fn claimed(t: &Task, data: &[u8]) -> Result<i32> {
    if data.len() != size_of::<libc::ucred>() {
        return Err(Errno::EINVAL);
    }
    let (pid, uid, gid) = (u32_at(data, 0)? as i32, u32_at(data, 4)?, u32_at(data, 8)?);
    let c = &t.state.creds;
    let own = pid == t.process.guest_pid();
    if !((own || c.has(Caps::SYS_ADMIN))
        && ([c.uid, c.euid, c.suid].contains(&uid) || c.has(Caps::SETUID))
        && ([c.gid, c.egid, c.sgid].contains(&gid) || c.has(Caps::SETGID)))
    {
        return Err(Errno::EPERM);
    }
    if own {
        return Ok(t.process.host_pid());
    }
    let named = t.kernel.processes.by_guest_pid(pid);
    named.map(|p| p.host_pid()).ok_or(Errno::ESRCH)
}

/// Sends one message, at once or on a thread of its own.
fn send(t: &Task, socket: OwnedFd, message: Message, flags: i32) -> Result<Reply> {
    match message.send(&socket, flags | libc::MSG_DONTWAIT) {
        Err(Errno::EAGAIN) if waits(&socket, flags)? => {
            wait::elsewhere(t, move |_| match message.send(&socket, flags) {
                Err(Errno::EINTR) => Blocked::Interrupted,
                other => Blocked::Ended(other.map(Reply::Value)),
            })
        }
        other => other.map(Reply::Value),
    }
}

/// Whether a call with these flags waits until there is room.
fn waits(socket: &OwnedFd, flags: i32) -> Result<bool> {
    Ok(flags & libc::MSG_DONTWAIT == 0 && !nonblocking(socket)?)
}

/// With an address; without one it never comes here.
pub(super) fn sendto(t: &Task) -> Result<Reply> {
    let header = Header {
        name: t.arg(4),
        name_len: t.int(5),
        ..Header::default()
    };
    let Some(path) = header.path(t)? else {
        return Ok(Reply::Run);
    };
    let Some(socket) = datagram_socket(t)? else {
        return Ok(Reply::Run);
    };
    let part = Part {
        base: t.arg(1),
        len: t.arg(2),
    };
    let message = Message::new(t, &socket, &[part], Control::read(t, 0, 0)?, &path)?;
    send(t, socket, message, t.int(3))
}

pub(super) fn sendmsg(t: &Task) -> Result<Reply> {
    let mut bytes = [0; Header::SIZE];
    // As most calls end here, nobody asks whether the caller still waits.
    let read = host("process_vm_readv", || {
        mem::read(t.call.tid, t.arg(1), &mut bytes)
    });
    let header = Header::parse(&bytes)?;
    if read.is_err() || header.name == 0 {
        return Ok(Reply::Run);
    }
    let Some(path) = header.path(t)? else {
        return Ok(Reply::Run);
    };
    let Some(socket) = datagram_socket(t)? else {
        return Ok(Reply::Run);
    };
    let message = Message::of(t, &socket, &header, &path)?;
    send(t, socket, message, t.int(2))
}

/// `sizeof(struct mmsghdr)`.
const ENTRY: usize = 64;

/// Ends before the first message that is not addressed to a path, if one before it is: the caller has to go
/// on from there, as after any message that could not be sent.
pub(super) fn sendmmsg(t: &Task) -> Result<Reply> {
    let count = usize::try_from(t.uint(2)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; ENTRY * count.min(MOST_PARTS)];
    let read = host("process_vm_readv", || {
        mem::read_some(t.call.tid, t.arg(1), &mut bytes)
    });
    bytes.truncate(read.unwrap_or(0));
    let entries = bytes.chunks_exact(ENTRY);
    let headers: Vec<Header> = entries.map(Header::parse).collect::<Result<_>>()?;
    if headers.first().is_none_or(|h| h.name == 0) {
        return Ok(Reply::Run);
    }
    let Some(socket) = datagram_socket(t)? else {
        return Ok(Reply::Run);
    };
    if headers
        .first()
        .map(|h| h.path(t))
        .transpose()?
        .flatten()
        .is_none()
    {
        return Ok(Reply::Run);
    }
    let flags = t.int(3);
    let messages = Messages {
        socket,
        headers,
        sent: AtomicUsize::new(0),
    };
    match messages.send(t, flags | libc::MSG_DONTWAIT) {
        Err(Errno::EAGAIN) if waits(&messages.socket, flags)? => {
            wait::elsewhere(t, move |t| match messages.send(t, flags) {
                Ok(()) => Blocked::Ended(messages.count()),
                Err(Errno::EINTR) if messages.sent.load(Ordering::Relaxed) == 0 => {
                    Blocked::Interrupted
                }
                Err(e) => Blocked::Ended(messages.count().or(Err(e))),
            })
        }
        Ok(()) => messages.count(),
        Err(e) => messages.count().or(Err(e)),
    }
}

/// The messages of one sendmmsg(2).
struct Messages {
    socket: OwnedFd,
    headers: Vec<Header>,
    sent: AtomicUsize,
}

impl Messages {
    /// Sends what has not been sent yet, up to one that goes to no path.
    fn send(&self, t: &Task, flags: i32) -> Result<()> {
        let sent = self.sent.load(Ordering::Relaxed);
        for (at, header) in self.headers.iter().enumerate().skip(sent) {
            let Some(path) = header.path(t)? else {
                return Ok(());
            };
            let message = Message::of(t, &self.socket, header, &path)?;
            let len = message.send(&self.socket, flags)?;
            let entry = t.arg(1).wrapping_add((at * ENTRY + Header::SIZE) as u64);
            t.write(entry, &(len as u32).to_le_bytes())?;
            self.sent.store(at + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The result, if any was sent.
    fn count(&self) -> Result<Reply> {
        match self.sent.load(Ordering::Relaxed) {
            0 => Err(Errno::ENOENT),
            n => Ok(Reply::Value(n as i64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded() {
        let most = Held::take(MOST_HELD).unwrap();
        assert_eq!(Held::take(1).err(), Some(Errno::ENOBUFS));
        drop(most);
        let all: Vec<Held> = (0..64).map(|_| Held::take(1 << 20).unwrap()).collect();
        assert_eq!(Held::take(usize::MAX).err(), Some(Errno::ENOBUFS));
        drop(all);
        assert_eq!(HELD.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn control_data_is_laid_out_as_the_kernels() {
        let mut control = Vec::new();
        push(
            &mut control,
            libc::SOL_SOCKET,
            libc::SCM_RIGHTS,
            &[1, 0, 0, 0],
        );
        push(
            &mut control,
            libc::SOL_SOCKET,
            libc::SCM_CREDENTIALS,
            &[7; 12],
        );
        // SAFETY: integers alone.
        let space = |len| unsafe { libc::CMSG_SPACE(len) } as usize;
        assert_eq!(size_of_val(&control[..]), space(4) + space(12));
        assert_eq!((control[0], control[3]), (20, 28));
        let kind = |word: u64| ((word as u32) as i32, (word >> 32) as i32);
        assert_eq!(kind(control[1]), (libc::SOL_SOCKET, libc::SCM_RIGHTS));
        assert_eq!(kind(control[4]), (libc::SOL_SOCKET, libc::SCM_CREDENTIALS));
        assert_eq!((control[2], control[6]), (1, 0x0707_0707));
    }
}

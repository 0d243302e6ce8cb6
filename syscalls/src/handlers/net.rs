//! Calls that name a socket address. Unix sockets with a path are nodes of the tree (unix(7)); all
//! other addresses are the kernel's own matter, inside the sandbox's network namespace.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use duet_vfs::Binding;
use duet_vfs::account::host;
use duet_vfs::types::{Caps, Creds, Errno, Result};
use nix::sys::socket::sockopt::PeerCredentials;

use crate::peers::{self, Peer};
use crate::process::Process;
use crate::table::SO_PEERPIDFD;
use crate::task::{Reply, Task};
use crate::wait::{self, Blocked};

/// `sizeof(struct sockaddr_storage)`: the kernel takes no longer address.
const ADDR_MAX: usize = 128;
/// Bytes of `sun_path`.
const SUN_PATH: usize = 108;

/// The path of an `AF_UNIX` pathname address; `None` for every other address.
pub(super) fn unix_path(addr: &[u8]) -> Option<Vec<u8>> {
    let (family, path) = addr.split_at_checked(2)?;
    if family != (libc::AF_UNIX as u16).to_le_bytes() || path.first().is_none_or(|&b| b == 0) {
        return None;
    }
    let end = path.iter().position(|&b| b == 0).unwrap_or(path.len());
    path.get(..end.min(SUN_PATH)).map(<[u8]>::to_vec)
}

/// The address in arguments `(i, i + 1)`.
fn address(t: &Task, i: usize) -> Result<Vec<u8>> {
    let len = t.int(i + 1);
    let len = usize::try_from(len)
        .ok()
        .filter(|&l| l <= ADDR_MAX)
        .ok_or(Errno::EINVAL)?;
    t.read(t.arg(i), len)
}

/// `struct sockaddr_un` for a path of the host.
pub(super) fn host_address(path: &[u8]) -> Result<Vec<u8>> {
    if path.len() >= SUN_PATH {
        return Err(Errno::ENAMETOOLONG);
    }
    let mut addr = (libc::AF_UNIX as u16).to_le_bytes().to_vec();
    addr.extend_from_slice(path);
    addr.push(0);
    Ok(addr)
}

/// Whether an address is of a port that only root may take (ip(7)).
fn is_low_port(addr: &[u8]) -> bool {
    const FIRST_FREE: u16 = 1024;
    let family = addr
        .first_chunk()
        .map(|f| i32::from(u16::from_le_bytes(*f)));
    let port = addr.get(2..4).and_then(|p| p.first_chunk());
    let port = port.map_or(0, |p| u16::from_be_bytes(*p));
    matches!(family, Some(libc::AF_INET | libc::AF_INET6)) && (1..FIRST_FREE).contains(&port)
}

pub(super) fn bind(t: &Task) -> Result<Reply> {
    let addr = address(t, 1)?;
    if is_low_port(&addr) && !t.state.creds.has(Caps::NET_BIND_SERVICE) {
        return Err(Errno::EACCES);
    }
    let Some(path) = unix_path(&addr) else {
        return Ok(Reply::Run);
    };
    let socket = t.copy_of(t.int(0))?;
    if option(&socket, libc::SO_DOMAIN)? != libc::AF_UNIX {
        return Ok(Reply::Run);
    }
    if addr.len() > size_of::<libc::sockaddr_un>() {
        return Err(Errno::EINVAL);
    }
    let binding = Binding {
        socket: socket.as_fd(),
        path: &path,
    };
    let vfs = &t.kernel.vfs;
    let node = vfs.bind_socket(&t.cx(), &t.state.cwd, &binding)?;
    if let Some(host) = unix_path(&name_of(&socket, libc::getsockname)?)
        && host != path
    {
        t.kernel.sockets.lock().insert(host, path, &node);
    }
    Ok(Reply::DONE)
}

pub(super) fn connect(t: &Task) -> Result<Reply> {
    let addr = address(t, 1)?;
    let Some(path) = unix_path(&addr) else {
        return Ok(Reply::Run);
    };
    let socket = t.copy_of(t.int(0))?;
    if option(&socket, libc::SO_DOMAIN)? != libc::AF_UNIX {
        return Ok(Reply::Run);
    }
    let node = socket_at(t, &path)?;
    let addr = host_address(format!("/proc/self/fd/{}", node.as_raw_fd()).as_bytes())?;
    let nonblocking = nonblocking(&socket)?;
    if option(&socket, libc::SO_TYPE)? == libc::SOCK_DGRAM {
        // Has no peer in that sense, and never waits.
        return connect_host(&socket, &addr).map(|()| Reply::DONE);
    }
    let dial = move |t: &Task| {
        let who = as_peer(&t.process, &t.state.creds);
        let done = peers::connect_for(&t.kernel.peers, who, socket.as_fd(), &addr);
        // The node is named by its descriptor: it is held until then.
        (done, node.as_raw_fd()).0
    };
    if nonblocking {
        return dial(t).map(|()| Reply::DONE);
    }
    // A full backlog makes it wait.
    wait::elsewhere(t, move |t| match dial(t) {
        Err(Errno::EINTR) => Blocked::Interrupted,
        other => Blocked::Ended(other.map(|()| Reply::DONE)),
    })
}

/// The host socket of the node at `path`, which may be what the kernel calls it.
pub(super) fn socket_at(t: &Task, path: &[u8]) -> Result<OwnedFd> {
    let known = t.kernel.sockets.lock().node(path);
    match known {
        Some(node) => t.kernel.vfs.socket_node(&t.cx(), &node),
        None => t.kernel.vfs.socket_path(&t.cx(), &t.state.cwd, path),
    }
}

fn as_peer(process: &Process, creds: &Creds) -> Peer {
    Peer {
        pid: process.guest_pid(),
        connects: Some(process.serial()),
        uid: creds.euid,
        gid: creds.egid,
    }
}

/// Of who is at the other end.
pub(super) fn getsockopt(t: &Task) -> Result<Reply> {
    match t.int(2) {
        SO_PEERPIDFD => peer_pidfd(t),
        _ => peer_credentials(t),
    }
}

/// `SO_PEERPIDFD`: the kernel knows best, but of connections that a helper made.
fn peer_pidfd(t: &Task) -> Result<Reply> {
    const LEN: usize = size_of::<i32>();
    let socket = t.copy_of(t.int(0))?;
    let room = i32::from_le_bytes(t.read_array(t.arg(4))?);
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let seen = host("getsockopt", || {
        nix::sys::socket::getsockopt(&socket, PeerCredentials)
    })?;
    let kernel = &t.kernel;
    let noted = kernel.peers.lock().get(seen.pid());
    let Some((pid, serial)) = noted.and_then(|p| Some((p.pid, p.connects?))) else {
        return Ok(Reply::Run);
    };
    // Its number may be another's by now. If it is gone, so is the helper, and its pidfd says the same.
    let process = kernel.processes.by_guest_pid(pid);
    let Some(process) = process.filter(|p| p.serial() == serial) else {
        return Ok(Reply::Run);
    };
    match option(&socket, SO_PEERPIDFD) {
        // Older than Linux 6.5.
        Err(Errno::ENOPROTOOPT) => return Ok(Reply::Run),
        // SAFETY: the kernel has just returned this descriptor to us. It is the helper's.
        Ok(helper) => drop(unsafe { OwnedFd::from_raw_fd(helper) }),
        Err(_) => (),
    }
    let number = kernel.engine.inject(&t.call, process.pidfd(), None, true)?;
    let bytes = number.to_le_bytes();
    t.write(t.arg(3), bytes.get(..room).unwrap_or(&bytes))?;
    t.write(t.arg(4), &(room.min(LEN) as u32).to_le_bytes())?;
    Ok(Reply::DONE)
}

/// `SO_PEERCRED`.
fn peer_credentials(t: &Task) -> Result<Reply> {
    const LEN: usize = size_of::<libc::ucred>();
    let socket = t.copy_of(t.int(0))?;
    let room = i32::from_le_bytes(t.read_array(t.arg(4))?);
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let seen = host("getsockopt", || {
        nix::sys::socket::getsockopt(&socket, PeerCredentials)
    })?;
    let kernel = &t.kernel;
    let noted = kernel.peers.lock().get(seen.pid());
    let peer = noted.or_else(|| {
        let process = kernel.processes.by_host_pid(seen.pid())?;
        Some(as_peer(&process, &process.state().creds))
    });
    let bytes = match peer {
        Some(p) => [p.pid as u32, p.uid, p.gid],
        // A socket without a peer says 0, -1, -1; so does one whose peer nobody knows any more.
        None => [0, u32::MAX, u32::MAX],
    };
    let bytes: Vec<u8> = bytes.iter().flat_map(|n| n.to_le_bytes()).collect();
    t.write(t.arg(3), bytes.get(..room).unwrap_or(&bytes))?;
    t.write(t.arg(4), &(room.min(LEN) as u32).to_le_bytes())?;
    Ok(Reply::DONE)
}

fn connect_host(socket: &OwnedFd, addr: &[u8]) -> Result<()> {
    // SAFETY: `addr` holds exactly as many bytes as are announced.
    let n = host("connect", || unsafe {
        libc::connect(
            socket.as_raw_fd(),
            addr.as_ptr().cast(),
            addr.len() as libc::socklen_t,
        )
    });
    Errno::result(n).map(drop)
}

pub(super) fn option(socket: &OwnedFd, name: i32) -> Result<i32> {
    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: `value` has the length that is announced.
    let n = host("getsockopt", || unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &mut len,
        )
    });
    Errno::result(n).map(|_| value)
}

pub(super) fn nonblocking(socket: &OwnedFd) -> Result<bool> {
    // SAFETY: no pointers.
    let flags = Errno::result(host("fcntl", || unsafe {
        libc::fcntl(socket.as_raw_fd(), libc::F_GETFL)
    }))?;
    Ok(flags & libc::O_NONBLOCK != 0)
}

type NameCall = unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32;

/// What `getsockname` or `getpeername` says on the host.
fn name_of(socket: &OwnedFd, call: NameCall) -> Result<Vec<u8>> {
    let mut addr = vec![0u8; ADDR_MAX];
    let mut len = ADDR_MAX as libc::socklen_t;
    // SAFETY: `addr` has the length that is announced.
    let n = unsafe { call(socket.as_raw_fd(), addr.as_mut_ptr().cast(), &mut len) };
    Errno::result(n)?;
    addr.truncate(len as usize);
    Ok(addr)
}

pub(super) fn getsockname(t: &Task) -> Result<Reply> {
    get_name(t, libc::getsockname)
}

pub(super) fn getpeername(t: &Task) -> Result<Reply> {
    get_name(t, libc::getpeername)
}

fn get_name(t: &Task, call: NameCall) -> Result<Reply> {
    let socket = t.copy_of(t.int(0))?;
    let mut addr = name_of(&socket, call)?;
    let Some(host) = unix_path(&addr) else {
        return Ok(Reply::Run);
    };
    match t.kernel.sockets.lock().guest_name(&host) {
        Some(guest) => addr = host_address(guest)?,
        None => return Ok(Reply::Run),
    }
    let room = u32::from_le_bytes(t.read_array(t.arg(2))?) as i32;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    t.write(t.arg(1), addr.get(..room).unwrap_or(&addr))?;
    t.write(t.arg(2), &(addr.len() as u32).to_le_bytes())?;
    Ok(Reply::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pathname_addresses_are_paths() {
        let unix = |path: &[u8]| [&[1u8, 0][..], path].concat();
        assert_eq!(
            unix_path(&unix(b"/tmp/s\0junk")).as_deref(),
            Some(&b"/tmp/s"[..])
        );
        assert_eq!(unix_path(&unix(b"rel")).as_deref(), Some(&b"rel"[..]));
        assert_eq!(unix_path(&unix(b"\0abstract")), None);
        assert_eq!(unix_path(&unix(b"")), None);
        assert_eq!(unix_path(&[2, 0, 0, 80]), None);
        assert_eq!(unix_path(&[1]), None);
    }
}

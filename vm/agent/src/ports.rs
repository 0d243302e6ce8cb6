//! The ports to the host: found by their names, waited for by the kernel's events.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use crate::{Named, Step};

/// How long the kernel may take to show a port.
const PATIENCE: Duration = Duration::from_secs(30);

/// The kernel's events about devices (netlink(7), `NETLINK_KOBJECT_UEVENT`).
pub struct Events {
    socket: OwnedFd,
}

impl Events {
    /// From here on, no event is missed.
    pub fn subscribe() -> Step<Events> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)
            .named("listening for devices")?;
        // Group 1: the kernel's own events.
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1)).named("listening for devices")?;
        Ok(Events { socket })
    }

    /// Opens the port of that name, which may still have to appear.
    pub fn open(&self, name: &str) -> Step<File> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(device) = find(name) {
                return File::options()
                    .read(true)
                    .write(true)
                    .open(format!("/dev/{device}"))
                    .named(&format!("opening the port {name}"));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("there is no port {name}"));
            }
            self.next(left)?;
        }
    }

    /// Waits for something to happen.
    fn next(&self, patience: Duration) -> Step<()> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(e) => return Err(format!("waiting for devices: {e}")),
        }
        // What they say does not matter; that some were lost (ENOBUFS) neither.
        let mut event = [0; 4096];
        while !matches!(
            recv(self.socket.as_raw_fd(), &mut event, MsgFlags::empty()),
            Err(Errno::EAGAIN)
        ) {}
        Ok(())
    }
}

/// The device node (`vport0p1`) of the port with that name.
fn find(name: &str) -> Option<String> {
    let entries = fs::read_dir("/sys/class/virtio-ports").ok()?;
    for entry in entries.flatten() {
        let text = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if text.trim_end() == name {
            return entry.file_name().into_string().ok();
        }
    }
    None
}

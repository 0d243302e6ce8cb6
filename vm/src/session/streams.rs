//! The program's standard input, output and error, between the caller's descriptors and the ports.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;

use duet_vm_protocol::{MAX_DATA, receive_data, send_data};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read, write};

use super::events::{Event, Events, spawn};
use crate::error::{Error, Result};

/// Standard input on its way to the guest. Dropping it ends that.
pub struct Input {
    port: UnixStream,
    /// Its closing wakes the thread.
    _alive: OwnedFd,
}

impl Input {
    /// Begins to read standard input. What is read when the program ends is lost, as in a pipe.
    pub fn start(port: UnixStream) -> Result<Input> {
        let (ended, alive) =
            pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::step("making a pipe", e))?;
        let to = port
            .try_clone()
            .map_err(|e| Error::io("sharing a socket", &e))?;
        spawn("duet-stdin", move || feed(to, &ended))?;
        Ok(Input {
            port,
            _alive: alive,
        })
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        // A thread that is held up in writing to the guest ends too.
        if let Err(e) = self.port.shutdown(std::net::Shutdown::Both) {
            log::debug!("the port of standard input: {e}");
        }
    }
}

fn feed(mut port: UnixStream, ended: &OwnedFd) {
    let mut data = Vec::new();
    // The agent says when it is ready.
    if !matches!(receive_data(&mut port, 0, &mut data), Ok(true)) {
        return;
    }
    let stdin = std::io::stdin();
    let mut data = vec![0; MAX_DATA];
    loop {
        let mut fds = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(e) => return log::debug!("standard input: {e}"),
            Ok(_) => (),
        }
        if fds.get(1).and_then(PollFd::any).unwrap_or(true) {
            return;
        }
        let n = match read(stdin.as_fd(), &mut data) {
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            // Closed, or a terminal that has gone.
            Err(_) => 0,
            Ok(n) => n,
        };
        let sent = send_data(&mut port, data.get(..n).unwrap_or_default());
        if n == 0 || sent.is_err() {
            return;
        }
    }
}

/// Standard output or error on its way to the caller.
pub struct Output;

impl Output {
    /// Begins to write what comes from `port` to the descriptor 1 or 2.
    pub fn start(port: UnixStream, fd: u8, events: &Events) -> Result<()> {
        let to = match fd {
            1 => std::io::stdout().as_fd().try_clone_to_owned(),
            _ => std::io::stderr().as_fd().try_clone_to_owned(),
        };
        let sender = events.sender();
        // Without the descriptor, what comes is dropped.
        spawn("duet-output", move || drain(port, to.ok(), fd, &sender))
    }
}

fn drain(mut port: UnixStream, mut to: Option<OwnedFd>, fd: u8, events: &SyncSender<Event>) {
    let mut data = Vec::new();
    let mut first = true;
    loop {
        match receive_data(&mut port, MAX_DATA, &mut data) {
            Ok(true) if !data.is_empty() => (),
            Ok(_) => break,
            Err(e) => {
                log::debug!("port of descriptor {fd}: {e}");
                break;
            }
        }
        if std::mem::take(&mut first) {
            // Nobody listens after the end; so below.
            drop(events.send(Event::FirstOutput));
        }
        // The guest may go on to write: it learns by the closing of its pipe.
        if let Some(out) = &to
            && let Err(e) = write_all(out.as_fd(), &data)
        {
            log::debug!("descriptor {fd}: {e}");
            to = None;
            drop(events.send(Event::OutputClosed(fd)));
        }
    }
    drop(events.send(Event::OutputEnded));
}

/// Writes all, waiting where the descriptor does not block.
fn write_all(to: BorrowedFd<'_>, mut data: &[u8]) -> nix::Result<()> {
    while !data.is_empty() {
        match write(to, data) {
            Ok(n) => data = data.get(n..).unwrap_or_default(),
            Err(Errno::EINTR) => (),
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(to, PollFlags::POLLOUT)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => (),
                    Err(e) => return Err(e),
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

//! What the loop of a run hears, and the threads that tell it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use duet_vm_protocol::{FromGuest, MAX_TO_HOST, receive};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::error::{Error, Result};

/// Something that happened.
pub enum Event {
    /// The agent said something.
    Guest(FromGuest),
    /// The agent will say no more, for this reason.
    Silent(String),
    /// The program's first byte of output has come.
    FirstOutput,
    /// Nobody reads standard output (1) or error (2) any more.
    OutputClosed(u8),
    /// All of standard output or error has come and been written.
    OutputEnded,
    /// A signal came to this process.
    Signal(i32),
    /// The machine has ended.
    MachineEnded,
}

/// The queue of events. It is short: who floods it is held up.
pub struct Events {
    sender: SyncSender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    /// An empty queue.
    pub fn new() -> Events {
        let (sender, receiver) = sync_channel(64);
        Events { sender, receiver }
    }

    /// For a thread that tells of events.
    pub fn sender(&self) -> SyncSender<Event> {
        self.sender.clone()
    }

    /// The next one. `None`: the time is up.
    pub fn next(&self, deadline: Option<Instant>) -> Option<Event> {
        let Some(deadline) = deadline else {
            // A sender is here, so it never fails.
            return self.receiver.recv().ok();
        };
        let left = deadline.saturating_duration_since(Instant::now());
        self.receiver.recv_timeout(left).ok()
    }

    /// One that has happened already.
    pub fn pending(&self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }

    /// Tells of the machine's end, of which `ended` becomes readable.
    pub fn watch_end(&self, ended: BorrowedFd<'_>) -> Result<()> {
        let ended = ended
            .try_clone_to_owned()
            .map_err(|e| Error::io("watching the machine", &e))?;
        let sender = self.sender();
        spawn("duet-end", move || {
            wait_readable(&ended);
            // Fails if nobody listens any more, as below.
            drop(sender.send(Event::MachineEnded));
        })
    }

    /// Tells of signals.
    pub fn watch_signals(&self, signals: SignalFd) -> Result<()> {
        let sender = self.sender();
        spawn("duet-signals", move || {
            loop {
                match signals.read_signal() {
                    Ok(Some(info)) => {
                        if sender.send(Event::Signal(info.ssi_signo as i32)).is_err() {
                            return;
                        }
                    }
                    Ok(None) | Err(Errno::EINTR) => (),
                    Err(e) => return log::warn!("signals are not forwarded: {e}"),
                }
            }
        })
    }

    /// Tells of what the agent says.
    pub fn watch_control(&self, mut control: UnixStream) -> Result<()> {
        let sender = self.sender();
        spawn("duet-control", move || {
            loop {
                let event = match receive(&mut control, MAX_TO_HOST) {
                    Ok(Some(message)) => Event::Guest(message),
                    Ok(None) => Event::Silent("is closed".into()),
                    Err(e) => Event::Silent(e.to_string()),
                };
                let last = matches!(event, Event::Silent(_));
                if sender.send(event).is_err() || last {
                    return;
                }
            }
        })
    }
}

/// Starts a thread that ends by itself when the machine has.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map(drop)
        .map_err(|e| Error::io("starting a thread", &e))
}

fn wait_readable(fd: &OwnedFd) {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
}

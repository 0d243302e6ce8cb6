//! The caller's terminal: who is in its foreground while the guest runs, stops and ends.
//!
//! The guest has a process group of its own (it must not be able to signal the caller's), but stays in
//! the caller's session. If the caller's group is in the foreground, the guest's takes its place, and
//! gives it back when it stops or ends, as a shell does for its jobs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

/// The controlling terminal, if the caller is in its foreground.
pub struct Terminal {
    tty: OwnedFd,
    own_group: Pid,
    /// Its modes before the guest ran.
    modes: Option<Termios>,
    /// The group to put back in the foreground when the caller is continued.
    guest_group: Option<Pid>,
}

impl Terminal {
    /// Opens the controlling terminal. `None` without one, or in the background.
    pub fn open() -> Option<Terminal> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let tty = open("/dev/tty", flags, Mode::empty()).ok()?;
        let own_group = getpgrp();
        if tcgetpgrp(&tty) != Ok(own_group) {
            return None;
        }
        // SAFETY: ignoring a signal runs no handler.
        if let Err(e) = unsafe { signal(Signal::SIGTTOU, SigHandler::SigIgn) } {
            log::warn!("the terminal will not be given back: {e}");
            return None;
        }
        let modes = tcgetattr(&tty).ok();
        Some(Terminal {
            tty,
            own_group,
            modes,
            guest_group: None,
        })
    }

    /// For the guest to take the foreground with.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.tty.as_fd()
    }

    /// Takes the foreground back, remembering whose it was.
    pub fn take_back(&mut self) {
        self.guest_group = tcgetpgrp(&self.tty).ok().filter(|g| *g != self.own_group);
        self.set(self.own_group);
    }

    /// Gives it to the guest again, if the caller has been put in the foreground.
    pub fn hand_over(&mut self) {
        if tcgetpgrp(&self.tty) == Ok(self.own_group)
            && let Some(group) = self.guest_group.take()
        {
            self.set(group);
        }
    }

    /// Sets the modes of before: a guest that was killed may have left others.
    pub fn restore_modes(&self) {
        if let Some(modes) = &self.modes
            && let Err(e) = tcsetattr(&self.tty, SetArg::TCSADRAIN, modes)
        {
            log::debug!("modes of the terminal: {e}");
        }
    }

    fn set(&self, group: Pid) {
        if let Err(e) = tcsetpgrp(&self.tty, group) {
            log::debug!("foreground group {group} of the terminal: {e}");
        }
    }
}

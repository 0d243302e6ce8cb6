//! The caller's terminal: raw while the program runs, so that every key reaches the guest's own terminal.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::isatty;

use super::WindowSize;

/// Which of standard input, output and error are terminals.
pub fn which() -> [bool; 3] {
    [
        isatty(std::io::stdin()).unwrap_or(false),
        isatty(std::io::stdout()).unwrap_or(false),
        isatty(std::io::stderr()).unwrap_or(false),
    ]
}

/// Its size, by the first standard stream that is one.
pub fn window() -> Option<WindowSize> {
    let size = |fd: i32| {
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut size: libc::winsize = unsafe { std::mem::zeroed() };
        // SAFETY: the structure that the request fills.
        let n = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) };
        Errno::result(n).ok().map(|_| WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
            width: size.ws_xpixel,
            height: size.ws_ypixel,
        })
    };
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let (stdin, stdout) = (stdin.as_fd().as_raw_fd(), stdout.as_fd().as_raw_fd());
    size(stdin).or_else(|| size(stdout)).or_else(|| size(2))
}

/// The terminal in raw mode; dropping it sets the modes of before.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Sets raw mode. `None`: there is no terminal, or it does not let itself be set.
    pub fn enter() -> Option<Raw> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        match tcsetattr(&stdin, SetArg::TCSADRAIN, &raw) {
            Ok(()) => Some(Raw { before }),
            Err(e) => {
                log::warn!("the terminal cannot be set to raw mode: {e}");
                None
            }
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(e) = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.before) {
            log::warn!("the terminal's modes: {e}");
        }
    }
}

//! Starting the program.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use duet_vm_protocol::{ResourceLimit, Start, WindowSize};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::pty::{Winsize, openpty};
use nix::unistd::{Pid, pipe2};

use crate::{Named, Step};

/// The agent's ends of the program's streams.
pub struct Ends {
    /// Takes standard input: a pipe, or a terminal's master.
    pub stdin: OwnedFd,
    /// Gives standard output, if it is a pipe.
    pub stdout: Option<OwnedFd>,
    /// Gives standard error, if it is a pipe.
    pub stderr: Option<OwnedFd>,
    /// The terminal's master, which gives what is written to the terminal.
    pub terminal: Option<OwnedFd>,
}

/// `struct winsize` of ioctl_tty(2).
pub fn winsize(size: WindowSize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: size.width,
        ws_ypixel: size.height,
    }
}

/// Starts the program. The inner error is the errno with which the kernel refused.
pub fn start(start: &Start) -> Step<Result<(Pid, Ends), i32>> {
    let mut command = Command::new(OsStr::from_bytes(&start.program));
    let mut args = start.args.iter().map(|a| OsStr::from_bytes(a));
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).env_clear();
    for setting in &start.env {
        // A name may begin with `=`, but one without any is no setting.
        let at = setting.iter().skip(1).position(|&b| b == b'=');
        let Some((name, value)) = at.and_then(|at| setting.split_at_checked(at + 1)) else {
            continue;
        };
        let value = value.get(1..).unwrap_or_default();
        command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
    }
    command
        .current_dir(OsStr::from_bytes(&start.workdir))
        .uid(start.uid)
        .gid(start.gid);
    let ends = streams(start, &mut command).named("making the program's streams")?;
    let terminal = start.terminal.iter().position(|&t| t);
    let limits = start.limits.clone();
    // SAFETY: system calls only, on what was prepared before the fork.
    unsafe { command.pre_exec(move || prepare(terminal, &limits)) };
    match command.spawn() {
        Ok(child) => Ok(Ok((Pid::from_raw(child.id() as i32), ends))),
        Err(e) => match e.raw_os_error() {
            Some(errno) => Ok(Err(errno)),
            None => Err(format!("starting the program: {e}")),
        },
    }
}

/// Gives the program its standard input, output and error.
fn streams(start: &Start, command: &mut Command) -> io::Result<Ends> {
    let [stdin_tty, stdout_tty, stderr_tty] = start.terminal;
    let mut terminal = None;
    let mut slave = None;
    if start.terminal.contains(&true) {
        let pty = openpty(&winsize(start.window), None)?;
        for fd in [&pty.master, &pty.slave] {
            nix::fcntl::fcntl(
                fd,
                nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
            )?;
        }
        nix::unistd::fchown(&pty.slave, Some(start.uid.into()), None)?;
        terminal = Some(pty.master);
        slave = Some(pty.slave);
    }
    let tty = || -> io::Result<Stdio> {
        match &slave {
            Some(s) => Ok(s.try_clone()?.into()),
            None => Err(Errno::ENOTTY.into()),
        }
    };
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from);
    let stdin = match (&terminal, stdin_tty) {
        (Some(master), true) => {
            command.stdin(tty()?);
            master.try_clone()?
        }
        _ => {
            let (read, write) = pipe()?;
            command.stdin(File::from(read));
            write
        }
    };
    let output = |is_tty: bool, set: &mut dyn FnMut(Stdio)| -> io::Result<Option<OwnedFd>> {
        if is_tty {
            set(tty()?);
            return Ok(None);
        }
        let (read, write) = pipe()?;
        set(write.into());
        Ok(Some(read))
    };
    let stdout = output(stdout_tty, &mut |s| {
        command.stdout(s);
    })?;
    let stderr = output(stderr_tty, &mut |s| {
        command.stderr(s);
    })?;
    Ok(Ends {
        stdin,
        stdout,
        stderr,
        terminal,
    })
}

/// In the child, between fork and exec. `terminal`: a standard stream that is one.
fn prepare(terminal: Option<usize>, limits: &[ResourceLimit]) -> io::Result<()> {
    nix::unistd::setsid()?;
    if let Some(fd) = terminal {
        // SAFETY: an integer; makes it the controlling terminal of the new session.
        Errno::result(unsafe { libc::ioctl(fd as libc::c_int, libc::TIOCSCTTY, 0) })?;
    }
    for l in limits {
        let limit = libc::rlimit64 {
            rlim_cur: l.soft,
            rlim_max: l.hard,
        };
        // SAFETY: the structure that the call wants.
        Errno::result(unsafe { libc::setrlimit64(l.resource, &limit) })?;
    }
    Ok(())
}

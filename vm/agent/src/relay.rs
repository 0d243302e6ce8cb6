//! While the program runs: its streams, its signals, its end.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use duet_vm_protocol::{
    FromGuest, FromHost, MAX_DATA, MAX_TO_GUEST, Used, receive, receive_data, send, send_data,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use crate::program::{Ends, winsize};
use crate::{Named, Step};

/// The ports that carry streams.
pub struct Streams {
    /// To the program.
    pub stdin: File,
    /// From the program.
    pub stdout: File,
    /// From the program.
    pub stderr: File,
}

/// Blocks the signal that tells of children, and makes a descriptor of it.
pub fn watch_children() -> Step<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block().named("watching children")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .named("watching children")
}

/// A stream that nobody at the host reads any more.
type Closed = Arc<AtomicBool>;

/// Carries streams and signals until the program has ended, and reports that.
pub fn attend(
    control: &mut File,
    signals: &SignalFd,
    child: Pid,
    ports: Streams,
    ends: Ends,
) -> Step<()> {
    let master = ends.terminal.as_ref().map(|t| t.try_clone());
    let master = master.transpose().named("sharing the terminal")?;
    let (out_closed, err_closed) = (Closed::default(), Closed::default());
    let out_port = Arc::new(Mutex::new(ports.stdout));
    let err_port = Arc::new(Mutex::new(ports.stderr));
    spawn("stdin", move || feed(ports.stdin, ends.stdin))?;
    // What is written to the terminal goes the way of standard output.
    let drains = [
        (ends.stdout, &out_port, &out_closed),
        (ends.terminal, &out_port, &out_closed),
        (ends.stderr, &err_port, &err_closed),
    ];
    let mut drained = Vec::new();
    for (from, port, closed) in drains {
        let Some(from) = from else { continue };
        let (port, closed) = (port.clone(), closed.clone());
        drained.push(spawn("output", move || drain(from, &port, &closed))?);
    }
    let status = loop {
        let mut fds = [
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(e) => return Err(format!("waiting: {e}")),
        }
        let readable = |i: usize| fds.get(i).and_then(PollFd::any).unwrap_or(false);
        let (message, signal) = (readable(0), readable(1));
        if signal {
            while signals.read_signal().named("watching children")?.is_some() {}
            if let Some(status) = reap(control, child)? {
                break status;
            }
        }
        if message {
            match receive(control, MAX_TO_GUEST).named("listening to the host")? {
                Some(FromHost::Closed(1)) => out_closed.store(true, Relaxed),
                Some(FromHost::Closed(_)) => err_closed.store(true, Relaxed),
                Some(FromHost::Window(size)) => {
                    if let Some(master) = &master {
                        let size = winsize(size);
                        // SAFETY: the structure that the request wants; a failure changes nothing.
                        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
                    }
                }
                Some(FromHost::Signal(n)) => signal_to(child.as_raw(), n),
                Some(FromHost::SignalGroup(n)) => signal_to(-child.as_raw(), n),
                Some(FromHost::Start(_)) => return Err("the host began twice".into()),
                None => return Err("the host has gone".into()),
            }
        }
    };
    end_all();
    for thread in drained {
        if thread.join().is_err() {
            return Err("a stream was lost".into());
        }
    }
    for port in [out_port, err_port] {
        if let Ok(mut port) = port.lock() {
            send_data(&mut *port, &[]).named("ending a stream")?;
        }
    }
    nix::unistd::sync();
    let used = used().named("asking what was used")?;
    send(control, &FromGuest::Used(used)).named("reporting the end")?;
    send(control, &FromGuest::Ended(status)).named("reporting the end")
}

/// What the program and its descendants used: the agent has no other children.
fn used() -> nix::Result<Used> {
    let all = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |t: TimeVal| {
        let whole = t.tv_sec().saturating_mul(1_000_000);
        u64::try_from(whole.saturating_add(t.tv_usec())).unwrap_or(0)
    };
    Ok(Used {
        user: micros(all.user_time()),
        system: micros(all.system_time()),
        // KiB, says getrusage(2).
        peak: u64::try_from(all.max_rss())
            .unwrap_or(0)
            .saturating_mul(1024),
    })
}

fn signal_to(pid: i32, signal: i32) {
    // SAFETY: integers. That the process has gone is no fault.
    unsafe { libc::kill(pid, signal) };
}

/// Kills and reaps whatever still runs: the run ends with the program.
fn end_all() {
    signal_to(-1, libc::SIGKILL);
    loop {
        // SAFETY: no status is asked for.
        let n = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
        match Errno::result(n) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(_) => return,
        }
    }
}

/// Reaps whoever ended; the program's own end is returned as a wait status.
fn reap(control: &mut File, child: Pid) -> Step<Option<i32>> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is ours.
        let n = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) };
        match Errno::result(n) {
            Ok(0) | Err(Errno::ECHILD) => return Ok(None),
            Err(Errno::EINTR) => (),
            Err(e) => return Err(format!("reaping: {e}")),
            Ok(pid) if pid != child.as_raw() => (),
            Ok(_) if libc::WIFSTOPPED(status) => {
                let stopped = FromGuest::Stopped(libc::WSTOPSIG(status));
                send(control, &stopped).named("reporting a stop")?;
            }
            Ok(_) => return Ok(Some(status)),
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Step<JoinHandle<T>> {
    let thread = std::thread::Builder::new().name(name.into());
    // Its buffers are on the heap.
    thread
        .stack_size(64 << 10)
        .spawn(body)
        .named("starting a thread")
}

/// From the host to the program, until either ends it.
fn feed(mut port: File, to: OwnedFd) {
    let mut to = File::from(to);
    let mut data = Vec::new();
    // Says that it is ready, and waits until the host has connected.
    if send_data(&mut port, &[]).is_err() {
        return;
    }
    while let Ok(true) = receive_data(&mut port, MAX_DATA, &mut data) {
        if data.is_empty() || to.write_all(&data).is_err() {
            return;
        }
    }
}

/// From the program to the host, until the program's end, or nobody there wants it. Dropping `from` then
/// lets the program's next write fail.
fn drain(from: OwnedFd, port: &Mutex<File>, closed: &AtomicBool) {
    let mut data = vec![0; MAX_DATA];
    while !closed.load(Relaxed) {
        let n = match nix::unistd::read(&from, &mut data) {
            Err(Errno::EINTR) => continue,
            // Of a terminal: its last user has gone (EIO).
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        let Some(data) = data.get(..n) else { return };
        let sent = port.lock().map(|mut port| send_data(&mut *port, data));
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

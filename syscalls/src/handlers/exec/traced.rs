//! `execve` of a thread that somebody traces: the kernel loads the program, as Duet's own loader would
//! be seen by the tracer, and could not attach ([`images`](crate::images)).
//!
//! Set-id bits do not count then, and what the caller may not read it cannot run. The auxiliary vector
//! has the ids that the kernel knows.

use std::os::fd::{AsFd, BorrowedFd};

use duet_vfs::types::{Errno, Result};
use duet_vfs::walk::Location;

use super::{SetId, closes_on_exec, ready};
use crate::process::{Held, Native, State};
use crate::task::{Reply, Task};

pub(super) fn start(t: &Task, path: &[u8], location: Location) -> Result<Reply> {
    let by_descriptor = i64::from(t.call.nr) == libc::SYS_execveat && t.path(1)?.is_empty();
    if !by_descriptor && path.starts_with(b"/dev/fd/") && i64::from(t.call.nr) == libc::SYS_execveat
    {
        // The directory is a stand-in, where the kernel would find nothing.
        return Err(Errno::EPERM);
    }
    t.kernel.vfs.access(&t.cx(), &location, libc::R_OK as u32)?;
    let mut pending = ready(t, path, &location, SetId::Ignored)?;
    let files: Vec<(&[u8], BorrowedFd<'_>)> = pending
        .launch
        .files()
        .map(|(named, fd)| (named.path.as_slice(), fd))
        .collect();
    let images = &t.kernel.images;
    let copies = images.place(&files, t.process.running().ok())?;
    let scripts = files.len() - 1 - usize::from(pending.launch.interpreter.is_some());
    // For /proc/PID/maps.
    for ((named, _), &copy) in pending.launch.files().zip(&copies) {
        t.kernel.vfs.adopt(copy, &named.location);
    }
    let copy = *copies.get(scripts).ok_or(Errno::ENOEXEC)?;
    let mut held = None;
    if by_descriptor {
        let number = t.int(0);
        let own = t.copy_of(number)?;
        let closes = closes_on_exec(t, number);
        let file = images.open(path)?;
        let engine = &t.kernel.engine;
        engine.inject(&t.call, file.as_fd(), Some(number), closes)?;
        held = Some(Held {
            number,
            fd: own,
            closes,
            copy: *copies.first().ok_or(Errno::ENOEXEC)?,
        });
    }
    pending.native = Some(Native { copy, held });
    // The kernel has put a script's arguments in their place, and made the auxiliary vector.
    pending.state = natively_loaded(pending.state);
    t.kernel.processes.announce_exec(&t.process, pending);
    Ok(Reply::Run)
}

fn natively_loaded(mut state: State) -> State {
    if let Some(program) = &mut state.program {
        program.cmdline_prefix = None;
    }
    state
}

/// Puts what a copy had taken the place of back there, unless the caller has closed that.
pub(crate) fn give_back(t: &Task, held: Held) {
    let still = t
        .copy_of(held.number)
        .and_then(|fd| duet_vfs::counted::fstat(fd.as_fd()));
    if !still.is_ok_and(|s| (s.st_dev, s.st_ino) == (held.copy.dev, held.copy.ino)) {
        return;
    }
    let (fd, number) = (held.fd.as_fd(), Some(held.number));
    if let Err(e) = t.kernel.engine.inject(&t.call, fd, number, held.closes) {
        log::debug!("process {}: {e}", t.process.host_pid());
    }
}

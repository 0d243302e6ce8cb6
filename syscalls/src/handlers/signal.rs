//! Sending signals. The kernel delivers; here the virtual identities are compared first (kill(2)).

use std::os::fd::AsRawFd;
use std::sync::Arc;

use duet_vfs::Location;
use duet_vfs::account::host;
use duet_vfs::counted::read_text;
use duet_vfs::inode::Caller;
use duet_vfs::types::{Caps, Creds, Errno, Result};

use crate::process::Process;
use crate::task::{Descriptor, Reply, Task};

fn may_signal(from: &Creds, to: &Creds) -> bool {
    from.has(Caps::KILL)
        || [to.uid, to.suid].contains(&from.euid)
        || [to.uid, to.suid].contains(&from.uid)
}

/// `EPERM` if `pid`, a thread or process in the sandbox's numbers, may not be signalled. What is not
/// known has made no call yet, or is gone: the kernel finds out. Process 1 is Duet's own, and belongs to
/// whom the first program runs as.
fn check(t: &Task, pid: i32, sig: i32) -> Result<()> {
    if t.state.creds.has(Caps::KILL) || pid == t.pid() {
        return Ok(());
    }
    if pid == 1 {
        let init = t.kernel.processes.initial_state().ok_or(Errno::ESRCH)?;
        return match may_signal(&t.state.creds, &init.creds) {
            true => Ok(()),
            false => Err(Errno::EPERM),
        };
    }
    let Some(target) = t.kernel.processes.by_guest_pid(pid) else {
        return Ok(());
    };
    let same_session = || session(target.host_pid()) == session(t.process.host_pid());
    let state = target.state();
    if may_signal(&t.state.creds, &state.creds) || (sig == libc::SIGCONT && same_session()) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

fn session(pid: i32) -> Option<i32> {
    // SAFETY: no pointers.
    Errno::result(host("getsid", || unsafe { libc::getsid(pid) })).ok()
}

fn group(pid: i32) -> Option<i32> {
    // SAFETY: no pointers.
    Errno::result(host("getpgid", || unsafe { libc::getpgid(pid) })).ok()
}

pub(super) fn kill(t: &Task) -> Result<Reply> {
    let (pid, sig) = (t.int(0), t.int(1));
    if t.state.creds.has(Caps::KILL) {
        return Ok(Reply::Run);
    }
    if pid > 0 {
        check(t, pid, sig)?;
        return Ok(Reply::Run);
    }
    let all = t.kernel.processes.all();
    let forbidden = |p: &Arc<Process>| !may_signal(&t.state.creds, &p.state().creds);
    if !all.iter().any(forbidden) {
        return Ok(Reply::Run);
    }
    kill_many(t, pid, sig, &all)
}

/// `kill(2)` of a group or of all, where not everybody may be signalled.
fn kill_many(t: &Task, pid: i32, sig: i32, all: &[Arc<Process>]) -> Result<Reply> {
    let own = t.process.host_pid();
    let wanted: Vec<&Arc<Process>> = match pid {
        -1 => all.iter().filter(|p| p.host_pid() != own).collect(),
        0 => {
            let g = group(own);
            all.iter().filter(|p| group(p.host_pid()) == g).collect()
        }
        _ => {
            let leader = pid.checked_neg().ok_or(Errno::ESRCH)?;
            let leader = t
                .kernel
                .processes
                .by_guest_pid(leader)
                .ok_or(Errno::ESRCH)?;
            let g = group(leader.host_pid());
            all.iter().filter(|p| group(p.host_pid()) == g).collect()
        }
    };
    if wanted.is_empty() {
        return Err(Errno::ESRCH);
    }
    let mut sent = Err(Errno::EPERM);
    for p in wanted
        .iter()
        .filter(|p| may_signal(&t.state.creds, &p.state().creds))
    {
        match p.signal(sig) {
            Ok(()) => sent = Ok(Reply::DONE),
            Err(Errno::EINVAL) => return Err(Errno::EINVAL),
            Err(e) => log::debug!("signal {sig} to {}: {e}", p.host_pid()),
        }
    }
    sent
}

/// `tkill(tid, sig)`, `rt_sigqueueinfo(tgid, sig, info)`.
pub(super) fn to_first(t: &Task) -> Result<Reply> {
    check(t, t.int(0), t.int(1))?;
    Ok(Reply::Run)
}

/// `tgkill(tgid, tid, sig)`, `rt_tgsigqueueinfo(tgid, tid, sig, info)`.
pub(super) fn to_thread(t: &Task) -> Result<Reply> {
    check(t, t.int(0), t.int(2))?;
    Ok(Reply::Run)
}

/// `pidfd_send_signal(pidfd, sig, info, flags)`.
pub(super) fn to_pidfd(t: &Task) -> Result<Reply> {
    let d = t.descriptor(t.int(0))?;
    if let Some(location) = &d.location {
        return to_proc_directory(t, location);
    }
    if t.state.creds.has(Caps::KILL) {
        return Ok(Reply::Run);
    }
    check(t, pid_of_pidfd(&d)?, t.int(1))?;
    Ok(Reply::Run)
}

/// The process of a pidfd, in the sandbox's numbers; `EBADF` for another descriptor.
pub(super) fn pid_of_pidfd(pidfd: &Descriptor) -> Result<i32> {
    let info = read_text(format!("/proc/self/fdinfo/{}", pidfd.fd.as_raw_fd()));
    let info = info.map_err(|_| Errno::EBADF)?;
    let line = info
        .lines()
        .find_map(|l| l.strip_prefix("NSpid:"))
        .ok_or(Errno::EBADF)?;
    let last = line.split_ascii_whitespace().next_back();
    last.and_then(|p| p.parse().ok()).ok_or(Errno::ESRCH)
}

/// A descriptor of `/proc/PID` serves as a pidfd. The guest's is a stand-in, which the kernel would not
/// take for one, so the signal is sent from here.
fn to_proc_directory(t: &Task, location: &Location) -> Result<Reply> {
    let of_proc = location.mount.sb().fs().type_name() == "proc";
    let top = location
        .dentry
        .parent()
        .is_some_and(|p| p.parent().is_none());
    let name = location.dentry.name();
    let pid = std::str::from_utf8(&name).ok().and_then(|n| n.parse().ok());
    let (true, true, Some(pid)) = (of_proc, top, pid) else {
        return Err(Errno::EBADF);
    };
    let (sig, info, flags) = (t.int(1), t.arg(2), t.uint(3));
    if info != 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    check(t, pid, sig)?;
    let target = t.kernel.processes.by_guest_pid(pid).ok_or(Errno::ESRCH)?;
    target.signal(sig)?;
    Ok(Reply::DONE)
}

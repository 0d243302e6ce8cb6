//! Looking into other processes: ptrace(2) and its like. The kernel does it; here it is seen to that the
//! other is a process of the sandbox, and that the virtual identities allow it.
//!
//! A tracer changes calls only before the filter sees them, so it gains nothing by that
//! (seccomp(2)). With an engine that traces the guests itself, nobody else can.

use std::sync::atomic::Ordering;

use duet_vfs::inode::Caller;
use duet_vfs::types::{Caps, Creds, Errno, Result};

use super::signal::pid_of_pidfd;
use crate::process::{Process, get_descriptor, parent_of};
use crate::task::{Reply, Task};

const PTRACE_SEIZE: i32 = libc::PTRACE_SEIZE as i32;
const PTRACE_ATTACH: i32 = libc::PTRACE_ATTACH as i32;
const PTRACE_TRACEME: i32 = libc::PTRACE_TRACEME as i32;

/// "Ptrace access mode checking" of ptrace(2), with the caller's real ids.
fn may_access(by: &Creds, to: &Creds) -> bool {
    let same = [to.uid, to.euid, to.suid].iter().all(|&u| u == by.uid)
        && [to.gid, to.egid, to.sgid].iter().all(|&g| g == by.gid);
    by.has(Caps::SYS_PTRACE) || (same && by.permitted.contains(to.permitted))
}

/// `EPERM` unless the caller may look into `target`.
fn check(t: &Task, target: &Process) -> Result<()> {
    if target.host_pid() == t.process.host_pid() {
        return Ok(());
    }
    let by = &t.state.creds;
    // What it is about to become counts as well.
    let pending = {
        let pending = target.pending_exec.lock();
        pending.as_ref().map(|p| p.state.creds.clone())
    };
    let allowed =
        may_access(by, &target.state().creds) && pending.is_none_or(|creds| may_access(by, &creds));
    if allowed { Ok(()) } else { Err(Errno::EPERM) }
}

/// `EPERM` with an engine that has something of its own in each process.
fn is_open(t: &Task) -> Result<()> {
    match t.kernel.engine.leaves_tracing() {
        true => Ok(()),
        false => Err(Errno::EPERM),
    }
}

/// `EPERM` unless the caller may look into the process of thread `tid`, in the sandbox's numbers; init is
/// closed to all.
fn check_tid(t: &Task, tid: i32) -> Result<()> {
    if tid == 1 {
        return Err(Errno::EPERM);
    }
    let target = t.kernel.processes.by_guest_tid(tid).ok_or(Errno::ESRCH)?;
    check(t, &target)
}

/// As [`check_tid`], for a look that the kernel is left to take: an `execve` by which the other would gain
/// something waits for its end.
fn check_look(t: &Task, tid: i32) -> Result<()> {
    let target = t.kernel.processes.by_guest_tid(tid).ok_or(Errno::ESRCH)?;
    let lookers = &t.kernel.lookers;
    lookers.begin(t.call.tid, target.serial());
    check_tid(t, tid).inspect_err(|_| lookers.end(t.call.tid))
}

/// `ptrace(op, pid, addr, data)`, of the operations that make a tracer: what a tracer does with whom it
/// traces is native.
pub(super) fn ptrace(t: &Task) -> Result<Reply> {
    is_open(t)?;
    match t.int(0) {
        PTRACE_TRACEME => {
            let parent = parent_of(t.call.tid).ok_or(Errno::EPERM)?;
            let processes = &t.kernel.processes;
            // Init would take it for stopped, and never let it go on.
            if processes.is_init(parent) {
                return Err(Errno::EPERM);
            }
            let parent = processes.by_host_pid(parent);
            // Who has made no call yet is as its parent was.
            let creds = parent.map(|p| p.state().creds.clone());
            if creds.is_some_and(|c| !may_access(&c, &t.state.creds)) {
                return Err(Errno::EPERM);
            }
        }
        PTRACE_ATTACH | PTRACE_SEIZE => check_look(t, t.int(1))?,
        _ => return Ok(Reply::Run),
    }
    t.kernel.traces.store(true, Ordering::Relaxed);
    t.kernel.images.stop_leading();
    // A tracer is to see all calls.
    if let Some(agents) = &t.kernel.agents {
        agents.close();
    }
    Ok(Reply::Run)
}

/// `process_vm_readv(pid, …)`, `process_vm_writev(pid, …)`.
pub(super) fn process_vm(t: &Task) -> Result<Reply> {
    is_open(t)?;
    let pid = t.int(0);
    if pid != t.pid() {
        check_look(t, pid)?;
    }
    Ok(Reply::Run)
}

/// `kcmp(pid1, pid2, …)`, which tells nothing of what a program executed meanwhile holds.
pub(super) fn kcmp(t: &Task) -> Result<Reply> {
    is_open(t)?;
    for pid in [t.int(0), t.int(1)] {
        if pid != t.pid() {
            check_tid(t, pid)?;
        }
    }
    Ok(Reply::Run)
}

/// `pidfd_getfd(pidfd, targetfd, flags)`.
pub(super) fn pidfd_getfd(t: &Task) -> Result<Reply> {
    is_open(t)?;
    if t.arg(2) as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let pidfd = t.descriptor(t.int(0))?;
    // A stand-in of /proc/PID, too, is none to the kernel.
    if pidfd.location.is_some() {
        return Err(Errno::EBADF);
    }
    // Not run by the kernel: it would look the number up again, and by then another process may stand for it.
    let tid = pid_of_pidfd(&pidfd)?;
    check_tid(t, tid)?;
    let fd = get_descriptor(&pidfd.fd, t.int(1))?;
    // Nor may it have become another meanwhile.
    check_tid(t, tid)?;
    Ok(Reply::Descriptor { fd, cloexec: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn access_follows_all_ids_and_capabilities() {
        let user = |uid| Creds::user(uid, uid, Arc::from([]));
        let root = Creds::root();
        assert!(may_access(&root, &user(7)) && may_access(&root, &root));
        assert!(may_access(&user(7), &user(7)));
        assert!(!may_access(&user(7), &user(8)) && !may_access(&user(7), &root));
        // A set-id program, and one that has taken on another id for a while.
        for odd in [
            Creds { euid: 0, ..user(7) },
            Creds { suid: 0, ..user(7) },
            Creds { egid: 0, ..user(7) },
            Creds { sgid: 8, ..user(7) },
            Creds {
                permitted: Caps::KILL,
                ..user(7)
            },
        ] {
            assert!(!may_access(&user(7), &odd));
        }
        // Root without the capability is a user like others.
        let weak = Creds {
            effective: Caps::empty(),
            permitted: Caps::empty(),
            ..Creds::root()
        };
        assert!(!may_access(&weak, &root) && !may_access(&weak, &user(7)));
        assert!(may_access(&weak, &weak.clone()));
    }
}

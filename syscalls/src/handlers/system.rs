//! Calls about the machine, and about other processes' limits.

use duet_vfs::account::host;
use duet_vfs::types::{Caps, Errno, Result};

use crate::kernel::NameKind;
use crate::states;
use crate::task::{Reply, Task};

/// `__NEW_UTS_LEN`.
const NAME_MAX: u64 = 64;

pub(super) fn sethostname(t: &Task) -> Result<Reply> {
    set_name(t, NameKind::Host)
}

pub(super) fn setdomainname(t: &Task) -> Result<Reply> {
    set_name(t, NameKind::Domain)
}

fn set_name(t: &Task, which: NameKind) -> Result<Reply> {
    if !t.state.creds.has(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = t.arg(1);
    if len > NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let name = t.read(t.arg(0), len as usize)?;
    t.kernel.privileged.set_name(&name, which)?;
    Ok(Reply::DONE)
}

/// `struct sysinfo` is the host's, but for the number of processes and, where it is limited, the memory.
pub(super) fn sysinfo(t: &Task) -> Result<Reply> {
    const PROCS: usize = 80;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is ours.
    Errno::result(host("sysinfo", || unsafe { libc::sysinfo(&mut info) }))?;
    if let Some(limit) = t.kernel.memory_limit {
        let units = limit / u64::from(info.mem_unit).max(1);
        for field in [&mut info.totalram, &mut info.freeram] {
            *field = units.min(*field);
        }
    }
    // SAFETY: plain integers, read as bytes; the structure was zeroed, so padding is set.
    let bytes: [u8; size_of::<libc::sysinfo>()] = unsafe { std::mem::transmute(info) };
    let mut bytes = bytes.to_vec();
    let processes = t.kernel.processes.all();
    let processes = processes.iter().filter(|p| p.is_alive()).count();
    let processes = processes.min(usize::from(u16::MAX)) as u16;
    bytes.splice(PROCS..PROCS + 2, processes.to_le_bytes());
    t.write(t.arg(0), &bytes)?;
    Ok(Reply::DONE)
}

/// Of `RLIMIT_LOCKS`.
pub(super) fn getrlimit(t: &Task) -> Result<Reply> {
    no_lock_limit(t, 0, t.arg(1))
}

/// Of `RLIMIT_LOCKS`.
pub(super) fn setrlimit(t: &Task) -> Result<Reply> {
    no_lock_limit(t, t.arg(1), 0)
}

/// `RLIMIT_LOCKS` has no meaning, and is Duet's: it shows as unlimited, and setting it does nothing.
fn no_lock_limit(t: &Task, new: u64, old: u64) -> Result<Reply> {
    const RLIMIT_SIZE: usize = 16;
    if new != 0 {
        t.read(new, RLIMIT_SIZE)?;
    }
    if old != 0 {
        t.write(old, &[0xff; RLIMIT_SIZE])?;
    }
    Ok(Reply::DONE)
}

/// Of another process: the caller itself is the kernel's own matter.
pub(super) fn prlimit64(t: &Task) -> Result<Reply> {
    use duet_vfs::inode::Caller;
    if t.uint(1) == states::STAMP {
        return no_lock_limit(t, t.arg(2), t.arg(3));
    }
    let pid = t.int(0);
    if pid == t.pid() {
        return Ok(Reply::Run);
    }
    // Init is Duet's own.
    if pid == 1 {
        return Err(Errno::EPERM);
    }
    let target = t
        .kernel
        .processes
        .by_guest_pid(pid)
        .ok_or(Errno::ESRCH)?
        .state();
    let (c, o) = (&t.state.creds, &target.creds);
    let same = [o.uid, o.euid, o.suid].iter().all(|&u| u == c.uid)
        && [o.gid, o.egid, o.sgid].iter().all(|&g| g == c.gid);
    if same || c.has(Caps::SYS_RESOURCE) {
        Ok(Reply::Run)
    } else {
        Err(Errno::EPERM)
    }
}

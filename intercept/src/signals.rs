//! The signals that a stopped thread blocks.

use nix::unistd::Pid;

use crate::{Errno, Result};

/// Has a stopped thread block all signals; returns those that it did before.
pub(crate) fn block(pid: Pid) -> Result<u64> {
    let mut blocked = 0;
    mask(pid, libc::PTRACE_GETSIGMASK, &mut blocked)?;
    restore(pid, u64::MAX)?;
    Ok(blocked)
}

/// Has a stopped thread block these signals.
pub(crate) fn restore(pid: Pid, mut blocked: u64) -> Result<()> {
    mask(pid, libc::PTRACE_SETSIGMASK, &mut blocked)
}

fn mask(pid: Pid, request: libc::c_uint, mask: &mut u64) -> Result<()> {
    let size = size_of_val(mask);
    // SAFETY: the mask is as large as said, and these requests touch nothing else.
    let n = unsafe { libc::ptrace(request, pid.as_raw(), size, mask as *mut u64) };
    Errno::result(n).map(drop)
}

//! New namespaces, the ids in them, and what else a process of the sandbox is prepared with.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, getegid, geteuid};

use crate::error::{Error, Result};

/// Host ids that guests of a sandbox started by root have: nobody and nogroup.
const NOBODY: u32 = 65534;

/// Forks into new user, pid, mount, IPC, UTS and, with `network`, network namespaces. Returns the child's pid in the
/// parent and `None` in the child.
///
/// The calling process must have a single thread.
pub fn fork_into_new(network: bool) -> Result<Option<Pid>> {
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::SIGCHLD;
    if network {
        flags |= libc::CLONE_NEWNET;
    }
    // SAFETY: as fork(2): no stack is given, so the child goes on on its copy of this one.
    let n = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match Errno::result(n) {
        Ok(0) => Ok(None),
        Ok(pid) => Ok(Some(Pid::from_raw(pid as i32))),
        Err(e @ (Errno::EPERM | Errno::EACCES)) => Err(Error::Failed(format!(
            "cannot make a user namespace: {}; `duet doctor` says what to enable",
            e.desc()
        ))),
        Err(Errno::ENOSPC | Errno::EUSERS) => Err(Error::Failed(
            "cannot make a user namespace: the host allows no more of them \
             (/proc/sys/user/max_user_namespaces)"
                .into(),
        )),
        Err(e) => Err(Error::step("making namespaces", e)),
    }
}

/// User and group of the host that id 0 of a sandbox's user namespace stands for: the caller's, or
/// nobody's if the caller is root.
pub fn own_ids() -> (u32, u32) {
    match geteuid().is_root() {
        true => (NOBODY, NOBODY),
        false => (geteuid().as_raw(), getegid().as_raw()),
    }
}

/// Maps id 0 of the child's user namespace to [`own_ids`], which have no privileges on the host. No
/// other id exists there.
pub fn write_id_maps(child: Pid) -> Result<()> {
    let root = geteuid().is_root();
    let (uid, gid) = own_ids();
    let write = |file: &str, text: String| {
        let path = format!("/proc/{child}/{file}");
        fs::write(&path, text).map_err(|e| Error::Failed(format!("writing {path}: {e}")))
    };
    if !root {
        write("setgroups", "deny".into())?;
    }
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

/// Has the allocator give back what the supervisor no longer uses, mallopt(3): its threads come and go with
/// the load, and each would keep memory of its own; and large texts of `/proc` are mapped one by one.
pub fn bound_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers of the allocator's.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
}

/// Has a program start with this signal mask, whatever the calling thread blocks.
pub fn set_mask(command: &mut Command, mask: SigSet) {
    let set = move || mask.thread_set_mask().map_err(Into::into);
    // SAFETY: one system call, on a set that was made before the fork.
    unsafe { command.pre_exec(set) };
}

/// Lifts the soft limit of descriptors to the hard one, for the supervisor keeps many. Returns the
/// limits the guest is to have.
pub fn raise_descriptor_limit() -> Result<(u64, u64)> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|e| Error::step("reading the limit of descriptors", e))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .map_err(|e| Error::step("raising the limit of descriptors", e))?;
    if let Err(e) = grow_descriptor_table(hard.min(MANY)) {
        log::debug!("the table of descriptors grows when it is needed: {e}");
    }
    Ok((soft, hard))
}

/// Descriptors that a supervisor may well come to have: caches hold most.
const MANY: u64 = 16384;

/// Makes the kernel's table of this process large enough for `size` descriptors. While a process has one
/// thread that takes some microseconds; later, each time that the table doubles, the kernel waits until
/// no processor reads the old one (`synchronize_rcu`), 10 to 30 ms in which no call is answered.
fn grow_descriptor_table(size: u64) -> nix::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::sys::eventfd::{EfdFlags, EventFd};
    let last = i32::try_from(size.saturating_sub(1)).unwrap_or(i32::MAX);
    let some = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
    let number = fcntl(&some, FcntlArg::F_DUPFD_CLOEXEC(last))?;
    nix::unistd::close(number)
}

/// A sealed memfd that holds `bytes`, open for reading only.
pub fn sealed_memfd(name: &std::ffi::CStr, bytes: &[u8]) -> Result<std::os::fd::OwnedFd> {
    use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::stat::Mode;
    use std::io::Write;
    let failed = |e| Error::step("making a memfd", e);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = fs::File::from(memfd_create(name, flags).map_err(failed)?);
    file.write_all(bytes)
        .map_err(|e| Error::Failed(format!("filling a memfd: {e}")))?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(failed)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    open(
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(failed)
}

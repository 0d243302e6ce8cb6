//! Keeps a guest that shares the host's network from the host's abstract Unix sockets (landlock(7)).

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// `struct landlock_ruleset_attr` as of ABI 6.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

const _: () = assert!(size_of::<RulesetAttr>() == 24);

const CREATE_RULESET_VERSION: libc::c_uint = 1;
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
/// The first ABI with scopes (Linux 6.12).
const SCOPES: libc::c_long = 6;

/// Whether this host can do it.
pub fn available() -> bool {
    // SAFETY: asks for the version: no structure is given.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttr>(),
            0,
            CREATE_RULESET_VERSION,
        )
    };
    version >= SCOPES
}

/// From here on the calling thread, which needs `no_new_privs`, and its children reach only abstract
/// sockets that they have made themselves.
pub fn scope_abstract_sockets() -> nix::Result<()> {
    let attr = RulesetAttr {
        handled_access_fs: 0,
        handled_access_net: 0,
        scoped: SCOPE_ABSTRACT_UNIX_SOCKET,
    };
    // SAFETY: the structure and its size.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &attr,
            size_of::<RulesetAttr>(),
            0,
        )
    };
    let fd = Errno::result(fd)? as RawFd;
    // SAFETY: the kernel has just returned this descriptor to us.
    let ruleset = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: integers.
    let n = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd, 0) };
    drop(ruleset);
    Errno::result(n).map(drop)
}

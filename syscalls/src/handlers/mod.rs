//! The handlers: `sys_x` of the kernel, one file per family. Each converts its raw arguments once and
//! lets the VFS do the work.

mod attr;
mod cred;
mod dir;
pub mod exec;
mod message;
mod mount;
mod names;
mod net;
mod open;
mod signal;
mod stat;
mod system;
mod trace;
mod xattr;

use std::sync::OnceLock;

use duet_vfs::types::Result;

use crate::table::{self, places::Place};
use crate::task::{Reply, Task};

/// Serves one call.
pub type Handler = fn(&Task) -> Result<Reply>;

/// Handlers with the names of their calls, and where each stands.
macro_rules! handlers {
    ($(($call:literal, $module:ident::$function:ident),)*) => {
        /// Every handler, by the name of its call.
        const HANDLERS: &[(&str, Handler, Place)] = &[$((
            $call,
            $module::$function,
            Place {
                file: concat!("syscalls/src/handlers/", stringify!($module), ".rs"),
                function: stringify!($function),
            },
        )),*];
    };
}

handlers! {
    ("open", open::open),
    ("openat", open::openat),
    ("openat2", open::openat2),
    ("creat", open::creat),
    ("stat", stat::stat),
    ("lstat", stat::lstat),
    ("fstat", stat::fstat),
    ("newfstatat", stat::newfstatat),
    ("statx", stat::statx),
    ("access", stat::access),
    ("faccessat", stat::faccessat),
    ("faccessat2", stat::faccessat2),
    ("readlink", stat::readlink),
    ("readlinkat", stat::readlinkat),
    ("statfs", stat::statfs),
    ("fstatfs", stat::fstatfs),
    ("getdents", dir::getdents),
    ("getdents64", dir::getdents64),
    ("inotify_add_watch", dir::inotify_add_watch),
    ("mkdir", names::mkdir),
    ("mkdirat", names::mkdirat),
    ("mknod", names::mknod),
    ("mknodat", names::mknodat),
    ("symlink", names::symlink),
    ("symlinkat", names::symlinkat),
    ("link", names::link),
    ("linkat", names::linkat),
    ("unlink", names::unlink),
    ("unlinkat", names::unlinkat),
    ("rmdir", names::rmdir),
    ("rename", names::rename),
    ("renameat", names::renameat),
    ("renameat2", names::renameat2),
    ("chdir", names::chdir),
    ("fchdir", names::fchdir),
    ("chroot", names::chroot),
    ("getcwd", names::getcwd),
    ("mount", mount::mount),
    ("umount2", mount::umount2),
    ("umask", names::umask),
    ("chmod", attr::chmod),
    ("fchmod", attr::fchmod),
    ("fchmodat", attr::fchmodat),
    ("fchmodat2", attr::fchmodat2),
    ("chown", attr::chown),
    ("lchown", attr::lchown),
    ("fchown", attr::fchown),
    ("fchownat", attr::fchownat),
    ("truncate", attr::truncate),
    ("utime", attr::utime),
    ("utimes", attr::utimes),
    ("futimesat", attr::futimesat),
    ("utimensat", attr::utimensat),
    ("setxattr", xattr::setxattr),
    ("lsetxattr", xattr::lsetxattr),
    ("fsetxattr", xattr::fsetxattr),
    ("getxattr", xattr::getxattr),
    ("lgetxattr", xattr::lgetxattr),
    ("fgetxattr", xattr::fgetxattr),
    ("listxattr", xattr::listxattr),
    ("llistxattr", xattr::llistxattr),
    ("flistxattr", xattr::flistxattr),
    ("removexattr", xattr::removexattr),
    ("lremovexattr", xattr::lremovexattr),
    ("fremovexattr", xattr::fremovexattr),
    ("setxattrat", xattr::setxattrat),
    ("getxattrat", xattr::getxattrat),
    ("listxattrat", xattr::listxattrat),
    ("removexattrat", xattr::removexattrat),
    ("execve", exec::execve),
    ("execveat", exec::execveat),
    ("getuid", cred::getuid),
    ("geteuid", cred::geteuid),
    ("getgid", cred::getgid),
    ("getegid", cred::getegid),
    ("setuid", cred::setuid),
    ("setgid", cred::setgid),
    ("setreuid", cred::setreuid),
    ("setregid", cred::setregid),
    ("setresuid", cred::setresuid),
    ("setresgid", cred::setresgid),
    ("getresuid", cred::getresuid),
    ("getresgid", cred::getresgid),
    ("setfsuid", cred::setfsuid),
    ("setfsgid", cred::setfsgid),
    ("getgroups", cred::getgroups),
    ("setgroups", cred::setgroups),
    ("capget", cred::capget),
    ("capset", cred::capset),
    ("prctl", cred::prctl),
    ("bind", net::bind),
    ("connect", net::connect),
    ("getsockname", net::getsockname),
    ("getpeername", net::getpeername),
    ("getsockopt", net::getsockopt),
    ("sendto", message::sendto),
    ("sendmsg", message::sendmsg),
    ("sendmmsg", message::sendmmsg),
    ("kill", signal::kill),
    ("tkill", signal::to_first),
    ("tgkill", signal::to_thread),
    ("rt_sigqueueinfo", signal::to_first),
    ("rt_tgsigqueueinfo", signal::to_thread),
    ("pidfd_send_signal", signal::to_pidfd),
    ("ptrace", trace::ptrace),
    ("process_vm_readv", trace::process_vm),
    ("process_vm_writev", trace::process_vm),
    ("kcmp", trace::kcmp),
    ("pidfd_getfd", trace::pidfd_getfd),
    ("sethostname", system::sethostname),
    ("setdomainname", system::setdomainname),
    ("sysinfo", system::sysinfo),
    ("getrlimit", system::getrlimit),
    ("setrlimit", system::setrlimit),
    ("prlimit64", system::prlimit64),
    ("seccomp", cred::seccomp),
}

/// The handler of call `nr`, if one serves it.
pub fn of(nr: u32) -> Option<Handler> {
    static BY_NUMBER: OnceLock<Vec<Option<Handler>>> = OnceLock::new();
    let by_number = BY_NUMBER.get_or_init(|| {
        let mut all = vec![None; 512];
        for (name, handler, _) in HANDLERS {
            if let Some(row) = table::by_name(name)
                && let Some(slot) = all.get_mut(row.nr as usize)
            {
                *slot = Some(*handler);
            }
        }
        all
    });
    by_number.get(nr as usize).copied().flatten()
}

/// Where the handler of call `name` stands, if one serves it.
pub fn place_of(name: &str) -> Option<Place> {
    let handler = HANDLERS.iter().find(|(call, ..)| *call == name);
    handler.map(|(_, _, place)| *place)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::table::Disposition;

    fn emulated(d: &Disposition) -> bool {
        match d {
            Disposition::Emulated => true,
            Disposition::When(_, a, b) => emulated(a) || emulated(b),
            Disposition::Native | Disposition::Refused(_) => false,
        }
    }

    #[test]
    fn just_the_emulated_calls_have_a_handler() {
        let table: BTreeSet<&str> = table::rows()
            .iter()
            .filter(|r| emulated(&r.disposition))
            .map(|r| r.name)
            .collect();
        let handlers: BTreeSet<&str> = HANDLERS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(handlers.len(), HANDLERS.len(), "a handler stands twice");
        assert_eq!(handlers, table);
    }
}

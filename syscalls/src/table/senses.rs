//! What each call is for, in a sentence, and the errors that it can give.
//!
//! Errors that follow from the arguments – a path that leads nowhere, a descriptor that is not open, a
//! pointer outside the caller's memory – are not written down: [`Row::errors`] derives them.

use nix::errno::Errno;

use super::types::{Arg, Dir, Ret, Row, Set, Type};
use super::{Disposition, Verdict};

/// What the files of senses are written with.
pub(super) mod prelude {
    pub(in crate::table) use super::{Sense, senses};
    pub(in crate::table) use nix::errno::Errno;
}

/// An errno, and when it comes; empty: the usual reason.
pub(super) type Cause = (Errno, &'static str);

/// One call's sense.
#[derive(Clone, Copy)]
pub(super) struct Sense {
    /// The call.
    pub(super) name: &'static str,
    /// A sentence.
    pub(super) text: &'static str,
    /// Errors beside those that follow from its arguments.
    pub(super) errors: &'static [Cause],
}

/// Senses, a line each, in the order of the rows: `name: "Sentence.", [ERRNO, ERRNO: "when", …];`.
macro_rules! senses {
    ($($name:ident: $text:literal $(, [$($errno:ident $(: $when:literal)?),*])?;)*) => {
        /// The senses of this file, in the order of the rows.
        pub(super) const SENSES: &[Sense] = &[$(Sense {
            name: stringify!($name),
            text: $text,
            errors: &[$($((Errno::$errno, concat!($($when)?))),*)?],
        }),*];
    };
}
pub(super) use senses;

/// Whether two names are the same; at compile time.
pub(super) const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// The usual reason for an error.
fn usual(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES => "a permission is missing",
        Errno::EADDRINUSE => "the address is in use",
        Errno::EADDRNOTAVAIL => "no address is free, or this machine does not have it",
        Errno::EAGAIN => "it would have to wait, and may not; or a limit is reached",
        Errno::EBUSY => "it is in use",
        Errno::ECONNRESET => "the peer broke the connection off",
        Errno::EDQUOT => "the user's quota is used up",
        Errno::EEXIST => "the name is taken",
        Errno::EFBIG => "the file would be larger than it may be",
        Errno::EIDRM => "it has been removed",
        Errno::EINTR => "a signal handler ran first",
        Errno::EIO => "the device failed",
        Errno::EISDIR => "it is a directory",
        Errno::EMFILE => "the process has as many descriptors as it may",
        Errno::EMLINK => "it has as many names as it may",
        Errno::ENFILE => "the system has as many open files as it may",
        Errno::ENOBUFS | Errno::ENOMEM => "the kernel has no memory for it",
        Errno::ENODEV => "there is no such device or kind",
        Errno::ENOLCK => "there are too many locks",
        Errno::ENOSPC => "there is no space left",
        Errno::ENOSYS => "this kernel does not have it",
        Errno::ENOTSOCK => "the descriptor is no socket",
        Errno::EOPNOTSUPP => "it cannot be done here",
        Errno::EOVERFLOW => "a number does not fit",
        Errno::EPERM => "the caller is not privileged enough",
        Errno::EPIPE => "nobody can read the other end any more; SIGPIPE comes too",
        Errno::ERANGE => "a number is out of bounds",
        Errno::EROFS => "the mount can only be read",
        Errno::ESPIPE => "it is a pipe, socket or terminal, which has no offset",
        Errno::ESRCH => "there is no such process or thread",
        Errno::ETIMEDOUT => "the time has passed",
        Errno::ETXTBSY => "it runs as a program",
        Errno::EXDEV => "the two lie in different mounts",
        _ => errno.desc(),
    }
}

/// What the kernel says to a value that is not of the set; `None` if it ignores it, or the call's own
/// list has it.
fn stray(set: Set) -> Option<Errno> {
    match set {
        Set::OPEN
        | Set::MSG
        | Set::CLONE
        | Set::IPC
        | Set::PERSONALITY
        | Set::MAP
        | Set::MOUNT
        | Set::IOCTL
        | Set::SO
        | Set::SOL
        | Set::RWF
        | Set::FUTEX
        | Set::SPLICE
        | Set::IPPROTO => None,
        Set::AF => Some(Errno::EAFNOSUPPORT),
        _ => Some(Errno::EINVAL),
    }
}

/// Errors in the order in which they were found, one reason each.
#[derive(Default)]
struct Found(Vec<(Errno, String)>);

impl Found {
    fn add(&mut self, errno: Errno, when: String) {
        if !self.0.iter().any(|(e, _)| *e == errno) {
            self.0.push((errno, when));
        }
    }
}

impl Row {
    /// The errors that it can give in the layer, by name, each with the case in which it does. Of a call
    /// that is always refused, that one.
    pub fn errors(&self) -> Vec<(Errno, String)> {
        let mut found = Found::default();
        for (errno, condition) in self.refusals() {
            let when = condition.unwrap_or_else(|| "always".to_owned());
            found.add(errno, when);
        }
        if !matches!(self.disposition, Disposition::Refused(_)) {
            for &(errno, when) in self.own_errors {
                let when = if when.is_empty() { usual(errno) } else { when };
                found.add(errno, when.to_owned());
            }
            self.errors_of_arguments(&mut found);
        }
        found.0.sort_by_key(|(errno, _)| format!("{errno:?}"));
        found.0
    }

    fn errors_of_arguments(&self, found: &mut Found) {
        let named = |wanted: &dyn Fn(&Arg) -> bool| -> Option<String> {
            let names: Vec<&str> = self
                .args
                .iter()
                .filter(|a| wanted(a))
                .map(|a| a.name)
                .collect();
            (!names.is_empty()).then(|| names.join(" or "))
        };
        if let Some(paths) = named(&|a| a.ty == Type::Path) {
            found.add(Errno::ENOENT, format!("{paths} leads nowhere, or is empty"));
            found.add(
                Errno::ENOTDIR,
                format!("{paths} goes on behind what is no directory"),
            );
            found.add(
                Errno::EACCES,
                format!("a directory of {paths} may not be searched"),
            );
            found.add(
                Errno::ELOOP,
                format!("{paths} leads over more than 40 symbolic links"),
            );
            found.add(
                Errno::ENAMETOOLONG,
                format!("{paths} has 4096 bytes or more, or a name in it more than 255"),
            );
        }
        if let Some(dirs) = named(&|a| a.ty == Type::DirFd) {
            found.add(Errno::EBADF, format!("{dirs} is needed, and is not open"));
        }
        if let Some(fds) = named(&|a| a.ty == Type::Fd) {
            found.add(Errno::EBADF, format!("{fds} is not open"));
        }
        let pointer = |a: &Arg| {
            matches!(
                a.ty,
                Type::Path | Type::Str | Type::StrArray | Type::Ptr { .. }
            )
        };
        if let Some(pointers) = named(&pointer) {
            let written = |a: &Arg| {
                matches!(
                    a.ty,
                    Type::Ptr {
                        dir: Dir::Out | Dir::InOut,
                        ..
                    }
                )
            };
            let may = if named(&written).is_some() {
                "memory that the caller has, or may write"
            } else {
                "memory that the caller has"
            };
            found.add(Errno::EFAULT, format!("{pointers} does not lead to {may}"));
        }
        for arg in self.args {
            let (Type::Flags(set) | Type::One(set)) = arg.ty else {
                continue;
            };
            if let Some(errno) = stray(set) {
                let what = match arg.ty {
                    Type::Flags(_) => "has a bit that is not of",
                    _ => "is none of",
                };
                found.add(errno, format!("{} {what} {}", arg.name, set.name()));
            }
        }
        if let Some(signals) = named(&|a| a.ty == Type::Signal) {
            found.add(Errno::EINVAL, format!("{signals} is no signal"));
        }
        if self.ret == Ret::Fd {
            found.add(Errno::EMFILE, usual(Errno::EMFILE).to_owned());
            found.add(Errno::ENFILE, usual(Errno::ENFILE).to_owned());
        }
    }

    /// Whether it is treated so for any arguments.
    pub fn may_be(&self, wanted: fn(&Verdict) -> bool) -> bool {
        let mut found = false;
        self.each_outcome(&mut |verdict, _| found |= wanted(&verdict));
        found
    }

    /// The errnos of the table's own, each with the condition for it (none: always).
    fn refusals(&self) -> Vec<(Errno, Option<String>)> {
        let mut all = Vec::new();
        self.each_outcome(&mut |verdict, condition| {
            if let Verdict::Refused(errno) = verdict {
                all.push((errno, condition));
            }
        });
        all
    }
}

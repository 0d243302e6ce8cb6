//! What Duet does with a call: as the table states it, and as it follows for given arguments.

use nix::errno::Errno;

/// What Duet does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The kernel runs it, unseen: it touches only memory, time and descriptors of the caller.
    Native,
    /// The supervisor answers it: it names a path, an identity, a process outside, a property of the
    /// machine.
    Emulated,
    /// The supervisor answers with this errno, and counts it.
    Refused(Errno),
    /// The second if the rule holds, else the third.
    When(Rule, &'static Disposition, &'static Disposition),
}

/// A test of one argument (counted from 0) that a seccomp filter can make.
///
/// The kernel cuts a register to the type of the parameter, so all but [`Rule::Null`] look at the low
/// half only: a guest may set the high half as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The 32-bit argument is one of these (name and value).
    In(u8, &'static [(&'static str, u32)]),
    /// The low half of the argument has at least one of these bits, which go by this name.
    AnyBit(u8, &'static str, u32),
    /// The 32-bit argument is 0.
    Zero(u8),
    /// The pointer is null.
    Null(u8),
    /// The high half of the argument, which the kernel does not look at, is this: a mark of Duet's own.
    Marked(u8, u32),
}

impl Rule {
    /// The argument that it looks at, counted from 0; below 6.
    pub const fn arg(&self) -> u8 {
        match *self {
            Rule::In(arg, _)
            | Rule::AnyBit(arg, _, _)
            | Rule::Zero(arg)
            | Rule::Null(arg)
            | Rule::Marked(arg, _) => arg,
        }
    }

    /// Whether it holds for these argument registers.
    pub fn holds(&self, args: &[u64; 6]) -> bool {
        let word = args.get(usize::from(self.arg())).copied().unwrap_or(0);
        let low = word as u32;
        match *self {
            Rule::In(_, values) => values.iter().any(|&(_, value)| value == low),
            Rule::AnyBit(_, _, bits) => low & bits != 0,
            Rule::Zero(_) => low == 0,
            Rule::Null(_) => word == 0,
            Rule::Marked(_, mark) => (word >> 32) as u32 == mark,
        }
    }
}

/// What becomes of one call with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel runs it.
    Native,
    /// A handler answers it.
    Emulated,
    /// It fails with this errno.
    Refused(Errno),
}

impl Disposition {
    /// What follows from it for these argument registers.
    pub fn verdict(&self, args: &[u64; 6]) -> Verdict {
        let mut disposition = self;
        loop {
            match disposition {
                Disposition::Native => return Verdict::Native,
                Disposition::Emulated => return Verdict::Emulated,
                Disposition::Refused(errno) => return Verdict::Refused(*errno),
                Disposition::When(rule, yes, no) => {
                    disposition = if rule.holds(args) { yes } else { no };
                }
            }
        }
    }
}

/// Constants of `libc` with their names.
macro_rules! values {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), libc::$name as u32)),*] };
}

use Disposition::{Emulated, Native, Refused, When};

/// `socket`, `socketpair`: the families that Duet knows. Any other would make the host load a module.
pub(super) const KNOWN_FAMILIES: Disposition = When(
    Rule::In(0, values![AF_UNIX, AF_INET, AF_INET6, AF_NETLINK]),
    &Native,
    &Refused(Errno::EAFNOSUPPORT),
);

/// `sendto`: without an address it is `send`.
pub(super) const NO_ADDRESS: Disposition = When(Rule::Null(4), &Native, &Emulated);

/// The bits that make namespaces. `CLONE_NEWTIME` lies in the exit signal of `clone`.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// `CLONE_NEWTIME`, which `unshare` takes too.
const CLONE_NEWTIME: u32 = 0x80;

/// `clone`: threads and processes, but no namespaces.
pub(super) const CLONE_NO_NAMESPACE: Disposition = When(
    Rule::AnyBit(0, "CLONE_NEW*", NEW_NAMESPACES),
    &Refused(Errno::EPERM),
    &Native,
);

/// `unshare`: anything but namespaces.
pub(super) const UNSHARE_NO_NAMESPACE: Disposition = When(
    Rule::AnyBit(0, "CLONE_NEW*", NEW_NAMESPACES | CLONE_NEWTIME),
    &Refused(Errno::EPERM),
    &Native,
);

/// `prlimit64`: of the caller itself.
pub(super) const OWN_LIMITS: Disposition = When(
    Rule::In(1, values![RLIMIT_LOCKS]),
    &Emulated,
    &When(Rule::Zero(0), &Native, &Emulated),
);

/// A pidfd of who is at the other end (Linux 6.5).
pub(crate) const SO_PEERPIDFD: i32 = 77;

/// `getsockopt`: of who is at the other end.
pub(super) const NOT_THE_PEER: Disposition = When(
    Rule::In(1, values![SOL_SOCKET]),
    &When(
        Rule::In(
            2,
            &[
                ("SO_PEERCRED", libc::SO_PEERCRED as u32),
                ("SO_PEERPIDFD", SO_PEERPIDFD as u32),
            ],
        ),
        &Emulated,
        &Native,
    ),
    &Native,
);

/// `getrlimit`, `setrlimit`: `RLIMIT_LOCKS` holds what processes inherit of Duet's.
pub(super) const NO_LOCK_LIMIT: Disposition =
    When(Rule::In(0, values![RLIMIT_LOCKS]), &Emulated, &Native);

/// `ptrace`: what makes a tracer. The rest concerns whom the caller traces already.
pub(super) const BEGINS_TRACING: Disposition = When(
    Rule::In(0, values![PTRACE_TRACEME, PTRACE_ATTACH, PTRACE_SEIZE]),
    &Emulated,
    &Native,
);

/// `migrate_pages`, `move_pages`: of the caller itself.
pub(super) const OWN_PAGES: Disposition = When(Rule::Zero(0), &Native, &Refused(Errno::EPERM));

/// `ioctl`: all but those that put input into, or take output from, a terminal that others read.
pub(super) const SAFE_REQUEST: Disposition = When(
    Rule::In(1, values![TIOCSTI, TIOCLINUX, TIOCCONS]),
    &Refused(Errno::EPERM),
    &Native,
);

/// `prctl`: what concerns capabilities and privileges is virtual; where the parts of the image lie is for root.
pub(super) const OWN_ATTRIBUTES: Disposition = When(
    Rule::In(0, values![PR_SET_MM]),
    &Refused(Errno::EPERM),
    &When(
        Rule::In(
            0,
            values![
                PR_GET_KEEPCAPS,
                PR_SET_KEEPCAPS,
                PR_CAPBSET_READ,
                PR_CAPBSET_DROP,
                PR_GET_SECUREBITS,
                PR_SET_SECUREBITS,
                PR_CAP_AMBIENT,
                PR_SET_PTRACER,
                PR_SET_NO_NEW_PRIVS,
                PR_GET_NO_NEW_PRIVS,
                PR_SET_SECCOMP,
            ],
        ),
        &Emulated,
        &When(
            Rule::In(
                0,
                &[("PR_SET_SYSCALL_USER_DISPATCH", PR_SET_SYSCALL_USER_DISPATCH)],
            ),
            &Emulated,
            &Native,
        ),
    ),
);

/// Of prctl(2), since Linux 5.11; not in `libc`.
pub(crate) const PR_SET_SYSCALL_USER_DISPATCH: u32 = 59;

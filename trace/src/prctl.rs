//! Arguments and results of prctl(2), option by option.

use std::fmt::Write;

use crate::decode::Decoder;
use crate::sets::{self, Named};
use crate::structs::Fields;
use crate::text::{address, hex, one};

/// How an option uses its second argument.
#[derive(Clone, Copy)]
enum Use {
    /// Not at all; nor the others.
    Nothing,
    /// As a string.
    Name,
    /// To put a string there.
    NameOut,
    /// To put a number there.
    NumberOut,
    /// To put a signal there.
    SignalOut,
    Signal,
    Number,
    /// As one of these.
    One(&'static [Named]),
    /// As a number, and three zeros that the kernel insists on.
    NumberAndZeros,
    /// Three zeros and one more.
    Zeros,
    /// As an operation, with a capability behind it.
    Ambient,
    /// As one of these, and as an address behind it.
    OneAndAddress(&'static [Named]),
}

const DUMPABLE: &[Named] = &[
    ("SUID_DUMP_DISABLE", 0),
    ("SUID_DUMP_USER", 1),
    ("SUID_DUMP_ROOT", 2),
];
const AMBIENT: &[Named] = &[
    ("PR_CAP_AMBIENT_IS_SET", 1),
    ("PR_CAP_AMBIENT_RAISE", 2),
    ("PR_CAP_AMBIENT_LOWER", 3),
    ("PR_CAP_AMBIENT_CLEAR_ALL", 4),
];
const SECCOMP: &[Named] = &[
    ("SECCOMP_MODE_DISABLED", 0),
    ("SECCOMP_MODE_STRICT", 1),
    ("SECCOMP_MODE_FILTER", 2),
];

fn how(option: i32) -> Option<Use> {
    Some(match option {
        libc::PR_SET_NAME => Use::Name,
        libc::PR_GET_NAME => Use::NameOut,
        libc::PR_GET_PDEATHSIG => Use::SignalOut,
        libc::PR_SET_PDEATHSIG => Use::Signal,
        libc::PR_GET_CHILD_SUBREAPER => Use::NumberOut,
        libc::PR_GET_DUMPABLE
        | libc::PR_GET_KEEPCAPS
        | libc::PR_GET_SECCOMP
        | libc::PR_GET_SECUREBITS
        | libc::PR_GET_TIMERSLACK => Use::Nothing,
        libc::PR_SET_DUMPABLE => Use::One(DUMPABLE),
        libc::PR_SET_CHILD_SUBREAPER
        | libc::PR_SET_KEEPCAPS
        | libc::PR_SET_SECUREBITS
        | libc::PR_SET_TIMERSLACK => Use::Number,
        libc::PR_SET_NO_NEW_PRIVS | libc::PR_SET_THP_DISABLE => Use::NumberAndZeros,
        libc::PR_GET_NO_NEW_PRIVS | libc::PR_GET_THP_DISABLE => Use::Zeros,
        libc::PR_CAPBSET_READ | libc::PR_CAPBSET_DROP => Use::One(sets::CAPABILITIES),
        libc::PR_CAP_AMBIENT => Use::Ambient,
        libc::PR_SET_SECCOMP => Use::OneAndAddress(SECCOMP),
        _ => return None,
    })
}

impl Decoder<'_> {
    /// Whether the second argument is written by the kernel.
    pub(crate) fn prctl_is_late(&self, i: usize) -> bool {
        let how = how(self.arg(0) as i32);
        i == 1 && matches!(how, Some(Use::NameOut | Use::NumberOut | Use::SignalOut))
    }

    /// False: the argument is not shown.
    pub(crate) fn prctl(
        &self,
        out: &mut String,
        i: usize,
        value: u64,
        result: Option<i64>,
    ) -> bool {
        let Some(how) = how(self.arg(0) as i32) else {
            hex(out, value);
            return true;
        };
        let m = self.memory();
        let number = |out: &mut String| {
            // Writing to a string does not fail.
            let _ = write!(out, "{value}");
        };
        let written = match how {
            Use::NumberOut | Use::SignalOut if result == Some(0) => m.read(value, 4),
            _ => None,
        };
        match (how, i) {
            (Use::Zeros, _) | (Use::NumberAndZeros, 1..) => number(out),
            (Use::Name, 1) => m.name(out, value),
            (Use::NameOut, 1) if result == Some(0) => m.name(out, value),
            (Use::NameOut | Use::NumberOut | Use::SignalOut, 1) => match written {
                Some(bytes) => {
                    let n = Fields(&bytes).i32(0);
                    let _ = match how {
                        Use::SignalOut if n != 0 => write!(out, "[{}]", sets::signal(n.into())),
                        _ => write!(out, "[{n}]"),
                    };
                }
                None => address(out, value),
            },
            (Use::Signal, 1) => out.push_str(&sets::signal(value as i64)),
            (Use::Number, 1) => number(out),
            (Use::One(names) | Use::OneAndAddress(names), 1) => one(out, value, names, "???"),
            (Use::Ambient, 1) => one(out, value, AMBIENT, "PR_CAP_AMBIENT_*"),
            (Use::Ambient, 2) => one(out, value, sets::CAPABILITIES, "CAP_*"),
            (Use::Ambient, _) => number(out),
            (Use::OneAndAddress(_), 2) => address(out, value),
            _ => return false,
        }
        true
    }

    /// What a result means beyond its number.
    pub(crate) fn prctl_meaning(&self, result: i64) -> Option<&'static str> {
        let names = match self.arg(0) as i32 {
            libc::PR_GET_DUMPABLE => DUMPABLE,
            libc::PR_GET_SECCOMP => SECCOMP,
            _ => return None,
        };
        let found = names.iter().find(|(_, v)| *v as i64 == result);
        found.map(|(name, _)| *name)
    }
}

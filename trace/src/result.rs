//! Results of calls, with what they mean.

use std::fmt::Write;

use duet_syscalls::table::{Ret, Set, Struct};

use crate::decode::{Decoder, octal};
use crate::sets;
use crate::shapes::open_flags;
use crate::structs::Fields;
use crate::text::{flags, hex, one, separate};

impl Decoder<'_> {
    /// The result, with what it means.
    pub fn result(&self, out: &mut String, result: i64) {
        if (-4095..0).contains(&result) {
            let errno = -result as i32;
            let _ = match interrupted(errno) {
                Some((name, meaning)) => write!(out, "? {name} ({meaning})"),
                None => {
                    let (name, text) = errno_text(errno);
                    write!(out, "-1 {name} ({text})")
                }
            };
            return;
        }
        match self.row.ret {
            Ret::Addr => hex(out, result as u64),
            Ret::Mode => {
                let _ = write!(out, "{}", octal(result as u32));
            }
            Ret::Fd => self.memory().fd(out, result as i32),
            _ => self.value(out, result),
        }
    }

    /// What is left of a timeout, of `call` only.
    fn left(&self, out: &mut String, call: &str, place: usize, shape: Struct) {
        if self.row.name == call && self.arg(place) != 0 {
            out.push_str(", left ");
            self.memory().one(out, shape, self.arg(place));
        }
    }

    fn value(&self, out: &mut String, result: i64) {
        let m = self.memory();
        match (self.row.name, self.arg(1) as i32) {
            ("fcntl", libc::F_GETFD) if result != 0 => out.push_str("0x1 (flags FD_CLOEXEC)"),
            ("fcntl", libc::F_GETFL) => {
                let _ = write!(out, "{result:#x} (flags ");
                open_flags(out, result as u64);
                out.push(')');
            }
            ("fcntl", libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) => {
                self.memory().fd(out, result as i32)
            }
            ("poll" | "ppoll", _) if result == 0 => out.push_str("0 (Timeout)"),
            ("poll" | "ppoll", count) => {
                let _ = write!(out, "{result} ([");
                let bytes = m.read(self.arg(0), 8 * count.clamp(0, 1024) as usize);
                let mut first = true;
                for e in bytes.unwrap_or_default().chunks(8) {
                    let f = Fields(e);
                    if f.u16(6) != 0 {
                        separate(out, &mut first, ", ");
                        let _ = write!(out, "{{fd={}, revents=", f.i32(0));
                        flags(out, f.u16(6).into(), sets::POLL);
                        out.push('}');
                    }
                }
                out.push(']');
                self.left(out, "ppoll", 2, Struct::Timespec);
                out.push(')');
            }
            ("select" | "pselect6", _) if result == 0 => out.push_str("0 (Timeout)"),
            ("select" | "pselect6", _) => {
                let _ = write!(out, "{result} (");
                let mut first = true;
                for (i, name) in [(1, "in"), (2, "out"), (3, "except")] {
                    let mut set = String::new();
                    m.fd_numbers(&mut set, self.arg(i), self.arg(0));
                    if self.arg(i) != 0 && set != "[]" {
                        separate(out, &mut first, ", ");
                        let _ = write!(out, "{name} {set}");
                    }
                }
                self.left(out, "select", 4, Struct::Timeval);
                self.left(out, "pselect6", 4, Struct::Timespec);
                out.push(')');
            }
            ("prctl", _) => {
                let _ = match self.prctl_meaning(result) {
                    Some(name) => write!(out, "{result} ({name})"),
                    None => write!(out, "{result}"),
                };
            }
            ("sched_getscheduler", _) => {
                let _ = write!(out, "{result} (");
                one(out, result as u64, sets::of(Set::SCHED), "SCHED_*");
                out.push(')');
            }
            ("personality", _) => {
                hex(out, result as u64);
                out.push_str(" (");
                flags(out, result as u64, sets::of(Set::PERSONALITY));
                out.push(')');
            }
            ("membarrier", _) if self.arg(0) == 0 => {
                let _ = write!(out, "{result:#x} (");
                flags(out, result as u64, sets::BARRIERS);
                out.push(')');
            }
            ("fcntl", libc::F_GET_SEALS) => {
                let _ = write!(out, "{result:#x} (seals ");
                flags(out, result as u64, sets::SEALS);
                out.push(')');
            }
            ("rt_sigtimedwait", _) => {
                let _ = write!(out, "{result} ({})", sets::signal(result));
            }
            _ => {
                let _ = write!(out, "{result}");
            }
        }
    }
}

/// The kernel's own errnos for a call that a signal interrupts.
fn interrupted(errno: i32) -> Option<(&'static str, &'static str)> {
    Some(match errno {
        512 => ("ERESTARTSYS", "To be restarted if SA_RESTART is set"),
        513 => ("ERESTARTNOINTR", "To be restarted"),
        514 => ("ERESTARTNOHAND", "To be restarted if no handler"),
        516 => ("ERESTART_RESTARTBLOCK", "Interrupted by signal"),
        _ => return None,
    })
}

/// Name and text of an errno, as the C library has them; of the kernel's own ones that a signal brings, as
/// strace has them.
pub fn errno_text(errno: i32) -> (String, String) {
    if let Some((name, text)) = interrupted(errno) {
        return (name.to_owned(), text.to_owned());
    }
    let name = match duet_intercept::Errno::from_raw(errno) {
        duet_intercept::Errno::UnknownErrno => errno.to_string(),
        e => format!("{e:?}"),
    };
    let mut buf = [0 as libc::c_char; 128];
    // SAFETY: the buffer has the length that is announced, and comes back ended by NUL.
    let text = unsafe {
        if libc::strerror_r(errno, buf.as_mut_ptr(), buf.len()) == 0 {
            std::ffi::CStr::from_ptr(buf.as_ptr())
                .to_string_lossy()
                .into_owned()
        } else {
            "unknown error".into()
        }
    };
    (name, text)
}

//! Signals: sets of them, what is to be done with them, and what comes with one (sigaction(2)).

use std::fmt::Write;

use crate::sets;
use crate::structs::Fields;
use crate::text::{address, flags, separate, ticks};

/// A set of signals; more than half of them as what is missing.
pub fn sigset(out: &mut String, set: u64) {
    let (set, inverted) = if set.count_ones() >= 43 {
        (!set, true)
    } else {
        (set, false)
    };
    out.push_str(if inverted { "~[" } else { "[" });
    let mut first = true;
    for n in (1..=64).filter(|n| set >> (n - 1) & 1 == 1) {
        separate(out, &mut first, " ");
        let name = sets::signal(n);
        out.push_str(name.strip_prefix("SIG").unwrap_or(&name));
    }
    out.push(']');
}

pub(crate) fn sigaction(out: &mut String, f: &Fields<'_>) {
    out.push_str("{sa_handler=");
    match f.u64(0) {
        0 => out.push_str("SIG_DFL"),
        1 => out.push_str("SIG_IGN"),
        handler => address(out, handler),
    }
    out.push_str(", sa_mask=");
    sigset(out, f.u64(24));
    out.push_str(", sa_flags=");
    flags(out, f.u64(8), sets::SA);
    if f.u64(8) & 0x0400_0000 != 0 {
        out.push_str(", sa_restorer=");
        address(out, f.u64(16));
    }
    out.push('}');
}

/// `siginfo_t`, as far as the signal gives it a meaning.
pub fn siginfo(out: &mut String, f: &Fields<'_>) {
    let (signal, code) = (f.i32(0), f.i32(8));
    if signal == 0 {
        return out.push_str("{}");
    }
    let _ = write!(out, "{{si_signo={}, si_code=", sets::signal(signal.into()));
    let name = code_name(signal, code);
    match &name {
        Some(name) => out.push_str(name),
        None => {
            let _ = write!(out, "{code:#x}");
        }
    }
    let errno = f.i32(4);
    if errno != 0 {
        let _ = write!(out, ", si_errno={errno}");
    }
    if signal == libc::SIGCHLD && code > 0 {
        let _ = write!(
            out,
            ", si_pid={}, si_uid={}, si_status=",
            f.i32(16),
            f.u32(20)
        );
        let status = f.i32(24);
        let _ = match code {
            libc::CLD_EXITED => write!(out, "{status}"),
            _ => write!(out, "{}", sets::signal(status.into())),
        };
        out.push_str(", si_utime=");
        ticks(out, f.u64(32));
        out.push_str(", si_stime=");
        ticks(out, f.u64(40));
        out.push('}');
        return;
    }
    match signal {
        libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE
            if code > 0 && code != libc::SI_KERNEL =>
        {
            out.push_str(", si_addr=");
            address(out, f.u64(16));
        }
        _ if code <= 0 && code != libc::SI_TIMER => {
            let _ = write!(out, ", si_pid={}, si_uid={}", f.i32(16), f.u32(20));
            if code == libc::SI_QUEUE {
                let _ = write!(out, ", si_int={}, si_ptr={:#x}", f.i32(24), f.u64(24));
            }
        }
        _ => (),
    }
    out.push('}');
}

fn code_name(signal: i32, code: i32) -> Option<&'static str> {
    let general = match code {
        libc::SI_USER => Some("SI_USER"),
        libc::SI_KERNEL => Some("SI_KERNEL"),
        libc::SI_QUEUE => Some("SI_QUEUE"),
        libc::SI_TIMER => Some("SI_TIMER"),
        libc::SI_MESGQ => Some("SI_MESGQ"),
        libc::SI_ASYNCIO => Some("SI_ASYNCIO"),
        libc::SI_SIGIO => Some("SI_SIGIO"),
        libc::SI_TKILL => Some("SI_TKILL"),
        _ => None,
    };
    general.or(match (signal, code) {
        (libc::SIGCHLD, libc::CLD_EXITED) => Some("CLD_EXITED"),
        (libc::SIGCHLD, libc::CLD_KILLED) => Some("CLD_KILLED"),
        (libc::SIGCHLD, libc::CLD_DUMPED) => Some("CLD_DUMPED"),
        (libc::SIGCHLD, libc::CLD_STOPPED) => Some("CLD_STOPPED"),
        (libc::SIGCHLD, libc::CLD_CONTINUED) => Some("CLD_CONTINUED"),
        (libc::SIGSEGV, 1) => Some("SEGV_MAPERR"),
        (libc::SIGSEGV, 2) => Some("SEGV_ACCERR"),
        (libc::SIGBUS, 1) => Some("BUS_ADRALN"),
        (libc::SIGBUS, 2) => Some("BUS_ADRERR"),
        (libc::SIGFPE, 1) => Some("FPE_INTDIV"),
        (libc::SIGILL, 2) => Some("ILL_ILLOPN"),
        _ => None,
    })
}

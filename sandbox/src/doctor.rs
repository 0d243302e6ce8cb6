//! What this host offers of what Duet needs.

use std::fs;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::wait::waitpid;

use crate::namespaces;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is there.
    Present,
    /// It is not, and Duet works without it, slower.
    Slower,
    /// It is not, and Duet works without it, with one wall less.
    Weaker,
    /// It is not, and `duet run` needs it.
    Missing,
}

/// One thing that was looked for.
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it is there.
    pub verdict: Verdict,
    /// What to do if it is not.
    pub advice: String,
}

/// Looks for everything that `duet run` uses. The calling process must have a single thread, and has again
/// when this returns.
pub fn checks() -> Vec<Check> {
    let need = |name, present: bool, advice: &str| Check {
        name,
        verdict: if present {
            Verdict::Present
        } else {
            Verdict::Missing
        },
        advice: advice.into(),
    };
    let release = kernel_release();
    let version = |major, minor| release >= (major, minor);
    let mut all = vec![
        need(
            "Linux 5.19 or later (waits of user notification that only death ends)",
            version(5, 19),
            "install a newer kernel",
        ),
        need(
            "seccomp user notification",
            notify_available(),
            "the kernel needs CONFIG_SECCOMP_FILTER; a container needs a seccomp profile that \
             allows seccomp(2)",
        ),
        user_namespaces(),
        need(
            "pidfd_getfd(2)",
            supported(libc::SYS_pidfd_getfd, [-1, -1, 0]),
            "install Linux 5.6 or later, or allow the call in the container's profile",
        ),
        need(
            "openat2(2)",
            supported(libc::SYS_openat2, [-1, 0, 0]),
            "install Linux 5.6 or later, or allow the call in the container's profile",
        ),
        need(
            "process_vm_readv(2)",
            own_memory_readable(),
            "the kernel needs CONFIG_CROSS_MEMORY_ATTACH",
        ),
        need(
            "/proc/PID/task/TID/children",
            fs::metadata("/proc/self/task").is_ok()
                && fs::metadata(format!("/proc/self/task/{}/children", std::process::id())).is_ok(),
            "the kernel needs CONFIG_PROC_CHILDREN",
        ),
        need(
            "ptrace(2) of one's own descendants",
            ptrace_scope() < 2,
            "set /proc/sys/kernel/yama/ptrace_scope to 0 or 1",
        ),
    ];
    all.push(Check {
        name: "synchronous wake-up of user notification (Linux 6.6)",
        verdict: if version(6, 6) {
            Verdict::Present
        } else {
            Verdict::Slower
        },
        advice: "emulated calls cost several times more without it".into(),
    });
    all.push(Check {
        name: "Landlock scopes (Linux 6.12): keep --network host from abstract sockets",
        verdict: if crate::landlock::available() {
            Verdict::Present
        } else {
            Verdict::Weaker
        },
        advice: "with --network host a program can reach the host's abstract Unix sockets".into(),
    });
    all.push(virtualization());
    all
}

/// Whether the VM mode can use the processor's own virtualization.
fn virtualization() -> Check {
    let (verdict, advice) = match (
        duet_vm::monitor::probe::run(),
        duet_vm::qemu::is_installed(),
    ) {
        (Ok(()), _) => (Verdict::Present, String::new()),
        (Err(e), true) => (
            Verdict::Slower,
            format!("{e}; QEMU translates every instruction instead"),
        ),
        (Err(e), false) => (
            Verdict::Slower,
            format!("{e}; to translate instead, install QEMU (Debian: qemu-system-x86)"),
        ),
    };
    Check {
        name: "a KVM that can run a kernel (--mode vm)",
        verdict,
        advice,
    }
}

fn kernel_release() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn ptrace_scope() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    text.ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// Whether the kernel has the call: with nonsense arguments it must not say `ENOSYS`, nor a
/// container's `EPERM`.
fn supported(nr: libc::c_long, [a, b, c]: [libc::c_long; 3]) -> bool {
    // SAFETY: arguments that every one of these calls refuses.
    let n = unsafe { libc::syscall(nr, a, b, c, 0, 0, 0) };
    !matches!(Errno::result(n), Err(Errno::ENOSYS | Errno::EPERM))
}

fn notify_available() -> bool {
    const GET_ACTION_AVAIL: libc::c_long = 2;
    let action: u32 = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: points to one action.
    let n = unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &action) };
    n == 0
}

fn own_memory_readable() -> bool {
    let probe = [7u8; 4];
    let mut copy = [0u8; 4];
    let tid = duet_intercept::Tid(std::process::id() as i32);
    duet_intercept::mem::read(tid, probe.as_ptr() as u64, &mut copy).is_ok() && copy == probe
}

/// Makes the namespaces as a run does, and mounts what a run mounts.
fn user_namespaces() -> Check {
    let name = "user, pid, mount, IPC, UTS and network namespaces; mounts in them";
    let advice = match try_namespaces() {
        Ok(()) => {
            return Check {
                name,
                verdict: Verdict::Present,
                advice: String::new(),
            };
        }
        Err(e) => e,
    };
    Check {
        name,
        verdict: Verdict::Missing,
        advice: format!("{advice}; {}", namespace_advice()),
    }
}

fn namespace_advice() -> String {
    let setting = |path: &str, bad: &str| fs::read_to_string(path).is_ok_and(|t| t.trim() == bad);
    if setting("/proc/sys/user/max_user_namespaces", "0") {
        return "set /proc/sys/user/max_user_namespaces above 0".into();
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "set /proc/sys/kernel/unprivileged_userns_clone to 1".into();
    }
    if setting(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        return "set /proc/sys/kernel/apparmor_restrict_unprivileged_userns to 0, or give duet an \
                AppArmor profile with userns"
            .into();
    }
    "in a container, allow user namespaces and an unmasked /proc".into()
}

fn try_namespaces() -> Result<(), String> {
    use crate::channel::{Channel, Message};
    let (ours, theirs) = Channel::pair().map_err(|e| e.to_string())?;
    match namespaces::fork_into_new(true).map_err(|e| e.to_string())? {
        None => {
            drop(ours);
            crate::init::probe(&theirs)
        }
        Some(child) => {
            drop(theirs);
            let told = namespaces::write_id_maps(child)
                .map_err(|e| e.to_string())
                .and_then(|()| ours.send(&Message::Mapped, &[]).map_err(|e| e.to_string()));
            let heard = told.and_then(|()| match ours.receive() {
                Ok(Some((Message::Failed(text), _))) => Err(text),
                Ok(Some((Message::Mounts, fds))) if !fds.is_empty() => {
                    // A descriptor of the tmpfs that can be used from outside.
                    let path = format!(
                        "/proc/self/fd/{}",
                        fds.first().map_or(-1, |f| f.as_raw_fd())
                    );
                    fs::metadata(path).map(drop).map_err(|e| e.to_string())
                }
                other => Err(format!("init said {other:?}")),
            });
            drop(ours);
            if let Err(e) = waitpid(child, None) {
                log::debug!("the probe ended oddly: {e}");
            }
            heard
        }
    }
}

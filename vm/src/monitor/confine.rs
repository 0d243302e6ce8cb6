//! What the threads of a machine may ask of the host: each has a filter of system calls (seccomp(2)), and
//! those that need none have no capabilities (capabilities(7)). Both are a thread's own, so that the rest of
//! the process keeps what it has.
//!
//! A call that is not allowed fails with `EPERM`. No filter lets a program be executed, a process be touched
//! or a socket be made; only the thread that serves files may open one.

use std::collections::BTreeMap;

use libc::c_long;
use nix::errno::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::error::{Error, Result};

/// What every thread needs to compute, to lock, to tell of faults, and to end.
const ANY: [c_long; 23] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_poll,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The two requests of a processor (`_IO(KVMIO, 0x80)`, and `KVM_GET_REGS` to say where it failed).
const KVM_RUN: u64 = 0xae80;
const KVM_GET_REGS: u64 = 0x8090_ae81;

/// `__X32_SYSCALL_BIT`
const X32: u32 = 0x4000_0000;

/// What nobody who serves files needs.
const NOT_FILES: [c_long; 50] = [
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_add_key,
    libc::SYS_bind,
    libc::SYS_bpf,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_connect,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fork,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_kill,
    libc::SYS_listen,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_seccomp,
    libc::SYS_setns,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_swapon,
    libc::SYS_tkill,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vfork,
];

/// Confines the calling thread, which runs a processor.
pub fn processor() -> Result<()> {
    drop_capabilities()?;
    let request = |value| rule(1, SeccompCmpOp::Eq, value);
    let mut rules = allowed(&[libc::SYS_sendto])?;
    let requests = vec![request(KVM_RUN)?, request(KVM_GET_REGS)?];
    rules.insert(libc::SYS_ioctl, requests);
    apply(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
    )
}

/// Confines the calling thread, which serves a device that knows its descriptors from the start.
pub fn device() -> Result<()> {
    drop_capabilities()?;
    let rules = allowed(&[libc::SYS_recvmsg, libc::SYS_sendmsg])?;
    apply(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
    )
}

/// Confines the calling thread, which serves files. It keeps its capabilities: what it makes has the owner
/// that the guest says.
pub fn files() -> Result<()> {
    let mut rules: BTreeMap<_, _> = NOT_FILES.iter().map(|&nr| (nr, Vec::new())).collect();
    rules.insert(
        libc::SYS_tgkill,
        vec![rule(0, SeccompCmpOp::Ne, own_pid())?],
    );
    apply(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
    )
}

fn allowed(more: &[c_long]) -> Result<BTreeMap<c_long, Vec<SeccompRule>>> {
    let all = ANY.iter().chain(more);
    let mut rules: BTreeMap<_, _> = all.map(|&nr| (nr, Vec::new())).collect();
    // Processors are brought out of the guest by a signal; nobody else is sent any.
    rules.insert(
        libc::SYS_tgkill,
        vec![rule(0, SeccompCmpOp::Eq, own_pid())?],
    );
    Ok(rules)
}

/// Holds of a call whose argument `index` compares so with `value`.
fn rule(index: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, how, value)
        .and_then(|c| SeccompRule::new(vec![c]))
        .map_err(failed)
}

fn own_pid() -> u64 {
    u64::from(std::process::id())
}

/// Installs a filter that does `listed` with these calls, and `others` with all others. It sets
/// `no_new_privs`, too.
fn apply(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    others: SeccompAction,
    listed: SeccompAction,
) -> Result<()> {
    let filter = SeccompFilter::new(rules, others, listed, TargetArch::x86_64).map_err(failed)?;
    let rest = BpfProgram::try_from(filter).map_err(failed)?;
    // Numbers of the x32 interface are those of other calls, and not told apart by the architecture.
    let step = |code: u32, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut program = vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
    ];
    program.extend(rest);
    seccompiler::apply_filter(&program).map_err(failed)
}

fn failed(e: impl std::fmt::Display) -> Error {
    Error::Failed(format!("confining a thread of the monitor: {e}"))
}

/// Gives up all capabilities of the calling thread (capset(2)).
fn drop_capabilities() -> Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`: two sets of three words follow.
    const VERSION: u32 = 0x2008_0522;
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let none = [0u32; 6];
    // SAFETY: the header, and as many words as its version has.
    let n = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    Errno::result(n).map(drop).map_err(|e| failed(e.desc()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;

    use super::*;

    /// What `/proc` says of a confined thread, and what opening a file, making a socket, reading a
    /// directory, a signal to this process, one to another and a number of x32's ended in on it.
    fn confined(confine: fn() -> Result<()>) -> (String, [Option<i32>; 6]) {
        let (tell_tid, tid) = channel();
        let (go_on, wait) = channel();
        let thread = std::thread::spawn(move || {
            confine().unwrap();
            // SAFETY: no arguments.
            tell_tid.send(unsafe { libc::gettid() }).unwrap();
            wait.recv().unwrap();
            let code = |e: std::io::Error| e.raw_os_error();
            let call = |nr: c_long, pid: u32| {
                // SAFETY: no pointers; a signal that is none.
                let n = unsafe { libc::syscall(nr, pid, libc::gettid(), 0) };
                Errno::result(n).err().map(|e| e as i32)
            };
            [
                std::fs::File::open("/dev/null").err().and_then(code),
                UnixStream::pair().err().and_then(code),
                std::fs::read_dir("/").err().and_then(code),
                call(libc::SYS_tgkill, std::process::id()),
                call(libc::SYS_tgkill, 1),
                call(libc::SYS_getpid | c_long::from(X32), 0),
            ]
        });
        let path = format!("/proc/self/task/{}/status", tid.recv().unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        go_on.send(()).unwrap();
        (status, thread.join().unwrap())
    }

    #[test]
    fn threads_have_what_they_need_and_no_more() {
        let refused = Some(libc::EPERM);
        for confine in [processor, device] {
            let (status, results) = confined(confine);
            assert_eq!(results[..3], [refused; 3]);
            assert_eq!(results[3..], [None, refused, refused]);
            for line in ["CapEff:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"] {
                assert!(status.contains(line), "{line} is not in {status}");
            }
        }
        let (status, results) = confined(files);
        assert_eq!(results, [None, refused, None, None, refused, refused]);
        assert!(status.contains("Seccomp:\t2"));
        // This thread is as it was.
        assert!(UnixStream::pair().is_ok());
    }
}

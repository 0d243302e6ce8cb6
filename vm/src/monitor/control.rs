//! How a machine comes to its end, from whichever thread, and how its processors are brought out of the
//! guest.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::machine::End;

/// What the threads of a machine share.
pub struct Control {
    end: Mutex<Option<End>>,
    stop: AtomicBool,
    ended: EventFd,
    /// Threads of the processors. One that ends takes itself out, so that no other gets its signal.
    processors: Mutex<Vec<libc::pid_t>>,
}

impl Control {
    /// A machine that runs.
    pub fn new() -> Result<Control> {
        install_handler()?;
        let ended = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Error::step("making an eventfd", e))?;
        Ok(Control {
            end: Mutex::new(None),
            stop: AtomicBool::new(false),
            ended,
            processors: Mutex::new(Vec::new()),
        })
    }

    /// Ends the machine. The first end is the one that counts.
    pub fn finish(&self, end: End) {
        self.end.lock().get_or_insert(end);
        self.stop.store(true, Ordering::SeqCst);
        if let Err(e) = self.ended.write(1) {
            log::debug!("telling of a machine's end: {e}");
        }
        for &tid in self.processors.lock().iter() {
            // SAFETY: integers; the thread is there, as it takes itself out under the lock.
            let n = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, kick_signal()) };
            if let Err(e) = Errno::result(n) {
                log::debug!("kicking a processor: {e}");
            }
        }
    }

    /// Whether the machine has ended.
    pub fn is_finished(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// How it ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.end.lock().clone()
    }

    /// Readable once it has ended.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Lets the calling thread be kicked out of `vcpu` until the result is dropped.
    pub fn attend<'a>(&'a self, vcpu: &mut VcpuFd) -> Result<Attended<'a>> {
        RUN.set(ptr::from_mut(vcpu.get_kvm_run()));
        vmm_sys_util::signal::unblock_signal(kick_signal())
            .map_err(|e| Error::Failed(format!("unblocking a signal: {e}")))?;
        // SAFETY: no arguments.
        let tid = unsafe { libc::gettid() };
        self.processors.lock().push(tid);
        Ok(Attended { control: self, tid })
    }
}

/// A thread that can be kicked. It must be dropped on that thread, before its `VcpuFd`.
pub struct Attended<'a> {
    control: &'a Control,
    tid: libc::pid_t,
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        self.control.processors.lock().retain(|&t| t != self.tid);
        RUN.set(ptr::null_mut());
    }
}

thread_local! {
    /// What the thread's processor shares with KVM.
    static RUN: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

/// The signal that brings a processor out of the guest. Blocked in all other threads.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMAX()
}

/// Makes KVM_RUN return at once, the running one by the signal itself, one that is about to start by this
/// (Documentation/virt/kvm/api.rst, `immediate_exit`).
extern "C" fn kicked(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let run = RUN.get();
    if !run.is_null() {
        // SAFETY: it is the page of this thread's own VcpuFd, which `attend` put there and which lives
        // until it is taken out; KVM only reads this byte.
        unsafe { ptr::addr_of_mut!((*run).immediate_exit).write_volatile(1) };
    }
}

fn install_handler() -> Result<()> {
    static INSTALLED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        vmm_sys_util::signal::register_signal_handler(kick_signal(), kicked)
            .map_err(|e| e.to_string())
    });
    match installed {
        Ok(()) => Ok(()),
        Err(e) => Err(Error::Failed(format!("installing a signal handler: {e}"))),
    }
}

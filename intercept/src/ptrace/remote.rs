//! Calls that a waiting thread performs for the engine, and the descriptors that it receives so.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::sys::ptrace;
use nix::unistd::Pid;

use super::hold::Runs;
use super::tracer::{self, Called, Socket, State, Stop, Tracer};
use crate::observer::send_descriptors;
use crate::{ARCH_X86_64, Call, Errno, Replacement, Result, Tid, mem, signals};

const PAGE: u64 = 4096;

/// Where the guest's end of the socket is put at least, if its limit allows it: out of the way of the
/// numbers that it uses itself.
const HIGH: u64 = 1000;

/// Numbers below the limit that are left free above the socket.
const ROOM: u64 = 8;

/// Stops between two calls at most: entry, filter, exit, and those of a process that is stopped.
const MOST_STOPS: usize = 16;

/// Descriptors of one message at most.
const MOST: usize = 2;

/// What the page holds for `recvmsg`: a `struct msghdr`, one `struct iovec`, the text, one control
/// message. Padding is spelled out.
#[repr(C)]
#[derive(Clone, Copy)]
struct Page {
    name: u64,
    namelen: u64,
    iov: u64,
    iovlen: u64,
    control: u64,
    controllen: u64,
    flags: i32,
    after_flags: u32,
    vector: [u64; 2],
    text: [u8; 8],
    /// A `struct cmsghdr` and its descriptors.
    message: Control,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    len: u64,
    level: i32,
    kind: i32,
    fds: [i32; MOST],
}

const SIZE: usize = 104;

const _: () = assert!(size_of::<Control>() == 24 && size_of::<Page>() == SIZE);
const _: () = assert!(std::mem::offset_of!(Page, vector) == size_of::<libc::msghdr>());

impl Page {
    fn at(address: u64) -> Page {
        let field = |offset: usize| address + offset as u64;
        Page {
            name: 0,
            namelen: 0,
            iov: field(std::mem::offset_of!(Page, vector)),
            iovlen: 1,
            control: field(std::mem::offset_of!(Page, message)),
            controllen: size_of::<Control>() as u64,
            flags: 0,
            after_flags: 0,
            vector: [field(std::mem::offset_of!(Page, text)), 8],
            text: [0; 8],
            message: Control {
                len: 0,
                level: 0,
                kind: 0,
                fds: [-1; MOST],
            },
        }
    }

    fn bytes(self) -> [u8; SIZE] {
        // SAFETY: plain numbers without padding.
        unsafe { std::mem::transmute(self) }
    }

    fn from(bytes: [u8; SIZE]) -> Page {
        // SAFETY: every pattern is a value of these numbers.
        unsafe { std::mem::transmute(bytes) }
    }
}

impl Tracer {
    /// Gives the caller a copy of `fd`.
    pub(super) fn inject(
        &mut self,
        call: &Call,
        fd: RawFd,
        at: Option<RawFd>,
        cloexec: bool,
    ) -> Result<RawFd> {
        let [number, _] = self.receive(call, &[fd], cloexec)?;
        let Some(at) = at.filter(|&at| at != number) else {
            return Ok(number);
        };
        let flags = if cloexec { libc::O_CLOEXEC } else { 0 };
        let dup = [number as u64, at as u64, flags as u64, 0, 0, 0];
        let moved = self.perform(call, libc::SYS_dup3, dup)?;
        self.close(call, number)?;
        value(moved).map(|n| n as RawFd)
    }

    /// Gives the caller copies of both, to be closed by `execve`.
    pub(super) fn inject_pair(&mut self, call: &Call, fds: [RawFd; 2]) -> Result<[RawFd; 2]> {
        self.receive(call, &fds, true)
    }

    /// Has the caller receive descriptors, as many as [`MOST`]; its numbers of them.
    fn receive(&mut self, call: &Call, fds: &[RawFd], cloexec: bool) -> Result<[RawFd; MOST]> {
        let tgid = self.called(call)?.1;
        let page = self.page(call, tgid)?;
        match self.pass(call, tgid, page, fds, cloexec) {
            // The guest has tampered with its end, or with a message.
            Err(Errno::EBADMSG) => {
                self.give_up_socket(call, tgid)?;
                self.pass(call, tgid, page, fds, cloexec)
            }
            other => other,
        }
    }

    /// Descriptors over the socket. EBADMSG if something else than they arrives, EMFILE if the guest's
    /// table is full.
    fn pass(
        &mut self,
        call: &Call,
        tgid: i32,
        page: u64,
        fds: &[RawFd],
        cloexec: bool,
    ) -> Result<[RawFd; MOST]> {
        let theirs = self.socket(call, tgid, page)?;
        self.messages += 1;
        let text = self.messages.to_le_bytes();
        let socket = self.processes.get(&tgid).and_then(|p| p.socket.as_ref());
        let socket = socket.ok_or(Errno::EBADMSG)?;
        send_descriptors(&socket.ours, fds, &text).map_err(|_| Errno::EBADMSG)?;
        mem::write(call.tid, page, &Page::at(page).bytes())?;
        let mut flags = libc::MSG_DONTWAIT;
        if cloexec {
            flags |= libc::MSG_CMSG_CLOEXEC;
        }
        let receive = [theirs as u64, page, flags as u64, 0, 0, 0];
        if self.perform(call, libc::SYS_recvmsg, receive)? != text.len() as i64 {
            return Err(Errno::EBADMSG);
        }
        let mut bytes = [0; SIZE];
        mem::read(call.tid, page, &mut bytes)?;
        let got = Page::from(bytes);
        if got.text != text {
            return Err(Errno::EBADMSG);
        }
        if got.flags & libc::MSG_CTRUNC != 0 {
            return Err(Errno::EMFILE);
        }
        let is_rights =
            (got.message.level, got.message.kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        let numbers = got.message.fds;
        if is_rights && numbers.iter().take(fds.len()).all(|&n| n >= 0) {
            Ok(numbers)
        } else {
            Err(Errno::EBADMSG)
        }
    }

    /// The address of the page in the caller's memory.
    fn page(&mut self, call: &Call, tgid: i32) -> Result<u64> {
        if let Some(page) = self.processes.get(&tgid).and_then(|p| p.page) {
            return Ok(page);
        }
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let map = [0, PAGE, prot, flags, u64::MAX, 0];
        let address = self.perform(call, libc::SYS_mmap, map)?;
        let page = value(address)? as u64;
        let process = self.processes.get_mut(&tgid).ok_or(Errno::ESRCH)?;
        process.page = Some(page);
        Ok(page)
    }

    /// The number of the caller's end of the socket.
    fn socket(&mut self, call: &Call, tgid: i32, page: u64) -> Result<RawFd> {
        let process = self.processes.get(&tgid).ok_or(Errno::ESRCH)?;
        if let Some(socket) = &process.socket
            && socket.differences == self.shared.differences.load(Ordering::SeqCst)
            && file_id(call.tid, socket.theirs) == Ok(socket.id)
        {
            return Ok(socket.theirs);
        }
        self.give_up_socket(call, tgid)?;
        let socket = self.make_socket(call, tgid, page)?;
        let theirs = socket.theirs;
        let process = self.processes.get_mut(&tgid).ok_or(Errno::ESRCH)?;
        process.socket = Some(socket);
        self.shared.sockets.lock().insert(tgid, theirs);
        Ok(theirs)
    }

    /// Has the caller close its end, if that is still there.
    fn give_up_socket(&mut self, call: &Call, tgid: i32) -> Result<()> {
        self.shared.sockets.lock().remove(&tgid);
        let process = self.processes.get_mut(&tgid).ok_or(Errno::ESRCH)?;
        match process.socket.take() {
            Some(socket) if file_id(call.tid, socket.theirs) == Ok(socket.id) => {
                self.close(call, socket.theirs)
            }
            _ => Ok(()),
        }
    }

    fn make_socket(&mut self, call: &Call, tgid: i32, page: u64) -> Result<Socket> {
        let differences = self.shared.differences.load(Ordering::SeqCst);
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        let pair = [libc::AF_UNIX as u64, kind as u64, 0, page, 0, 0];
        let made = self.perform(call, libc::SYS_socketpair, pair)?;
        value(made)?;
        let mut numbers = [0; 8];
        mem::read(call.tid, page, &mut numbers)?;
        let [a, b, c, d, e, f, g, h] = numbers;
        let (first, second) = (
            i32::from_le_bytes([a, b, c, d]),
            i32::from_le_bytes([e, f, g, h]),
        );
        let ours = descriptor_of(tgid, call.tid, second);
        let least = high(call.tid);
        let dup = [first as u64, libc::F_DUPFD_CLOEXEC as u64, least, 0, 0, 0];
        let theirs = self.perform(call, libc::SYS_fcntl, dup)?;
        let (least, most) = (first.min(second), first.max(second));
        // Linux 5.9.
        let both = [least as u64, most as u64, 0, 0, 0, 0];
        if most != least + 1 || self.perform(call, libc::SYS_close_range, both)? < 0 {
            self.close(call, first)?;
            self.close(call, second)?;
        }
        let theirs = value(theirs)? as RawFd;
        Ok(Socket {
            ours: Arc::new(ours?),
            theirs,
            id: file_id(call.tid, theirs)?,
            differences,
        })
    }

    fn close(&mut self, call: &Call, fd: RawFd) -> Result<()> {
        self.perform(call, libc::SYS_close, [fd as u64, 0, 0, 0, 0, 0])
            .map(drop)
    }

    /// The state of a thread that waits in `call`, and its process.
    fn called(&mut self, call: &Call) -> Result<(&mut Called, i32)> {
        match self.tasks.get_mut(&call.tid.0) {
            Some(task) => match &mut task.state {
                State::Called(called) if called.call.id == call.id => Ok((called, task.tgid)),
                _ => Err(Errno::ESRCH),
            },
            None => Err(Errno::ESRCH),
        }
    }

    /// Has the caller perform one call that cannot block, and waits for it; its result or negated
    /// errno. ESRCH if the caller died.
    fn perform(&mut self, call: &Call, nr: libc::c_long, args: [u64; 6]) -> Result<i64> {
        let (tid, pid) = (call.tid.0, Pid::from_raw(call.tid.0));
        let args = crate::marked(args, self.mark);
        let by = Replacement {
            nr: nr as u32,
            args,
        };
        let (called, tgid) = self.called(call)?;
        match &called.saved {
            None => {
                let saved = ptrace::getregs(pid)?;
                let mut regs = saved;
                regs.orig_rax = nr as u64;
                tracer::set_args(&mut regs, args);
                ptrace::setregs(pid, regs)?;
                called.saved = Some(Box::new(saved));
            }
            Some(saved) => {
                ptrace::setregs(pid, tracer::again(saved, by))?;
                if called.mask.is_none() {
                    called.mask = Some(signals::block(pid)?);
                }
            }
        }
        self.holds.runs(tid, Runs::Call);
        mem::forget();
        let mut signal = 0;
        for _ in 0..MOST_STOPS {
            tracer::resume(tid, true, signal)?;
            signal = 0;
            let (_, status) = loop {
                match tracer::wait(tid) {
                    Err(Errno::EINTR) => (),
                    other => break other?,
                }
            };
            if !libc::WIFSTOPPED(status) {
                self.end(tid, status);
                return Err(Errno::ESRCH);
            }
            match (status >> 16, libc::WSTOPSIG(status)) {
                (0, stop) if stop == libc::SIGTRAP | 0x80 => match tracer::stop_at(tid)? {
                    Stop::Exit(result) => return Ok(result),
                    Stop::Entry { arch, nr } if (arch, nr) == (ARCH_X86_64, by.nr) => (),
                    _ => break,
                },
                (libc::PTRACE_EVENT_SECCOMP, _) => match tracer::stop_at(tid)? {
                    Stop::Filter { call: c, .. } if (c.arch, c.nr) == (ARCH_X86_64, by.nr) => (),
                    _ => break,
                },
                // The one signal that cannot be blocked, and the stop that it leads to.
                (0, libc::SIGSTOP) => signal = libc::SIGSTOP,
                (libc::PTRACE_EVENT_STOP, _) => self.called(call)?.0.stop_later = true,
                _ => break,
            }
        }
        log::warn!("process {tgid} does not do what it was made to; it is killed");
        tracer::kill(tgid);
        Err(Errno::ESRCH)
    }
}

/// The result of a call, as the kernel returns it.
fn value(result: i64) -> Result<i64> {
    match result {
        -4095..0 => Err(Errno::from_raw(-result as i32)),
        n => Ok(n),
    }
}

/// Which file a thread's descriptor is: device and inode.
fn file_id(tid: Tid, fd: RawFd) -> Result<(u64, u64)> {
    let stat = nix::sys::stat::stat(format!("/proc/{}/fd/{fd}", tid.0).as_str())?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The least number for the guest's end, by its limit.
fn high(tid: Tid) -> u64 {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: nothing is set, and `limit` is ours.
    let n = unsafe { libc::prlimit64(tid.0, libc::RLIMIT_NOFILE, std::ptr::null(), &mut limit) };
    match Errno::result(n) {
        Ok(_) => HIGH.min(limit.rlim_cur.saturating_sub(ROOM)),
        Err(_) => HIGH,
    }
}

/// A copy of a guest's descriptor.
fn descriptor_of(tgid: i32, tid: Tid, fd: RawFd) -> Result<OwnedFd> {
    // A leader that has left has no table any more; `PIDFD_THREAD` (Linux 6.9) asks for a thread's.
    let open = |pid: i32, flags: i32| -> Result<OwnedFd> {
        // SAFETY: integers.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, flags) })
    };
    let get = |pidfd: OwnedFd| -> Result<OwnedFd> {
        // SAFETY: integers.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })
    };
    open(tgid, 0)
        .and_then(get)
        .or_else(|_| open(tid.0, libc::O_EXCL).and_then(get))
}

/// The descriptor that a system call has returned.
fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let n = Errno::result(result)?;
    // SAFETY: the kernel has just returned this descriptor to us.
    Ok(unsafe { OwnedFd::from_raw_fd(n as RawFd) })
}

//! What an engine tells of guests to somebody who only watches.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::agent::Agent;
use crate::{Answer, Call, Engine, Errno, Executed, Out, Replacement, Result, Tid, mem};

/// Is told what threads do. The thread that it is about is stopped meanwhile, so that its memory can be
/// read; what takes long here makes the guest slow.
pub trait Observer: Send + Sync {
    /// The sandbox is there; what it knows of descriptors can be asked for from now on. `program`: the
    /// path of the first one.
    fn begins(&self, names: Arc<dyn Names>, program: &[u8]) {
        let _ = (names, program);
    }

    /// A call was made and has not been served.
    fn entered(&self, call: &Call);

    /// Whether to wait for the result of a call that the kernel runs.
    fn wants_result(&self, call: &Call) -> bool;

    /// A call that was made comes once more: nothing has come of it yet.
    fn withdrawn(&self, call: &Call);

    /// A call ended with this value, or negated errno (those above 511 are the kernel's own, for calls
    /// that a signal interrupts). With [`Observed`], a call that returns a descriptor may be told of when
    /// the thread has made the next already; its memory is not to be looked at then.
    fn left(&self, call: &Call, how: Ended);

    /// A signal is about to be delivered.
    fn signal(&self, tid: Tid, info: &libc::siginfo_t);

    /// The thread stopped together with its process, by this signal.
    fn stopped(&self, tid: Tid, signal: i32);

    /// A thread was made by another.
    fn started(&self, parent: Tid, tid: Tid);

    /// An `execve` has succeeded; the thread has the id of its process now, and had `former`.
    fn executed(&self, tid: Tid, former: Tid);

    /// A thread ended with this wait status.
    fn ended(&self, tid: Tid, status: i32);
}

/// What descriptors and directories of a thread are called, as the guest sees them. Whatever is gone
/// meanwhile has no name.
pub trait Names: Send + Sync {
    /// The path that descriptor `fd` stands for, or the kernel's word for what has none (`pipe:[1234]`).
    fn descriptor(&self, tid: Tid, fd: i32) -> Option<Vec<u8>>;

    /// What more is known of it: the addresses of a socket (`TCP:[127.0.0.1:80->127.0.0.1:41234]`), the
    /// number of a device (`<char 1:3>`).
    fn details(&self, tid: Tid, fd: i32) -> Option<Vec<u8>>;

    /// The working directory.
    fn directory(&self, tid: Tid) -> Option<Vec<u8>>;
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The supervisor answered it with this value or negated errno.
    Answered(i64),
    /// The kernel ran it, with this result.
    Ran(i64),
    /// The kernel runs it, or it does not come back: its result is not known.
    Unknown,
}

/// An engine whose calls are told to an observer. Of the calls that the kernel runs, the result is not
/// known.
pub struct Observed<E> {
    engine: E,
    observer: Arc<dyn Observer>,
    /// Threads that have been answered, which has yet to be told.
    untold: Mutex<Vec<Tid>>,
    told: Condvar,
}

impl<E: Engine> Observed<E> {
    /// Tells `observer` of the calls of `engine`.
    pub fn new(engine: E, observer: Arc<dyn Observer>) -> Observed<E> {
        Observed {
            engine,
            observer,
            untold: Mutex::default(),
            told: Condvar::new(),
        }
    }

    /// Tells of a call, once it has been told how the one before it has ended.
    fn tell_entered(&self, call: &Call) {
        let mut untold = self.untold.lock();
        while untold.contains(&call.tid) {
            self.told.wait(&mut untold);
        }
        drop(untold);
        mem::attend(call.tid);
        self.observer.entered(call);
    }
}

impl<E: Engine> Engine for Observed<E> {
    fn next(&self) -> Result<Option<Call>> {
        mem::forget();
        let call = self.engine.next()?;
        if let Some(call) = &call {
            self.tell_entered(call);
        }
        Ok(call)
    }

    fn answer(&self, call: &Call, answer: Answer) -> Result<()> {
        self.observer.left(call, ended(answer));
        self.engine.answer(call, answer)
    }

    fn inject(
        &self,
        call: &Call,
        fd: BorrowedFd<'_>,
        at: Option<RawFd>,
        cloexec: bool,
    ) -> Result<RawFd> {
        self.engine.inject(call, fd, at, cloexec)
    }

    fn inject_pair(&self, call: &Call, fds: [BorrowedFd<'_>; 2]) -> Result<[RawFd; 2]> {
        self.engine.inject_pair(call, fds)
    }

    fn answer_with_descriptor(&self, call: &Call, fd: OwnedFd, cloexec: bool) -> Result<RawFd> {
        // Its number is known only then. The caller may be in its next call already.
        self.untold.lock().push(call.tid);
        let number = self.engine.answer_with_descriptor(call, fd, cloexec);
        if let Ok(number) = number {
            self.observer.left(call, Ended::Answered(number.into()));
        }
        self.untold.lock().retain(|&tid| tid != call.tid);
        self.told.notify_all();
        number
    }

    fn execute_instead(
        &self,
        call: &Call,
        replacement: Replacement,
        executed: Executed,
    ) -> Result<()> {
        self.observer.left(call, Ended::Unknown);
        self.engine.execute_instead(call, replacement, executed)
    }

    fn is_live(&self, call: &Call) -> bool {
        self.engine.is_live(call)
    }

    fn leaves_tracing(&self) -> bool {
        self.engine.leaves_tracing()
    }

    fn has_agents(&self) -> bool {
        self.engine.has_agents()
    }

    fn answer_with_agent(
        &self,
        call: &Call,
        answer: Answer,
        agent: &Agent,
        owner: i32,
    ) -> Result<()> {
        self.observer.left(call, ended(answer));
        self.engine.answer_with_agent(call, answer, agent, owner)
    }

    fn watches_agents(&self) -> bool {
        true
    }

    fn agent_asks(&self, call: &Call) {
        self.tell_entered(call);
    }

    fn agent_is_answered(&self, call: &Call, answer: Option<(i64, Out<'_>)>) {
        match answer {
            Some((value, out)) => {
                if let Some((addr, bytes)) = out {
                    mem::foresee(addr, bytes);
                }
                self.observer.left(call, Ended::Answered(value));
            }
            None => self.observer.withdrawn(call),
        }
        mem::forget();
    }

    fn let_go(&self) {
        self.engine.let_go();
    }

    fn differ(&self) {
        self.engine.differ();
    }

    fn own_descriptor(&self, pid: i32) -> Option<RawFd> {
        self.engine.own_descriptor(pid)
    }
}

/// The kernel's own errno for a call that a signal interrupts; signal delivery replaces it.
pub(crate) const ERESTARTSYS: i32 = 512;

/// How a call ends that is answered so before it ran.
pub(crate) fn ended(answer: Answer) -> Ended {
    match answer {
        Answer::Value(v) => Ended::Answered(v),
        Answer::Error(e) => Ended::Answered(-i64::from(e as i32)),
        Answer::Interrupt => Ended::Answered(-i64::from(ERESTARTSYS)),
        Answer::Run => Ended::Unknown,
    }
}

/// Sends descriptors over a datagram socket, with `text`. EAGAIN if the receiver does not take them at once.
pub(crate) fn send_descriptors(socket: &OwnedFd, fds: &[RawFd], text: &[u8]) -> Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let iov = [std::io::IoSlice::new(text)];
    let control = [ControlMessage::ScmRights(fds)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match sendmsg::<()>(socket.as_raw_fd(), &iov, &control, flags, None) {
        Ok(n) if n == text.len() => Ok(()),
        Ok(_) => Err(Errno::EIO),
        Err(e) => Err(e),
    }
}

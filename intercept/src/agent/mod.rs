//! The in-guest accelerator: an *agent*, a few hundred bytes of code in a guest process, to which busy
//! system call sites are redirected. It hands calls to a supervisor that is looking on another processor,
//! through shared memory and without a switch of context.
//!
//! The agent only ever accelerates. The filter stays the boundary: a call that the agent does not serve
//! is made as ever, and all is right without it. It is the guest's own, so nothing is trusted of it or of
//! what it writes; what it can do is what its process can do by calls.
//!
//! [`code`] tells where it lies and why it is right, [`channel`] how it speaks, `socket` how it gets descriptors,
//! `install` how it comes into a process.

pub mod channel;
pub mod code;
mod install;
mod socket;

use std::os::fd::OwnedFd;

use parking_lot::Mutex;

pub use channel::{Channel, Request};
pub use code::{Other, Roles};
pub(crate) use install::{Given, given, install};

use crate::{Call, Errno, Result, Tid, mem};
use code::{MOST_SITES, SITE_LEN};
use install::Memory;
use socket::Socket;
pub use socket::{LEAST_DESCRIPTOR, in_process};

/// Calls that a guest process makes for its agent, which brings it and then knows its thread and tries memory by
/// them.
pub const OWN_CALLS: [libc::c_long; 10] = [
    libc::SYS_mmap,
    libc::SYS_madvise,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_getsockopt,
    libc::SYS_recvmsg,
    libc::SYS_gettid,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigpending,
    libc::SYS_sched_yield,
];

/// Sites that are none for the agent, of which it is remembered.
const MOST_OTHERS: usize = 64;

/// The agent of one process.
pub struct Agent {
    channel: Channel,
    socket: Socket,
    /// Forked children have a copy of the guest's end, and could take what is meant for their parent: it is in use
    /// as long as they may do no less.
    differences: u64,
    sites: Mutex<Sites>,
}

/// Call sites, by the address behind the `syscall` instruction.
#[derive(Default)]
struct Sites {
    /// Those that go to the agent, in the order of its table; 0 is free.
    redirected: Vec<u64>,
    others: Vec<u64>,
}

/// What is known of the site of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// It goes to the agent, which has not served the call.
    Redirected,
    /// It does so from now on.
    New,
    /// It cannot.
    Other,
}

/// Whether a call comes from a site that can be redirected.
pub fn comes_from_site(call: &Call) -> bool {
    Memory::of(call.tid).is_ok_and(|memory| is_site(&memory, call))
}

fn is_site(memory: &Memory, call: &Call) -> bool {
    let mut bytes = [0; SITE_LEN + 1];
    let start = call.ip.wrapping_sub(bytes.len() as u64);
    memory.read(start, &mut bytes).is_ok() && code::is_site(&bytes, call.nr)
}

impl Agent {
    /// An agent with a channel, that no process has yet. `differences` counts how often processes have come to
    /// differ in what they may do.
    pub fn new(differences: u64) -> Result<Agent> {
        Ok(Agent {
            differences,
            channel: Channel::new()?,
            socket: Socket::new()?,
            sites: Mutex::default(),
        })
    }

    /// How it speaks with the supervisor.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether it passes descriptors, after so many differences.
    pub fn passes(&self, differences: u64) -> bool {
        self.differences == differences
    }

    /// Sends a descriptor, and returns the tag that goes with it; `None` if it cannot be sent. `differences` stay
    /// as they are meanwhile.
    pub fn send(&self, fd: &OwnedFd, differences: u64) -> Option<u64> {
        self.passes(differences).then(|| self.socket.send(fd))?
    }

    /// Redirects the site of `call`, if its caller waits and is `alone`: the only thread that runs in its memory.
    pub fn redirect(
        &self,
        call: &Call,
        roles: Roles,
        waits: impl FnOnce() -> bool,
        alone: impl FnOnce() -> bool,
    ) -> Result<Site> {
        let mut sites = self.sites.lock();
        if sites.redirected.contains(&call.ip) {
            return Ok(Site::Redirected);
        }
        if sites.others.contains(&call.ip) {
            return Ok(Site::Other);
        }
        if !alone() {
            return Ok(Site::Other);
        }
        let free = sites.redirected.iter().position(|&s| s == 0);
        let index = free.unwrap_or(sites.redirected.len());
        // Of the caller if it waits still: its number may have passed to somebody else.
        let memory = Memory::of(call.tid)?;
        if !waits() {
            return Err(Errno::ESRCH);
        }
        if index >= MOST_SITES || !is_site(&memory, call) {
            if sites.others.len() < MOST_OTHERS {
                sites.others.push(call.ip);
            }
            return Ok(Site::Other);
        }
        memory.write(&code::site(index, call.ip, call.nr, roles))?;
        match sites.redirected.get_mut(index) {
            Some(slot) => *slot = call.ip,
            None => sites.redirected.push(call.ip),
        }
        Ok(Site::New)
    }

    /// Takes over the sites of a process that was forked with an agent's text.
    fn inherit(&self, tid: Tid) -> Result<()> {
        let (addr, len) = code::returns();
        let mut bytes = vec![0; len];
        mem::read(tid, addr, &mut bytes)?;
        let longs = bytes.as_chunks::<8>().0.iter();
        self.sites.lock().redirected = longs.map(|b| u64::from_le_bytes(*b)).collect();
        Ok(())
    }
}

//! What a transport and a device model have in common: a device on a thread of its own, its queues, the
//! events that wake it, and the interrupt by which it answers.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::chain::Served;

/// A device model.
pub trait Device: Send {
    /// Device number (VIRTIO 1.2, section 5).
    fn id(&self) -> u32;
    /// A short name, for people.
    fn name(&self) -> &'static str;
    /// What it offers beside what every device here does.
    fn features(&self) -> u64;
    /// Longest size of each queue.
    fn queues(&self) -> Vec<u16>;
    /// The configuration space. The driver only reads it.
    fn config(&self) -> Vec<u8>;
    /// Serves the queues until [`Active::stop`] is readable, and then once more what is in them.
    ///
    /// # Errors
    /// A queue is broken: the driver has put it outside of the guest's memory, or its counters make no
    /// sense. The device needs a reset then.
    fn serve(&mut self, active: &mut Active) -> Result<(), virtio_queue::Error>;
}

/// What a device works on, from the driver's start of it to the reset.
pub struct Active {
    /// The guest's memory.
    pub memory: GuestMemoryMmap,
    /// The queues. The driver may have left out some.
    pub queues: Vec<Queue>,
    /// For each queue, what the driver's notifications write to.
    pub kicks: Vec<Arc<EventFd>>,
    /// How the driver is answered.
    pub interrupt: Arc<Interrupt>,
    /// Readable once it is over.
    pub stop: Arc<EventFd>,
    /// What is counted, by queue.
    pub counters: Arc<[Counters]>,
}

/// What woke a device.
pub struct Woken {
    /// It is over.
    pub stop: bool,
    /// The others of the descriptors that were waited for, in their order.
    pub others: Vec<bool>,
}

impl Active {
    /// Waits for notifications, for the end, or for one of `others` (whose errors count as what was waited
    /// for). Notifications are taken note of, and not told apart: to look into a queue is cheap.
    pub fn wait(&self, others: &[(BorrowedFd<'_>, PollFlags)]) -> Woken {
        let own = self.kicks.len() + 1;
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(own + others.len());
        fds.push(PollFd::new(self.stop.as_fd(), PollFlags::POLLIN));
        let kicks = self.kicks.iter().map(|k| (k.as_fd(), PollFlags::POLLIN));
        let all = kicks.chain(others.iter().copied());
        fds.extend(all.map(|(fd, flags)| PollFd::new(fd, flags)));
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => (),
                Err(e) => {
                    log::error!("waiting for the guest's notifications: {e}");
                    return Woken {
                        stop: true,
                        others: vec![false; others.len()],
                    };
                }
            }
        }
        let ready: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(true)).collect();
        for ((kick, counters), _) in (self.kicks.iter().zip(self.counters.iter()))
            .zip(ready.iter().skip(1))
            .filter(|(_, ready)| **ready)
        {
            if let Ok(times) = kick.read() {
                counters.kicks.fetch_add(times, Ordering::Relaxed);
            }
        }
        Woken {
            stop: ready.first().copied().unwrap_or(true),
            others: ready.get(own..).unwrap_or_default().to_vec(),
        }
    }

    /// Does `work` on a queue that the driver has made ready, and counts it. If it leaves some, the next
    /// [`Active::wait`] returns at once.
    pub fn with_queue(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut Queue, &GuestMemoryMmap) -> Result<Served, virtio_queue::Error>,
    ) -> Result<(), virtio_queue::Error> {
        let Some(queue) = self.queues.get_mut(index).filter(|q| q.ready()) else {
            return Ok(());
        };
        let before = queue.next_used();
        let Served { notify, more } = work(queue, &self.memory)?;
        let done = queue.next_used().wrapping_sub(before);
        if let Some(counters) = self.counters.get(index) {
            counters.chains.fetch_add(done.into(), Ordering::Relaxed);
        }
        if notify {
            self.interrupt.used();
        }
        if more {
            self.come_back(index);
        }
        Ok(())
    }

    /// Whether the driver has made a queue ready: it may leave some out.
    pub fn is_ready(&self, index: usize) -> bool {
        self.queues.get(index).is_some_and(QueueT::ready)
    }

    /// Lets the next [`Active::wait`] return at once, as if the driver had notified of this queue.
    pub fn come_back(&self, index: usize) {
        // Full (EAGAIN): it returns anyway.
        if let Some(kick) = self.kicks.get(index)
            && let Err(e) = kick.write(1)
            && e != Errno::EAGAIN
        {
            log::error!("noting a queue: {e}");
        }
    }
}

/// What is counted of a queue.
#[derive(Debug, Default)]
pub struct Counters {
    /// Notifications by the driver.
    pub kicks: AtomicU64,
    /// Chains that were served.
    pub chains: AtomicU64,
}

/// The interrupt of a device, as virtio-mmio has it (VIRTIO 1.2, 4.2.2): one line, and a register that says
/// why.
#[derive(Debug)]
pub struct Interrupt {
    /// Reasons that the driver has not acknowledged.
    pub status: AtomicU32,
    /// The bit of the device's status that asks for a reset, or 0.
    pub needs_reset: AtomicU32,
    /// How often the line was raised.
    pub raised: AtomicU64,
    line: EventFd,
}

/// `DEVICE_NEEDS_RESET` of the device status.
pub const NEEDS_RESET: u32 = 0x40;

impl Interrupt {
    /// The device has used buffers.
    pub const USED: u32 = 1;
    /// The configuration has changed.
    pub const CONFIG: u32 = 2;

    /// An interrupt that is raised by writing to `line`.
    pub fn new(line: EventFd) -> Interrupt {
        Interrupt {
            status: AtomicU32::new(0),
            needs_reset: AtomicU32::new(0),
            raised: AtomicU64::new(0),
            line,
        }
    }

    /// What the line is raised by.
    pub fn line(&self) -> &EventFd {
        &self.line
    }

    /// Buffers have been used.
    pub fn used(&self) {
        self.raise(Interrupt::USED);
    }

    /// The driver has broken a queue: only a reset helps.
    pub fn broken(&self) {
        self.needs_reset.store(NEEDS_RESET, Ordering::SeqCst);
        self.raise(Interrupt::CONFIG);
    }

    fn raise(&self, why: u32) {
        self.status.fetch_or(why, Ordering::SeqCst);
        self.raised.fetch_add(1, Ordering::Relaxed);
        // Full (EAGAIN): it is raised anyway.
        if let Err(e) = self.line.write(1)
            && e != Errno::EAGAIN
        {
            log::error!("raising an interrupt: {e}");
        }
    }
}

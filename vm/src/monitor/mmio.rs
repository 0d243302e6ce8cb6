//! Virtio over memory-mapped registers (VIRTIO 1.2, section 4.2), for one device on a thread of its own.
//!
//! The driver's notifications are eventfds that KVM writes to, and its interrupt is one that KVM reads, so
//! that once the device is started neither a processor nor this code takes part.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use super::Confine;
use super::bus::Registers;
use crate::error::{Error, Result};
use crate::machine::{DeviceWork, End};
use crate::virtio::device::{Active, Counters, Device, Interrupt};

/// Length of the registers of a device, with its configuration space.
pub const LEN: u64 = 0x1000;
/// The register that the driver notifies by: the number of a queue.
pub const NOTIFY: u64 = 0x50;
/// Where the configuration space begins.
const CONFIG: u64 = 0x100;

/// `virt`
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// `DUET`
const VENDOR: u32 = 0x5445_5544;

/// What every device offers.
const COMMON: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
const DRIVER: u32 = VIRTIO_CONFIG_S_DRIVER;
const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
const FAILED: u32 = VIRTIO_CONFIG_S_FAILED;

/// The registers of one device.
pub struct Transport {
    id: u32,
    name: &'static str,
    offered: u64,
    config: Vec<u8>,
    memory: GuestMemoryMmap,
    interrupt: Arc<Interrupt>,
    kicks: Vec<Arc<EventFd>>,
    counters: Arc<[Counters]>,
    worker: Option<Worker>,
    queues: Vec<Queue>,
    status: u32,
    /// Which half of the features is read, and written.
    offered_half: u32,
    accepted_half: u32,
    accepted: u64,
    queue: u32,
    running: bool,
}

/// The thread of a device, which waits for work as long as `work` can come.
struct Worker {
    work: Sender<Active>,
    done: Receiver<()>,
    stop: Arc<EventFd>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(mut device: Box<dyn Device>, confine: Confine) -> Result<Worker> {
        let (work, receiver) = channel::<Active>();
        let (sender, done) = channel();
        let name = device.name();
        let body = move || {
            if let Err(e) = confine() {
                return log::error!("virtio-{name}: {e}");
            }
            while let Ok(mut active) = receiver.recv() {
                if let Err(e) = device.serve(&mut active) {
                    log::error!("virtio-{name}: the guest has broken a queue: {e}");
                    active.interrupt.broken();
                }
                if sender.send(()).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("duet-{name}"))
            .spawn(body)
            .map_err(|e| Error::io("starting a thread", &e))?;
        Ok(Worker {
            work,
            done,
            stop: Arc::new(event()?),
            thread,
        })
    }

    /// Waits until what was begun is over, which it is told to be.
    fn stop(&self) {
        if let Err(e) = self.stop.write(1) {
            log::debug!("stopping a device: {e}");
        }
        if self.done.recv().is_err() {
            log::debug!("a device's thread has gone");
        }
        // Not for the next time.
        clear(&self.stop);
    }
}

fn event() -> Result<EventFd> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|e| Error::step("making an eventfd", e))
}

/// Makes it unreadable. That it already was (EAGAIN) is no fault.
fn clear(event: &EventFd) {
    if let Err(e) = event.read() {
        log::trace!("clearing an event: {e}");
    }
}

impl Transport {
    /// A device that the driver has not found yet. `confine` is called on the device's own thread first.
    pub fn new(
        device: Box<dyn Device>,
        memory: GuestMemoryMmap,
        confine: Confine,
    ) -> Result<Transport> {
        let sizes = device.queues();
        let mut queues = Vec::new();
        let mut kicks = Vec::new();
        for &size in &sizes {
            let queue =
                Queue::new(size).map_err(|e| Error::Failed(format!("making a queue: {e}")))?;
            queues.push(queue);
            kicks.push(Arc::new(event()?));
        }
        Ok(Transport {
            id: device.id(),
            name: device.name(),
            offered: device.features() | COMMON,
            config: device.config(),
            memory,
            interrupt: Arc::new(Interrupt::new(event()?)),
            kicks,
            counters: sizes.iter().map(|_| Counters::default()).collect(),
            worker: Some(Worker::start(device, confine)?),
            queues,
            status: 0,
            offered_half: 0,
            accepted_half: 0,
            accepted: 0,
            queue: 0,
            running: false,
        })
    }

    /// What raises its interrupt.
    pub fn interrupt(&self) -> &Arc<Interrupt> {
        &self.interrupt
    }

    /// What notifies it, by queue.
    pub fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// Serves what is in the queues a last time, and ends the device's thread. The driver finds it no more.
    pub fn halt(&mut self) {
        self.stop();
        if let Some(worker) = self.worker.take() {
            drop(worker.work);
            if worker.thread.join().is_err() {
                log::error!("virtio-{}: the thread panicked", self.name);
            }
        }
    }

    fn stop(&mut self) {
        if let Some(worker) = self.worker.as_ref().filter(|_| self.running) {
            worker.stop();
        }
        self.running = false;
    }

    fn reset(&mut self) {
        self.stop();
        self.queues.iter_mut().for_each(QueueT::reset);
        for kick in &self.kicks {
            clear(kick);
        }
        self.interrupt.status.store(0, SeqCst);
        self.interrupt.needs_reset.store(0, SeqCst);
        (self.status, self.accepted, self.queue) = (0, 0, 0);
        (self.offered_half, self.accepted_half) = (0, 0);
    }

    /// The queue that is looked at.
    fn selected(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::try_from(self.queue).ok()?)
    }

    /// The queue, if it may be set up now.
    fn settable(&mut self) -> Option<&mut Queue> {
        let when = self.status & (FEATURES_OK | DRIVER_OK | FAILED) == FEATURES_OK;
        if !when {
            log::debug!("virtio-{}: a queue is set up out of turn", self.name);
            return None;
        }
        self.selected().filter(|q| !q.ready())
    }

    fn register(&mut self, offset: u64) -> u32 {
        let half = |value: u64, which| match which {
            0 => value as u32,
            1 => (value >> 32) as u32,
            _ => 0,
        };
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.id,
            0x0c => VENDOR,
            0x10 => half(self.offered, self.offered_half),
            0x34 => self.selected().map_or(0, |q| q.max_size().into()),
            0x44 => self.selected().map_or(0, |q| q.ready().into()),
            0x60 => self.interrupt.status.load(SeqCst),
            0x70 => self.status | self.interrupt.needs_reset.load(SeqCst),
            // Length and base of shared memory, of which there is none.
            0xb0..=0xbc => u32::MAX,
            // The configuration never changes: 0xfc, its generation, with all others.
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u64, value: u32) {
        let low = Some(value);
        match offset {
            0x14 => self.offered_half = value,
            0x20 if self.status & (DRIVER | FEATURES_OK) == DRIVER => {
                let shift = match self.accepted_half {
                    0 => 0,
                    1 => 32,
                    _ => return,
                };
                self.accepted &= !(u64::from(u32::MAX) << shift);
                self.accepted |= u64::from(value) << shift;
            }
            0x24 => self.accepted_half = value,
            0x30 => self.queue = value,
            0x38 => {
                if let (Ok(size), Some(queue)) = (u16::try_from(value), self.settable()) {
                    // One that is no power of two, or too large, is not taken.
                    queue.set_size(size);
                }
            }
            0x44 => {
                let memory = self.memory.clone();
                let name = self.name;
                if let Some(queue) = self.settable().filter(|_| value == 1) {
                    queue.set_ready(true);
                    if !queue.is_valid(&memory) {
                        log::warn!("virtio-{name}: the guest puts a queue outside of its memory");
                        queue.set_ready(false);
                    }
                }
            }
            0x64 => drop(self.interrupt.status.fetch_and(!value, SeqCst)),
            0x70 => self.set_status(value),
            0x80 => drop(self.settable().map(|q| q.set_desc_table_address(low, None))),
            0x84 => drop(self.settable().map(|q| q.set_desc_table_address(None, low))),
            0x90 => drop(self.settable().map(|q| q.set_avail_ring_address(low, None))),
            0x94 => drop(self.settable().map(|q| q.set_avail_ring_address(None, low))),
            0xa0 => drop(self.settable().map(|q| q.set_used_ring_address(low, None))),
            0xa4 => drop(self.settable().map(|q| q.set_used_ring_address(None, low))),
            // Notifications that no eventfd has caught are of queues that there are not.
            _ => log::debug!("virtio-{}: a write to register {offset:#x}", self.name),
        }
    }

    /// The driver goes one step on in its greeting (VIRTIO 1.2, 3.1.1).
    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let new = value & !self.status;
        if value & self.status != self.status {
            log::debug!("virtio-{}: the guest takes back a status", self.name);
            return;
        }
        let needed = match new {
            ACKNOWLEDGE => 0,
            DRIVER => ACKNOWLEDGE,
            FEATURES_OK => ACKNOWLEDGE | DRIVER,
            DRIVER_OK => ACKNOWLEDGE | DRIVER | FEATURES_OK,
            FAILED => 0,
            _ => return log::debug!("virtio-{}: a status of {value:#x}", self.name),
        };
        if self.status & needed != needed {
            return log::debug!("virtio-{}: a status of {value:#x} out of turn", self.name);
        }
        if new == FEATURES_OK {
            let known = self.accepted & !self.offered == 0;
            if !known || self.accepted & 1 << VIRTIO_F_VERSION_1 == 0 {
                log::debug!("virtio-{}: features {:#x}", self.name, self.accepted);
                return;
            }
        }
        self.status = value;
        if new == DRIVER_OK {
            self.activate();
        }
    }

    fn activate(&mut self) {
        let event_idx = self.accepted & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        for queue in &mut self.queues {
            queue.set_event_idx(event_idx);
        }
        let Some(worker) = &self.worker else { return };
        let active = Active {
            memory: self.memory.clone(),
            queues: std::mem::take(&mut self.queues),
            kicks: self.kicks.clone(),
            interrupt: self.interrupt.clone(),
            stop: worker.stop.clone(),
            counters: self.counters.clone(),
        };
        // The registers go on to tell of queues.
        self.queues = (active.queues.iter().map(QueueT::max_size))
            .filter_map(|size| Queue::new(size).ok())
            .collect();
        for (shown, real) in self.queues.iter_mut().zip(&active.queues) {
            shown.set_ready(real.ready());
        }
        self.running = worker.work.send(active).is_ok();
        if !self.running {
            self.interrupt.broken();
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Registers for Transport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(CONFIG) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let there = self.config.get(at..).unwrap_or_default();
            for (to, from) in data.iter_mut().zip(there) {
                *to = *from;
            }
        } else if let (Ok(data), true) = (<&mut [u8; 4]>::try_from(data), offset.is_multiple_of(4))
        {
            *data = self.register(offset).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<End> {
        if let (Ok(data), true) = (
            <[u8; 4]>::try_from(data),
            offset.is_multiple_of(4) && offset < CONFIG,
        ) {
            self.set_register(offset, u32::from_le_bytes(data));
        }
        None
    }
}

impl Transport {
    /// What has happened so far.
    pub fn work(&self) -> DeviceWork {
        let counted = |c: &Counters| (c.kicks.load(Relaxed), c.chains.load(Relaxed));
        DeviceWork {
            name: self.name,
            queues: self.counters.iter().map(counted).collect(),
            interrupts: self.interrupt.raised.load(Relaxed),
        }
    }
}

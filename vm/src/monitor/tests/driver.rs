//! A driver of virtio devices, as a guest's kernel has it, that works on the registers and the guest's memory
//! from outside.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::super::bus::Registers;
use super::super::confine;
use super::super::memory;
use super::super::mmio::Transport;
use crate::virtio::device::Device;

/// The memory of the guest that is not there.
const SIZE: u64 = 16 << 20;
/// Where queues lie, and how far apart.
const QUEUES: u64 = 0x10_0000;
const QUEUE: u64 = 0x1_0000;
const AVAIL: u64 = 0x4000;
const USED: u64 = 0x8000;
/// Where tests have their buffers.
pub const BUFFERS: u64 = 0x40_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Steps of the greeting.
pub const ACKNOWLEDGE: u32 = 1;
pub const DRIVER: u32 = 2;
pub const DRIVER_OK: u32 = 4;
pub const FEATURES_OK: u32 = 8;
pub const NEEDS_RESET: u32 = 0x40;

/// A device, and what its driver knows of its queues.
pub struct Driver {
    pub transport: Transport,
    pub memory: GuestMemoryMmap,
    queues: Vec<Known>,
}

#[derive(Clone, Default)]
struct Known {
    size: u16,
    next_descriptor: u16,
    avail: u16,
    used: u16,
}

impl Driver {
    /// A device that nobody has spoken to.
    pub fn new(device: impl Device + 'static) -> Driver {
        let memory = memory::create(SIZE).unwrap();
        let transport = Transport::new(Box::new(device), memory.clone(), confine::device).unwrap();
        Driver {
            transport,
            memory,
            queues: Vec::new(),
        }
    }

    /// One that is set up, with all its queues.
    pub fn started(device: impl Device + 'static) -> Driver {
        let mut driver = Driver::new(device);
        driver.start();
        driver
    }

    pub fn get(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn set(&mut self, register: u64, value: u32) {
        assert_eq!(self.transport.write(register, &value.to_le_bytes()), None);
    }

    pub fn status(&mut self) -> u32 {
        self.get(0x70)
    }

    /// What it offers.
    pub fn offered(&mut self) -> u64 {
        let mut half = |which| {
            self.set(0x14, which);
            u64::from(self.get(0x10))
        };
        half(0) | half(1) << 32
    }

    pub fn accept(&mut self, features: u64) {
        for (half, value) in [(0, features), (1, features >> 32)] {
            self.set(0x24, half);
            self.set(0x20, value as u32);
        }
    }

    /// Greets the device up to the choice of features, of which it takes all.
    pub fn greet(&mut self) {
        self.set(0x70, 0);
        self.set(0x70, ACKNOWLEDGE);
        self.set(0x70, ACKNOWLEDGE | DRIVER);
        let offered = self.offered();
        self.accept(offered);
        self.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(self.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    }

    /// Sets up a queue. Whether the device took it.
    pub fn set_up(&mut self, index: usize, at: u64) -> bool {
        self.set(0x30, index as u32);
        let size = self.get(0x34);
        self.set(0x38, size);
        for (register, address) in [(0x80, at), (0x90, at + AVAIL), (0xa0, at + USED)] {
            self.set(register, address as u32);
            self.set(register + 4, (address >> 32) as u32);
        }
        self.set(0x44, 1);
        self.get(0x44) == 1
    }

    pub fn start(&mut self) {
        self.greet();
        self.queues.clear();
        for index in 0.. {
            self.set(0x30, index);
            let size = self.get(0x34) as u16;
            if size == 0 {
                break;
            }
            let at = QUEUES + QUEUE * u64::from(index);
            self.memory
                .write_slice(&[0; QUEUE as usize], GuestAddress(at))
                .unwrap();
            assert!(self.set_up(index as usize, at));
            self.queues.push(Known {
                size,
                ..Known::default()
            });
        }
        let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
        self.set(0x70, all);
        assert_eq!(self.status(), all);
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    fn half(&self, at: u64) -> u16 {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }

    /// Writes a descriptor.
    pub fn describe(&self, at: u64, address: u64, len: u32, flags: u16, next: u16) {
        self.put(at, address);
        self.put(at + 8, len);
        self.put(at + 12, flags);
        self.put(at + 14, next);
    }

    /// Where a queue is.
    pub fn queue(&self, index: usize) -> u64 {
        QUEUES + QUEUE * index as u64
    }

    /// Puts a chain of (address, length, flags) into a queue, without a notification. Returns its head.
    pub fn add(&mut self, index: usize, chain: &[(u64, u32, u16)]) -> u16 {
        let at = self.queue(index);
        let mut known = self.queues[index].clone();
        let head = known.next_descriptor;
        for (i, &(address, len, flags)) in chain.iter().enumerate() {
            let this = known.next_descriptor;
            known.next_descriptor = (this + 1) % known.size;
            let more = if i + 1 < chain.len() { NEXT } else { 0 };
            let place = at + 16 * u64::from(this);
            self.describe(place, address, len, flags | more, known.next_descriptor);
        }
        let slot = at + AVAIL + 4 + 2 * u64::from(known.avail % known.size);
        self.put(slot, head);
        known.avail = known.avail.wrapping_add(1);
        self.put(at + AVAIL + 2, known.avail);
        // An interrupt for each (used_event).
        self.put(at + AVAIL + 4 + 2 * u64::from(known.size), known.used);
        self.queues[index] = known;
        head
    }

    /// Says how many chains are there, true or not.
    pub fn set_avail(&self, index: usize, value: u16) {
        self.put(self.queue(index) + AVAIL + 2, value);
    }

    pub fn kick(&self, index: usize) {
        self.transport.kicks()[index].write(1).unwrap();
    }

    /// A chain that has been used, if there is one: its head, and the bytes written.
    pub fn used(&mut self, index: usize) -> Option<(u32, u32)> {
        let at = self.queue(index);
        let known = self.queues[index].clone();
        let idx = self.half(at + USED + 2);
        if idx == known.used {
            return None;
        }
        let place = at + USED + 4 + 8 * u64::from(known.used % known.size);
        self.queues[index].used = known.used.wrapping_add(1);
        let next = self.queues[index].used;
        self.put(at + AVAIL + 4 + 2 * u64::from(known.size), next);
        let head = self.memory.read_obj(GuestAddress(place)).unwrap();
        let len = self.memory.read_obj(GuestAddress(place + 4)).unwrap();
        Some((head, len))
    }

    /// Waits for an interrupt, and acknowledges it. Returns its reasons.
    pub fn interrupted(&mut self) -> u32 {
        let line = self.transport.interrupt().clone();
        let mut fds = [PollFd::new(line.line().as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(20_000).unwrap();
        assert_eq!(poll(&mut fds, patience), Ok(1), "no interrupt came");
        line.line().read().unwrap();
        let why = self.get(0x60);
        self.set(0x64, why);
        why
    }

    /// Waits until a chain of the queue has been used.
    pub fn wait(&mut self, index: usize) -> (u32, u32) {
        loop {
            if let Some(used) = self.used(index) {
                return used;
            }
            self.interrupted();
        }
    }

    /// Puts a chain, notifies, and waits until it has been used. Returns the bytes written.
    pub fn ask(&mut self, index: usize, chain: &[(u64, u32, u16)]) -> u32 {
        let head = self.add(index, chain);
        self.kick(index);
        let (used, len) = self.wait(index);
        assert_eq!(used, u32::from(head));
        len
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }
}

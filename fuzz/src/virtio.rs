//! Virtio devices under an arbitrary driver.
//!
//! An input chooses a device and is a sequence of writes to its registers and to the queues in the guest's
//! memory, of notifications, and of bytes that come to and go from the console's ports. Whatever it is: nothing
//! panics, and a driver that behaves finds the device as good as new.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use duet_vm::monitor::bus::Registers;
use duet_vm::monitor::memory;
use duet_vm::monitor::mmio::Transport;
use duet_vm::virtio::console::Console;
use duet_vm::virtio::device::Device;
use duet_vm::virtio::net::Net;
use duet_vm::virtio::rng::Rng;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Steps done of one input at most.
const MAX_STEPS: usize = 500;
/// The guest's memory: a page of buffers, and three pages for each queue.
const MEMORY: u64 = 1 << 20;
const BUFFERS: u64 = 0x1000;
const QUEUES: u64 = 0x1_0000;
const QUEUE: u64 = 0x3000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const SIZE: u64 = 64;

/// The status of a device that runs.
const RUNS: u32 = 15;

struct Guest {
    device: Transport,
    memory: GuestMemoryMmap,
    queues: u64,
}

impl Guest {
    fn set(&mut self, register: u64, value: u32) {
        assert_eq!(self.device.write(register, &value.to_le_bytes()), None);
    }

    fn get(&mut self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.device.read(register, &mut data);
        u32::from_le_bytes(data)
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        // Outside of memory there is nothing to write to.
        let _ = self.memory.write_slice(bytes, GuestAddress(at % MEMORY));
    }

    /// Sets the device up from the start, as drivers do, with empty queues.
    fn start(&mut self) {
        for status in [0, 1, 3] {
            self.set(0x70, status);
        }
        for half in [0, 1] {
            self.set(0x14, half);
            let offered = self.get(0x10);
            self.set(0x24, half);
            self.set(0x20, offered);
        }
        self.set(0x70, 11);
        for queue in 0..self.queues {
            let at = QUEUES + QUEUE * queue;
            self.put(at, &[0; QUEUE as usize]);
            for (register, value) in [
                (0x30, queue),
                (0x38, SIZE),
                (0x80, at),
                (0x84, 0),
                (0x90, at + AVAIL),
                (0x94, 0),
                (0xa0, at + USED),
                (0xa4, 0),
                (0x44, 1),
            ] {
                self.set(register, value as u32);
            }
        }
        self.set(0x70, RUNS);
    }

    fn kick(&self, queue: u64) {
        if let Some(kick) = self.device.kicks().get(queue as usize) {
            kick.write(1).expect("an eventfd");
        }
    }

    /// Puts the first descriptor into the queue, alone, and waits until it has been used.
    fn ask(&mut self, queue: u64, flags: u8) {
        let at = QUEUES + QUEUE * queue;
        let mut descriptor = [0; 16];
        descriptor[..8].copy_from_slice(&BUFFERS.to_le_bytes());
        descriptor[8] = 8;
        descriptor[12] = flags;
        self.put(at, &descriptor);
        self.put(at + AVAIL + 2, &[1, 0]);
        self.kick(queue);
        let line = self.device.interrupt().clone();
        loop {
            let used: u16 = self
                .memory
                .read_obj(GuestAddress(at + USED + 2))
                .expect("memory");
            if used == 1 {
                return;
            }
            let mut fds = [libc::pollfd {
                fd: std::os::fd::AsRawFd::as_raw_fd(&line.line().as_fd()),
                events: libc::POLLIN,
                revents: 0,
            }];
            // SAFETY: one descriptor.
            let ready = unsafe { libc::poll(fds.as_mut_ptr(), 1, 20_000) };
            assert_eq!(ready, 1, "the device does not answer");
            let _ = line.line().read();
        }
    }
}

/// Does all of an input.
pub fn run(data: &[u8]) {
    let Some((&first, mut rest)) = data.split_first() else {
        return;
    };
    let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a socket");
    // With each, how the last request is made: its queue, and the flags of its descriptor.
    let (device, queue, flags): (Box<dyn Device>, u64, u8) = match first % 4 {
        0 => (Box::new(Rng), 0, 2),
        1 => (Box::new(Net::new(theirs).expect("a card")), 1, 0),
        2 => (Box::new(Console::new(vec![("port", theirs)])), 3, 0),
        _ => {
            let messages = theirs.try_clone().expect("a socket");
            let ports = vec![("port", theirs)];
            (Box::new(Console::with_messages(messages, ports)), 3, 0)
        }
    };
    let memory = memory::create(MEMORY).expect("memory");
    let device = Transport::new(device, memory.clone(), || Ok(())).expect("a device");
    let queues = device.kicks().len() as u64;
    let mut guest = Guest {
        device,
        memory,
        queues,
    };
    if first & 0x80 == 0 {
        guest.start();
    }
    for _ in 0..MAX_STEPS {
        let Some((step, after)) = rest.split_first_chunk::<4>() else {
            break;
        };
        rest = after;
        let [kind, a, b, c] = step.map(u64::from);
        let at = QUEUES + QUEUE * (a % queues);
        let wide = [c, c << 8, u64::MAX - c, BUFFERS + c][(b % 4) as usize];
        match kind % 10 {
            0 => guest.set(4 * (a % 0x44), wide as u32),
            1 => guest
                .device
                .read(a << 2 | b & 3, &mut [0; 8][..1 + (c % 8) as usize]),
            2 if c < 32 => guest.start(),
            // A descriptor: flags and next, address, length.
            3 => guest.put(
                at + 16 * (b % 8) + 12,
                &[(c % 8) as u8, 0, (c / 8 % 9) as u8, 0],
            ),
            4 => guest.put(at + 16 * (b % 8), &wide.to_le_bytes()),
            5 => guest.put(at + 16 * (b % 8) + 8, &(wide as u32).to_le_bytes()),
            // The ring, and its index.
            6 => guest.put(at + AVAIL + 4 + 2 * (b % 16), &[(c % 70) as u8, 0]),
            7 => guest.put(at + AVAIL + 2, &[(b % 80) as u8, 0]),
            8 => guest.put(
                BUFFERS + 8 * (a % 8),
                &[b as u8, 0, 0, 0, c as u8 % 9, 0, 1, 0],
            ),
            _ if c & 1 == 0 => guest.kick(a % queues),
            _ => {
                // Whether there is room, or something to read, does not matter. For a card, a frame's length
                // and less of it, or more.
                let mut bytes = [7; 600];
                bytes[..4].copy_from_slice(&[0, (b == 0) as u8, a as u8 & 1, c as u8]);
                let _ = ours.write(&bytes[..(2 * b as usize).clamp(1, 600)]);
                let _ = ours.read(&mut [0; 4096]);
            }
        }
    }
    guest.start();
    assert_eq!(guest.get(0x70), RUNS);
    // Nobody holds up what it sends.
    drop(ours);
    guest.ask(queue, flags);
}

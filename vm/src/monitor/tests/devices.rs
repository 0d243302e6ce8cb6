//! The registers of virtio devices and what is behind them, with a driver outside of any guest.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::super::bus::Registers;
use super::driver::{
    ACKNOWLEDGE, BUFFERS, DRIVER, DRIVER_OK, Driver, FEATURES_OK, INDIRECT, NEEDS_RESET, WRITE,
};
use crate::virtio::console::Console;
use crate::virtio::device::Interrupt;
use crate::virtio::rng::Rng;

/// A page of nothing, to fill.
const ROOM: (u64, u32, u16) = (BUFFERS, 4096, WRITE);

#[test]
fn a_device_is_greeted_step_by_step() {
    let mut driver = Driver::new(Rng);
    let seen = [0, 4, 8].map(|r| driver.get(r));
    assert_eq!(seen, [u32::from_le_bytes(*b"virt"), 2, 4]);
    // Version 1, event indices, indirect descriptors.
    assert_eq!(driver.offered(), 1 << 32 | 1 << 29 | 1 << 28);
    // Out of turn.
    for status in [DRIVER, DRIVER_OK, FEATURES_OK, ACKNOWLEDGE | DRIVER, 0x100] {
        driver.set(0x70, status);
        assert_eq!(driver.status(), 0);
    }
    driver.set(0x70, ACKNOWLEDGE);
    driver.set(0x70, ACKNOWLEDGE | DRIVER);
    driver.set(0x70, DRIVER);
    driver.set(0x70, ACKNOWLEDGE | DRIVER | DRIVER_OK);
    assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER);
    // Not offered; not version 1.
    for features in [1 << 32 | 1, 1 << 29] {
        driver.accept(features);
        driver.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER);
    }
    // Queues come after features.
    assert!(!driver.set_up(0, 0x10_0000));
    driver.accept(1 << 32);
    driver.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER | FEATURES_OK);
    // Outside of memory, or wrapping around.
    for at in [16 << 20, 0x1_0000_0000, u64::MAX - 0xffff] {
        assert!(!driver.set_up(0, at), "{at:#x}");
    }
    assert!(driver.set_up(0, 0x10_0000));
    assert!(!driver.set_up(1, 0x20_0000));
    driver.set(0x70, 0);
    assert_eq!((driver.status(), driver.get(0x44)), (0, 0));
    driver.start();
    assert_eq!(driver.ask(0, &[ROOM]), 4096);
}

#[test]
fn registers_have_one_width_and_the_configuration_all() {
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let mut driver = Driver::new(Console::new(vec![("a", theirs)]));
    for len in [1, 2, 3, 8, 9] {
        let mut data = vec![0xaa; len];
        driver.transport.read(0, &mut data);
        assert_eq!(data, vec![0; len]);
        assert_eq!(driver.transport.write(0x70, &vec![1; len]), None);
    }
    assert_eq!((driver.get(1), driver.status()), (0, 0));
    let mut config = |at, len| {
        let mut data = vec![0xaa; len];
        driver.transport.read(0x100 + at, &mut data);
        data
    };
    // Two ports, of which one is left out.
    assert_eq!(config(4, 4), [2, 0, 0, 0]);
    assert_eq!(config(4, 1), [2]);
    assert_eq!(config(0, 8), [0, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(config(3, 2), [0, 2]);
    assert_eq!(config(10, 4), [0; 4]);
    assert_eq!(config(0xeff, 1), [0]);
    assert_eq!(config(u64::MAX - 0x100, 4), [0; 4]);
    driver.set(0x104, 9);
    assert_eq!(driver.get(0x104), 2);
}

#[test]
fn random_bytes_fill_what_is_given() {
    let mut driver = Driver::started(Rng);
    let pieces = [(BUFFERS, 100, WRITE), (BUFFERS + 0x1000, 28, WRITE)];
    assert_eq!(driver.ask(0, &pieces), 128);
    let bytes = [driver.read(BUFFERS, 100), driver.read(BUFFERS + 0x1000, 28)].concat();
    assert!(bytes.iter().filter(|&&b| b == 0).count() < 32, "{bytes:?}");
    assert_eq!(driver.read(BUFFERS + 100, 8), [0; 8]);
    assert_eq!(driver.get(0x60), 0);
    // More than is given at once; nothing to fill; only to read; outside of memory; too long.
    assert_eq!(driver.ask(0, &[(BUFFERS, 1 << 20, WRITE)]), 4096);
    assert_eq!(driver.ask(0, &[(BUFFERS, 0, WRITE)]), 0);
    assert_eq!(driver.ask(0, &[(BUFFERS, 64, 0)]), 0);
    assert_eq!(driver.ask(0, &[(1 << 40, 64, WRITE)]), 0);
    assert_eq!(driver.ask(0, &[(BUFFERS, u32::MAX, WRITE)]), 0);
    // A table of descriptors elsewhere.
    driver.describe(BUFFERS + 0x2000, BUFFERS, 50, WRITE | 1, 1);
    driver.describe(BUFFERS + 0x2010, BUFFERS + 0x1000, 14, WRITE, 0);
    let table = (BUFFERS + 0x2000, 32, INDIRECT);
    assert_eq!(driver.ask(0, &[table]), 64);
    // One that leads in a circle ends.
    driver.describe(BUFFERS + 0x2010, BUFFERS + 0x1000, 14, WRITE | 1, 0);
    assert!(driver.ask(0, &[table]) <= 4096);
    // The device goes on through more chains than its queue has places.
    for _ in 0..200 {
        assert_eq!(driver.ask(0, &[(BUFFERS, 8, WRITE)]), 8);
    }
}

#[test]
fn a_broken_queue_asks_for_a_reset_and_that_helps() {
    let mut driver = Driver::started(Rng);
    driver.set_avail(0, 1000);
    driver.kick(0);
    assert_eq!(driver.interrupted(), Interrupt::CONFIG);
    let all = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
    assert_eq!(driver.status(), all | NEEDS_RESET);
    driver.start();
    assert_eq!(driver.ask(0, &[ROOM]), 4096);
    // A driver that goes away in the middle, and comes again.
    for _ in 0..10 {
        driver.add(0, &[ROOM]);
        driver.kick(0);
        driver.start();
    }
    assert_eq!(driver.ask(0, &[ROOM]), 4096);
}

/// Rings that lie over one another, so that what the device writes looks like new chains to it.
#[test]
fn overlapping_rings_keep_no_device_from_its_end() {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut driver = Driver::new(Rng);
        for status in [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER] {
            driver.set(0x70, status);
        }
        // Without event indices: the device then says by its flags whether it wants notifications.
        driver.accept(1 << 32);
        driver.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        driver.set(0x30, 0);
        driver.set(0x38, 64);
        let descriptors = driver.queue(0);
        // The flags of the used ring are the index of the available one.
        let (available, used) = (descriptors + 0x4002, descriptors + 0x4004);
        for (register, at) in [(0x80, descriptors), (0x90, available), (0xa0, used)] {
            driver.set(register, at as u32);
            driver.set(register + 4, 0);
        }
        driver.set(0x44, 1);
        assert_eq!(driver.get(0x44), 1);
        driver.describe(descriptors, BUFFERS, 64, WRITE, 0);
        driver.write(available, &[0, 0, 1, 0]);
        driver.set(0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        driver.kick(0);
        std::thread::sleep(std::time::Duration::from_millis(100));
        driver.set(0x70, 0);
        done.send(driver.status()).unwrap();
    });
    let patience = std::time::Duration::from_secs(20);
    assert_eq!(ended.recv_timeout(patience), Ok(0), "the device goes on");
}

/// The console's queues: control messages, and those of its ports.
const TO_GUEST: usize = 2;
const FROM_GUEST: usize = 3;
const PORT_1: (usize, usize) = (4, 5);
const PORT_2: (usize, usize) = (6, 7);

/// Buffers for control messages.
const CONTROL: u64 = BUFFERS + 0x10_0000;

struct Ports {
    driver: Driver,
    first: UnixStream,
    second: UnixStream,
}

fn control(port: u32, event: u16, value: u16) -> Vec<u8> {
    [
        &port.to_le_bytes()[..],
        &event.to_le_bytes(),
        &value.to_le_bytes(),
    ]
    .concat()
}

impl Ports {
    fn new() -> Ports {
        let (first, a) = UnixStream::pair().unwrap();
        let (second, b) = UnixStream::pair().unwrap();
        let console = Console::new(vec![("one", a), ("second", b)]);
        Ports {
            driver: Driver::started(console),
            first,
            second,
        }
    }

    fn say(&mut self, message: &[u8]) {
        self.driver.write(CONTROL, message);
        let chain = [(CONTROL, message.len() as u32, 0)];
        assert_eq!(self.driver.ask(FROM_GUEST, &chain), 0);
    }

    /// The next control message to the guest.
    fn hear(&mut self) -> Vec<u8> {
        let at = CONTROL + 0x1000;
        let len = self.driver.ask(TO_GUEST, &[(at, 64, WRITE)]);
        self.driver.read(at, len as usize)
    }

    /// Greets, as Linux does, and opens both ports.
    fn open(&mut self) {
        self.say(&control(0xffff_ffff, 0, 1));
        for port in [1, 2] {
            assert_eq!(self.hear(), control(port, 1, 0));
        }
        for (port, name) in [(1, "one"), (2, "second")] {
            self.say(&control(port, 3, 1));
            assert_eq!(
                self.hear(),
                [&control(port, 7, 1)[..], name.as_bytes()].concat()
            );
            assert_eq!(self.hear(), control(port, 6, 1));
            self.say(&control(port, 6, 1));
        }
    }
}

#[test]
fn ports_are_named_and_carry_bytes_both_ways() {
    let mut ports = Ports::new();
    // Comes before the guest can take it, and waits.
    ports.first.write_all(b"early").unwrap();
    ports.open();
    let driver = &mut ports.driver;
    assert_eq!(driver.ask(PORT_1.0, &[ROOM]), 5);
    assert_eq!(driver.read(BUFFERS, 5), b"early");
    driver.write(BUFFERS, b"to the host");
    let pieces = [(BUFFERS, 3, 0), (BUFFERS + 3, 8, 0)];
    assert_eq!(driver.ask(PORT_2.1, &pieces), 0);
    let mut text = [0; 11];
    ports.second.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"to the host");
    // More than a buffer holds comes in several.
    ports.second.write_all(&[7; 100]).unwrap();
    let lens = [64, 64].map(|room| driver.ask(PORT_2.0, &[(BUFFERS, room, WRITE)]));
    assert_eq!(lens, [64, 36]);
    // The other end goes: the guest hears of it.
    drop(ports.first);
    driver.add(PORT_1.0, &[ROOM]);
    driver.kick(PORT_1.0);
    let at = CONTROL + 0x1000;
    let len = driver.ask(TO_GUEST, &[(at, 64, WRITE)]);
    assert_eq!(driver.read(at, len as usize), control(1, 6, 0));
    // And what it writes is lost.
    assert_eq!(driver.ask(PORT_1.1, &[(BUFFERS, 10, 0)]), 0);
}

#[test]
fn the_first_port_may_be_the_kernels_console() {
    let (mut messages, theirs) = UnixStream::pair().unwrap();
    let (first, a) = UnixStream::pair().unwrap();
    let (second, b) = UnixStream::pair().unwrap();
    let console = Console::with_messages(theirs, vec![("one", a), ("second", b)]);
    let mut ports = Ports {
        driver: Driver::started(console),
        first,
        second,
    };
    ports.say(&control(0xffff_ffff, 0, 1));
    for port in [0, 1, 2] {
        assert_eq!(ports.hear(), control(port, 1, 0));
    }
    // It has no name.
    ports.say(&control(0, 3, 1));
    assert_eq!(ports.hear(), control(0, 4, 1));
    assert_eq!(ports.hear(), control(0, 6, 1));
    ports.say(&control(1, 3, 1));
    assert_eq!(ports.hear(), [&control(1, 7, 1)[..], b"one"].concat());
    let driver = &mut ports.driver;
    // Ports from 0 to 2, and their queues with the two of control messages.
    assert_eq!((driver.get(0x104), driver.transport.kicks().len()), (3, 8));
    driver.write(BUFFERS, b"a message to the host");
    assert_eq!(driver.ask(1, &[(BUFFERS, 9, 0)]), 0);
    assert_eq!(driver.ask(PORT_1.1, &[(BUFFERS + 10, 11, 0)]), 0);
    let mut text = [0; 9];
    messages.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"a message");
    let mut text = [0; 11];
    ports.first.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"to the host");
}

#[test]
fn a_slow_receiver_holds_up_its_sender() {
    let mut ports = Ports::new();
    ports.open();
    let driver = &mut ports.driver;
    const LEN: u32 = 1 << 20;
    let pattern: Vec<u8> = (0..LEN).map(|i| (i / 7) as u8).collect();
    driver.write(BUFFERS, &pattern);
    driver.add(
        PORT_1.1,
        &[
            (BUFFERS, LEN / 2, 0),
            (BUFFERS + u64::from(LEN / 2), LEN / 2, 0),
        ],
    );
    driver.kick(PORT_1.1);
    // The other port is not held up.
    assert_eq!(driver.ask(PORT_2.1, &[(BUFFERS, 10, 0)]), 0);
    assert_eq!(driver.used(PORT_1.1), None);
    let mut got = vec![0; LEN as usize];
    ports.first.read_exact(&mut got).unwrap();
    assert!(got == pattern);
    driver.wait(PORT_1.1);
    // A guest that has closed the port, or has no room, gets nothing.
    let closed = control(2, 6, 0);
    ports.say(&closed);
    ports.second.write_all(b"later").unwrap();
    let driver = &mut ports.driver;
    driver.add(PORT_2.0, &[ROOM]);
    driver.kick(PORT_2.0);
    driver.ask(PORT_1.1, &[(BUFFERS, 1, 0)]);
    assert_eq!(driver.used(PORT_2.0), None);
    ports.say(&control(2, 6, 1));
    assert_eq!(ports.driver.wait(PORT_2.0).1, 5);
}

#[test]
fn nonsense_on_the_console_is_survived() {
    let mut ports = Ports::new();
    for message in [
        vec![],
        vec![0; 7],
        control(0, 0, 0),
        control(0, 6, 1),
        control(3, 3, 1),
        control(u32::MAX, 6, 1),
        control(u32::MAX, 3, 1),
        control(1, 99, 7),
        control(1, 6, 77),
    ] {
        ports.say(&message);
    }
    // Answers are asked for that nobody takes: the device stops listening before it keeps too many.
    let ready = control(0, 0, 1);
    ports.driver.write(CONTROL, &ready);
    for _ in 0..60 {
        ports.driver.add(FROM_GUEST, &[(CONTROL, 8, 0)]);
    }
    ports.driver.kick(FROM_GUEST);
    ports.driver.wait(FROM_GUEST);
    // It listens again as they are taken.
    for i in 0..120 {
        assert_eq!(ports.hear(), control(1 + i % 2, 1, 0), "{i}");
    }
    for _ in 0..59 {
        ports.driver.wait(FROM_GUEST);
    }
    // Buffers outside of memory, of no length, of the wrong direction.
    for buffer in [(1 << 40, 8, 0), (BUFFERS, 0, 0), (BUFFERS, 8, WRITE)] {
        assert_eq!(ports.driver.ask(PORT_1.1, &[buffer]), 0);
    }
    ports.say(&control(1, 6, 1));
    ports.first.write_all(b"x").unwrap();
    for (buffer, len) in [((1 << 40, 8, WRITE), 0), ((BUFFERS, 8, 0), 0), (ROOM, 1)] {
        assert_eq!(ports.driver.ask(PORT_1.0, &[buffer]), len);
    }
}

#[test]
fn what_was_written_before_the_end_arrives() {
    for _ in 0..20 {
        let mut ports = Ports::new();
        ports.open();
        ports.driver.write(BUFFERS, b"last words");
        ports.driver.add(PORT_1.1, &[(BUFFERS, 10, 0)]);
        // Notified or not.
        ports.driver.transport.halt();
        drop(ports.driver);
        let mut text = String::new();
        ports.first.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last words");
    }
}

#[test]
fn any_writes_to_registers_and_rings_are_survived() {
    for seed in 1..=60u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
        };
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let mut driver = match seed % 2 {
            0 => Driver::started(Rng),
            _ => Driver::started(Console::new(vec![("a", theirs)])),
        };
        let queues = driver.transport.kicks().len() as u64;
        for _ in 0..300 {
            let queue = driver.queue((next() % queues) as usize);
            match next() % 8 {
                0 => {
                    let register = 4 * (next() % 0x44);
                    let value = [0, 1, 0xf, 0x10_0000, next() as u32][(next() % 5) as usize];
                    driver.set(register, value);
                }
                1 => driver.start(),
                2..=4 => {
                    let (at, len) = (BUFFERS + next() % 64, (next() % 70_000) as u32);
                    let place = queue + 16 * (next() % 8);
                    driver.describe(place, at, len, (next() % 8) as u16, (next() % 9) as u16);
                }
                5 => driver.set_avail((next() % queues) as usize, (next() % 200) as u16),
                6 => driver.write(queue + 0x4004 + 2 * (next() % 8), &[next() as u8 % 9, 0]),
                _ => driver.kick((next() % queues) as usize),
            }
        }
        // It is alive.
        driver.start();
        match seed % 2 {
            0 => assert_eq!(driver.ask(0, &[ROOM]), 4096),
            _ => assert_eq!(driver.ask(FROM_GUEST, &[(BUFFERS, 8, 0)]), 0),
        }
    }
}

//! The console device with several ports (VIRTIO 1.2, section 5.3), each a stream of bytes between a
//! character device of the guest and a socket here.
//!
//! Port 0 is the kernel's console, or left out: a kernel would take it for one. A sender is held up while its receiver is slow:
//! what the guest writes stays in its queue until the socket has room, and the socket is read only while the
//! guest has the port open and room for it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::PollFlags;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::chain::{self, Served};
use super::device::{Active, Device};

/// `VIRTIO_CONSOLE_F_MULTIPORT`
const MULTIPORT: u64 = 1 << 1;

/// Queues of control messages.
const CONTROL_TO_GUEST: usize = 2;
const CONTROL_FROM_GUEST: usize = 3;

/// Sizes of the queues for data and for control messages.
const DATA_QUEUE: u16 = 128;
const CONTROL_QUEUE: u16 = 64;

/// Control messages that wait for the guest to take them, at most. It is not heard before it does.
const MOST_MESSAGES: usize = 64;

/// Kinds of control messages.
const DEVICE_READY: u16 = 0;
const DEVICE_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_IS_CONSOLE: u16 = 4;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// `struct virtio_console_control`
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
struct Control {
    port: u32,
    event: u16,
    value: u16,
}

/// One port.
struct Port {
    number: usize,
    name: &'static str,
    stream: UnixStream,
    /// The guest has opened it.
    open_in_guest: bool,
    /// The other end of the socket is there.
    open_here: bool,
    /// There may be room for more in the guest.
    room: bool,
    /// The socket is full.
    held_up: bool,
    /// So much of the first chain has been sent.
    sent: usize,
}

/// The device.
pub struct Console {
    /// In the order of their numbers, without a gap.
    ports: Vec<Port>,
    /// Messages for the guest, and the name behind one.
    messages: VecDeque<(Control, &'static str)>,
    /// They are so many that the guest is not heard.
    deaf: bool,
}

impl Console {
    /// A device with these ports, in this order from number 1 on.
    pub fn new(ports: Vec<(&'static str, UnixStream)>) -> Console {
        Console::from((1..).zip(ports))
    }

    /// The same, with a port of number 0 by which the kernel gives its messages, once it has this device.
    pub fn with_messages(messages: UnixStream, ports: Vec<(&'static str, UnixStream)>) -> Console {
        let console = std::iter::once(("", messages));
        Console::from((0..).zip(console.chain(ports)))
    }

    fn from(ports: impl Iterator<Item = (usize, (&'static str, UnixStream))>) -> Console {
        let port = |(number, (name, stream))| Port {
            number,
            name,
            stream,
            open_in_guest: false,
            open_here: true,
            room: true,
            held_up: false,
            sent: 0,
        };
        Console {
            ports: ports.map(port).collect(),
            messages: VecDeque::new(),
            deaf: false,
        }
    }

    /// Says something of the port at a place of the list.
    fn say(&mut self, place: usize, event: u16, value: u16) {
        let Some(port) = self.ports.get(place) else {
            return;
        };
        let message = Control {
            port: port.number as u32,
            event,
            value,
        };
        let name = if event == PORT_NAME { port.name } else { "" };
        self.messages.push_back((message, name));
    }

    /// What the guest says. Its ports are numbers that it may make up.
    fn hear(&mut self, message: Control) {
        let port = message.port as usize;
        let port = self.ports.iter().position(|p| p.number == port);
        match (message.event, port) {
            (DEVICE_READY, _) if message.value == 1 => {
                for port in 0..self.ports.len() {
                    self.say(port, DEVICE_ADD, 0);
                }
            }
            (PORT_READY, Some(port)) if message.value == 1 => {
                match self.ports.get(port) {
                    Some(p) if p.number == 0 => self.say(port, PORT_IS_CONSOLE, 1),
                    _ => self.say(port, PORT_NAME, 1),
                }
                if self.ports.get(port).is_some_and(|p| p.open_here) {
                    self.say(port, PORT_OPEN, 1);
                }
            }
            (PORT_OPEN, Some(port)) => {
                if let Some(port) = self.ports.get_mut(port) {
                    port.open_in_guest = message.value == 1;
                }
            }
            _ => log::debug!("virtio-console: the guest says {message:?}"),
        }
    }

    /// Hears control messages, as long as there is room for answers.
    fn take_messages(
        &mut self,
        queue: &mut Queue,
        mem: &GuestMemoryMmap,
    ) -> Result<Served, virtio_queue::Error> {
        self.deaf = false;
        chain::each(queue, mem, "virtio-console", |chain| {
            // Each may lead to a message for every port.
            if self.messages.len() + self.ports.len().max(2) > MOST_MESSAGES {
                self.deaf = true;
                return None;
            }
            if let Some((mut bytes, _)) = chain {
                let mut message = Control::default();
                if bytes.read(message.as_mut_bytes()) == size_of::<Control>() {
                    self.hear(message);
                }
            }
            Some(0)
        })
    }

    /// Gives the guest the messages for which it has room.
    fn give_messages(
        &mut self,
        queue: &mut Queue,
        mem: &GuestMemoryMmap,
    ) -> Result<Served, virtio_queue::Error> {
        if self.messages.is_empty() {
            return Ok(Served {
                notify: false,
                more: false,
            });
        }
        chain::each(queue, mem, "virtio-console", |chain| {
            let (message, name) = self.messages.pop_front()?;
            let Some((_, mut room)) = chain else {
                return Some(0);
            };
            Some(room.write(message.as_bytes()) + room.write(name.as_bytes()))
        })
    }
}

impl Port {
    /// The queue by which the guest reads. Those of control messages are between the first port's and the
    /// others'.
    fn queue_to_guest(&self) -> usize {
        match self.number {
            0 => 0,
            n => 2 * n + 2,
        }
    }

    /// The queue by which it writes.
    fn queue_to_host(&self) -> usize {
        self.queue_to_guest() + 1
    }

    /// Gives the guest what has come.
    fn receive(
        &mut self,
        queue: &mut Queue,
        mem: &GuestMemoryMmap,
    ) -> Result<Served, virtio_queue::Error> {
        let mut waiting = false;
        let served = chain::each(queue, mem, "virtio-console", |chain| {
            if !self.open_in_guest || !self.open_here || waiting {
                waiting = true;
                return None;
            }
            let Some((_, room)) = chain else {
                return Some(0);
            };
            if room.is_empty() {
                return Some(0);
            }
            match room.receive_from(self.stream.as_fd()) {
                Ok(0) => self.open_here = false,
                Ok(n) => return Some(n),
                Err(Errno::EAGAIN) => (),
                Err(e) => {
                    log::debug!("virtio-console: {}: {e}", self.name);
                    self.open_here = false;
                }
            }
            waiting = true;
            None
        })?;
        self.room = waiting;
        Ok(served)
    }

    /// Sends what the guest has written.
    fn send(
        &mut self,
        queue: &mut Queue,
        mem: &GuestMemoryMmap,
    ) -> Result<Served, virtio_queue::Error> {
        self.held_up = false;
        chain::each(queue, mem, "virtio-console", |chain| {
            let Some((mut bytes, _)) = chain else {
                self.sent = 0;
                return Some(0);
            };
            drop(bytes.split_to(self.sent));
            let rest = bytes.len();
            if rest > 0 {
                match bytes.send_to(self.stream.as_fd()) {
                    // More pieces than one call takes, or a full socket: the next call tells.
                    Ok(n) if n < rest => {
                        self.sent += n;
                        self.held_up = true;
                        return None;
                    }
                    Ok(_) => (),
                    Err(Errno::EAGAIN) => {
                        self.held_up = true;
                        return None;
                    }
                    // Nobody reads any more. The guest hears of that elsewhere.
                    Err(e) => log::debug!("virtio-console: {}: {e}", self.name),
                }
            }
            self.sent = 0;
            Some(0)
        })
    }

    /// What is waited for at the socket.
    fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(
            PollFlags::POLLIN,
            self.open_in_guest && self.open_here && self.room,
        );
        flags.set(PollFlags::POLLOUT, self.held_up);
        flags
    }
}

impl Device for Console {
    fn id(&self) -> u32 {
        3
    }

    fn name(&self) -> &'static str {
        "console"
    }

    fn features(&self) -> u64 {
        MULTIPORT
    }

    fn queues(&self) -> Vec<u16> {
        let mut sizes = vec![DATA_QUEUE; 2 * (most_ports(&self.ports) + 1)];
        for control in [CONTROL_TO_GUEST, CONTROL_FROM_GUEST] {
            if let Some(size) = sizes.get_mut(control) {
                *size = CONTROL_QUEUE;
            }
        }
        sizes
    }

    fn config(&self) -> Vec<u8> {
        // Columns and rows, which are not offered; ports, one that is left out with them.
        let ports = most_ports(&self.ports) as u32;
        [&[0; 4], &ports.to_le_bytes()[..], &[0; 4]].concat()
    }

    fn serve(&mut self, active: &mut Active) -> Result<(), virtio_queue::Error> {
        self.messages.clear();
        self.deaf = false;
        for port in &mut self.ports {
            (port.open_in_guest, port.room) = (false, active.is_ready(port.queue_to_guest()));
            (port.held_up, port.sent) = (false, 0);
        }
        loop {
            let woken = {
                let waits = |p: &Port| !p.interest().is_empty();
                let others: Vec<(BorrowedFd<'_>, PollFlags)> = self
                    .ports
                    .iter()
                    .filter(|p| waits(p))
                    .map(|p| (p.stream.as_fd(), p.interest()))
                    .collect();
                active.wait(&others)
            };
            active.with_queue(CONTROL_FROM_GUEST, |q, mem| self.take_messages(q, mem))?;
            for i in 0..self.ports.len() {
                let Some(port) = self.ports.get_mut(i) else {
                    continue;
                };
                let was_open = port.open_here;
                active.with_queue(port.queue_to_host(), |q, mem| port.send(q, mem))?;
                if port.open_in_guest && port.open_here {
                    active.with_queue(port.queue_to_guest(), |q, mem| port.receive(q, mem))?;
                }
                if was_open && !port.open_here {
                    self.say(i, PORT_OPEN, 0);
                }
            }
            active.with_queue(CONTROL_TO_GUEST, |q, mem| self.give_messages(q, mem))?;
            // What was not heard for want of room may be heard now.
            if self.deaf && self.messages.is_empty() {
                active.come_back(CONTROL_FROM_GUEST);
            }
            if woken.stop {
                return Ok(());
            }
        }
    }
}

/// Ports from number 0 to the last one.
fn most_ports(ports: &[Port]) -> usize {
    ports.last().map_or(1, |p| p.number + 1)
}

//! The network device (VIRTIO 1.2, section 5.1): carries Ethernet frames between the guest and a link,
//! which is a stream of frames, each behind its length in four bytes, the most significant first
//! ([`crate::passt`]).
//!
//! No offloads: each frame is whole, with its checksums. What the guest sends waits in its queue until the
//! link has room, and the link is read only while the guest has buffers. Frames that do not fit into the
//! guest's buffer are dropped, as a network card does.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, sendmsg};
use nix::unistd::read;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use super::chain::{self, Served};
use super::device::{Active, Device};

/// `VIRTIO_NET_F_MAC`: the configuration has the card's address.
const MAC: u64 = 1 << 5;
/// Of the guest's choice, as those of virtual machines are: locally administered.
const ADDRESS: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
const QUEUE: u16 = 256;

/// `struct virtio_net_hdr_v1`: nothing is left to do, and the frame lies in one buffer.
const HEADER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// Longest frame: the largest packet and the header of Ethernet.
const MOST: usize = 65_535 + 14;
/// Bytes of the length before each frame.
const LENGTH: usize = 4;

/// The device.
pub struct Net {
    link: UnixStream,
    /// The other end of the link is there.
    up: bool,
    incoming: Incoming,
    /// A frame, with its length, that is being sent, and how much of it was.
    outgoing: Vec<u8>,
    sent: usize,
    /// The link has no room for the rest of it.
    held_up: bool,
    /// The guest may have a buffer for what comes.
    room: bool,
}

/// What has come over the link: frames, the last one maybe not whole.
struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// What became of an attempt to read the link.
enum Link {
    Came,
    Empty,
    Closed,
}

impl Incoming {
    fn new() -> Incoming {
        Incoming {
            buffer: vec![0; 2 * (LENGTH + MOST)],
            start: 0,
            end: 0,
        }
    }

    /// Where the first frame lies, if it is whole. `Err`: its length is none.
    fn frame(&self) -> Result<Option<&[u8]>, usize> {
        let all = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some((length, rest)) = all.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > MOST {
            return Err(length);
        }
        Ok(rest.get(..length))
    }

    /// Is done with a frame.
    fn drop_frame(&mut self, length: usize) {
        self.start = self.end.min(self.start + LENGTH + length);
    }

    fn fill(&mut self, link: &UnixStream) -> Link {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        // There is room: a whole frame takes less than half, and would have been taken.
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        loop {
            match read(link, room) {
                Ok(0) => return Link::Closed,
                Ok(n) => {
                    self.end += n;
                    return Link::Came;
                }
                Err(Errno::EAGAIN) => return Link::Empty,
                Err(Errno::EINTR) => (),
                Err(e) => {
                    log::warn!("virtio-net: reading the link: {e}");
                    return Link::Closed;
                }
            }
        }
    }
}

impl Net {
    /// A card that is connected by `link`.
    pub fn new(link: UnixStream) -> std::io::Result<Net> {
        link.set_nonblocking(true)?;
        Ok(Net {
            link,
            up: true,
            incoming: Incoming::new(),
            outgoing: Vec::with_capacity(LENGTH + MOST),
            sent: 0,
            held_up: false,
            room: true,
        })
    }

    /// The next frame of the link, or `None` if there is none now.
    fn next_frame(&mut self) -> Option<&[u8]> {
        loop {
            match self.incoming.frame() {
                Ok(Some(_)) => break,
                Ok(None) => match self.incoming.fill(&self.link) {
                    Link::Came => (),
                    Link::Empty => return None,
                    Link::Closed => {
                        self.up = false;
                        return None;
                    }
                },
                Err(length) => {
                    log::error!("virtio-net: a frame of {length} bytes on the link; it is closed");
                    self.up = false;
                    return None;
                }
            }
        }
        self.incoming.frame().ok().flatten()
    }

    /// Gives the guest the frames that have come.
    fn receive(
        &mut self,
        queue: &mut Queue,
        mem: &GuestMemoryMmap,
    ) -> Result<Served, virtio_queue::Error> {
        let mut nothing = false;
        let served = chain::each(queue, mem, "virtio-net", |chain| {
            let Some((_, mut room)) = chain else {
                return Some(0);
            };
            loop {
                let space = room.len();
                let Some(frame) = self.next_frame() else {
                    nothing = true;
                    return None;
                };
                let length = frame.len();
                let fits = HEADER.len() + length <= space;
                let written = match fits {
                    true => room.write(&HEADER) + room.write(frame),
                    false => 0,
                };
                self.incoming.drop_frame(length);
                if fits {
                    return Some(written);
                }
                log::debug!(
                    "virtio-net: a frame of {length} bytes is dropped: a buffer has {space}"
                );
            }
        })?;
        self.room = nothing;
        Ok(served)
    }

    /// Sends what the guest gives.
    fn send(
        &mut self,
        queue: &mut Queue,
        mem: &GuestMemoryMmap,
    ) -> Result<Served, virtio_queue::Error> {
        chain::each(queue, mem, "virtio-net", |chain| {
            if !self.flush() {
                return None;
            }
            let Some((mut bytes, _)) = chain else {
                return Some(0);
            };
            drop(bytes.split_to(HEADER.len()));
            let length = bytes.len();
            if length == 0 || length > MOST {
                log::debug!("virtio-net: the guest sends a frame of {length} bytes");
                return Some(0);
            }
            self.outgoing.clear();
            let announced = u32::try_from(length).unwrap_or_default();
            self.outgoing.extend(announced.to_be_bytes());
            self.outgoing.resize(LENGTH + length, 0);
            bytes.read(self.outgoing.get_mut(LENGTH..).unwrap_or_default());
            self.sent = 0;
            self.flush();
            Some(0)
        })
    }

    /// Sends the rest of the frame that is being sent. Whether there is none any more.
    fn flush(&mut self) -> bool {
        self.held_up = false;
        while let Some(rest) = self.outgoing.get(self.sent..).filter(|r| !r.is_empty()) {
            let rest = [IoSlice::new(rest)];
            match sendmsg::<()>(
                self.link.as_raw_fd(),
                &rest,
                &[],
                MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Ok(n) => self.sent += n,
                Err(Errno::EAGAIN) => {
                    self.held_up = true;
                    return false;
                }
                Err(Errno::EINTR) => (),
                // Nobody is there any more: as with a cable that was pulled.
                Err(e) => {
                    log::debug!("virtio-net: sending: {e}");
                    break;
                }
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        true
    }

    fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.up && self.room);
        flags.set(PollFlags::POLLOUT, self.held_up);
        flags
    }
}

impl Device for Net {
    fn id(&self) -> u32 {
        1
    }

    fn name(&self) -> &'static str {
        "net"
    }

    fn features(&self) -> u64 {
        MAC
    }

    fn queues(&self) -> Vec<u16> {
        vec![QUEUE; 2]
    }

    fn config(&self) -> Vec<u8> {
        ADDRESS.to_vec()
    }

    fn serve(&mut self, active: &mut Active) -> Result<(), virtio_queue::Error> {
        // Frames that are under way stay whole through a reset.
        self.room = active.is_ready(TO_GUEST);
        loop {
            let woken = {
                let interest = self.interest();
                let link: &[(BorrowedFd<'_>, PollFlags)] = &[(self.link.as_fd(), interest)];
                active.wait(if interest.is_empty() { &[] } else { link })
            };
            self.flush();
            active.with_queue(FROM_GUEST, |q, mem| self.send(q, mem))?;
            if self.up {
                active.with_queue(TO_GUEST, |q, mem| self.receive(q, mem))?;
            }
            if woken.stop {
                return Ok(());
            }
        }
    }
}

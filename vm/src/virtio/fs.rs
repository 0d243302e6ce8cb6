//! The file-system device (VIRTIO 1.2, section 5.11): every chain of every queue is one FUSE request.

use std::sync::Arc;

use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use super::chain::{self, Served};
use super::device::{Active, Device};
use crate::fuse::Server;

/// Device number.
pub const DEVICE_ID: u32 = 26;
/// Queues: one for requests of high priority (`FUSE_FORGET`), one for all others.
pub const QUEUES: usize = 2;
/// Longest queue. A request of [`crate::fuse::MAX_WRITE`] bytes takes 256 descriptors and a few.
pub const QUEUE_SIZE: u16 = 1024;
/// Length of the tag in the configuration space.
const TAG_LEN: usize = 36;

/// `struct virtio_fs_config`: the tag, padded with NULs, and the number of request queues.
pub fn config(tag: &str) -> Vec<u8> {
    let mut config = tag.as_bytes().to_vec();
    config.resize(TAG_LEN, 0);
    config.extend_from_slice(&1u32.to_le_bytes());
    config
}

/// The device of our own monitor, which answers in this process.
pub struct Fs {
    name: &'static str,
    tag: &'static str,
    server: Arc<Server>,
}

impl Fs {
    /// Serves a tree under a tag of at most 36 bytes. `name` is what reports call the device.
    pub fn new(name: &'static str, tag: &'static str, server: Arc<Server>) -> Fs {
        Fs { name, tag, server }
    }
}

impl Device for Fs {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; QUEUES]
    }

    fn config(&self) -> Vec<u8> {
        config(self.tag)
    }

    fn serve(&mut self, active: &mut Active) -> Result<(), virtio_queue::Error> {
        loop {
            let woken = active.wait(&[]);
            for queue in 0..QUEUES {
                active.with_queue(queue, |q, mem| serve(&self.server, q, mem))?;
            }
            if woken.stop {
                return Ok(());
            }
        }
    }
}

/// Serves what is in the queue.
///
/// # Errors
/// The queue itself is broken: the driver has put it outside the guest's memory, or its counters make
/// no sense. The device can then do no more than stop.
pub fn serve(
    server: &Server,
    queue: &mut Queue,
    mem: &GuestMemoryMmap,
) -> Result<Served, virtio_queue::Error> {
    chain::each(queue, mem, "virtio-fs", |chain| {
        Some(chain.map_or(0, |(request, reply)| server.handle(request, reply)))
    })
}

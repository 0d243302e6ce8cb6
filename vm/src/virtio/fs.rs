//! The file-system device (VIRTIO 1.2, section 5.11): every chain of every queue is one FUSE request.

use std::sync::Arc;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

use super::chain;
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
    tag: &'static str,
    server: Arc<Server>,
}

impl Fs {
    /// Serves a tree under a tag of at most 36 bytes.
    pub fn new(tag: &'static str, server: Arc<Server>) -> Fs {
        Fs { tag, server }
    }
}

impl Device for Fs {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn name(&self) -> &'static str {
        "fs"
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

/// Serves what is in the queue, until it is empty. Returns whether the driver wants to be notified.
///
/// # Errors
/// The queue itself is broken: the driver has put it outside the guest's memory, or its counters make
/// no sense. The device can then do no more than stop.
pub fn serve(
    server: &Server,
    queue: &mut Queue,
    mem: &GuestMemoryMmap,
) -> Result<bool, virtio_queue::Error> {
    let mut served = false;
    loop {
        queue.disable_notification(mem)?;
        while let Some(chain) = queue.iter(mem)?.next() {
            let head = chain.head_index();
            let len = match chain::split(mem, chain) {
                Some((request, reply)) => server.handle(request, reply),
                None => {
                    log::warn!("virtio-fs: a request outside of memory");
                    0
                }
            };
            queue.add_used(mem, head, u32::try_from(len).unwrap_or(u32::MAX))?;
            served = true;
        }
        if !queue.enable_notification(mem)? {
            break;
        }
    }
    Ok(served && queue.needs_notification(mem)?)
}

//! The entropy device (VIRTIO 1.2, section 5.4): fills what it is given with the host's random bytes.

use nix::errno::Errno;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

use super::chain::{self, Served};
use super::device::{Active, Device};

/// Most bytes for one chain: the driver asks again for more.
const MOST: usize = 4096;

/// The device.
pub struct Rng;

impl Device for Rng {
    fn id(&self) -> u32 {
        4
    }

    fn name(&self) -> &'static str {
        "rng"
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> Vec<u16> {
        vec![64]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn serve(&mut self, active: &mut Active) -> Result<(), virtio_queue::Error> {
        loop {
            let woken = active.wait(&[]);
            active.with_queue(0, fill)?;
            if woken.stop {
                return Ok(());
            }
        }
    }
}

/// Fills what is in the queue.
pub fn fill(queue: &mut Queue, mem: &GuestMemoryMmap) -> Result<Served, virtio_queue::Error> {
    let mut bytes = [0; MOST];
    chain::each(queue, mem, "virtio-rng", |chain| {
        let Some((_, mut room)) = chain else {
            return Some(0);
        };
        let wanted = room.len().min(MOST);
        Some(room.write(random(bytes.get_mut(..wanted).unwrap_or_default())))
    })
}

/// Fills with random bytes, as far as the host has some at once.
fn random(bytes: &mut [u8]) -> &[u8] {
    // SAFETY: the buffer is as long as is said.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    let n = Errno::result(n).unwrap_or(0).unsigned_abs();
    bytes.get(..n).unwrap_or_default()
}

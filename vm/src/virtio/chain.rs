//! Descriptor chains as pieces of guest memory.

use std::ops::Deref;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use crate::fuse::Segments;

/// The part of a chain that the device reads, and the part that it writes. `None` if the chain leads
/// out of the guest's memory.
pub fn split<'a, M>(
    mem: &'a GuestMemoryMmap,
    chain: DescriptorChain<M>,
) -> Option<(Segments<'a>, Segments<'a>)>
where
    M: Deref + Clone,
    M::Target: GuestMemory,
{
    let mut readable: Vec<VolatileSlice<'a>> = Vec::new();
    let mut writable = Vec::new();
    for descriptor in chain {
        let (part, access) = if descriptor.is_write_only() {
            (&mut writable, Permissions::Write)
        } else {
            (&mut readable, Permissions::Read)
        };
        let len = descriptor.len() as usize;
        for piece in mem.get_slices(descriptor.addr(), len, access).ok()? {
            part.push(piece.ok()?);
        }
    }
    Some((Segments::new(readable), Segments::new(writable)))
}

/// A chain's part to read and part to write; `None`: it leads out of the guest's memory.
pub type Halves<'a> = Option<(Segments<'a>, Segments<'a>)>;

/// What became of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The driver wants to be notified.
    pub notify: bool,
    /// There may be more in it: the caller is to come back, and may look at other things first.
    pub more: bool,
}

/// How often a queue is looked into once more after it was empty.
const LOOKS: u32 = 4;

/// Calls `work` for each chain of the queue; it returns how many bytes it has written, or `None` to leave
/// this chain and those behind it for later. `device` is for people.
///
/// It comes to an end whatever the driver does, or has put into the queue: after as many chains as the queue
/// has places, and a few looks, the rest is left.
pub fn each(
    queue: &mut Queue,
    mem: &GuestMemoryMmap,
    device: &str,
    mut work: impl FnMut(Halves<'_>) -> Option<usize>,
) -> Result<Served, virtio_queue::Error> {
    let mut served = 0;
    let mut more = true;
    'looks: for _ in 0..LOOKS {
        queue.disable_notification(mem)?;
        while let Some(chain) = queue.iter(mem)?.next() {
            if served == queue.size() {
                queue.go_to_previous_position();
                break 'looks;
            }
            let head = chain.head_index();
            let halves = split(mem, chain);
            if halves.is_none() {
                log::debug!("{device}: a buffer outside of memory");
            }
            let Some(len) = work(halves) else {
                queue.go_to_previous_position();
                more = false;
                break 'looks;
            };
            queue.add_used(mem, head, u32::try_from(len).unwrap_or(u32::MAX))?;
            served += 1;
        }
        if !queue.enable_notification(mem)? {
            more = false;
            break;
        }
    }
    let notify = served > 0 && queue.needs_notification(mem)?;
    Ok(Served { notify, more })
}

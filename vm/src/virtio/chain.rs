//! Descriptor chains as pieces of guest memory.

use std::ops::Deref;

use virtio_queue::DescriptorChain;
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

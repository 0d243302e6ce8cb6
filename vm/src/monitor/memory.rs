//! The guest's memory: a memfd, mapped shared, with a hole below 4 GiB for devices.

use std::fs::File;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, MmapRegion,
};

use crate::error::{Error, Result};

/// Where the hole for devices begins.
pub const HOLE_START: u64 = 0xd000_0000;
/// Where it ends, and memory goes on.
pub const HOLE_END: u64 = 1 << 32;
/// Size of a page.
pub const PAGE: u64 = 4096;

/// Pieces of the guest's physical addresses that `size` bytes of memory take: start and length.
pub fn ranges(size: u64) -> Vec<(u64, u64)> {
    let low = size.min(HOLE_START);
    let mut all = vec![(0, low)];
    if size > low {
        all.push((HOLE_END, size - low));
    }
    all
}

/// Makes `size` bytes of memory, a multiple of [`PAGE`]. The host gives a page when it is first touched.
pub fn create(size: u64) -> Result<GuestMemoryMmap> {
    let failed = |why: &dyn std::fmt::Display| {
        Error::Failed(format!(
            "making {} MiB of memory for the guest: {why}",
            size >> 20
        ))
    };
    if size == 0 || !size.is_multiple_of(PAGE) {
        return Err(failed(&"the size is no multiple of a page"));
    }
    let fd = memfd_create(c"duet-guest", MFdFlags::MFD_CLOEXEC).map_err(|e| failed(&e.desc()))?;
    let file = File::from(fd);
    file.set_len(size).map_err(|e| failed(&e))?;
    let mut regions = Vec::new();
    let mut offset = 0;
    for (start, len) in ranges(size) {
        let file = file.try_clone().map_err(|e| failed(&e))?;
        let len_in_memory = usize::try_from(len).map_err(|e| failed(&e))?;
        let region = MmapRegion::from_file(FileOffset::new(file, offset), len_in_memory)
            .map_err(|e| failed(&e))?;
        let region = GuestRegionMmap::new(region, GuestAddress(start))
            .ok_or_else(|| failed(&"it does not fit the guest's addresses"))?;
        regions.push(region);
        offset += len;
    }
    GuestMemoryMmap::from_regions(regions).map_err(|e| failed(&e))
}

/// Whether all of `len` bytes from `start` on are memory.
pub fn holds(memory: &GuestMemoryMmap, start: u64, len: u64) -> bool {
    usize::try_from(len).is_ok_and(|len| memory.check_range(GuestAddress(start), len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hole_is_no_memory() {
        assert_eq!(ranges(2 << 20), [(0, 2 << 20)]);
        assert_eq!(ranges(HOLE_START), [(0, HOLE_START)]);
        assert_eq!(
            ranges(HOLE_START + PAGE),
            [(0, HOLE_START), (HOLE_END, PAGE)]
        );
        let memory = create(HOLE_START + (2 << 20)).unwrap();
        assert!(holds(&memory, HOLE_END, 2 << 20));
        assert!(holds(&memory, 0, HOLE_START));
        assert!(!holds(&memory, HOLE_START - 1, 2));
        assert!(!holds(&memory, HOLE_END, (2 << 20) + 1));
        assert!(!holds(&memory, u64::MAX, 2));
        assert!(create(0).is_err() && create(1).is_err());
    }
}

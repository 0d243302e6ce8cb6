//! The MP table, by which a kernel without ACPI finds processors and interrupts (Intel's MultiProcessor
//! Specification 1.4, chapter 4).

use vm_memory::GuestMemoryMmap;

use super::put_bytes;
use crate::error::Result;

/// Where it is: in the part of the firmware's memory that kernels search.
const START: u64 = 0xf_0000;
/// Length of the pointer to it, behind which it lies.
const POINTER: usize = 16;
/// Length of its header.
const HEADER: usize = 44;

/// Where KVM has the interrupt controllers.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// The one for devices.
pub const IO_APIC: u32 = 0xfec0_0000;
/// Pins of it.
pub const PINS: u32 = 24;

const VERSION_1_4: u8 = 4;
/// Version of the interrupt controllers, as KVM has it.
const APIC_VERSION: u8 = 0x14;

/// Kinds of entries, which stand in this order.
const PROCESSOR: u8 = 0;
const BUS: u8 = 1;
const CONTROLLER: u8 = 2;
const DEVICE_INTERRUPT: u8 = 3;
const LOCAL_INTERRUPT: u8 = 4;

/// Kinds of interrupts.
const VECTORED: u8 = 0;
const NON_MASKABLE: u8 = 1;
const EXTERNAL: u8 = 3;

/// Writes the table for `cpus` processors.
pub fn put(memory: &GuestMemoryMmap, cpus: u32) -> Result<()> {
    put_bytes(memory, START, &build(cpus))
}

/// The id of the controller for devices: behind the processors'.
pub fn controller_id(cpus: u32) -> u8 {
    cpus.min(0xff) as u8
}

fn build(cpus: u32) -> Vec<u8> {
    let mut entries: Vec<u8> = Vec::new();
    let mut count = 0u16;
    let mut entry = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for id in 0..cpus {
        const ENABLED: u8 = 1;
        const FIRST: u8 = 2;
        let flags = ENABLED | if id == 0 { FIRST } else { 0 };
        let mut processor = [0; 20];
        processor[..4].copy_from_slice(&[PROCESSOR, id as u8, APIC_VERSION, flags]);
        // Family 6; a local controller and a floating-point unit.
        processor[4..8].copy_from_slice(&0x600u32.to_le_bytes());
        processor[8..12].copy_from_slice(&0x201u32.to_le_bytes());
        entry(&processor);
    }
    entry(&[&[BUS, 0][..], b"ISA   "].concat());
    let io_apic = controller_id(cpus);
    entry(
        &[
            &[CONTROLLER, io_apic, APIC_VERSION, 1][..],
            &IO_APIC.to_le_bytes(),
        ]
        .concat(),
    );
    // Interrupts of devices: trigger and polarity as the bus has them (edge, active high), each at the pin
    // of its number.
    for pin in 0..PINS as u8 {
        entry(&[DEVICE_INTERRUPT, VECTORED, 0, 0, 0, pin, io_apic, pin]);
    }
    const ALL: u8 = 0xff;
    entry(&[LOCAL_INTERRUPT, EXTERNAL, 0, 0, 0, 0, 0, 0]);
    entry(&[LOCAL_INTERRUPT, NON_MASKABLE, 0, 0, 0, 0, ALL, 1]);

    let mut pointer = [0; POINTER];
    pointer[..4].copy_from_slice(b"_MP_");
    pointer[4..8].copy_from_slice(&(START as u32 + POINTER as u32).to_le_bytes());
    // Its own length, in units of itself.
    pointer[8] = 1;
    pointer[9] = VERSION_1_4;
    pointer[10] = checksum(&pointer);

    let mut header = [0; HEADER];
    header[..4].copy_from_slice(b"PCMP");
    header[4..6].copy_from_slice(&((HEADER + entries.len()) as u16).to_le_bytes());
    header[6] = VERSION_1_4;
    header[8..16].copy_from_slice(b"DUET    ");
    header[16..28].copy_from_slice(b"MICROVM     ");
    header[34..36].copy_from_slice(&count.to_le_bytes());
    header[36..40].copy_from_slice(&LOCAL_APIC.to_le_bytes());
    header[7] = checksum(&[&header[..], &entries].concat());
    [&pointer[..], &header, &entries].concat()
}

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_there_is() {
        for cpus in [1, 2, 254] {
            let table = build(cpus);
            let (pointer, rest) = table.split_at(POINTER);
            let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
            assert_eq!((sum(pointer), sum(rest)), (0, 0));
            let word = |at: usize| u16::from_le_bytes([rest[at], rest[at + 1]]);
            assert_eq!(usize::from(word(4)), rest.len());
            let mut at = HEADER;
            let mut kinds = Vec::new();
            while let Some(&kind) = rest.get(at) {
                kinds.push(kind);
                at += if kind == PROCESSOR { 20 } else { 8 };
            }
            assert_eq!(at, rest.len());
            assert!(kinds.is_sorted());
            assert_eq!(kinds.len(), usize::from(word(34)));
            let count = |kind| kinds.iter().filter(|&&k| k == kind).count();
            assert_eq!(count(PROCESSOR), cpus as usize);
            assert_eq!(count(DEVICE_INTERRUPT), PINS as usize);
            // Before the end of the firmware's memory.
            assert!(START + table.len() as u64 <= 0x10_0000);
        }
    }
}

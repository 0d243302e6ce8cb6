//! Notifications and interrupts by eventfd: a guest that kicks a device, sleeps, and is woken by it.

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::super::bus::Registers;
use super::super::confine;
use super::super::stats::Exit;
use super::{code, pc, possible, start, word};
use crate::machine::{End, Running};
use crate::virtio::rng::Rng;

/// Where the queue lies.
const TABLE: u64 = 0x20_0000;
const AVAIL: u64 = 0x20_1000;
const USED: u64 = 0x20_2000;
/// What is to be filled.
const BUFFER: u64 = 0x20_3000;
const LEN: u32 = 64;

#[test]
fn a_guest_kicks_a_device_and_is_woken_by_it() {
    if !possible("a_guest_kicks_a_device_and_is_woken_by_it") {
        return;
    }
    let (mut parts, _serial) = pc(code!(
        "kick",
        // The gate of vector 0x30 leads to label 5.
        "lea rax, [rip + 5f]",
        "mov edi, 0x1300",
        "mov word ptr [rdi], ax",
        "mov word ptr [rdi + 2], 0x10",
        "mov word ptr [rdi + 4], 0x8e00",
        "shr rax, 16",
        "mov word ptr [rdi + 6], ax",
        "mov qword ptr [rdi + 8], 0",
        "mov word ptr [0x1800], 0xfff",
        "mov qword ptr [0x1802], 0x1000",
        "lidt [0x1800]",
        // Nothing comes by the old controllers.
        "mov al, 0xff",
        "out 0x21, al",
        "out 0xa1, al",
        // Local controller on; pin 5 of the other is vector 0x30, edge, to processor 0.
        "mov ebx, 0xfee00000",
        "mov dword ptr [rbx + 0xf0], 0x1ff",
        "mov ecx, 0xfec00000",
        "mov dword ptr [rcx], 0x1b",
        "mov dword ptr [rcx + 16], 0",
        "mov dword ptr [rcx], 0x1a",
        "mov dword ptr [rcx + 16], 0x30",
        // Four rounds.
        "mov r8d, 4",
        "mov esi, 0xd0000000",
        "2: mov dword ptr [rsi + 0x50], 0",
        // Interrupts are on only while it sleeps.
        "3: sti",
        "hlt",
        "cli",
        "cmp [0x2000], r9d",
        "je 3b",
        "mov r9d, [0x2000]",
        "dec r8d",
        "jz 6f",
        // One more chain, the same one again: entries of the ring are all 0.
        "inc word ptr [0x201002]",
        "jmp 2b",
        "6: mov al, 0xfe",
        "out 0x64, al",
        "4: jmp 4b",
        // Count, acknowledge the device, end the interrupt.
        "5: inc dword ptr [0x2000]",
        "push rax",
        "mov eax, [rsi + 0x60]",
        "mov [0x2008], eax",
        "mov dword ptr [rsi + 0x64], eax",
        "mov dword ptr [rbx + 0xb0], 0",
        "pop rax",
        "iretq",
    ));
    let place = parts.add(Box::new(Rng), confine::device).unwrap();
    assert_eq!((place.address, place.gsi), (0xd000_0000, 5));
    // The queue is set up from here, without event indices.
    let memory = parts.vm.memory().clone();
    let put = |value: u16, at: u64| memory.write_obj(value, GuestAddress(at)).unwrap();
    let descriptor = RawDescriptor::from(Descriptor::new(BUFFER, LEN, 2, 0));
    memory.write_obj(descriptor, GuestAddress(TABLE)).unwrap();
    put(1, AVAIL + 2);
    let device = parts.devices[0].clone();
    let set = |register: u64, value: u32| {
        device.lock().write(register, &value.to_le_bytes());
    };
    for (register, value) in [
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x38, 8),
        (0x80, TABLE as u32),
        (0x90, AVAIL as u32),
        (0xa0, USED as u32),
        (0x44, 1),
        (0x70, 15),
    ] {
        set(register, value);
    }
    let mut machine = start(parts, 1);
    assert_eq!(machine.wait().unwrap(), End::PoweredOff);
    // Interrupts, and their reason.
    assert_eq!(word(&memory, 0x2000), 4);
    assert_eq!(word(&memory, 0x2008), 1);
    assert_eq!(memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap(), 4);
    assert_ne!(word(&memory, BUFFER), 0);
    let devices = machine.work().unwrap().devices;
    assert_eq!(devices[0].name, "rng");
    assert_eq!(devices[0].queues, [(4, 4)]);
    assert_eq!(devices[0].interrupts, 4);
    // Only the acknowledgements went through the monitor: a read and a write each.
    assert_eq!(machine.stats().exits(Exit::Mmio), 8);
}

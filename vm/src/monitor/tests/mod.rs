//! Bare guests: a few instructions on the real `/dev/kvm`.

mod bare;
mod boot;
mod devices;
mod driver;
mod events;
mod net;
mod pvm;

use std::io::Read;
use std::os::unix::net::UnixStream;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::bus::Bus;
use super::confine;
use super::cpu::Entry;
use super::vm::{self, Vm};
use super::{Monitor, Parts, memory, platform};

/// Instructions for a bare guest, as bytes that run at any address.
macro_rules! code {
    ($name:literal, $($line:literal),+ $(,)?) => {{
        mod assembled {
            std::arch::global_asm!(
                ".pushsection .rodata",
                concat!("duet_bare_", $name, "_start:"),
                $($line,)+
                concat!("duet_bare_", $name, "_end:"),
                ".popsection",
            );
        }
        unsafe extern "C" {
            #[link_name = concat!("duet_bare_", $name, "_start")]
            static START: u8;
            #[link_name = concat!("duet_bare_", $name, "_end")]
            static END: u8;
        }
        let (start, end) = (&raw const START, &raw const END);
        // SAFETY: the two are the ends of the constant bytes above.
        unsafe { std::slice::from_raw_parts(start, end.offset_from(start).unsigned_abs()) }
    }};
}
pub(super) use code;

/// Where code of bare guests lies.
pub const CODE: u64 = 0x10000;
/// Memory of bare guests.
pub const MEMORY: u64 = 4 << 20;

/// Whether this host has a KVM. Says so if not.
pub fn possible(test: &str) -> bool {
    match vm::open() {
        Ok(_) => true,
        Err(e) => {
            skip(test, &e.to_string());
            false
        }
    }
}

/// Notes a test that was not run where all tests note it.
fn skip(test: &str, why: &str) {
    use std::io::Write;
    let line = format!("SKIPPED {test}: {why}\n");
    eprint!("{line}");
    // target/debug/deps/NAME
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    let dir = target.join("testbins");
    std::fs::create_dir_all(&dir).unwrap();
    let list = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("skipped.txt"));
    list.unwrap().write_all(line.as_bytes()).unwrap();
}

/// The parts of a PC with `code` in its memory, and the other end of its serial port.
pub fn pc(code: &[u8]) -> (Parts, UnixStream) {
    let memory = memory::create(MEMORY).unwrap();
    memory.write_slice(code, GuestAddress(CODE)).unwrap();
    let (ours, serial) = UnixStream::pair().unwrap();
    let vm = Vm::new(&vm::open().unwrap(), memory).unwrap();
    let mut ports = Bus::default();
    platform::add(&mut ports, &vm, serial.try_clone().unwrap()).unwrap();
    let parts = Parts {
        vm,
        ports,
        mmio: Bus::default(),
        serial: Some(serial),
        devices: Vec::new(),
    };
    (parts, ours)
}

/// Starts it in 64-bit code.
pub fn start(parts: Parts, cpus: u32) -> Monitor {
    let entry = Entry::Long {
        code: CODE,
        argument: 0x7777,
    };
    parts.start(cpus, entry, confine::processor, None).unwrap()
}

/// All that came from the serial port until the machine's end.
pub fn said(mut serial: UnixStream, machine: Monitor) -> String {
    drop(machine);
    let mut text = String::new();
    serial.read_to_string(&mut text).unwrap();
    text
}

/// Reads a word of the guest's memory.
pub fn word(memory: &GuestMemoryMmap, at: u64) -> u64 {
    memory.read_obj::<u64>(GuestAddress(at)).unwrap()
}

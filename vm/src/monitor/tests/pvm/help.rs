//! Who is asked when a KVM that interprets the guest's kernel mode does not know an instruction.

use std::collections::BTreeMap;

use kvm_ioctls::VcpuFd;
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::fixup::{Memory, Processor};
use crate::monitor::vcpu;

/// The helper of one machine.
pub struct Help {
    memory: GuestMemoryMmap,
    done: Mutex<BTreeMap<&'static str, u64>>,
}

impl Help {
    /// Help for a guest with this memory.
    pub fn for_any(memory: &GuestMemoryMmap) -> Help {
        Help {
            memory: memory.clone(),
            done: Mutex::default(),
        }
    }

    /// What it did so far, and how often.
    pub fn done(&self) -> Vec<(&'static str, u64)> {
        self.done.lock().iter().map(|(n, c)| (*n, *c)).collect()
    }
}

impl vcpu::Help for Help {
    fn emulate(&self, vcpu: &VcpuFd) -> Result<(), String> {
        let mut processor = Processor {
            general: vcpu.get_regs().map_err(|e| e.to_string())?,
            special: vcpu.get_sregs().map_err(|e| e.to_string())?,
        };
        let mut memory = Linear {
            vcpu,
            memory: &self.memory,
        };
        let what = processor.step(&mut memory)?;
        *self.done.lock().entry(what).or_default() += 1;
        vcpu.set_regs(&processor.general).map_err(|e| e.to_string())
    }
}

/// The guest's memory as a processor sees it, through its page tables.
struct Linear<'a> {
    vcpu: &'a VcpuFd,
    memory: &'a GuestMemoryMmap,
}

impl Linear<'_> {
    /// Where the page of `address` is, and how many of `len` bytes from there on are in it.
    fn place(&self, address: u64, len: usize) -> Result<(GuestAddress, usize), String> {
        const PAGE: u64 = 4096;
        let translated = self.vcpu.translate_gva(address);
        let translated = translated.map_err(|e| e.to_string())?;
        if translated.valid == 0 {
            return Err(format!("nothing is at {address:#x}"));
        }
        let rest = PAGE - address % PAGE;
        Ok((
            GuestAddress(translated.physical_address),
            len.min(rest as usize),
        ))
    }
}

impl Memory for Linear<'_> {
    fn read(&self, mut address: u64, mut data: &mut [u8]) -> Result<(), String> {
        while !data.is_empty() {
            let (at, len) = self.place(address, data.len())?;
            let (here, rest) = data.split_at_mut(len);
            let read = self.memory.read_slice(here, at);
            read.map_err(|e| e.to_string())?;
            (address, data) = (address + len as u64, rest);
        }
        Ok(())
    }

    fn write(&mut self, mut address: u64, mut data: &[u8]) -> Result<(), String> {
        while !data.is_empty() {
            let (at, len) = self.place(address, data.len())?;
            let (here, rest) = data.split_at(len);
            let written = self.memory.write_slice(here, at);
            written.map_err(|e| e.to_string())?;
            (address, data) = (address + len as u64, rest);
        }
        Ok(())
    }
}

//! What a kernel needs on a KVM that interprets its kernel mode: changes of its code before it starts, and
//! somebody who does the instructions that KVM's emulator does not know.
//!
//! A kernel replaces parts of its code as it starts, by what suits the processor (`alternatives`). That takes
//! too much of what is not emulated, so it is left out. The code that is there until then lies, in part, in
//! what the kernel frees or makes data once it has started, so it must not do this either.

use std::collections::BTreeMap;

use kvm_ioctls::VcpuFd;
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::fixup::{Memory, Processor};
use super::kallsyms::Symbols;
use crate::monitor::vcpu;

/// What the kernel is to do without: instructions that are not emulated (`xsave`, `stac`, `crc32`), KVM's
/// clock, data that is not executable, and what only takes time (noise for random numbers, benchmarks of
/// vector instructions, and files about modules that are built in).
pub const COMMAND_LINE: &str = "noxsave clearcpuid=smap,sse4_2 no-kvmclock rodata=off \
     initcall_blacklist=jent_mod_init,calibrate_xor_blocks,param_sysfs_builtin_init";

/// Where a kernel that is not moved has its image: linear address 0 of physical memory.
const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// Functions that return at once, by this code. The last one would start a program for each event of a device.
const SHORTENED: [(&str, &[u8]); 3] = [
    ("alternative_instructions", RETURN),
    ("free_initmem", RETURN),
    ("call_usermodehelper_exec", RETURN_ENOENT),
];
/// ret
const RETURN: &[u8] = &[0xc3];
/// mov eax, -ENOENT; ret
const RETURN_ENOENT: &[u8] = &[0xb8, 0xfe, 0xff, 0xff, 0xff, 0xc3];

/// What is put at the start of the handler of page faults, as it is not emulated: so each of them comes here.
/// The kernel has left room for just that instruction (`ASM_CLAC`).
const CLAC: [u8; 3] = [0x0f, 0x01, 0xca];
const NOPS: [u8; 3] = [0x90; 3];

/// The helper of one machine.
pub struct Help {
    memory: GuestMemoryMmap,
    handlers: Option<Handlers>,
    done: Mutex<BTreeMap<&'static str, u64>>,
}

/// Where the kernel has its handlers.
struct Handlers {
    page_fault: u64,
    syscall: u64,
}

impl Help {
    /// Help for a guest that is no kernel: instructions are done.
    pub fn for_any(memory: &GuestMemoryMmap) -> Help {
        Help {
            memory: memory.clone(),
            handlers: None,
            done: Mutex::default(),
        }
    }

    /// Changes the kernel in `memory`, which has not started.
    pub fn for_kernel(memory: &GuestMemoryMmap) -> Result<Help, String> {
        let mut image = vec![0; memory.last_addr().0 as usize];
        memory
            .read_slice(&mut image, GuestAddress(0))
            .map_err(|e| e.to_string())?;
        let symbols = Symbols::find(&image).ok_or("the kernel has no table of symbols")?;
        let find = |name| symbols.get(name).ok_or_else(|| format!("no {name}"));
        let put = |at: u64, bytes| {
            let at = at
                .checked_sub(IMAGE)
                .ok_or("a function outside of the image")?;
            let put = memory.write_slice(bytes, GuestAddress(at));
            put.map_err(|e| e.to_string())
        };
        for (name, code) in SHORTENED {
            put(find(name)?, code)?;
        }
        let page_fault = find("asm_exc_page_fault")?;
        let at = page_fault.saturating_sub(IMAGE) as usize;
        if image.get(at..at + NOPS.len()) != Some(&NOPS) {
            return Err("the handler of page faults begins in another way".into());
        }
        put(page_fault, &CLAC)?;
        Ok(Help {
            handlers: Some(Handlers {
                page_fault,
                syscall: find("entry_SYSCALL_64")?,
            }),
            ..Help::for_any(memory)
        })
    }

    /// What it did so far, and how often.
    pub fn done(&self) -> Vec<(&'static str, u64)> {
        self.done.lock().iter().map(|(n, c)| (*n, *c)).collect()
    }
}

impl Handlers {
    /// The processor has entered the handler of page faults. A system call leads here, too: KVM goes on in
    /// user mode at its handler, which user mode may not execute.
    fn page_fault(&self, p: &mut Processor, memory: &impl Memory) -> Result<&'static str, String> {
        /// Bits of the error: user mode fetched an instruction, from a page that is there.
        const FORBIDDEN: u64 = 0x15;
        const DF: u64 = 1 << 10;
        const AC: u64 = 1 << 18;
        let r = &mut p.general;
        let (error, from) = (memory.word(r.rsp)?, memory.word(r.rsp + 8)?);
        if (error, from) != (FORBIDDEN, self.syscall) {
            r.rip += CLAC.len() as u64;
            return Ok("page fault");
        }
        // RCX and R11 are as the instruction has left them.
        r.rsp = memory.word(r.rsp + 32)?;
        r.rip = self.syscall;
        r.rflags &= !(DF | AC);
        Ok("system call")
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
        let what = match &self.handlers {
            Some(handlers) if handlers.page_fault == processor.general.rip => {
                handlers.page_fault(&mut processor, &memory)?
            }
            _ => processor.step(&mut memory)?,
        };
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

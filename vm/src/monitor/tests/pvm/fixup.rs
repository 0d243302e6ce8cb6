//! Instructions of a kernel that KVM's emulator does not know, done on the processor's registers and memory
//! as the manuals have it.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Register};
use kvm_bindings::{kvm_regs, kvm_sregs};

/// Longest instruction of the architecture.
pub const LONGEST: usize = 15;

const ZF: u64 = 1 << 6;
const TF: u64 = 1 << 8;
const IF: u64 = 1 << 9;
const NT: u64 = 1 << 14;
const RF: u64 = 1 << 16;

/// A processor that stands at an instruction, in 64-bit code of the kernel.
pub struct Processor {
    /// Its general registers.
    pub general: kvm_regs,
    /// Its segments, and where its table of interrupts is.
    pub special: kvm_sregs,
}

/// The guest's memory, by linear addresses.
pub trait Memory {
    /// Fills `data` with what is at `address`.
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), String>;
    /// Puts `data` at `address`.
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), String>;

    /// Reads a word.
    fn word(&self, address: u64) -> Result<u64, String> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Processor {
    /// Does the instruction at which it stands, and says which that was.
    ///
    /// # Errors
    /// It is none of those that are known, or does not do what a kernel's does: why.
    pub fn step(&mut self, memory: &mut impl Memory) -> Result<&'static str, String> {
        let i = self.decode(memory)?;
        let name = match i.code() {
            // Nothing waits: emulated floating-point instructions raise no exceptions that are unmasked.
            Code::Wait => "fwait",
            Code::Int3 => {
                self.breakpoint(i.next_ip(), memory)?;
                return Ok("int3");
            }
            Code::Cmpxchg16b_m128 => {
                self.cmpxchg16b(&i, memory)?;
                "cmpxchg16b"
            }
            code => return Err(format!("{code:?} is not done here either")),
        };
        self.general.rip = i.next_ip();
        Ok(name)
    }

    fn decode(&self, memory: &impl Memory) -> Result<Instruction, String> {
        let mut bytes = [0; LONGEST];
        let mut len = 0;
        // The page behind an instruction need not be there.
        for (address, byte) in (self.general.rip..).zip(&mut bytes) {
            match memory.read(address, std::slice::from_mut(byte)) {
                Ok(()) => len += 1,
                Err(_) => break,
            }
        }
        let known = bytes.get(..len).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, known, self.general.rip, DecoderOptions::NONE);
        let i = decoder.decode();
        match i.is_invalid() {
            true => Err(format!("{known:02x?} is no instruction")),
            false => Ok(i),
        }
    }

    /// Compares 16 bytes with RDX:RAX, and if they are the same, puts RCX:RBX there.
    fn cmpxchg16b(&mut self, i: &Instruction, memory: &mut impl Memory) -> Result<(), String> {
        let address = i
            .virtual_address(0, 0, |register, _, _| self.value(register))
            .ok_or("an address by an unknown register")?;
        let (low, high) = (memory.word(address)?, memory.word(address + 8)?);
        let r = &mut self.general;
        if (low, high) == (r.rax, r.rdx) {
            memory.write(address, &r.rbx.to_le_bytes())?;
            memory.write(address + 8, &r.rcx.to_le_bytes())?;
            r.rflags |= ZF;
        } else {
            (r.rax, r.rdx) = (low, high);
            r.rflags &= !ZF;
        }
        Ok(())
    }

    /// Enters the handler of breakpoints, which returns to `next`.
    fn breakpoint(&mut self, next: u64, memory: &mut impl Memory) -> Result<(), String> {
        const VECTOR: u64 = 3;
        const GATE: u64 = 16;
        let table = &self.special.idt;
        if u64::from(table.limit) < GATE * (VECTOR + 1) - 1 {
            return Err("a triple fault: there is no table of interrupts".into());
        }
        let at = table.base + GATE * VECTOR;
        let (low, high) = (memory.word(at)?, memory.word(at + 8)?);
        let is_interrupt_gate = match low >> 40 & 0x9f {
            0x8e => true,
            0x8f => false,
            kind => return Err(format!("a gate of kind {kind:#x}")),
        };
        if low >> 32 & 7 != 0 {
            return Err("a handler with a stack of its own".into());
        }
        let r = &mut self.general;
        let frame = [
            next,
            self.special.cs.selector.into(),
            r.rflags,
            r.rsp,
            self.special.ss.selector.into(),
        ];
        let bytes = frame.map(u64::to_le_bytes).concat();
        let rsp = (r.rsp & !0xf) - bytes.len() as u64;
        memory.write(rsp, &bytes)?;
        r.rsp = rsp;
        r.rflags &= !(TF | NT | RF);
        if is_interrupt_gate {
            r.rflags &= !IF;
        }
        r.rip = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
        Ok(())
    }

    /// What a register holds; of a segment, where it begins.
    fn value(&self, register: Register) -> Option<u64> {
        let r = &self.general;
        let value = match register.full_register() {
            Register::RAX => r.rax,
            Register::RBX => r.rbx,
            Register::RCX => r.rcx,
            Register::RDX => r.rdx,
            Register::RSI => r.rsi,
            Register::RDI => r.rdi,
            Register::RBP => r.rbp,
            Register::RSP => r.rsp,
            Register::R8 => r.r8,
            Register::R9 => r.r9,
            Register::R10 => r.r10,
            Register::R11 => r.r11,
            Register::R12 => r.r12,
            Register::R13 => r.r13,
            Register::R14 => r.r14,
            Register::R15 => r.r15,
            Register::CS | Register::DS | Register::ES | Register::SS => 0,
            Register::FS => self.special.fs.base,
            Register::GS => self.special.gs.base,
            _ => return None,
        };
        match register.size() {
            4 => Some(value & u64::from(u32::MAX)),
            _ => Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the memory of these tests is. Nothing is around it.
    const BASE: u64 = 0xffff_8000_0000_0000;

    impl Memory for Vec<u8> {
        fn read(&self, address: u64, data: &mut [u8]) -> Result<(), String> {
            let at = address.checked_sub(BASE).ok_or("below")? as usize;
            data.copy_from_slice(self.get(at..at + data.len()).ok_or("beyond")?);
            Ok(())
        }

        fn write(&mut self, address: u64, data: &[u8]) -> Result<(), String> {
            let at = address.checked_sub(BASE).ok_or("below")? as usize;
            self.get_mut(at..at + data.len())
                .ok_or("beyond")?
                .copy_from_slice(data);
            Ok(())
        }
    }

    /// A processor at the end of a page that holds `code`.
    fn at(code: &[u8]) -> (Processor, Vec<u8>) {
        let mut memory = vec![0; 0x1000 - code.len()];
        let general = kvm_regs {
            rip: BASE + memory.len() as u64,
            rflags: 2 | IF,
            ..kvm_regs::default()
        };
        memory.extend_from_slice(code);
        let special = kvm_sregs::default();
        (Processor { general, special }, memory)
    }

    #[test]
    fn sixteen_bytes_are_compared_and_exchanged() {
        // lock cmpxchg16b gs:[rax+r8*2+0x10], whose address is 0x200 into the page.
        let code = [0x65, 0xf0, 0x4a, 0x0f, 0xc7, 0x4c, 0x40, 0x10];
        let (mut p, mut memory) = at(&code);
        p.special.gs.base = BASE;
        p.general.r8 = 0x60;
        p.general.rax = 0x130;
        p.general.rdx = 7;
        p.general.rbx = 11;
        p.general.rcx = 12;
        let start = p.general.rip;
        memory
            .write(BASE + 0x200, &[0x31, 1, 0, 0, 0, 0, 0, 0, 7])
            .unwrap();
        assert_eq!(p.step(&mut memory), Ok("cmpxchg16b"));
        assert_eq!(p.general.rip, start + code.len() as u64);
        assert_eq!((p.general.rax, p.general.rdx), (0x131, 7));
        assert_eq!(p.general.rflags & ZF, 0);
        assert_eq!(memory.word(BASE + 0x200), Ok(0x131));
        // Now they are the same, and RAX one more.
        p.general.rip = start;
        p.special.gs.base = BASE - 1;
        assert_eq!(p.step(&mut memory), Ok("cmpxchg16b"));
        assert_eq!(p.general.rflags & ZF, ZF);
        assert_eq!(memory.word(BASE + 0x200), Ok(11));
        assert_eq!(memory.word(BASE + 0x208), Ok(12));
    }

    #[test]
    fn a_breakpoint_enters_its_handler() {
        for (kind, flags) in [(0x8e, 2), (0x8f, 2 | IF)] {
            let (mut p, mut memory) = at(&[0xcc]);
            let start = p.general.rip;
            p.general.rsp = BASE + 0x808;
            p.general.rflags |= TF | NT;
            p.special.cs.selector = 0x10;
            p.special.ss.selector = 0x18;
            p.special.idt.base = BASE + 0x100;
            p.special.idt.limit = 0xfff;
            // The handler is at 0xffff_8123_4567_89ab.
            let gate = [
                0xab, 0x89, 0x10, 0, 0, kind, 0x67, 0x45, 0x23, 0x81, 0xff, 0xff, 0, 0, 0, 0,
            ];
            memory.write(BASE + 0x130, &gate).unwrap();
            assert_eq!(p.step(&mut memory), Ok("int3"));
            assert_eq!(p.general.rip, 0xffff_8123_4567_89ab);
            assert_eq!(p.general.rflags, flags);
            assert_eq!(p.general.rsp, BASE + 0x800 - 40);
            let frame = [0, 8, 16, 24, 32].map(|n| memory.word(p.general.rsp + n).unwrap());
            let before = 2 | IF | TF | NT;
            assert_eq!(frame, [start + 1, 0x10, before, BASE + 0x808, 0x18]);
        }
    }

    #[test]
    fn what_is_not_known_is_said() {
        let fails = |code: &[u8], words: &str| {
            let (mut p, mut memory) = at(code);
            let before = p.general;
            let why = p.step(&mut memory).unwrap_err();
            assert!(why.contains(words), "{why}, not {words:?}");
            assert_eq!(p.general, before);
        };
        // popcnt eax, eax
        fails(&[0xf3, 0x0f, 0xb8, 0xc0], "Popcnt");
        fails(&[0xf3, 0x0f], "no instruction");
        fails(&[], "no instruction");
        fails(&[0xcc], "triple fault");
        // cmpxchg16b [rax], where nothing is
        fails(&[0x48, 0x0f, 0xc7, 0x08], "below");
        let (mut p, mut memory) = at(&[0x9b]);
        assert_eq!(p.step(&mut memory), Ok("fwait"));
        assert_eq!(p.general.rip, BASE + 0x1000);
    }
}

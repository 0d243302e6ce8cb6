//! The stub: the tiny static PIE that the kernel executes in place of the guest's program.
//!
//! At its entry it makes one private system call,
//! `syscall(STUB_NR, initial rsp, buffer, BUFFER_SIZE, 0, 0, STUB_MAGIC)`. The supervisor writes
//! [records](crate::Record) to the buffer and answers with their number (0 or less: exit status
//! 127), and the stub carries them out. A record is seven 64-bit numbers, an operation and its
//! arguments:
//!
//! - below 0x1000: that system call. If it fails the stub dies of `SIGSEGV`, as of a failure of
//!   `execve` past the point of no return, unless [`IGNORE_RESULT`] is set.
//! - [`OP_ZERO`] `(addr, len)`: clear memory.
//! - [`OP_JUMP`] `(entry, rsp)`: unmap the buffer, set the stack pointer, clear the other registers
//!   and the flags as the kernel does for a new program, and jump. The 16 bytes below the new stack
//!   pointer are overwritten.
//!
//! What stays behind is one page, readable and executable, that holds the stub's code and nothing of
//! the supervisor's.

use std::sync::LazyLock;

use goblin::elf64::header as h;
use goblin::elf64::program_header as ph;

use crate::PAGE_SIZE;
use crate::elf::PHDR_SIZE;

/// Number of the stub's private system call ("Duet"). It has the bit of x32 numbers
/// (0x4000_0000) set: a filter has to let it pass before it turns those away.
pub const STUB_NR: u32 = 0x4475_6574;

/// Sixth argument of the stub's private system call.
pub const STUB_MAGIC: u64 = 0x4475_6574_5374_7562;

/// Size of the buffer for records in bytes. Two images of as many segments as Linux reads, each
/// mapped, cleared and extended, fit in.
pub const BUFFER_SIZE: u64 = 448 * 1024;

/// Clear memory: `(addr, len)`.
pub const OP_ZERO: u64 = 0x1000;

/// Leave the stub: `(entry, rsp)`. The last record.
pub const OP_JUMP: u64 = 0x1001;

/// Set in an operation: go on whatever the system call returns.
pub const IGNORE_RESULT: u64 = 1 << 32;

/// Where the code is in the stub, behind its headers.
const CODE: usize = 0x100;

/// Address of the buffer in the stub.
const BUFFER: u64 = PAGE_SIZE;

const SEGMENTS: usize = 3;

const _: () = assert!(h::SIZEOF_EHDR + SEGMENTS * PHDR_SIZE <= CODE);
const _: () =
    assert!(BUFFER_SIZE as usize >= (2 * (65536 / PHDR_SIZE) * 3 + 8) * size_of::<crate::Record>());

std::arch::global_asm!(
    include_str!("stub.S"),
    NR = const STUB_NR,
    MAGIC = const STUB_MAGIC,
    BUFFER = const BUFFER,
    BUFFER_SIZE = const BUFFER_SIZE,
    CODE = const CODE,
    ZERO = const OP_ZERO,
    JUMP = const OP_JUMP,
    SYS_MUNMAP = const libc::SYS_munmap,
    SYS_EXIT_GROUP = const libc::SYS_exit_group,
);

unsafe extern "C" {
    #[link_name = "duet_stub_start"]
    static START: u8;
    #[link_name = "duet_stub_end"]
    static END: u8;
}

/// The stub's machine code.
fn code() -> &'static [u8] {
    // SAFETY: both symbols are labels in one section of `stub.S`, START before END. What lies
    // between them is read-only data of this program, initialised and never changed.
    unsafe {
        let start = &raw const START;
        let len = (&raw const END).offset_from(start) as usize;
        std::slice::from_raw_parts(start, len)
    }
}

/// The stub as an ELF file: what the memfd that the kernel executes has to hold.
pub fn stub_elf() -> &'static [u8] {
    static ELF: LazyLock<Vec<u8>> = LazyLock::new(build);
    &ELF
}

fn build() -> Vec<u8> {
    let code = code();
    let file_size = (CODE + code.len()) as u64;
    let mut ident = [0; 16];
    ident[..4].copy_from_slice(h::ELFMAG);
    ident[h::EI_CLASS] = h::ELFCLASS64;
    ident[h::EI_DATA] = h::ELFDATA2LSB;
    ident[h::EI_VERSION] = h::EV_CURRENT;

    let mut elf = Vec::with_capacity(file_size as usize);
    elf.extend(ident);
    elf.extend(h::ET_DYN.to_le_bytes());
    elf.extend(h::EM_X86_64.to_le_bytes());
    elf.extend(u32::from(h::EV_CURRENT).to_le_bytes());
    elf.extend((CODE as u64).to_le_bytes()); // e_entry
    elf.extend((h::SIZEOF_EHDR as u64).to_le_bytes()); // e_phoff
    elf.extend(0u64.to_le_bytes()); // e_shoff
    elf.extend(0u32.to_le_bytes()); // e_flags
    for half in [h::SIZEOF_EHDR, PHDR_SIZE, SEGMENTS, 0, 0, 0] {
        elf.extend((half as u16).to_le_bytes());
    }

    let mut segment = |kind: u32, flags: u32, vaddr: u64, filesz: u64, memsz: u64, align: u64| {
        elf.extend(kind.to_le_bytes());
        elf.extend(flags.to_le_bytes());
        // All of them start at offset 0 of the file, with bytes or without.
        for field in [0, vaddr, vaddr, filesz, memsz, align] {
            elf.extend(field.to_le_bytes());
        }
    };
    let (r, w, x) = (ph::PF_R, ph::PF_W, ph::PF_X);
    segment(ph::PT_LOAD, r | x, 0, file_size, file_size, PAGE_SIZE);
    segment(ph::PT_LOAD, r | w, BUFFER, 0, BUFFER_SIZE, PAGE_SIZE);
    segment(ph::PT_GNU_STACK, r | w, 0, 0, 0, 16);

    elf.resize(CODE, 0);
    elf.extend(code);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, Kind};

    #[test]
    fn the_stub_is_a_static_pie_of_one_page() {
        let elf = stub_elf();
        assert!(elf.len() < PAGE_SIZE as usize);
        let image = Image::parse(elf, elf.len() as u64).unwrap();
        assert_eq!((image.kind, image.entry), (Kind::Dyn, CODE as u64));
        assert_eq!(image.interpreter, None);
        assert_eq!(image.truncated_segment(), None);
        assert_eq!(image.segments[0].prot, libc::PROT_READ | libc::PROT_EXEC);
        assert_eq!(image.segments[1].memsz, BUFFER_SIZE);
        assert!(!image.exec_stack);
    }
}

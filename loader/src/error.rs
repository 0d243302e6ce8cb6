//! Why a file cannot be executed.

use std::io;

use goblin::elf64::header as h;
use nix::errno::Errno;

/// Why a file cannot be executed. The text completes a sentence that begins with the file's name.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing to read.
    #[error("is empty")]
    Empty,
    /// No ELF magic.
    #[error("is not an ELF program")]
    NotElf,
    /// Ends inside the ELF header.
    #[error("is truncated: it ends inside its ELF header")]
    TruncatedHeader,
    /// Made for another processor.
    #[error("{}", machine_text(*.machine, *.class))]
    Machine {
        /// `e_machine`, in the byte order that the file claims.
        machine: u16,
        /// `e_ident[EI_CLASS]`.
        class: u8,
    },
    /// An ELF file of a type that is not executed.
    #[error("is {}, not a program", type_text(*.0))]
    Type(u16),
    /// `e_phentsize` is not that of an ELF64 file.
    #[error("has program headers of {0} bytes where ELF64 has 56")]
    HeaderSize(u16),
    /// No program header, or more than 64 KiB of them.
    #[error("has {0} program headers, where 1 to 1170 are possible")]
    HeaderCount(u16),
    /// Ends before or inside its program headers.
    #[error("is truncated: its program headers lie beyond the end of the file")]
    TruncatedTable,
    /// `PT_INTERP` of a length that cannot be a path.
    #[error("names its interpreter in {0} bytes, where 2 to 4096 are possible")]
    InterpreterLength(u64),
    /// Ends before or inside the name of its interpreter.
    #[error("is truncated: the name of its interpreter lies beyond the end of the file")]
    TruncatedInterpreter,
    /// `PT_INTERP` at an offset that no file has.
    #[error("has the name of its interpreter at an impossible offset")]
    InterpreterOffset,
    /// `PT_INTERP` without its NUL.
    #[error("does not end the name of its interpreter with a NUL byte")]
    InterpreterUnterminated,
    /// An interpreter without `PT_LOAD`.
    #[error("has nothing to load")]
    NothingToLoad,
    /// A `PT_LOAD` that cannot be mapped.
    #[error("{}", segment_text(*.segment, *.fault))]
    Segment {
        /// Its index in the table of program headers.
        segment: usize,
        /// What is wrong with it.
        fault: SegmentFault,
    },
    /// The entry point is not an address of a program.
    #[error("starts at {0:#x}, which is no address of a program")]
    Entry(u64),
    /// The image fits nowhere.
    #[error("needs {0} bytes of address space in one piece")]
    NoRoom(u64),
    /// A fault of the program's interpreter.
    #[error("has an interpreter that {0}")]
    Interpreter(Box<LoadError>),
    /// A `#!` line without an interpreter, or with one that is cut off after 255 bytes.
    #[error("begins with #! but names no interpreter that ends within its first 255 bytes")]
    Script,
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// What is wrong with a `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFault {
    /// It reaches out of the address space.
    Address,
    /// It has more bytes in the file than in memory.
    FileSize,
    /// Offset and address differ within the page.
    Misaligned,
    /// It lies at an offset that no file has.
    Offset,
    /// The page that has to be cleared behind its data lies beyond the end of the file.
    Truncated,
}

impl LoadError {
    /// What `execve` returns, as Linux gives it; see execve(2). Where [`LoadError::kills`] holds,
    /// it is the error that the kernel has in hand when it ends the process.
    pub fn errno(&self) -> Errno {
        match self {
            LoadError::InterpreterOffset | LoadError::NothingToLoad | LoadError::Entry(_) => {
                Errno::EINVAL
            }
            LoadError::TruncatedInterpreter => Errno::EIO,
            LoadError::NoRoom(_) => Errno::ENOMEM,
            LoadError::Segment { fault, .. } => match fault {
                SegmentFault::Address | SegmentFault::FileSize | SegmentFault::Misaligned => {
                    Errno::EINVAL
                }
                SegmentFault::Offset => Errno::EOVERFLOW,
                SegmentFault::Truncated => Errno::EFAULT,
            },
            LoadError::Interpreter(inner) => match &**inner {
                LoadError::TruncatedHeader | LoadError::Empty => Errno::EIO,
                LoadError::Type(_) => Errno::EPERM,
                LoadError::Segment {
                    fault: SegmentFault::Address | SegmentFault::FileSize,
                    ..
                } => Errno::ENOMEM,
                LoadError::Io(e) => io_errno(e),
                inner if inner.kills() => inner.errno(),
                _ => Errno::ELIBBAD,
            },
            LoadError::Io(e) => io_errno(e),
            _ => Errno::ENOEXEC,
        }
    }

    /// Whether Linux finds this only after the old program is gone. It then has nobody left to
    /// return an error to and ends the process with `SIGSEGV`.
    pub fn kills(&self) -> bool {
        match self {
            LoadError::NothingToLoad
            | LoadError::Segment { .. }
            | LoadError::Entry(_)
            | LoadError::NoRoom(_) => true,
            LoadError::Interpreter(inner) => matches!(**inner, LoadError::Type(_)) || inner.kills(),
            _ => false,
        }
    }
}

fn io_errno(e: &io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn machine_text(machine: u16, class: u8) -> String {
    let name = match machine {
        h::EM_X86_64 if class == h::ELFCLASS32 => {
            return "is an x32 program, which Duet does not run".to_owned();
        }
        h::EM_386 => {
            return "is a 32-bit i386 program, which Duet does not run yet".to_owned();
        }
        h::EM_AARCH64 => "aarch64",
        h::EM_ARM => "32-bit ARM",
        h::EM_PPC => "32-bit PowerPC",
        h::EM_PPC64 => "ppc64",
        h::EM_S390 => "s390x",
        h::EM_MIPS => "MIPS",
        h::EM_SPARC | h::EM_SPARCV9 => "SPARC",
        h::EM_IA_64 => "Itanium",
        h::EM_RISCV if class == h::ELFCLASS32 => "32-bit RISC-V",
        h::EM_RISCV => "riscv64",
        258 => "LoongArch",
        h::EM_BPF => "the kernel's BPF machine",
        h::EM_NONE => "no machine at all",
        _ => return format!("is built for ELF machine {machine}; this is x86-64"),
    };
    format!("is built for {name}; this is x86-64")
}

fn type_text(e_type: u16) -> String {
    match e_type {
        h::ET_NONE => "an ELF file of no type".to_owned(),
        h::ET_REL => "an object file that has yet to be linked".to_owned(),
        h::ET_CORE => "a core dump".to_owned(),
        _ => format!("an ELF file of type {e_type:#x}"),
    }
}

fn segment_text(segment: usize, fault: SegmentFault) -> String {
    match fault {
        SegmentFault::Address => format!("asks for memory that no program has (segment {segment})"),
        SegmentFault::FileSize => {
            format!("is malformed: segment {segment} is larger in the file than in memory")
        }
        SegmentFault::Misaligned => format!(
            "is malformed: segment {segment} has an offset and an address that differ within the page"
        ),
        SegmentFault::Offset => {
            format!("is malformed: segment {segment} lies at an impossible offset")
        }
        SegmentFault::Truncated => {
            format!("is truncated: segment {segment} ends beyond the end of the file")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, stub::stub_elf};

    /// What is said of the stub when two bytes of it are changed.
    fn text(at: usize, value: u16, class: u8) -> String {
        let mut elf = stub_elf().to_vec();
        elf[4] = class;
        elf[at..at + 2].copy_from_slice(&value.to_le_bytes());
        Image::parse(&elf[..], elf.len() as u64)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn errors_are_sentences() {
        let e_machine = 18;
        for (got, expected) in [
            (text(0, 0x2123, 2), "is not an ELF program"),
            (
                text(e_machine, 183, 2),
                "is built for aarch64; this is x86-64",
            ),
            (
                text(e_machine, 3, 1),
                "is a 32-bit i386 program, which Duet does not run yet",
            ),
            (
                text(54, 32, 1),
                "is an x32 program, which Duet does not run",
            ),
            (
                text(e_machine, 999, 2),
                "is built for ELF machine 999; this is x86-64",
            ),
            (
                text(16, 1, 2),
                "is an object file that has yet to be linked, not a program",
            ),
            (
                text(56, 1000, 2),
                "is truncated: its program headers lie beyond the end of the file",
            ),
        ] {
            assert_eq!(got, expected);
        }
        let error = LoadError::Interpreter(Box::new(LoadError::Segment {
            segment: 2,
            fault: SegmentFault::Truncated,
        }));
        assert_eq!(
            error.to_string(),
            "has an interpreter that is truncated: segment 2 ends beyond the end of the file"
        );
        assert!(error.kills() && error.errno() == Errno::EFAULT);
    }
}

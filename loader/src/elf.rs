//! Reading the headers of an ELF file as `fs/binfmt_elf.c` reads them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use goblin::elf64::header::{self, Header};
use goblin::elf64::program_header::{self as ph, ProgramHeader};

use crate::{LoadError, PAGE_SIZE};

/// A file that can be read at any place, as pread(2) does.
pub trait ReadAt {
    /// Reads up to `buf.len()` bytes at `off`; fewer, or none, at the end of the file.
    fn read_at(&self, buf: &mut [u8], off: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], off: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, off)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], off: u64) -> io::Result<usize> {
        let rest = usize::try_from(off)
            .ok()
            .and_then(|off| self.get(off..))
            .unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buf: &mut [u8], off: u64) -> io::Result<usize> {
        (**self).read_at(buf, off)
    }
}

/// Whether an image has fixed addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ET_EXEC`: loaded where it was linked.
    Exec,
    /// `ET_DYN`: loaded anywhere.
    Dyn,
}

/// A `PT_LOAD` program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index in the table of program headers.
    pub index: usize,
    /// Address it was linked for.
    pub vaddr: u64,
    /// Bytes in memory.
    pub memsz: u64,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub filesz: u64,
    /// `PROT_*`.
    pub prot: i32,
}

/// The headers of an ELF program or interpreter: what `execve` needs to know of it.
#[derive(Clone, Debug)]
pub struct Image {
    /// Fixed or movable.
    pub kind: Kind,
    /// Entry point as linked.
    pub entry: u64,
    /// Number of program headers (`AT_PHNUM`).
    pub phnum: u16,
    /// Address of the program headers as linked, if a segment holds them.
    pub phdr: Option<u64>,
    /// What to load, in the order of the table.
    pub segments: Vec<Segment>,
    /// Alignment that a movable image asks for: a power of two, at least a page.
    pub align: u64,
    /// Path of the interpreter (`PT_INTERP`), without its NUL; may be empty, which is `ENOENT`.
    pub interpreter: Option<Vec<u8>>,
    /// Whether `PT_GNU_STACK` asks for an executable stack.
    pub exec_stack: bool,
    /// Length of the file in bytes.
    pub file_len: u64,
}

/// Length of an ELF64 header.
const EHDR_SIZE: usize = header::SIZEOF_EHDR;

/// Length of an ELF64 program header (`AT_PHENT`).
pub(crate) const PHDR_SIZE: usize = ph::SIZEOF_PHDR;

/// The most bytes of program headers that Linux reads.
const MAX_TABLE: usize = 65536;

/// `PATH_MAX`, the NUL included.
const MAX_INTERPRETER: u64 = 4096;

/// goblin reinterprets the bytes of a header and so wants them aligned.
#[repr(align(8))]
struct HeaderBytes([u8; EHDR_SIZE]);

impl Image {
    /// Reads the headers of a program. Makes the checks that Linux makes before it gives up the old
    /// program; [`crate::Plan::new`] makes the others.
    ///
    /// Errors: `ENOEXEC`; `EIO` or `EINVAL` for a misplaced `PT_INTERP`; what `file` returns.
    pub fn parse(file: &(impl ReadAt + ?Sized), file_len: u64) -> Result<Image, LoadError> {
        let (header, table) = read_headers(file)?;
        let kind = match header.e_type {
            header::ET_EXEC => Kind::Exec,
            header::ET_DYN => Kind::Dyn,
            other => return Err(LoadError::Type(other)),
        };
        let mut image = Image::new(kind, &header, &table, file_len);
        if let Some(interp) = table.iter().find(|p| p.p_type == ph::PT_INTERP) {
            image.interpreter = Some(read_interpreter(file, interp)?);
        }
        Ok(image)
    }

    /// Reads the headers of a program's interpreter. An interpreter of its own that it may name does
    /// not count.
    ///
    /// Errors: [`LoadError::Interpreter`], that is mostly `ELIBBAD`.
    pub fn parse_interpreter(
        file: &(impl ReadAt + ?Sized),
        file_len: u64,
    ) -> Result<Image, LoadError> {
        let wrap = |e| LoadError::Interpreter(Box::new(e));
        let (header, table) = read_headers(file).map_err(|e| match e {
            // Linux wants all of an interpreter's header before it looks at what it says.
            LoadError::NotElf if file_len < EHDR_SIZE as u64 => wrap(LoadError::TruncatedHeader),
            e => wrap(e),
        })?;
        let kind = match header.e_type {
            header::ET_EXEC => Kind::Exec,
            header::ET_DYN => Kind::Dyn,
            other => return Err(wrap(LoadError::Type(other))),
        };
        Ok(Image::new(kind, &header, &table, file_len))
    }

    fn new(kind: Kind, header: &Header, table: &[ProgramHeader], file_len: u64) -> Image {
        let mut image = Image {
            kind,
            entry: header.e_entry,
            phnum: header.e_phnum,
            phdr: None,
            segments: Vec::new(),
            align: PAGE_SIZE,
            interpreter: None,
            exec_stack: false,
            file_len,
        };
        for (index, p) in table.iter().enumerate() {
            match p.p_type {
                ph::PT_LOAD => {
                    image.segments.push(Segment {
                        index,
                        vaddr: p.p_vaddr,
                        memsz: p.p_memsz,
                        offset: p.p_offset,
                        filesz: p.p_filesz,
                        prot: prot(p.p_flags),
                    });
                    // What is no power of two is no alignment; the kernel passes over it.
                    if p.p_align.is_power_of_two() {
                        image.align = image.align.max(p.p_align);
                    }
                    let end = p.p_offset.wrapping_add(p.p_filesz);
                    if p.p_offset <= header.e_phoff && header.e_phoff < end {
                        image.phdr = Some((header.e_phoff - p.p_offset).wrapping_add(p.p_vaddr));
                    }
                }
                ph::PT_GNU_STACK => image.exec_stack = p.p_flags & ph::PF_X != 0,
                _ => {}
            }
        }
        image
    }

    /// The first segment whose bytes the file does not hold in full: the file has been cut off.
    /// Linux runs such a program, and ends it with `SIGBUS` when it touches what is missing.
    pub fn truncated_segment(&self) -> Option<usize> {
        self.segments
            .iter()
            .find(|s| s.offset.saturating_add(s.filesz) > self.file_len)
            .map(|s| s.index)
    }
}

/// The ELF header and the table of program headers.
fn read_headers(file: &(impl ReadAt + ?Sized)) -> Result<(Header, Vec<ProgramHeader>), LoadError> {
    let mut bytes = HeaderBytes([0; EHDR_SIZE]);
    let n = read_full(file, &mut bytes.0, 0)?;
    if n == 0 {
        return Err(LoadError::Empty);
    }
    if !bytes.0.starts_with(header::ELFMAG) {
        return Err(LoadError::NotElf);
    }
    if n < EHDR_SIZE {
        return Err(LoadError::TruncatedHeader);
    }
    let header = *Header::from_bytes(&bytes.0);
    // Linux looks at the machine alone, never at the class and byte order that the file claims;
    // they serve to say what an unsuitable file is.
    let class = header.e_ident[header::EI_CLASS];
    if header.e_machine != header::EM_X86_64 {
        let machine = match header.e_ident[header::EI_DATA] {
            header::ELFDATA2MSB => header.e_machine.swap_bytes(),
            _ => header.e_machine,
        };
        return Err(LoadError::Machine { machine, class });
    }
    if usize::from(header.e_phentsize) != PHDR_SIZE {
        return Err(match class {
            header::ELFCLASS32 => LoadError::Machine {
                machine: header.e_machine,
                class,
            },
            _ => LoadError::HeaderSize(header.e_phentsize),
        });
    }
    let size = PHDR_SIZE * usize::from(header.e_phnum);
    if size == 0 || size > MAX_TABLE {
        return Err(LoadError::HeaderCount(header.e_phnum));
    }
    let mut table = vec![0; size];
    if read_full(file, &mut table, header.e_phoff).ok() != Some(size) {
        return Err(LoadError::TruncatedTable);
    }
    let table = ProgramHeader::from_bytes(&table, usize::from(header.e_phnum));
    Ok((header, table))
}

/// The path in a `PT_INTERP` segment.
fn read_interpreter(
    file: &(impl ReadAt + ?Sized),
    p: &ProgramHeader,
) -> Result<Vec<u8>, LoadError> {
    if p.p_filesz < 2 || p.p_filesz > MAX_INTERPRETER {
        return Err(LoadError::InterpreterLength(p.p_filesz));
    }
    if p.p_offset > i64::MAX as u64 {
        return Err(LoadError::InterpreterOffset);
    }
    let mut path = vec![0; p.p_filesz as usize];
    if read_full(file, &mut path, p.p_offset)? != path.len() {
        return Err(LoadError::TruncatedInterpreter);
    }
    if path.last() != Some(&0) {
        return Err(LoadError::InterpreterUnterminated);
    }
    let end = path.iter().position(|&b| b == 0).unwrap_or(path.len());
    path.truncate(end);
    Ok(path)
}

/// Fills `buf` from `off` on; less only at the end of the file.
fn read_full(file: &(impl ReadAt + ?Sized), buf: &mut [u8], off: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, off.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// `PF_*` to `PROT_*` (`make_prot` of the kernel).
fn prot(flags: u32) -> i32 {
    let pick = |bit, prot| if flags & bit != 0 { prot } else { 0 };
    pick(ph::PF_R, libc::PROT_READ)
        | pick(ph::PF_W, libc::PROT_WRITE)
        | pick(ph::PF_X, libc::PROT_EXEC)
}

//! Kernels in libkrunfw's shared library: a kernel's memory image is the library's data, and
//! `char *krunfw_get_kernel(size_t *load_addr, size_t *entry_addr, size_t *size)` says where that is, how
//! long it is, and where it belongs.
//!
//! Nothing of the library is executed: what the function returns is read off its instructions (`getter`).
//! Its callers' other way, dlopen(3), would run its constructors and whatever it is linked with in this
//! process, or in a child that had to be confined for it; and the file is known by nothing but a name and
//! an exported function.
//!
//! What comes of it is an ELF image ([`Image`]), which all monitors start by the PVH note that the kernel
//! itself carries. Such a kernel takes no initramfs, and another note keeps that with the image.

mod getter;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use goblin::elf::header::ET_DYN;
use goblin::elf::program_header::PT_LOAD;
use goblin::elf::{Elf, Sym};

use getter::Results;

/// The function that says where the kernel is.
const GETTER: &str = "krunfw_get_kernel";

/// Where a library may be installed, in the order in which they are looked through.
const DIRECTORIES: [&str; 7] = [
    "usr/local/lib64",
    "usr/local/lib/x86_64-linux-gnu",
    "usr/local/lib",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib64",
    "lib64",
    "usr/lib",
];

/// The libraries that are installed in a tree, by their names and paths; each once, whatever links lead to it.
pub fn installed_below(root: &Path) -> Vec<(String, PathBuf)> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for dir in DIRECTORIES.map(|d| root.join(d)) {
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|n| n.starts_with("libkrunfw.so")).collect();
        // The shortest is the one by which others know it.
        names.sort_by_key(|n| (n.len(), n.clone()));
        for name in names {
            let path = dir.join(&name);
            if let Ok(real) = path.canonicalize()
                && seen.insert(real)
                && is_shared_object(&path)
            {
                all.push((name, path));
            }
        }
    }
    all
}

/// Whether a file begins as a library does. What else it is shows when it is read.
fn is_shared_object(path: &Path) -> bool {
    let mut head = [0; 18];
    let read = fs::File::open(path).and_then(|mut f| f.read_exact(&mut head));
    read.is_ok() && may_be_one(&head)
}

/// Whether bytes are the beginning of a shared object, and so may be the library.
pub fn may_be_one(head: &[u8]) -> bool {
    let kind = head.get(16..18).and_then(|b| b.try_into().ok());
    head.starts_with(b"\x7fELF") && kind.map(u16::from_le_bytes) == Some(ET_DYN)
}

/// Whether it is a library with a kernel in it.
pub fn is_one(bytes: &[u8]) -> bool {
    may_be_one(bytes) && Elf::parse(bytes).is_ok_and(|elf| symbol(&elf).is_some())
}

fn symbol(elf: &Elf<'_>) -> Option<Sym> {
    let defined = |s: &Sym| s.is_function() && s.st_value != 0;
    let named = |s: &Sym| elf.dynstrtab.get_at(s.st_name) == Some(GETTER);
    elf.dynsyms.iter().find(|s| defined(s) && named(s))
}

/// An ELF image of one segment: what stands before the kernel's memory, and that.
pub struct Image<'a> {
    /// Headers and notes.
    pub head: Vec<u8>,
    /// The kernel's memory.
    pub memory: &'a [u8],
}

/// The image of the kernel in a library.
pub fn unpack(bytes: &[u8]) -> Result<Image<'_>, String> {
    let elf = Elf::parse(bytes).map_err(|e| format!("cannot be read as a library: {e}"))?;
    let getter = symbol(&elf).ok_or_else(|| format!("is a library without {GETTER}"))?;
    let library = Library { elf, bytes };
    let found = getter::run(&library, getter.st_value).map_err(|e| format!("{GETTER}: {e}"))?;
    let Results {
        returned,
        outputs: [load, entry, size],
    } = found;
    let image = library.at(returned, size).ok_or_else(|| {
        format!("is cut short: it has no {size} bytes at {returned:#x}, where its kernel should be")
    })?;
    let end = load.checked_add(size).filter(|&end| end <= 1 << 32);
    let inside = |address: u64| end.is_some_and(|end| (load..end).contains(&address));
    if !load.is_multiple_of(PAGE) || !inside(entry) {
        return Err(format!(
            "{GETTER} says that {size} bytes are loaded at {load:#x} and entered at {entry:#x}, which \
             cannot be"
        ));
    }
    let entry = pvh_entry(image).filter(|&entry| inside(entry));
    let entry = entry.ok_or("holds a kernel without a PVH note (CONFIG_PVH)")?;
    Ok(Image {
        // All of it is below 4 GiB.
        head: head(image.len() as u64, load, entry as u32),
        memory: image,
    })
}

/// A library's memory, at the addresses that the file gives.
struct Library<'a> {
    elf: Elf<'a>,
    bytes: &'a [u8],
}

impl<'a> Library<'a> {
    /// `len` bytes that the file has for an address; `None` if it does not have all of them.
    fn at(&self, address: u64, len: u64) -> Option<&'a [u8]> {
        self.from(address)?.get(..usize::try_from(len).ok()?)
    }

    /// All bytes that the file has from an address on.
    fn from(&self, address: u64) -> Option<&'a [u8]> {
        let mut segments = self.elf.program_headers.iter();
        let segment = segments.find(|s| {
            let offset = address.checked_sub(s.p_vaddr);
            s.p_type == PT_LOAD && offset.is_some_and(|o| o < s.p_filesz)
        })?;
        let start = usize::try_from(segment.p_offset).ok()?;
        let end = start.checked_add(usize::try_from(segment.p_filesz).ok()?)?;
        let skipped = usize::try_from(address - segment.p_vaddr).ok()?;
        // Of a file that is cut short, what is there.
        self.bytes
            .get(start..end.min(self.bytes.len()))?
            .get(skipped..)
    }

    /// What a word holds once the library has been loaded: what its relocation says, or else the file.
    fn word(&self, address: u64) -> Option<u64> {
        const GLOB_DAT: u32 = 6;
        const ABSOLUTE: u32 = 1;
        const RELATIVE: u32 = 8;
        let Some(r) = self.elf.dynrelas.iter().find(|r| r.r_offset == address) else {
            let word = self.at(address, 8)?;
            return Some(u64::from_le_bytes(word.try_into().ok()?));
        };
        let addend = r.r_addend.unwrap_or(0);
        let base = match r.r_type {
            RELATIVE => 0,
            GLOB_DAT | ABSOLUTE => {
                let symbol = self.elf.dynsyms.get(r.r_sym)?;
                Some(symbol.st_value).filter(|&v| v != 0)?
            }
            _ => return None,
        };
        Some(base.wrapping_add_signed(addend))
    }
}

const PAGE: u64 = 4096;

/// Kinds of notes: a PVH kernel's entry, and ours.
const PHYS32_ENTRY: u32 = 18;
const NO_INITRAMFS: u32 = 1;
/// The name of our notes.
const OURS: &[u8] = b"Duet";

/// Where a kernel's memory says that it is entered in protected mode (`XEN_ELFNOTE_PHYS32_ENTRY`): the note
/// lies in it like all constant data, but no header leads there.
fn pvh_entry(image: &[u8]) -> Option<u64> {
    let (words, _) = image.as_chunks::<4>();
    let word = |at: usize| words.get(at).copied().map(u32::from_le_bytes);
    let note = |(at, name): (usize, &[u8; 4])| {
        let start = at.checked_sub(3).filter(|_| name == b"Xen\0")?;
        if (word(start)?, word(start + 2)?) != (4, PHYS32_ENTRY) {
            return None;
        }
        match word(start + 1)? {
            4 => word(at + 1).map(u64::from),
            8 => Some(u64::from(word(at + 1)?) | u64::from(word(at + 2)?) << 32),
            _ => None,
        }
    };
    words.iter().enumerate().find_map(note)
}

/// A note of four letters with one word (elf(5)).
fn note(name: &[u8], kind: u32, value: u32) -> Vec<u8> {
    let mut name = name.to_vec();
    name.push(0);
    let mut note: Vec<u8> = [name.len() as u32, 4, kind]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    name.resize(name.len().next_multiple_of(4), 0);
    note.extend_from_slice(&name);
    note.extend_from_slice(&value.to_le_bytes());
    note
}

/// What stands before `len` bytes of memory: the headers of an ELF image, with the note of a PVH kernel and the
/// one that [`takes_no_initramfs`].
fn head(len: u64, load: u64, entry: u32) -> Vec<u8> {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    const ALL: u32 = 7;
    const READ: u32 = 4;
    let notes = [
        note(b"Xen", PHYS32_ENTRY, entry),
        note(OURS, NO_INITRAMFS, 0),
    ]
    .concat();
    let mut image = Vec::new();
    // 64 bits, little endian, version 1; an executable for x86-64.
    image.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    for value in [u64::from(entry), HEADER, 0] {
        image.extend_from_slice(&value.to_le_bytes());
    }
    image.extend_from_slice(&[0; 4]);
    for value in [HEADER as u16, SEGMENT as u16, 2, 0, 0, 0] {
        image.extend_from_slice(&value.to_le_bytes());
    }
    let notes_at = HEADER + 2 * SEGMENT;
    let notes_len = notes.len() as u64;
    for (kind, flags, values) in [
        (PT_LOAD, ALL, [PAGE, load, load, len, len, PAGE]),
        (
            goblin::elf::program_header::PT_NOTE,
            READ,
            [notes_at, 0, 0, notes_len, notes_len, 4],
        ),
    ] {
        image.extend_from_slice(&kind.to_le_bytes());
        image.extend_from_slice(&flags.to_le_bytes());
        for value in values {
            image.extend_from_slice(&value.to_le_bytes());
        }
    }
    image.extend_from_slice(&notes);
    image.resize(PAGE as usize, 0);
    image
}

/// Whether a kernel's image is one of [`unpack`]'s, which have to mount their root by themselves. Its first
/// 512 bytes say so.
pub fn takes_no_initramfs(head: &[u8]) -> bool {
    let ours = note(OURS, NO_INITRAMFS, 0);
    head.starts_with(b"\x7fELF") && head.windows(ours.len()).any(|w| w == ours)
}

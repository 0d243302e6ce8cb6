//! From a kernel image and an initramfs to a memory that a processor can enter.
//!
//! | addresses | what |
//! |---|---|
//! | `0x500` | segment descriptors (`cpu`) |
//! | `0x6000` | PVH start information, or `0x7000` the zero page |
//! | `0x9000`–`0xefff` | page tables of 64-bit entries (`cpu`) |
//! | `0x20000` | the command line |
//! | `0xe0000` | ACPI tables |
//! | `0xf0000` | the MP table |
//! | 1 MiB and up | the kernel, where its image says |
//! | the end of memory below the hole | the initramfs |

pub mod acpi;
pub mod mptable;

use std::fs::File;
use std::io::{Seek, SeekFrom};

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::{BzImage, Elf, KernelLoader, KernelLoaderResult};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryMmap};

use super::cpu::Entry;
use super::memory::{self, HOLE_START, PAGE};
use crate::error::{Error, Result};
use crate::kernel::image::{Protocol, protocol_of};

/// Start information, and behind it the list of modules and the map of memory.
const START_INFO: u64 = 0x6000;
const MODULES: u64 = 0x6040;
const MEMORY_MAP: u64 = 0x6080;
const ZERO_PAGE: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x20000;
/// Longest command line of x86 (`COMMAND_LINE_SIZE`), with its NUL.
const COMMAND_LINE_SIZE: usize = 2048;
/// Where memory that a kernel may use ends below the tables of firmware, and where it goes on.
const LOW_END: u64 = 0xa_0000;
const HIGH_START: u64 = 0x10_0000;

/// What a kernel is started from.
pub struct Source<'a> {
    /// The image: ELF with a PVH note, or bzImage.
    pub kernel: &'a File,
    /// What it is called in messages.
    pub kernel_name: &'a str,
    /// The initramfs, from the start of the file, if there is one.
    pub initramfs: Option<File>,
    /// The command line.
    pub command_line: &'a str,
    /// Where the root of the ACPI tables is.
    pub rsdp: u64,
    /// All of the memory in bytes.
    pub size: u64,
}

/// Puts everything in place. Returns where the first processor begins.
pub fn load(memory: &GuestMemoryMmap, mut source: Source<'_>) -> Result<Entry> {
    let shown = source.kernel_name;
    let bad = |why: &dyn std::fmt::Display| Error::Failed(format!("{shown}: {why}"));
    let protocol = protocol_of(source.kernel).map_err(|e| bad(&e))?;
    let mut image = source.kernel.try_clone().map_err(|e| bad(&e))?;
    image.rewind().map_err(|e| bad(&e))?;
    // Every address a kernel is loaded at must be above this.
    let floor = Some(GuestAddress(HIGH_START));
    let loaded = match protocol {
        Protocol::Pvh => Elf::load(memory, None, &mut image, floor),
        Protocol::Linux => BzImage::load(memory, None, &mut image, floor),
    };
    let loaded = loaded.map_err(|e| {
        bad(&format!(
            "cannot be loaded into {} MiB of memory: {e}",
            source.size >> 20
        ))
    })?;
    let line = source.command_line;
    if line.len() >= COMMAND_LINE_SIZE || line.contains('\0') {
        return Err(Error::Failed(format!(
            "the kernel's command line has {} bytes, where {} are the most; shorten --append",
            line.len(),
            COMMAND_LINE_SIZE - 1
        )));
    }
    put_bytes(memory, COMMAND_LINE, line.as_bytes())?;
    put_bytes(memory, COMMAND_LINE + line.len() as u64, &[0])?;
    match protocol {
        Protocol::Pvh => {
            let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
                return Err(bad(&"has no PVH note (CONFIG_PVH); give the bzImage"));
            };
            let code = u32::try_from(entry.0).map_err(|e| bad(&e))?;
            let initramfs = place(memory, &mut source, loaded.kernel_end, u64::from(u32::MAX))?;
            put_start_info(memory, &source, initramfs)?;
            Ok(Entry::Protected {
                code,
                argument: START_INFO as u32,
            })
        }
        Protocol::Linux => {
            let header = bz_header(&loaded).map_err(|e| bad(&e))?;
            let (preferred, needs) = (header.pref_address, u64::from(header.init_size));
            let end = loaded
                .kernel_load
                .0
                .max(preferred)
                .saturating_add(needs)
                .max(loaded.kernel_end);
            let initramfs = place(memory, &mut source, end, header.initrd_addr_max.into())?;
            put_zero_page(memory, &source, header, initramfs)?;
            Ok(Entry::Long {
                code: loaded.kernel_load.0 + 0x200,
                argument: ZERO_PAGE,
            })
        }
    }
}

/// The header of a bzImage that can be entered in 64-bit mode.
fn bz_header(loaded: &KernelLoaderResult) -> std::result::Result<setup_header, &'static str> {
    const KERNEL_64: u16 = 1;
    let header = loaded.setup_header.ok_or("has no header")?;
    let (version, flags) = (header.version, header.xloadflags);
    if version < 0x20c || flags & KERNEL_64 == 0 {
        return Err("is too old, or no 64-bit kernel (boot protocol 2.12 is needed)");
    }
    Ok(header)
}

/// Reads the initramfs to the end of low memory, behind `kernel_end` and not beyond `max`. Returns where it
/// is, and its length, if there is one.
fn place(
    memory: &GuestMemoryMmap,
    source: &mut Source<'_>,
    kernel_end: u64,
    max: u64,
) -> Result<Option<(u64, u64)>> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("reading the initramfs: {e}"));
    let Some(initramfs) = &mut source.initramfs else {
        return Ok(None);
    };
    let len = initramfs.seek(SeekFrom::End(0)).map_err(|e| failed(&e))?;
    initramfs.rewind().map_err(|e| failed(&e))?;
    let top = source.size.min(HOLE_START).min(max.saturating_add(1));
    let start = top.saturating_sub(len) & !(PAGE - 1);
    if start < kernel_end {
        return Err(Error::Failed(format!(
            "{} MiB of memory hold the kernel, which takes the first {} MiB, but not the initramfs of {} \
             MiB; give more with --memory",
            source.size >> 20,
            kernel_end.div_ceil(1 << 20),
            len.div_ceil(1 << 20)
        )));
    }
    let bytes = usize::try_from(len).map_err(|e| failed(&e))?;
    memory
        .read_exact_volatile_from(GuestAddress(start), initramfs, bytes)
        .map_err(|e| failed(&e))?;
    Ok(Some((start, len)))
}

/// Memory that the kernel may use: start and length.
fn usable(size: u64) -> Vec<(u64, u64)> {
    let mut all = vec![(0, LOW_END)];
    for (start, len) in memory::ranges(size) {
        let from = start.max(HIGH_START);
        all.push((from, len.saturating_sub(from - start)));
    }
    all
}

/// The PVH start information (Xen's public/arch-x86/hvm/start_info.h).
fn put_start_info(
    memory: &GuestMemoryMmap,
    source: &Source<'_>,
    initramfs: Option<(u64, u64)>,
) -> Result<()> {
    const MAGIC: u32 = 0x336e_c578;
    const RAM: u32 = 1;
    let map = usable(source.size);
    let info = hvm_start_info {
        magic: MAGIC,
        // With a map of memory.
        version: 1,
        nr_modules: initramfs.iter().len() as u32,
        modlist_paddr: MODULES,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: source.rsdp,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..hvm_start_info::default()
    };
    put(memory, START_INFO, info)?;
    if let Some((paddr, size)) = initramfs {
        let module = hvm_modlist_entry {
            paddr,
            size,
            ..hvm_modlist_entry::default()
        };
        put(memory, MODULES, module)?;
    }
    for (i, (addr, size)) in (0..).zip(map) {
        let entry = hvm_memmap_table_entry {
            addr,
            size,
            type_: RAM,
            reserved: 0,
        };
        put(memory, MEMORY_MAP + i * size_of_val(&entry) as u64, entry)?;
    }
    Ok(())
}

/// The zero page (Documentation/arch/x86/zero-page.rst).
fn put_zero_page(
    memory: &GuestMemoryMmap,
    source: &Source<'_>,
    header: setup_header,
    initramfs: Option<(u64, u64)>,
) -> Result<()> {
    const UNDEFINED_LOADER: u8 = 0xff;
    const RAM: u32 = 1;
    let mut params = boot_params {
        hdr: header,
        acpi_rsdp_addr: source.rsdp,
        ..boot_params::default()
    };
    params.hdr.type_of_loader = UNDEFINED_LOADER;
    params.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    let (initramfs, len) = initramfs.unwrap_or_default();
    params.hdr.ramdisk_image = initramfs as u32;
    params.hdr.ramdisk_size = len as u32;
    let map = usable(source.size);
    params.e820_entries = map.len() as u8;
    let entry = |(addr, size)| boot_e820_entry {
        addr,
        size,
        r#type: RAM,
    };
    let mut table = params.e820_table;
    for (to, from) in table.iter_mut().zip(map) {
        *to = entry(from);
    }
    params.e820_table = table;
    put(memory, ZERO_PAGE, params)
}

/// Writes a structure.
fn put<T: ByteValued>(memory: &GuestMemoryMmap, at: u64, value: T) -> Result<()> {
    put_bytes(memory, at, value.as_slice())
}

/// Writes bytes.
pub fn put_bytes(memory: &GuestMemoryMmap, at: u64, bytes: &[u8]) -> Result<()> {
    memory
        .write_slice(bytes, GuestAddress(at))
        .map_err(|e| Error::Failed(format!("writing the guest's tables: {e}")))
}

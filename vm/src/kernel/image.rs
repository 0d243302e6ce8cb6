//! Kernel images: what kind they are, and the ELF image inside a bzImage.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use goblin::elf::Elf;

use super::decompress::{Packing, unpack as decompress};
use super::library;
use crate::error::{Error, Result};

/// Kinds of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An ELF image (`vmlinux`), entered by its PVH note.
    Elf,
    /// The usual packed image (`vmlinuz`; Documentation/arch/x86/boot.rst).
    BzImage,
    /// libkrunfw's library, out of which an ELF image is taken when it is started.
    Library,
}

impl Format {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Format::Elf => "ELF",
            Format::BzImage => "bzImage",
            Format::Library => "libkrunfw",
        }
    }
}

/// Where a kernel takes init from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// From an initramfs.
    Initramfs,
    /// From the root that it mounts by itself, by virtio-fs: it takes no initramfs. Its devices must be on
    /// its command line, for it knows no ACPI.
    Root,
}

/// Offsets of the boot protocol's header.
const SETUP_SECTORS: u64 = 0x1f1;
const MAGIC: u64 = 0x202;
const VERSION: u64 = 0x206;
const PAYLOAD_OFFSET: u64 = 0x248;
const PAYLOAD_LENGTH: u64 = 0x24c;

/// What kind of image a file is, and where the kernel takes init from.
pub fn inspect(path: &Path) -> Result<(Format, Init)> {
    let io = |e: std::io::Error| Error::io(path.display().to_string(), &e);
    let head = head_of(&File::open(path).map_err(io)?).map_err(io)?;
    // What makes it one is anywhere in the file.
    if library::may_be_one(&head) && library::is_one(&fs::read(path).map_err(io)?) {
        return Ok((Format::Library, Init::Root));
    }
    let format = match protocol_by(&head) {
        Some(Protocol::Pvh) => Format::Elf,
        Some(Protocol::Linux) => Format::BzImage,
        None => {
            let text = format!("{}: {NO_KERNEL}", path.display());
            return Err(Error::Failed(text));
        }
    };
    match library::takes_no_initramfs(&head) {
        true => Ok((format, Init::Root)),
        false => Ok((format, Init::Initramfs)),
    }
}

/// How an image is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As PVH has it: an ELF image.
    Pvh,
    /// As Linux has it: a bzImage.
    Linux,
}

/// How the image in an open file is entered.
pub fn protocol_of(file: &File) -> std::result::Result<Protocol, String> {
    let head = head_of(file).map_err(|e| e.to_string())?;
    protocol_by(&head).ok_or_else(|| NO_KERNEL.into())
}

const NO_KERNEL: &str =
    "is no kernel of x86-64 (neither an ELF image nor a bzImage, nor libkrunfw's library)";

/// So much of a file that its kind shows.
fn head_of(file: &File) -> std::io::Result<Vec<u8>> {
    let mut head = vec![0; 0x260];
    let mut got = 0;
    while let Some(rest) = head.get_mut(got..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, got as u64)? {
            0 => break,
            n => got += n,
        }
    }
    head.truncate(got);
    Ok(head)
}

fn protocol_by(head: &[u8]) -> Option<Protocol> {
    if head.starts_with(b"\x7fELF") {
        return Some(Protocol::Pvh);
    }
    let magic = head.get(MAGIC as usize..MAGIC as usize + 4);
    (magic == Some(b"HdrS")).then_some(Protocol::Linux)
}

/// The ELF image in a kernel, if that is packed or in a library and its image can be started directly. `None`: it is to
/// be used as it is.
pub fn unpack(bytes: &[u8]) -> std::result::Result<Option<Vec<u8>>, String> {
    // A kernel is no shared object; one that cannot be read as the library is refused for that.
    if library::may_be_one(bytes) && !has_pvh_entry(bytes) {
        let image = library::unpack(bytes)?;
        return Ok(Some([&image.head, image.memory].concat()));
    }
    if bytes.starts_with(b"\x7fELF") {
        return match has_pvh_entry(bytes) {
            true => Ok(None),
            false => {
                Err("is an ELF image without a PVH note (CONFIG_PVH); give the bzImage".into())
            }
        };
    }
    let u32_at = |at: u64| -> Option<u32> {
        let at = at as usize;
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    if u32_at(MAGIC) != Some(u32::from_le_bytes(*b"HdrS")) {
        return Err(NO_KERNEL.into());
    }
    let version = u32_at(VERSION).unwrap_or(0) as u16;
    // Since 2.08 the header says where the payload is.
    let (Some(offset), Some(length), true) = (
        u32_at(PAYLOAD_OFFSET),
        u32_at(PAYLOAD_LENGTH),
        version >= 0x208,
    ) else {
        return Ok(None);
    };
    let setup = match bytes.get(SETUP_SECTORS as usize) {
        Some(&0) | None => 4,
        Some(&n) => usize::from(n),
    };
    let start = (setup + 1) * 512 + offset as usize;
    let payload = bytes.get(start..start.saturating_add(length as usize));
    let payload = payload.ok_or("is cut short")?;
    let Some(packing) = Packing::of(payload) else {
        log::info!("the kernel is packed in a way that is not known here; it unpacks itself");
        return Ok(None);
    };
    let image = decompress(packing, payload)?;
    Ok(has_pvh_entry(&image).then_some(image))
}

/// Whether an ELF image says where it is entered in protected mode (`XEN_ELFNOTE_PHYS32_ENTRY`).
fn has_pvh_entry(image: &[u8]) -> bool {
    const PHYS32_ENTRY: u32 = 18;
    let Ok(elf) = Elf::parse(image) else {
        return false;
    };
    let Some(notes) = elf.iter_note_headers(image) else {
        return false;
    };
    let mut notes = notes.flatten();
    notes.any(|n| n.n_type == PHYS32_ENTRY && n.name.trim_end_matches('\0') == "Xen")
}

/// The version text of a kernel, if it says one (`6.1.0-56-cloud-amd64`).
pub fn version_of(path: &Path) -> Option<String> {
    const POINTER: u64 = 0x20e;
    let file = File::open(path).ok()?;
    let mut pointer = [0; 2];
    file.read_exact_at(&mut pointer, POINTER).ok()?;
    let mut file = file;
    file.seek(SeekFrom::Start(
        u64::from(u16::from_le_bytes(pointer)) + 0x200,
    ))
    .ok()?;
    let mut text = Vec::new();
    file.take(256).read_to_end(&mut text).ok()?;
    let text = text.split(|&b| b == 0 || b == b' ').next()?;
    let text = std::str::from_utf8(text).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+~".contains(c);
    (!text.is_empty() && text.chars().all(plain)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert!(unpack(b"").is_err());
        assert!(unpack(&[0; 4096]).is_err());
        assert!(unpack(b"\x7fELF").is_err());
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        // Before 2.08: nothing is said about the payload.
        assert_eq!(unpack(&image), Ok(None));
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(unpack(&image).is_err_and(|e| e.contains("cut short")));
        image[0x24c..0x250].copy_from_slice(&16u32.to_le_bytes());
        // Not packed in a known way.
        assert_eq!(unpack(&image), Ok(None));
    }
}

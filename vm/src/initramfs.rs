//! The initramfs: the agent, the modules, and the few nodes that the kernel wants before it (cpio(5),
//! "newc"; Documentation/driver-api/early-userspace/buffer-format.rst).

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};

use cpio::newc::{Builder, ModeFileType, trailer};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::kernel::modules::Role;

/// Init of the guest.
pub(crate) static AGENT: &[u8] = include_bytes!(env!("DUET_AGENT"));

/// Writes the initramfs for a kernel into a memfd, which stands at its start.
pub fn build(kernel: &Kernel, network: bool) -> Result<File> {
    let mut modules = Vec::new();
    for (role, path) in &kernel.modules {
        if *role == Role::Network && !network {
            continue;
        }
        let content = fs::read(path).map_err(|e| Error::io(path.display().to_string(), &e))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        modules.push((name.into_owned(), content));
    }
    let failed = |e: io::Error| Error::io("writing the initramfs", &e);
    let fd = memfd_create(c"duet-initramfs", MFdFlags::MFD_CLOEXEC)
        .map_err(|e| Error::step("writing the initramfs", e))?;
    let mut file = BufWriter::with_capacity(1 << 16, File::from(fd));
    write(&mut file, &modules).map_err(failed)?;
    let mut file = file.into_inner().map_err(|e| failed(e.into_error()))?;
    file.rewind().map_err(failed)?;
    Ok(file)
}

fn write(mut to: &mut impl Write, modules: &[(String, Vec<u8>)]) -> io::Result<()> {
    let mut inode = 0;
    let mut entry = |to, name: &str, kind, mode, content: &[u8]| {
        inode += 1;
        let builder = Builder::new(name)
            .ino(inode)
            .mode(mode)
            .set_mode_file_type(kind);
        let mut writer = builder.write(to, content.len() as u32);
        writer.write_all(content)?;
        writer.finish()
    };
    for name in ["dev", "proc", "sys", "root", "modules"] {
        to = entry(to, name, ModeFileType::Directory, 0o755, &[])?;
    }
    to = entry(to, "init", ModeFileType::Regular, 0o755, AGENT)?;
    let mut list = String::new();
    for (name, content) in modules {
        let path = format!("modules/{name}");
        list += &format!("/{path}\n");
        to = entry(to, &path, ModeFileType::Regular, 0o644, content)?;
    }
    to = entry(
        to,
        "modules.list",
        ModeFileType::Regular,
        0o644,
        list.as_bytes(),
    )?;
    // What the kernel opens as init's standard streams.
    let console = Builder::new("dev/console")
        .ino(u32::MAX)
        .mode(0o600)
        .set_mode_file_type(ModeFileType::Char)
        .rdev_major(5)
        .rdev_minor(1);
    to = console.write(to, 0).finish()?;
    trailer(to).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_small() {
        assert!(AGENT.len() <= 2 << 20, "{} bytes", AGENT.len());
    }

    #[test]
    fn holds_what_the_kernel_and_the_agent_want() {
        let mut bytes = Vec::new();
        write(&mut bytes, &[("a.ko".into(), b"abc".to_vec())]).unwrap();
        let mut from = &bytes[..];
        let mut seen = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(from).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                break;
            }
            let shown = (entry.name().to_owned(), entry.mode(), entry.file_size());
            let mut content = Vec::new();
            io::Read::read_to_end(&mut reader, &mut content).unwrap();
            if shown.0 == "modules.list" {
                assert_eq!(content, b"/modules/a.ko\n");
            }
            seen.push(shown);
            from = reader.finish().unwrap();
        }
        let has = |name: &str, mode, size| seen.contains(&(name.into(), mode, size));
        assert!(has("init", 0o100755, AGENT.len() as u32), "{seen:?}");
        assert!(has("modules/a.ko", 0o100644, 3));
        assert!(has("dev/console", 0o020600, 0));
        assert!(has("root", 0o040755, 0));
    }
}

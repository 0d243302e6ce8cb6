//! Modules that a guest needs, picked from a kernel's tree of modules and put in order.
//!
//! The order comes from the modules themselves (`depends=` in their `.modinfo`), for the index
//! `modules.dep` is made by depmod(8) when a kernel is installed, and Duet installs none.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use goblin::elf::Elf;

use super::decompress::{Packing, unpack};
use crate::error::{Error, Result};

/// When a module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Always.
    Base,
    /// If the guest has a network card.
    Network,
}

impl Role {
    /// As the list has it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Base => "base",
            Role::Network => "network",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Role> {
        [Role::Base, Role::Network]
            .into_iter()
            .find(|r| r.name() == name)
    }
}

/// What a guest needs, if the kernel does not have it built in.
const WANTED: [(&str, Role); 5] = [
    ("virtio_mmio", Role::Base),
    ("virtio_console", Role::Base),
    ("virtiofs", Role::Base),
    ("virtio_net", Role::Network),
    ("overlay", Role::Base),
];

/// A module to load.
pub struct Module {
    /// When it is loaded.
    pub role: Role,
    /// Name of its file: `virtio.ko`.
    pub file: String,
    /// The module, unpacked.
    pub content: Vec<u8>,
}

/// The modules of a kernel that a guest needs, those first that others need. `dir` is its
/// `/lib/modules/VERSION`.
pub fn needed(dir: &Path) -> Result<Vec<Module>> {
    let mut files = HashMap::new();
    find_modules(&dir.join("kernel"), &mut files, 0)?;
    let builtin = fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
    let builtin: Vec<String> = builtin.lines().map(|l| module_name(Path::new(l))).collect();
    let mut picked = Vec::new();
    for (name, role) in WANTED {
        if builtin.iter().any(|b| b == name) {
            continue;
        }
        if !files.contains_key(name) {
            return Err(Error::Failed(format!(
                "{}: has no module {name}, and the kernel has it not built in; another kernel is needed",
                dir.display()
            )));
        }
        pick(name, role, &files, &builtin, &mut picked, 0)?;
    }
    Ok(picked)
}

/// The name by which the kernel knows a module: without directory, suffixes, and with underscores.
fn module_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

/// Deeper than any tree of modules.
const MAX_DEPTH: u32 = 16;

fn find_modules(dir: &Path, found: &mut HashMap<String, PathBuf>, depth: u32) -> Result<()> {
    let io = |e: std::io::Error| Error::io(dir.display().to_string(), &e);
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_type().map_err(io)?.is_dir() {
            find_modules(&path, found, depth + 1)?;
        } else if path.to_string_lossy().contains(".ko") {
            found.insert(module_name(&path), path);
        }
    }
    Ok(())
}

fn pick(
    name: &str,
    role: Role,
    files: &HashMap<String, PathBuf>,
    builtin: &[String],
    picked: &mut Vec<Module>,
    depth: u32,
) -> Result<()> {
    let file = format!("{name}.ko");
    if picked.iter().any(|m| m.file == file) || builtin.iter().any(|b| b == name) {
        return Ok(());
    }
    let Some(path) = files.get(name) else {
        return Err(Error::Failed(format!(
            "a module needs {name}, which is missing"
        )));
    };
    let shown = path.display();
    if depth > MAX_DEPTH {
        return Err(Error::Failed(format!("{shown}: needs itself")));
    }
    let packed = fs::read(path).map_err(|e| Error::io(shown.to_string(), &e))?;
    let content = match Packing::of(&packed) {
        None => packed,
        Some(p) => unpack(p, &packed).map_err(|e| Error::Failed(format!("{shown}: {e}")))?,
    };
    let needs = depends(&content).ok_or_else(|| Error::Failed(format!("{shown}: is no module")))?;
    for other in needs {
        pick(
            &other.replace('-', "_"),
            role,
            files,
            builtin,
            picked,
            depth + 1,
        )?;
    }
    picked.push(Module {
        role,
        file,
        content,
    });
    Ok(())
}

/// The modules that a module says it needs.
fn depends(module: &[u8]) -> Option<Vec<String>> {
    let elf = Elf::parse(module).ok()?;
    let mut sections = elf.section_headers.iter();
    let section = sections.find(|s| elf.shdr_strtab.get_at(s.sh_name) == Some(".modinfo"))?;
    let info = module.get(section.file_range()?)?;
    let mut fields = info.split(|&b| b == 0);
    let depends = fields.find_map(|f| f.strip_prefix(b"depends="))?;
    let names = depends.split(|&b| b == b',').filter(|n| !n.is_empty());
    Some(
        names
            .map(|n| String::from_utf8_lossy(n).into_owned())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for file in [
            "kernel/drivers/virtio-rng.ko",
            "virtio_rng.ko.xz",
            "virtio-rng.ko.zst",
        ] {
            assert_eq!(module_name(Path::new(file)), "virtio_rng");
        }
    }

    #[test]
    fn a_tree_without_what_is_needed_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("kernel")).unwrap();
        let error = needed(dir.path()).err().unwrap().to_string();
        assert!(error.contains("virtio_mmio"), "{error}");
        // Built in: nothing is to be loaded.
        let builtin = WANTED.map(|(n, _)| format!("kernel/x/{n}.ko\n")).concat();
        fs::write(dir.path().join("modules.builtin"), builtin).unwrap();
        assert!(needed(dir.path()).unwrap().is_empty());
        // Not a module.
        fs::write(dir.path().join("modules.builtin"), "").unwrap();
        fs::write(dir.path().join("kernel/virtio_mmio.ko"), "x").unwrap();
        assert!(
            needed(dir.path())
                .err()
                .unwrap()
                .to_string()
                .contains("is no module")
        );
    }
}

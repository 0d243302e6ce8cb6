//! What is done in the initramfs, or the tree in its place, before the root is there.

use std::ffi::CStr;
use std::fs::{self, File};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};

use crate::{Named, Step};

/// Where an initramfs keeps modules: one path a line, those first that others need.
const MODULES: &str = "/modules.list";

/// Mounts `/proc`, `/sys` and `/dev`.
pub fn mount_kernel_file_systems() -> Step<()> {
    for (kind, at) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        match mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&CStr>) {
            // The kernel may have mounted /dev by itself (CONFIG_DEVTMPFS_MOUNT).
            Ok(()) | Err(Errno::EBUSY) => (),
            Err(e) => return Err(format!("mounting {kind}: {e}")),
        }
    }
    Ok(())
}

/// Loads the modules of an initramfs, in the order of its list.
pub fn load_modules() -> Step<()> {
    let list = match fs::read_to_string(MODULES) {
        Ok(list) => list,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("reading {MODULES}: {e}")),
    };
    for path in list.lines() {
        let file = File::open(path).named(path)?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => (),
            Err(e) => return Err(format!("loading the module {path}: {e}")),
        }
    }
    Ok(())
}

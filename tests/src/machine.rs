//! What tests of the VM mode need: QEMU, a kernel, and modules by which a guest has a KVM of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::{command_output_within, duet, host_tool, skip, testbins_dir};

/// How long one machine may take: a translated one is slow, and others want the processors too.
pub const MACHINE_LIMIT: Duration = Duration::from_secs(400);

/// Where the tests keep their kernel: a value for `XDG_CACHE_HOME`.
pub fn kernel_cache() -> PathBuf {
    testbins_dir().with_file_name("vm-cache")
}

fn kernel_command(action: &str) -> crate::Output {
    let mut command = Command::new(duet());
    command
        .args(["kernel", action])
        .env("XDG_CACHE_HOME", kernel_cache());
    command_output_within(command, b"", MACHINE_LIMIT)
}

fn has_qemu() -> Result<(), String> {
    match host_tool("qemu-system-x86_64") {
        Some(_) => Ok(()),
        None => Err("no QEMU (package qemu-system-x86)".into()),
    }
}

/// Whether a machine can be run: there is QEMU, and a kernel, which is fetched if need be. Says so if not.
pub fn machine_possible(test: &str) -> bool {
    static MISSING: OnceLock<String> = OnceLock::new();
    let missing = MISSING.get_or_init(|| {
        if let Err(missing) = has_qemu() {
            return missing;
        }
        // An installed library of libkrunfw is none of those that the tests mean.
        if kernel_command("list").stdout.contains("modules") {
            return String::new();
        }
        let fetched = kernel_command("fetch");
        match fetched.status {
            0 => String::new(),
            _ => format!("no kernel: {}", fetched.stderr.trim()),
        }
    });
    if !missing.is_empty() {
        skip(test, missing);
    }
    missing.is_empty()
}

/// libkrunfw's kernel: its image, and the library that it is from.
pub struct Libkrunfw {
    /// In a cache of its own.
    pub image: PathBuf,
    /// As its package has it.
    pub library: PathBuf,
}

/// libkrunfw's kernel, where a machine can be run; says so if not. `.ci/deps` leaves a configuration of
/// apt's by which its package is found.
pub fn libkrunfw(test: &str) -> Option<&'static Libkrunfw> {
    static FOUND: OnceLock<Result<Libkrunfw, String>> = OnceLock::new();
    match FOUND.get_or_init(find_libkrunfw) {
        Ok(found) => Some(found),
        Err(why) => {
            skip(test, why);
            None
        }
    }
}

fn find_libkrunfw() -> Result<Libkrunfw, String> {
    has_qemu()?;
    let dir = testbins_dir().with_file_name("libkrunfw");
    let name = "libkrunfw.so.5";
    let found = Libkrunfw {
        image: dir.join("duet/kernels").join(name).join("image"),
        library: dir.join("tree/usr/lib/x86_64-linux-gnu").join(name),
    };
    let apt_config = dir.join("apt.conf");
    let all_there = || found.image.is_file() && found.library.is_file();
    if !all_there() {
        if !apt_config.is_file() {
            return Err("no libkrunfw: .ci/deps has not found its package".into());
        }
        let mut fetch = Command::new(duet());
        fetch
            .args(["kernel", "fetch", "--libkrunfw"])
            .env("XDG_CACHE_HOME", &dir)
            .env("APT_CONFIG", &apt_config);
        let fetched = command_output_within(fetch, b"", MACHINE_LIMIT);
        if fetched.status != 0 {
            return Err(format!("no libkrunfw: {}", fetched.stderr.trim()));
        }
        assert_eq!(fetched.stdout, format!("{name}\tELF\tno initramfs\n"));
        unpack_package("libkrunfw5", &dir.join("tree"), Some(&apt_config))?;
    }
    match all_there() {
        true => Ok(found),
        false => Err(format!("the package libkrunfw5 has no {name}")),
    }
}

/// The modules by which a guest of the tests' kernel can use the virtualization of its processor, in the
/// order in which they are loaded. The kernel's package is got a second time for them.
///
/// # Errors
/// Why they are not to be had.
pub fn kvm_modules() -> Result<Vec<PathBuf>, String> {
    static MODULES: OnceLock<Result<Vec<PathBuf>, String>> = OnceLock::new();
    MODULES.get_or_init(find_kvm_modules).clone()
}

fn find_kvm_modules() -> Result<Vec<PathBuf>, String> {
    let listed = kernel_command("list").stdout;
    let version = listed.split_whitespace().next().ok_or("no kernel")?;
    let dir = kernel_cache().join(format!("kvm-{version}"));
    let kernel = dir.join("lib/modules").join(version).join("kernel");
    let modules: Vec<PathBuf> = [
        "virt/lib/irqbypass.ko",
        "arch/x86/kvm/kvm.ko",
        "arch/x86/kvm/kvm-amd.ko",
    ]
    .map(|m| kernel.join(m))
    .into();
    let all_there = || modules.iter().all(|m| m.is_file());
    if !all_there() {
        unpack_package(&format!("linux-image-{version}"), &dir, None)?;
    }
    match all_there() {
        true => Ok(modules),
        false => Err(format!("the kernel {version} has no module kvm-amd")),
    }
}

/// Gets a package from the distribution and unpacks it to `dir`. `apt_config`: a configuration by which apt
/// finds it.
fn unpack_package(package: &str, dir: &Path, apt_config: Option<&Path>) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(dir);
        if let Some(file) = apt_config {
            command.env("APT_CONFIG", file);
        }
        let output = command_output_within(command, b"", MACHINE_LIMIT);
        match output.status {
            0 => Ok(()),
            _ => Err(format!("{program}: {}", output.stderr.trim())),
        }
    };
    if host_tool("apt-get").is_none() || host_tool("dpkg-deb").is_none() {
        return Err("no apt-get, by which modules are fetched".into());
    }
    run(
        "apt-get",
        &["-qq", "-o", "APT::Sandbox::User=root", "download", package],
    )?;
    let entries = std::fs::read_dir(dir).map_err(|e| e.to_string())?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "deb") {
            run("dpkg-deb", &["-x", &path.to_string_lossy(), "."])?;
            std::fs::remove_file(&path).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

//! Getting the distribution's kernel, or libkrunfw's: its package is downloaded by apt(8), which checks it,
//! unpacked into Duet's cache, and never installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kernel, add, cache_dir, library};
use crate::error::{Error, Result};

/// The package that leads to the newest kernel for virtual machines, by distribution.
const PACKAGES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-virtual"];

/// The package that has libkrunfw's library.
const LIBRARY_PACKAGE: &str = "libkrunfw5";

/// What is to be fetched.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// The distribution's usual kernel for virtual machines.
    Usual,
    /// libkrunfw's kernel.
    Library,
    /// What is in this package: a kernel, or libkrunfw's library.
    Package(&'a str),
}

/// Downloads and unpacks a kernel's package.
pub fn fetch(wanted: Wanted<'_>) -> Result<Kernel> {
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        if !crate::host::is_installed(tool) {
            return Err(Error::Failed(format!(
                "{tool} is not installed: fetching works with Debian's packages only; give a kernel \
                 with `duet kernel add FILE --modules DIR`"
            )));
        }
    }
    let candidates = match wanted {
        Wanted::Usual => PACKAGES.to_vec(),
        Wanted::Library => vec![LIBRARY_PACKAGE],
        Wanted::Package(p) if valid(p) => vec![p],
        Wanted::Package(p) => {
            return Err(Error::Failed(format!("{p:?} is no name of a package")));
        }
    };
    let packages = candidates.iter().find_map(|p| resolve(p)).ok_or_else(|| {
        let more = match wanted {
            Wanted::Library => {
                ", or this release of the distribution does not have it (Debian: sid has); a library from \
                 elsewhere is taken by `duet kernel add FILE`"
            }
            _ => "",
        };
        Error::Failed(format!(
            "apt knows no package {}; its lists may be missing (apt-get update){more}",
            candidates.join(" or ")
        ))
    })?;
    let cache = cache_dir();
    let io = |e: std::io::Error| Error::io(cache.display().to_string(), &e);
    fs::create_dir_all(&cache).map_err(io)?;
    let dir = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(&cache)
        .map_err(io)?;
    let mut download = Command::new("apt-get");
    download.arg("-qq");
    if nix::unistd::geteuid().is_root() {
        // Its own user for downloads cannot write to this directory.
        download.args(["-o", "APT::Sandbox::User=root"]);
    }
    download
        .arg("download")
        .args(&packages)
        .current_dir(dir.path());
    run(download, "downloading the kernel's package")?;
    let tree = dir.path().join("tree");
    for package in files(dir.path(), |n| n.ends_with(".deb")) {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("-x").arg(package).arg(&tree);
        run(unpack, "unpacking the kernel's package")?;
    }
    let image = files(&tree.join("boot"), |n| n.starts_with("vmlinuz-")).pop();
    if image.is_none()
        && let Some((name, library)) = library::installed_below(&tree).pop()
    {
        return add(&name, &library, None);
    }
    let image = image.ok_or_else(|| {
        Error::Failed(format!(
            "no kernel is in the package {}",
            packages.join(" and ")
        ))
    })?;
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let version = name.trim_start_matches("vmlinuz-").to_owned();
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|d| tree.join(d).join(&version))
        .into_iter()
        .find(|d| d.is_dir());
    add(&version, &image, modules.as_deref())
}

/// Whether apt may be asked about it: neither an option nor a file.
fn valid(package: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    package.starts_with(|c: char| c.is_ascii_alphanumeric()) && package.chars().all(allowed)
}

/// The packages that hold the kernel and its modules: those that the given one depends on, or itself.
/// `None`: there is no such package.
fn resolve(package: &str) -> Option<Vec<String>> {
    let mut command = Command::new("apt-cache");
    command.args(["depends", "--important", package]);
    let output = command.env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || text.is_empty() {
        return None;
    }
    let depends = text
        .lines()
        .filter_map(|l| l.trim().strip_prefix("Depends: "));
    let holds = |p: &&str| p.starts_with("linux-image-") || p.starts_with("linux-modules-");
    let mut all: Vec<String> = depends.filter(holds).map(str::to_owned).collect();
    let is_image = |p: &&String| p.starts_with("linux-image-");
    if !all.iter().any(|p| is_image(&p)) {
        all.push(package.to_owned());
    }
    // Ubuntu keeps modules apart, one step further.
    if let Some(image) = all.iter().find(is_image).cloned()
        && image != package
        && let Some(more) = resolve(&image)
    {
        all.extend(more.into_iter().filter(|p| p.starts_with("linux-modules-")));
    }
    all.sort();
    all.dedup();
    Some(all)
}

fn files(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries
        .filter(|e| e.file_name().to_str().is_some_and(&wanted))
        .map(|e| e.path())
        .collect();
    all.sort();
    all
}

fn run(mut command: Command, what: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let args: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    log::info!("{program} {}", args.join(" "));
    let output = command
        .output()
        .map_err(|e| Error::io(format!("{what}: running {program}"), &e))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Failed(format!(
        "{what}: {program} failed: {}",
        said.trim()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_packages_reach_apt() {
        assert!(valid("linux-image-cloud-amd64") && valid("linux-image-6.1.0-1-amd64"));
        for bad in ["", "-o", "./x.deb", "a b", "A", "a=1"] {
            assert!(!valid(bad), "{bad}");
        }
    }
}

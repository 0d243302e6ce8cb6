//! Kernels: where Duet keeps them, which one a run gets, and how one comes to be there.
//!
//! A kernel is a directory of the cache, named as the kernel is: `image` (an ELF image where it could be
//! unpacked, for it starts faster, else as it came), `modules/` with the modules that a guest needs,
//! and `modules.list` that says when and in which order they are loaded. libkrunfw's kernel can also be used
//! where its library is installed.

pub mod decompress;
pub mod fetch;
pub mod image;
pub mod library;
pub mod modules;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::error::{Error, Result};
use image::{Format, Init};
use modules::{Module, Role};

/// Names of what a kernel's directory holds.
const IMAGE: &str = "image";
const MODULES: &str = "modules";
const LIST: &str = "modules.list";

/// Longest kernel image that is read: 1 GiB.
const MAX_IMAGE: u64 = 1 << 30;
/// So much of an image that its kind shows.
const PAGE: usize = 4096;

/// A kernel to run.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its name in the cache, or its path.
    pub name: String,
    /// The image.
    pub image: PathBuf,
    /// What kind of image it is.
    pub format: Format,
    /// Where it takes init from.
    pub init: Init,
    /// Modules to load, in order, as files.
    pub modules: Vec<(Role, PathBuf)>,
    /// When it came to the cache.
    pub added: SystemTime,
}

impl Kernel {
    /// Opens the image that is started.
    pub fn open(&self) -> Result<File> {
        let shown = self.image.display().to_string();
        let io = |e: std::io::Error| Error::io(&shown, &e);
        if self.format != Format::Library {
            return File::open(&self.image).map_err(io);
        }
        let library = fs::read(&self.image).map_err(io)?;
        let image =
            library::unpack(&library).map_err(|e| Error::Failed(format!("{shown}: {e}")))?;
        let fd = memfd_create(c"duet-kernel", MFdFlags::MFD_CLOEXEC)
            .map_err(|e| Error::step(&shown, e))?;
        let mut file = File::from(fd);
        file.write_all(&image.head).map_err(io)?;
        file.write_all(image.memory).map_err(io)?;
        Ok(file)
    }
}

/// Where kernels are kept: `$XDG_CACHE_HOME/duet/kernels`, `~/.cache/duet/kernels`, and without a home
/// `/var/cache/duet/kernels`.
pub fn cache_dir() -> PathBuf {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|h| h.join(".cache")));
    cache
        .unwrap_or_else(|| "/var/cache".into())
        .join("duet/kernels")
}

/// Where the machine's administrator may have put kernels for all users.
const SHARED: &str = "/var/cache/duet/kernels";

/// All kernels: those of the caches, the one added last first, and behind them installed libraries.
pub fn list() -> Result<Vec<Kernel>> {
    let mut all = cached()?;
    let cached: Vec<String> = all.iter().map(|k| k.name.clone()).collect();
    all.extend(installed().filter(|k| !cached.contains(&k.name)));
    Ok(all)
}

fn installed() -> impl Iterator<Item = Kernel> {
    let libraries = library::installed_below(Path::new("/")).into_iter();
    libraries.map(|(name, image)| Kernel {
        name,
        image,
        format: Format::Library,
        init: Init::Root,
        modules: Vec::new(),
        added: SystemTime::UNIX_EPOCH,
    })
}

fn cached() -> Result<Vec<Kernel>> {
    let own = cache_dir();
    let mut all: Vec<Kernel> = Vec::new();
    for dir in [own.as_path(), Path::new(SHARED)] {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io(dir.display().to_string(), &e)),
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || all.iter().any(|k| k.name == name) {
                continue;
            }
            match open(&name, &entry.path()) {
                Ok(kernel) => all.push(kernel),
                Err(e) => log::warn!("{e}"),
            }
        }
    }
    all.sort_by_key(|k| std::cmp::Reverse(k.added));
    Ok(all)
}

/// The kernel that `wanted` names (a name of [`list`], or a file), or the first of [`list`].
pub fn find(wanted: Option<&str>) -> Result<Kernel> {
    // Directories of libraries are large, and looked through only where nothing else is found.
    let mut all = cached()?
        .into_iter()
        .chain(std::iter::once_with(installed).flatten());
    let Some(wanted) = wanted else {
        return all.next().ok_or_else(|| {
            Error::Failed(
                "there is no kernel to run; get the distribution's with `duet kernel fetch`, or give \
                 one with --kernel FILE"
                    .into(),
            )
        });
    };
    if let Some(kernel) = all.find(|k| k.name == wanted) {
        return Ok(kernel);
    }
    let path = PathBuf::from(wanted);
    if !path.is_file() {
        return Err(Error::Failed(format!(
            "{wanted}: is neither a kernel of `duet kernel list` nor a file"
        )));
    }
    let (format, init) = image::inspect(&path)?;
    Ok(Kernel {
        name: wanted.into(),
        format,
        init,
        image: path,
        // All that it needs must be built in.
        modules: Vec::new(),
        added: SystemTime::UNIX_EPOCH,
    })
}

fn open(name: &str, dir: &Path) -> Result<Kernel> {
    let path = dir.join(IMAGE);
    let io = |path: &Path| {
        let shown = path.display().to_string();
        move |e: std::io::Error| Error::io(format!("kernel {shown}"), &e)
    };
    let added = path
        .metadata()
        .and_then(|m| m.modified())
        .map_err(io(&path))?;
    let list_path = dir.join(LIST);
    let text = fs::read_to_string(&list_path).map_err(io(&list_path))?;
    let mut modules = Vec::new();
    for line in text.lines() {
        let entry = line.split_once(' ').and_then(|(role, file)| {
            let plain = !file.contains('/') && !file.is_empty();
            Some((
                Role::parse(role).filter(|_| plain)?,
                dir.join(MODULES).join(file),
            ))
        });
        modules.push(entry.ok_or_else(|| {
            Error::Failed(format!("{}: {line:?} is no module", list_path.display()))
        })?);
    }
    let (format, init) = image::inspect(&path)?;
    Ok(Kernel {
        name: name.into(),
        format,
        init,
        image: path,
        modules,
        added,
    })
}

/// Puts a kernel into the cache, in place of one of the same name: the image at `file`, unpacked if it
/// can be, and the needed ones of the modules below `modules_dir` (a `/lib/modules/VERSION`).
pub fn add(name: &str, file: &Path, modules_dir: Option<&Path>) -> Result<Kernel> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(Error::Failed(format!("{name:?} cannot be a kernel's name")));
    }
    let io = |what: &Path| {
        let shown = what.display().to_string();
        move |e: std::io::Error| Error::io(shown, &e)
    };
    let size = file.metadata().map_err(io(file))?.len();
    if size > MAX_IMAGE {
        return Err(Error::Failed(format!(
            "{}: is too large for a kernel",
            file.display()
        )));
    }
    let packed = fs::read(file).map_err(io(file))?;
    let image =
        image::unpack(&packed).map_err(|e| Error::Failed(format!("{}: {e}", file.display())))?;
    let started = image.as_deref().unwrap_or(&packed);
    let modules: Vec<Module> = match modules_dir {
        Some(_) if library::takes_no_initramfs(started.get(..PAGE).unwrap_or_default()) => {
            return Err(Error::Failed(format!(
                "{}: holds a kernel that takes no initramfs, and so no modules",
                file.display()
            )));
        }
        Some(dir) => modules::needed(dir)?,
        None => Vec::new(),
    };
    let cache = cache_dir();
    fs::create_dir_all(&cache).map_err(io(&cache))?;
    let new = tempfile::Builder::new()
        .prefix(".new-")
        .tempdir_in(&cache)
        .map_err(io(&cache))?;
    let inside = new.path().join(MODULES);
    fs::create_dir(&inside).map_err(io(&inside))?;
    let mut list = String::new();
    for m in &modules {
        let path = inside.join(&m.file);
        fs::write(&path, &m.content).map_err(io(&path))?;
        list += &format!("{} {}\n", m.role.name(), m.file);
    }
    for (file, content) in [(LIST, list.as_bytes()), (IMAGE, started)] {
        let path = new.path().join(file);
        fs::write(&path, content).map_err(io(&path))?;
    }
    let place = cache.join(name);
    match fs::remove_dir_all(&place) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(&place)(e)),
        _ => (),
    }
    fs::set_permissions(
        new.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .map_err(io(new.path()))?;
    fs::rename(new.keep(), &place).map_err(io(&place))?;
    open(name, &place)
}

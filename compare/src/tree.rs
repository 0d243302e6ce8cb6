//! Trees of any depth, walked and removed by descriptors: a program can make directories whose paths are
//! longer than the kernel takes at once, and deeper than descriptors go round.
//!
//! Nobody else may move directories meanwhile: the way back up is `..`.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Something in a tree.
pub struct Found<'a> {
    /// Its path below the top, whose own is empty. It may be too long for any call.
    pub relative: &'a Path,
    /// A path by which calls reach it, as long as the walk stays there.
    pub path: &'a Path,
    /// What lstat(2) says.
    pub metadata: &'a Metadata,
    /// Why a directory's entries are not to be had.
    pub closed: Option<&'a io::Error>,
}

/// An open directory, with those of its entries that are still to be visited.
struct Level {
    name: OsString,
    left: Vec<OsString>,
}

const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = DIRECTORY.difference(OFlag::O_RDONLY).bits();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    Ok(file.into())
}

fn open_at(dir: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(openat(dir, name, DIRECTORY, Mode::empty())?)
}

/// A path to an entry of an open directory, short whatever the directory's own is.
fn at(dir: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name)
}

fn names(dir: &OwnedFd) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(at(dir, OsStr::new("")))?;
    entries.map(|e| Ok(e?.file_name())).collect()
}

/// Opens a directory to go into it, if there is a way back.
fn enter(dir: &OwnedFd, name: &OsStr) -> io::Result<(OwnedFd, Vec<OsString>)> {
    let inner = open_at(dir, name)?;
    let left = names(&inner)?;
    // Without permission to search it neither its entries nor its parent are reached.
    openat(
        &inner,
        "..",
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    Ok((inner, left))
}

/// Calls `with` for everything in and below `top`, which comes first; links are not followed. A directory
/// that cannot be entered is told of as such.
///
/// # Errors
/// `top` is not to be had, or the way back up is barred.
pub fn walk(top: &Path, with: &mut dyn FnMut(Found)) -> io::Result<()> {
    let metadata = fs::symlink_metadata(top)?;
    let mut here = None;
    let mut levels = Vec::new();
    let mut relative = PathBuf::new();
    let mut closed = None;
    if metadata.is_dir() {
        match open(top).and_then(|dir| Ok((names(&dir)?, dir))) {
            Ok((left, dir)) => {
                let name = OsString::new();
                levels.push(Level { name, left });
                here = Some(dir);
            }
            Err(e) => closed = Some(e),
        }
    }
    with(Found {
        relative: &relative,
        path: top,
        metadata: &metadata,
        closed: closed.as_ref(),
    });
    while let (Some(level), Some(dir)) = (levels.last_mut(), &here) {
        let Some(name) = level.left.pop() else {
            levels.pop();
            if !levels.is_empty() {
                here = Some(open_at(dir, OsStr::new(".."))?);
                relative.pop();
            }
            continue;
        };
        let path = at(dir, &name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(m) => m,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        relative.push(&name);
        let (mut inner, mut closed) = (None, None);
        if metadata.is_dir() {
            match enter(dir, &name) {
                Ok(found) => inner = Some(found),
                Err(e) => closed = Some(e),
            }
        }
        with(Found {
            relative: &relative,
            path: &path,
            metadata: &metadata,
            closed: closed.as_ref(),
        });
        match inner {
            Some((dir, left)) => {
                levels.push(Level { name, left });
                here = Some(dir);
            }
            None => {
                relative.pop();
            }
        }
    }
    Ok(())
}

/// Removes a file, or a directory with all that is below it.
///
/// # Errors
/// Something cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    // One that its owner may not enter is in the way of an ordinary user.
    let unlock = |path: &Path| {
        let _ = fs::set_permissions(path, PermissionsExt::from_mode(0o700));
    };
    unlock(path);
    let mut here = open(path)?;
    let mut levels = vec![Level {
        name: OsString::new(),
        left: names(&here)?,
    }];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.left.pop() else {
            let emptied = levels.pop();
            if let Some(emptied) = emptied.filter(|_| !levels.is_empty()) {
                here = open_at(&here, OsStr::new(".."))?;
                unlinkat(&here, &*emptied.name, UnlinkatFlags::RemoveDir)?;
            }
            continue;
        };
        let inner = at(&here, &name);
        if !fs::symlink_metadata(&inner)?.is_dir() {
            unlinkat(&here, &*name, UnlinkatFlags::NoRemoveDir)?;
            continue;
        }
        unlock(&inner);
        let (dir, left) = enter(&here, &name)?;
        levels.push(Level { name, left });
        here = dir;
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::mkdirat;

    /// Directories one in the other, with a file in the last, and the path of that below `top`.
    fn deep(top: &Path, levels: usize) -> PathBuf {
        let mut here = open(top).unwrap();
        let mut relative = PathBuf::new();
        for i in 0..levels {
            let name = format!("level{i}");
            mkdirat(&here, &*name, Mode::S_IRWXU).unwrap();
            here = open_at(&here, OsStr::new(&name)).unwrap();
            relative.push(name);
        }
        fs::write(at(&here, OsStr::new("file")), "deep").unwrap();
        relative.join("file")
    }

    #[test]
    fn what_no_path_reaches_is_walked_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("top");
        fs::create_dir(&top).unwrap();
        // More than the descriptors of a process, and a path of more than PATH_MAX.
        let file = deep(&top, 3000);
        assert!(fs::metadata(top.join(&file)).is_err());
        fs::write(top.join("beside"), "").unwrap();
        std::os::unix::fs::symlink("/", top.join("link")).unwrap();
        let (mut all, mut text) = (0, Vec::new());
        walk(&top, &mut |found| {
            all += 1;
            assert!(found.closed.is_none());
            if found.relative == file {
                text = fs::read(found.path).unwrap();
            }
        })
        .unwrap();
        assert_eq!((all, text.as_slice()), (1 + 3000 + 1 + 2, &b"deep"[..]));
        remove(&top).unwrap();
        assert!(!top.exists() && Path::new("/").exists());
    }

    #[test]
    fn one_that_is_closed_is_told_of() {
        if nix::unistd::geteuid().is_root() {
            // Root may enter everything but what is no directory at all.
            let place = tempfile::tempdir().unwrap();
            assert!(enter(&open(place.path()).unwrap(), OsStr::new("none")).is_err());
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let shut = place.path().join("shut");
        fs::create_dir_all(shut.join("inner")).unwrap();
        fs::set_permissions(&shut, PermissionsExt::from_mode(0o600)).unwrap();
        let mut closed = Vec::new();
        walk(place.path(), &mut |found| {
            if found.closed.is_some() {
                closed.push(found.relative.to_owned());
            }
        })
        .unwrap();
        assert_eq!(closed, [PathBuf::from("shut")]);
        remove(&shut).unwrap();
        assert!(!shut.exists());
    }
}

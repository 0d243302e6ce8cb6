//! A copy of a directory or file that is put back as it was before each run.
//!
//! What a run has changed is found by inode and change time, which no program can set: so a large tree is
//! copied once, and what is looked at afterwards is only what a run wrote.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};

use crate::files::{self, Entry, Files};
use crate::tree::{self, Found};
use crate::{Error, Result};

/// Tells whether an inode is what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(m: &Metadata) -> Stamp {
        Stamp {
            inode: m.ino(),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }
}

/// A copy, and how it was when it was last put right.
#[derive(Debug)]
pub struct Mirror {
    /// `None`: an empty directory.
    source: Option<PathBuf>,
    copy: PathBuf,
    /// Who owns an empty directory, and may write to it.
    owner: (u32, u32),
    stamps: BTreeMap<PathBuf, Stamp>,
}

impl Mirror {
    /// Nothing is copied yet. An empty directory will belong to `owner`.
    pub fn new(source: Option<&Path>, copy: PathBuf, owner: (u32, u32)) -> Mirror {
        Mirror {
            source: source.map(Path::to_owned),
            copy,
            owner,
            stamps: BTreeMap::new(),
        }
    }

    /// Where the copy is.
    pub fn path(&self) -> &Path {
        &self.copy
    }

    /// Makes the copy equal to its source.
    ///
    /// # Errors
    /// Names the file that cannot be copied.
    pub fn restore(&mut self) -> Result<()> {
        let on = |e| Error::on(&self.copy, e);
        match &self.source {
            Some(source) => {
                let top = fs::symlink_metadata(source).map_err(|e| Error::on(source, e))?;
                let mut links = HashMap::new();
                put_right(
                    source,
                    &top,
                    &self.copy,
                    Path::new(""),
                    &self.stamps,
                    &mut links,
                )?;
            }
            None => {
                match fs::create_dir(&self.copy) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(on(e)),
                    _ => (),
                }
                for entry in fs::read_dir(&self.copy).map_err(on)? {
                    remove(&entry.map_err(on)?.path())?;
                }
                let (uid, gid) = self.owner;
                // An ordinary user owns what it makes, and inside may be somebody else.
                let mode = match nix::unistd::geteuid().is_root() {
                    true => {
                        chown(&self.copy, Some(uid), Some(gid)).map_err(on)?;
                        0o755
                    }
                    false => 0o777,
                };
                fs::set_permissions(&self.copy, PermissionsExt::from_mode(mode)).map_err(on)?;
            }
        }
        self.note()
    }

    /// Takes the copy as it is for what runs start from.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn note(&mut self) -> Result<()> {
        let mut stamps = BTreeMap::new();
        walk(&self.copy, &mut |found| {
            stamps.insert(found.relative.to_owned(), Stamp::of(found.metadata));
        })?;
        self.stamps = stamps;
        Ok(())
    }

    /// What was written since, under names that begin with `shown`.
    ///
    /// # Errors
    /// The copy cannot be read.
    pub fn written(&self, shown: &Path, into: &mut Files) -> Result<()> {
        let mut missing = self.stamps.clone();
        walk(&self.copy, &mut |found| {
            let Found {
                relative, metadata, ..
            } = found;
            let known = missing.remove(relative);
            let same = known == Some(Stamp::of(metadata));
            if let Some(why) = found.closed {
                into.add(shown.join(relative), Entry::Unreadable(why.to_string()));
                return;
            }
            // A directory changes with its entries, which tell for themselves.
            if same || (metadata.is_dir() && known.is_some_and(|k| k.inode == metadata.ino())) {
                return;
            }
            into.add(shown.join(relative), files::describe(found.path, metadata));
        })?;
        for gone in missing.into_keys() {
            into.add(shown.join(gone), Entry::Removed);
        }
        Ok(())
    }
}

fn walk(top: &Path, with: &mut dyn FnMut(Found)) -> Result<()> {
    tree::walk(top, with).map_err(|e| Error::on(top, e))
}

fn remove(path: &Path) -> Result<()> {
    tree::remove(path).map_err(|e| Error::on(path, e))
}

/// What has been copied of files with several names: source inode to copy.
type Links = HashMap<(u64, u64), PathBuf>;

/// Makes `copy` equal to `source`, which is `relative` to the top.
fn put_right(
    source: &Path,
    metadata: &Metadata,
    copy: &Path,
    relative: &Path,
    stamps: &BTreeMap<PathBuf, Stamp>,
    links: &mut Links,
) -> Result<()> {
    let present = fs::symlink_metadata(copy).ok();
    let stamp = stamps.get(relative);
    let unchanged = present
        .as_ref()
        .is_some_and(|p| Some(&Stamp::of(p)) == stamp);
    let both_dirs = metadata.is_dir() && present.as_ref().is_some_and(Metadata::is_dir);
    if unchanged && !metadata.is_dir() {
        if metadata.nlink() > 1 {
            links.insert((metadata.dev(), metadata.ino()), copy.to_owned());
        }
        return Ok(());
    }
    if present.is_some() && !both_dirs {
        remove(copy)?;
    }
    if !metadata.is_dir() {
        return copy_file(source, metadata, copy, links).map_err(|e| Error::on(source, e));
    }
    if !both_dirs {
        fs::create_dir(copy).map_err(|e| Error::on(copy, e))?;
    }
    let names = |dir: &Path| -> Result<Vec<OsString>> {
        let entries = fs::read_dir(dir).map_err(|e| Error::on(dir, e))?;
        let names = entries.map(|e| Ok(e.map_err(|e| Error::on(dir, e))?.file_name()));
        names.collect()
    };
    let wanted = names(source)?;
    for name in names(copy)? {
        if !wanted.contains(&name) {
            remove(&copy.join(name))?;
        }
    }
    for name in wanted {
        let from = source.join(&name);
        let metadata = fs::symlink_metadata(&from).map_err(|e| Error::on(&from, e))?;
        put_right(
            &from,
            &metadata,
            &copy.join(&name),
            &relative.join(&name),
            stamps,
            links,
        )?;
    }
    let now = fs::symlink_metadata(copy).map_err(|e| Error::on(copy, e))?;
    if Some(&Stamp::of(&now)) != stamp {
        clothe(source, metadata, copy).map_err(|e| Error::on(copy, e))?;
    }
    Ok(())
}

fn copy_file(from: &Path, m: &Metadata, to: &Path, links: &mut Links) -> io::Result<()> {
    let kind = m.file_type();
    let id = (m.dev(), m.ino());
    if let Some(first) = links.get(&id) {
        return fs::hard_link(first, to);
    }
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return own(m, to);
    }
    if kind.is_file() {
        fs::copy(from, to)?;
    } else if kind.is_socket() {
        // A name without a socket behind it: nobody listens in a copy.
        return Ok(());
    } else {
        let flag = match (kind.is_fifo(), kind.is_block_device()) {
            (true, _) => SFlag::S_IFIFO,
            (_, true) => SFlag::S_IFBLK,
            _ => SFlag::S_IFCHR,
        };
        match mknod(to, flag, Mode::from_bits_truncate(m.mode()), m.rdev()) {
            Err(nix::errno::Errno::EPERM) => {
                log::warn!(
                    "{}: only root can copy a device; it is left out",
                    from.display()
                );
                return Ok(());
            }
            other => other?,
        }
    }
    if m.nlink() > 1 {
        links.insert(id, to.to_owned());
    }
    clothe(from, m, to)
}

fn own(m: &Metadata, of: &Path) -> io::Result<()> {
    match nix::unistd::geteuid().is_root() {
        true => lchown(of, Some(m.uid()), Some(m.gid())),
        false => Ok(()),
    }
}

/// Gives a copy the owner, attributes, mode and time of its source.
fn clothe(from: &Path, m: &Metadata, to: &Path) -> io::Result<()> {
    own(m, to)?;
    let unsupported = |e: &io::Error| e.raw_os_error() == Some(libc::EOPNOTSUPP);
    if m.is_file() || m.is_dir() {
        let wanted: Vec<OsString> = match xattr::list(from) {
            Ok(names) => names.collect(),
            Err(e) if unsupported(&e) => Vec::new(),
            Err(e) => return Err(e),
        };
        for name in xattr::list(to)
            .map(Iterator::collect)
            .unwrap_or_else(|_| Vec::new())
        {
            if !wanted.contains(&name) {
                xattr::remove(to, name)?;
            }
        }
        for name in wanted {
            if let Some(value) = xattr::get(from, &name)?
                && let Err(e) = xattr::set(to, &name, &value)
            {
                log::warn!(
                    "{}: its attribute {name:?} is not copied: {e}",
                    from.display()
                );
            }
        }
    }
    fs::set_permissions(to, m.permissions())?;
    if m.is_file() || m.is_dir() {
        // Read-only is enough, and for a file without any permission an open one is not needed.
        if let Ok(file) = fs::File::open(to) {
            file.set_modified(m.modified()?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mirror: &Mirror) -> Vec<(String, bool)> {
        let mut files = Files::default();
        mirror.written(Path::new("/t"), &mut files).unwrap();
        let shown = files.entries().iter();
        shown
            .map(|(path, e)| (path.display().to_string(), *e == Entry::Removed))
            .collect()
    }

    #[test]
    fn a_copy_is_put_back_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("source");
        fs::create_dir_all(source.join("a/b")).unwrap();
        fs::write(source.join("a/one"), "1").unwrap();
        fs::hard_link(source.join("a/one"), source.join("a/two")).unwrap();
        symlink("one", source.join("a/link")).unwrap();
        fs::set_permissions(source.join("a/b"), PermissionsExt::from_mode(0o750)).unwrap();
        let copy = place.path().join("copy");
        let mut mirror = Mirror::new(Some(&source), copy.clone(), (0, 0));
        mirror.restore().unwrap();
        assert!(written(&mirror).is_empty());
        let inode = |p: &str| fs::metadata(copy.join(p)).unwrap().ino();
        assert_eq!(inode("a/one"), inode("a/two"));
        let kept = inode("a/b");

        fs::write(copy.join("a/one"), "2").unwrap();
        fs::remove_file(copy.join("a/link")).unwrap();
        fs::create_dir(copy.join("a/b/new")).unwrap();
        fs::set_permissions(copy.join("a/b"), PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(
            written(&mirror),
            [
                ("/t/a/b/new".into(), false),
                ("/t/a/link".into(), true),
                ("/t/a/one".into(), false),
                ("/t/a/two".into(), false),
            ]
        );
        mirror.restore().unwrap();
        assert_eq!(fs::read_to_string(copy.join("a/two")).unwrap(), "1");
        assert_eq!(inode("a/one"), inode("a/two"));
        assert_eq!(inode("a/b"), kept);
        assert_eq!(
            fs::metadata(copy.join("a/b")).unwrap().mode() & 0o777,
            0o750
        );
        assert!(copy.join("a/link").is_symlink() && !copy.join("a/b/new").exists());
        assert!(written(&mirror).is_empty());
    }

    #[test]
    fn an_empty_directory_is_empty_again() {
        let place = tempfile::tempdir().unwrap();
        let ids = (
            nix::unistd::getuid().as_raw(),
            nix::unistd::getgid().as_raw(),
        );
        let mut mirror = Mirror::new(None, place.path().join("copy"), ids);
        mirror.restore().unwrap();
        fs::write(mirror.path().join("x"), "x").unwrap();
        assert_eq!(written(&mirror), [("/t/x".into(), false)]);
        mirror.restore().unwrap();
        assert!(written(&mirror).is_empty());
        assert_eq!(fs::read_dir(mirror.path()).unwrap().count(), 0);
    }
}

//! Tests of the walk and the operations over `tmp`.

mod accounts;
mod against_linux;
mod cache;
mod changed;
mod dropped;
mod open_table;
mod outside;
mod permissions;
mod walking;
mod watches;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use crate::inode::{FileSystem, NoCaller};
use crate::mount::{MountFlags, Store, Vfs};
use crate::tmp::{TmpFs, TmpOptions};
use crate::types::*;
use crate::walk::{Context, Location, Lookup, OpenHow, Opened};

/// A name space with a `tmp` root, and someone who looks at it.
pub(crate) struct Fixture {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) root: Location,
    pub(crate) cwd: Location,
    pub(crate) creds: Creds,
    pub(crate) store: tempfile::TempDir,
}

pub(crate) fn open_dir(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::over(|files, _| {
            let options = TmpOptions {
                mode: 0o755,
                ..TmpOptions::default()
            };
            TmpFs::new(files, options).unwrap()
        })
    }

    /// With the root that `make` gives, of the store's files and a directory of the host.
    pub(crate) fn over(make: impl FnOnce(OwnedFd, &Path) -> Arc<dyn FileSystem>) -> Fixture {
        let store = tempfile::tempdir_in("/dev/shm").unwrap();
        for dir in ["files", "dirs", "host"] {
            std::fs::create_dir(store.path().join(dir)).unwrap();
        }
        let files = open_dir(&store.path().join("files"));
        let fs = make(files.try_clone().unwrap(), &store.path().join("host"));
        let dirs = open_dir(&store.path().join("dirs"));
        let vfs = Vfs::new(Store { files, dirs }, fs, MountFlags::empty(), "tmp").unwrap();
        let root = vfs.root();
        Fixture {
            cwd: root.clone(),
            root,
            vfs,
            creds: Creds::root(),
            store,
        }
    }

    pub(crate) fn tmp(&self) -> Arc<TmpFs> {
        let files = self.vfs.store().files.try_clone().unwrap();
        TmpFs::new(files, TmpOptions::default()).unwrap()
    }

    pub(crate) fn cx(&self) -> Context<'_> {
        Context {
            root: &self.root,
            cwd: &self.cwd,
            creds: &self.creds,
            umask: 0o022,
            caller: &NoCaller,
        }
    }

    pub(crate) fn at(&self, path: &str) -> Location {
        self.find(path, Lookup::FOLLOW).unwrap()
    }

    pub(crate) fn find(&self, path: &str, how: Lookup) -> Result<Location> {
        self.vfs
            .resolve(&self.cx(), &self.cwd, path.as_bytes(), how)
    }

    pub(crate) fn missing(&self, path: &str) -> Errno {
        self.find(path, Lookup::FOLLOW).err().unwrap()
    }

    pub(crate) fn open(&self, path: &str, flags: i32) -> Result<OwnedFd> {
        let how = OpenHow {
            flags,
            mode: 0o666,
            lookup: Lookup::empty(),
        };
        match self
            .vfs
            .open(&self.cx(), &self.cwd, path.as_bytes(), &how)?
        {
            Opened::File(fd) | Opened::Other(fd) => Ok(fd),
            Opened::Blocking(..) => Err(Errno::EWOULDBLOCK),
        }
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let fd = self
            .open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)
            .unwrap();
        nix::unistd::write(&fd, text.as_bytes()).unwrap();
    }

    pub(crate) fn mkdir(&self, path: &str) {
        self.vfs
            .mkdir(&self.cx(), &self.cwd, path.as_bytes(), 0o777)
            .unwrap();
    }

    pub(crate) fn symlink(&self, target: &str, path: &str) {
        self.vfs
            .symlink(&self.cx(), target.as_bytes(), &self.cwd, path.as_bytes())
            .unwrap();
    }

    pub(crate) fn unlink(&self, path: &str) -> Result<()> {
        self.vfs.unlink(&self.cx(), &self.cwd, path.as_bytes())
    }

    pub(crate) fn rmdir(&self, path: &str) -> Result<()> {
        self.vfs.rmdir(&self.cx(), &self.cwd, path.as_bytes())
    }

    pub(crate) fn rename(&self, old: &str, new: &str, flags: u32) -> Result<()> {
        self.vfs.rename(
            &self.cx(),
            &self.cwd,
            old.as_bytes(),
            &self.cwd,
            new.as_bytes(),
            flags,
        )
    }

    pub(crate) fn path(&self, location: &Location) -> String {
        String::from_utf8(location.path(&self.root).0).unwrap()
    }

    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let mut names = Vec::new();
        self.vfs
            .read_dir(&self.cx(), &self.at(path), 0, &mut |e| {
                names.push(String::from_utf8(e.name).unwrap());
                true
            })
            .unwrap();
        names
    }
}

pub(crate) fn locate(f: &Fixture, fd: &OwnedFd) -> Option<Location> {
    let stat = nix::sys::stat::fstat(fd).unwrap();
    f.vfs.locate(crate::host_call::backing(&stat))
}

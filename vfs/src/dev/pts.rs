//! `devpts`: the terminals that this sandbox has made, and no others.
//!
//! A number alone does not say whose terminal it is: when a pair is closed the host gives its number
//! to someone else. So for each terminal an `O_PATH` descriptor of the host's node is taken while its
//! master is open. The kernel never makes that node lead to a later terminal of the same number.

use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use parking_lot::{Mutex, RwLock};

use crate::counted::fstat;
use crate::dentry::anonymous_dev;
use crate::host_call;
use crate::inode::{Caller, DentryPolicy, FileSystem, Inode, NoCaller, OpenedFile, StatFs};
use crate::types::*;

/// Most terminals of one sandbox.
const MAX: usize = 256;
/// Group that owns terminals (`tty`), as the usual `gid=5` of devpts.
const TTY_GROUP: u32 = 5;
/// Inode numbers as the kernel's devpts has them.
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
const FIRST_INO: u64 = 3;

mod ioctl {
    nix::ioctl_read!(tiocgptn, b'T', 0x30, libc::c_uint);
}

#[derive(Clone, Copy)]
struct Owner {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Owner {
    fn change(&mut self, changes: &SetAttr) -> Result<()> {
        if changes.size.is_some() {
            return Err(Errno::EINVAL);
        }
        self.mode = changes.mode.map_or(self.mode, |m| m & 0o7777);
        self.uid = changes.uid.unwrap_or(self.uid);
        self.gid = changes.gid.unwrap_or(self.gid);
        Ok(())
    }
}

struct Shared {
    dev: u64,
    made: Timespec,
    terminals: Mutex<BTreeMap<u32, Arc<Terminal>>>,
}

impl Shared {
    fn attr(&self, ino: u64, mode: u32, owner: Owner) -> Attr {
        Attr {
            dev: self.dev,
            ino,
            mode: mode | owner.mode,
            nlink: 1,
            uid: owner.uid,
            gid: owner.gid,
            rdev: 0,
            size: 0,
            blksize: 1024,
            blocks: 0,
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            btime: None,
        }
    }

    /// The terminals whose masters are still open.
    fn living(&self) -> Vec<u32> {
        let mut terminals = self.terminals.lock();
        terminals.retain(|_, t| t.is_open());
        terminals.keys().copied().collect()
    }

    /// Opens a new pair and returns its master.
    fn allocate(&self, flags: i32, (uid, _): (u32, u32)) -> Result<OwnedFd> {
        if self.living().len() >= MAX {
            return Err(Errno::ENOSPC);
        }
        let rdev = libc::makedev(5, 2);
        let master = super::open_device(FileType::CharDevice, rdev, flags, &NoCaller)?;
        let mut number: libc::c_uint = 0;
        // SAFETY: TIOCGPTN writes one unsigned int, through a valid pointer to one.
        unsafe { ioctl::tiocgptn(master.as_raw_fd(), &mut number) }?;
        let slave = crate::counted::open(
            format!("/dev/pts/{number}").as_str(),
            OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW,
            Mode::empty(),
        )?;
        let stat = fstat(&slave)?;
        // Unix98 terminals have the majors 136 to 143 with 256 numbers each.
        let rdev = libc::makedev(136 + number / 256, number % 256);
        let linear = libc::makedev(136, number);
        if stat.st_mode & libc::S_IFMT != libc::S_IFCHR
            || stat.st_rdev != rdev && stat.st_rdev != linear
        {
            return Err(Errno::ENXIO);
        }
        let terminal = Arc::new(Terminal {
            dev: self.dev,
            number,
            slave,
            owner: RwLock::new(Owner {
                mode: 0o620,
                uid,
                gid: TTY_GROUP,
            }),
        });
        self.terminals.lock().insert(number, terminal);
        Ok(master)
    }
}

/// A `devpts` instance.
pub struct PtsFs {
    root: Arc<Root>,
}

impl PtsFs {
    /// An instance without terminals.
    pub fn new() -> Arc<PtsFs> {
        let made =
            nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME).map_or(0, |t| t.tv_sec());
        let shared = Arc::new(Shared {
            dev: anonymous_dev(),
            made: Timespec { sec: made, nsec: 0 },
            terminals: Mutex::default(),
        });
        let owned = |mode| {
            RwLock::new(Owner {
                mode,
                uid: 0,
                gid: 0,
            })
        };
        let ptmx = Arc::new(Ptmx {
            shared: shared.clone(),
            owner: owned(0o666),
        });
        Arc::new(PtsFs {
            root: Arc::new(Root {
                shared,
                owner: owned(0o755),
                ptmx,
            }),
        })
    }
}

impl PtsFs {
    /// Shows a terminal that the sandbox did not make, but was given: `descriptor` is an `O_PATH` one
    /// of its slave. Returns its number; ENOTTY if it is no Unix98 terminal.
    pub fn adopt(&self, descriptor: OwnedFd) -> Result<u32> {
        let stat = fstat(&descriptor)?;
        let (major, minor) = (libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
        if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || !(136..144).contains(&major) {
            return Err(Errno::ENOTTY);
        }
        let number = (major - 136) * 256 + (minor & 0xff) + (minor & !0xff);
        let terminal = Arc::new(Terminal {
            dev: self.root.shared.dev,
            number,
            slave: descriptor,
            owner: RwLock::new(Owner {
                mode: 0o620,
                uid: 0,
                gid: TTY_GROUP,
            }),
        });
        self.root.shared.terminals.lock().insert(number, terminal);
        Ok(number)
    }
}

impl FileSystem for PtsFs {
    fn type_name(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn statfs(&self) -> Result<StatFs> {
        /// `DEVPTS_SUPER_MAGIC`
        const MAGIC: i64 = 0x1cd1;
        Ok(StatFs {
            magic: MAGIC,
            bsize: 4096,
            blocks: 0,
            bfree: 0,
            bavail: 0,
            files: 0,
            ffree: 0,
            namelen: 255,
        })
    }

    fn dentry_policy(&self) -> DentryPolicy {
        DentryPolicy::Never
    }
}

struct Root {
    shared: Arc<Shared>,
    owner: RwLock<Owner>,
    ptmx: Arc<Ptmx>,
}

impl Inode for Root {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::Directory
    }

    fn attr(&self) -> Result<Attr> {
        let owner = *self.owner.read();
        let mut attr = self.shared.attr(ROOT_INO, libc::S_IFDIR, owner);
        attr.nlink = 2;
        Ok(attr)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<()> {
        self.owner.write().change(changes)
    }

    fn lookup(&self, name: &[u8], _caller: &dyn Caller) -> Result<Arc<dyn Inode>> {
        if name == b"ptmx" {
            return Ok(self.ptmx.clone());
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let number: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        if number.to_string() != text {
            return Err(Errno::ENOENT);
        }
        let mut terminals = self.shared.terminals.lock();
        let terminal = terminals.get(&number).ok_or(Errno::ENOENT)?.clone();
        if !terminal.is_open() {
            terminals.remove(&number);
            return Err(Errno::ENOENT);
        }
        Ok(terminal)
    }

    fn read_dir(
        &self,
        cookie: u64,
        _caller: &dyn Caller,
        sink: &mut dyn FnMut(DirEntry) -> bool,
    ) -> Result<()> {
        let ptmx = (PTMX_INO, "ptmx".to_owned());
        let terminals = self.shared.living().into_iter();
        let terminals = terminals.map(|n| (FIRST_INO + u64::from(n), n.to_string()));
        // Inode numbers ascend and are constant, and so serve as cookies.
        for (ino, name) in std::iter::once(ptmx).chain(terminals) {
            let entry = DirEntry {
                ino,
                kind: Some(FileType::CharDevice),
                name: name.into_bytes(),
                next: ino,
            };
            if ino > cookie && !sink(entry) {
                break;
            }
        }
        Ok(())
    }
}

struct Ptmx {
    shared: Arc<Shared>,
    owner: RwLock<Owner>,
}

impl Inode for Ptmx {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::CharDevice
    }

    fn attr(&self) -> Result<Attr> {
        let owner = *self.owner.read();
        let mut attr = self.shared.attr(PTMX_INO, libc::S_IFCHR, owner);
        attr.rdev = libc::makedev(5, 2);
        Ok(attr)
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<()> {
        self.owner.write().change(changes)
    }

    fn open(&self, flags: i32, caller: &dyn Caller) -> Result<OpenedFile> {
        let fd = self.shared.allocate(flags, caller.owner())?;
        Ok(OpenedFile { fd, backing: None })
    }
}

/// One terminal.
struct Terminal {
    dev: u64,
    number: u32,
    slave: OwnedFd,
    owner: RwLock<Owner>,
}

impl Terminal {
    /// Whether the master is still open: the kernel removes the node when it is closed.
    fn is_open(&self) -> bool {
        fstat(&self.slave).is_ok_and(|stat| stat.st_nlink > 0)
    }
}

impl Inode for Terminal {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn kind(&self) -> FileType {
        FileType::CharDevice
    }

    fn attr(&self) -> Result<Attr> {
        let owner = *self.owner.read();
        Ok(Attr {
            dev: self.dev,
            ino: FIRST_INO + u64::from(self.number),
            mode: libc::S_IFCHR | owner.mode,
            uid: owner.uid,
            gid: owner.gid,
            ..host_call::attr(&fstat(&self.slave)?)
        })
    }

    fn host_path(&self) -> Result<OwnedFd> {
        self.slave.try_clone().map_err(|_| Errno::EMFILE)
    }

    fn owner(&self) -> Result<(u32, u32, u32)> {
        let owner = *self.owner.read();
        Ok((libc::S_IFCHR | owner.mode, owner.uid, owner.gid))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<()> {
        self.owner.write().change(changes)
    }

    fn open(&self, flags: i32, _caller: &dyn Caller) -> Result<OpenedFile> {
        let path = host_call::proc_fd(self.slave.as_raw_fd());
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let fd = crate::counted::open(path.as_str(), flags, Mode::empty())?;
        Ok(OpenedFile { fd, backing: None })
    }
}

//! The FUSE server: requests of the guest kernel, answered from a `duet-vfs` tree.
//!
//! [`Server::handle`] takes one request and the room for its reply, both in the guest's memory, and is
//! all that a transport needs; the virtio-fs devices ([`crate::vhost`], [`crate::monitor`]) call it.
//!
//! - The guest's kernel checks permissions (virtio-fs implies `default_permissions`), follows symbolic
//!   links and handles devices, FIFOs and sockets itself; the server acts as root and gives what it
//!   makes to the ids in the request. What the *tree* forbids (a read-only mount) it still forbids.
//! - Mounts of the tree below the root are announced (`FUSE_ATTR_SUBMOUNT`), so that the guest sees the
//!   same device numbers change where they change in the layer.
//! - A tree that only this guest changes may be cached for ever; one that others change is looked at
//!   again after [`SHARED_VALIDITY`] seconds, and its file contents at every open.
//! - Locks are the guest kernel's own.
//!
//! Every request is untrusted: sizes, names, node ids and file handles are checked, nothing is
//! allocated beyond [`MAX_ARGUMENTS`] bytes a request, and no call blocks (a FIFO is never opened).
//!
//! Lock order: the table of nodes and that of open files are leaves.

pub mod abi;
mod args;
mod attr;
mod dir;
mod entry;
mod file;
mod io;
mod nodes;
#[cfg(test)]
mod tests;

use std::os::fd::AsFd;
use std::sync::Arc;

use duet_vfs::{
    BackingId, Context, Creds, DentryPolicy, Errno, FileType, Location, Lookup, NoCaller, Result,
    Vfs,
};
use nix::sys::resource::{Resource, getrlimit};
use zerocopy::IntoBytes;

use abi::*;
use args::Args;
pub use io::Segments;

use self::file::OpenFiles;
use self::nodes::Nodes;

/// Most bytes of file contents in one request.
pub const MAX_WRITE: u32 = 1 << 20;
/// Most bytes of a request besides file contents: an extended attribute with its name, two names, …
pub const MAX_ARGUMENTS: usize = 128 << 10;
/// How long, in seconds, the guest may believe what it knows of a tree that others change.
pub const SHARED_VALIDITY: u64 = 1;
/// …of a tree that nobody else changes.
const EXCLUSIVE_VALIDITY: u64 = 365 * 86400;

/// A tree as the guest sees it over one virtio-fs device.
pub struct Server {
    vfs: Arc<Vfs>,
    root: Location,
    nodes: Nodes,
    files: OpenFiles,
    no_groups: Arc<[u32]>,
}

/// What goes into a reply behind its header.
enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// So many bytes, which are in place.
    InPlace(usize),
}

impl Answer {
    const EMPTY: Answer = Answer::InPlace(0);

    fn of(value: &(impl IntoBytes + zerocopy::Immutable)) -> Answer {
        Answer::Bytes(value.as_bytes().to_vec())
    }
}

impl Server {
    /// Serves all of `vfs`. What it may hold is sized by `RLIMIT_NOFILE`: raise it first.
    pub fn new(vfs: Arc<Vfs>) -> Result<Server> {
        let (nofile, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let nofile = usize::try_from(nofile).unwrap_or(usize::MAX);
        let max_hot = (nofile / 4).clamp(128, 1 << 18);
        let max_open = (nofile / 8).clamp(64, 1 << 16);
        Ok(Server::with_limits(vfs, max_hot, max_open))
    }

    /// Holds at most about `max_hot` places of the tree, and at most `max_open` open files.
    fn with_limits(vfs: Arc<Vfs>, max_hot: usize, max_open: usize) -> Server {
        let root = vfs.root();
        Server {
            nodes: Nodes::new(root.clone(), max_hot),
            files: OpenFiles::new(max_open),
            no_groups: Arc::from([]),
            root,
            vfs,
        }
    }

    /// Serves one request. Returns the length of the reply in `reply`: 0 if there is none, because
    /// none is due or the request is too broken to have one.
    pub fn handle(&self, mut request: Segments<'_>, mut reply: Segments<'_>) -> usize {
        let mut header = InHeader::default();
        if request.read(header.as_mut_bytes()) < size_of::<InHeader>() {
            log::warn!("virtio-fs: a request without a header");
            return 0;
        }
        let opcode = Opcode::from_number(header.opcode);
        let mut head = reply.split_to(size_of::<OutHeader>());
        let silent = matches!(
            opcode,
            Some(Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt)
        );
        if !silent && head.len() < size_of::<OutHeader>() {
            log::warn!(
                "virtio-fs: no room for a reply to request {}",
                header.opcode
            );
            return 0;
        }
        let body = (header.len as usize).checked_sub(size_of::<InHeader>());
        let answer = match (opcode, body) {
            (None, _) => Err(Errno::ENOSYS),
            (Some(opcode), Some(len)) if len <= request.len() => {
                self.dispatch(opcode, &header, request.split_to(len), &mut reply)
            }
            _ => Err(Errno::EINVAL),
        };
        let answer = answer.and_then(|answer| match answer {
            Answer::InPlace(len) => Ok(len),
            // Nothing sensible asks for a reply and leaves no room for it.
            Answer::Bytes(bytes) if bytes.len() > reply.len() => Err(Errno::EIO),
            Answer::Bytes(bytes) => Ok(reply.write(&bytes)),
        });
        log::trace!(
            "virtio-fs: {opcode:?} of node {}: {answer:?}",
            header.nodeid
        );
        if silent {
            return 0;
        }
        let (error, len) = match answer {
            Ok(len) => (0, len),
            Err(e) => (-(e as i32), 0),
        };
        let len = size_of::<OutHeader>() + len;
        let out = OutHeader {
            len: u32::try_from(len).unwrap_or(u32::MAX),
            error,
            unique: header.unique,
        };
        head.write(out.as_bytes());
        len
    }

    fn dispatch(
        &self,
        opcode: Opcode,
        header: &InHeader,
        mut body: Segments<'_>,
        reply: &mut Segments<'_>,
    ) -> Result<Answer> {
        let node = header.nodeid;
        if opcode == Opcode::Write {
            let mut write = WriteIn::default();
            if body.read(write.as_mut_bytes()) < size_of::<WriteIn>() {
                return Err(Errno::EINVAL);
            }
            return self.write(node, &write, body);
        }
        let buffer = args::copy(body)?;
        let mut args = Args::new(&buffer);
        match opcode {
            Opcode::Init => self.init(&mut args),
            Opcode::Destroy => self.destroy(),
            Opcode::Forget => self.forget(node, &mut args),
            Opcode::BatchForget => self.batch_forget(&mut args),
            // Requests are served one after the other: there is nothing to interrupt.
            Opcode::Interrupt => Ok(Answer::EMPTY),
            Opcode::Lookup => self.lookup(node, &mut args),
            Opcode::Symlink => self.symlink(header, &mut args),
            Opcode::Mknod => self.mknod(header, &mut args),
            Opcode::Mkdir => self.mkdir(header, &mut args),
            Opcode::Unlink => self.unlink(node, &mut args),
            Opcode::Rmdir => self.rmdir(node, &mut args),
            Opcode::Rename => {
                let RenameIn { newdir } = args.take()?;
                self.rename(node, newdir, 0, &mut args)
            }
            Opcode::Rename2 => {
                let Rename2In { newdir, flags, .. } = args.take()?;
                self.rename(node, newdir, flags, &mut args)
            }
            Opcode::Link => self.link(node, &mut args),
            Opcode::Readlink => self.readlink(node),
            Opcode::Getattr => self.getattr(node),
            Opcode::Setattr => self.setattr(node, &mut args),
            Opcode::Statfs => self.statfs(node),
            Opcode::Access => self.access(header, &mut args),
            Opcode::Getxattr => self.getxattr(node, &mut args),
            Opcode::Setxattr => self.setxattr(node, &mut args),
            Opcode::Listxattr => self.listxattr(node, &mut args),
            Opcode::Removexattr => self.removexattr(node, &mut args),
            Opcode::Open => self.open(node, &mut args),
            Opcode::Create => self.create(header, &mut args),
            Opcode::Tmpfile => self.tmpfile(header, &mut args),
            Opcode::Read => self.read(node, &mut args, reply),
            Opcode::Release => self.release(&mut args),
            Opcode::Fsync => self.fsync(&mut args),
            Opcode::Fallocate => self.fallocate(node, &mut args),
            Opcode::Lseek => self.lseek(&mut args),
            Opcode::CopyFileRange => self.copy_file_range(&mut args),
            Opcode::Opendir => self.opendir(node, &mut args),
            Opcode::Readdir => self.readdir(node, &mut args, reply),
            Opcode::Readdirplus => self.readdirplus(node, &mut args, reply),
            Opcode::Releasedir => Ok(Answer::EMPTY),
            // Taken care of above.
            Opcode::Write => Err(Errno::EINVAL),
        }
    }

    fn init(&self, args: &mut Args<'_>) -> Result<Answer> {
        let init: InitIn = args.take()?;
        let mut out = InitOut {
            major: KERNEL_VERSION,
            minor: KERNEL_MINOR_VERSION,
            ..InitOut::default()
        };
        if init.major > KERNEL_VERSION {
            // The guest asks again with what it is told here.
            return Ok(Answer::of(&out));
        }
        if init.major < KERNEL_VERSION || init.minor < OLDEST_MINOR_VERSION {
            log::error!(
                "the guest's kernel speaks FUSE {}.{}; at least {KERNEL_VERSION}.{OLDEST_MINOR_VERSION} \
                 (Linux 5.4) is needed",
                init.major,
                init.minor
            );
            return Err(Errno::EPROTO);
        }
        // A guest that starts over knows nothing any more.
        self.nodes.clear();
        self.files.clear();
        let known = InitFlags::all() & !InitFlags::WRITEBACK_CACHE;
        let flags = InitFlags::from_bits_truncate(init.flags) & known;
        out.minor = init.minor.min(KERNEL_MINOR_VERSION);
        out.max_readahead = init.max_readahead;
        out.flags = flags.bits();
        out.max_background = 64;
        out.congestion_threshold = 48;
        out.max_write = MAX_WRITE;
        out.time_gran = 1;
        out.max_pages = (MAX_WRITE / 4096) as u16;
        Ok(Answer::of(&out))
    }

    fn destroy(&self) -> Result<Answer> {
        self.nodes.clear();
        self.files.clear();
        Ok(Answer::EMPTY)
    }

    fn forget(&self, node: u64, args: &mut Args<'_>) -> Result<Answer> {
        let ForgetIn { nlookup } = args.take()?;
        self.nodes.forget(node, nlookup);
        Ok(Answer::EMPTY)
    }

    fn batch_forget(&self, args: &mut Args<'_>) -> Result<Answer> {
        let BatchForgetIn { count, .. } = args.take()?;
        for _ in 0..count {
            let ForgetOne { nodeid, nlookup } = args.take()?;
            self.nodes.forget(nodeid, nlookup);
        }
        Ok(Answer::EMPTY)
    }

    // ---- what the handlers share ----

    /// Root, but for the ids that own what is made.
    fn creds(&self, uid: u32, gid: u32) -> Creds {
        Creds {
            fsuid: uid,
            fsgid: gid,
            ..Creds::user(0, 0, self.no_groups.clone())
        }
    }

    /// Runs `operation` as root, with `uid` and `gid` the owners of what it makes.
    fn acting_for<T>(
        &self,
        uid: u32,
        gid: u32,
        operation: impl FnOnce(&Context<'_>) -> Result<T>,
    ) -> Result<T> {
        let creds = self.creds(uid, gid);
        self.with(&creds, operation)
    }

    /// Runs `operation` as root.
    fn as_root<T>(&self, operation: impl FnOnce(&Context<'_>) -> Result<T>) -> Result<T> {
        self.acting_for(0, 0, operation)
    }

    fn with<T>(
        &self,
        creds: &Creds,
        operation: impl FnOnce(&Context<'_>) -> Result<T>,
    ) -> Result<T> {
        operation(&Context {
            root: &self.root,
            cwd: &self.root,
            creds,
            // The guest's kernel has applied it.
            umask: 0,
            caller: &NoCaller,
        })
    }

    /// The place of a node.
    fn place(&self, node: u64) -> Result<Location> {
        self.nodes.place(node, |dir, name| self.child(dir, name))
    }

    /// The place of a node that must be a directory.
    fn directory(&self, node: u64) -> Result<Location> {
        let place = self.place(node)?;
        match place.kind() {
            FileType::Directory => Ok(place),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// What `name` (a single component, checked) in `dir` leads to.
    fn child(&self, dir: &Location, name: &[u8]) -> Result<Location> {
        self.as_root(|cx| self.vfs.resolve(cx, dir, name, Lookup::empty()))
    }
}

/// Seconds for which the guest may believe what it knows of this file system.
fn validity(place: &Location) -> u64 {
    match place.mount.sb().fs().dentry_policy() {
        DentryPolicy::Exclusive => EXCLUSIVE_VALIDITY,
        DentryPolicy::Revalidate => SHARED_VALIDITY,
        DentryPolicy::Never => 0,
    }
}

/// Whether nobody but the guest changes this file system.
fn is_exclusive(place: &Location) -> bool {
    place.mount.sb().fs().dentry_policy() == DentryPolicy::Exclusive
}

/// The identity of an open host file.
fn backing(fd: impl AsFd) -> Result<BackingId> {
    let stat = nix::sys::stat::fstat(fd)?;
    Ok(BackingId {
        dev: stat.st_dev,
        ino: stat.st_ino,
    })
}

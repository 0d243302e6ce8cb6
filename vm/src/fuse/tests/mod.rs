//! Tests of the server without a guest: requests are made here, byte by byte.

mod hostile;
mod nodes;
mod requests;

use std::os::fd::OwnedFd;
use std::path::Path;

use duet_vfs::host::{HostFs, HostOptions};
use duet_vfs::overlay::{OverlayFs, Upper};
use duet_vfs::tmp::{TmpFs, TmpOptions};
use duet_vfs::{
    Context, Creds, Errno, FileSystem, Location, Lookup, MountFlags, NewNode, NoCaller, Result,
    Store, Vfs,
};
use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::abi::*;
use super::{Segments, Server};

/// An overlay over a host directory (`lower` on the host), with a tmpfs at `/tmp`, and a guest that
/// asks for it.
struct Guest {
    server: Server,
    lower: std::path::PathBuf,
    uid: u32,
    gid: u32,
    _store: tempfile::TempDir,
}

fn open_dir(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

impl Guest {
    fn new() -> Guest {
        Guest::with_limits(1000, 100)
    }

    fn with_limits(max_hot: usize, max_open: usize) -> Guest {
        let store = tempfile::tempdir_in("/dev/shm").unwrap();
        for dir in ["files", "dirs", "lower", "lower/tmp", "lower/d", "shared"] {
            std::fs::create_dir(store.path().join(dir)).unwrap();
        }
        let lower = store.path().join("lower");
        std::fs::write(lower.join("file"), "lower").unwrap();
        std::fs::write(lower.join("d/inner"), "inner").unwrap();
        let files = || open_dir(&store.path().join("files"));
        let upper = TmpFs::new(files(), TmpOptions::default()).unwrap();
        let new = NewNode {
            mode: 0o755,
            uid: 0,
            gid: 0,
        };
        let read_only = HostOptions {
            read_only: true,
            layer: true,
            ..HostOptions::default()
        };
        let overlay = OverlayFs::new(
            Upper {
                root: upper.root().mkdir(b"upper", new).unwrap(),
                work: upper.root().mkdir(b"work", new).unwrap(),
                fs: upper,
            },
            vec![HostFs::open(&lower, read_only).unwrap().root()],
        )
        .unwrap();
        let store_fds = Store {
            files: files(),
            dirs: open_dir(&store.path().join("dirs")),
        };
        let vfs = Vfs::new(store_fds, overlay, MountFlags::empty(), "overlay").unwrap();
        let tmp = TmpFs::new(files(), TmpOptions::default()).unwrap();
        vfs.mount(&find(&vfs, b"/tmp"), tmp, MountFlags::empty(), "tmp")
            .unwrap();
        let guest = Guest {
            server: Server::with_limits(vfs, max_hot, max_open),
            lower,
            uid: 0,
            gid: 0,
            _store: store,
        };
        guest.init(31).unwrap();
        guest
    }

    fn init(&self, minor: u32) -> Result<InitOut> {
        let init = InitIn {
            major: 7,
            minor,
            max_readahead: 1 << 17,
            flags: u32::MAX,
        };
        self.ask(Opcode::Init, 0, init.as_bytes())
    }

    /// Sends a request as it is; the bytes of the reply.
    fn send(&self, request: &[u8], room: usize) -> Vec<u8> {
        let mut request = request.to_vec();
        let mut reply = vec![0; room];
        // In two pieces each, as they come from a guest.
        let half = request.len() / 2;
        let (a, b) = request.split_at_mut(half);
        let request = Segments::new(vec![VolatileSlice::from(a), VolatileSlice::from(b)]);
        let (c, d) = reply.split_at_mut(room / 3);
        let answer = Segments::new(vec![VolatileSlice::from(c), VolatileSlice::from(d)]);
        let len = self.server.handle(request, answer);
        reply.truncate(len);
        reply
    }

    fn request(&self, opcode: u32, nodeid: u64, body: &[u8]) -> Vec<u8> {
        let header = InHeader {
            len: (size_of::<InHeader>() + body.len()) as u32,
            opcode,
            unique: 77,
            nodeid,
            uid: self.uid,
            gid: self.gid,
            ..InHeader::default()
        };
        [header.as_bytes(), body].concat()
    }

    /// What comes behind the header of the reply.
    fn bytes(&self, opcode: Opcode, node: u64, body: &[u8]) -> Result<Vec<u8>> {
        self.bytes_of(&self.request(opcode as u32, node, body), 1 << 17)
    }

    fn bytes_of(&self, request: &[u8], room: usize) -> Result<Vec<u8>> {
        let reply = self.send(request, room);
        let (header, rest) = OutHeader::read_from_prefix(&reply).unwrap();
        assert_eq!(header.len as usize, reply.len());
        assert_eq!(header.unique, 77);
        if header.error == 0 {
            return Ok(rest.to_vec());
        }
        assert!(header.error < 0 && rest.is_empty());
        Err(Errno::from_raw(-header.error))
    }

    fn ask<T: FromBytes>(&self, opcode: Opcode, node: u64, body: &[u8]) -> Result<T> {
        let bytes = self.bytes(opcode, node, body)?;
        let (value, _) = T::read_from_prefix(&bytes).map_err(drop).unwrap();
        Ok(value)
    }

    fn with(
        &self,
        opcode: Opcode,
        node: u64,
        fixed: &(impl IntoBytes + Immutable),
        names: &[&str],
    ) -> Result<Vec<u8>> {
        let mut body = fixed.as_bytes().to_vec();
        for name in names {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
        }
        self.bytes(opcode, node, &body)
    }

    fn lookup(&self, dir: u64, name: &str) -> Result<EntryOut> {
        let entry: EntryOut = self.ask(Opcode::Lookup, dir, &[name.as_bytes(), b"\0"].concat())?;
        if entry.nodeid == 0 {
            return Err(Errno::ENOENT);
        }
        Ok(entry)
    }

    fn walk(&self, path: &str) -> Result<EntryOut> {
        let mut entry = EntryOut {
            nodeid: ROOT_ID,
            ..EntryOut::default()
        };
        for name in path.split('/') {
            entry = self.lookup(entry.nodeid, name)?;
        }
        Ok(entry)
    }

    fn attr(&self, node: u64) -> Result<FuseAttr> {
        Ok(self.ask::<AttrOut>(Opcode::Getattr, node, &[0; 16])?.attr)
    }

    fn setattr(&self, node: u64, set: SetattrIn) -> Result<FuseAttr> {
        let out: AttrOut = self.ask(Opcode::Setattr, node, set.as_bytes())?;
        Ok(out.attr)
    }

    fn open(&self, node: u64, flags: i32) -> Result<u64> {
        let open = OpenIn {
            flags: flags as u32,
            open_flags: 0,
        };
        let out: OpenOut = self.ask(Opcode::Open, node, open.as_bytes())?;
        Ok(out.fh)
    }

    fn create(&self, dir: u64, name: &str, flags: i32) -> Result<(EntryOut, u64)> {
        let create = CreateIn {
            flags: (flags | libc::O_CREAT) as u32,
            mode: libc::S_IFREG | 0o644,
            ..CreateIn::default()
        };
        let reply = self.with(Opcode::Create, dir, &create, &[name])?;
        let (entry, rest) = EntryOut::read_from_prefix(&reply).map_err(drop).unwrap();
        let (open, _) = OpenOut::read_from_prefix(rest).map_err(drop).unwrap();
        Ok((entry, open.fh))
    }

    fn read(&self, node: u64, fh: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        let read = ReadIn {
            fh,
            offset,
            size,
            ..ReadIn::default()
        };
        self.bytes(Opcode::Read, node, read.as_bytes())
    }

    fn write(&self, node: u64, fh: u64, offset: u64, data: &[u8], flags: u32) -> Result<u32> {
        let write = WriteIn {
            fh,
            offset,
            size: data.len() as u32,
            write_flags: flags,
            ..WriteIn::default()
        };
        let body = [write.as_bytes(), data].concat();
        Ok(self.ask::<WriteOut>(Opcode::Write, node, &body)?.size)
    }

    fn release(&self, node: u64, fh: u64) -> Result<()> {
        let release = ReleaseIn {
            fh,
            ..ReleaseIn::default()
        };
        self.bytes(Opcode::Release, node, release.as_bytes())
            .map(drop)
    }

    fn mkdir(&self, dir: u64, name: &str) -> Result<EntryOut> {
        let mkdir = MkdirIn {
            mode: 0o755,
            umask: 0,
        };
        let reply = self.with(Opcode::Mkdir, dir, &mkdir, &[name])?;
        Ok(EntryOut::read_from_prefix(&reply).map_err(drop).unwrap().0)
    }

    fn unlink(&self, dir: u64, name: &str) -> Result<()> {
        self.with(Opcode::Unlink, dir, &(), &[name]).map(drop)
    }

    fn rename(&self, old: (u64, &str), new: (u64, &str), flags: u32) -> Result<()> {
        let rename = Rename2In {
            newdir: new.0,
            flags,
            padding: 0,
        };
        self.with(Opcode::Rename2, old.0, &rename, &[old.1, new.1])
            .map(drop)
    }

    fn forget(&self, node: u64, nlookup: u64) {
        let body = ForgetIn { nlookup };
        let reply = self.send(
            &self.request(Opcode::Forget as u32, node, body.as_bytes()),
            0,
        );
        assert!(reply.is_empty());
    }

    /// Names of a directory with the node ids of READDIRPLUS, read with `room` bytes at a time.
    fn list(&self, node: u64, room: u32) -> Result<Vec<(String, u64)>> {
        let mut names = Vec::new();
        let mut offset = 0;
        loop {
            let read = ReadIn {
                offset,
                size: room,
                ..ReadIn::default()
            };
            let mut bytes = &self.bytes(Opcode::Readdirplus, node, read.as_bytes())?[..];
            assert!(bytes.len() <= room as usize);
            if bytes.is_empty() {
                return Ok(names);
            }
            while !bytes.is_empty() {
                let (entry, rest) = EntryOut::read_from_prefix(bytes).map_err(drop).unwrap();
                let (dirent, rest) = Dirent::read_from_prefix(rest).map_err(drop).unwrap();
                let len = dirent.namelen as usize;
                names.push((
                    String::from_utf8(rest[..len].to_vec()).unwrap(),
                    entry.nodeid,
                ));
                offset = dirent.off;
                bytes = &rest[len.next_multiple_of(8)..];
            }
        }
    }
}

fn find(vfs: &Vfs, path: &[u8]) -> Location {
    let root = vfs.root();
    let creds = Creds::root();
    let cx = Context {
        root: &root,
        cwd: &root,
        creds: &creds,
        umask: 0,
        caller: &NoCaller,
    };
    vfs.resolve(&cx, &root, path, Lookup::empty()).unwrap()
}

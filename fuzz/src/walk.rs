//! Path walk, permissions, overlay, `tmp` and a host directory under arbitrary operations.
//!
//! An input is a sequence of operations by root or user 7, with paths that climb, links that lead out,
//! marks that are forged. Whatever they are: nothing panics; no place and no descriptor is one of the
//! host outside the mounts; nothing outside changes; and in the end directories list exactly what can
//! be looked up, and link counts are right.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, LazyLock};

use duet_vfs::tmp::TmpOptions;
use duet_vfs::{
    Binding, Context, Creds, DirEntry, Errno, FileType, Location, Lookup, NoCaller, OpenHow,
    Opened, PathState, Result, SetTime, Timespec, Vfs,
};

use crate::site::{Host, OUTSIDE_TIME, find, id, unmount};

/// Operations done of one input at most.
const MAX_OPERATIONS: usize = 300;
/// Bytes of a Unix socket's path at most.
const SUN_PATH: usize = 108;
/// Places and descriptors kept at most.
const MAX_KEPT: usize = 8;

const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"d",
    b"dir",
    b"file",
    b"l",
    b"m",
    b"t",
    b"v",
    b"abs",
    b"rel",
    b"up",
    b"root",
    b"deep",
    b"loop",
    b"gone",
    b"fd",
    b"set-id",
    b"outside",
    b"secret",
    b"proc",
    b"etc",
    b".wh.a",
    b".duet.1.1",
    b"\xff\xfe",
    &[b'x'; 255],
    &[b'y'; 256],
];

/// Most often one of the first few.
fn name(n: u8) -> &'static [u8] {
    let n = usize::from(n);
    NAMES[if n < 160 { n % 7 } else { n % NAMES.len() }]
}

const TARGETS: &[&[u8]] = &[
    b"/",
    b"..",
    ".".as_bytes(),
    b"a",
    b"../..",
    b"a/../..",
    b"/a/b",
    b"l",
    b"b/",
    b"/t/..",
    b"/v/up",
    b"../outside",
    b"../../../../../etc/passwd",
    b"/proc/self/root",
    b"//",
    b"t/a",
];

const XATTRS: &[&[u8]] = &[
    b"user.a",
    b"user.overlay.opaque",
    b"user.overlay.redirect",
    b"user.overlay.whiteout",
    b"user.overlay.overlay.opaque",
    b"user.overlay.origin",
    b"user.duet.meta",
    b"trusted.a",
    b"security.capability",
    b"system.posix_acl_access",
    b"user.",
    b"nonsense",
];

const VALUES: &[&[u8]] = &[
    b"",
    b"y",
    b"/../../outside",
    b"/d",
    b"dir",
    &[0; 64],
    &[b'z'; 300],
];

const MODES: &[u32] = &[
    0o777, 0o755, 0o700, 0o500, 0o644, 0o600, 0o400, 0, 0o1777, 0o2775, 0o4755, 0o6777, 0o2640,
];

/// What is left of the input; nothing but zeros when it is used up.
struct Input<'a>(&'a [u8]);

/// Prints what is done, if the environment has `DUET_TRACE`.
fn trace(what: impl FnOnce() -> String) {
    static ON: LazyLock<bool> = LazyLock::new(|| std::env::var_os("DUET_TRACE").is_some());
    if *ON {
        eprintln!("{}", what());
    }
}

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    /// True once in `n` times, and never when the input is used up.
    fn rarely(&mut self, n: u8) -> bool {
        self.byte() % n == n - 1
    }

    fn path(&mut self) -> Vec<u8> {
        let path = self.any_path();
        trace(|| format!("  path {}", show(&path)));
        path
    }

    fn any_path(&mut self) -> Vec<u8> {
        let shape = self.byte();
        if shape >= 250 {
            // As it comes; a path of a system call ends at a NUL.
            let len = usize::from(self.byte()).min(self.0.len());
            let (path, rest) = self.0.split_at(len);
            self.0 = rest;
            return path.iter().copied().take_while(|&b| b != 0).collect();
        }
        let mut path = Vec::new();
        if shape & 1 != 0 {
            path.push(b'/');
        }
        if shape & 6 == 6 {
            path.extend_from_slice(self.of(&[b"t/".as_slice(), b"v/"]));
        }
        for _ in 0..[0, 0, 0, 1, 1, 2, 0, 4][usize::from(shape >> 3) % 8] {
            match self.byte() {
                0..=23 => path.extend_from_slice(b".."),
                24..=31 => path.push(b'.'),
                32..=39 => path.push(b'/'),
                n => path.extend_from_slice(name(n)),
            }
            path.push(b'/');
        }
        match self.byte() {
            0..=7 => path.extend_from_slice(b".."),
            8..=11 => path.push(b'.'),
            12..=19 => (),
            n => path.extend_from_slice(name(n)),
        }
        if shape & 0xf0 == 0xf0 {
            path.push(b'/');
        }
        path
    }

    fn lookup(&mut self) -> Lookup {
        let mut how = Lookup::FOLLOW;
        let n = self.byte();
        how.set(Lookup::FOLLOW, n & 1 == 0);
        if n >= 0xc0 {
            how |= Lookup::from_bits_truncate(u32::from(self.byte()));
        }
        how
    }
}

/// A tree, and someone who acts in it.
struct World {
    host: Host,
    vfs: Arc<Vfs>,
    /// `st_dev` of everything in the tree.
    devices: Vec<u64>,
    top: Location,
    root: Location,
    cwd: Location,
    creds: Creds,
    umask: u32,
    places: Vec<Location>,
    descriptors: Vec<OwnedFd>,
}

/// Does what an input says.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let options = if input.rarely(4) {
        // So little that operations fail in the middle.
        TmpOptions {
            inodes: 10 + u64::from(input.byte() % 64),
            metadata: 1000 + 16 * u64::from(input.byte()),
            size: Some(8192),
            ..TmpOptions::default()
        }
    } else {
        TmpOptions::default()
    };
    let host = Host::new();
    let vfs = host.tree(options);
    let top = vfs.root();
    let mut world = World {
        devices: [&b"/"[..], b"t", b"v"]
            .map(|path| find(&vfs, path).attr().expect("attributes of a mount").dev)
            .to_vec(),
        root: top.clone(),
        cwd: top.clone(),
        creds: Creds::root(),
        umask: 0o022,
        places: Vec::new(),
        descriptors: Vec::new(),
        top,
        vfs,
        host,
    };
    for _ in 0..MAX_OPERATIONS {
        if input.0.is_empty() {
            break;
        }
        let number = input.byte() % 32;
        // It may fail as it likes.
        let result = world.operation(number, &mut input);
        trace(|| format!("operation {number}: {result:?}"));
    }
    world.descriptors.clear();
    world.check_tree();
    world.places.clear();
    unmount(&world.vfs);
    world.host.check();
}

impl World {
    fn cx(&self) -> Context<'_> {
        Context {
            root: &self.root,
            cwd: &self.cwd,
            creds: &self.creds,
            umask: self.umask,
            caller: &NoCaller,
        }
    }

    /// That a place is inside.
    fn inside(&self, place: &Location) {
        let mounts = self.vfs.mounts();
        assert!(
            mounts.iter().any(|m| m.id == place.mount.id()),
            "a place of no mount"
        );
        if let Ok(a) = place.attr() {
            assert!(
                self.devices.contains(&a.dev),
                "a place of device {:#x}",
                a.dev
            );
            assert_ne!(a.mtime.sec, OUTSIDE_TIME, "a place outside");
        }
        if place.kind() == FileType::Directory
            && let Ok(fd) = place.inode().host_path()
        {
            self.no_sentinel(fd);
        }
    }

    /// That a descriptor is not one of something outside; gives it back.
    fn no_sentinel(&self, fd: OwnedFd) -> File {
        let file = File::from(fd);
        let m = file.metadata().expect("fstat of our descriptor");
        let known = self.host.sentinels.contains(&id(&m));
        assert!(!known, "a descriptor of something outside");
        file
    }

    fn base(&mut self, input: &mut Input) -> Location {
        let n = usize::from(input.byte());
        if n < 200 {
            return self.cwd.clone();
        }
        self.places.get(n % MAX_KEPT).unwrap_or(&self.cwd).clone()
    }

    fn find(&mut self, input: &mut Input, how: Lookup) -> Result<Location> {
        let base = self.base(input);
        let path = input.path();
        let found = self.vfs.resolve(&self.cx(), &base, &path, how)?;
        self.inside(&found);
        Ok(found)
    }

    fn operation(&mut self, number: u8, input: &mut Input) -> Result<()> {
        let vfs = self.vfs.clone();
        match number {
            0 | 1 => {
                let how = input.lookup();
                self.find(input, how)?;
            }
            2..=6 => self.open(input)?,
            7..=9 => {
                let (base, path, mode) = (self.base(input), input.path(), input.of(MODES));
                vfs.mkdir(&self.cx(), &base, &path, mode)?;
            }
            10 => {
                let (base, path, mode) = (self.base(input), input.path(), input.of(MODES));
                let kind = input.of(&[
                    libc::S_IFREG,
                    libc::S_IFIFO,
                    libc::S_IFSOCK,
                    libc::S_IFCHR,
                    libc::S_IFBLK,
                    libc::S_IFDIR,
                    libc::S_IFLNK,
                    0,
                    libc::S_IFMT,
                ]);
                let rdev = input.of(&[
                    0,
                    libc::makedev(1, 3),
                    libc::makedev(1, 1),
                    libc::makedev(254, 254),
                    u64::MAX,
                ]);
                vfs.mknod(&self.cx(), &base, &path, kind | mode, rdev)?;
            }
            11 | 12 => {
                let base = self.base(input);
                let target = if input.rarely(4) {
                    input.path()
                } else {
                    input.of(TARGETS).to_vec()
                };
                vfs.symlink(&self.cx(), &target, &base, &input.path())?;
            }
            13 => {
                let how = input.lookup();
                let from = self.find(input, how)?;
                let (base, path) = (self.base(input), input.path());
                vfs.link(&self.cx(), &from, &base, &path)?;
            }
            14 | 15 => {
                let (base, path) = (self.base(input), input.path());
                vfs.unlink(&self.cx(), &base, &path)?;
            }
            16 => {
                let (base, path) = (self.base(input), input.path());
                vfs.rmdir(&self.cx(), &base, &path)?;
            }
            17..=19 => {
                let (old_base, old) = (self.base(input), input.path());
                let (new_base, new) = (self.base(input), input.path());
                let flags = input.of(&[0, 0, 0, 1, 2, 4, 3, 5, 8]);
                vfs.rename(&self.cx(), &old_base, &old, &new_base, &new, flags)?;
            }
            20 | 21 => self.set_attributes(input)?,
            22 | 23 => self.extended_attributes(input)?,
            24 => self.list(input)?,
            25 => {
                let place = self.find(input, Lookup::FOLLOW)?;
                if self.places.len() < MAX_KEPT {
                    self.places.push(place);
                } else {
                    self.places[usize::from(input.byte()) % MAX_KEPT] = place;
                }
            }
            26 => {
                let place = self.find(input, Lookup::FOLLOW | Lookup::DIRECTORY)?;
                self.cwd = place;
            }
            27 => {
                self.root = if input.rarely(2) {
                    self.find(input, Lookup::FOLLOW | Lookup::DIRECTORY)?
                } else {
                    self.top.clone()
                };
            }
            28 => {
                self.creds = match input.byte() % 3 {
                    0 => Creds::root(),
                    1 => Creds::user(7, 7, Arc::from([8])),
                    _ => Creds::user(8, 8, Arc::from([])),
                };
                self.umask = input.of(&[0o022, 0, 0o777]);
            }
            29 => {
                let (base, path) = (self.base(input), input.path());
                let socket = UnixDatagram::unbound().map_err(|_| Errno::EMFILE)?;
                let binding = Binding {
                    socket: socket.as_fd(),
                    path: path.get(..SUN_PATH).unwrap_or(&path),
                };
                vfs.bind_socket(&self.cx(), &base, &binding)?;
            }
            30 => {
                let (base, path) = (self.base(input), input.path());
                self.no_sentinel(vfs.socket_path(&self.cx(), &base, &path)?);
            }
            _ => {
                let how = input.lookup();
                let place = self.find(input, how)?;
                self.no_sentinel(place.inode().host_path()?);
            }
        }
        Ok(())
    }

    fn open(&mut self, input: &mut Input) -> Result<()> {
        let base = self.base(input);
        let path = input.path();
        let mut flags = input.of(&[libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, 3]);
        let more = [
            libc::O_CREAT,
            libc::O_EXCL,
            libc::O_TRUNC,
            libc::O_NOFOLLOW,
            libc::O_DIRECTORY,
            libc::O_PATH,
            libc::O_TMPFILE,
            libc::O_NONBLOCK,
        ];
        let bits = input.byte();
        for (i, flag) in more.iter().enumerate() {
            if bits >> i & 1 != 0 {
                flags |= flag;
            }
        }
        // O_PATH and O_TMPFILE change what the others mean: not as often.
        if bits & 0x30 != 0x30 {
            flags &= !(libc::O_PATH | (libc::O_TMPFILE & !libc::O_DIRECTORY));
        }
        let how = OpenHow {
            flags,
            mode: input.of(MODES),
            lookup: input.lookup(),
        };
        let fd = match self.vfs.open(&self.cx(), &base, &path, &how)? {
            Opened::File(fd) | Opened::Other(fd) => fd,
            Opened::Blocking(place, _) => {
                self.inside(&place);
                return Ok(());
            }
        };
        let mut file = self.no_sentinel(fd);
        let m = file.metadata().expect("fstat of our descriptor");
        let place = self.vfs.locate(id(&m)).expect("what was opened is known");
        self.inside(&place);
        if m.is_dir() {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let entries = std::fs::read_dir(path).map(Iterator::count);
            assert_eq!(
                entries.ok(),
                Some(0),
                "a directory of the host was handed out"
            );
        }
        if m.is_file() && flags & libc::O_ACCMODE != libc::O_RDONLY {
            // As the guest may, unseen.
            let _ = file.write_all(b"written");
        }
        if self.descriptors.len() < MAX_KEPT {
            self.descriptors.push(file.into());
        }
        Ok(())
    }

    fn set_attributes(&mut self, input: &mut Input) -> Result<()> {
        let how = input.lookup();
        let place = self.find(input, how)?;
        let (cx, vfs) = (self.cx(), &self.vfs);
        match input.byte() % 6 {
            0 => vfs.chmod(&cx, &place, input.of(MODES)),
            1 => {
                let ids = [None, Some(0), Some(7), Some(8), Some(u32::MAX - 1)];
                vfs.chown(&cx, &place, input.of(&ids), input.of(&ids))
            }
            2 => {
                let sizes = [0, 1, 100, 4096, 8193, 1 << 40, i64::MAX as u64, u64::MAX];
                vfs.truncate(&cx, &place, input.of(&sizes))
            }
            3 => {
                let at = |sec| Some(SetTime::At(Timespec { sec, nsec: 5 }));
                let times = [None, Some(SetTime::Now), at(0), at(-1), at(i64::MAX)];
                vfs.utimes(&cx, &place, input.of(&times), input.of(&times))
            }
            4 => vfs.access(&cx, &place, u32::from(input.byte() & 7)),
            _ => vfs.readlink(&cx, &place).map(drop),
        }
    }

    fn extended_attributes(&mut self, input: &mut Input) -> Result<()> {
        let how = input.lookup();
        let place = self.find(input, how)?;
        let (name, value) = (input.of(XATTRS), input.of(VALUES));
        let (cx, vfs) = (self.cx(), &self.vfs);
        match input.byte() % 4 {
            0 => {
                vfs.set_xattr(&cx, &place, name, value, input.of(&[0, 0, 1, 2, 3, 4]))?;
                if let Ok(now) = vfs.get_xattr(&cx, &place, name) {
                    assert_eq!(now, value, "an attribute that was just set");
                }
            }
            1 => drop(vfs.get_xattr(&cx, &place, name)?),
            2 => {
                for name in vfs.list_xattr(&cx, &place)? {
                    let own = name.starts_with(b"user.duet.");
                    let kind = place.mount.sb().fs().type_name();
                    assert!(!own || kind != "host", "an attribute of Duet's own");
                    match vfs.get_xattr(&cx, &place, &name) {
                        Ok(_) | Err(Errno::EACCES) => (),
                        Err(e) => panic!("{name:?} is listed, but {e}"),
                    }
                }
            }
            _ => vfs.remove_xattr(&cx, &place, name)?,
        }
        Ok(())
    }

    /// Part of a directory, from anywhere.
    fn list(&mut self, input: &mut Input) -> Result<()> {
        let place = self.find(input, Lookup::FOLLOW)?;
        let cookie = input.of(&[0, 1, 2, 3, 5, 1 << 20, (1 << 62) - 1, u64::MAX]);
        let mut room = input.byte() % 16;
        let mut last = cookie;
        let host = place.mount.sb().fs().type_name() == "host";
        self.vfs.read_dir(&self.cx(), &place, cookie, &mut |e| {
            // Those of a host directory are the host's, which may count downwards.
            assert!(host || e.next > last, "cookies grow");
            last = e.next;
            room = room.saturating_sub(1);
            room > 0
        })
    }

    /// That the tree as a whole makes sense.
    fn check_tree(&mut self) {
        (self.root, self.cwd) = (self.top.clone(), self.top.clone());
        self.creds = Creds::root();
        let mut links: HashMap<(u64, u64), (u32, u32, Vec<u8>)> = HashMap::new();
        let mut todo = vec![self.top.clone()];
        while let Some(dir) = todo.pop() {
            let (path, state) = dir.path(&self.top);
            assert_eq!(state, PathState::Reachable, "{}", show(&path));
            let subdirectories = self.check_directory(&dir, &path, &mut todo, &mut links);
            let a = dir.attr().expect("attributes of a directory");
            assert!(
                a.nlink == 1 || a.nlink == 2 + subdirectories,
                "{} has {} links, {subdirectories} subdirectories",
                show(&path),
                a.nlink
            );
        }
        for (nlink, found, path) in links.into_values() {
            assert_eq!(nlink, found, "links of {}", show(&path));
        }
    }

    /// Looks at every entry; counts subdirectories.
    fn check_directory(
        &self,
        dir: &Location,
        path: &[u8],
        todo: &mut Vec<Location>,
        links: &mut HashMap<(u64, u64), (u32, u32, Vec<u8>)>,
    ) -> u32 {
        let mut entries: HashMap<Vec<u8>, DirEntry> = HashMap::new();
        let cx = self.cx();
        let listed = self.vfs.read_dir(&cx, dir, 0, &mut |e| {
            let twice = entries.insert(e.name.clone(), e);
            assert!(twice.is_none(), "{twice:?} twice in {}", show(path));
            true
        });
        listed.unwrap_or_else(|e| panic!("{} cannot be listed: {e}", show(path)));
        for name in [&b"."[..], b".."] {
            assert!(
                entries.remove(name).is_some(),
                "no {name:?} in {}",
                show(path)
            );
        }
        for name in NAMES.iter().filter(|n| n.len() <= 255) {
            let found = self.vfs.resolve(&cx, dir, name, Lookup::empty());
            assert_eq!(
                found.is_ok(),
                entries.contains_key(*name),
                "{} in {}: found or listed, not both",
                show(name),
                show(path)
            );
        }
        let mut subdirectories = 0;
        for (name, entry) in entries {
            let path = [path, b"/", &name].concat();
            let place = self.vfs.resolve(&cx, dir, &name, Lookup::empty());
            let place = place.unwrap_or_else(|e| panic!("{} is listed, but {e}", show(&path)));
            self.inside(&place);
            let a = place.attr().expect("attributes of what was found");
            let kind = place.kind();
            if kind == FileType::Directory {
                subdirectories += 1;
                todo.push(place.clone());
                let up = self.vfs.resolve(&cx, &place, b"..", Lookup::empty());
                assert!(up.is_ok_and(|up| up.same(dir)), "{}/..", show(&path));
            } else {
                let known = links
                    .entry((a.dev, a.ino))
                    .or_insert((a.nlink, 0, path.clone()));
                known.1 += 1;
            }
            // What is listed of a mount point is the directory underneath.
            if Arc::ptr_eq(&place.mount, &dir.mount) {
                // An overlay lists a file that was copied up and renamed by the number of its copy.
                let overlay = dir.mount.sb().fs().type_name() == "overlay";
                assert!(
                    overlay || entry.ino == a.ino,
                    "inode number of {}",
                    show(&path)
                );
                assert!(
                    entry.kind.is_none_or(|k| k == kind),
                    "type of {}",
                    show(&path)
                );
            }
        }
        subdirectories
    }
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

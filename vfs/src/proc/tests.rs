//! The file system as a whole, over the host's own `/proc`.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::pseudo::{Content, Tree};
use super::*;
use crate::inode::{MagicLink, NoCaller};
use crate::mount::{MountFlags, Store, Vfs};
use crate::walk::{Context, Lookup};

/// Feeds `f` random strings over `alphabet` and all bytes.
pub(super) fn for_random_bytes(alphabet: &[u8], mut f: impl FnMut(&[u8])) {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut bytes = Vec::new();
    for _ in 0..20_000 {
        bytes.clear();
        for _ in 0..next() % 96 {
            let any = next();
            bytes.push(if any % 8 == 0 {
                (any >> 8) as u8
            } else {
                alphabet[(any >> 8) % alphabet.len()]
            });
        }
        f(&bytes);
    }
}

struct TestFs(Arc<Dir>);

impl FileSystem for TestFs {
    fn type_name(&self) -> &'static str {
        "tmpfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.0.clone()
    }

    fn statfs(&self) -> Result<StatFs> {
        Err(Errno::ENOSYS)
    }

    fn dentry_policy(&self) -> DentryPolicy {
        DentryPolicy::Exclusive
    }
}

/// The process that runs the tests, as a guest.
struct Caller(i32);

impl crate::inode::Caller for Caller {
    fn pid(&self) -> i32 {
        self.0
    }

    fn tid(&self) -> i32 {
        self.0
    }
}

fn me() -> i32 {
    std::process::id() as i32
}

#[derive(Default)]
struct Source {
    vfs: Mutex<Weak<Vfs>>,
    proc: Option<File>,
    views: Mutex<HashMap<i32, ProcessView>>,
    backing: Mutex<HashMap<BackingId, Location>>,
}

impl ProcessSource for Source {
    fn ns_proc(&self) -> BorrowedFd<'_> {
        self.proc.as_ref().unwrap().as_fd()
    }

    fn process(&self, pid: i32) -> Option<ProcessView> {
        self.views.lock().get(&pid).cloned()
    }

    fn mounts(&self) -> Vec<MountInfo> {
        self.vfs.lock().upgrade().unwrap().mounts()
    }

    fn locate_backing(&self, id: BackingId) -> Option<Location> {
        self.backing.lock().get(&id).cloned()
    }

    fn hostname(&self) -> Vec<u8> {
        b"box".to_vec()
    }
}

/// A tree with `/etc/passwd` and `/proc`, and this process in it.
pub(super) struct Sandbox {
    pub(super) vfs: Arc<Vfs>,
    source: Arc<Source>,
    _dir: tempfile::TempDir,
}

impl Sandbox {
    pub(super) fn new() -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::open(dir.path()).unwrap().into();
        let store = Store {
            files: open(),
            dirs: open(),
        };
        let mut tree = Tree::default();
        tree.dir("proc");
        tree.file("etc/passwd", 0o644, Content::text("root\n"));
        let style = Style {
            file_size: 0,
            blksize: 4096,
            time: now(),
        };
        let root = tree.build(style, &mut 1);
        let flags = MountFlags::empty();
        let vfs = Vfs::new(store, Arc::new(TestFs(root)), flags, "test").unwrap();
        let source = Arc::new(Source {
            proc: Some(File::open("/proc").unwrap()),
            ..Source::default()
        });
        *source.vfs.lock() = Arc::downgrade(&vfs);
        let sandbox = Sandbox {
            vfs,
            source: source.clone(),
            _dir: dir,
        };
        let fs = ProcFs::new(source);
        sandbox
            .vfs
            .mount(&sandbox.at("/proc"), fs, MountFlags::NOSUID, "proc")
            .unwrap();
        let creds = Creds::user(1000, 100, Arc::from([4]));
        sandbox.set(me(), |view| view.creds = Arc::new(creds));
        sandbox.set(1, |view| view.visible = false);
        sandbox
    }

    fn set(&self, pid: i32, change: impl FnOnce(&mut ProcessView)) {
        let root = self.vfs.root();
        let mut views = self.source.views.lock();
        let view = views.entry(pid).or_insert_with(|| ProcessView {
            id: pid as u64,
            creds: Arc::new(Creds::root()),
            umask: 0o27,
            root: root.clone(),
            cwd: root,
            exe: None,
            exe_path: b"/bin/test".to_vec(),
            cmdline_prefix: None,
            auxv: None,
            no_new_privs: false,
            seccomp_filters: 0,
            dumpable: true,
            visible: true,
        });
        change(view);
    }

    fn resolve(&self, path: &str, how: Lookup, pid: i32) -> Result<Location> {
        let root = self.vfs.root();
        let creds = Creds::root();
        let caller = Caller(pid);
        let cx = Context {
            root: &root,
            cwd: &root,
            creds: &creds,
            umask: 0,
            caller: &caller,
        };
        self.vfs.resolve(&cx, &root, path.as_bytes(), how)
    }

    /// The place itself, links at the end not followed.
    pub(super) fn at(&self, path: &str) -> Location {
        self.resolve(path, Lookup::empty(), me()).unwrap()
    }

    fn open(&self, path: &str, flags: i32) -> Result<File> {
        let node = self.resolve(path, Lookup::FOLLOW, me())?;
        Ok(node.inode().open(flags, &Caller(me()))?.fd.into())
    }

    fn text(&self, path: &str) -> String {
        let file = self
            .open(path, libc::O_RDONLY)
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        String::from_utf8_lossy(&host::read_all(file.into()).unwrap()).into_owned()
    }

    fn link(&self, path: &str) -> Result<String> {
        let text = self.at(path).inode().readlink(&Caller(me()))?;
        Ok(String::from_utf8(text).unwrap())
    }

    fn list(&self, path: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut cookie = 0;
        // One entry at a time, as if the guest's buffer were tiny.
        loop {
            let before = names.len();
            let dir = self.at(path);
            dir.inode()
                .read_dir(cookie, &Caller(me()), &mut |e| {
                    if names.len() > before {
                        return false;
                    }
                    assert!(e.next > cookie && e.next < 1 << 62);
                    cookie = e.next;
                    names.push(String::from_utf8(e.name).unwrap());
                    true
                })
                .unwrap();
            if names.len() == before {
                return names;
            }
        }
    }

    fn back(&self, file: &File, path: &str) {
        let meta = file.metadata().unwrap();
        let id = BackingId {
            dev: meta.dev(),
            ino: meta.ino(),
        };
        self.source.backing.lock().insert(id, self.at(path));
    }
}

#[test]
fn self_depends_on_the_caller() {
    let s = Sandbox::new();
    assert_eq!(s.link("/proc/self").unwrap(), me().to_string());
    assert_eq!(
        s.link("/proc/thread-self").unwrap(),
        format!("{0}/task/{0}", me())
    );
    assert_eq!(
        s.at("/proc/self").inode().readlink(&NoCaller),
        Err(Errno::ENOENT)
    );
    assert!(s.text("/proc/thread-self/comm").len() > 1);
}

#[test]
fn every_listed_node_can_be_looked_up_and_has_the_listed_number() {
    let s = Sandbox::new();
    let mut dirs = vec!["/proc".to_owned()];
    let mut seen = 0;
    while let Some(dir) = dirs.pop() {
        for name in s.list(&dir) {
            let path = format!("{dir}/{name}");
            let number = host::parse_number(name.as_bytes());
            if dir == "/proc" && number.is_some_and(|pid| pid != me() && pid != 1) {
                continue;
            }
            // Threads and descriptors of other tests come and go.
            let passing = dir.contains("/task") || dir.contains("/fd") || path.contains("/1/");
            let node = match s.resolve(&path, Lookup::empty(), me()) {
                Err(_) if passing => continue,
                node => node.unwrap_or_else(|e| panic!("{path}: {e}")),
            };
            let Ok(attr) = node.attr() else { continue };
            let mut listed = None;
            let parent = s.at(&dir);
            parent
                .inode()
                .read_dir(0, &Caller(me()), &mut |e| {
                    if e.name == name.as_bytes() {
                        listed = Some((e.ino, e.kind));
                    }
                    true
                })
                .unwrap();
            if let Some((ino, kind)) = listed {
                assert_eq!((ino, kind), (attr.ino, Some(attr.kind())), "{path}");
                assert_eq!(node.kind(), attr.kind());
            }
            seen += 1;
            let dive = !dir.contains("/task") && !path.starts_with("/proc/1/");
            if attr.kind() == FileType::Directory && dive {
                dirs.push(path);
            }
        }
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn every_file_of_the_fixed_tree_can_be_read_and_none_written() {
    let s = Sandbox::new();
    let mut todo = vec!["/proc".to_owned()];
    while let Some(dir) = todo.pop() {
        for name in s.list(&dir) {
            let path = format!("{dir}/{name}");
            if host::parse_number(name.as_bytes()).is_some() {
                continue;
            }
            match s.at(&path).kind() {
                FileType::Directory => todo.push(path),
                FileType::Regular => {
                    s.text(&path);
                    let error = s.open(&path, libc::O_WRONLY).err();
                    assert_eq!(error, Some(Errno::EACCES), "{path}");
                }
                _ => (),
            }
        }
    }
    for absent in [
        "kcore",
        "kallsyms",
        "kmsg",
        "sysrq-trigger",
        "keys",
        "01",
        "0",
    ] {
        let path = format!("/proc/{absent}");
        assert_eq!(
            s.resolve(&path, Lookup::empty(), me()).err(),
            Some(Errno::ENOENT),
            "{path}"
        );
    }
}

#[test]
fn status_shows_virtual_credentials() {
    let s = Sandbox::new();
    let text = s.text("/proc/self/status");
    assert!(text.contains("\nUid:\t1000\t1000\t1000\t1000\n"), "{text}");
    assert!(text.contains("\nGroups:\t4 \n") && text.contains("\nUmask:\t0027\n"));
    assert!(text.contains("\nSeccomp:\t0\n"));
    let attr = s.at("/proc/self/status").attr().unwrap();
    assert_eq!((attr.uid, attr.gid, attr.size), (1000, 100, 0));
    s.set(me(), |view| view.dumpable = false);
    assert_eq!(s.at("/proc/self/status").attr().unwrap().uid, 0);
    let dir = s.resolve("/proc/self", Lookup::FOLLOW, me()).unwrap();
    assert_eq!(dir.attr().unwrap().uid, 1000);
}

#[test]
fn init_is_closed() {
    let s = Sandbox::new();
    assert!(s.text("/proc/1/stat").starts_with("1 (duet-init) "));
    assert!(s.text("/proc/1/status").starts_with("Name:\tduet-init\n"));
    assert_eq!(s.text("/proc/1/comm"), "duet-init\n");
    assert_eq!(s.text("/proc/1/cmdline"), "duet-init\0");
    for file in ["environ", "maps", "smaps", "io"] {
        let error = s.open(&format!("/proc/1/{file}"), libc::O_RDONLY).err();
        assert_eq!(error, Some(Errno::EACCES), "{file}");
    }
    for link in ["exe", "cwd", "root", "ns/net"] {
        assert_eq!(
            s.link(&format!("/proc/1/{link}")).err(),
            Some(Errno::EACCES),
            "{link}"
        );
    }
    for (file, flags) in [("oom_score_adj", libc::O_WRONLY), ("comm", libc::O_RDWR)] {
        let error = s.open(&format!("/proc/1/{file}"), flags).err();
        assert_eq!(error, Some(Errno::EACCES), "{file}");
    }
    assert_eq!(
        s.resolve("/proc/1/fd/0", Lookup::empty(), me()).err(),
        Some(Errno::EACCES)
    );
    let dir = s.at("/proc/1/fd");
    let list = dir.inode().read_dir(0, &Caller(me()), &mut |_| true);
    assert_eq!(list, Err(Errno::EACCES));
}

#[test]
fn others_see_what_ptrace_would_let_them() {
    let s = Sandbox::new();
    let maps = |pid| {
        let node = s.at(&format!("/proc/{}/maps", me()));
        node.inode().open(libc::O_RDONLY, &Caller(pid)).map(drop)
    };
    let other = 2;
    s.set(other, |view| {
        view.creds = Arc::new(Creds::user(1001, 100, Arc::from([])))
    });
    assert_eq!(maps(other), Err(Errno::EACCES));
    s.set(other, |view| {
        view.creds = Arc::new(Creds::user(1000, 100, Arc::from([])))
    });
    assert_eq!(maps(other), Ok(()));
    s.set(me(), |view| view.dumpable = false);
    assert_eq!(maps(other), Err(Errno::EACCES));
    s.set(other, |view| view.creds = Arc::new(Creds::root()));
    assert_eq!(maps(other), Ok(()));
    assert_eq!(maps(3), Err(Errno::EACCES));
}

#[test]
fn a_reused_pid_is_another_process() {
    let s = Sandbox::new();
    let dir = s.resolve("/proc/self", Lookup::FOLLOW, me()).unwrap();
    let status = s.at("/proc/self/status");
    s.set(me(), |view| view.id = 99);
    assert_eq!(
        dir.inode().lookup(b"status", &NoCaller).err(),
        Some(Errno::ENOENT)
    );
    assert_eq!(status.inode().open(0, &NoCaller).err(), Some(Errno::ESRCH));
    assert_eq!(status.attr().err(), Some(Errno::ESRCH));
}

#[test]
fn descriptors_are_nodes_or_harmless() {
    let s = Sandbox::new();
    let secret = tempfile::NamedTempFile::new().unwrap();
    let file = File::open(secret.path()).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    assert_eq!(s.link(&path).unwrap(), "/[host]");
    assert_eq!(s.at(&path).attr().unwrap().mode, libc::S_IFLNK | 0o500);
    // What the sandbox holds for reading cannot be opened for writing.
    assert!(s.open(&path, libc::O_RDONLY).is_ok());
    assert_eq!(s.open(&path, libc::O_RDWR).err(), Some(Errno::EACCES));
    s.back(&file, "/etc/passwd");
    assert_eq!(s.link(&path).unwrap(), "/etc/passwd");
    assert_eq!(s.text(&path), "root\n");
    let info = format!("/proc/self/fdinfo/{}", file.as_raw_fd());
    let ino = s.at("/etc/passwd").attr().unwrap().ino;
    assert!(
        s.text(&info)
            .contains(&format!("mnt_id:\t1\nino:\t{ino}\n")),
        "{}",
        s.text(&info)
    );
    let (read, write) = nix::unistd::pipe().unwrap();
    let pipe = format!("/proc/self/fd/{}", read.as_raw_fd());
    assert!(s.link(&pipe).unwrap().starts_with("pipe:["));
    let again = s.open(&pipe, libc::O_RDWR | libc::O_NONBLOCK).unwrap();
    drop((again, write));
    assert!(
        s.list("/proc/self/fd")
            .contains(&read.as_raw_fd().to_string())
    );
    let gone = s.resolve("/proc/self/fd/987654", Lookup::empty(), me());
    assert_eq!(gone.err(), Some(Errno::ENOENT));
}

#[test]
fn links_lead_to_places() {
    let s = Sandbox::new();
    s.set(me(), |view| view.cwd = s.at("/etc"));
    assert_eq!(s.link("/proc/self/cwd").unwrap(), "/etc");
    assert_eq!(s.text("/proc/self/cwd/passwd"), "root\n");
    assert_eq!(s.link("/proc/self/root").unwrap(), "/");
    assert_eq!(s.link("/proc/self/exe").unwrap(), "/bin/test");
    let exe = s.at("/proc/self/exe").inode().magic_link(&Caller(me()));
    assert!(matches!(exe, Some(Err(Errno::ENOENT))));
    s.set(me(), |view| view.exe = Some(s.at("/etc/passwd")));
    let exe = s.at("/proc/self/exe").inode().magic_link(&Caller(me()));
    assert!(matches!(exe, Some(Ok(MagicLink::Location(_)))));
    assert_eq!(s.link("/proc/self/exe").unwrap(), "/etc/passwd");
    assert!(s.link("/proc/self/ns/pid").unwrap().starts_with("pid:["));
    let ns = s.at("/proc/self/ns/pid").inode().magic_link(&Caller(me()));
    assert!(matches!(ns, Some(Err(Errno::EACCES))));
}

#[test]
fn maps_name_no_host_file() {
    let s = Sandbox::new();
    let exe = std::env::current_exe().unwrap();
    let text = s.text("/proc/self/maps");
    assert!(text.contains("/[unknown]") && text.contains("[stack]"));
    assert!(!text.contains(exe.to_str().unwrap()) && !text.contains("libc"));
    s.back(&File::open(&exe).unwrap(), "/etc/passwd");
    assert!(s.text("/proc/self/maps").contains("/etc/passwd\n"));
    assert!(s.text("/proc/self/smaps").contains("/etc/passwd\nSize:"));
}

#[test]
fn a_script_is_seen_as_its_interpreter() {
    let s = Sandbox::new();
    let plain = s.text("/proc/self/cmdline");
    let rest = plain.split_once('\0').unwrap().1.to_owned();
    s.set(me(), |view| {
        view.cmdline_prefix = Some(b"/bin/sh\0-e\0/x.sh\0".to_vec())
    });
    assert_eq!(
        s.text("/proc/self/cmdline"),
        format!("/bin/sh\0-e\0/x.sh\0{rest}")
    );
}

#[test]
fn names_and_mounts_are_the_sandboxs() {
    let s = Sandbox::new();
    assert_eq!(s.text("/proc/sys/kernel/hostname"), "box\n");
    assert_ne!(
        s.text("/proc/sys/kernel/random/uuid"),
        s.text("/proc/sys/kernel/random/uuid")
    );
    let boot_id = s.text("/proc/sys/kernel/random/boot_id");
    assert_eq!(boot_id, s.text("/proc/sys/kernel/random/boot_id"));
    assert!(
        s.text("/proc/mounts")
            .contains("proc /proc proc rw,nosuid,relatime 0 0\n")
    );
    assert_eq!(s.text("/proc/loadavg").split(' ').count(), 5);
    assert_eq!(s.text("/proc/self/cgroup"), "0::/\n");
    assert_eq!(
        s.open("/proc/self/uid_map", libc::O_WRONLY).err(),
        Some(Errno::EPERM)
    );
    assert!(
        s.open("/proc/self/oom_score_adj", libc::O_RDWR | libc::O_TRUNC)
            .is_ok()
    );
    assert!(s.text("/proc/net/dev").contains("lo:"));
}

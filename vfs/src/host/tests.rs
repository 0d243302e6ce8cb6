use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use super::*;
use crate::inode::NoCaller;
use crate::unix::Binding;

/// Runs `f` as an ordinary user (a thread of its own has its own credentials), and as what we are.
pub(crate) fn as_both(f: impl Fn() + Send + Sync) {
    f();
    if nix::unistd::geteuid().is_root() {
        as_nobody(f);
    }
}

/// Runs `f` on a thread with the credentials of `nobody`.
pub(crate) fn as_nobody(f: impl FnOnce() + Send) {
    const NOBODY: u32 = 65534;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: plain system calls; unlike glibc's functions they change this thread only.
            unsafe {
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>());
                libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY);
                libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY);
            }
            assert_eq!(nix::unistd::geteuid().as_raw(), NOBODY);
            f();
        });
    });
}

fn new(mode: u32, uid: u32, gid: u32) -> NewNode {
    NewNode { mode, uid, gid }
}

fn open(dir: &tempfile::TempDir) -> (Arc<HostFs>, Arc<dyn Inode>) {
    let fs = HostFs::open(dir.path(), HostOptions::default()).unwrap();
    let root = fs.root();
    (fs, root)
}

fn names(dir: &Arc<dyn Inode>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    dir.read_dir(0, &NoCaller, &mut |e| {
        assert!(names.insert(String::from_utf8(e.name).unwrap()));
        true
    })
    .unwrap();
    names
}

#[test]
fn owners_modes_and_devices_are_virtual_and_survive_a_new_mount() {
    as_both(|| {
        let dir = tempfile::tempdir().unwrap();
        {
            let (_fs, root) = open(&dir);
            root.create(b"suid", new(0o4755, 0, 0)).unwrap();
            root.create(b"plain", new(0o644, 0, 0)).unwrap();
            let file = root.create(b"file", new(0o400, 0, 0)).unwrap();
            let change = SetAttr {
                uid: Some(12),
                gid: Some(34),
                ..SetAttr::default()
            };
            file.set_attr(&change).unwrap();
            root.mkdir(b"dir", new(0o1111, 5, 6)).unwrap();
            root.mknod(
                b"null",
                FileType::CharDevice,
                libc::makedev(1, 3),
                new(0o666, 0, 0),
            )
            .unwrap();
            root.mknod(b"whiteout", FileType::CharDevice, 0, new(0o600, 0, 0))
                .unwrap();
            root.mknod(b"fifo", FileType::Fifo, 0, new(0o622, 0, 0))
                .unwrap();
            root.mknod(b"sock", FileType::Socket, 0, new(0o666, 0, 0))
                .unwrap();
            let link = root
                .symlink(b"link", b"/etc/shadow", new(0o777, 0, 0))
                .unwrap();
            link.set_attr(&SetAttr {
                uid: Some(3),
                ..SetAttr::default()
            })
            .unwrap();
            assert_eq!(link.attr().unwrap().uid, 3);
            assert_eq!(link.readlink(&NoCaller).unwrap(), b"/etc/shadow");
        }
        let (_fs, root) = open(&dir);
        let see = |name: &[u8]| {
            let inode = root.lookup(name, &NoCaller).unwrap();
            let a = inode.attr().unwrap();
            assert_eq!(inode.kind(), a.kind());
            assert_eq!(inode.owner().unwrap(), (a.mode, a.uid, a.gid));
            (a.mode, a.uid, a.gid, a.rdev)
        };
        assert_eq!(see(b"suid"), (0o104755, 0, 0, 0));
        assert_eq!(see(b"plain"), (0o100644, 0, 0, 0));
        assert_eq!(see(b"file"), (0o100400, 12, 34, 0));
        assert_eq!(see(b"dir"), (0o041111, 5, 6, 0));
        assert_eq!(see(b"null"), (0o020666, 0, 0, libc::makedev(1, 3)));
        assert_eq!(see(b"whiteout").3, 0);
        assert_eq!(see(b"fifo").0, 0o010622);
        assert_eq!(see(b"sock").0, 0o140666);
        let real = |name: &str| std::fs::symlink_metadata(dir.path().join(name)).unwrap();
        assert_eq!(real("suid").mode(), 0o100755);
        assert!(real("null").is_file());
        let mut listed = Vec::new();
        root.read_dir(0, &NoCaller, &mut |e| {
            listed.push((e.name, e.kind));
            true
        })
        .unwrap();
        assert!(listed.contains(&(b"null".to_vec(), Some(FileType::CharDevice))));
        assert!(listed.contains(&(b"plain".to_vec(), Some(FileType::Regular))));
        // The 0400 file of the fake root stays open to it.
        let file = root.lookup(b"file", &NoCaller).unwrap();
        file.open(libc::O_RDWR, &NoCaller).unwrap();
        assert!(
            root.lookup(b"plain", &NoCaller)
                .unwrap()
                .list_xattr()
                .unwrap()
                .is_empty()
        );
        assert!(file.list_xattr().unwrap().is_empty());
        assert_eq!(
            file.get_xattr(b"user.duet.meta").unwrap_err(),
            Errno::ENODATA
        );
        assert_eq!(
            file.set_xattr(b"user.duet.meta", b"x", 0).unwrap_err(),
            Errno::EPERM
        );
        assert_eq!(
            file.set_xattr(b"user.overlay.opaque", b"y", 0).unwrap_err(),
            Errno::EPERM
        );
        file.set_xattr(b"security.capability", b"caps", 0).unwrap();
        assert_eq!(
            file.list_xattr().unwrap(),
            [b"security.capability".to_vec()]
        );
        assert_eq!(file.get_xattr(b"security.capability").unwrap(), b"caps");
        file.remove_xattr(b"security.capability").unwrap();
        assert_eq!(
            file.get_xattr(b"security.capability").unwrap_err(),
            Errno::ENODATA
        );
    });
}

#[test]
fn links_share_an_inode_and_symbolic_links_are_not_followed() {
    as_both(|| {
        let dir = tempfile::tempdir().unwrap();
        let (_fs, root) = open(&dir);
        let file = root.create(b"a", new(0o644, 0, 0)).unwrap();
        root.link(b"b", &file).unwrap();
        assert_eq!(root.link(b"b", &file).unwrap_err(), Errno::EEXIST);
        let again = root.lookup(b"b", &NoCaller).unwrap();
        assert!(Arc::ptr_eq(&file, &again));
        assert_eq!(file.attr().unwrap().nlink, 2);
        let link = root.symlink(b"up", b"..", new(0o777, 0, 0)).unwrap();
        assert_eq!(link.kind(), FileType::Symlink);
        assert_eq!(link.lookup(b"x", &NoCaller).err(), Some(Errno::ENOTDIR));
        root.link(b"up2", &link).unwrap();
        let times = SetAttr {
            mtime: Some(SetTime::At(Timespec { sec: 77, nsec: 5 })),
            ..SetAttr::default()
        };
        link.set_attr(&times).unwrap();
        assert_eq!(link.attr().unwrap().mtime, Timespec { sec: 77, nsec: 5 });
        let temp = root.tmpfile(new(0o600, 1, 1)).unwrap();
        assert_eq!(temp.attr().unwrap().nlink, 0);
        root.link(b"named", &temp).unwrap();
        let named = root.lookup(b"named", &NoCaller).unwrap();
        assert_eq!(named.attr().unwrap().uid, 1);
        root.rename(b"named", &root, b"renamed", 0).unwrap();
        assert_eq!(root.lookup(b"named", &NoCaller).err(), Some(Errno::ENOENT));
        assert_eq!(root.unlink(b"named").unwrap_err(), Errno::ENOENT);
        named
            .set_attr(&SetAttr {
                size: Some(4096),
                ..SetAttr::default()
            })
            .unwrap();
        assert_eq!(named.attr().unwrap().size, 4096);
        assert_eq!(
            root.set_attr(&SetAttr {
                size: Some(0),
                ..SetAttr::default()
            })
            .err(),
            Some(Errno::EISDIR)
        );
    });
}

#[test]
fn a_file_changed_by_another_is_seen_in_a_shared_tree() {
    let dir = tempfile::tempdir().unwrap();
    let options = HostOptions {
        shared: true,
        ..HostOptions::default()
    };
    let fs = HostFs::open(dir.path(), options).unwrap();
    let root = fs.root();
    assert!(root.revalidate(b"f", None));
    let path = dir.path().join("f");
    std::fs::write(&path, "1").unwrap();
    assert!(!root.revalidate(b"f", None));
    let f = root.lookup(b"f", &NoCaller).unwrap();
    assert!(root.revalidate(b"f", Some(&*f)));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(f.owner().unwrap().0 & 0o777, 0o640);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "2").unwrap();
    assert!(!root.revalidate(b"f", Some(&*f)));
}

#[test]
fn a_read_only_tree_refuses_changes_and_a_file_can_be_a_root() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "text").unwrap();
    let options = HostOptions {
        read_only: true,
        ..HostOptions::default()
    };
    let fs = HostFs::open(&dir.path().join("f"), options).unwrap();
    let f = fs.root();
    assert_eq!(f.kind(), FileType::Regular);
    assert_eq!(f.open(libc::O_RDWR, &NoCaller).err(), Some(Errno::EROFS));
    assert_eq!(f.lookup(b"x", &NoCaller).err(), Some(Errno::ENOTDIR));
    f.open(libc::O_RDONLY, &NoCaller).unwrap();
    let fs = HostFs::open(dir.path(), options).unwrap();
    let root = fs.root();
    assert_eq!(
        root.create(b"x", new(0o644, 0, 0)).err(),
        Some(Errno::EROFS)
    );
    assert_eq!(root.unlink(b"f").err(), Some(Errno::EROFS));
    assert_eq!(fs.statfs().unwrap().namelen, 255);
}

#[test]
fn kernel_interfaces_inside_a_tree_are_empty() {
    let fs = HostFs::open(Path::new("/"), HostOptions::default()).unwrap();
    let proc = fs.root().lookup(b"proc", &NoCaller).unwrap();
    assert_eq!(proc.lookup(b"self", &NoCaller).err(), Some(Errno::ENOENT));
    assert!(names(&proc).is_empty());
}

#[test]
fn sockets_bind_by_short_and_long_names() {
    use std::os::fd::AsRawFd;
    let dir = tempfile::tempdir().unwrap();
    let (_fs, root) = open(&dir);
    for name in [vec![b's'; 9], vec![b'l'; 200]] {
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        // As of a socket that is bound by more than its name.
        let binding = |socket| Binding {
            socket,
            path: b"dir/s",
        };
        let node = root
            .bind_socket(&name, &binding(socket.as_fd()), new(0o755, 1, 2))
            .unwrap();
        let attr = node.attr().unwrap();
        assert_eq!((attr.mode, attr.uid, attr.gid), (0o140755, 1, 2));
        nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let path = node.host_path().unwrap();
        std::os::unix::net::UnixStream::connect(format!("/proc/self/fd/{}", path.as_raw_fd()))
            .unwrap();
        let other = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let taken = root
            .bind_socket(&name, &binding(other.as_fd()), new(0o755, 0, 0))
            .err();
        assert_eq!(taken, Some(Errno::EADDRINUSE));
    }
    assert_eq!(names(&root).len(), 2);
}

#[test]
fn a_large_directory_lists_in_full_while_it_is_emptied() {
    let dir = tempfile::tempdir().unwrap();
    let count = 20_000;
    for n in 0..count {
        std::fs::hard_link(dir.path().join("0"), dir.path().join(n.to_string()))
            .or_else(|_| std::fs::write(dir.path().join(n.to_string()), ""))
            .unwrap();
    }
    let (_fs, root) = open(&dir);
    let mut seen = 0;
    let mut cookie = 0;
    loop {
        let mut batch = Vec::new();
        root.read_dir(cookie, &NoCaller, &mut |e| {
            if batch.len() == 300 {
                return false;
            }
            assert!(e.next > cookie && e.next < 1 << 62, "{cookie} {}", e.next);
            cookie = e.next;
            batch.push(e.name);
            true
        })
        .unwrap();
        if batch.is_empty() {
            break;
        }
        seen += batch.len();
        for name in batch {
            root.unlink(&name).unwrap();
        }
        // Another reader in between takes the kept stream away.
        if seen % 9 == 0 {
            let mut one = 0;
            root.read_dir(0, &NoCaller, &mut |_| {
                one += 1;
                one < 3
            })
            .unwrap();
        }
    }
    assert_eq!(seen, count);
    assert!(names(&root).is_empty());
}

#[test]
fn without_attributes_the_record_is_kept_for_the_run() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let dir = tempfile::tempdir().unwrap();
    let kind = Some("ramfs");
    if let Err(e) = mount(kind, dir.path(), kind, MsFlags::empty(), None::<&str>) {
        eprintln!("SKIPPED: a file system without attributes cannot be mounted here: {e}");
        return;
    }
    let (fs, root) = open(&dir);
    let rdev = libc::makedev(1, 3);
    root.mknod(b"null", FileType::CharDevice, rdev, new(0o666, 0, 0))
        .unwrap();
    let file = root.create(b"f", new(0o4711, 3, 4)).unwrap();
    assert_eq!(file.set_xattr(b"user.a", b"1", 0), Err(Errno::EOPNOTSUPP));
    drop(file);
    let file = root.lookup(b"f", &NoCaller).unwrap().attr().unwrap();
    assert_eq!((file.mode, file.uid, file.gid), (0o104711, 3, 4));
    let null = root.lookup(b"null", &NoCaller).unwrap();
    assert_eq!(
        (null.kind(), null.attr().unwrap().rdev),
        (FileType::CharDevice, rdev)
    );
    assert!(fs.tree.memory.lock().len() == 2);
    drop(null);
    for name in [b"f".as_slice(), b"null"] {
        // As the walk does, which looks a name up before it removes it.
        let _held = root.lookup(name, &NoCaller).unwrap();
        root.unlink(name).unwrap();
    }
    assert!(fs.tree.memory.lock().is_empty());
    drop((fs, root));
    umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
}

use super::*;
use crate::unix::Binding;
use crate::walk::PathState;

#[test]
fn descriptors_lead_back_to_their_places() {
    let f = Fixture::new();
    f.mkdir("d");
    f.write("d/file", "text");
    f.symlink("d/file", "l");
    let file = f.open("l", libc::O_RDONLY).unwrap();
    assert_eq!(f.path(&locate(&f, &file).unwrap()), "/d/file");
    let dir = f.open("d", libc::O_RDONLY | libc::O_DIRECTORY).unwrap();
    let again = f.open("d", libc::O_PATH).unwrap();
    assert!(locate(&f, &dir).unwrap().same(&f.at("d")));
    assert!(locate(&f, &again).unwrap().same(&f.at("d")));
    let link = f.open("l", libc::O_PATH | libc::O_NOFOLLOW).unwrap();
    assert_eq!(locate(&f, &link).unwrap().kind(), FileType::Symlink);
    assert_eq!(f.open("l", libc::O_NOFOLLOW).err(), Some(Errno::ELOOP));
    let both = libc::O_NOFOLLOW | libc::O_DIRECTORY;
    assert_eq!(f.open("l", both).err(), Some(Errno::ENOTDIR));
    f.rename("d", "e", 0).unwrap();
    assert_eq!(f.path(&locate(&f, &file).unwrap()), "/e/file");
    f.unlink("e/file").unwrap();
    let gone = locate(&f, &file).unwrap();
    assert_eq!(gone.path(&f.root).1, PathState::Deleted);
    let attr = gone.attr().unwrap();
    assert_eq!((attr.nlink, attr.size), (0, 4));
    // And can be opened again, as through /proc/self/fd.
    let Opened::File(fd) = f.vfs.open_location(&f.cx(), &gone, libc::O_RDONLY).unwrap() else {
        panic!("blocks");
    };
    let mut buf = [0; 8];
    assert_eq!(nix::unistd::read(&fd, &mut buf).unwrap(), 4);
}

#[test]
fn big_nameless_files_are_let_go() {
    let f = Fixture::new();
    let mut held = Vec::new();
    for n in 0..3 {
        let name = format!("big{n}");
        f.write(&name, &"x".repeat(2 << 20));
        held.push(f.open(&name, libc::O_RDONLY).unwrap());
        f.unlink(&name).unwrap();
    }
    drop(held);
    for _ in 0..4 {
        f.write("small", "x");
        f.unlink("small").unwrap();
    }
    let files = std::fs::read_dir(f.store.path().join("files")).unwrap();
    assert_eq!(files.count(), 0);
    let deleted = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|e| std::fs::read_link(e.ok()?.path()).ok())
        .filter(|l| l.starts_with(f.store.path()) && l.to_string_lossy().ends_with("(deleted)"))
        .filter(|l| std::fs::metadata(l).is_ok_and(|m| m.len() > 1 << 20))
        .count();
    assert_eq!(deleted, 0);
}

#[test]
fn a_file_without_a_name_can_be_given_one() {
    let f = Fixture::new();
    f.mkdir("d");
    let tmp = libc::O_TMPFILE;
    assert_eq!(f.open("d", tmp).err(), Some(Errno::EINVAL));
    let fd = f.open("d", tmp | libc::O_RDWR).unwrap();
    nix::unistd::write(&fd, b"text").unwrap();
    let place = locate(&f, &fd).unwrap();
    f.vfs.link(&f.cx(), &place, &f.cwd, b"d/named").unwrap();
    let attr = f.at("d/named").attr().unwrap();
    assert_eq!((attr.nlink, attr.size), (1, 4));
    let fd = f.open("d", tmp | libc::O_RDWR | libc::O_EXCL).unwrap();
    let place = locate(&f, &fd).unwrap();
    let link = f.vfs.link(&f.cx(), &place, &f.cwd, b"d/other");
    assert_eq!(link, Err(Errno::ENOENT));
}

fn nofile() -> usize {
    use nix::sys::resource::{Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    usize::try_from(soft).unwrap()
}

#[test]
fn stand_ins_are_bounded_and_never_mistaken() {
    let f = Fixture::new();
    let limit = (nofile() / 8).clamp(64, 16384);
    let n = limit + limit / 4;
    f.mkdir("first");
    let held = f.open("first", libc::O_RDONLY).unwrap();
    for i in 0..n {
        let name = format!("d{i}");
        f.mkdir(&name);
        let fd = f.open(&name, libc::O_RDONLY).unwrap();
        assert_eq!(f.path(&locate(&f, &fd).unwrap()), format!("/{name}"));
    }
    for i in 0..n {
        let name = format!("d{i}");
        let fd = f.open(&name, libc::O_PATH).unwrap();
        assert_eq!(f.path(&locate(&f, &fd).unwrap()), format!("/{name}"));
    }
    // Its stand-in has lost its name long ago, and still says what it is.
    assert_eq!(f.path(&locate(&f, &held).unwrap()), "/first");
    let second = f.open("first", libc::O_RDONLY).unwrap();
    assert_eq!(f.path(&locate(&f, &second).unwrap()), "/first");
    let dirs = std::fs::read_dir(f.store.path().join("dirs")).unwrap();
    assert!(dirs.count() <= limit + 8);
}

/// What stands for a place stands for another only when nobody has it open, by whatever descriptor.
#[test]
fn stand_ins_are_used_again() {
    let f = Fixture::new();
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    // Enough of them that they are watched.
    let limit = (nofile() / 8).clamp(64, 16384);
    for i in 0..limit / 4 + 8 {
        let name = format!("d{i}");
        f.mkdir(&name);
        f.open(&name, flags).unwrap();
    }
    let id = |fd: &OwnedFd| nix::sys::stat::fstat(fd).unwrap().st_ino;
    let made = |name: &str| {
        f.mkdir(name);
        f.open(name, flags).unwrap()
    };
    // A child that another test forks may have it for a moment.
    let (number, second) = (0..100)
        .find_map(|_| {
            let first = made("first");
            let number = id(&first);
            drop(first);
            f.rmdir("first").unwrap();
            let second = made("second");
            if id(&second) == number {
                return Some((number, second));
            }
            f.rmdir("second").unwrap();
            None
        })
        .unwrap();
    assert_eq!(f.path(&locate(&f, &second).unwrap()), "/second");
    // A copy is held, and the place is gone.
    let copy = second.try_clone().unwrap();
    drop(second);
    f.rmdir("second").unwrap();
    let third = made("third");
    assert_ne!(id(&third), number);
    let gone = locate(&f, &copy).unwrap();
    assert_eq!(gone.path(&f.root).1, PathState::Deleted);
    // Opened twice, and closed once.
    let again = f.open("third", flags).unwrap();
    let number = id(&third);
    drop(third);
    f.rmdir("third").unwrap();
    let fourth = made("fourth");
    assert_ne!(id(&fourth), number);
    let gone = locate(&f, &again).unwrap();
    assert_eq!(gone.path(&f.root).1, PathState::Deleted);
}

#[test]
fn fifos_and_sockets() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, listen, socket};
    use std::os::fd::AsFd;
    let f = Fixture::new();
    f.vfs
        .mknod(&f.cx(), &f.cwd, b"p", libc::S_IFIFO | 0o644, 0)
        .unwrap();
    assert_eq!(f.open("p", libc::O_RDONLY).err(), Some(Errno::EWOULDBLOCK));
    assert_eq!(
        f.open("p", libc::O_WRONLY | libc::O_NONBLOCK).err(),
        Some(Errno::ENXIO)
    );
    let both = f.open("p", libc::O_RDWR).unwrap();
    nix::unistd::write(&both, b"x").unwrap();
    let reader = f
        .vfs
        .open_blocking(&f.cx(), &f.at("p"), libc::O_RDONLY)
        .unwrap();
    assert_eq!(nix::unistd::read(&reader, &mut [0; 4]).unwrap(), 1);

    let make = || {
        socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )
        .unwrap()
    };
    let sock = make();
    let bind = |s: &OwnedFd| {
        let (socket, path) = (s.as_fd(), &b"s"[..]);
        let binding = Binding { socket, path };
        f.vfs.bind_socket(&f.cx(), &f.cwd, &binding).map(drop)
    };
    bind(&sock).unwrap();
    assert_eq!(bind(&make()), Err(Errno::EADDRINUSE));
    assert_eq!(f.at("s").attr().unwrap().mode, libc::S_IFSOCK | 0o755);
    assert_eq!(f.open("s", libc::O_RDONLY).err(), Some(Errno::ENXIO));
    listen(&sock, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
    let path = f.vfs.socket_path(&f.cx(), &f.cwd, b"s").unwrap();
    let path = crate::host_call::proc_fd(std::os::fd::AsRawFd::as_raw_fd(&path));
    std::os::unix::net::UnixStream::connect(path).unwrap();
    let refused = f.vfs.socket_path(&f.cx(), &f.cwd, b"p").err();
    assert_eq!(refused, Some(Errno::ECONNREFUSED));
}

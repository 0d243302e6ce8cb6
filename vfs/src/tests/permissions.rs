use super::*;
use crate::mount::Recursion;
use crate::perm;

fn user(f: &mut Fixture, uid: u32) {
    f.creds = Creds::user(uid, uid, Arc::from([]));
}

fn chmod(f: &Fixture, path: &str, mode: u32) -> Result<()> {
    f.vfs.chmod(&f.cx(), &f.at(path), mode)
}

fn mode(f: &Fixture, path: &str) -> u32 {
    f.at(path).attr().unwrap().mode & 0o7777
}

#[test]
fn set_id_bits_go_when_contents_or_owner_change() {
    let mut f = Fixture::new();
    chmod(&f, "/", 0o777).unwrap();
    f.write("s", "x");
    chmod(&f, "s", 0o6777).unwrap();
    f.open("s", libc::O_WRONLY).unwrap();
    assert_eq!(mode(&f, "s"), 0o6777);
    user(&mut f, 7);
    f.open("s", libc::O_RDONLY).unwrap();
    assert_eq!(mode(&f, "s"), 0o6777);
    f.open("s", libc::O_WRONLY).unwrap();
    assert_eq!(mode(&f, "s"), 0o777);
    f.creds = Creds::root();
    chmod(&f, "s", 0o6777).unwrap();
    f.vfs.chown(&f.cx(), &f.at("s"), Some(3), None).unwrap();
    assert_eq!(mode(&f, "s"), 0o777);
}

#[test]
fn noatime_and_attributes_need_the_owner() {
    let mut f = Fixture::new();
    f.write("r", "x");
    chmod(&f, "r", 0o666).unwrap();
    f.mkdir("d");
    chmod(&f, "d", 0o1777).unwrap();
    user(&mut f, 7);
    assert_eq!(f.open("r", libc::O_NOATIME).err(), Some(Errno::EPERM));
    let set = |f: &Fixture, path: &str, name: &str| {
        f.vfs
            .set_xattr(&f.cx(), &f.at(path), name.as_bytes(), b"v", 0)
    };
    set(&f, "r", "user.x").unwrap();
    assert_eq!(set(&f, "r", "user."), Err(Errno::EINVAL));
    assert_eq!(set(&f, "r", "odd.x"), Err(Errno::EOPNOTSUPP));
    assert_eq!(
        set(&f, "r", "system.posix_acl_access"),
        Err(Errno::EOPNOTSUPP)
    );
    assert_eq!(set(&f, "r", "trusted.x"), Err(Errno::EPERM));
    assert_eq!(set(&f, "r", "security.x"), Err(Errno::EPERM));
    assert_eq!(set(&f, "d", "user.x"), Err(Errno::EPERM));
    f.creds = Creds::root();
    set(&f, "r", "trusted.x").unwrap();
    assert_eq!(f.vfs.list_xattr(&f.cx(), &f.at("r")).unwrap().len(), 2);
    user(&mut f, 7);
    assert_eq!(f.vfs.list_xattr(&f.cx(), &f.at("r")).unwrap(), [b"user.x"]);
    let get = f.vfs.get_xattr(&f.cx(), &f.at("r"), b"trusted.x");
    assert_eq!(get, Err(Errno::ENODATA));
}

#[test]
fn a_read_only_or_limited_mount_says_so() {
    let f = Fixture::new();
    f.mkdir("m");
    f.write("m/f", "x");
    let c = libc::S_IFCHR | 0o666;
    let null = libc::makedev(1, 3);
    f.vfs.mknod(&f.cx(), &f.cwd, b"m/null", c, null).unwrap();
    f.vfs
        .mknod(&f.cx(), &f.cwd, b"m/mem", c, libc::makedev(1, 1))
        .unwrap();
    f.open("m/null", libc::O_RDWR).unwrap();
    assert_eq!(f.open("m/mem", libc::O_RDONLY).err(), Some(Errno::ENXIO));
    f.mkdir("b");
    let all = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOEXEC;
    f.vfs.bind(&f.at("b"), &f.at("m"), Recursion::One).unwrap();
    f.vfs.remount(&f.at("b"), all).unwrap();
    assert_eq!(f.open("b/null", libc::O_RDWR).err(), Some(Errno::EACCES));
    assert_eq!(f.open("b/f", libc::O_RDWR).err(), Some(Errno::EROFS));
    assert_eq!(
        f.open("b/f", libc::O_RDONLY | libc::O_TRUNC).err(),
        Some(Errno::EROFS)
    );
    f.open("b/f", libc::O_RDONLY | libc::O_CREAT).unwrap();
    let access = |mask| f.vfs.access(&f.cx(), &f.at("b/f"), mask);
    assert_eq!(access(perm::WRITE), Err(Errno::EROFS));
    assert_eq!(access(perm::EXEC), Err(Errno::EACCES));
    assert_eq!(f.unlink("b/f"), Err(Errno::EROFS));
    assert_eq!(f.unlink("b/g"), Err(Errno::ENOENT));
    assert_eq!(f.vfs.mkdir(&f.cx(), &f.cwd, b"b/f", 0), Err(Errno::EEXIST));
    assert_eq!(f.vfs.mkdir(&f.cx(), &f.cwd, b"b/g", 0), Err(Errno::EROFS));
    assert_eq!(f.vfs.truncate(&f.cx(), &f.at("b/f"), 0), Err(Errno::EROFS));
}

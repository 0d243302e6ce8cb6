use super::*;
use crate::inode::NoCaller;
use crate::tests::{Fixture, locate};
use crate::{Lookup, MountFlags};

fn with_dev() -> Fixture {
    let f = Fixture::new();
    f.mkdir("dev");
    let files = f.vfs.store().files.try_clone().unwrap();
    let none = MountFlags::empty();
    f.vfs
        .mount(&f.at("dev"), new_dev(files).unwrap(), none, "dev")
        .unwrap();
    f.vfs
        .mount(&f.at("dev/pts"), PtsFs::new(), none, "devpts")
        .unwrap();
    f
}

#[test]
fn harmless_devices_open_and_others_do_not() {
    let f = with_dev();
    let zero = f.open("dev/zero", libc::O_RDONLY).unwrap();
    let mut buf = [1; 4];
    nix::unistd::read(&zero, &mut buf).unwrap();
    assert_eq!(buf, [0; 4]);
    f.open("dev/null", libc::O_WRONLY | libc::O_TRUNC | libc::O_CREAT)
        .unwrap();
    let full = f.open("dev/full", libc::O_WRONLY).unwrap();
    assert_eq!(nix::unistd::write(&full, b"x"), Err(Errno::ENOSPC));
    let attr = f.at("dev/urandom").attr().unwrap();
    assert_eq!(attr.rdev, libc::makedev(1, 9));
    assert_eq!(attr.mode, libc::S_IFCHR | 0o666);
    let kmsg = open_device(FileType::CharDevice, libc::makedev(1, 11), 0, &NoCaller);
    assert_eq!(kmsg.err(), Some(Errno::ENXIO));
    let block = open_device(FileType::BlockDevice, libc::makedev(1, 3), 0, &NoCaller);
    assert_eq!(block.err(), Some(Errno::ENXIO));
}

#[test]
fn terminals_are_those_made_here() {
    let f = with_dev();
    assert_eq!(f.names("dev/pts"), [".", "..", "ptmx"]);
    assert_eq!(f.missing("dev/pts/0"), Errno::ENOENT);
    let outside = nix::pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
    assert_eq!(f.names("dev/pts").len(), 3);
    let master = match f.open("dev/ptmx", libc::O_RDWR) {
        Ok(master) => master,
        Err(e) => {
            eprintln!("skipped: the host has no terminals to give: {e}");
            return;
        }
    };
    let names = f.names("dev/pts");
    let path = format!("dev/pts/{}", names[3]);
    let terminal = f.at(&path);
    assert_eq!(terminal.attr().unwrap().mode, libc::S_IFCHR | 0o620);
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    unsafe {
        libc::ioctl(
            std::os::fd::AsRawFd::as_raw_fd(&master),
            libc::TIOCSPTLCK,
            &unlock,
        )
    };
    let slave = f.open(&path, libc::O_RDWR).unwrap();
    assert!(locate(&f, &slave).unwrap().kind() == FileType::CharDevice);
    nix::unistd::write(&slave, b"hello").unwrap();
    let mut buf = [0; 16];
    assert_eq!(nix::unistd::read(&master, &mut buf).unwrap(), 5);
    drop((master, slave));
    assert_eq!(f.find(&path, Lookup::FOLLOW).err(), Some(Errno::ENOENT));
    // Someone else's terminal of the same number is not to be had through the old node.
    let next = nix::pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
    nix::pty::unlockpt(&next).unwrap();
    assert!(terminal.inode().open(libc::O_RDWR, &NoCaller).is_err());
    drop(outside);
}

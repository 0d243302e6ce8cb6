use std::os::fd::AsFd;

use super::*;

fn reopen(f: &Fixture, fd: impl AsFd, flags: i32) -> Result<OwnedFd> {
    let place = f.vfs.outside(fd.as_fd().try_clone_to_owned().unwrap())?;
    match f.vfs.open_location(&f.cx(), &place, flags)? {
        Opened::File(fd) | Opened::Other(fd) => Ok(fd),
        Opened::Blocking(place, flags) => f.vfs.open_blocking(&f.cx(), &place, flags),
    }
}

#[test]
fn descriptors_give_no_more_than_they_gave() {
    let mut f = Fixture::new();
    f.creds = Creds::user(1000, 1000, Arc::from([]));
    let (r, w) = nix::unistd::pipe().unwrap();
    let again = reopen(&f, &w, libc::O_WRONLY).unwrap();
    nix::unistd::write(&again, b"x").unwrap();
    assert_eq!(nix::unistd::read(&r, &mut [0; 2]).unwrap(), 1);

    let path = f.store.path().join("host-file");
    std::fs::write(&path, "text").unwrap();
    let read_only = std::fs::File::open(&path).unwrap();
    reopen(&f, &read_only, libc::O_RDONLY).unwrap();
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_eq!(reopen(&f, &read_only, flags).err(), Some(Errno::EACCES));
    }
    let path_only = crate::host_call::o_path(&read_only).unwrap();
    assert_eq!(
        reopen(&f, &path_only, libc::O_WRONLY).err(),
        Some(Errno::EACCES)
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"text");
    let dir = open_dir(f.store.path());
    let dir_place = f.vfs.outside(dir.try_clone().unwrap()).unwrap();
    assert_eq!(
        f.vfs
            .resolve(&f.cx(), &dir_place, b"host-file", Lookup::empty())
            .err(),
        Some(Errno::EACCES)
    );
    f.creds = Creds::root();
    assert_eq!(
        f.vfs
            .resolve(&f.cx(), &dir_place, b"host-file", Lookup::empty())
            .err(),
        Some(Errno::ENOTDIR)
    );
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(reopen(&f, &socket, libc::O_RDWR).err(), Some(Errno::ENXIO));
    let memfd = nix::sys::memfd::memfd_create(c"m", nix::sys::memfd::MFdFlags::empty()).unwrap();
    reopen(&f, crate::host_call::o_path(&memfd).unwrap(), libc::O_RDWR).unwrap();
}

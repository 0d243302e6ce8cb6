//! What each request does, as fuse(4) and the system call behind it have it.

use super::*;

#[test]
fn init_settles_on_what_both_know() {
    let guest = Guest::new();
    let out = guest.init(45).unwrap();
    assert_eq!((out.major, out.minor), (7, KERNEL_MINOR_VERSION));
    assert_eq!(u64::from(out.max_pages) * 4096, u64::from(out.max_write));
    let flags = InitFlags::from_bits(out.flags).unwrap();
    assert!(flags.contains(InitFlags::SUBMOUNTS | InitFlags::HANDLE_KILLPRIV_V2));
    assert_eq!(guest.init(35).unwrap().minor, 35);
    assert_eq!(guest.init(30).err(), Some(Errno::EPROTO));
}

#[test]
fn files_are_made_written_read_and_removed() {
    let mut guest = Guest::new();
    guest.uid = 1000;
    guest.gid = 100;
    let (entry, fh) = guest
        .create(ROOT_ID, "new", libc::O_RDWR | libc::O_EXCL)
        .unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (1000, 100));
    assert_eq!(entry.attr.mode, libc::S_IFREG | 0o644);
    assert_eq!(
        guest
            .create(ROOT_ID, "new", libc::O_RDWR | libc::O_EXCL)
            .err(),
        Some(Errno::EEXIST)
    );
    assert_eq!(guest.write(entry.nodeid, fh, 3, b"abc", 0), Ok(3));
    assert_eq!(guest.read(entry.nodeid, fh, 0, 100).unwrap(), b"\0\0\0abc");
    assert_eq!(guest.read(entry.nodeid, fh, 4, 1).unwrap(), b"b");
    assert_eq!(guest.read(entry.nodeid, fh, 6, 100).unwrap(), b"");
    assert_eq!(guest.attr(entry.nodeid).unwrap().size, 6);

    // Unlinked, and still open.
    guest.unlink(ROOT_ID, "new").unwrap();
    assert_eq!(guest.lookup(ROOT_ID, "new").err(), Some(Errno::ENOENT));
    assert_eq!(guest.attr(entry.nodeid).unwrap().nlink, 0);
    assert_eq!(guest.read(entry.nodeid, fh, 3, 100).unwrap(), b"abc");
    guest.release(entry.nodeid, fh).unwrap();
    assert_eq!(guest.read(entry.nodeid, fh, 0, 1).err(), Some(Errno::EBADF));
}

#[test]
fn a_file_open_for_reading_follows_a_copy_up() {
    let guest = Guest::new();
    let file = guest.walk("file").unwrap().nodeid;
    let reading = guest.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(file, reading, 0, 10).unwrap(), b"lower");
    let writing = guest.open(file, libc::O_WRONLY).unwrap();
    assert_eq!(guest.write(file, writing, 0, b"upper", 0), Ok(5));
    assert_eq!(guest.read(file, reading, 0, 10).unwrap(), b"upper");
    // So it does after a truncation alone.
    let inner = guest.walk("d/inner").unwrap().nodeid;
    let reading = guest.open(inner, libc::O_RDONLY).unwrap();
    let set = SetattrIn {
        valid: Fattr::SIZE.bits(),
        size: 2,
        ..SetattrIn::default()
    };
    assert_eq!(guest.setattr(inner, set).unwrap().size, 2);
    assert_eq!(guest.read(inner, reading, 0, 10).unwrap(), b"in");
    // The host's file is as it was.
    let host = std::fs::read(guest.lower.join("file")).unwrap();
    assert_eq!(host, b"lower");
}

#[test]
fn writing_and_chown_clear_what_they_must() {
    let guest = Guest::new();
    let (entry, fh) = guest.create(ROOT_ID, "su", libc::O_RDWR).unwrap();
    let node = entry.nodeid;
    let mode = |mode| SetattrIn {
        valid: Fattr::MODE.bits(),
        mode,
        ..SetattrIn::default()
    };
    let set_capability = || {
        let fixed = SetxattrIn { size: 4, flags: 0 };
        let body = [fixed.as_bytes(), b"security.capability\0caps"].concat();
        guest.bytes(Opcode::Setxattr, node, &body).unwrap();
    };
    let capability = || {
        let fixed = GetxattrIn {
            size: 64,
            padding: 0,
        };
        guest.with(Opcode::Getxattr, node, &fixed, &["security.capability"])
    };
    guest.setattr(node, mode(0o6755)).unwrap();
    set_capability();
    assert_eq!(capability().unwrap(), b"caps");
    // By one who may keep set-id bits: they stay, capabilities go.
    guest.write(node, fh, 0, b"x", 0).unwrap();
    assert_eq!(guest.attr(node).unwrap().mode & 0o7777, 0o6755);
    assert_eq!(capability().err(), Some(Errno::ENODATA));
    set_capability();
    guest.write(node, fh, 0, b"x", WRITE_KILL_SUIDGID).unwrap();
    assert_eq!(guest.attr(node).unwrap().mode & 0o7777, 0o755);
    assert_eq!(capability().err(), Some(Errno::ENODATA));
    guest.setattr(node, mode(0o4755)).unwrap();
    let chown = SetattrIn {
        valid: Fattr::UID.bits(),
        uid: 7,
        ..SetattrIn::default()
    };
    let attr = guest.setattr(node, chown).unwrap();
    assert_eq!((attr.mode & 0o7777, attr.uid), (0o755, 7));
}

#[test]
fn hard_links_are_one_node() {
    let guest = Guest::new();
    let (entry, _) = guest.create(ROOT_ID, "a", libc::O_RDWR).unwrap();
    let link = LinkIn {
        oldnodeid: entry.nodeid,
    };
    let reply = guest.with(Opcode::Link, ROOT_ID, &link, &["b"]).unwrap();
    let linked = EntryOut::read_from_prefix(&reply).map_err(drop).unwrap().0;
    assert_eq!((linked.nodeid, linked.attr.nlink), (entry.nodeid, 2));
    assert_eq!(guest.lookup(ROOT_ID, "b").unwrap().nodeid, entry.nodeid);
    // rename(2) of one name over the other does nothing, here as in the table of nodes.
    guest.rename((ROOT_ID, "a"), (ROOT_ID, "b"), 0).unwrap();
    assert_eq!(guest.lookup(ROOT_ID, "a").unwrap().nodeid, entry.nodeid);
    guest.unlink(ROOT_ID, "b").unwrap();
    assert_eq!(guest.attr(entry.nodeid).unwrap().nlink, 1);
}

#[test]
fn a_nameless_file_can_get_a_name() {
    let guest = Guest::new();
    let create = CreateIn {
        flags: (libc::O_RDWR | libc::O_TMPFILE) as u32,
        mode: libc::S_IFREG | 0o600,
        ..CreateIn::default()
    };
    let reply = guest
        .with(Opcode::Tmpfile, ROOT_ID, &create, &["ignored"])
        .unwrap();
    let (entry, rest) = EntryOut::read_from_prefix(&reply).map_err(drop).unwrap();
    let (open, _) = OpenOut::read_from_prefix(rest).map_err(drop).unwrap();
    assert_eq!(entry.attr.nlink, 0);
    guest.write(entry.nodeid, open.fh, 0, b"text", 0).unwrap();
    let link = LinkIn {
        oldnodeid: entry.nodeid,
    };
    guest
        .with(Opcode::Link, ROOT_ID, &link, &["named"])
        .unwrap();
    let named = guest.lookup(ROOT_ID, "named").unwrap();
    assert_eq!((named.nodeid, named.attr.size), (entry.nodeid, 4));
}

#[test]
fn nodes_of_other_kinds_keep_what_they_are() {
    let guest = Guest::new();
    let dev = libc::makedev(259, 70000);
    let mknod = MknodIn {
        mode: libc::S_IFBLK | 0o660,
        // new_encode_dev(259:70000)
        rdev: (70000 & 0xff) | (259 << 8) | ((70000 & !0xff) << 12),
        ..MknodIn::default()
    };
    let reply = guest
        .with(Opcode::Mknod, ROOT_ID, &mknod, &["blk"])
        .unwrap();
    let entry = EntryOut::read_from_prefix(&reply).map_err(drop).unwrap().0;
    assert_eq!(entry.attr.mode, libc::S_IFBLK | 0o660);
    assert_eq!(entry.attr.rdev, mknod.rdev);
    assert_eq!(
        super::find(&guest.server.vfs, b"/blk").attr().unwrap().rdev,
        dev
    );
    assert_eq!(
        guest.open(entry.nodeid, libc::O_RDONLY).err(),
        Some(Errno::EINVAL),
        "a device is not the server's to open"
    );
    let reply = guest
        .with(Opcode::Symlink, ROOT_ID, &(), &["link", "../any where"])
        .unwrap();
    let entry = EntryOut::read_from_prefix(&reply).map_err(drop).unwrap().0;
    let text = guest.bytes(Opcode::Readlink, entry.nodeid, &[]).unwrap();
    assert_eq!(text, b"../any where");
}

#[test]
fn mounts_are_announced_and_are_borders() {
    let guest = Guest::new();
    let tmp = guest.lookup(ROOT_ID, "tmp").unwrap();
    assert_eq!(tmp.attr.flags, ATTR_SUBMOUNT);
    assert_eq!(guest.lookup(ROOT_ID, "d").unwrap().attr.flags, 0);
    guest.create(tmp.nodeid, "t", libc::O_RDWR).unwrap();
    assert_eq!(
        guest.rename((tmp.nodeid, "t"), (ROOT_ID, "t"), 0).err(),
        Some(Errno::EXDEV)
    );
    let rmdir = guest.with(Opcode::Rmdir, ROOT_ID, &(), &["tmp"]);
    assert_eq!(rmdir.err(), Some(Errno::EBUSY));
}

#[test]
fn listings_are_whole_in_any_portion() {
    let guest = Guest::new();
    for n in 0..40 {
        guest
            .create(ROOT_ID, &format!("n{n}"), libc::O_RDWR)
            .unwrap();
    }
    let all = guest.list(ROOT_ID, 1 << 16).unwrap();
    assert_eq!(all.len(), 40 + 5, "two dots, file, d, tmp: {all:?}");
    for (name, node) in &all {
        let dots = name == "." || name == "..";
        assert_eq!(*node == 0, dots, "{name}");
    }
    assert_eq!(guest.list(ROOT_ID, 400).unwrap(), all);
    assert_eq!(guest.list(ROOT_ID, 100).err(), Some(Errno::EINVAL));
    let file = guest.walk("file").unwrap().nodeid;
    assert_eq!(guest.list(file, 400).err(), Some(Errno::ENOTDIR));
}

#[test]
fn what_is_not_there_may_be_remembered() {
    let guest = Guest::new();
    let entry: EntryOut = guest.ask(Opcode::Lookup, ROOT_ID, b"none\0").unwrap();
    assert_eq!(entry.nodeid, 0);
    assert!(entry.entry_valid > 3600);
}

#[test]
fn holes_ranges_and_copies() {
    let guest = Guest::new();
    let (a, from) = guest.create(ROOT_ID, "a", libc::O_RDWR).unwrap();
    guest.write(a.nodeid, from, 1 << 20, b"data", 0).unwrap();
    let seek = |offset, whence: i32| {
        let seek = LseekIn {
            fh: from,
            offset,
            whence: whence as u32,
            padding: 0,
        };
        guest
            .ask::<LseekOut>(Opcode::Lseek, a.nodeid, seek.as_bytes())
            .map(|out| out.offset)
    };
    assert_eq!(seek(0, libc::SEEK_DATA), Ok(1 << 20));
    assert_eq!(seek(0, libc::SEEK_HOLE), Ok(0));
    assert_eq!(seek(0, libc::SEEK_SET), Err(Errno::EINVAL));
    assert_eq!(seek(1 << 30, libc::SEEK_DATA), Err(Errno::ENXIO));

    let (b, to) = guest.create(ROOT_ID, "b", libc::O_RDWR).unwrap();
    let copy = CopyFileRangeIn {
        fh_in: from,
        off_in: 1 << 20,
        nodeid_out: b.nodeid,
        fh_out: to,
        off_out: 1,
        len: 100,
        flags: 0,
    };
    let out: WriteOut = guest
        .ask(Opcode::CopyFileRange, a.nodeid, copy.as_bytes())
        .unwrap();
    assert_eq!(out.size, 4);
    assert_eq!(guest.read(b.nodeid, to, 0, 9).unwrap(), b"\0data");
    let allocate = FallocateIn {
        fh: to,
        offset: 0,
        length: 4096,
        mode: 0,
        padding: 0,
    };
    guest
        .bytes(Opcode::Fallocate, b.nodeid, allocate.as_bytes())
        .unwrap();
    assert_eq!(guest.attr(b.nodeid).unwrap().size, 4096);
}

#[test]
fn statfs_and_lists_of_attributes() {
    let guest = Guest::new();
    let statfs: StatfsOut = guest.ask(Opcode::Statfs, ROOT_ID, &[]).unwrap();
    assert!(statfs.blocks > 0 && statfs.bsize > 0 && statfs.namelen == 255);
    let file = guest.walk("file").unwrap().nodeid;
    let fixed = SetxattrIn { size: 1, flags: 0 };
    let body = [fixed.as_bytes(), b"user.a\0x"].concat();
    guest.bytes(Opcode::Setxattr, file, &body).unwrap();
    let list = |size| {
        let fixed = GetxattrIn { size, padding: 0 };
        guest.bytes(Opcode::Listxattr, file, fixed.as_bytes())
    };
    assert_eq!(list(100).unwrap(), b"user.a\0");
    assert_eq!(list(6).err(), Some(Errno::ERANGE));
    assert_eq!(list(0).unwrap()[..4], 7u32.to_ne_bytes());
    guest
        .with(Opcode::Removexattr, file, &(), &["user.a"])
        .unwrap();
    assert_eq!(list(100).unwrap(), b"");
}

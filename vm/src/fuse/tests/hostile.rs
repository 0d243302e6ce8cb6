//! Requests that no kernel sends.

use super::*;

#[test]
fn broken_headers_have_no_reply_or_an_error() {
    let guest = Guest::new();
    assert!(guest.send(&[], 100).is_empty());
    assert!(guest.send(&[1; 39], 100).is_empty());
    let good = guest.request(Opcode::Getattr as u32, ROOT_ID, &[0; 16]);
    assert!(guest.bytes_of(&good, 16 + 104).is_ok());
    // No room for the header of a reply; room for that alone.
    assert!(guest.send(&good, 15).is_empty());
    assert_eq!(guest.bytes_of(&good, 16).err(), Some(Errno::EIO));
    // A length that is too short, or beyond the request.
    for len in [0u32, 39, 57, u32::MAX] {
        let mut bad = good.clone();
        bad[..4].copy_from_slice(&len.to_ne_bytes());
        assert_eq!(
            guest.bytes_of(&bad, 200).err(),
            Some(Errno::EINVAL),
            "{len}"
        );
    }
    for opcode in [0, 7, 19, 31, 36 + 100, 4096, u32::MAX] {
        let unknown = guest.request(opcode, ROOT_ID, &[0; 64]);
        assert_eq!(guest.bytes_of(&unknown, 200).err(), Some(Errno::ENOSYS));
    }
}

#[test]
fn names_are_single_components() {
    let guest = Guest::new();
    for name in ["", ".", "..", "a/b", "/", "d/inner"] {
        assert_eq!(
            guest.lookup(ROOT_ID, name).err(),
            Some(Errno::EINVAL),
            "{name}"
        );
        assert_eq!(
            guest.mkdir(ROOT_ID, name).err(),
            Some(Errno::EINVAL),
            "{name}"
        );
        assert_eq!(
            guest.unlink(ROOT_ID, name).err(),
            Some(Errno::EINVAL),
            "{name}"
        );
        let rename = guest.rename((ROOT_ID, "file"), (ROOT_ID, name), 0);
        assert_eq!(rename.err(), Some(Errno::EINVAL), "{name}");
    }
    let long = "x".repeat(256);
    assert_eq!(
        guest.lookup(ROOT_ID, &long).err(),
        Some(Errno::ENAMETOOLONG)
    );
    // Without its NUL.
    let cut = guest.bytes(Opcode::Lookup, ROOT_ID, b"file");
    assert_eq!(cut.err(), Some(Errno::EINVAL));
}

#[test]
fn nodes_and_handles_must_be_ones_given_out() {
    let guest = Guest::new();
    let (a, fh) = guest.create(ROOT_ID, "a", libc::O_RDWR).unwrap();
    let (b, read_only) = guest.create(ROOT_ID, "b", libc::O_RDONLY).unwrap();
    for node in [0, 12345, u64::MAX] {
        assert_eq!(guest.attr(node).err(), Some(Errno::ESTALE));
        assert_eq!(guest.lookup(node, "a").err(), Some(Errno::ESTALE));
    }
    assert_eq!(guest.lookup(a.nodeid, "x").err(), Some(Errno::ENOTDIR));
    for fh in [0, 999, u64::MAX] {
        assert_eq!(guest.read(a.nodeid, fh, 0, 1).err(), Some(Errno::EBADF));
        assert_eq!(guest.release(a.nodeid, fh).err(), Some(Errno::EBADF));
    }
    // A handle of another node; one that is not open for writing.
    assert_eq!(guest.read(b.nodeid, fh, 0, 1).err(), Some(Errno::EBADF));
    let write = guest.write(b.nodeid, read_only, 0, b"x", 0);
    assert_eq!(write.err(), Some(Errno::EBADF));
    // Offsets and sizes beyond what a file can have.
    assert_eq!(
        guest.read(a.nodeid, fh, u64::MAX, 1).err(),
        Some(Errno::EINVAL)
    );
    let write = guest.write(a.nodeid, fh, i64::MAX as u64, b"xy", 0);
    assert!(
        matches!(write, Err(Errno::EINVAL | Errno::EFBIG)),
        "{write:?}"
    );
    let set = SetattrIn {
        valid: Fattr::SIZE.bits(),
        size: u64::MAX,
        ..SetattrIn::default()
    };
    assert_eq!(guest.setattr(a.nodeid, set).err(), Some(Errno::EINVAL));
    // A write that claims more than the request holds.
    let claims = WriteIn {
        fh,
        size: 100,
        ..WriteIn::default()
    };
    let body = [claims.as_bytes(), b"short"].concat();
    let write = guest.bytes(Opcode::Write, a.nodeid, &body);
    assert_eq!(write.err(), Some(Errno::EINVAL));
}

#[test]
fn what_a_guest_can_hold_is_bounded() {
    let guest = Guest::with_limits(100, 8);
    let file = guest.walk("file").unwrap().nodeid;
    let opened: Vec<_> = (0..10).map(|_| guest.open(file, libc::O_RDONLY)).collect();
    assert_eq!(opened.iter().filter(|o| o.is_ok()).count(), 8);
    assert_eq!(opened[9], Err(Errno::ENFILE));
    guest.release(file, opened[0].unwrap()).unwrap();
    assert!(guest.open(file, libc::O_RDONLY).is_ok());
    let request = guest.request(Opcode::Setxattr as u32, file, &vec![0; 200 << 10]);
    assert_eq!(guest.bytes_of(&request, 100).err(), Some(Errno::E2BIG));
}

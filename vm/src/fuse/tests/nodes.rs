//! Node ids: bounded, forgotten, and right after a node has cooled.

use super::*;

#[test]
fn forgotten_nodes_are_gone() {
    let guest = Guest::new();
    let (entry, fh) = guest.create(ROOT_ID, "a", libc::O_RDWR).unwrap();
    guest.lookup(ROOT_ID, "a").unwrap();
    guest.release(entry.nodeid, fh).unwrap();
    guest.forget(entry.nodeid, 1);
    assert!(guest.attr(entry.nodeid).is_ok());
    guest.forget(entry.nodeid, 1);
    assert_eq!(guest.attr(entry.nodeid).err(), Some(Errno::ESTALE));
    // More than there were; the root; what never was.
    let again = guest.lookup(ROOT_ID, "a").unwrap();
    guest.forget(again.nodeid, u64::MAX);
    guest.forget(ROOT_ID, u64::MAX);
    guest.forget(999, 1);
    assert!(guest.attr(ROOT_ID).is_ok());
    assert_eq!(guest.server.nodes.counts(), (0, 0));
}

#[test]
fn a_batch_forgets_each() {
    let guest = Guest::new();
    let nodes: Vec<u64> = (0..5)
        .map(|n| guest.mkdir(ROOT_ID, &format!("{n}")).unwrap().nodeid)
        .collect();
    let head = BatchForgetIn { count: 5, dummy: 0 };
    let mut body = head.as_bytes().to_vec();
    for nodeid in nodes {
        let one = ForgetOne { nodeid, nlookup: 1 };
        body.extend_from_slice(one.as_bytes());
    }
    guest.send(&guest.request(Opcode::BatchForget as u32, 0, &body), 0);
    assert_eq!(guest.server.nodes.counts(), (0, 0));
}

#[test]
fn more_nodes_than_can_be_held() {
    let guest = Guest::with_limits(16, 10);
    let mut files = Vec::new();
    for d in 0..20 {
        let dir = guest.mkdir(ROOT_ID, &format!("d{d}")).unwrap().nodeid;
        for f in 0..10 {
            let name = format!("f{f}");
            let (entry, fh) = guest.create(dir, &name, libc::O_RDWR).unwrap();
            guest
                .write(entry.nodeid, fh, 0, format!("{d}/{f}").as_bytes(), 0)
                .unwrap();
            guest.release(entry.nodeid, fh).unwrap();
            files.push((d, f, dir, entry.nodeid));
        }
    }
    let (known, hot) = guest.server.nodes.counts();
    assert_eq!(known, 220);
    assert!(hot <= 16, "{hot} are hot");

    // Moved while cold: a directory with all below it, a file, two exchanged.
    guest
        .rename((ROOT_ID, "d3"), (files[0].2, "moved"), 0)
        .unwrap();
    guest
        .rename((files[40].2, "f0"), (files[50].2, "g0"), 0)
        .unwrap();
    guest
        .rename(
            (files[60].2, "f0"),
            (files[70].2, "f1"),
            libc::RENAME_EXCHANGE,
        )
        .unwrap();
    // Replaced and removed while cold, and still known to the guest.
    guest
        .rename((files[80].2, "f0"), (files[80].2, "f1"), 0)
        .unwrap();
    guest.unlink(files[90].2, "f0").unwrap();
    for (d, f, _, node) in &files {
        let fh = guest.open(*node, libc::O_RDONLY).unwrap();
        let text = guest.read(*node, fh, 0, 100).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), format!("{d}/{f}"));
        guest.release(*node, fh).unwrap();
    }
    // Found again, they are the same nodes.
    let walked = guest.walk("d0/moved/f7").unwrap().nodeid;
    assert_eq!(walked, files[37].3);
    assert!(guest.server.nodes.counts().1 <= 16 + 2);
}

#[test]
fn a_cold_node_whose_way_is_gone_is_stale() {
    let guest = Guest::with_limits(4, 10);
    let dir = guest.mkdir(ROOT_ID, "dir").unwrap().nodeid;
    let inner = guest.mkdir(dir, "inner").unwrap().nodeid;
    for n in 0..40 {
        guest.mkdir(ROOT_ID, &format!("{n}")).unwrap();
    }
    // A kernel would not forget the directory of what it knows.
    guest.forget(dir, 1);
    assert_eq!(guest.attr(inner).err(), Some(Errno::ESTALE));
}

#[test]
fn a_guest_that_starts_over_has_nothing_open() {
    let guest = Guest::new();
    let (entry, fh) = guest.create(ROOT_ID, "a", libc::O_RDWR).unwrap();
    guest.init(31).unwrap();
    assert_eq!(guest.attr(entry.nodeid).err(), Some(Errno::ESTALE));
    assert_eq!(guest.read(entry.nodeid, fh, 0, 1).err(), Some(Errno::EBADF));
    assert!(guest.lookup(ROOT_ID, "a").is_ok());
}

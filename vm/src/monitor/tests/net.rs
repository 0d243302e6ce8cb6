//! The network device, with a driver outside of any guest and a link of the test's own.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::super::bus::Registers;
use super::driver::{BUFFERS, Driver, WRITE};
use crate::virtio::net::Net;

const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
/// Length of the header before each frame.
const HEADER: usize = 12;

fn card() -> (Driver, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Driver::started(Net::new(theirs).unwrap()), ours)
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

/// What the link gets next.
fn sent(link: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    link.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    link.read_exact(&mut frame).unwrap();
    frame
}

#[test]
fn frames_go_both_ways() {
    let (mut driver, mut link) = card();
    let mut address = [0; 6];
    driver.transport.read(0x100, &mut address);
    assert_eq!(
        address[0] & 3,
        2,
        "an address of one card, of nobody's making"
    );
    // From pieces, the header apart or not.
    let frame: Vec<u8> = (0..100).collect();
    driver.write(BUFFERS, &[&[0; HEADER][..], &frame].concat());
    for pieces in [
        vec![(BUFFERS, 112, 0)],
        vec![(BUFFERS, 12, 0), (BUFFERS + 12, 100, 0)],
        vec![(BUFFERS, 5, 0), (BUFFERS + 5, 50, 0), (BUFFERS + 55, 57, 0)],
    ] {
        assert_eq!(driver.ask(FROM_GUEST, &pieces), 0);
        assert_eq!(sent(&mut link), frame);
    }
    // Two at once, and one in pieces.
    let room = |at| [(BUFFERS + at, 2048, WRITE)];
    let both = [framed(b"first"), framed(b"the second")].concat();
    link.write_all(&both[..both.len() - 3]).unwrap();
    assert_eq!(driver.ask(TO_GUEST, &room(0x1000)), 12 + 5);
    driver.add(TO_GUEST, &room(0x2000));
    driver.kick(TO_GUEST);
    link.write_all(&both[both.len() - 3..]).unwrap();
    assert_eq!(driver.wait(TO_GUEST).1, 12 + 10);
    assert_eq!(driver.read(BUFFERS + 0x1000 + 12, 5), b"first");
    assert_eq!(driver.read(BUFFERS + 0x2000 + 12, 10), b"the second");
    let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    assert_eq!(driver.read(BUFFERS + 0x2000, HEADER), header);
}

#[test]
fn frames_that_do_not_fit_are_dropped_and_no_others() {
    let (mut driver, mut link) = card();
    // Nothing, the header alone, too long, outside of memory, and something to write.
    for pieces in [
        [(BUFFERS, 0, 0)],
        [(BUFFERS, 12, 0)],
        [(BUFFERS, 70_000, 0)],
        [(1 << 40, 100, 0)],
        [(BUFFERS, 100, WRITE)],
    ] {
        assert_eq!(driver.ask(FROM_GUEST, &pieces), 0);
    }
    driver.write(BUFFERS + 12, b"one byte less, and the last");
    assert_eq!(driver.ask(FROM_GUEST, &[(BUFFERS, 13, 0)]), 0);
    assert_eq!(sent(&mut link), b"o");
    link.write_all(&framed(&[7; 200])).unwrap();
    link.write_all(&framed(&[8; 52])).unwrap();
    assert_eq!(driver.ask(TO_GUEST, &[(BUFFERS, 64, WRITE)]), 64);
    assert_eq!(driver.read(BUFFERS + 12, 52), [8; 52]);
    // The longest there is.
    link.write_all(&framed(&[9; 65_549])).unwrap();
    assert_eq!(driver.ask(TO_GUEST, &[(BUFFERS, 70_000, WRITE)]), 65_561);
}

#[test]
fn a_full_link_holds_the_guest_up() {
    let (mut driver, mut link) = card();
    let length = 60_000;
    let frame: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    driver.write(BUFFERS + HEADER as u64, &frame);
    let chain = [(BUFFERS, (HEADER + length) as u32, 0)];
    let total = 50;
    for _ in 0..total {
        driver.add(FROM_GUEST, &chain);
    }
    driver.kick(FROM_GUEST);
    for i in 0..total {
        assert_eq!(sent(&mut link), frame, "frame {i}");
    }
    for _ in 0..total {
        driver.wait(FROM_GUEST);
    }
}

#[test]
fn a_link_that_ends_or_lies_ends_the_traffic_alone() {
    for last in [&[][..], &[0, 0, 0, 0], &[0xff; 8], &[0, 0, 0, 9, 1]] {
        let (mut driver, mut link) = card();
        link.write_all(&framed(b"whole")).unwrap();
        link.write_all(last).unwrap();
        drop(link);
        assert_eq!(driver.ask(TO_GUEST, &[(BUFFERS, 2048, WRITE)]), 17);
        driver.add(TO_GUEST, &[(BUFFERS, 2048, WRITE)]);
        driver.kick(TO_GUEST);
        // Sent to nobody.
        assert_eq!(driver.ask(FROM_GUEST, &[(BUFFERS, 64, 0)]), 0);
        assert_eq!(driver.used(TO_GUEST), None);
        driver.start();
        assert_eq!(driver.ask(FROM_GUEST, &[(BUFFERS, 64, 0)]), 0);
    }
}

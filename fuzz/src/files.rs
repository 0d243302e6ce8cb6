//! The FUSE server under arbitrary requests of a guest.
//!
//! An input is a sequence of requests: mostly of known kinds, on nodes and handles that were given out, with
//! names that lead somewhere; everything else in them is the input's. Whatever they are: nothing panics, no
//! reply is longer than its room or says another length than it has, and nothing outside the tree changes.

use duet_vfs::tmp::TmpOptions;
use duet_vm::fuse::{Segments, Server};
use vm_memory::VolatileSlice;

use crate::site::{Host, unmount};

/// Requests done of one input at most.
const MAX_REQUESTS: usize = 300;
/// Lengths of headers (`struct fuse_in_header`, `struct fuse_out_header`).
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
/// Room for replies.
const ROOM: usize = 8192;

/// Requests: number, length of the fixed part, where a handle is in it, how many names follow.
const KINDS: [(u32, usize, Option<usize>, usize); 37] = [
    (1, 0, None, 1),
    (2, 8, None, 0),
    (3, 16, Some(8), 0),
    (4, 88, Some(8), 0),
    (5, 0, None, 0),
    (6, 0, None, 2),
    (8, 16, None, 1),
    (9, 8, None, 1),
    (10, 0, None, 1),
    (11, 0, None, 1),
    (12, 8, None, 2),
    (13, 8, None, 1),
    (14, 8, None, 0),
    (15, 40, Some(0), 0),
    (16, 40, Some(0), 1),
    (17, 0, None, 0),
    (18, 24, Some(0), 0),
    (20, 16, Some(0), 0),
    (21, 8, None, 2),
    (22, 8, None, 1),
    (23, 8, None, 0),
    (24, 0, None, 1),
    (26, 16, None, 0),
    (27, 8, None, 0),
    (28, 40, Some(0), 0),
    (29, 24, Some(0), 0),
    (34, 8, None, 0),
    (35, 16, None, 1),
    (36, 8, None, 0),
    (38, 0, None, 0),
    (42, 40, None, 0),
    (43, 32, Some(0), 0),
    (44, 40, Some(0), 0),
    (45, 16, None, 2),
    (46, 24, Some(0), 0),
    (47, 56, Some(0), 0),
    (51, 16, None, 1),
];

const NAMES: [&[u8]; 20] = [
    b"a",
    b"b",
    b"file",
    b"d",
    b"dir",
    b"t",
    b"v",
    b"l",
    b"up",
    b"abs",
    b"deep",
    b"set-id",
    b".",
    b"..",
    b"",
    b"a/b",
    b"user.x",
    b"security.capability",
    b"trusted.overlay.opaque",
    &[b'x'; 256],
];

/// The rest of an input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let n = usize::from(self.byte()?);
        from.get(n % from.len()).copied()
    }
}

/// What was given out.
struct Known {
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

/// Does all of an input.
pub fn run(data: &[u8]) {
    let host = Host::new();
    let options = TmpOptions {
        size: Some(1 << 20),
        ..TmpOptions::default()
    };
    let vfs = host.tree(options);
    let server = Server::new(vfs.clone()).expect("a server");
    let mut known = Known {
        nodes: vec![1],
        handles: vec![0],
    };
    let mut input = Input(data);
    // The kernel's first request, without which there is no other.
    let init = [7, 38, 1 << 17, u32::MAX].map(u32::to_ne_bytes).concat();
    send(&server, &mut known, 26, 1, 0, &init, ROOM);
    for _ in 0..MAX_REQUESTS {
        if request(&server, &mut known, &mut input).is_none() {
            break;
        }
    }
    drop(server);
    unmount(&vfs);
    host.check();
}

fn request(server: &Server, known: &mut Known, input: &mut Input<'_>) -> Option<()> {
    let choice = input.byte()?;
    let raw = choice >= 0xf0;
    let (opcode, len, handle, names) = match raw {
        true => (
            u32::from(input.byte()?),
            usize::from(choice & 0xf) * 8,
            None,
            1,
        ),
        false => *KINDS.get(usize::from(choice) % KINDS.len())?,
    };
    let node = match input.byte()? {
        0xff => u64::MAX,
        n => *known.nodes.get(usize::from(n) % known.nodes.len())?,
    };
    let uid = [0, 0, 7][usize::from(input.byte()?) % 3];
    // Fields are small numbers, with now and then a large one; what is left out is 0.
    let mut body = Vec::new();
    while body.len() < len {
        let field = match input.byte()? {
            0xff => u64::MAX,
            0xfe => known.nodes.last().copied()?,
            n @ 0xf0.. => 1 << (n & 0xf) << 4,
            n => n.into(),
        };
        body.extend_from_slice(&field.to_ne_bytes());
    }
    body.truncate(len);
    if let Some(at) = handle {
        let handle = input.pick(&known.handles)?;
        body.get_mut(at..at + 8)?
            .copy_from_slice(&handle.to_ne_bytes());
    }
    // Room on the host is for all: no lengths that take much of it.
    if matches!(opcode, 4 | 43 | 47) {
        for at in [8, 16, 24, 48] {
            if let Some(field) = body.get_mut(at + 3..at + 8).filter(|_| Some(at) != handle) {
                field.fill(0);
            }
        }
    }
    for _ in 0..names {
        body.extend_from_slice(input.pick(&NAMES)?);
        if input.byte()? != 0xff {
            body.push(0);
        }
    }
    let room = match input.byte()? {
        n @ 0..32 => usize::from(n) * 8,
        _ => ROOM,
    };
    send(server, known, opcode, node, uid, &body, room);
    Some(())
}

/// Sends a request and looks at the reply.
fn send(
    server: &Server,
    known: &mut Known,
    opcode: u32,
    node: u64,
    uid: u32,
    body: &[u8],
    room: usize,
) {
    let mut request = Vec::with_capacity(IN_HEADER + body.len());
    let len = (IN_HEADER + body.len()) as u32;
    request.extend_from_slice(&len.to_ne_bytes());
    request.extend_from_slice(&opcode.to_ne_bytes());
    request.extend_from_slice(&77u64.to_ne_bytes());
    request.extend_from_slice(&node.to_ne_bytes());
    for word in [uid, uid, 1, 0] {
        request.extend_from_slice(&u32::to_ne_bytes(word));
    }
    request.extend_from_slice(body);
    let mut reply = vec![0; room];
    // In two pieces each, as they come from a guest.
    let (a, b) = request.split_at_mut(len as usize / 2);
    let pieces = Segments::new(vec![VolatileSlice::from(a), VolatileSlice::from(b)]);
    let (c, d) = reply.split_at_mut(room / 3);
    let answer = Segments::new(vec![VolatileSlice::from(c), VolatileSlice::from(d)]);
    let len = server.handle(pieces, answer);
    assert!(len <= room, "a reply of {len} bytes in {room}");
    if len == 0 {
        return;
    }
    let word = |at: usize| -> Option<u64> {
        let bytes = reply.get(at..at + 8).filter(|_| at + 8 <= len)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    };
    let head = word(0).expect("a reply has a header");
    let (said, error) = (head as u32, (head >> 32) as i32);
    assert_eq!(
        said as usize, len,
        "a reply to {opcode} lies about its length"
    );
    assert!((-511..=0).contains(&error), "error {error} to {opcode}");
    assert_eq!(word(8), Some(77));
    if error != 0 {
        return assert_eq!(len, OUT_HEADER);
    }
    // An entry: a node, and behind it from CREATE and TMPFILE a handle.
    if matches!(opcode, 1 | 6 | 8 | 9 | 13 | 35 | 51) {
        known.nodes.extend(word(OUT_HEADER));
    }
    match opcode {
        14 | 27 => known.handles.extend(word(OUT_HEADER)),
        35 | 51 => known.handles.extend(word(OUT_HEADER + 128)),
        _ => (),
    }
    known.nodes.truncate(64);
    known.handles.truncate(64);
}

//! What the host and the agent, init of the guest, say to one another.
//!
//! They speak over ports of a virtio-console, which are reliable streams of bytes with the sender held
//! up while the receiver is slow:
//!
//! - [`CONTROL`] carries one [`FromGuest`] or [`FromHost`] a frame. The guest begins with
//!   [`FromGuest::Hello`], which stays as it is through all versions; the host answers with
//!   [`FromHost::Start`], or hangs up if it does not speak that [`VERSION`].
//! - [`STDIN`] carries data to the guest, [`STDOUT`] and [`STDERR`] carry it to the host; a frame without
//!   data is the end of the stream. On `STDIN` the guest sends one such frame when it is ready to read,
//!   which the host drops.
//!
//! A frame is its length (32 bits, little endian) and as many bytes. Messages are encoded by `postcard`.
//! The host believes nothing: a frame longer than the receiver allows, or one that does not decode, is an
//! error, and nothing is allocated by a length that was only announced.
#![forbid(unsafe_code)]

pub mod network;

use std::io::{self, ErrorKind, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Which version of the messages this is. Any change of them changes it.
pub const VERSION: u32 = 2;

/// Name of the port for messages.
pub const CONTROL: &str = "duet.control";
/// Name of the port for standard input.
pub const STDIN: &str = "duet.stdin";
/// Name of the port for standard output.
pub const STDOUT: &str = "duet.stdout";
/// Name of the port for standard error.
pub const STDERR: &str = "duet.stderr";

/// Longest frame of data in bytes.
pub const MAX_DATA: usize = 32 * 1024;
/// Longest message to the host in bytes: its largest is a line of text.
pub const MAX_TO_HOST: usize = 4096;
/// Longest message to the guest in bytes: arguments and environment, of which Linux itself takes 6 MiB
/// at most (execve(2)).
pub const MAX_TO_GUEST: usize = 8 << 20;

/// Size of a terminal, as `struct winsize` has it (ioctl_tty(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Rows in characters.
    pub rows: u16,
    /// Columns in characters.
    pub columns: u16,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
}

/// A limit of resources (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// `RLIMIT_*`.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// What to run, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The tag that the root is mounted by (virtio-fs).
    pub root_tag: String,
    /// The executable: a path in the tree.
    pub program: Vec<u8>,
    /// Its arguments, the first one its name.
    pub args: Vec<Vec<u8>>,
    /// Its environment, as `NAME=VALUE`.
    pub env: Vec<Vec<u8>>,
    /// Working directory in the tree.
    pub workdir: Vec<u8>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Host name.
    pub hostname: Vec<u8>,
    /// Which of standard input, output and error are a terminal; the others are pipes.
    pub terminal: [bool; 3],
    /// The terminal's size.
    pub window: WindowSize,
    /// Directories to mount an empty tmpfs of mode 1777 at.
    pub tmpfs: Vec<Vec<u8>>,
    /// Whether to mount a sysfs.
    pub sysfs: bool,
    /// Whether there is a network device to set up for QEMU's user-mode network or one that is alike.
    pub network: bool,
    /// Limits of the program.
    pub limits: Vec<ResourceLimit>,
    /// Processes and threads beside the kernel's own.
    pub processes: Option<u64>,
    /// The time, in nanoseconds since the epoch.
    pub time: u64,
}

/// From the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHost {
    /// Run this. Said once, first.
    Start(Box<Start>),
    /// Send this signal to the program.
    Signal(i32),
    /// Send this signal to the program's process group.
    SignalGroup(i32),
    /// The terminal has another size.
    Window(WindowSize),
    /// Nobody reads standard output (1) or error (2) any more.
    Closed(u8),
}

/// From the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// The agent runs. Said once, first; never changes its form.
    Hello {
        /// The agent's [`VERSION`].
        version: u32,
    },
    /// The program has been started.
    Started,
    /// The kernel refused to execute the program, with this errno.
    CannotExecute(i32),
    /// The program was stopped by this signal.
    Stopped(i32),
    /// The program has ended, its output has been sent, and what it wrote has been flushed. The status is
    /// as wait(2) gives it.
    Ended(i32),
    /// The guest cannot be set up: why.
    Failed(String),
    /// What the program and its descendants used, said before its end.
    Used(Used),
}

/// What processes used, as the guest's kernel counts it (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Processor time in user mode, in microseconds.
    pub user: u64,
    /// Processor time in the kernel, in microseconds.
    pub system: u64,
    /// Most memory that any one of them had resident, in bytes.
    pub peak: u64,
}

/// Writes a frame that holds `message`.
pub fn send<M: Serialize>(to: &mut impl Write, message: &M) -> io::Result<()> {
    let body =
        postcard::to_stdvec(message).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    send_data(to, &body)
}

/// Writes a frame of data; an empty one is the end of the stream.
pub fn send_data(to: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length =
        u32::try_from(data.len()).map_err(|e| io::Error::new(ErrorKind::InvalidInput, e))?;
    // In one piece: a port's write costs a turn to the host and back.
    let mut frame = Vec::with_capacity(4 + data.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(data);
    to.write_all(&frame)
}

/// Reads one message of at most `max` bytes. `None`: the stream has ended before it.
pub fn receive<M: DeserializeOwned>(from: &mut impl Read, max: usize) -> io::Result<Option<M>> {
    let mut body = Vec::new();
    if !receive_data(from, max, &mut body)? {
        return Ok(None);
    }
    decode(&body).map(Some)
}

/// The message in a frame's bytes, which it must fill.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> io::Result<M> {
    let invalid = |text: String| io::Error::new(ErrorKind::InvalidData, text);
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(invalid(format!("{} bytes behind a message", rest.len()))),
        Err(e) => Err(invalid(format!("no message: {e}"))),
    }
}

/// Reads one frame of at most `max` bytes into `data`, in place of what is in it. False: the stream has
/// ended before it.
pub fn receive_data(from: &mut impl Read, max: usize, data: &mut Vec<u8>) -> io::Result<bool> {
    data.clear();
    let mut length = [0; 4];
    let mut got = 0;
    while let Some(rest) = length.get_mut(got..).filter(|r| !r.is_empty()) {
        match from.read(rest) {
            Ok(0) if got == 0 => return Ok(false),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => got += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => (),
            Err(e) => return Err(e),
        }
    }
    let length = u32::from_le_bytes(length);
    if length as usize > max {
        let text = format!("a frame of {length} bytes, where {max} are the most");
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    let got = from.take(length.into()).read_to_end(data)?;
    if got < length as usize {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way() {
        let start = Start {
            args: vec![b"sh".to_vec(), vec![0xff; 300]],
            terminal: [true, false, true],
            ..Start::default()
        };
        let mut bytes = Vec::new();
        let sent = [
            FromHost::Start(Box::new(start)),
            FromHost::Signal(15),
            FromHost::Closed(1),
        ];
        sent.iter().for_each(|m| send(&mut bytes, m).unwrap());
        let mut from = &bytes[..];
        for m in &sent {
            assert_eq!(receive(&mut from, MAX_TO_GUEST).unwrap().as_ref(), Some(m));
        }
        assert_eq!(receive::<FromHost>(&mut from, MAX_TO_GUEST).unwrap(), None);
    }

    #[test]
    fn hello_stays_as_it_is() {
        let mut bytes = Vec::new();
        send(&mut bytes, &FromGuest::Hello { version: 1 }).unwrap();
        assert_eq!(bytes, [2, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn bad_frames_are_errors() {
        let kind = |bytes: &[u8]| {
            receive::<FromGuest>(&mut &bytes[..], MAX_TO_HOST)
                .map_err(|e| e.kind())
                .map(|m| m.is_some())
        };
        assert_eq!(kind(&[]), Ok(false));
        assert_eq!(kind(&[1, 0]), Err(ErrorKind::UnexpectedEof));
        assert_eq!(kind(&[9, 0, 0, 0, 0]), Err(ErrorKind::UnexpectedEof));
        // Too long, though the bytes never come.
        assert_eq!(kind(&[0xff; 4]), Err(ErrorKind::InvalidData));
        // No such message; a message and more; a text longer than its frame.
        assert_eq!(kind(&[1, 0, 0, 0, 99]), Err(ErrorKind::InvalidData));
        assert_eq!(kind(&[3, 0, 0, 0, 0, 1, 7]), Err(ErrorKind::InvalidData));
        assert_eq!(
            kind(&[3, 0, 0, 0, 5, 0x7f, b'x']),
            Err(ErrorKind::InvalidData)
        );
        assert_eq!(kind(&[0, 0, 0, 0]), Err(ErrorKind::InvalidData));
    }

    #[test]
    fn any_bytes_decode_or_fail() {
        let mut seed = 1u64;
        for _ in 0..100_000 {
            let mut body = [0u8; 12];
            for b in &mut body {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
                *b = (seed >> 56) as u8;
            }
            body[0] %= 8;
            if let Ok(m) = decode::<FromGuest>(&body) {
                let again = postcard::to_stdvec(&m).unwrap();
                assert!(again.len() <= body.len());
            }
        }
    }
}

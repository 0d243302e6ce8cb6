//! The socket between the supervisor and the sandbox's init: packets of one tag byte and a payload,
//! some with descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::usage::Usage;

/// Longest payload.
const MAX: usize = 4096;

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// To init: the id maps are written, go on.
    Mapped,
    /// To init: the tree is ready, start the program.
    Start,
    /// From init: set-up failed, with a text for the user.
    Failed(String),
    /// From init, with two descriptors: the private tmpfs and a procfs of the pid namespace.
    Mounts,
    /// From the first guest process, with its listener.
    Listener,
    /// From the first guest process, with a pidfd of it and the end of a pipe that is closed once it is
    /// traced.
    Traceable,
    /// From init, before it says that the program ended: what its children used.
    Used(Usage),
    /// From init: the program ended (status as `wait` gives it).
    Ended(i32),
    /// From init: the program was stopped by this signal.
    Stopped(i32),
    /// To init: send this signal to the program.
    Signal(i32),
    /// To init: send this signal to the program's process group.
    SignalGroup(i32),
    /// To init: set the host name.
    HostName(Vec<u8>),
    /// To init: set the domain name.
    DomainName(Vec<u8>),
    /// From init: an errno, or 0.
    Done(i32),
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        let with = |tag: u8, payload: &[u8]| {
            let mut v = vec![tag];
            v.extend_from_slice(payload.get(..MAX).unwrap_or(payload));
            v
        };
        match self {
            Message::Mapped => with(1, &[]),
            Message::Start => with(2, &[]),
            Message::Failed(text) => with(3, text.as_bytes()),
            Message::Mounts => with(4, &[]),
            Message::Listener => with(5, &[]),
            Message::Ended(s) => with(6, &s.to_le_bytes()),
            Message::Stopped(s) => with(7, &s.to_le_bytes()),
            Message::Signal(s) => with(8, &s.to_le_bytes()),
            Message::SignalGroup(s) => with(9, &s.to_le_bytes()),
            Message::HostName(n) => with(10, n),
            Message::DomainName(n) => with(11, n),
            Message::Done(e) => with(12, &e.to_le_bytes()),
            Message::Traceable => with(13, &[]),
            Message::Used(usage) => with(14, &usage.encode()),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Message> {
        let (&tag, payload) = bytes.split_first()?;
        let number = || payload.try_into().ok().map(i32::from_le_bytes);
        Some(match tag {
            1 => Message::Mapped,
            2 => Message::Start,
            3 => Message::Failed(String::from_utf8_lossy(payload).into_owned()),
            4 => Message::Mounts,
            5 => Message::Listener,
            6 => Message::Ended(number()?),
            7 => Message::Stopped(number()?),
            8 => Message::Signal(number()?),
            9 => Message::SignalGroup(number()?),
            10 => Message::HostName(payload.to_vec()),
            11 => Message::DomainName(payload.to_vec()),
            12 => Message::Done(number()?),
            13 => Message::Traceable,
            14 => Message::Used(Usage::decode(payload)?),
            _ => return None,
        })
    }
}

/// One end.
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    pub fn pair() -> nix::Result<(Channel, Channel)> {
        let kind = SockType::SeqPacket;
        let (a, b) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Channel(a), Channel(b)))
    }

    /// Sends one message with descriptors.
    pub fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
        let bytes = message.encode();
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        loop {
            let iov = [IoSlice::new(&bytes)];
            match sendmsg::<()>(
                self.0.as_raw_fd(),
                &iov,
                control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Err(Errno::EINTR) => continue,
                other => return other.map(drop),
            }
        }
    }

    /// Receives one message and its descriptors. `None`: the other end is gone.
    pub fn receive(&self) -> nix::Result<Option<(Message, Vec<OwnedFd>)>> {
        let mut bytes = [0u8; MAX + 1];
        let mut control = nix::cmsg_space!([RawFd; 4]);
        loop {
            let mut iov = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut control), flags) {
                Err(Errno::EINTR) => continue,
                Err(Errno::ECONNRESET) => return Ok(None),
                Err(e) => return Err(e),
                Ok(m) => {
                    let mut fds = Vec::new();
                    for c in m.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(raw) = c {
                            // SAFETY: the kernel has just made these descriptors ours.
                            fds.extend(
                                raw.into_iter()
                                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                            );
                        }
                    }
                    let n = m.bytes;
                    if n == 0 {
                        return Ok(None);
                    }
                    let message = bytes.get(..n).and_then(Message::decode);
                    return message.map(|m| Some((m, fds))).ok_or(Errno::EBADMSG);
                }
            }
        }
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Channel {
        Channel(fd)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive() {
        let (a, b) = Channel::pair().unwrap();
        let pipe = nix::unistd::pipe().unwrap();
        a.send(&Message::Mounts, &[pipe.0.as_fd(), pipe.1.as_fd()])
            .unwrap();
        a.send(&Message::Failed("no tmpfs".into()), &[]).unwrap();
        let (m, fds) = b.receive().unwrap().unwrap();
        assert_eq!((m, fds.len()), (Message::Mounts, 2));
        let (m, fds) = b.receive().unwrap().unwrap();
        assert_eq!((m, fds.len()), (Message::Failed("no tmpfs".into()), 0));
        let used = Usage {
            user: 7,
            system: u64::MAX,
            peak: 4096,
        };
        a.send(&Message::Used(used), &[]).unwrap();
        assert_eq!(b.receive().unwrap().unwrap().0, Message::Used(used));
        drop(a);
        assert!(b.receive().unwrap().is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Message::decode(&[]), None);
        assert_eq!(Message::decode(&[6, 1]), None);
        assert_eq!(Message::decode(&[14; 16]), None);
        assert_eq!(Message::decode(&[99]), None);
    }
}

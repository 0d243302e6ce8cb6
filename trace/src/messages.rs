//! What goes over sockets: addresses, and messages with what comes beside them.

use std::fmt::Write;

use duet_syscalls::table::Set;

use crate::sets;
use crate::structs::{Fields, Memory};
use crate::text::{address, flags, one, quoted, separate};

impl Memory<'_> {
    /// `struct msghdr`; `total` bytes of it are valid.
    pub fn msghdr(&self, out: &mut String, addr: u64, total: Option<u64>) {
        let Some(bytes) = self.read(addr, 56) else {
            return address(out, addr);
        };
        let f = Fields(&bytes);
        out.push_str("{msg_name=");
        self.sockaddr(out, f.u64(0), u64::from(f.u32(8)));
        let _ = write!(out, ", msg_namelen={}, msg_iov=", f.u32(8));
        self.vectors(out, f.u64(16), f.u64(24), total);
        let _ = write!(out, ", msg_iovlen={}", f.u64(24));
        if f.u64(32) != 0 && f.u64(40) != 0 {
            out.push_str(", msg_control=");
            self.control(out, f.u64(32), f.u64(40));
        }
        let _ = write!(out, ", msg_controllen={}, msg_flags=", f.u64(40));
        flags(out, u64::from(f.u32(48)), sets::of(Set::MSG));
        out.push('}');
    }

    /// `struct msghdr` of a message that did not come.
    pub fn msghdr_names(&self, out: &mut String, addr: u64) {
        match self.read(addr, 56) {
            Some(bytes) => {
                let _ = write!(out, "{{msg_namelen={}}}", Fields(&bytes).u32(8));
            }
            None => address(out, addr),
        }
    }

    /// An array of `struct mmsghdr`, of which `valid` have been sent or have come.
    pub fn messages(
        &self,
        out: &mut String,
        addr: u64,
        count: u64,
        valid: Option<u64>,
        received: bool,
    ) {
        let shown = count.min(valid.unwrap_or(count)).min(64);
        if addr == 0 || shown == 0 && count > 0 && received {
            return address(out, addr);
        }
        out.push('[');
        for i in 0..shown {
            separate(out, &mut (i == 0), ", ");
            let at = addr.wrapping_add(64 * i);
            let Some(len) = self.read(at.wrapping_add(56), 4) else {
                address(out, at);
                continue;
            };
            let len = Fields(&len).u32(0);
            out.push_str("{msg_hdr=");
            self.msghdr(out, at, received.then_some(len.into()));
            if valid.is_some() {
                let _ = write!(out, ", msg_len={len}");
            }
            out.push('}');
        }
        out.push(']');
    }

    fn control(&self, out: &mut String, addr: u64, len: u64) {
        let bytes = self.read(addr, len.min(1024) as usize).unwrap_or_default();
        if bytes.len() < 16 {
            return address(out, addr);
        }
        let (mut at, mut first) = (0usize, true);
        out.push('[');
        while at + 16 <= bytes.len() {
            let f = Fields(bytes.get(at..).unwrap_or_default());
            let len = usize::try_from(f.u64(0)).unwrap_or(usize::MAX);
            separate(out, &mut first, ", ");
            let _ = write!(out, "{{cmsg_len={}, cmsg_level=", f.u64(0));
            one(out, u64::from(f.u32(8)), sets::of(Set::SOL), "SOL_*");
            out.push_str(", cmsg_type=");
            let rights = (f.i32(8), f.i32(12)) == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
            let creds = (f.i32(8), f.i32(12)) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);
            if rights && len >= 16 {
                out.push_str("SCM_RIGHTS, cmsg_data=[");
                let count = (len.min(f.0.len()) - 16) / 4;
                for i in 0..count {
                    separate(out, &mut (i == 0), ", ");
                    self.fd(out, f.i32(16 + 4 * i));
                }
                out.push(']');
            } else if creds {
                let (pid, uid, gid) = (f.u32(16), f.u32(20), f.u32(24));
                let _ = write!(
                    out,
                    "SCM_CREDENTIALS, cmsg_data={{pid={pid}, uid={uid}, gid={gid}}}"
                );
            } else {
                let _ = write!(out, "{:#x}", f.u32(12));
            }
            out.push('}');
            match len.checked_next_multiple_of(8) {
                Some(step) if step >= 16 => at = at.saturating_add(step),
                _ => break,
            }
        }
        out.push(']');
    }

    /// `struct sockaddr` of `len` bytes.
    pub fn sockaddr(&self, out: &mut String, addr: u64, len: u64) {
        let len = len.min(128) as usize;
        let Some(bytes) = self.read(addr, len).filter(|b| addr != 0 && b.len() >= 2) else {
            return address(out, addr);
        };
        let f = Fields(&bytes);
        let family = f.u16(0);
        out.push_str("{sa_family=");
        one(out, u64::from(family), sets::of(Set::AF), "AF_*");
        let port = u16::from_be(f.u16(2));
        match i32::from(family) {
            libc::AF_UNIX if len > 2 => {
                out.push_str(", sun_path=");
                let path = bytes.get(2..).unwrap_or_default();
                match path.split_first() {
                    Some((0, name)) => {
                        out.push('@');
                        quoted(out, name, false);
                    }
                    _ => quoted(
                        out,
                        path.split(|&b| b == 0).next().unwrap_or_default(),
                        false,
                    ),
                }
            }
            libc::AF_INET if len < 16 => data(out, &bytes),
            libc::AF_INET6 if len < 24 => data(out, &bytes),
            libc::AF_INET => {
                let [a, b, c, d] = f.u32(4).to_le_bytes();
                let _ = write!(
                    out,
                    ", sin_port=htons({port}), sin_addr=inet_addr(\"{a}.{b}.{c}.{d}\")"
                );
            }
            libc::AF_INET6 => {
                let ip = std::net::Ipv6Addr::from(f.bytes::<16>(8));
                let flow = u32::from_be(f.u32(4));
                let scope = f.u32(24);
                let _ = write!(
                    out,
                    ", sin6_port=htons({port}), sin6_flowinfo=htonl({flow}), \
                     inet_pton(AF_INET6, \"{ip}\", &sin6_addr), sin6_scope_id={scope}"
                );
            }
            libc::AF_NETLINK => {
                let (pid, groups) = (f.u32(4), f.u32(8));
                let _ = write!(out, ", nl_pid={pid}, nl_groups={groups:08x}");
            }
            _ => (),
        }
        out.push('}');
    }
}

/// What is too short for an address of its family.
fn data(out: &mut String, bytes: &[u8]) {
    out.push_str(", sa_data=");
    quoted(out, bytes.get(2..).unwrap_or_default(), false);
}

//! Binding Unix sockets (unix(7)) so that the kernel calls them what the guest does: it tells peers and
//! receivers of datagrams the very path that was given to bind(2).
//!
//! So the path must lead somewhere when the supervisor binds. A helper does it with a directory of its own
//! as its root, in which the directories of the path stand; then the node moves to its place.

use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{OFlag, RenameFlags};
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;

use crate::account::host;
use crate::counted::{mkdirat, openat, renameat2, unlinkat};
use crate::helper::{Calls, Helper, Namespace};
use crate::types::*;

/// Bytes of `sun_path`.
const SUN_PATH: usize = 108;

/// A Unix socket of the guest that is to be bound.
#[derive(Clone, Copy)]
pub struct Binding<'a> {
    /// The socket.
    pub socket: BorrowedFd<'a>,
    /// The path as the guest gave it, at most 108 bytes.
    pub path: &'a [u8],
}

impl Binding<'_> {
    /// `struct sockaddr_un` as the guest gave it: without a NUL if there is no room for it.
    fn address(&self) -> Vec<u8> {
        let mut address = (libc::AF_UNIX as u16).to_le_bytes().to_vec();
        address.extend_from_slice(self.path);
        if self.path.len() < SUN_PATH {
            address.push(0);
        }
        address
    }

    /// Binds it to the name in `dir` that its path ends with. The path must be flat
    /// ([`Binding::is_flat`]).
    ///
    /// What the host refuses to do for that is EPERM, and the socket is not bound then.
    pub(crate) fn bind_in(&self, dir: BorrowedFd<'_>) -> Result<()> {
        if self.path.contains(&b'/') {
            return self.bind_below(dir);
        }
        let address = self.address();
        let calls = Calls::default().fchdir(dir).bind(self.socket, &address);
        run(calls, Namespace::Same)
    }

    /// What the path ends with.
    pub(crate) fn name(&self) -> &[u8] {
        let name = self.path.rsplit(|&b| b == b'/').next();
        name.unwrap_or_default()
    }

    /// Whether the path leads through no directory but the root, if that is where it starts: then nobody can
    /// exchange one for a link on the way.
    pub(crate) fn is_flat(&self) -> bool {
        let mut on_the_way = self.path.rsplit(|&b| b == b'/').skip(1);
        on_the_way.all(|c| matches!(c, b"" | b"." | b".."))
    }

    /// Binds it to the new name `to` in `dir`, in which the name `scratch` is free. Nobody else may reach
    /// that, as the path leads through directories there.
    ///
    /// What the host refuses to do for that is EPERM, and the socket is not bound then.
    pub(crate) fn bind_as(&self, dir: BorrowedFd<'_>, scratch: &str, to: &str) -> Result<()> {
        mkdirat(dir, scratch, Mode::S_IRWXU)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut made = Vec::new();
        let done = openat(dir, scratch, flags, Mode::empty()).and_then(|root| {
            let root = root.as_fd();
            let bound = self.make_way(root, &mut made).and_then(|name| {
                self.bind_below(root)?;
                renameat2(root, &name[..], dir, to, RenameFlags::RENAME_NOREPLACE)
            });
            for directory in made.iter().rev() {
                unlinkat(root, &directory[..], UnlinkatFlags::RemoveDir)?;
            }
            bound
        });
        unlinkat(dir, scratch, UnlinkatFlags::RemoveDir)?;
        done
    }

    /// Makes the directories of the path below `root`, which holds nothing else; returns where the socket
    /// will be. As there are no links, each `..` leads back to where the component before it came from.
    fn make_way(&self, root: BorrowedFd<'_>, made: &mut Vec<Vec<u8>>) -> Result<Vec<u8>> {
        let mut at: Vec<&[u8]> = Vec::new();
        let mut components = self.path.split(|&b| b == b'/').peekable();
        while let Some(component) = components.next() {
            let last = components.peek().is_none();
            match component {
                b"" | b"." => (),
                b".." => drop(at.pop()),
                _ => {
                    at.push(component);
                    if last {
                        break;
                    }
                    let directory = at.join(&b'/');
                    match mkdirat(root, &directory[..], Mode::S_IRWXU) {
                        Ok(()) => made.push(directory),
                        Err(Errno::EEXIST) => (),
                        Err(e) => return Err(e),
                    }
                }
            }
        }
        Ok(at.join(&b'/'))
    }

    fn bind_below(&self, root: BorrowedFd<'_>) -> Result<()> {
        let address = self.address();
        let bind = |namespace| {
            let calls = Calls::default()
                .fchdir(root)
                .chroot()
                .bind(self.socket, &address);
            run(calls, namespace)
        };
        match bind(Namespace::Same) {
            // Not root, or not wholly.
            Err(Errno::EPERM) => bind(Namespace::New).map_err(|e| match e {
                Errno::EUSERS | Errno::ENOSPC => Errno::EPERM,
                e => e,
            }),
            done => done,
        }
    }
}

fn run(calls: Calls<'_>, namespace: Namespace) -> Result<()> {
    host("bind", || {
        Helper::start(calls, namespace)?.wait_to_the_end()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn sockets_have_the_names_that_were_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let longest = [&b"/"[..], &[b'l'; 107]].concat();
        let paths: [&[u8]; 8] = [
            b"plain",
            b"/run/log/socket",
            b"a/../b/./c//d",
            b"../../up",
            b"/",
            b"./here",
            b"\xff\xfe/\x01",
            &longest,
        ];
        for (n, path) in paths.into_iter().enumerate() {
            let socket = UnixDatagram::unbound().unwrap();
            let binding = Binding {
                socket: socket.as_fd(),
                path,
            };
            let to = n.to_string();
            let done = binding.bind_as(fd.as_fd(), "scratch", &to);
            if path == b"/" {
                assert_eq!(done, Err(Errno::EADDRINUSE));
                continue;
            }
            done.unwrap();
            let address = socket.local_addr().unwrap();
            assert_eq!(address.as_pathname().unwrap().as_os_str().as_bytes(), path);
            let sender = UnixDatagram::unbound().unwrap();
            sender.send_to(b"x", dir.path().join(&to)).unwrap();
            assert_eq!(socket.recv(&mut [0; 2]).unwrap(), 1);
            // Bound once is bound for good.
            let again = binding.bind_as(fd.as_fd(), "scratch", "again");
            assert_eq!(again, Err(Errno::EINVAL));
        }
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, paths.len() - 1, "something is left over");
    }

    #[test]
    fn flat_paths_are_bound_where_they_belong() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        for (path, flat) in [
            (&b"one"[..], true),
            (b"/two", true),
            (b"../.././three", true),
            (b"a/four", false),
            (b"/a/../five", false),
        ] {
            let socket = UnixDatagram::unbound().unwrap();
            let binding = Binding {
                socket: socket.as_fd(),
                path,
            };
            assert_eq!(binding.is_flat(), flat, "{path:?}");
            if flat {
                binding.bind_in(fd.as_fd()).unwrap();
                let address = socket.local_addr().unwrap();
                let name = address.as_pathname().unwrap();
                assert_eq!(name.as_os_str().as_bytes(), path);
                assert!(dir.path().join(name.file_name().unwrap()).exists());
            }
        }
    }

    #[test]
    fn another_user_namespace_serves_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        let binding = Binding {
            socket: socket.as_fd(),
            path: b"/name",
        };
        let address = binding.address();
        let calls = Calls::default()
            .fchdir(fd.as_fd())
            .chroot()
            .bind(socket.as_fd(), &address);
        run(calls, Namespace::New).unwrap();
        assert!(dir.path().join("name").exists());
    }
}

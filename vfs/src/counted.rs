//! Host calls as `nix` has them, each counted in the account of the call that is being served
//! ([`crate::account`]).

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd, RawFd};

use nix::NixPath;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, OpenHow, RenameFlags};
use nix::sys::memfd::MFdFlags;
use nix::sys::socket::UnixAddr;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags};
use nix::sys::statfs::Statfs;
use nix::sys::time::TimeSpec;
use nix::sys::{memfd, stat, statfs, uio};
use nix::unistd::{Gid, Uid, UnlinkatFlags, Whence};
use nix::{fcntl, unistd};

use crate::account::host;
use crate::types::Result;

/// Functions that do what those of `nix` of the same name do.
macro_rules! counted {
    ($($module:ident::$name:ident [$($generics:tt)*] ($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty;)*) => {$(
        #[doc = concat!("`", stringify!($name), "` of the host.")]
        pub fn $name<$($generics)*>($($arg: $ty),*) -> Result<$ret> {
            host(stringify!($name), || $module::$name($($arg),*))
        }
    )*};
}

counted! {
    fcntl::open[P: ?Sized + NixPath](path: &P, flags: OFlag, mode: Mode) -> OwnedFd;
    fcntl::openat[P: ?Sized + NixPath, F: AsFd](dir: F, path: &P, flags: OFlag, mode: Mode) -> OwnedFd;
    fcntl::openat2[P: ?Sized + NixPath, F: AsFd](dir: F, path: &P, how: OpenHow) -> OwnedFd;
    fcntl::readlink[P: ?Sized + NixPath](path: &P) -> OsString;
    fcntl::readlinkat[F: AsFd, P: ?Sized + NixPath](dir: F, path: &P) -> OsString;
    fcntl::renameat2[F: AsFd, P: ?Sized + NixPath, G: AsFd, Q: ?Sized + NixPath](
        from: F, old: &P, to: G, new: &Q, flags: RenameFlags) -> ();
    fcntl::copy_file_range[F: AsFd, G: AsFd](
        from: F, at: Option<&mut i64>, to: G, place: Option<&mut i64>, len: usize) -> usize;
    fcntl::fcntl[F: AsFd](fd: F, arg: FcntlArg) -> i32;
    memfd::memfd_create[P: ?Sized + NixPath](name: &P, flags: MFdFlags) -> OwnedFd;
    stat::fstat[F: AsFd](fd: F) -> FileStat;
    stat::fstatat[F: AsFd, P: ?Sized + NixPath](dir: F, path: &P, flags: AtFlags) -> FileStat;
    stat::mkdirat[F: AsFd, P: ?Sized + NixPath](dir: F, path: &P, mode: Mode) -> ();
    stat::mknodat[F: AsFd, P: ?Sized + NixPath](
        dir: F, path: &P, kind: SFlag, mode: Mode, device: u64) -> ();
    stat::fchmodat[F: AsFd, P: ?Sized + NixPath](
        dir: F, path: &P, mode: Mode, flags: FchmodatFlags) -> ();
    stat::utimensat[F: AsFd, P: ?Sized + NixPath](
        dir: F, path: &P, atime: &TimeSpec, mtime: &TimeSpec, flags: UtimensatFlags) -> ();
    stat::futimens[F: AsFd](fd: F, atime: &TimeSpec, mtime: &TimeSpec) -> ();
    statfs::fstatfs[F: AsFd](fd: F) -> Statfs;
    uio::pread[F: AsFd](fd: F, buf: &mut [u8], at: i64) -> usize;
    uio::pwrite[F: AsFd](fd: F, buf: &[u8], at: i64) -> usize;
    unistd::fchownat[F: AsFd, P: ?Sized + NixPath](
        dir: F, path: &P, user: Option<Uid>, group: Option<Gid>, flags: AtFlags) -> ();
    unistd::ftruncate[F: AsFd](fd: F, len: i64) -> ();
    unistd::truncate[P: ?Sized + NixPath](path: &P, len: i64) -> ();
    unistd::lseek[F: AsFd](fd: F, at: i64, whence: Whence) -> i64;
    unistd::linkat[F: AsFd, P: ?Sized + NixPath, G: AsFd, Q: ?Sized + NixPath](
        from: F, old: &P, to: G, new: &Q, flags: AtFlags) -> ();
    unistd::mkfifoat[F: AsFd, P: ?Sized + NixPath](dir: F, path: &P, mode: Mode) -> ();
    unistd::symlinkat[P: ?Sized + NixPath, F: AsFd, Q: ?Sized + NixPath](
        text: &P, dir: F, path: &Q) -> ();
    unistd::unlinkat[F: AsFd, P: ?Sized + NixPath](dir: F, path: &P, flags: UnlinkatFlags) -> ();
}

/// `bind` of the host.
pub fn bind(socket: RawFd, address: &UnixAddr) -> Result<()> {
    host("bind", || nix::sys::socket::bind(socket, address))
}

/// The contents of a file of the host's `/proc`, in an `openat` and `read`s.
pub fn read_file(path: impl AsRef<std::path::Path>) -> std::io::Result<Vec<u8>> {
    host("read a file", || std::fs::read(path))
}

/// As [`read_file`], of text.
pub fn read_text(path: impl AsRef<std::path::Path>) -> std::io::Result<String> {
    host("read a file", || std::fs::read_to_string(path))
}

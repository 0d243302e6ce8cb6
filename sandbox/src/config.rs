//! What to run, and how: the options of `duet run` in typed form.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

pub use crate::limits::Limits;

/// Where the guest's tree comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Only the program, `/dev`, `/proc` and `/tmp`.
    Bare,
    /// A directory of the host.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whether what the guest writes goes there; else it is thrown away.
        writable: bool,
    },
    /// The host's own tree; what the guest writes is thrown away.
    Host,
}

/// Which network the guest sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// A loopback device of its own.
    None,
    /// The host's.
    Host,
    /// One of its own that a user-space program connects to the host's, with ports of the host that
    /// lead to it.
    User(Vec<Port>),
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// A port of the host that leads to one of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Address on the host that listens.
    pub address: Ipv4Addr,
    /// Port on the host.
    pub host: u16,
    /// Port in the sandbox.
    pub guest: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// A file or directory of the host, shown in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// On the host.
    pub source: PathBuf,
    /// In the tree, absolute.
    pub target: Vec<u8>,
    /// Whether the guest may only read it.
    pub read_only: bool,
}

/// Which engine brings the program's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Seccomp user notification.
    Seccomp,
    /// ptrace(2).
    Ptrace,
}

/// Which calls Duet gets to see. Each native call that it sees is slower than one that it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Those that are not native.
    Intercepted,
    /// Those, and native ones with these numbers.
    With(BTreeSet<u32>),
    /// All.
    All,
}

/// Who sends the messages of sendmsg(2) and sendmmsg(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Messages {
    /// Duet looks at each, and sends those to the path of a Unix socket.
    #[default]
    Seen,
    /// The kernel sends all: at native speed, but to no path. A filter cannot tell them apart.
    Native,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The program: a path in the tree, or a name to look for in `PATH`; with [`Tree::Bare`] a path or
    /// name on the host.
    pub program: CString,
    /// Arguments behind the program's name.
    pub args: Vec<CString>,
    /// Environment, as `NAME=VALUE`.
    pub env: Vec<CString>,
    /// The tree.
    pub tree: Tree,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Whether what the caller owns in a volume, or in [`Tree::Host`], is shown as the guest's user's, not as root's.
    pub keep_id: bool,
    /// Directories to mount an empty tmpfs at.
    pub tmpfs: Vec<Vec<u8>>,
    /// Working directory in the tree; by default the caller's with [`Tree::Host`], else `/`.
    pub workdir: Option<Vec<u8>>,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Host name inside.
    pub hostname: String,
    /// Network.
    pub network: Network,
    /// Limits on what it may use.
    pub limits: Limits,
    /// What brings the calls.
    pub engine: Engine,
    /// Which calls are brought.
    pub seen: Seen,
    /// Who sends messages, where not all calls are brought.
    pub messages: Messages,
    /// Whether busy processes may have an agent ([`duet_intercept::agent`]), with an engine that has them, and
    /// where nobody would see the calls that are made for it.
    pub accelerated: bool,
}

impl Config {
    /// The value of an environment variable of the guest.
    pub fn env_value(&self, name: &[u8]) -> Option<&[u8]> {
        self.env.iter().rev().find_map(|e| {
            e.as_bytes()
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(b"="))
        })
    }
}

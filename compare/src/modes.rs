//! The ways to run a program.

use crate::peers::Peer;

/// A way to run a program: one column of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// On the host's kernel, with nothing between.
    Native,
    /// In the layer, with seccomp user notification.
    Seccomp,
    /// In the layer, with ptrace(2).
    Ptrace,
    /// In a virtual machine.
    Vm,
    /// In the layer, under `duet trace`.
    Trace,
    /// In the layer, under `duet trace --fast`.
    Fast,
    /// Under another program of this kind.
    Peer(Peer),
}

impl Mode {
    /// The host's way and Duet's, without those in which somebody looks on.
    pub const OWN: [Mode; 4] = [Mode::Native, Mode::Seccomp, Mode::Ptrace, Mode::Vm];

    /// Its name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Native => "native",
            Mode::Seccomp => "layer:seccomp",
            Mode::Ptrace => "layer:ptrace",
            Mode::Vm => "vm",
            Mode::Trace => "trace",
            Mode::Fast => "trace:fast",
            Mode::Peer(peer) => peer.name(),
        }
    }

    /// The mode with this name; `layer` is that of the default engine.
    ///
    /// # Errors
    /// A text that names those there are.
    pub fn parse(name: &str) -> std::result::Result<Mode, String> {
        if name == "layer" {
            return Ok(Mode::Seccomp);
        }
        let peers = Peer::ALL.into_iter().map(Mode::Peer);
        let own = || Mode::OWN.into_iter().chain([Mode::Trace, Mode::Fast]);
        let mut all = own().chain(peers);
        all.find(|m| m.name() == name).ok_or_else(|| {
            let own: Vec<_> = own().map(Mode::name).collect();
            let own = own.join(", ");
            let peers = Peer::ALL.map(Peer::name).join(", ");
            format!("{name:?} is no mode; there are {own}, and the peers {peers}")
        })
    }
}

/// A mode that was asked for, and why it cannot be had here, if it cannot.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The mode.
    pub mode: Mode,
    /// The reason, for people.
    pub missing: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        for mode in Mode::OWN.into_iter().chain([Mode::Trace, Mode::Fast]) {
            assert_eq!(Mode::parse(mode.name()), Ok(mode));
        }
        assert_eq!(Mode::parse("layer"), Ok(Mode::Seccomp));
        assert_eq!(Mode::parse("bwrap"), Ok(Mode::Peer(Peer::Bwrap)));
        assert!(Mode::parse("wine").unwrap_err().contains("layer:ptrace"));
    }
}

//! The names of the sandbox's UTS namespace: set by its init, remembered here for `/proc`.

use std::sync::Arc;

use duet_syscalls::kernel::{NameKind, Privileged};
use nix::errno::Errno;
use parking_lot::Mutex;

use crate::channel::Message;
use crate::requests::Requests;

/// What the two names are.
pub struct Names {
    host: Mutex<Vec<u8>>,
    domain: Mutex<Vec<u8>>,
}

impl Names {
    /// The names at the start.
    pub fn new(host: &str) -> Names {
        let host = Mutex::new(host.as_bytes().to_vec());
        Names {
            host,
            domain: Mutex::new(b"(none)".to_vec()),
        }
    }

    /// One of the names.
    pub fn get(&self, which: NameKind) -> Vec<u8> {
        self.slot(which).lock().clone()
    }

    fn slot(&self, which: NameKind) -> &Mutex<Vec<u8>> {
        match which {
            NameKind::Host => &self.host,
            NameKind::Domain => &self.domain,
        }
    }
}

/// Sets names through init.
pub struct Setter {
    /// What is remembered.
    pub names: Arc<Names>,
    /// The way to init.
    pub requests: Arc<Requests>,
}

impl Privileged for Setter {
    fn set_name(&self, name: &[u8], which: NameKind) -> Result<(), Errno> {
        let message = match which {
            NameKind::Host => Message::HostName(name.to_vec()),
            NameKind::Domain => Message::DomainName(name.to_vec()),
        };
        let mut slot = self.names.slot(which).lock();
        self.requests.ask(&message)?;
        *slot = name.to_vec();
        Ok(())
    }
}

//! Names of Unix sockets: what the guest bound, behind what the host kernel was told.
//!
//! A pathname socket is bound by the supervisor through a path of its own; `getsockname` must still
//! say what the guest asked for.

use std::collections::{HashMap, VecDeque};

/// Bound names that are remembered; the oldest is forgotten first.
const MAX_NAMES: usize = 16384;

/// `sun_path` as the host has it → as the guest gave it.
#[derive(Default)]
pub struct SocketNames {
    names: HashMap<Vec<u8>, Vec<u8>>,
    order: VecDeque<Vec<u8>>,
}

impl SocketNames {
    /// Remembers that the guest's `guest` is `host` to the kernel.
    pub fn insert(&mut self, host: Vec<u8>, guest: Vec<u8>) {
        if self.names.insert(host.clone(), guest).is_none() {
            self.order.push_back(host);
        }
        if self.order.len() > MAX_NAMES
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }

    /// What the guest calls the socket that is `host` to the kernel.
    pub fn guest_name(&self, host: &[u8]) -> Option<&[u8]> {
        self.names.get(host).map(Vec::as_slice)
    }
}

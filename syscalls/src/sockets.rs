//! Names of Unix sockets: what the guest bound, behind what the host kernel was told.
//!
//! The kernel knows most by the path that the guest bound them to ([`duet_vfs::Binding`]). In a directory of the
//! host that is so if the path leads through no other. Else they are bound through a path of the supervisor's,
//! and `getsockname` must still say what the guest asked for. Who receives a datagram of such a one is told the
//! supervisor's path by the kernel, and may answer to that.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use duet_vfs::Inode;

/// Bound names that are remembered; the oldest is forgotten first.
const MAX_NAMES: usize = 16384;

struct Bound {
    guest: Vec<u8>,
    node: Weak<dyn Inode>,
}

/// `sun_path` as the host has it → as the guest gave it, and the node.
#[derive(Default)]
pub struct SocketNames {
    names: HashMap<Vec<u8>, Bound>,
    order: VecDeque<Vec<u8>>,
}

impl SocketNames {
    /// Remembers that the guest's `guest`, which is `node`, is `host` to the kernel.
    pub fn insert(&mut self, host: Vec<u8>, guest: Vec<u8>, node: &Arc<dyn Inode>) {
        let node = Arc::downgrade(node);
        let bound = Bound { guest, node };
        if self.names.insert(host.clone(), bound).is_none() {
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
        self.names.get(host).map(|b| b.guest.as_slice())
    }

    /// The node of the socket that is `host` to the kernel, while there is one.
    pub fn node(&self, host: &[u8]) -> Option<Arc<dyn Inode>> {
        self.names.get(host)?.node.upgrade()
    }
}

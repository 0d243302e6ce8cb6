//! The network between a guest and what carries its packets. Fixed addresses, the same as in the layer, so
//! nobody asks for one.

use std::net::Ipv4Addr;

/// The guest's.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// Length of the network's prefix in bits.
pub const PREFIX: u32 = 24;
/// The way out.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Answers names, by the host's name servers.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

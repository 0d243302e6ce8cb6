//! Virtio device models, independent of the transport: what is done with a queue once the driver has
//! kicked it.
//!
//! Virtual I/O Device (VIRTIO) 1.2; queues and descriptor chains are `virtio-queue`'s. Everything in a
//! chain is the guest's and untrusted.

pub mod chain;
pub mod console;
pub mod device;
pub mod fs;
pub mod net;
pub mod rng;

//! The system-call interface: one table of all calls ([`table`]), and the handlers that serve the
//! emulated ones.
//!
//! A call comes from an engine (`duet-intercept`) to `dispatch`, which looks up its row and
//! its handler; the handler reads its arguments from guest memory once, lets `duet-vfs` do the work,
//! and answers. [`process`] keeps what is virtual of a process.
//!
//! # Lock order
//!
//! Locks of [`process`] first, then those of `duet-vfs`; none is held while an engine is called.

mod abi;
pub mod accounts;
pub mod agents;
pub mod dispatch;
pub mod handlers;
pub mod images;
pub mod kernel;
pub mod lookers;
pub mod peers;
mod pidns;
pub mod process;
pub mod sockets;
pub mod states;
pub mod table;
pub mod task;
pub mod wait;

//! The protocol between the host and the agent, which is init inside the guest.
#![forbid(unsafe_code)]

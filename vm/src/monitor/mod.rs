//! Duet's own monitor on `/dev/kvm`, and its devices.

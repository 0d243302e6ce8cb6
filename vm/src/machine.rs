//! The contract of a monitor: what it is given, and what can be asked of the machine it runs.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use duet_vfs::Vfs;

use crate::error::Result;

/// The tag under which the guest mounts its root by virtio-fs.
pub const ROOT_TAG: &str = "duet-root";

/// Which monitor runs a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Duet's own where the host's KVM can run a kernel and it has all the devices that are asked for, else
    /// QEMU.
    #[default]
    Auto,
    /// Duet's own.
    Duet,
    /// QEMU.
    Qemu,
}

/// A machine to run. It starts with its processors in the kernel's entry, and owns what it is given.
pub struct Machine {
    /// The kernel: an ELF image with a PVH note, or a bzImage.
    pub kernel: File,
    /// What it is called in messages.
    pub kernel_name: String,
    /// What the kernel starts init from.
    pub init: Init,
    /// The kernel's command line. A monitor adds what its own devices need.
    pub command_line: String,
    /// Virtual processors, at least 1.
    pub cpus: u32,
    /// Memory in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// What virtio-fs serves under [`ROOT_TAG`].
    pub root: Arc<Vfs>,
    /// Ports of the virtio-console.
    pub ports: Vec<Port>,
    /// Where the kernel's messages go: the bytes of the first serial port, or for a kernel with
    /// [`Init::Tree`], which knows no such port, of the virtio-console's first. They are read at once.
    pub serial: UnixStream,
    /// The link of the network device, if there is one ([`crate::passt`]).
    pub network: Option<UnixStream>,
}

/// What a kernel starts init from.
pub enum Init {
    /// An initramfs: a file, read from its start.
    Initramfs(File),
    /// A tree of its own, which the kernel mounts as its root: virtio-fs serves it, too, under
    /// [`crate::init_tree::TAG`]. Such a kernel finds its devices by its command line alone.
    Tree(Arc<Vfs>),
}

/// One port of the virtio-console: a stream of bytes in both directions.
pub struct Port {
    /// The name that the guest finds it by (`/sys/class/virtio-ports/*/name`).
    pub name: &'static str,
    /// The monitor's end.
    pub stream: UnixStream,
}

/// How a machine came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest powered it off, or asked for a reset, which is the same here.
    PoweredOff,
    /// It was stopped by [`Running::stop`].
    Stopped,
    /// The guest cannot go on (a triple fault, an emulation failure), or the monitor cannot: why.
    Failed(String),
}

/// A machine that runs. Dropping it ends it, and leaves nothing behind.
pub trait Running: Send {
    /// Which monitor, on what: `QEMU 7.2 (TCG)`.
    fn describe(&self) -> String;
    /// Readable, for poll(2), once the machine has ended.
    fn ended(&self) -> BorrowedFd<'_>;
    /// Waits for the end.
    fn wait(&mut self) -> Result<End>;
    /// Ends it at once, without asking the guest.
    fn stop(&mut self);
    /// The process beside this one that it runs in, if there is one.
    fn process(&self) -> Option<u32> {
        None
    }
    /// What it took to run it; `None` if nobody counts.
    fn work(&self) -> Option<Work> {
        None
    }
}

/// What it took to run a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How often its processors came out to the monitor, by reason.
    pub exits: Vec<(&'static str, u64)>,
    /// Time of all processors in KVM: the guest, asleep too, and what the host's kernel does for it.
    pub guest: Duration,
    /// Time of all processors in the monitor's own code.
    pub monitor: Duration,
    /// Paravirtual devices.
    pub devices: Vec<DeviceWork>,
}

/// What a paravirtual device did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceWork {
    /// Its short name.
    pub name: &'static str,
    /// Notifications by the driver, and requests served, by queue.
    pub queues: Vec<(u64, u64)>,
    /// Interrupts raised.
    pub interrupts: u64,
}

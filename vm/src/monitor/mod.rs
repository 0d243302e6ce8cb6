//! Duet's own monitor: a machine on `/dev/kvm`, in this process.
//!
//! | module | owns |
//! |---|---|
//! | [`probe`] | whether this KVM can run a kernel at all |
//! | [`memory`], `vm`, `cpu` | what KVM is given: memory, interrupt controllers, the state at the start |
//! | `vcpu`, `control` | processors on threads, and how all of them come to the end |
//! | [`bus`], `platform` | ports and registers, and the few devices of a PC that a kernel wants |
//! | [`mmio`] | virtio devices: registers, a thread for each, events by which KVM reaches it |
//! | [`boot`] | kernel, initramfs, and the tables by which a kernel finds the rest |
//! | `confine` | filters of system calls for all these threads |
//! | [`stats`] | exits by reason, time in guest and monitor |
//!
//! Each processor is a thread. A processor that leaves the guest does the work of the port or register
//! itself. Whoever ends the machine, the guest by a register or Duet by
//! [`Running::stop`], does it through `control`, which brings all processors out; joining the threads is
//! left to who owns the [`Monitor`]. A device that notices the end serves its queues once more, so that
//! what a guest wrote before it powered off is not lost.
//!
//! Lock order: a device on a bus, then `control`. A processor that resets a device waits for the device's
//! thread, which takes no lock of a bus.

pub mod boot;
pub mod bus;
mod confine;
mod control;
mod cpu;
pub mod memory;
pub mod mmio;
mod platform;
pub mod probe;
pub mod stats;
#[cfg(test)]
mod tests;
mod vcpu;
mod vm;

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use parking_lot::Mutex;

use self::boot::acpi::{self, Place};
use self::boot::{Source, mptable};
use self::bus::Bus;
use self::control::Control;
use self::cpu::Entry;
use self::mmio::Transport;
use self::stats::{Exit, Stats};
use self::vcpu::{Help, World};
use self::vm::Vm;
use crate::error::{Error, Result};
use crate::fuse::Server;
use crate::init_tree;
use crate::machine::{End, Init, Machine, ROOT_TAG, Running, Work};
use crate::virtio::console::Console;
use crate::virtio::device::Device;
use crate::virtio::fs::Fs;
use crate::virtio::net::Net;
use crate::virtio::rng::Rng;

/// Most processors: their ids have eight bits, of which one value means all of them.
pub const MAX_CPUS: u32 = 254;

/// What confines a thread that calls it.
pub type Confine = fn() -> Result<()>;

/// A machine that runs in this process.
pub struct Monitor {
    control: Arc<Control>,
    stats: Arc<Stats>,
    processors: Vec<JoinHandle<()>>,
    /// A processor may wait for room in it.
    serial: Option<UnixStream>,
    devices: Vec<Arc<Mutex<Transport>>>,
    /// Behind the processors, so that KVM lets go of the memory before it is unmapped.
    _vm: Vm,
}

/// What a machine is made of, before its processors start.
struct Parts {
    vm: Vm,
    ports: Bus,
    mmio: Bus,
    serial: Option<UnixStream>,
    devices: Vec<Arc<Mutex<Transport>>>,
}

/// Interrupts of virtio devices, in their order. The others are of the PC: a kernel that finds its clock's in use
/// goes without a clock.
const GSIS: [u32; 6] = [5, 6, 7, 10, 11, 12];

/// Starts a machine.
///
/// # Errors
/// There is no KVM, the kernel or an option does not fit, or the host refuses something. Whether this KVM
/// can run the kernel shows only later: see [`probe`].
pub fn start(machine: Machine) -> Result<Monitor> {
    let cpus = machine.cpus;
    let (parts, entry) = prepare(machine)?;
    parts.start(cpus, entry, confine::processor, None)
}

/// Makes the machine's parts, with the kernel in its memory. Returns where the first processor begins.
fn prepare(machine: Machine) -> Result<(Parts, Entry)> {
    if machine.cpus == 0 || machine.cpus > MAX_CPUS {
        return Err(Error::Failed(format!(
            "a machine has 1 to {MAX_CPUS} processors, not {}",
            machine.cpus
        )));
    }
    let kvm = vm::open()?;
    let vm = Vm::new(&kvm, memory::create(machine.memory)?)?;
    let serial = machine
        .serial
        .try_clone()
        .map_err(|e| Error::io("sharing a socket", &e))?;
    let mut parts = Parts {
        vm,
        ports: Bus::default(),
        mmio: Bus::default(),
        serial: Some(serial),
        devices: Vec::new(),
    };
    let server = |tree| -> Result<Arc<Server>> {
        let server = Server::new(tree).map_err(|e| Error::step("serving the root", e))?;
        Ok(Arc::new(server))
    };
    let root = Fs::new("fs", ROOT_TAG, server(machine.root)?);
    let ports = machine.ports.into_iter().map(|p| (p.name, p.stream));
    let ports = ports.collect();
    let (console, init, initramfs) = match machine.init {
        Init::Initramfs(file) => (Console::new(ports), None, Some(file)),
        Init::Tree(tree) => {
            let messages = machine
                .serial
                .try_clone()
                .map_err(|e| Error::io("sharing a socket", &e))?;
            let init = Fs::new("init", init_tree::TAG, server(tree)?);
            (Console::with_messages(messages, ports), Some(init), None)
        }
    };
    platform::add(&mut parts.ports, &parts.vm, machine.serial)?;
    let mut devices: Vec<(Box<dyn Device>, Confine)> = vec![
        (Box::new(root), confine::files),
        (Box::new(console), confine::device),
        (Box::new(Rng), confine::device),
    ];
    if let Some(init) = init {
        devices.push((Box::new(init), confine::files));
    }
    if let Some(link) = machine.network {
        let net = Net::new(link).map_err(|e| Error::io("connecting the network device", &e))?;
        devices.push((Box::new(net), confine::device));
    }
    let mut places = Vec::new();
    let mut command_line = machine.command_line;
    for (device, confine) in devices {
        let place = parts.add(device, confine)?;
        // For kernels without ACPI (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES).
        command_line += &format!(
            " virtio_mmio.device={}@{:#x}:{}",
            place.len, place.address, place.gsi
        );
        places.push(place);
    }
    let memory = parts.vm.memory();
    mptable::put(memory, machine.cpus)?;
    let source = Source {
        kernel: &machine.kernel,
        kernel_name: &machine.kernel_name,
        initramfs,
        command_line: &command_line,
        rsdp: acpi::put(memory, machine.cpus, &places)?,
        size: machine.memory,
    };
    let entry = boot::load(memory, source)?;
    Ok((parts, entry))
}

impl Parts {
    /// Adds a virtio device at the next free place. `confine` is called on its thread.
    fn add(&mut self, device: Box<dyn Device>, confine: Confine) -> Result<Place> {
        let number = self.devices.len();
        let address = memory::HOLE_START + number as u64 * mmio::LEN;
        let gsi = *GSIS
            .get(number)
            .ok_or_else(|| Error::Failed("a machine has no more devices".into()))?;
        let transport = Transport::new(device, self.vm.memory().clone(), confine)?;
        self.vm.interrupt_by(transport.interrupt().line(), gsi)?;
        for (queue, kick) in (0..).zip(transport.kicks()) {
            self.vm.notify_by(kick, address + mmio::NOTIFY, queue)?;
        }
        let transport = Arc::new(Mutex::new(transport));
        self.mmio.insert(address, mmio::LEN, transport.clone());
        self.devices.push(transport);
        Ok(Place {
            address: address as u32,
            len: mmio::LEN as u32,
            gsi,
        })
    }

    /// Starts `cpus` processors, the first one at `entry`; the others wait for it to start them.
    fn start(
        self,
        cpus: u32,
        entry: Entry,
        confine: Confine,
        help: Option<Arc<dyn Help>>,
    ) -> Result<Monitor> {
        let control = Arc::new(Control::new()?);
        let stats = Arc::new(Stats::default());
        let world = World {
            ports: Arc::new(self.ports),
            mmio: Arc::new(self.mmio),
            control: control.clone(),
            stats: stats.clone(),
            help,
        };
        let mut made = Vec::new();
        for id in 0..cpus {
            let vcpu = self.vm.add_processor(id)?;
            cpu::describe(&self.vm, &vcpu, id, cpus)?;
            cpu::set_common(&vcpu)?;
            if id == 0 {
                cpu::enter(self.vm.memory(), &vcpu, entry)?;
            }
            made.push(vcpu);
        }
        let mut monitor = Monitor {
            control,
            stats,
            processors: Vec::new(),
            serial: self.serial,
            devices: self.devices,
            _vm: self.vm,
        };
        for (id, vcpu) in (0..).zip(made) {
            // Dropping the monitor ends those that have started.
            let thread = vcpu::start(id, vcpu, world.clone(), confine)?;
            monitor.processors.push(thread);
        }
        Ok(monitor)
    }
}

impl Monitor {
    /// What its processors did so far.
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// Waits for the processors' threads, which end as the machine has, and for the devices'.
    fn join(&mut self) {
        if let Some(serial) = &self.serial
            && let Err(e) = serial.shutdown(std::net::Shutdown::Write)
        {
            log::debug!("closing the serial port: {e}");
        }
        for thread in self.processors.drain(..) {
            if thread.join().is_err() {
                log::error!("a processor's thread panicked");
            }
        }
        for device in &self.devices {
            device.lock().halt();
        }
    }
}

impl Running for Monitor {
    fn describe(&self) -> String {
        "Duet's own monitor (KVM)".into()
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.control.ended()
    }

    fn wait(&mut self) -> Result<End> {
        loop {
            let mut fds = [PollFd::new(self.control.ended(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => (),
                Err(e) => return Err(Error::step("waiting for the machine", e)),
            }
        }
        self.join();
        self.control
            .end()
            .ok_or_else(|| Error::Failed("the machine ended without a reason".into()))
    }

    fn stop(&mut self) {
        self.control.finish(End::Stopped);
    }

    fn work(&self) -> Option<Work> {
        let exits = Exit::ALL.iter().map(|e| (e.name(), self.stats.exits(*e)));
        Some(Work {
            exits: exits.collect(),
            guest: self.stats.guest_time(),
            monitor: self.stats.monitor_time(),
            devices: self.devices.iter().map(|d| d.lock().work()).collect(),
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

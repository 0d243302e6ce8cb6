//! Duet's own monitor: a machine on `/dev/kvm`, in this process.
//!
//! | module | owns |
//! |---|---|
//! | [`probe`] | whether this KVM can run a kernel at all |
//! | [`memory`], `vm`, `cpu` | what KVM is given: memory, interrupt controllers, the state at the start |
//! | `vcpu`, `control` | processors on threads, and how all of them come to the end |
//! | `bus`, `platform` | ports and registers, and the few devices of a PC that a kernel wants |
//! | [`stats`] | exits by reason, time in guest and monitor |
//!
//! Each processor is a thread. A processor that leaves the guest does the work of the port or register
//! itself. Whoever ends the machine, the guest by a register or Duet by
//! [`Running::stop`], does it through `control`, which brings all processors out; joining the threads is
//! left to who owns the [`Monitor`].
//!
//! Lock order: a device on a bus, then `control`.

mod bus;
mod control;
mod cpu;
pub mod memory;
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

use self::bus::Bus;
use self::control::Control;
use self::cpu::Entry;
use self::stats::Stats;
use self::vcpu::World;
use self::vm::Vm;
use crate::error::{Error, Result};
use crate::machine::{End, Running};

/// Most processors: their ids have eight bits, of which one value means all of them.
pub const MAX_CPUS: u32 = 254;

/// A machine that runs in this process.
pub struct Monitor {
    control: Arc<Control>,
    stats: Arc<Stats>,
    processors: Vec<JoinHandle<()>>,
    /// A processor may wait for room in it.
    serial: Option<UnixStream>,
    /// Behind the processors, so that KVM lets go of the memory before it is unmapped.
    _vm: Vm,
}

/// What a machine is made of, before its processors start.
struct Parts {
    vm: Vm,
    ports: Bus,
    mmio: Bus,
    serial: Option<UnixStream>,
}

impl Parts {
    /// Starts `cpus` processors, the first one at `entry`; the others wait for it to start them.
    fn start(self, cpus: u32, entry: Entry, confine: fn() -> Result<()>) -> Result<Monitor> {
        let control = Arc::new(Control::new()?);
        let stats = Arc::new(Stats::default());
        let world = World {
            ports: Arc::new(self.ports),
            mmio: Arc::new(self.mmio),
            control: control.clone(),
            stats: stats.clone(),
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

    /// Waits for the processors' threads, which end as the machine has.
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
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
        self.join();
    }
}

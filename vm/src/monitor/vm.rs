//! The virtual machine as KVM has it: memory, interrupt controllers, timer, processors.

use std::os::fd::AsRawFd;

use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::error::{Error, Result};

/// Three pages that KVM takes for itself on older processors of Intel, and one behind them: in the hole
/// for devices.
const TSS: usize = 0xfffb_d000;
const IDENTITY_MAP: u64 = 0xfffb_c000;

/// The device.
const DEVICE: &str = "/dev/kvm";

/// What KVM must have (Documentation/virt/kvm/api.rst).
const WANTED: [(Cap, &str); 8] = [
    (Cap::UserMemory, "memory of ours"),
    (Cap::Irqchip, "interrupt controllers"),
    (Cap::Pit2, "a timer"),
    (Cap::SetTssAddr, "a place of its task state"),
    (Cap::ImmediateExit, "immediate exits"),
    (Cap::Irqfd, "interrupts by eventfd"),
    (Cap::Ioeventfd, "notifications by eventfd"),
    (Cap::ExtCpuid, "a description of processors"),
];

/// A machine without processors that run.
pub struct Vm {
    fd: VmFd,
    memory: GuestMemoryMmap,
    /// What KVM can give a guest's processor.
    cpuid: CpuId,
    /// Whether timers of the local interrupt controller take a reading of the time-stamp counter.
    tsc_deadline: bool,
}

/// An error of an ioctl.
pub fn step(what: &str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    let what = format!("KVM: {what}");
    move |e| Error::step(what, Errno::from_raw(e.errno()))
}

/// Opens `/dev/kvm`. An error says what to do.
pub fn open() -> Result<Kvm> {
    let kvm = Kvm::new().map_err(|e| {
        let errno = Errno::from_raw(e.errno());
        let advice = match errno {
            Errno::ENOENT => {
                "the kernel has no KVM: load kvm_intel or kvm_amd, and enable virtualization in the firmware"
            }
            Errno::EACCES | Errno::EPERM => {
                "be a member of its group (usually kvm), or let the container have the device"
            }
            _ => "the processor or the machine around this one offers no virtualization",
        };
        Error::Failed(format!("{DEVICE}: {}; {advice}", errno.desc()))
    })?;
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(KVM_API_VERSION) {
        return Err(Error::Failed(format!(
            "{DEVICE}: speaks version {version} of its interface, which no Linux since 2.6.22 does"
        )));
    }
    match WANTED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        None => Ok(kvm),
        Some((_, what)) => Err(Error::Failed(format!(
            "{DEVICE}: has not got {what}; install a newer kernel"
        ))),
    }
}

impl Vm {
    /// A machine with this memory.
    pub fn new(kvm: &Kvm, memory: GuestMemoryMmap) -> Result<Vm> {
        let fd = kvm.create_vm().map_err(step("making a machine"))?;
        fd.set_identity_map_address(IDENTITY_MAP)
            .map_err(step("placing its page table"))?;
        fd.set_tss_address(TSS)
            .map_err(step("placing its task state"))?;
        fd.create_irq_chip()
            .map_err(step("making interrupt controllers"))?;
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..kvm_pit_config::default()
        };
        fd.create_pit2(pit).map_err(step("making a timer"))?;
        for (slot, region) in memory.iter().enumerate() {
            let slot = kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the region is a mapping of that length, and `memory` outlives the machine: see the
            // order of drops in `Vm`; processors hold the machine's own descriptor and end before.
            unsafe { fd.set_user_memory_region(slot) }.map_err(step("giving it memory"))?;
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(step("describing processors"))?;
        Ok(Vm {
            fd,
            memory,
            cpuid,
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
        })
    }

    /// Its memory.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// What KVM can give a processor.
    pub fn cpuid(&self) -> &CpuId {
        &self.cpuid
    }

    /// Whether the local timers of its processors know the time-stamp counter.
    pub fn has_tsc_deadline(&self) -> bool {
        self.tsc_deadline
    }

    /// Adds a processor, which does not run yet.
    pub fn add_processor(&self, id: u32) -> Result<VcpuFd> {
        self.fd
            .create_vcpu(id.into())
            .map_err(step("making a processor"))
    }

    /// From now on, a write to `event` is an interrupt (edge-triggered) at the pin `gsi`.
    pub fn interrupt_by(&self, event: &EventFd, gsi: u32) -> Result<()> {
        let event = borrow(event)?;
        self.fd
            .register_irqfd(&event, gsi)
            .map_err(step("an interrupt by eventfd"))
    }

    /// From now on, the guest's write of the 32-bit `value` at `address` is a write to `event`, without a
    /// turn through the monitor.
    pub fn notify_by(&self, event: &EventFd, address: u64, value: u32) -> Result<()> {
        let event = borrow(event)?;
        self.fd
            .register_ioevent(&event, &IoEventAddress::Mmio(address), value)
            .map_err(step("a notification by eventfd"))
    }
}

/// The same eventfd as the type that `kvm-ioctls` wants. KVM keeps the open file, not the descriptor.
fn borrow(event: &EventFd) -> Result<vmm_sys_util::eventfd::EventFd> {
    use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
    let copy = event
        .as_fd()
        .try_clone_to_owned()
        .map_err(|e| Error::io("sharing an eventfd", &e))?;
    debug_assert!(copy.as_raw_fd() >= 0);
    // SAFETY: the descriptor is an eventfd of ours, given up by `into_raw_fd`.
    Ok(unsafe { vmm_sys_util::eventfd::EventFd::from_raw_fd(copy.into_raw_fd()) })
}

//! A processor on a thread of its own.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use kvm_bindings::{
    KVM_INTERNAL_ERROR_EMULATION, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN, kvm_run,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::errno::Errno;

use super::Confine;
use super::bus::Bus;
use super::control::Control;
use super::stats::{Exit, Stats};
use crate::error::{Error, Result};
use crate::machine::End;

/// What a processor sees of the machine.
#[derive(Clone)]
pub struct World {
    /// Input and output ports.
    pub ports: Arc<Bus>,
    /// Memory-mapped registers.
    pub mmio: Arc<Bus>,
    /// The machine's end.
    pub control: Arc<Control>,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// Who does the instructions that KVM cannot: nobody, except where tests run a kernel on a KVM that
    /// interprets it.
    pub help: Option<Arc<dyn Help>>,
}

/// Does instructions of the guest's kernel that KVM cannot emulate.
pub trait Help: Send + Sync {
    /// Does the instruction at which the processor stands, and puts it behind that.
    ///
    /// # Errors
    /// It cannot: why. The machine ends by it.
    fn emulate(&self, vcpu: &VcpuFd) -> std::result::Result<(), String>;
}

/// Runs the processor `id` on a thread of its own, until the machine ends. `confine` is called on that
/// thread before the guest runs.
pub fn start(id: u32, mut vcpu: VcpuFd, world: World, confine: Confine) -> Result<JoinHandle<()>> {
    let body = move || {
        let control = world.control.clone();
        let ran = control.attend(&mut vcpu).and_then(|attended| {
            confine()?;
            let end = run(id, &mut vcpu, &world);
            drop(attended);
            Ok(end)
        });
        match ran {
            Ok(Some(end)) => control.finish(end),
            Ok(None) => (),
            Err(e) => control.finish(End::Failed(e.to_string())),
        }
    };
    std::thread::Builder::new()
        .name(format!("duet-cpu{id}"))
        .spawn(body)
        .map_err(|e| Error::io("starting a thread", &e))
}

/// What one turn in the guest led to.
enum Turn {
    Again(Exit),
    End(End),
}

/// Runs until the guest ends the machine (`Some`), or it has been ended (`None`).
fn run(id: u32, vcpu: &mut VcpuFd, world: &World) -> Option<End> {
    let mut before = Instant::now();
    while !world.control.is_finished() {
        let entered = Instant::now();
        let exit = vcpu.run();
        let left = Instant::now();
        let turn = match exit {
            Ok(VcpuExit::IoOut(port, data)) => {
                after(world.ports.write(port.into(), data), Exit::Port)
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                world.ports.read(port.into(), data);
                Turn::Again(Exit::Port)
            }
            Ok(VcpuExit::MmioWrite(at, data)) => after(world.mmio.write(at, data), Exit::Mmio),
            Ok(VcpuExit::MmioRead(at, data)) => {
                world.mmio.read(at, data);
                Turn::Again(Exit::Mmio)
            }
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Turn::Again(Exit::Interrupted),
            Ok(VcpuExit::Shutdown) => Turn::End(End::Failed(
                "the guest's processor met a triple fault, as after a panic of its kernel".into(),
            )),
            Ok(VcpuExit::SystemEvent(kind, _)) => Turn::End(match kind {
                KVM_SYSTEM_EVENT_SHUTDOWN | KVM_SYSTEM_EVENT_RESET => End::PoweredOff,
                KVM_SYSTEM_EVENT_CRASH => {
                    End::Failed("the guest's kernel says that it crashed".into())
                }
                kind => End::Failed(format!(
                    "KVM tells of an unknown event ({kind}) of the guest"
                )),
            }),
            Ok(VcpuExit::FailEntry(reason, _)) => Turn::End(End::Failed(format!(
                "processor {id} cannot enter the guest (reason {reason:#x})"
            ))),
            Ok(VcpuExit::InternalError) => {
                let what = internal_error(vcpu.get_kvm_run());
                let at = vcpu.get_regs().map(|r| r.rip).unwrap_or(0);
                let helper = world
                    .help
                    .as_ref()
                    .filter(|_| is_emulation(vcpu.get_kvm_run()));
                match helper.map(|helper| helper.emulate(vcpu)) {
                    Some(Ok(())) => Turn::Again(Exit::Other),
                    Some(Err(why)) => Turn::End(End::Failed(format!("{what}, at {at:#x}: {why}"))),
                    None => Turn::End(End::Failed(format!("{what}, at {at:#x}"))),
                }
            }
            Ok(other) => Turn::End(End::Failed(format!("KVM stopped the guest: {other:?}"))),
            Err(e) => match Errno::from_raw(e.errno()) {
                Errno::EINTR => {
                    vcpu.set_kvm_immediate_exit(0);
                    Turn::Again(Exit::Interrupted)
                }
                // Another processor has started or stopped this one.
                Errno::EAGAIN => Turn::Again(Exit::Interrupted),
                e => Turn::End(End::Failed(format!(
                    "KVM cannot run the guest: {}",
                    e.desc()
                ))),
            },
        };
        let exit = match &turn {
            Turn::Again(exit) => *exit,
            Turn::End(_) => Exit::Other,
        };
        world
            .stats
            .turn(exit, left - entered, entered.duration_since(before));
        before = left;
        if let Turn::End(end) = turn {
            return Some(end);
        }
    }
    None
}

fn after(end: Option<End>, exit: Exit) -> Turn {
    match end {
        Some(end) => Turn::End(end),
        None => Turn::Again(exit),
    }
}

/// Whether KVM failed at an instruction that it does not know, having said `KVM_EXIT_INTERNAL_ERROR`.
fn is_emulation(run: &kvm_run) -> bool {
    // SAFETY: for this reason of exit, KVM has filled this member of the union; all of it is integers.
    let suberror = unsafe { run.__bindgen_anon_1.internal.suberror };
    suberror == KVM_INTERNAL_ERROR_EMULATION
}

/// What KVM says it failed at (`KVM_EXIT_INTERNAL_ERROR`).
fn internal_error(run: &kvm_run) -> String {
    // SAFETY: for this reason of exit, KVM has filled this member of the union; all of it is integers.
    let (suberror, count, data) = unsafe {
        let e = &run.__bindgen_anon_1.internal;
        (e.suberror, e.ndata, e.data)
    };
    if suberror != KVM_INTERNAL_ERROR_EMULATION {
        let data = data.get(..count.min(16) as usize).unwrap_or_default();
        return format!("KVM failed inside (error {suberror}, data {data:x?})");
    }
    let mut text = String::from("KVM cannot emulate an instruction of the guest's kernel");
    // Flags, then length and bytes, if KVM knows them (KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES).
    let known = count >= 3 && data.first().is_some_and(|flags| flags & 1 != 0);
    if let (true, Some(words)) = (known, data.get(1..4)) {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let len = usize::from(bytes.first().copied().unwrap_or(0)).min(15);
        let hex: Vec<String> = bytes
            .iter()
            .skip(1)
            .take(len)
            .map(|b| format!("{b:02x}"))
            .collect();
        text += &format!(" ({})", hex.join(" "));
    }
    text
}

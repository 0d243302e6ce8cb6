//! Whether this host's KVM can run a kernel: a guest of a few instructions tries what every kernel does.
//!
//! There are KVMs that cannot: without virtualization in the hardware (`kvm_pvm`), the guest's kernel mode
//! is interpreted by KVM's emulator, which was made for a few instructions only. The guest here needs a few
//! milliseconds, most of them for a machine to be made; one that hangs is given up after `PATIENCE`.

use std::arch::global_asm;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use vm_memory::{Bytes, GuestAddress};

use super::bus::{Bus, Registers};
use super::cpu::Entry;
use super::vm::{self, Vm};
use super::{Parts, confine, memory};
use crate::error::{Error, Result};
use crate::machine::{End, Running};

/// How long the guest may take, on a host that has much else to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the guest lies. The code below takes pages of the first megabyte for its own.
const CODE: u64 = 0x10000;
/// The guest's memory.
const MEMORY: u64 = 2 << 20;

/// Where the guest tells how far it is.
const PORT: u16 = 0x510;
/// It has come to the end.
const DONE: u8 = 0x80;
/// An instruction did something else than on a processor.
const WRONG: u8 = 0xff;

/// What it tries, by what it writes before it does.
const STEPS: [&str; 6] = [
    "starting",
    "a breakpoint (int3) and the return from it",
    "popcnt",
    "cmpxchg16b",
    "saving and restoring registers (fwait, fxsave, xsave)",
    "a system call (sysret, syscall)",
];

// Entered in 64-bit mode with the first 4 GiB mapped to themselves, a stack, and the code and data
// segments 0x10 and 0x18 (`cpu::enter`).
global_asm!(
    ".pushsection .rodata",
    "duet_probe_start:",
    "    mov edx, 0x510",
    "    mov al, 1",
    "    out dx, al",
    "    lea rax, [rip + 20f]",
    "    mov edi, 0x1030",
    "    mov word ptr [rdi], ax",
    "    mov word ptr [rdi + 2], 0x10",
    "    mov word ptr [rdi + 4], 0x8e00",
    "    shr rax, 16",
    "    mov word ptr [rdi + 6], ax",
    "    mov qword ptr [rdi + 8], 0",
    "    mov word ptr [0x1100], 0xff",
    "    mov qword ptr [0x1102], 0x1000",
    "    lidt [0x1100]",
    "    xor ebx, ebx",
    "    int3",
    "    cmp ebx, 3",
    "    jne 29f",
    //
    "    mov al, 2",
    "    out dx, al",
    "    mov eax, 0x1234",
    "    popcnt eax, eax",
    "    cmp eax, 5",
    "    jne 29f",
    //
    "    mov al, 3",
    "    out dx, al",
    "    mov edi, 0x2000",
    "    mov qword ptr [rdi], 1",
    "    mov qword ptr [rdi + 8], 2",
    "    mov eax, 1",
    "    mov edx, 2",
    "    mov ebx, 3",
    "    mov ecx, 4",
    "    cmpxchg16b [rdi]",
    "    mov edx, 0x510",
    "    jne 29f",
    "    cmp qword ptr [rdi + 8], 4",
    "    jne 29f",
    //
    "    mov al, 4",
    "    out dx, al",
    // Without emulation of coprocessors; SSE on, and XSAVE where it is.
    "    mov rax, cr0",
    "    and rax, -5",
    "    or rax, 2",
    "    mov cr0, rax",
    "    mov rax, cr4",
    "    or rax, 0x600",
    "    mov cr4, rax",
    "    fninit",
    "    fwait",
    "    mov edi, 0x3000",
    "    fxsave64 [rdi]",
    "    fxrstor64 [rdi]",
    "    mov eax, 1",
    "    cpuid",
    "    test ecx, 1 << 26",
    "    jz 21f",
    "    mov rax, cr4",
    "    or rax, 1 << 18",
    "    mov cr4, rax",
    "    xor ecx, ecx",
    "    xgetbv",
    "    xsave64 [rdi]",
    "    xrstor64 [rdi]",
    "21: mov edx, 0x510",
    //
    "    mov al, 5",
    "    out dx, al",
    // The first 2 MiB are the user's too.
    "    or byte ptr [0x9000], 4",
    "    or byte ptr [0xa000], 4",
    "    or byte ptr [0xb000], 4",
    "    mov rax, cr3",
    "    mov cr3, rax",
    // EFER: system calls on. STAR: segments of kernel and user. LSTAR: where a call goes.
    "    mov ecx, 0xc0000080",
    "    rdmsr",
    "    or eax, 1",
    "    wrmsr",
    "    mov ecx, 0xc0000081",
    "    xor eax, eax",
    "    mov edx, 0x00200010",
    "    wrmsr",
    "    mov ecx, 0xc0000082",
    "    lea rax, [rip + 23f]",
    "    xor edx, edx",
    "    wrmsr",
    "    lea rcx, [rip + 22f]",
    "    mov r11d, 2",
    "    sysretq",
    // User mode.
    "22: mov ebx, 7",
    "    syscall",
    // Kernel mode again.
    "23: mov eax, cs",
    "    mov edx, 0x510",
    "    test al, 3",
    "    jnz 29f",
    "    cmp ebx, 7",
    "    jne 29f",
    "    mov al, 0x80",
    "    out dx, al",
    "24: hlt",
    "    jmp 24b",
    // The handler of the breakpoint.
    "20: mov ebx, 3",
    "    iretq",
    "29: mov al, 0xff",
    "    out dx, al",
    "    jmp 24b",
    "duet_probe_end:",
    ".popsection",
);

unsafe extern "C" {
    static duet_probe_start: u8;
    static duet_probe_end: u8;
}

fn code() -> &'static [u8] {
    let (start, end) = (&raw const duet_probe_start, &raw const duet_probe_end);
    // SAFETY: the two are the ends of the constant bytes above.
    unsafe { std::slice::from_raw_parts(start, end.offset_from(start).unsigned_abs()) }
}

/// The port by which the guest tells.
struct Progress {
    step: Arc<AtomicU8>,
}

impl Registers for Progress {
    fn read(&mut self, _: u64, _: &mut [u8]) {}

    fn write(&mut self, _: u64, data: &[u8]) -> Option<End> {
        match data {
            [DONE] => Some(End::PoweredOff),
            [WRONG] => Some(End::Failed(
                "it did something else than a processor does".into(),
            )),
            [step] => {
                self.step.store(*step, Relaxed);
                None
            }
            _ => Some(End::Failed("it wrote nonsense".into())),
        }
    }
}

/// Tries it.
///
/// # Errors
/// There is no KVM, or it cannot run a kernel: why, and what could be done.
pub fn run() -> Result<()> {
    let kvm = vm::open()?;
    let memory = memory::create(MEMORY)?;
    memory
        .write_slice(code(), GuestAddress(CODE))
        .map_err(|e| Error::Failed(format!("writing the probe: {e}")))?;
    let step = Arc::new(AtomicU8::new(0));
    let mut ports = Bus::default();
    let progress = Progress { step: step.clone() };
    ports.insert(PORT.into(), 1, Arc::new(Mutex::new(progress)));
    let parts = Parts {
        vm: Vm::new(&kvm, memory)?,
        ports,
        mmio: Bus::default(),
        serial: None,
        devices: Vec::new(),
    };
    let entry = Entry::Long {
        code: CODE,
        argument: 0,
    };
    let mut machine = parts.start(1, entry, confine::processor, None)?;
    let mut fds = [PollFd::new(machine.ended(), PollFlags::POLLIN)];
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    if matches!(poll(&mut fds, patience), Ok(0)) {
        machine.stop();
    }
    let why = match machine.wait()? {
        End::PoweredOff => return Ok(()),
        End::Stopped => "the guest did not come to its end".into(),
        End::Failed(why) => why,
    };
    let step = STEPS.get(usize::from(step.load(Relaxed)));
    Err(Error::Failed(format!(
        "/dev/kvm cannot run a kernel: {} failed: {why}; this is no KVM of the processor's own \
         virtualization",
        step.unwrap_or(&"a step")
    )))
}

//! Guests on a KVM that interprets their kernel mode (`kvm_pvm`).
//!
//! Such a KVM is what there is on machines without virtualization of their own, and it is a KVM: memory,
//! interrupts, events and devices are as on any other. Its emulator knows only some instructions, though, so
//! guests here are helped with others, which nothing but tests does.
//!
//! | module | owns |
//! |---|---|
//! | [`help`] | who is asked when KVM is at a loss |
//! | [`fixup`] | the instructions that are done here |

mod fixup;
mod help;

use std::path::Path;
use std::sync::Arc;

use self::help::Help;
use super::{CODE, code, pc, possible, word};
use crate::machine::{End, Running};
use crate::monitor::cpu::Entry;

/// The module of a KVM that interprets the guest's kernel mode.
const INTERPRETER: &str = "/sys/module/kvm_pvm";

#[test]
fn help_does_what_a_processor_does() {
    if !possible("help_does_what_a_processor_does") {
        return;
    }
    let code = code!(
        "helped",
        // The gate of breakpoints, and the table that it is in.
        "lea rax, [rip + 5f]",
        "mov edi, 0x1030",
        "mov word ptr [rdi], ax",
        "mov word ptr [rdi + 2], 0x10",
        "mov word ptr [rdi + 4], 0x8e00",
        "shr rax, 16",
        "mov word ptr [rdi + 6], ax",
        "mov word ptr [0x1100], 0xff",
        "mov qword ptr [0x1102], 0x1000",
        "lidt [0x1100]",
        "sti",
        "int3",
        // What its handler found, and the flags after it.
        "pushf",
        "pop qword ptr [0x2008]",
        // Not what is at 0x2010, and then that.
        "mov qword ptr [0x2018], 9",
        "mov ebx, 3",
        "mov ecx, 4",
        "mov esi, 0x800",
        "cmpxchg16b [rsi * 4 + 0x10]",
        "setz byte ptr [0x2020]",
        "lock cmpxchg16b [rsi + 0x1810]",
        "setz byte ptr [0x2028]",
        "fwait",
        "mov edx, 0x600",
        "mov al, 0x34",
        "out dx, al",
        "4: jmp 4b",
        "5: pushf",
        "pop qword ptr [0x2000]",
        "iretq",
    );
    let (parts, _serial) = pc(code);
    let memory = parts.vm.memory().clone();
    let help = Arc::new(Help::for_any(&memory));
    let entry = Entry::Long {
        code: CODE,
        argument: 0,
    };
    let mut machine = parts
        .start(1, entry, || Ok(()), Some(help.clone()))
        .unwrap();
    assert_eq!(machine.wait().unwrap(), End::PoweredOff);
    const IF: u64 = 1 << 9;
    let words = [0, 8, 0x10, 0x18, 0x20, 0x28].map(|n| word(&memory, 0x2000 + n));
    assert_eq!([words[0] & IF, words[1] & IF], [0, IF]);
    assert_eq!(words[2..], [3, 4, 0, 1]);
    if Path::new(INTERPRETER).exists() {
        let done = help.done();
        assert_eq!(done, [("cmpxchg16b", 2), ("fwait", 1), ("int3", 1)]);
    }
}

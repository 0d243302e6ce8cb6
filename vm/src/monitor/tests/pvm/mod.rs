//! Guests on a KVM that interprets their kernel mode (`kvm_pvm`).
//!
//! Such a KVM is what there is on machines without virtualization of their own, and it is a KVM: memory,
//! interrupts, events and devices are as on any other. But its emulator knows only some instructions, so that
//! no kernel gets far there by itself ([`probe`] says so). Guests here are helped, which nothing but tests
//! does; so a whole kernel runs a program, with all that this monitor gives it. It is libkrunfw's, which has
//! all that it needs built in.
//!
//! | module | owns |
//! |---|---|
//! | [`help`] | the kernel's changes, and who is asked when KVM is at a loss |
//! | [`fixup`] | the instructions that are done here |
//! | [`kallsyms`] | where the kernel's functions are |
//! | [`guest`] | the kernel and the agent in it |
//!
//! [`probe`]: crate::monitor::probe

mod fixup;
mod guest;
mod help;
mod kallsyms;

use std::path::Path;
use std::sync::Arc;

use self::guest::Guest;
use self::help::Help;
use super::{CODE, code, pc, possible, skip, word};
use crate::host::find_program;
use crate::kernel::{self, image};
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

/// Names a library of libkrunfw, to take instead of an installed one.
const LIBRARY: &str = "DUET_TEST_LIBKRUNFW";

#[test]
#[ignore = "a minute: a kernel whose every instruction KVM interprets"]
fn a_kernel_runs_a_program() {
    let test = "pvm a_kernel_runs_a_program";
    if !possible(test) {
        return;
    }
    if !Path::new(INTERPRETER).exists() {
        return skip(test, "this KVM is no kvm_pvm, which the test is about");
    }
    let Some(busybox) = find_program("busybox") else {
        return skip(test, "no busybox (package busybox-static)");
    };
    let kernel = match std::env::var(LIBRARY) {
        Ok(file) => Some(kernel::find(Some(&file)).unwrap()),
        Err(_) => {
            let mut all = kernel::list().unwrap().into_iter();
            all.find(|k| k.init == image::Init::Root)
        }
    };
    let Some(kernel) = kernel else {
        let why = format!("no libkrunfw is installed, and {LIBRARY} does not name one");
        return skip(test, &why);
    };
    // All of it in the shell itself: a second program would take some seconds.
    let script = "read -r version </proc/version; echo \"$version\"; read -r line; echo \"$line\"; \
                  echo error >&2; exit 7";
    let dir = tempfile::tempdir().unwrap();
    let guest = Guest::start(kernel, &busybox, &["sh", "-c", script], dir.path());
    let output = guest.run(b"input\n");
    eprintln!("{output:?}");
    assert_eq!(output.status.code(), Some(7));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let (version, rest) = stdout.split_once('\n').unwrap();
    assert!(version.starts_with("Linux version "), "{version}");
    assert_eq!(rest, "input\n");
    assert_eq!(output.stderr, b"error\n");
}

//! Processors, ports, ends.

use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;

use super::super::bus::Registers;
use super::super::cpu::Entry;
use super::super::stats::Exit;
use super::{CODE, code, pc, possible, said, start, word};
use crate::machine::{End, Running};
use crate::monitor::probe;

#[test]
fn a_guest_speaks_on_the_serial_port_and_powers_off() {
    if !possible("a_guest_speaks_on_the_serial_port_and_powers_off") {
        return;
    }
    let hello = code!(
        "hello",
        "lea rsi, [rip + 5f]",
        "mov edx, 0x3f8",
        "2: mov al, [rsi]",
        "test al, al",
        "jz 3f",
        "out dx, al",
        "inc rsi",
        "jmp 2b",
        "3: mov edx, 0x600",
        "mov al, 0x34",
        "out dx, al",
        "4: jmp 4b",
        "5: .asciz \"Hello from the guest\"",
    );
    let (parts, serial) = pc(hello);
    let mut machine = start(parts, 1);
    assert_eq!(machine.wait().unwrap(), End::PoweredOff);
    let stats = machine.stats();
    assert_eq!(said(serial, machine), "Hello from the guest");
    assert_eq!(stats.exits(Exit::Port), 20);
    assert!(!stats.guest_time().is_zero());
}

#[test]
fn ends_are_told_apart() {
    if !possible("ends_are_told_apart") {
        return;
    }
    let end = |code| {
        let (parts, _serial) = pc(code);
        start(parts, 1).wait().unwrap()
    };
    let keyboard = code!("keyboard", "mov al, 0xfe", "out 0x64, al", "2: jmp 2b");
    assert_eq!(end(keyboard), End::PoweredOff);
    let reset = code!(
        "reset",
        "mov edx, 0x602",
        "mov al, 1",
        "out dx, al",
        "2: jmp 2b"
    );
    assert_eq!(end(reset), End::PoweredOff);
    let failed = |code, words: &str| match end(code) {
        End::Failed(why) if why.contains(words) => (),
        other => panic!("{other:?} instead of {words:?}"),
    };
    let panic = code!(
        "panic",
        "mov edx, 0x505",
        "mov al, 1",
        "out dx, al",
        "2: jmp 2b"
    );
    failed(panic, "crashed");
    // Without a table of interrupts there is nowhere to go.
    failed(code!("triple", "ud2"), "triple fault");
    // A jump to where no memory is.
    failed(
        code!("nowhere", "mov eax, 0xd0000000", "jmp rax"),
        "cannot emulate",
    );
}

#[test]
fn a_machine_can_be_stopped_whatever_it_does() {
    if !possible("a_machine_can_be_stopped_whatever_it_does") {
        return;
    }
    let spin = code!("spin", "2: jmp 2b");
    let sleep = code!("sleep", "cli", "2: hlt", "jmp 2b");
    // Nobody reads what it says, until no more goes in.
    let chatter = code!("chatter", "mov edx, 0x3f8", "2: out dx, al", "jmp 2b");
    for code in [spin, sleep, chatter] {
        let (parts, _serial) = pc(code);
        let mut machine = start(parts, 2);
        machine.stop();
        assert_eq!(machine.wait().unwrap(), End::Stopped);
        // Not told to stop before it is dropped.
        let (parts, _serial) = pc(code);
        drop(start(parts, 1));
    }
}

/// Counts threads, descriptors and mappings of guests' memory of this process.
fn belongings() -> (usize, usize, usize) {
    let count = |dir| std::fs::read_dir(dir).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let guests = maps.lines().filter(|l| l.contains("duet-guest")).count();
    (count("/proc/self/task"), count("/proc/self/fd"), guests)
}

#[test]
fn nothing_is_left_of_a_machine() {
    const CHILD: &str = "DUET_TEST_NOTHING_IS_LEFT";
    let name = "monitor::tests::bare::nothing_is_left_of_a_machine";
    if !possible("nothing_is_left_of_a_machine") {
        return;
    }
    // Other tests have threads and machines of their own: count in a process of its own.
    if std::env::var_os(CHILD).is_none() {
        let program = std::env::current_exe().unwrap();
        let status = std::process::Command::new(program)
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let turn = |i: u32| {
        let (parts, _serial) = pc(code!("turn", "2: hlt", "jmp 2b"));
        let mut machine = start(parts, 2);
        let (_, _, guests) = belongings();
        assert!(guests > 0);
        if i.is_multiple_of(2) {
            machine.stop();
            machine.wait().unwrap();
        }
    };
    turn(0);
    let before = belongings();
    (1..20).for_each(turn);
    // A thread that has been joined may be shown a moment longer.
    let gone = |_| {
        let gone = belongings() == before;
        if !gone {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        gone
    };
    assert!((0..1000).any(gone), "{:?}, not {before:?}", belongings());
}

/// Writes: where, and what.
type Writes = Vec<(u64, Vec<u8>)>;

/// Fills memory-mapped reads with a pattern, and keeps what is written.
struct Pattern {
    seen: Arc<Mutex<Writes>>,
}

impl Registers for Pattern {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = 0x10 * (i as u8 + 1) + offset as u8;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<End> {
        self.seen.lock().push((offset, data.to_vec()));
        None
    }
}

#[test]
fn registers_are_read_and_written_in_all_widths() {
    if !possible("registers_are_read_and_written_in_all_widths") {
        return;
    }
    let (mut parts, _serial) = pc(code!(
        "widths",
        "mov ebx, 0xd0000000",
        "mov rax, [rbx]",
        "mov [0x2000], rax",
        "mov eax, [rbx + 4]",
        "mov [0x2008], rax",
        "xor eax, eax",
        "mov al, [rbx + 3]",
        "mov [0x2010], rax",
        // Nothing is there.
        "mov eax, [rbx + 0x1000]",
        "mov [0x2018], rax",
        "mov [0x2020], rsi",
        "mov rax, 0x1122334455667788",
        "mov [rbx + 8], al",
        "mov [rbx + 8], ax",
        "mov [rbx + 8], eax",
        "mov [rbx + 8], rax",
        "mov al, 0xfe",
        "out 0x64, al",
        "2: jmp 2b",
    ));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let pattern = Pattern { seen: seen.clone() };
    parts
        .mmio
        .insert(0xd000_0000, 0x1000, Arc::new(Mutex::new(pattern)));
    let memory = parts.vm.memory().clone();
    assert_eq!(start(parts, 1).wait().unwrap(), End::PoweredOff);
    assert_eq!(word(&memory, 0x2000), 0x8070_6050_4030_2010);
    assert_eq!(word(&memory, 0x2008), 0x4434_2414);
    assert_eq!(word(&memory, 0x2010), 0x13);
    assert_eq!(word(&memory, 0x2018), 0xffff_ffff);
    // What the boot protocol hands over.
    assert_eq!(word(&memory, 0x2020), 0x7777);
    let bytes = 0x1122_3344_5566_7788u64.to_le_bytes();
    let widths: Vec<_> = [1, 2, 4, 8].map(|n| (8, bytes[..n].to_vec())).into();
    assert_eq!(*seen.lock(), widths);
}

#[test]
fn protected_mode_is_entered_as_pvh_has_it() {
    if !possible("protected_mode_is_entered_as_pvh_has_it") {
        return;
    }
    let (parts, _serial) = pc(code!(
        "protected",
        ".code32",
        "mov dword ptr [0x2000], ebx",
        "mov eax, cr0",
        "mov dword ptr [0x2008], eax",
        "mov eax, cr4",
        "mov dword ptr [0x2010], eax",
        "pushf",
        "pop eax",
        "mov dword ptr [0x2018], eax",
        "mov al, 0xfe",
        "out 0x64, al",
        "2: jmp 2b",
        ".code64",
    ));
    let memory = parts.vm.memory().clone();
    let entry = Entry::Protected {
        code: CODE as u32,
        argument: 0x6000,
    };
    let mut machine = parts.start(1, entry, || Ok(()), None).unwrap();
    assert_eq!(machine.wait().unwrap(), End::PoweredOff);
    let seen = [0x2000, 0x2008, 0x2010, 0x2018].map(|at| word(&memory, at));
    // No paging, no interrupts.
    assert_eq!(seen[0], 0x6000);
    assert_eq!(seen[1] & 0x8000_0001, 1);
    assert_eq!((seen[2], seen[3] & 0x200), (0, 0));
}

#[test]
fn the_end_can_be_waited_for_with_others() {
    if !possible("the_end_can_be_waited_for_with_others") {
        return;
    }
    let (parts, _serial) = pc(code!("others", "2: jmp 2b"));
    let mut machine = start(parts, 1);
    let ready = |machine: &super::Monitor, timeout: PollTimeout| {
        let mut fds = [PollFd::new(machine.ended(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).unwrap()
    };
    assert_eq!(ready(&machine, PollTimeout::ZERO), 0);
    machine.stop();
    assert_eq!(ready(&machine, PollTimeout::NONE), 1);
}

#[test]
fn a_second_processor_is_started_by_the_first() {
    if !possible("a_second_processor_is_started_by_the_first") {
        return;
    }
    // INIT and start-up to all but this one, by the local interrupt controller; the other begins in real
    // mode at the page that the vector names, where it writes a byte that the first one waits for.
    let (parts, _serial) = pc(code!(
        "second",
        // mov byte [0x2000], 0x5a; hlt
        "mov dword ptr [0x3000], 0x200006c6",
        "mov dword ptr [0x3004], 0x0000f45a",
        "mov ebx, 0xfee00000",
        // Local controller on.
        "mov dword ptr [rbx + 0xf0], 0x1ff",
        "mov dword ptr [rbx + 0x300], 0xc4500",
        "mov dword ptr [rbx + 0x300], 0xc4603",
        "2: pause",
        "cmp byte ptr [0x2000], 0x5a",
        "jne 2b",
        // Its own id, and how many there are.
        "mov eax, 1",
        "cpuid",
        "mov [0x2008], rbx",
        "mov al, 0xfe",
        "out 0x64, al",
        "3: jmp 3b",
    ));
    let memory = parts.vm.memory().clone();
    let mut machine = start(parts, 2);
    assert_eq!(machine.wait().unwrap(), End::PoweredOff);
    assert_eq!(word(&memory, 0x2008) & 0xffff_0000, 0x0002_0000);
}

#[test]
fn the_probe_knows_its_answer() {
    if !possible("the_probe_knows_its_answer") {
        return;
    }
    let answer = probe::run();
    // A KVM without the processor's help can run no kernel.
    if std::path::Path::new("/sys/module/kvm_pvm").exists() {
        let why = answer.unwrap_err().to_string();
        assert!(why.contains("cannot run a kernel"), "{why}");
    } else if let Err(e) = answer {
        assert!(e.to_string().contains("/dev/kvm"), "{e}");
    }
}

//! What the stub is told to do.

use crate::stub::{IGNORE_RESULT, OP_JUMP, OP_ZERO};
use crate::{PAGE_SIZE, Plan, Rewritten, Source, Step, page_start};

/// One operation of the [stub](crate::stub) and its six arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Record(pub [u64; 7]);

impl Record {
    /// A system call that has to succeed.
    pub fn syscall(nr: libc::c_long, args: [u64; 6]) -> Record {
        Record::new(nr as u64, args)
    }

    /// A system call whose result does not matter.
    pub fn syscall_ignored(nr: libc::c_long, args: [u64; 6]) -> Record {
        Record::new(nr as u64 | IGNORE_RESULT, args)
    }

    /// Changes the arguments.
    pub fn change_args(&mut self, change: impl FnOnce([u64; 6]) -> [u64; 6]) {
        let [op, a, b, c, d, e, f] = self.0;
        *self = Record::new(op, change([a, b, c, d, e, f]));
    }

    fn new(op: u64, [a, b, c, d, e, f]: [u64; 6]) -> Record {
        Record([op, a, b, c, d, e, f])
    }
}

/// The records that carry out `plan` in a guest whose initial stack is `stack`. The program's and
/// the interpreter's files are open in the guest as `program` and `interpreter`; the stub closes
/// them. Unless the process is `named` already, it is given the program's name.
pub fn records_for(
    plan: &Plan,
    program: i32,
    interpreter: Option<i32>,
    stack: &Rewritten,
    named: bool,
) -> Vec<Record> {
    // A plan with an interpreter and no file of it ends in EBADF, and the guest with it.
    let fd = |source| match source {
        Source::Program => program,
        Source::Interpreter => interpreter.unwrap_or(-1),
    };
    let mut records = Vec::with_capacity(plan.steps.len() + 5);
    for step in &plan.steps {
        records.push(match *step {
            Step::File {
                source,
                addr,
                len,
                prot,
                offset,
                fixed,
            } => mmap(
                addr,
                len,
                prot,
                libc::MAP_PRIVATE | fixed,
                fd(source),
                offset,
            ),
            Step::Anonymous {
                addr,
                len,
                prot,
                fixed,
            } => {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
                mmap(addr, len, prot, flags, -1, 0)
            }
            Step::Zero { addr, len } => Record::new(OP_ZERO, [addr, len, 0, 0, 0, 0]),
        });
    }
    for fd in [Some(program), interpreter].into_iter().flatten() {
        records.push(Record::syscall_ignored(
            libc::SYS_close,
            [fd as u64, 0, 0, 0, 0, 0],
        ));
    }
    if plan.exec_stack {
        let start = page_start(stack.rsp);
        let len = stack.stack_end.saturating_sub(start).max(PAGE_SIZE);
        let prot = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC | libc::PROT_GROWSDOWN;
        records.push(Record::syscall(
            libc::SYS_mprotect,
            [start, len, prot as u64, 0, 0, 0],
        ));
    }
    if !named {
        records.push(Record::syscall_ignored(
            libc::SYS_prctl,
            [libc::PR_SET_NAME as u64, stack.comm, 0, 0, 0, 0],
        ));
    }
    records.push(Record::new(OP_JUMP, [plan.entry, stack.rsp, 0, 0, 0, 0]));
    records
}

fn mmap(addr: u64, len: u64, prot: i32, flags: i32, fd: i32, offset: u64) -> Record {
    Record::syscall(
        libc::SYS_mmap,
        [addr, len, prot as u64, flags as u64, fd as u64, offset],
    )
}

/// The bytes to write to the stub's buffer; the answer is the number of records.
pub fn encode(records: &[Record]) -> Vec<u8> {
    records
        .iter()
        .flat_map(|record| record.0)
        .flat_map(u64::to_le_bytes)
        .collect()
}

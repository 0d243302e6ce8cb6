//! The initial stack: `argc`, `argv`, `envp` and the auxiliary vector, which the kernel has made for
//! the stub and which have to tell of the program instead. See `create_elf_tables` in
//! `fs/binfmt_elf.c`, and getauxval(3).

use nix::errno::Errno;

use crate::{Plan, TASK_SIZE, page_align};

/// The longest block that a kernel makes, rounded up: `argv` and `envp` with their strings take at
/// most 6 MiB. A caller that has read this much and still gets [`StackError::NeedMore`] gives up.
pub const MAX_BLOCK: usize = 8 << 20;

/// The most bytes of new strings; a chain of scripts needs a quarter of it.
const MAX_STRINGS: usize = 64 << 10;

/// `TASK_COMM_LEN`, the NUL included.
const COMM_SIZE: usize = 16;

/// The identity that the auxiliary vector tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// `AT_UID`
    pub uid: u32,
    /// `AT_EUID`
    pub euid: u32,
    /// `AT_GID`
    pub gid: u32,
    /// `AT_EGID`
    pub egid: u32,
    /// `AT_SECURE`: the program has gained privileges.
    pub secure: bool,
}

/// What the initial stack has to say.
#[derive(Clone, Copy, Debug)]
pub struct StackFix<'a> {
    /// Where the program is.
    pub plan: &'a Plan,
    /// Who runs it.
    pub ids: Ids,
    /// The path given to `execve` (`AT_EXECFN`), without a NUL.
    pub execfn: &'a [u8],
    /// What takes the place of `argv[0]`, if the program runs a script ([`crate::Script::argv`]);
    /// else empty.
    pub argv_prefix: &'a [Vec<u8>],
    /// Name of the thread; 15 bytes of it count.
    pub comm: &'a [u8],
}

/// The new initial stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The new stack pointer, a multiple of 16.
    pub rsp: u64,
    /// What to write there. Its last byte is the last of the old block.
    pub bytes: Vec<u8>,
    /// Where in it the auxiliary vector is, for `/proc/PID/auxv`.
    pub auxv: std::ops::Range<usize>,
    /// The NUL-terminated name of the thread.
    pub comm: u64,
    /// The end of the stack.
    pub stack_end: u64,
    /// Where the arguments' strings are, in order, for `/proc/PID/cmdline`: those of
    /// [`StackFix::argv_prefix`], then what is left of the old ones.
    pub args: [std::ops::Range<u64>; 2],
    /// Where the environment's strings are, for `/proc/PID/environ`.
    pub env: std::ops::Range<u64>,
}

/// Why an initial stack cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StackError {
    /// The block goes on behind what was read of it.
    #[error("the initial stack is longer than what was read of it")]
    NeedMore,
    /// No kernel has made this block.
    #[error("the initial stack is malformed")]
    Malformed,
    /// The new strings are too long.
    #[error("the arguments that the interpreter gets are too long")]
    TooLong,
}

impl StackError {
    /// What `execve` would have said.
    pub fn errno(self) -> Errno {
        match self {
            StackError::TooLong => Errno::E2BIG,
            StackError::NeedMore | StackError::Malformed => Errno::EFAULT,
        }
    }
}

/// Makes a program's initial stack out of the stub's. `block` is guest memory from `rsp` upwards, at
/// least to the end of the auxiliary vector.
///
/// The new stack ends where the old block ended, and so reaches a little further down; strings that
/// are new lie in its upper end, all others stay where they are.
pub fn rewrite_stack(block: &[u8], rsp: u64, fix: &StackFix) -> Result<Rewritten, StackError> {
    let words = Words(block);
    let argc = words.get(0)?;
    if argc > (MAX_BLOCK / 8) as u64 || !rsp.is_multiple_of(8) || rsp >= TASK_SIZE {
        return Err(StackError::Malformed);
    }
    let argv_end = 1 + argc as usize;
    if words.get(argv_end)? != 0 {
        return Err(StackError::Malformed);
    }
    let envp = argv_end + 1;
    let envp_end = words.position(envp, 1, 0)?;
    let auxv = envp_end + 1;
    let auxv_end = words.position(auxv, 2, libc::AT_NULL)? + 2;
    // The whole block has to be there: the value of AT_NULL too.
    words.get(auxv_end - 1)?;
    let old_execfn = Words(&block[..auxv_end * 8])
        .position(auxv, 2, libc::AT_EXECFN)
        .and_then(|i| words.get(i + 1))
        .map_err(|_| StackError::Malformed)?;

    // The strings, highest in the new block: execfn and the name, then the arguments.
    let execfn = cut_at_nul(fix.execfn);
    let mut strings = Vec::new();
    for arg in fix.argv_prefix {
        strings.extend_from_slice(cut_at_nul(arg));
        strings.push(0);
    }
    let prefix_len = strings.len();
    strings.extend_from_slice(execfn);
    strings.push(0);
    let comm_at = strings.len();
    let comm = cut_at_nul(fix.comm);
    strings.extend_from_slice(&comm[..comm.len().min(COMM_SIZE - 1)]);
    strings.push(0);
    if strings.len() > MAX_STRINGS {
        return Err(StackError::TooLong);
    }

    let kept_args = match fix.argv_prefix {
        [] => 1..argv_end,
        _ => argv_end.min(2)..argv_end,
    };
    let new_argc = fix.argv_prefix.len() + kept_args.len();
    let new_words = 1 + new_argc + (auxv_end - argv_end);
    let old_end = rsp
        .checked_add(auxv_end as u64 * 8)
        .filter(|&end| end <= TASK_SIZE)
        .ok_or(StackError::Malformed)?;
    let strings_at = old_end
        .checked_sub(strings.len() as u64)
        .ok_or(StackError::Malformed)?;
    let new_rsp = strings_at
        .checked_sub(new_words as u64 * 8)
        .map(|rsp| rsp & !15)
        .filter(|&rsp| rsp > crate::PAGE_SIZE)
        .ok_or(StackError::Malformed)?;

    let mut bytes = Vec::with_capacity((old_end - new_rsp) as usize);
    let mut push = |word: u64| bytes.extend_from_slice(&word.to_le_bytes());
    push(new_argc as u64);
    let mut at = strings_at;
    for arg in fix.argv_prefix {
        push(at);
        at += cut_at_nul(arg).len() as u64 + 1;
    }
    for i in kept_args.chain(argv_end..auxv) {
        push(words.get(i)?);
    }
    let execfn_at = strings_at + prefix_len as u64;
    for i in (auxv..auxv_end).step_by(2) {
        let (key, old) = (words.get(i)?, words.get(i + 1)?);
        let flag = u64::from(fix.ids.secure);
        push(key);
        push(match key {
            libc::AT_PHDR => fix.plan.phdr,
            libc::AT_PHENT => fix.plan.phent,
            libc::AT_PHNUM => fix.plan.phnum,
            libc::AT_BASE => fix.plan.base,
            libc::AT_ENTRY => fix.plan.program_entry,
            libc::AT_UID => fix.ids.uid.into(),
            libc::AT_EUID => fix.ids.euid.into(),
            libc::AT_GID => fix.ids.gid.into(),
            libc::AT_EGID => fix.ids.egid.into(),
            libc::AT_SECURE => flag,
            libc::AT_EXECFN => execfn_at,
            _ => old,
        });
    }
    let auxv_start = (1 + new_argc + (auxv - argv_end)) * 8;
    let auxv_bytes = auxv_start..bytes.len();
    // What rounding down has left between block and strings.
    bytes.resize((strings_at - new_rsp) as usize, 0);
    bytes.extend_from_slice(&strings);

    // The kernel puts the strings of argv, then those of envp, then execfn on top of the stack.
    let first = |range: std::ops::Range<usize>, none: u64| match range.is_empty() {
        true => Ok(none),
        false => words.get(range.start),
    };
    let env_start = first(envp..envp_end, old_execfn)?;
    let first_kept = match fix.argv_prefix {
        [] => 1,
        _ => 2,
    };
    let arg_start = first(first_kept..argv_end.max(first_kept), env_start)?;
    Ok(Rewritten {
        rsp: new_rsp,
        bytes,
        auxv: auxv_bytes,
        comm: strings_at + comm_at as u64,
        stack_end: page_align(old_execfn.min(TASK_SIZE - 1) + 1),
        args: [
            strings_at..strings_at + prefix_len as u64,
            arg_start..env_start,
        ],
        env: env_start..old_execfn,
    })
}

/// What a C program would see of `bytes`.
fn cut_at_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

/// Guest memory as 64-bit numbers.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn get(&self, i: usize) -> Result<u64, StackError> {
        self.0
            .get(i * 8..)
            .and_then(|rest| rest.first_chunk())
            .map(|bytes| u64::from_le_bytes(*bytes))
            .ok_or(StackError::NeedMore)
    }

    /// Index of the first `value` at `from`, `from + step`, ….
    fn position(&self, from: usize, step: usize, value: u64) -> Result<usize, StackError> {
        let mut i = from;
        while self.get(i)? != value {
            i += step;
        }
        Ok(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, stub::stub_elf};

    const RSP: u64 = 0x7ffe_0000_1230;
    const EXECFN: u64 = 0x7ffe_0000_1ff0;

    fn plan() -> Plan {
        let elf = stub_elf();
        let image = Image::parse(elf, elf.len() as u64).unwrap();
        Plan::new(&image, None, None).unwrap()
    }

    fn fix<'a>(plan: &'a Plan, argv_prefix: &'a [Vec<u8>]) -> StackFix<'a> {
        StackFix {
            plan,
            ids: Ids {
                uid: 11,
                euid: 12,
                gid: 13,
                egid: 14,
                secure: true,
            },
            execfn: b"/bin/program",
            argv_prefix,
            comm: b"0123456789abcdefgh",
        }
    }

    fn block(argv: &[u64], envp: &[u64]) -> Vec<u8> {
        let auxv = [
            (libc::AT_SYSINFO_EHDR, 0x7fff_f000),
            (libc::AT_PHDR, 1),
            (libc::AT_BASE, 2),
            (libc::AT_ENTRY, 3),
            (libc::AT_UID, 4),
            (libc::AT_SECURE, 0),
            (libc::AT_RANDOM, 0x7777),
            (libc::AT_EXECFN, EXECFN),
            (libc::AT_NULL, 0),
        ];
        let mut words = vec![argv.len() as u64];
        words.extend(argv);
        words.push(0);
        words.extend(envp);
        words.push(0);
        words.extend(auxv.iter().flat_map(|&(key, value)| [key, value]));
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn string(stack: &Rewritten, addr: u64) -> &[u8] {
        let at = (addr - stack.rsp) as usize;
        cut_at_nul(&stack.bytes[at..])
    }

    #[test]
    fn what_the_program_is_told() {
        let plan = plan();
        let old = block(&[100, 200, 300], &[400]);
        let script = [b"sh".to_vec(), b"-e".to_vec(), b"./script".to_vec()];
        for prefix in [&script[..], &[]] {
            let stack = rewrite_stack(&old, RSP, &fix(&plan, prefix)).unwrap();
            assert_eq!(stack.rsp % 16, 0);
            assert_eq!(stack.rsp + stack.bytes.len() as u64, RSP + old.len() as u64);
            let words = Words(&stack.bytes);
            let argc = words.get(0).unwrap() as usize;
            let argv: Vec<u64> = (1..=argc).map(|i| words.get(i).unwrap()).collect();
            match prefix {
                [] => {
                    assert_eq!(argv, [100, 200, 300]);
                    assert_eq!(stack.args[1], 100..400);
                }
                _ => {
                    for (i, arg) in script.iter().enumerate() {
                        assert_eq!(string(&stack, argv[i]), &arg[..]);
                    }
                    assert_eq!(argv[3..], [200, 300]);
                    assert_eq!(stack.args[1], 200..400);
                    assert_eq!(stack.args[0].start, argv[0]);
                    assert_eq!(stack.args[0].end - argv[0], 3 + 3 + 9);
                }
            }
            assert_eq!(stack.env, 400..EXECFN);
            assert_eq!(string(&stack, stack.comm), b"0123456789abcde");
            let auxv: Vec<u64> = stack.bytes[stack.auxv.clone()]
                .chunks(8)
                .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
                .collect();
            let value = |key| auxv.chunks(2).find(|entry| entry[0] == key).unwrap()[1];
            assert_eq!(value(libc::AT_SYSINFO_EHDR), 0x7fff_f000);
            assert_eq!(value(libc::AT_RANDOM), 0x7777);
            assert_eq!(value(libc::AT_PHDR), plan.phdr);
            assert_eq!(value(libc::AT_BASE), plan.base);
            assert_eq!(value(libc::AT_ENTRY), plan.program_entry);
            assert_eq!((value(libc::AT_UID), value(libc::AT_SECURE)), (11, 1));
            assert_eq!(string(&stack, value(libc::AT_EXECFN)), b"/bin/program");
            assert_eq!(auxv.last_chunk(), Some(&[0, 0]));
        }
    }

    #[test]
    fn a_part_of_a_block_asks_for_more() {
        let plan = plan();
        let old = block(&[100, 200], &[400, 500]);
        for n in 0..old.len() {
            let stack = rewrite_stack(&old[..n], RSP, &fix(&plan, &[]));
            assert_eq!(stack.unwrap_err(), StackError::NeedMore, "{n}");
        }
    }

    #[test]
    fn malformed_blocks_are_refused() {
        let plan = plan();
        let fix = fix(&plan, &[]);
        let old = block(&[100, 200], &[400]);
        let refused = |block: &[u8], rsp| {
            assert_eq!(rewrite_stack(block, rsp, &fix), Err(StackError::Malformed));
        };
        let with = |word: usize, value: u64| {
            let mut block = old.clone();
            block[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
            block
        };
        for argc in [0, 1, u64::MAX, u64::MAX / 8] {
            refused(&with(0, argc), RSP);
        }
        // No AT_EXECFN, though what follows the vector looks like one.
        let mut block = with(6 + 2 * 7, 77);
        block.extend(
            [libc::AT_EXECFN, 1, 0, 0]
                .into_iter()
                .flat_map(u64::to_le_bytes),
        );
        refused(&block, RSP);
        for rsp in [0, 8, 4096, RSP + 1, TASK_SIZE - 8, u64::MAX - 7] {
            refused(&old, rsp);
        }
        let long = [vec![b'a'; MAX_STRINGS]];
        let fix = StackFix {
            argv_prefix: &long,
            ..fix
        };
        assert_eq!(rewrite_stack(&old, RSP, &fix), Err(StackError::TooLong));
    }
}

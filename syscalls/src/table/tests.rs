//! The table against the kernel's list and itself; the filter against the table.

use std::collections::HashMap;
use std::path::Path;

use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MAXINSNS, BPF_RET,
    BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF, sock_filter,
};

use super::filter::{FilterParams, program};
use super::*;

const COOKIE: u64 = 0x1234_5678_9abc_def0;

fn installed_filter() -> Vec<sock_filter> {
    program(
        rows(),
        FilterParams {
            ask: SECCOMP_RET_USER_NOTIF,
            exec_cookie: COOKIE,
        },
    )
}

#[test]
fn every_call_of_the_installed_header_has_its_row() {
    let header = Path::new("/usr/include/x86_64-linux-gnu/asm/unistd_64.h");
    let Ok(text) = std::fs::read_to_string(header) else {
        eprintln!("SKIPPED: {} is not installed", header.display());
        return;
    };
    let mut seen = 0;
    for line in text.lines() {
        let Some(definition) = line.strip_prefix("#define __NR_") else {
            continue;
        };
        let mut words = definition.split_whitespace();
        let (Some(name), Some(nr)) = (words.next(), words.next()) else {
            continue;
        };
        let nr: u32 = nr.parse().expect("the header defines numbers");
        if nr >= NUMBERS as u32 {
            eprintln!("SKIPPED: {name} ({nr}) is newer than the table");
            continue;
        }
        assert_eq!(lookup(nr).map(|row| row.name), Some(name), "call {nr}");
        seen += 1;
    }
    assert!(
        seen > 300,
        "only {seen} calls found in {}",
        header.display()
    );
}

#[test]
fn calls_newer_than_most_headers_have_the_kernels_numbers() {
    // From arch/x86/entry/syscalls/syscall_64.tbl of Linux 6.18.
    let newer = [
        "cachestat",
        "fchmodat2",
        "map_shadow_stack",
        "futex_wake",
        "futex_wait",
        "futex_requeue",
        "statmount",
        "listmount",
        "lsm_get_self_attr",
        "lsm_set_self_attr",
        "lsm_list_modules",
        "mseal",
        "setxattrat",
        "getxattrat",
        "listxattrat",
        "removexattrat",
        "open_tree_attr",
        "file_getattr",
        "file_setattr",
    ];
    for (nr, name) in (451..).zip(newer) {
        assert_eq!(lookup(nr).map(|row| row.name), Some(name), "call {nr}");
    }
    assert_eq!(
        i64::from(by_name("mseal").expect("a row").nr),
        libc::SYS_mseal
    );
}

#[test]
fn numbers_and_names_are_unique_and_found() {
    let mut names = HashMap::new();
    for row in rows() {
        assert_eq!(lookup(row.nr).map(|found| found.name), Some(row.name));
        assert_eq!(by_name(row.name).map(|found| found.nr), Some(row.nr));
        assert_eq!(
            names.insert(row.name, row.nr),
            None,
            "{} is there twice",
            row.name
        );
    }
    for hole in [337, 400, 423, 470, 0x4000_0000, u32::MAX] {
        assert!(lookup(hole).is_none(), "{hole}");
    }
    // The classic numbers and those since 5.1 have no holes.
    assert!((0..=336).chain(424..=469).all(|nr| lookup(nr).is_some()));
    assert!(by_name("no such call").is_none());
}

#[test]
fn rows_are_well_formed() {
    for row in rows() {
        assert!(row.args.len() <= 6, "{}", row.name);
        for arg in row.args {
            let Type::Ptr { len, .. } = arg.ty else {
                continue;
            };
            let length_type = |i: u8| row.args.get(usize::from(i)).map(|arg| arg.ty);
            match len {
                Len::Single => {}
                Len::Count(i) | Len::Sized(i) => assert!(
                    matches!(
                        length_type(i),
                        Some(Type::Size | Type::Int | Type::UInt | Type::Long)
                    ),
                    "{}: length of {}",
                    row.name,
                    arg.name
                ),
                Len::SizedAt(i) => assert!(
                    matches!(
                        length_type(i),
                        Some(Type::Ptr {
                            to: Struct::I32 | Struct::U32,
                            dir: Dir::InOut,
                            len: Len::Single
                        })
                    ),
                    "{}: length of {}",
                    row.name,
                    arg.name
                ),
            }
        }
        if row.disposition != Disposition::Native {
            assert!(
                !row.note.is_empty(),
                "{} is not native and does not say why",
                row.name
            );
        }
        assert!(
            row.note.is_empty() || row.note.ends_with('.'),
            "{}: a note is a sentence",
            row.name
        );
        assert!(
            rules(&row.disposition)
                .iter()
                .all(|rule| usize::from(rule.arg()) < row.args.len())
        );
    }
}

#[test]
fn senses_and_errors_are_well_formed() {
    let mut seen = HashMap::new();
    for row in rows() {
        let sense = row.sense;
        assert!(
            sense.starts_with(char::is_uppercase) && sense.ends_with('.') && sense.len() < 120,
            "{}: {sense}",
            row.name
        );
        if let Some(other) = seen.insert(sense, row.name) {
            // Names that Linux keeps for what never came share theirs.
            assert!(
                matches!(row.disposition, Disposition::Refused(_)),
                "{other} and {} have one sense",
                row.name
            );
        }
        let errors = row.errors();
        for (errno, when) in &errors {
            assert!(!when.is_empty(), "{}: {errno}", row.name);
            assert_eq!(
                errors.iter().filter(|(e, _)| e == errno).count(),
                1,
                "{}: {errno} is there twice",
                row.name
            );
        }
        if let Disposition::Refused(errno) = row.disposition {
            assert_eq!(errors, [(errno, "always".to_owned())], "{}", row.name);
            assert!(row.own_errors.is_empty(), "{} never gets there", row.name);
        }
    }
}

#[test]
fn errors_follow_from_arguments_and_conditions() {
    let when = |name: &str, errno: Errno| {
        let errors = by_name(name).expect(name).errors();
        let found = errors.into_iter().find(|(e, _)| *e == errno);
        found.map(|(_, when)| when)
    };
    assert_eq!(
        when("renameat", Errno::ENOENT).as_deref(),
        Some("oldpath or newpath leads nowhere, or is empty")
    );
    assert_eq!(
        when("close", Errno::EBADF).as_deref(),
        Some("fd is not open")
    );
    assert_eq!(
        when("clone", Errno::EPERM).as_deref(),
        Some("flags has any of CLONE_NEW*")
    );
    assert_eq!(
        when("socket", Errno::EAFNOSUPPORT).as_deref(),
        Some("domain is not AF_UNIX, AF_INET, AF_INET6 or AF_NETLINK")
    );
    assert_eq!(when("getpid", Errno::EFAULT), None);
    assert_eq!(when("munmap", Errno::EFAULT), None);
}

#[test]
fn a_native_call_takes_no_path() {
    for row in rows() {
        if row
            .args
            .iter()
            .any(|arg| matches!(arg.ty, Type::Path | Type::DirFd))
        {
            assert!(
                matches!(
                    row.disposition,
                    Disposition::Emulated | Disposition::Refused(_)
                ),
                "{} names a path",
                row.name
            );
        }
    }
}

#[test]
fn high_halves_of_int_arguments_change_nothing() {
    let tiocsti = [0, libc::TIOCSTI, 0, 0, 0, 0];
    let disguised = [0, 0xdead_beef_0000_0000 | libc::TIOCSTI, 0, 0, 0, 0];
    for args in [tiocsti, disguised] {
        assert_eq!(
            verdict(AUDIT_ARCH_X86_64, 16, &args),
            Verdict::Refused(Errno::EPERM)
        );
    }
    // A pointer is all of its register.
    let sendto = |addr| verdict(AUDIT_ARCH_X86_64, 44, &[3, 0, 0, 0, addr, 0]);
    assert_eq!(sendto(0), Verdict::Native);
    assert_eq!(sendto(1 << 32), Verdict::Emulated);
}

#[test]
fn arguments_decide() {
    let case = |name: &str, args: [u64; 6]| by_name(name).expect(name).disposition.verdict(&args);
    let first = |arg: u64| [arg, 0, 0, 0, 0, 0];
    assert_eq!(case("socket", first(libc::AF_UNIX as u64)), Verdict::Native);
    assert_eq!(
        case("socket", first(libc::AF_PACKET as u64)),
        Verdict::Refused(Errno::EAFNOSUPPORT)
    );
    assert_eq!(
        case("clone", first((libc::CLONE_VM | libc::SIGCHLD) as u64)),
        Verdict::Native
    );
    assert_eq!(
        case("clone", first(libc::CLONE_NEWUSER as u64)),
        Verdict::Refused(Errno::EPERM)
    );
    assert_eq!(
        case("unshare", first(libc::CLONE_FILES as u64)),
        Verdict::Native
    );
    assert_eq!(case("unshare", first(0x80)), Verdict::Refused(Errno::EPERM));
    assert_eq!(
        case("prctl", first(libc::PR_SET_NAME as u64)),
        Verdict::Native
    );
    assert_eq!(
        case("prctl", first(libc::PR_CAPBSET_READ as u64)),
        Verdict::Emulated
    );
    assert_eq!(
        case("prctl", first(libc::PR_SET_MM as u64)),
        Verdict::Refused(Errno::EPERM)
    );
    assert_eq!(case("prlimit64", first(0)), Verdict::Native);
    assert_eq!(case("prlimit64", first(7)), Verdict::Emulated);
    assert_eq!(
        verdict(AUDIT_ARCH_X86_64, 0x4000_0000, &[0; 6]),
        Verdict::Refused(Errno::ENOSYS)
    );
    assert_eq!(
        verdict(0x4000_0003, 3, &[0; 6]),
        Verdict::Refused(Errno::ENOSYS)
    );
}

/// All rules within a disposition.
fn rules(disposition: &Disposition) -> Vec<Rule> {
    match disposition {
        Disposition::When(rule, yes, no) => {
            let mut all = vec![*rule];
            all.extend(rules(yes));
            all.extend(rules(no));
            all
        }
        _ => Vec::new(),
    }
}

/// What a run of the program said.
struct Run {
    action: u32,
    steps: usize,
    /// Whether it read more of `struct seccomp_data` than number and architecture.
    read_arguments: bool,
}

/// Runs the program over one call, by the rules of the kernel's checker (net/core/filter.c).
fn interpret(program: &[sock_filter], arch: u32, nr: u32, args: &[u64; 6]) -> Run {
    let mut data = [0u8; 64];
    data[..4].copy_from_slice(&nr.to_le_bytes());
    data[4..8].copy_from_slice(&arch.to_le_bytes());
    for (i, arg) in args.iter().enumerate() {
        data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_le_bytes());
    }
    let (mut at, mut acc, mut steps, mut read_arguments) = (0, 0u32, 0, false);
    loop {
        let instruction = program[at];
        at += 1;
        steps += 1;
        let k = instruction.k;
        let mut jump = |taken: bool| {
            at += usize::from(if taken {
                instruction.jt
            } else {
                instruction.jf
            });
        };
        let code = u32::from(instruction.code);
        if code == BPF_LD | BPF_W | BPF_ABS {
            let offset = k as usize;
            assert!(offset.is_multiple_of(4) && offset < data.len());
            read_arguments |= offset >= 8;
            acc = u32::from_le_bytes(data[offset..offset + 4].try_into().expect("four bytes"));
        } else if code == BPF_RET | BPF_K {
            return Run {
                action: k,
                steps,
                read_arguments,
            };
        } else if code == BPF_JMP | BPF_JA {
            at += k as usize;
        } else if code == BPF_JMP | BPF_JEQ | BPF_K {
            jump(acc == k);
        } else if code == BPF_JMP | BPF_JGE | BPF_K {
            jump(acc >= k);
        } else if code == BPF_JMP | BPF_JSET | BPF_K {
            jump(acc & k != 0);
        } else {
            panic!("instruction {code:#x} is not one the filter should use");
        }
    }
}

/// Argument registers that try a disposition from all sides.
fn samples(disposition: &Disposition) -> Vec<[u64; 6]> {
    let mut words = vec![
        0,
        1,
        2,
        0x80,
        0x1_0000_0000,
        u64::from(u32::MAX),
        u64::MAX,
        COOKIE,
    ];
    let mut places = vec![0];
    for rule in rules(disposition) {
        places.push(usize::from(rule.arg()));
        match rule {
            Rule::In(_, values) => words.extend(
                values
                    .iter()
                    .flat_map(|&(_, v)| [v, v.wrapping_sub(1), v.wrapping_add(1)])
                    .map(u64::from),
            ),
            Rule::AnyBit(_, _, bits) => {
                words.extend((0..32).map(|bit| u64::from(bits & (1 << bit))))
            }
            Rule::Zero(_) | Rule::Null(_) | Rule::Marked(..) => {}
        }
    }
    let disguised: Vec<u64> = words
        .iter()
        .map(|word| word | 0xabcd_0000_0000_0000)
        .collect();
    words.extend(disguised);
    let mut samples = vec![[0; 6], [u64::MAX; 6]];
    for place in places {
        for &word in &words {
            for rest in [0, 5] {
                let mut args = [rest; 6];
                args[place] = word;
                samples.push(args);
            }
        }
    }
    samples
}

#[test]
fn the_filter_does_what_the_table_says() {
    let filter = installed_filter();
    let far = [
        0x3fff_ffff,
        0x4000_0000,
        0x4000_0001,
        0x4475_6574,
        0x7fff_ffff,
        u32::MAX,
    ];
    for nr in (0..600).chain(far) {
        let disposition =
            lookup(nr).map_or(Disposition::Refused(Errno::ENOSYS), |row| row.disposition);
        for args in samples(&disposition) {
            let expected = match verdict(AUDIT_ARCH_X86_64, nr, &args) {
                Verdict::Native => SECCOMP_RET_ALLOW,
                Verdict::Emulated | Verdict::Refused(_) => SECCOMP_RET_USER_NOTIF,
            };
            let run = interpret(&filter, AUDIT_ARCH_X86_64, nr, &args);
            assert_eq!(run.action, expected, "call {nr} with {args:x?}");
        }
        for arch in [0x4000_0003, 0xc000_00b7, 0, u32::MAX] {
            let run = interpret(&filter, arch, nr, &[0; 6]);
            assert_eq!(
                run.action, SECCOMP_RET_USER_NOTIF,
                "call {nr} of architecture {arch:#x}"
            );
        }
    }
}

#[test]
fn native_calls_are_decided_by_number_alone() {
    let filter = installed_filter();
    for row in rows() {
        let run = interpret(&filter, AUDIT_ARCH_X86_64, row.nr, &[0; 6]);
        assert!(
            run.steps <= 32,
            "{} takes {} instructions",
            row.name,
            run.steps
        );
        if row.disposition == Disposition::Native {
            // So that the kernel can keep it in its bitmap of allowed numbers.
            assert!(!run.read_arguments, "{}", row.name);
            assert!(
                run.steps <= 12,
                "{} takes {} instructions",
                row.name,
                run.steps
            );
        }
    }
}

#[test]
fn only_the_cookie_opens_execveat() {
    let filter = installed_filter();
    let flags = libc::AT_EMPTY_PATH as u64;
    let nr = libc::SYS_execveat as u32;
    let action = |flags, cookie| {
        interpret(
            &filter,
            AUDIT_ARCH_X86_64,
            nr,
            &[3, 0x1000, 0x2000, 0x3000, flags, cookie],
        )
        .action
    };
    assert_eq!(action(flags, COOKIE), SECCOMP_RET_ALLOW);
    assert_eq!(action(0, COOKIE), SECCOMP_RET_USER_NOTIF);
    assert_eq!(
        action(flags | libc::AT_SYMLINK_NOFOLLOW as u64, COOKIE),
        SECCOMP_RET_USER_NOTIF
    );
    for bit in 0..64 {
        assert_eq!(
            action(flags, COOKIE ^ (1 << bit)),
            SECCOMP_RET_USER_NOTIF,
            "bit {bit}"
        );
    }
}

#[test]
fn the_filter_is_small_and_jumps_within_itself() {
    let filter = installed_filter();
    assert!(
        filter.len() < BPF_MAXINSNS as usize / 4,
        "{} instructions",
        filter.len()
    );
    for (at, instruction) in filter.iter().enumerate() {
        let code = u32::from(instruction.code);
        let furthest = if code == BPF_JMP | BPF_JA {
            instruction.k as usize
        } else {
            usize::from(instruction.jt.max(instruction.jf))
        };
        assert!(
            at + furthest + 1 < filter.len() || code == BPF_RET | BPF_K,
            "instruction {at}"
        );
    }
}

#[test]
fn a_table_without_rows_asks_about_everything() {
    let filter = program(
        &[],
        FilterParams {
            ask: SECCOMP_RET_USER_NOTIF,
            exec_cookie: COOKIE,
        },
    );
    for nr in [0, 1, 322, u32::MAX] {
        assert_eq!(
            interpret(&filter, AUDIT_ARCH_X86_64, nr, &[0; 6]).action,
            SECCOMP_RET_USER_NOTIF
        );
    }
}

#[test]
fn calls_with_a_mark_are_let_through() {
    const MARK: u32 = 0x1234_5679;
    let watched: Vec<Row> = rows()
        .iter()
        .map(|row| match row.disposition {
            Disposition::Native => Row {
                disposition: Disposition::When(
                    Rule::Marked(4, MARK),
                    &Disposition::Native,
                    &Disposition::Emulated,
                ),
                ..*row
            },
            _ => *row,
        })
        .collect();
    let filter = program(
        &watched,
        FilterParams {
            ask: SECCOMP_RET_USER_NOTIF,
            exec_cookie: COOKIE,
        },
    );
    let action = |name: &str, arg: u64| {
        let nr = super::by_name(name).unwrap().nr;
        interpret(&filter, AUDIT_ARCH_X86_64, nr, &[0, 0, 0, 0, arg, 0]).action
    };
    let marked = u64::from(MARK) << 32;
    for name in ["read", "mmap", "close", "munmap", "recvmsg"] {
        assert_eq!(action(name, marked | 7), SECCOMP_RET_ALLOW, "{name}");
        assert_eq!(
            action(name, u64::from(MARK)),
            SECCOMP_RET_USER_NOTIF,
            "{name}"
        );
        assert_eq!(action(name, !marked), SECCOMP_RET_USER_NOTIF, "{name}");
    }
    // What is not native stays so.
    assert_eq!(action("openat", marked), SECCOMP_RET_USER_NOTIF);
    assert_eq!(action("execveat", marked), SECCOMP_RET_USER_NOTIF);
}

#[test]
fn the_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/syscalls.md");
    let page = docs::markdown();
    if std::env::var_os("DUET_RENEW_DOCS").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/syscalls.md is stale: DUET_RENEW_DOCS=1 cargo test -p duet-syscalls table"
    );
}

#[test]
fn long_programs_jump_far() {
    // Neighbours that differ make a run, and a conditional jump, of each number.
    let template = rows()[0];
    let alternating: Vec<Row> = (0..800)
        .map(|nr| {
            let disposition = if nr % 3 == 0 {
                Disposition::Native
            } else {
                Disposition::Emulated
            };
            Row {
                nr: nr * 2,
                disposition,
                ..template
            }
        })
        .collect();
    let filter = program(
        &alternating,
        FilterParams {
            ask: SECCOMP_RET_USER_NOTIF,
            exec_cookie: COOKIE,
        },
    );
    assert!(
        filter
            .iter()
            .any(|instruction| u32::from(instruction.code) == BPF_JMP | BPF_JA)
    );
    for nr in 0..2000 {
        let expected = if nr < 1600 && nr % 6 == 0 {
            SECCOMP_RET_ALLOW
        } else {
            SECCOMP_RET_USER_NOTIF
        };
        assert_eq!(
            interpret(&filter, AUDIT_ARCH_X86_64, nr, &[0; 6]).action,
            expected,
            "call {nr}"
        );
    }
}

#[test]
fn the_kernel_takes_the_filter_and_agrees() {
    let filter = installed_filter();
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("checked elsewhere"),
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the child makes only system calls, no allocation, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: `program` describes `filter`, which outlives the call; the others take numbers.
        let code = unsafe {
            let installed = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    0,
                    &raw const program,
                ) == 0;
            // With no listener the kernel answers ENOSYS where it would have asked the supervisor.
            let asks = |result: i64| result == -1 && *libc::__errno_location() == libc::ENOSYS;
            let allows = |result: i64| !asks(result);
            match installed {
                false => 1,
                true if !allows(libc::syscall(libc::SYS_getpid)) => 2,
                true if !asks(libc::syscall(libc::SYS_getuid)) => 3,
                true if !asks(libc::syscall(
                    libc::SYS_ioctl,
                    0,
                    libc::TIOCSTI | 1 << 40,
                    0,
                )) =>
                {
                    4
                }
                true if !allows(libc::syscall(libc::SYS_ioctl, 0, libc::FIONREAD, 0)) => 5,
                true if !asks(libc::syscall(
                    libc::SYS_execveat,
                    -1,
                    c"".as_ptr(),
                    0,
                    0,
                    libc::AT_EMPTY_PATH,
                    1,
                )) =>
                {
                    6
                }
                true if !allows(libc::syscall(
                    libc::SYS_execveat,
                    -1,
                    c"".as_ptr(),
                    0,
                    0,
                    libc::AT_EMPTY_PATH,
                    COOKIE,
                )) =>
                {
                    7
                }
                true if !asks(libc::syscall(0x4475_6574)) => 8,
                true => 0,
            }
        };
        // SAFETY: ends this process, which is the forked child.
        unsafe { libc::_exit(code) };
    }
    assert!(child > 0, "fork");
    let mut status = 0;
    // SAFETY: waits for our own child, and `status` is ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "status {status:#x}");
    assert_eq!(
        libc::WEXITSTATUS(status),
        0,
        "the number of the check that failed"
    );
}

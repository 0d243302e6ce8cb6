//! From the table to the seccomp filter (a classic BPF program, `seccomp(2)`).
//!
//! The program answers "allow" for native calls and "ask the supervisor" for all others: refused and
//! unknown calls too, so that they are counted, and calls of other architectures, whose numbers mean
//! something else. The supervisor's private calls need no rule, as their numbers are unknown ones.
//!
//! It looks for the number by halves; neighbours that are answered alike share one answer. Only calls
//! whose disposition asks for it have their arguments read: the kernel keeps a bitmap of the numbers
//! that are allowed whatever their arguments, and answers those without running the program.

use std::mem::offset_of;

use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, seccomp_data, sock_filter,
};

use super::places::Place;
use super::{AUDIT_ARCH_X86_64, Disposition, Row, Rule};

/// What lets native calls through.
pub(super) const PLACE: Place = Place {
    file: file!(),
    function: "program",
};

/// What the filter of a sandbox must know beside the table.
#[derive(Clone, Copy, Debug)]
pub struct FilterParams {
    /// `execveat` with just the flag `AT_EMPTY_PATH` and this value as its sixth argument is native: so
    /// the supervisor starts its stub in the guest. Random for each sandbox, and never shown to the guest.
    pub exec_cookie: u64,
    /// What the filter answers for calls that are not native: that of an engine, which is to be asked.
    pub ask: u32,
}

/// The filter for a table whose rows stand in the order of numbers.
///
/// It is far shorter than `BPF_MAXINSNS` for the table of this crate.
pub fn program(table: &[Row], params: FilterParams) -> Vec<sock_filter> {
    let answers = answers(table);
    let ask = params.ask;
    let mut program = vec![load(offset_of!(seccomp_data, arch))];
    let mut rest = vec![load(offset_of!(seccomp_data, nr))];
    rest.extend(search(&answers, params));
    program.extend(branch(BPF_JEQ, AUDIT_ARCH_X86_64, rest, vec![ret(ask)]));
    program
}

/// How numbers are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer<'a> {
    Allow,
    Notify,
    /// By this rule about the arguments.
    Test(&'a Disposition),
    /// `execveat`: only with the cookie.
    Execveat,
}

/// For each run of numbers that are answered alike, its first number and the answer. The first run
/// starts at 0.
fn answers(table: &[Row]) -> Vec<(u32, Answer<'_>)> {
    let mut runs = vec![(0, Answer::Notify)];
    let mut next = 0;
    let mut push = |first, answer| match runs.last_mut() {
        Some(last) if last.1 == answer => {}
        Some(last) if last.0 == first => last.1 = answer,
        _ => runs.push((first, answer)),
    };
    for row in table {
        if row.nr > next {
            push(next, Answer::Notify);
        }
        let answer = match &row.disposition {
            Disposition::Native => Answer::Allow,
            _ if i64::from(row.nr) == libc::SYS_execveat => Answer::Execveat,
            Disposition::Emulated | Disposition::Refused(_) => Answer::Notify,
            rule @ Disposition::When(..) => Answer::Test(rule),
        };
        push(row.nr, answer);
        next = row.nr + 1;
    }
    push(next, Answer::Notify);
    runs
}

/// Finds the run of the number in the accumulator by halves, and answers.
fn search(runs: &[(u32, Answer<'_>)], params: FilterParams) -> Vec<sock_filter> {
    match runs {
        [] => vec![ret(params.ask)],
        [(_, answer)] => match *answer {
            Answer::Allow => vec![ret(SECCOMP_RET_ALLOW)],
            Answer::Notify => vec![ret(params.ask)],
            Answer::Test(disposition) => test(disposition, params.ask),
            Answer::Execveat => execveat(params),
        },
        _ => {
            let (below, from) = runs.split_at(runs.len() / 2);
            let boundary = from.first().map_or(u32::MAX, |run| run.0);
            branch(
                BPF_JGE,
                boundary,
                search(from, params),
                search(below, params),
            )
        }
    }
}

/// Answers by the arguments.
fn test(disposition: &Disposition, ask: u32) -> Vec<sock_filter> {
    let (rule, yes, no) = match disposition {
        Disposition::Native => return vec![ret(SECCOMP_RET_ALLOW)],
        Disposition::Emulated | Disposition::Refused(_) => {
            return vec![ret(ask)];
        }
        Disposition::When(rule, yes, no) => (rule, test(yes, ask), test(no, ask)),
    };
    let mut code = vec![load(low_half(rule.arg()))];
    match *rule {
        Rule::Zero(_) => code.extend(branch(BPF_JEQ, 0, yes, no)),
        Rule::AnyBit(_, _, bits) => code.extend(branch(BPF_JSET, bits, yes, no)),
        Rule::In(_, values) => {
            code.extend(values.iter().rev().fold(no, |otherwise, &(_, value)| {
                branch(BPF_JEQ, value, yes.clone(), otherwise)
            }))
        }
        Rule::Null(arg) => {
            let mut high = vec![load(high_half(arg))];
            high.extend(branch(BPF_JEQ, 0, yes, no.clone()));
            code.extend(branch(BPF_JEQ, 0, high, no));
        }
        Rule::Marked(arg, mark) => {
            code = vec![load(high_half(arg))];
            code.extend(branch(BPF_JEQ, mark, yes, no));
        }
    }
    code
}

/// Allows the supervisor's own `execveat(stub, "", argv, envp, AT_EMPTY_PATH, cookie)`.
fn execveat(FilterParams { exec_cookie, ask }: FilterParams) -> Vec<sock_filter> {
    let expected = [
        (low_half(5), exec_cookie as u32),
        (high_half(5), (exec_cookie >> 32) as u32),
        (low_half(4), libc::AT_EMPTY_PATH as u32),
    ];
    expected
        .iter()
        .rev()
        .fold(vec![ret(SECCOMP_RET_ALLOW)], |then, &(offset, value)| {
            let mut code = vec![load(offset)];
            code.extend(branch(BPF_JEQ, value, then, vec![ret(ask)]));
            code
        })
}

/// Where the low half of an argument stands; x86-64 is little-endian.
fn low_half(arg: u8) -> usize {
    offset_of!(seccomp_data, args) + 8 * usize::from(arg)
}

/// Where the high half of an argument stands.
fn high_half(arg: u8) -> usize {
    low_half(arg) + 4
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

/// The accumulator becomes the 32-bit word at this offset of `struct seccomp_data`.
fn load(offset: usize) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset as u32)
}

fn ret(action: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, action)
}

/// Goes on with the first code if the accumulator compares so with `k`, else with the second. Neither
/// runs off its end. Conditional jumps reach 255 instructions; beyond that a plain jump helps.
fn branch(compare: u32, k: u32, yes: Vec<sock_filter>, no: Vec<sock_filter>) -> Vec<sock_filter> {
    let mut code = Vec::with_capacity(2 + yes.len() + no.len());
    let condition = statement(BPF_JMP | compare | BPF_K, k);
    match u8::try_from(no.len()) {
        Ok(jt) => code.push(sock_filter { jt, ..condition }),
        Err(_) => {
            code.push(sock_filter { jf: 1, ..condition });
            code.push(statement(BPF_JMP | BPF_JA, no.len() as u32));
        }
    }
    code.extend(no);
    code.extend(yes);
    code
}

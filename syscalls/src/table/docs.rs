//! The table for readers: `docs/syscalls.md`, and the words for a single row.

use std::fmt::Write;

use super::{Arg, Dir, Disposition, Family, Len, Ret, Row, Rule, Struct, Type, Verdict, rows};

/// How many calls of the table are treated in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Always native.
    pub native: usize,
    /// By the arguments.
    pub by_arguments: usize,
    /// Always emulated.
    pub emulated: usize,
    /// Always refused.
    pub refused: usize,
}

impl Counts {
    /// Counts rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Counts {
        let mut counts = Counts::default();
        for row in rows {
            match row.disposition {
                Disposition::Native => counts.native += 1,
                Disposition::When(..) => counts.by_arguments += 1,
                Disposition::Emulated => counts.emulated += 1,
                Disposition::Refused(_) => counts.refused += 1,
            }
        }
        counts
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.native + self.by_arguments + self.emulated + self.refused
    }
}

impl Row {
    /// Its arguments and result, as `read(fd, buf: out bytes[count], count: size) -> bytes`.
    pub fn signature(&self) -> String {
        let args: Vec<String> = self.args.iter().map(|arg| self.argument(arg)).collect();
        format!("{}({}) -> {}", self.name, args.join(", "), result(self.ret))
    }

    /// What Duet does with it, as `emulated` or `native if domain is AF_UNIX, else refused (EAFNOSUPPORT)`.
    pub fn treatment(&self) -> String {
        self.words(&self.disposition)
    }

    fn words(&self, disposition: &Disposition) -> String {
        match disposition {
            Disposition::Native => "native".to_owned(),
            Disposition::Emulated => "emulated".to_owned(),
            Disposition::Refused(errno) => format!("refused ({errno:?})"),
            Disposition::When(rule, yes, no) => {
                format!(
                    "{} if {}, else {}",
                    self.words(yes),
                    self.condition(rule),
                    self.words(no)
                )
            }
        }
    }

    /// Calls `f` with each outcome that it can have, and the condition for it (none: always).
    pub(super) fn each_outcome(&self, f: &mut dyn FnMut(Verdict, Option<String>)) {
        self.outcomes(&self.disposition, &mut Vec::new(), f);
    }

    fn outcomes(
        &self,
        disposition: &Disposition,
        conditions: &mut Vec<String>,
        f: &mut dyn FnMut(Verdict, Option<String>),
    ) {
        let verdict = match disposition {
            Disposition::Native => Verdict::Native,
            Disposition::Emulated => Verdict::Emulated,
            Disposition::Refused(errno) => Verdict::Refused(*errno),
            Disposition::When(rule, yes, no) => {
                conditions.push(self.condition(rule));
                self.outcomes(yes, conditions, f);
                conditions.pop();
                conditions.push(self.contrary(rule));
                self.outcomes(no, conditions, f);
                conditions.pop();
                return;
            }
        };
        let all = (!conditions.is_empty()).then(|| conditions.join(" and "));
        f(verdict, all);
    }

    /// That a rule does not hold.
    fn contrary(&self, rule: &Rule) -> String {
        let arg = self.arg_name(rule.arg());
        match rule {
            Rule::In(..) | Rule::Zero(_) | Rule::Null(_) | Rule::Marked(..) => {
                self.condition(rule).replacen(" is ", " is not ", 1)
            }
            Rule::AnyBit(_, bits, _) => format!("{arg} has none of {bits}"),
        }
    }

    fn condition(&self, rule: &Rule) -> String {
        let arg = self.arg_name(rule.arg());
        match rule {
            Rule::In(_, values) => {
                let names: Vec<&str> = values.iter().map(|&(name, _)| name).collect();
                match names.split_last() {
                    Some((last, [])) => format!("{arg} is {last}"),
                    Some((last, others)) => format!("{arg} is {} or {last}", others.join(", ")),
                    None => format!("{arg} is never"),
                }
            }
            Rule::AnyBit(_, bits, _) => format!("{arg} has any of {bits}"),
            Rule::Zero(_) => format!("{arg} is 0"),
            Rule::Null(_) => format!("{arg} is null"),
            Rule::Marked(..) => format!("{arg} has Duet's mark"),
        }
    }

    fn arg_name(&self, arg: u8) -> &'static str {
        self.args.get(usize::from(arg)).map_or("?", |arg| arg.name)
    }

    fn argument(&self, arg: &Arg) -> String {
        let ty = match arg.ty {
            Type::Fd => "fd",
            Type::DirFd => "directory fd",
            Type::Path => "path",
            Type::Str => "string",
            Type::StrArray => "strings",
            Type::Int => "int",
            Type::UInt => "unsigned int",
            Type::Long => "long",
            Type::ULong => "unsigned long",
            Type::Flags(set) | Type::One(set) => set.name(),
            Type::Ptr { to, dir, len } => {
                let dir = match dir {
                    Dir::In => "in",
                    Dir::Out => "out",
                    Dir::InOut => "in/out",
                };
                let len = match len {
                    Len::Single => String::new(),
                    // Of plain bytes, the size is the count.
                    Len::Sized(arg) if to == Struct::Bytes => format!("[{}]", self.arg_name(arg)),
                    Len::SizedAt(arg) if to == Struct::Bytes => {
                        format!("[*{}]", self.arg_name(arg))
                    }
                    Len::Count(arg) => format!("[{}]", self.arg_name(arg)),
                    Len::Sized(arg) => format!("[{} bytes]", self.arg_name(arg)),
                    Len::SizedAt(arg) => format!("[*{} bytes]", self.arg_name(arg)),
                };
                return format!("{}: {dir} {}{len}", arg.name, to.name());
            }
            Type::Size => "size",
            Type::Offset => "offset",
            Type::Signal => "signal",
            Type::Pid => "pid",
            Type::Uid => "uid",
            Type::Gid => "gid",
            Type::Mode => "mode",
            Type::Dev => "device",
            Type::Addr => "address",
            Type::Word => "word",
        };
        if ty == arg.name {
            ty.to_owned()
        } else {
            format!("{}: {ty}", arg.name)
        }
    }
}

fn result(ret: Ret) -> &'static str {
    match ret {
        Ret::Zero => "0",
        Ret::Fd => "fd",
        Ret::Bytes => "bytes",
        Ret::Count => "count",
        Ret::Value => "value",
        Ret::Pid => "pid",
        Ret::Uid => "uid",
        Ret::Gid => "gid",
        Ret::Addr => "address",
        Ret::Mode => "mode",
        Ret::Never => "never",
    }
}

const INTRODUCTION: &str = "\
# System calls

Every system call of x86-64 Linux up to 6.18, and what the layer does with it. This page is made from the
table in `syscalls/src/table/`; to renew it, run `DUET_RENEW_DOCS=1 cargo test -p duet-syscalls table`.
`duet syscalls openat` shows more of one call: each argument, the names of its flags, and the errors that it
can give.

- **native**: the kernel runs it, unseen by Duet, as it touches only the caller's own memory, time, or
  descriptors that it already holds.
- **emulated**: Duet's supervisor answers it, as it names a path, an identity, a process outside itself,
  an address, or a property of the machine. The function named does it, in `syscalls/src/handlers/`.
- **refused**: it fails with the errno given, and is counted and reported at exit. Numbers that are not
  listed, and calls of other architectures (i386, x32), are refused with `ENOSYS`.

";

/// Where the handlers stand.
const HANDLERS: &str = "syscalls/src/handlers/";

/// The page `docs/syscalls.md`.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| family | calls | native | by arguments | emulated | refused |\n|---|--:|--:|--:|--:|--:|\n");
    let mut line = |name: &str, counts: Counts| {
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {} | {} | {} |",
            counts.total(),
            counts.native,
            counts.by_arguments,
            counts.emulated,
            counts.refused
        );
    };
    for family in Family::ALL {
        line(
            family.name(),
            Counts::of(rows().iter().filter(|row| row.family == family)),
        );
    }
    line("**all**", Counts::of(rows()));
    for family in Family::ALL {
        let _ = writeln!(
            page,
            "\n## {}\n\n| nr | call | what it is for | what Duet does |\n|--:|---|---|---|",
            family.name()
        );
        for row in rows().iter().filter(|row| row.family == family) {
            let signature = row.signature().replace('|', "\\|");
            let _ = writeln!(
                page,
                "| {} | `{signature}` | {} | {} |",
                row.nr,
                row.sense,
                row.in_duet()
            );
        }
    }
    page
}

impl Row {
    /// What Duet does with it, by which handler, and why.
    fn in_duet(&self) -> String {
        let mut text = self.treatment();
        let handlers = self.places().into_iter().filter_map(|place| {
            let file = place.file.strip_prefix(HANDLERS)?;
            Some(format!("`{}`, {file}", place.function))
        });
        for handler in handlers {
            let _ = write!(text, " ({handler})");
        }
        if !self.note.is_empty() {
            let _ = write!(text, ". {}", self.note);
        }
        text
    }
}

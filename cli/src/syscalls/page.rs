//! One call of the table: as a line, as a page, as JSON.

use std::fmt::Write;

use duet_syscalls::table::{Arg, Dir, Disposition, Len, Ret, Row, Set, Struct, Type};
use duet_trace::sets::{self, Named};
use serde_json::{Value, json};

/// Columns of a page.
const WIDTH: usize = 96;

/// A line of the list.
pub fn line(row: &Row) -> String {
    format!(
        "{:>3} {:<24} {:<12} {:<34} {}\n",
        row.nr,
        row.name,
        row.family.name(),
        short(row),
        row.sense
    )
}

/// What Duet does with it, in few words.
fn short(row: &Row) -> String {
    match row.disposition {
        Disposition::When(..) => "by arguments".to_owned(),
        _ => row.treatment(),
    }
}

/// One word for what Duet does with it.
fn disposition(row: &Row) -> &'static str {
    match row.disposition {
        Disposition::Native => "native",
        Disposition::Emulated => "emulated",
        Disposition::Refused(_) => "refused",
        Disposition::When(..) => "by arguments",
    }
}

/// All about it, for people.
pub fn text(row: &Row) -> String {
    let mut out = String::new();
    filled(&mut out, &format!("{} – ", row.name), row.sense);
    out.push('\n');
    filled(&mut out, "    ", &row.prototype());
    out.push('\n');
    let mut treatment = row.treatment();
    if !row.note.is_empty() {
        treatment = format!("{treatment}. {}", row.note);
    }
    let places: Vec<String> = row
        .places()
        .iter()
        .map(|p| format!("{} ({})", p.function, p.file))
        .collect();
    filled(&mut out, "number   ", &row.nr.to_string());
    filled(&mut out, "family   ", row.family.name());
    filled(&mut out, "in Duet  ", &treatment);
    filled(&mut out, "code     ", &places.join(", "));
    if !row.args.is_empty() {
        out.push_str("\nArguments\n");
    }
    let longest = row.args.iter().map(|a| a.name.len()).max().unwrap_or(0);
    for arg in row.args {
        let head = format!("  {:<longest$}  ", arg.name);
        filled(&mut out, &head, &meaning(row, arg));
        let values = values(arg);
        let counted = matches!(arg.ty, Type::One(_)) && values.iter().all(|(_, v)| *v < 1024);
        let names: Vec<String> = values
            .iter()
            .map(|&(name, value)| match value {
                value if counted || value < 10 => format!("{name}={value}"),
                value => format!("{name}={value:#x}"),
            })
            .collect();
        if !names.is_empty() {
            filled(&mut out, &" ".repeat(head.len()), &names.join(" "));
        }
    }
    let _ = write!(out, "\nResult\n  {}\n", result(row.ret));
    let errors = row.errors();
    if !errors.is_empty() {
        out.push_str("\nErrors\n");
    }
    for (errno, when) in errors {
        filled(&mut out, &format!("  {:<15} ", format!("{errno:?}")), &when);
    }
    out
}

/// All about it, for machines: an object on a line.
pub fn json(row: &Row) -> String {
    let args: Vec<Value> = row.args.iter().map(|a| argument(row, a)).collect();
    let errors = row.errors();
    let errors: Vec<Value> = errors
        .iter()
        .map(|(e, when)| json!({"name": format!("{e:?}"), "number": *e as i32, "when": when}))
        .collect();
    let places = row.places();
    let places: Vec<Value> = places
        .iter()
        .map(|p| json!({"file": p.file, "function": p.function}))
        .collect();
    let object = json!({
        "number": row.nr,
        "name": row.name,
        "sense": row.sense,
        "prototype": row.prototype(),
        "signature": row.signature(),
        "family": row.family.name(),
        "disposition": disposition(row),
        "treatment": row.treatment(),
        "note": row.note,
        "code": places,
        "arguments": args,
        "result": result(row.ret),
        "errors": errors,
    });
    object.to_string() + "\n"
}

fn argument(row: &Row, arg: &Arg) -> Value {
    let values: Vec<Value> = values(arg)
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({"name": arg.name, "meaning": meaning(row, arg), "values": values})
}

/// The named constants that an argument may hold.
fn values(arg: &Arg) -> Vec<Named> {
    match arg.ty {
        Type::Flags(Set::OPEN) => [sets::ACCESS_MODES, sets::of(Set::OPEN)].concat(),
        Type::Flags(Set::SOCK) => [sets::of(Set::SOCK), sets::SOCK_FLAGS].concat(),
        Type::Flags(set) | Type::One(set) => sets::of(set).to_vec(),
        _ => Vec::new(),
    }
}

/// What an argument is.
fn meaning(row: &Row, arg: &Arg) -> String {
    let text = match arg.ty {
        Type::Fd => "a descriptor",
        Type::DirFd => "where a relative path starts: a descriptor, or AT_FDCWD (-100)",
        Type::Path => "a path: bytes up to a NUL, fewer than 4096",
        Type::Str => "a string: bytes up to a NUL",
        Type::StrArray => "pointers to strings, up to a null pointer",
        Type::Int => "a number, 32 bits",
        Type::UInt => "a number of no sign, 32 bits",
        Type::Long => "a number, 64 bits",
        Type::ULong => "a number of no sign, 64 bits",
        Type::One(Set::IOCTL) => "a request; those that have a name here are",
        Type::Flags(set) => return format!("any of {}", set.name()),
        Type::One(set) => return format!("one of {}", set.name()),
        Type::Ptr { to, dir, len } => return pointer(row, to, dir, len),
        Type::Size => "a size, in bytes or elements",
        Type::Offset => "a place in a file, in bytes",
        Type::Signal => "a signal: 1 to 64; 0 only asks",
        Type::Pid => "a process, thread or group",
        Type::Uid => "a user",
        Type::Gid => "a group",
        Type::Mode => "type and permission bits of a file",
        Type::Dev => "a device number",
        Type::Addr => "an address",
        Type::Word => "what it is hangs on another argument",
    };
    text.to_owned()
}

fn pointer(row: &Row, to: Struct, dir: Dir, len: Len) -> String {
    let name = |i: u8| row.args.get(usize::from(i)).map_or("?", |a| a.name);
    let how_many = match len {
        Len::Single => String::new(),
        Len::Count(i) => format!(", as many as {} says", name(i)),
        Len::Sized(i) => format!(", as many bytes as {} says", name(i)),
        Len::SizedAt(i) => format!(", as many bytes as *{} says", name(i)),
    };
    let who = match dir {
        Dir::In => "read from",
        Dir::Out => "written to",
        Dir::InOut => "read from and written to",
    };
    format!("{}{how_many}; {who} the caller's memory", to.name())
}

fn result(ret: Ret) -> &'static str {
    match ret {
        Ret::Zero => "0; or -1 and an error",
        Ret::Fd => "a descriptor; or -1 and an error",
        Ret::Bytes => "how many bytes; or -1 and an error",
        Ret::Count => "how many; or -1 and an error",
        Ret::Value => "a number; or -1 and an error",
        Ret::Pid => "the number of a process; or -1 and an error",
        Ret::Uid => "a user",
        Ret::Gid => "a group",
        Ret::Addr => "an address; or -1 and an error",
        Ret::Mode => "permission bits",
        Ret::Never => "it does not come back",
    }
}

/// Writes words behind `head`, further lines below its end.
fn filled(out: &mut String, head: &str, words: &str) {
    let indent = head.chars().count();
    out.push_str(head);
    let mut column = indent;
    for (i, word) in words.split(' ').enumerate() {
        let wide = word.chars().count();
        if i > 0 && column + 1 + wide > WIDTH {
            let _ = write!(out, "\n{}", " ".repeat(indent));
            column = indent;
        } else if i > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += wide;
    }
    out.push('\n');
}

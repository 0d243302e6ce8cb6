//! Small pieces of text, as strace(1) writes them.

use std::fmt::Write;

use crate::sets::Named;

/// Any number of flags. What has no name is written as a number; none is `0`, or the name of 0.
pub fn flags(out: &mut String, value: u64, names: &[Named]) {
    if let Some((name, _)) = names.iter().find(|(_, v)| *v == value) {
        out.push_str(name);
        return;
    }
    let (mut rest, mut first) = (value, true);
    for &(name, bits) in names.iter().filter(|(_, bits)| *bits != 0) {
        if rest & bits == bits {
            separate(out, &mut first, "|");
            out.push_str(name);
            rest &= !bits;
        }
    }
    if rest != 0 || first {
        separate(out, &mut first, "|");
        hex(out, rest);
    }
}

/// One of several values.
pub fn one(out: &mut String, value: u64, names: &[Named], set: &str) {
    match names.iter().find(|(_, v)| *v == value) {
        Some((name, _)) => out.push_str(name),
        None => {
            hex(out, value);
            if !names.is_empty() {
                // Writing to a string does not fail.
                let _ = write!(out, " /* {}??? */", set.trim_end_matches('*'));
            }
        }
    }
}

/// Writes `separator` but for the first time.
pub fn separate(out: &mut String, first: &mut bool, separator: &str) {
    if !std::mem::take(first) {
        out.push_str(separator);
    }
}

/// A number in hexadecimal; 0 without a prefix.
pub fn hex(out: &mut String, value: u64) {
    let _ = match value {
        0 => write!(out, "0"),
        v => write!(out, "{v:#x}"),
    };
}

/// An address.
pub fn address(out: &mut String, value: u64) {
    let _ = match value {
        0 => write!(out, "NULL"),
        v => write!(out, "{v:#x}"),
    };
}

/// A time since 1970 as a comment; none of 0.
pub fn time_comment(out: &mut String, seconds: i64, fraction: i64, digits: usize) {
    if seconds == 0 && fraction == 0 {
        return;
    }
    let time: libc::time_t = seconds;
    // SAFETY: all zeros are a `tm`.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both are ours for the call; only `tm` is written. None: the year is too large.
    if unsafe { libc::localtime_r(&time, &mut tm) }.is_null() {
        return;
    }
    let _ = write!(
        out,
        " /* {}-{:02}-{:02}T{:02}:{:02}:{:02}",
        i64::from(tm.tm_year) + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    );
    if fraction > 0 {
        let _ = write!(out, ".{fraction:0digits$}");
    }
    let (sign, offset) = if tm.tm_gmtoff < 0 {
        ('-', -tm.tm_gmtoff)
    } else {
        ('+', tm.tm_gmtoff)
    };
    let _ = write!(out, "{sign}{:02}{:02} */", offset / 3600, offset / 60 % 60);
}

/// Ticks of the clock that times(2) counts, with seconds as a comment.
pub fn ticks(out: &mut String, value: u64) {
    /// `USER_HZ`: the same on all of Linux's x86.
    const PER_SECOND: f64 = 100.0;
    let _ = write!(out, "{value}");
    if value > 0 {
        let _ = write!(out, " /* {:.2} s */", value as f64 / PER_SECOND);
    }
}

/// Bytes between quotes, escaped as in C, with dots if `cut`.
pub fn quoted(out: &mut String, bytes: &[u8], cut: bool) {
    out.push('"');
    for (i, &b) in bytes.iter().enumerate() {
        let digit_follows = bytes.get(i + 1).is_some_and(|b| b.is_ascii_digit());
        match b {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(b as char);
            }
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            0x0b => out.push_str("\\v"),
            0x0c => out.push_str("\\f"),
            0x20..=0x7e => out.push(b as char),
            _ if digit_follows => {
                let _ = write!(out, "\\{b:03o}");
            }
            _ => {
                let _ = write!(out, "\\{b:o}");
            }
        }
    }
    out.push('"');
    if cut {
        out.push_str("...");
    }
}

/// The name of a descriptor: as between quotes, but for what would end it.
pub fn named(out: &mut String, name: &[u8]) {
    for &b in name {
        match b {
            b'<' | b'>' | b'\\' => {
                let _ = write!(out, "\\{b:o}");
            }
            0x20..=0x7e => out.push(b as char),
            _ => {
                let _ = write!(out, "\\{b:03o}");
            }
        }
    }
}

/// Bytes between quotes, each in hexadecimal.
pub fn hex_quoted(out: &mut String, bytes: &[u8], cut: bool) {
    out.push('"');
    for b in bytes {
        let _ = write!(out, "\\x{b:02x}");
    }
    out.push('"');
    if cut {
        out.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        f(&mut out);
        out
    }

    #[test]
    fn flags_are_named_and_the_rest_is_a_number() {
        let names: &[Named] = &[("NONE", 0), ("A", 1), ("B", 2)];
        assert_eq!(text(|o| flags(o, 0, names)), "NONE");
        assert_eq!(text(|o| flags(o, 3, names)), "A|B");
        assert_eq!(text(|o| flags(o, 9, names)), "A|0x8");
        assert_eq!(text(|o| flags(o, 0, &names[1..])), "0");
        assert_eq!(text(|o| one(o, 7, names, "X_*")), "0x7 /* X_??? */");
    }

    #[test]
    fn bytes_are_escaped_as_in_c() {
        assert_eq!(
            text(|o| quoted(o, b"a\"\\\n\x00\x001", true)),
            r#""a\"\\\n\0\0001"..."#
        );
        assert_eq!(text(|o| hex_quoted(o, b"\x01\xff", false)), r#""\x01\xff""#);
    }
}

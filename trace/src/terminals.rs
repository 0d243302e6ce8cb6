//! The modes of terminals, termios(3).

use std::fmt::Write;

use crate::sets::{Named, names};
use crate::structs::Fields;
use crate::text::{hex, separate};

const INPUT: &[Named] = names![
    IGNBRK,
    BRKINT,
    IGNPAR,
    PARMRK,
    INPCK,
    ISTRIP,
    INLCR,
    IGNCR,
    ICRNL,
    IUCLC = 0o1000,
    IXON,
    IXANY,
    IXOFF,
    IMAXBEL,
    IUTF8
];
const OUTPUT: &[Named] = names![OPOST, OLCUC, ONLCR, OCRNL, ONOCR, ONLRET, OFILL, OFDEL];
/// Delays of output: of each the mask, and the names of its values.
const DELAYS: &[(u32, &[&str])] = &[
    (0o400, &["NL0", "NL1"]),
    (0o3000, &["CR0", "CR1", "CR2", "CR3"]),
    (0o14000, &["TAB0", "TAB1", "TAB2", "TAB3"]),
    (0o20000, &["BS0", "BS1"]),
    (0o40000, &["VT0", "VT1"]),
    (0o100_000, &["FF0", "FF1"]),
];
const CONTROL: &[Named] = names![
    CSTOPB,
    CREAD,
    PARENB,
    PARODD,
    HUPCL,
    CLOCAL,
    CRTSCTS = 0o20_000_000_000
];
const SPEEDS: [&str; 16] = [
    "B0", "B50", "B75", "B110", "B134", "B150", "B200", "B300", "B600", "B1200", "B1800", "B2400",
    "B4800", "B9600", "B19200", "B38400",
];
const FAST: [&str; 16] = [
    "B38400", "B57600", "B115200", "B230400", "B460800", "B500000", "B576000", "B921600",
    "B1000000", "B1152000", "B1500000", "B2000000", "B2500000", "B3000000", "B3500000", "B4000000",
];
const LOCAL: &[Named] = names![
    ISIG,
    ICANON,
    XCASE = 4,
    ECHO,
    ECHOE,
    ECHOK,
    ECHONL,
    NOFLSH,
    IEXTEN,
    ECHOCTL,
    ECHOPRT,
    ECHOKE,
    FLUSHO,
    PENDIN,
    TOSTOP,
    EXTPROC
];
const KEYS: [&str; 17] = [
    "VINTR", "VQUIT", "VERASE", "VKILL", "VEOF", "VTIME", "VMIN", "VSWTC", "VSTART", "VSTOP",
    "VSUSP", "VEOL", "VREPRINT", "VDISCARD", "VWERASE", "VLNEXT", "VEOL2",
];
/// The kernel's `struct termios` has as many.
const ALL_KEYS: usize = 19;
/// Bytes of it.
pub const SIZE: usize = 36;

/// Flags behind what stands there already; none is nothing, as strace has it.
fn more(out: &mut String, first: &mut bool, value: u32, known: &[Named]) {
    let mut rest = u64::from(value);
    for (name, bit) in known.iter().filter(|(_, bit)| u64::from(value) & bit != 0) {
        separate(out, first, "|");
        out.push_str(name);
        rest &= !bit;
    }
    if rest != 0 {
        separate(out, first, "|");
        hex(out, rest);
    }
}

/// The kernel's `struct termios`; `full`: with the keys.
pub fn termios(out: &mut String, f: &Fields<'_>, full: bool) {
    out.push_str("{c_iflag=");
    more(out, &mut true, f.u32(0), INPUT);
    out.push_str(", c_oflag=");
    let (mut first, mut rest) = (true, f.u32(4));
    for (mask, values) in DELAYS {
        let value = (rest & mask) >> mask.trailing_zeros();
        separate(out, &mut first, "|");
        out.push_str(values.get(value as usize).unwrap_or(&""));
        rest &= !mask;
    }
    more(out, &mut first, rest, OUTPUT);
    out.push_str(", c_cflag=");
    let control = f.u32(8);
    let speeds = if control & 0o10000 == 0 { SPEEDS } else { FAST };
    out.push_str(speeds[(control & 0o17) as usize]);
    let _ = write!(out, "|CS{}", 5 + (control >> 4 & 3));
    more(out, &mut false, control & !0o10077, CONTROL);
    out.push_str(", c_lflag=");
    more(out, &mut true, f.u32(12), LOCAL);
    if !full {
        return out.push_str(", ...}");
    }
    out.push_str(", c_line=");
    match f.byte(16) {
        0 => out.push_str("N_TTY"),
        line => hex(out, line.into()),
    }
    out.push_str(", c_cc=[");
    for i in 0..ALL_KEYS {
        separate(out, &mut (i == 0), ", ");
        let _ = match KEYS.get(i) {
            Some(name) => write!(out, "[{name}]="),
            None => write!(out, "[{i}]="),
        };
        hex(out, f.byte(17 + i).into());
    }
    out.push_str("]}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_named_as_strace_does() {
        let mut bytes = Vec::new();
        for word in [0o2400_u32, 0o5, 0o277, 0o105_073] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([0, 3, 0x1c]);
        bytes.resize(SIZE, 0);
        let mut text = String::new();
        termios(&mut text, &Fields(&bytes), false);
        assert_eq!(
            text,
            "{c_iflag=ICRNL|IXON, c_oflag=NL0|CR0|TAB0|BS0|VT0|FF0|OPOST|ONLCR, c_cflag=B38400|CS8|CREAD, \
             c_lflag=ISIG|ICANON|ECHO|ECHOE|ECHOK|IEXTEN|ECHOCTL|ECHOKE, ...}"
        );
        text.clear();
        termios(&mut text, &Fields(&bytes), true);
        assert!(
            text.contains(", c_line=N_TTY, c_cc=[[VINTR]=0x3, [VQUIT]=0x1c, [VERASE]=0"),
            "{text}"
        );
        assert!(text.ends_with("[VEOL2]=0, [17]=0, [18]=0]}"), "{text}");
    }
}

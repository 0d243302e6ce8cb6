//! `/proc/PID/status` and `/proc/PID/stat` as proc_pid_status(5) and proc_pid_stat(5) describe them:
//! the kernel's text with the virtual credentials in place of the real ones.

use std::io::Write;

use crate::types::*;

/// The virtual state that `status` shows.
pub(super) struct Shown<'a> {
    /// Name in place of the kernel's.
    pub(super) name: Option<&'a str>,
    /// Credentials.
    pub(super) creds: &'a Creds,
    /// `umask`; `None` (a zombie's) keeps the kernel's line, if there is one.
    pub(super) umask: Option<u32>,
    /// Whether the process itself set `PR_SET_NO_NEW_PRIVS`.
    pub(super) no_new_privs: bool,
    /// Filters that the process itself installed.
    pub(super) seccomp_filters: u32,
    /// Whether this is the thread that reads: running, though it waits for Duet.
    pub(super) reader: bool,
}

/// Replaces the lines of `host` that tell of credentials and filters.
pub(super) fn rewrite(host: &[u8], shown: &Shown<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(host.len() + 64);
    let traced_by_duet = host.split(|&b| b == b'\n').any(|l| l == b"TracerPid:\t0");
    for line in host.split_inclusive(|&b| b == b'\n') {
        if shown.reader && line.starts_with(b"State:\t") {
            out.extend_from_slice(b"State:\tR (running)\n");
            continue;
        }
        // A process that waits for Duet sleeps. A tracer of the sandbox has a number there.
        if traced_by_duet && line.starts_with(b"State:\tt") {
            out.extend_from_slice(b"State:\tS (sleeping)\n");
            continue;
        }
        if write_line(&mut out, line, shown).is_none() {
            out.extend_from_slice(line);
        }
    }
    out
}

/// Writes the virtual form of `line`; `None` if it has none.
fn write_line(out: &mut Vec<u8>, line: &[u8], shown: &Shown<'_>) -> Option<()> {
    let key = line.get(..line.iter().position(|&b| b == b':')?)?;
    let c = shown.creds;
    let caps = |caps: Caps| caps.bits() & Creds::ALL_CAPS;
    match key {
        b"Name" => writeln!(out, "Name:\t{}", shown.name?),
        b"Umask" => writeln!(out, "Umask:\t{:04o}", shown.umask? & 0o777),
        b"Uid" => writeln!(out, "Uid:\t{}\t{}\t{}\t{}", c.uid, c.euid, c.suid, c.fsuid),
        b"Gid" => writeln!(out, "Gid:\t{}\t{}\t{}\t{}", c.gid, c.egid, c.sgid, c.fsgid),
        b"Groups" => {
            out.extend_from_slice(b"Groups:\t");
            for (index, group) in c.groups.iter().enumerate() {
                let gap = if index == 0 { "" } else { " " };
                write!(out, "{gap}{group}").ok()?;
            }
            out.write_all(b" \n")
        }
        b"CapInh" => writeln!(out, "CapInh:\t{:016x}", caps(c.inheritable)),
        b"CapPrm" => writeln!(out, "CapPrm:\t{:016x}", caps(c.permitted)),
        b"CapEff" => writeln!(out, "CapEff:\t{:016x}", caps(c.effective)),
        b"CapBnd" => writeln!(out, "CapBnd:\t{:016x}", caps(c.bounding)),
        b"CapAmb" => writeln!(out, "CapAmb:\t{:016x}", caps(c.ambient)),
        b"NoNewPrivs" => writeln!(out, "NoNewPrivs:\t{}", u8::from(shown.no_new_privs)),
        b"Seccomp" => {
            let mode = if shown.seccomp_filters == 0 { 0 } else { 2 };
            writeln!(out, "Seccomp:\t{mode}")
        }
        b"Seccomp_filters" => writeln!(out, "Seccomp_filters:\t{}", shown.seccomp_filters),
        _ => return None,
    }
    .ok()
}

/// `host`, the text of a `stat`, with `name` as its second field.
pub(super) fn rename_stat(host: &[u8], name: &str) -> Vec<u8> {
    let open = host.iter().position(|&b| b == b'(');
    let close = host.iter().rposition(|&b| b == b')');
    let (Some(open), Some(close)) = (open, close) else {
        return host.to_vec();
    };
    if close < open {
        return host.to_vec();
    }
    let mut out = Vec::with_capacity(host.len() + name.len());
    out.extend_from_slice(host.get(..=open).unwrap_or_default());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(host.get(close..).unwrap_or_default());
    out
}

/// `limits` with the number of file locks unlimited: Duet keeps a number of its own in that limit.
pub(super) fn unlimited_locks(text: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"Max file locks            ";
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&b| b == b'\n') {
        match line.strip_prefix(NAME).and_then(|rest| rest.get(20..)) {
            Some(rest) => {
                out.extend_from_slice(NAME);
                out.extend_from_slice(b"unlimited           ");
                out.extend_from_slice(rest);
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn shown(creds: &Creds) -> Shown<'_> {
        Shown {
            name: None,
            creds,
            umask: Some(0o27),
            no_new_privs: false,
            seccomp_filters: 0,
            reader: false,
        }
    }

    #[test]
    fn credentials_are_the_virtual_ones() {
        let creds = Creds {
            fsuid: 7,
            ..Creds::user(1000, 100, Arc::from([4, 24]))
        };
        let host = b"Name:\tsh\nState:\tt (tracing stop)\nTracerPid:\t0\nUmask:\t0022\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\n\
            Groups:\t \nCapEff:\t000001ffffffffff\nCapBnd:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n\
            Seccomp_filters:\t1\nlast";
        let text = String::from_utf8(rewrite(host, &shown(&creds))).unwrap();
        assert_eq!(
            text,
            "Name:\tsh\nState:\tS (sleeping)\nTracerPid:\t0\nUmask:\t0027\nUid:\t1000\t1000\t1000\t7\nGid:\t100\t100\t100\t100\n\
             FDSize:\t64\nGroups:\t4 24 \nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n\
             NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\nlast"
        );
    }

    #[test]
    fn a_hostile_comm_does_not_move_the_fields() {
        assert_eq!(rename_stat(b"1 (a) (b) R 0", "init"), b"1 (init) R 0");
        for odd in [&b""[..], b")(", b"1 (", b"1 )", b"()"] {
            rename_stat(odd, "init");
        }
        assert_eq!(rename_stat(b")(", "x"), b")(");
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let creds = Creds::root();
        super::super::tests::for_random_bytes(b"Uid:\n\tCapSecomp()0123", |bytes| {
            rewrite(bytes, &shown(&creds));
            rename_stat(bytes, "init");
        });
    }
}

//! Odd and broken files: the same fate as natively.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{end, native, run};

const EXEC: u16 = 2;
const DYN: u16 = 3;
const LOAD: u32 = 1;
const INTERP: u32 = 3;
const R: u32 = 4;
const RW: u32 = 6;
const RX: u32 = 5;
const BASE: u64 = 0x40_0000;

/// A program header.
#[derive(Clone)]
struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

/// An ELF file; its first segment holds headers and code, which exits with status 7.
#[derive(Clone)]
struct Elf {
    kind: u16,
    ident: [u8; 8],
    machine: u16,
    entry: u64,
    phoff: u64,
    phentsize: u16,
    phnum: Option<u16>,
    headers: Vec<Header>,
    size: usize,
    text: Vec<(usize, Vec<u8>)>,
}

const CODE_AT: u64 = 0x800;

impl Elf {
    fn new(kind: u16) -> Elf {
        let base = if kind == EXEC { BASE } else { 0 };
        Elf {
            kind,
            ident: [0x7f, b'E', b'L', b'F', 2, 1, 1, 0],
            machine: 62,
            entry: base + CODE_AT,
            phoff: 64,
            phentsize: 56,
            phnum: None,
            headers: vec![load(0, base, 0x1000, 0x1000, RX)],
            size: 0x3000,
            text: Vec::new(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut b = self.ident.to_vec();
        b.extend([0; 8]);
        b.extend(self.kind.to_le_bytes());
        b.extend(self.machine.to_le_bytes());
        b.extend(1u32.to_le_bytes());
        b.extend(self.entry.to_le_bytes());
        b.extend(self.phoff.to_le_bytes());
        b.extend([0; 12]);
        b.extend(64u16.to_le_bytes());
        b.extend(self.phentsize.to_le_bytes());
        let phnum = self.phnum.unwrap_or(self.headers.len() as u16);
        b.extend(phnum.to_le_bytes());
        b.extend([0; 6]);
        for h in &self.headers {
            b.extend(h.kind.to_le_bytes());
            b.extend(h.flags.to_le_bytes());
            for field in [h.offset, h.vaddr, h.vaddr, h.filesz, h.memsz, h.align] {
                b.extend(field.to_le_bytes());
            }
        }
        b.resize(self.size.max(b.len()), 0);
        // mov edi, 7; mov eax, 231; syscall
        let code = [0xbf, 7, 0, 0, 0, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
        let at = CODE_AT as usize;
        if b.len() >= at + code.len() {
            b[at..at + code.len()].copy_from_slice(&code);
        }
        for (at, text) in &self.text {
            b.resize(b.len().max(at + text.len()), 0);
            b[*at..at + text.len()].copy_from_slice(text);
        }
        b.truncate(self.size);
        b
    }

    fn with(mut self, change: impl FnOnce(&mut Elf)) -> Elf {
        change(&mut self);
        self
    }

    fn and(self, header: Header) -> Elf {
        self.with(|e| e.headers.push(header))
    }

    fn interp(self, text: &[u8]) -> Elf {
        let text = text.to_vec();
        self.with(|e| {
            e.headers.insert(
                0,
                Header {
                    kind: INTERP,
                    ..load(0xa00, 0, text.len() as u64, text.len() as u64, R)
                },
            );
            e.text.push((0xa00, text));
        })
    }
}

fn load(offset: u64, vaddr: u64, filesz: u64, memsz: u64, flags: u32) -> Header {
    Header {
        kind: LOAD,
        flags,
        offset,
        vaddr,
        filesz,
        memsz,
        align: 0x1000,
    }
}

/// Both ways, as text: `errno N`, `exit N` or the signal.
fn both(path: &Path) -> (String, String) {
    let native = match native(path, &["x"], &[]).0 {
        Err(errno) => format!("errno {errno}"),
        Ok(status) => end(status),
    };
    let ours = match run(path, &["x"], &[], true) {
        Err(e) if e.kills() => "SIGSEGV".to_owned(),
        Err(e) => format!("errno {}", e.errno() as i32),
        Ok(outcome) => outcome.end(),
    };
    (native, ours)
}

fn check(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let (native, ours) = both(&path);
    println!("{name}: {native}");
    assert_eq!(ours, native, "{name}");
}

#[test]
fn headers() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for kind in [EXEC, DYN] {
        let elf = || Elf::new(kind);
        let check = |name: &str, elf: Elf| check(dir, &format!("{kind}-{name}"), &elf.bytes());
        check("plain", elf());
        check("class32", elf().with(|e| e.ident[4] = 1));
        check("bigendian", elf().with(|e| e.ident[5] = 2));
        check("version", elf().with(|e| e.ident[6] = 9));
        check("abi", elf().with(|e| e.ident[7] = 9));
        check("magic", elf().with(|e| e.ident[1] = b'F'));
        check("relocatable", elf().with(|e| e.kind = 1));
        check("core", elf().with(|e| e.kind = 4));
        check("arm", elf().with(|e| e.machine = 183));
        check("none", elf().with(|e| e.machine = 0));
        check("phentsize", elf().with(|e| e.phentsize = 32));
        check("phentsize-57", elf().with(|e| e.phentsize = 57));
        check("phnum-0", elf().with(|e| e.phnum = Some(0)));
        check("phnum-100", elf().with(|e| e.phnum = Some(100)));
        check(
            "phnum-1170",
            elf().with(|e| {
                e.phnum = Some(1170);
                e.size = 0x12000;
            }),
        );
        check(
            "phnum-1171",
            elf().with(|e| {
                e.phnum = Some(1171);
                e.size = 0x12000;
            }),
        );
        check("phnum-beyond", elf().with(|e| e.phnum = Some(1000)));
        check("phoff-huge", elf().with(|e| e.phoff = 1 << 62));
        check("phoff-negative", elf().with(|e| e.phoff = u64::MAX - 8));
        for size in [0, 1, 4, 20, 63, 64, 100, 120, 0x900] {
            check(&format!("size-{size}"), elf().with(|e| e.size = size));
        }
        check("entry-0", elf().with(|e| e.entry = 0));
        check("entry-huge", elf().with(|e| e.entry = 1 << 47));
        check("entry-max", elf().with(|e| e.entry = u64::MAX));
        check("no-load", elf().with(|e| e.headers[0].kind = 0));
    }
}

#[test]
fn segments() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for kind in [EXEC, DYN] {
        let base = if kind == EXEC { BASE } else { 0 };
        let elf = || Elf::new(kind);
        let check = |name: &str, elf: Elf| check(dir, &format!("{kind}-{name}"), &elf.bytes());
        let add = |name: &str, offset, vaddr: u64, filesz, memsz, flags| {
            let vaddr = base.wrapping_add(vaddr);
            check(name, elf().and(load(offset, vaddr, filesz, memsz, flags)));
        };
        add("data", 0x1000, 0x2000, 0x800, 0x800, RW);
        add("bss", 0x1000, 0x2000, 0x800, 0x80000, RW);
        add("bss-only", 0, 0x2000, 0, 0x80000, RW);
        add("bss-odd", 0x123, 0x2123, 0, 1, RW);
        add("bss-readonly", 0x1000, 0x2000, 0x800, 0x80000, R);
        add("bss-none", 0x1000, 0x2000, 0x800, 0x80000, 0);
        add("empty", 0x1000, 0x2000, 0, 0, RW);
        add("misaligned", 0x1001, 0x2000, 0x800, 0x800, RW);
        add("misaligned-empty", 0x1001, 0x2000, 0, 0x800, RW);
        add("filesz", 0x1000, 0x2000, 0x801, 0x800, RW);
        add("beyond-eof", 0x9000, 0x2000, 0x800, 0x800, RW);
        add("beyond-eof-bss", 0x9000, 0x2000, 0x800, 0x1800, RW);
        add("beyond-eof-bss-r", 0x9000, 0x2000, 0x800, 0x1800, R);
        add("tail-in-last-page", 0x2000, 0x2000, 0x1000, 0x3000, RW);
        add("tail-beyond-eof", 0x2000, 0x2000, 0x1001, 0x3000, RW);
        add("offset-huge", 1 << 62, 0x2000, 0x800, 0x800, RW);
        add("offset-negative", u64::MAX << 12, 0x2000, 0x800, 0x800, RW);
        add("memsz-huge", 0, 0x2000, 0, 1 << 46, RW);
        add("memsz-max", 0, 0x2000, 0, u64::MAX, RW);
        add("memsz-task", 0, 0x2000, 0, 0x7fff_ffff_f000, RW);
        add("vaddr-kernel", 0, 0xffff_8000_0000_0000, 0, 0x1000, RW);
        add("vaddr-task", 0, 0x7fff_ffff_f000 - base, 0, 0x1000, RW);
        add("overlap", 0x1000, 0xc00, 0x400, 0x400, RX);
        add("overlap-bss", 0, 0x800, 0, 0x800, RW);
        add("overlap-same", 0, 0, 0x1000, 0x1000, RX);
        add("many-pages", 0, 0x10000, 0x3000, 0x3000, RX);
        for align in [0, 1, 3, 0x1000, 0x20_0000, 1 << 30, 1 << 40] {
            check(
                &format!("align-{align:#x}"),
                elf().with(|e| e.headers[0].align = align),
            );
        }
        check(
            "unsorted",
            elf().with(|e| {
                e.headers
                    .insert(0, load(0x1000, base + 0x8000, 0x800, 0x800, RW));
            }),
        );
        check(
            "vaddr-odd",
            elf().with(|e| {
                e.headers[0] = load(0x10, base + 0x10, 0xf00, 0xf00, RX);
            }),
        );
    }
    let elf = |vaddr: u64| {
        Elf::new(EXEC).with(|e| {
            e.headers[0].vaddr = vaddr;
            e.entry = vaddr.wrapping_add(CODE_AT);
        })
    };
    check(dir, "at-0", &elf(0).bytes());
    check(dir, "at-1000", &elf(0x1000).bytes());
    check(dir, "at-10000", &elf(0x10000).bytes());
    check(dir, "at-32-bit", &elf(0xffff_0000).bytes());
    check(dir, "at-pie", &elf(0x5555_5555_4000).bytes());
    check(dir, "at-middle", &elf(0x6000_0000_0000).bytes());
    check(dir, "at-end", &elf(0x7fff_ffff_f000).bytes());
    check(dir, "at-kernel", &elf(0xffff_ffff_8000_0000).bytes());
    check(dir, "at-max", &elf(0xffff_ffff_ffff_f000).bytes());
}

#[test]
fn interpreters() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut text = path.to_str().unwrap().as_bytes().to_vec();
        text.push(0);
        text
    };
    // Code that exits with 9, to tell the interpreter from the program.
    let interp = |kind| {
        Elf::new(kind).with(|e| {
            e.text.push((CODE_AT as usize + 1, vec![9]));
            if kind == EXEC {
                e.headers[0].vaddr += 0x100000;
                e.entry += 0x100000;
            }
        })
    };
    let run = |name: &str, bytes: &[u8]| {
        let text = file(&format!("{name}.so"), bytes);
        for kind in [EXEC, DYN] {
            let elf = Elf::new(kind).interp(&text);
            check(dir, &format!("{kind}-{name}"), &elf.bytes());
        }
    };
    run("good", &interp(DYN).bytes());
    run("fixed", &interp(EXEC).bytes());
    run("empty", b"");
    run("text", b"#!/bin/sh\n");
    run("text-long", &[b' '; 200]);
    run("short", &interp(DYN).with(|e| e.size = 63).bytes());
    run("short-table", &interp(DYN).with(|e| e.size = 70).bytes());
    run("machine", &interp(DYN).with(|e| e.machine = 183).bytes());
    run("phentsize", &interp(DYN).with(|e| e.phentsize = 1).bytes());
    run("phnum", &interp(DYN).with(|e| e.phnum = Some(0)).bytes());
    run("type", &interp(DYN).with(|e| e.kind = 1).bytes());
    run(
        "no-load",
        &interp(DYN).with(|e| e.headers[0].kind = 0).bytes(),
    );
    run(
        "filesz",
        &interp(DYN).with(|e| e.headers[0].memsz = 1).bytes(),
    );
    run(
        "misaligned",
        &interp(DYN).with(|e| e.headers[0].vaddr = 1).bytes(),
    );
    run("entry", &interp(DYN).with(|e| e.entry = 1 << 47).bytes());
    run("own-interp", &interp(DYN).interp(b"/nowhere\0").bytes());
    run(
        "over-program",
        &Elf::new(EXEC)
            .with(|e| e.text.push((CODE_AT as usize + 1, vec![9])))
            .bytes(),
    );
    run(
        "bss",
        &interp(DYN)
            .and(load(0x1000, 0x2000, 0x10, 0x9000, RW))
            .bytes(),
    );

    let good = file("good", &interp(DYN).bytes());
    let plain = |name: &str, change: &dyn Fn(&mut Elf)| {
        let mut elf = Elf::new(DYN).interp(&good);
        change(&mut elf);
        check(dir, name, &elf.bytes());
    };
    plain("length-0", &|e| e.headers[0].filesz = 0);
    plain("length-1", &|e| e.headers[0].filesz = 1);
    plain("length-4096", &|e| e.headers[0].filesz = 4096);
    plain("length-4097", &|e| e.headers[0].filesz = 4097);
    plain("length-huge", &|e| e.headers[0].filesz = u64::MAX);
    plain("unterminated", &|e| e.headers[0].filesz -= 1);
    plain("beyond", &|e| e.headers[0].offset = 0x3000);
    plain("half-beyond", &|e| e.headers[0].offset = 0x2fff);
    plain("offset-huge", &|e| e.headers[0].offset = 1 << 62);
    plain("offset-negative", &|e| e.headers[0].offset = 1 << 63);
    plain("offset-max", &|e| e.headers[0].offset = u64::MAX);
    plain("two", &|e| {
        let second = Header {
            offset: 0,
            ..e.headers[0].clone()
        };
        e.headers.push(second);
    });
    plain("bad-program", &|e| e.headers[1].offset = 1);
}

#[test]
fn scripts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let long = |n: usize, c: char| c.to_string().repeat(n);
    let lines = [
        "#!/bin/echo\n".to_owned(),
        "#!/bin/echo a\n".to_owned(),
        "#! \t/bin/echo \t a  b\t \n".to_owned(),
        "#!/bin/echo".to_owned(),
        "#!/bin/echo a".to_owned(),
        "#!/bin/echo a\0b\n".to_owned(),
        "#!/bin/echo\0a\n".to_owned(),
        "#!/bin/echo \0a\n".to_owned(),
        "#!/bin/echo a\r\n".to_owned(),
        "#!\n".to_owned(),
        "#!  \n".to_owned(),
        format!("#!{}", long(300, ' ')),
        format!("#!{}", long(253, ' ')),
        format!("#!{}x", long(253, ' ')),
        format!("#!{}x", long(252, ' ')),
        format!("#!/bin/echo {}", long(300, 'a')),
        format!("#!/bin/echo {}\n", long(300, 'a')),
        format!("#!/bin/echo {} b", long(242, ' ')),
        format!("#!/bin/echo {}b\n", long(242, ' ')),
        format!("#!/bin/echo {}b\n", long(241, 'a')),
        format!("#!/bin/echo {}b\n", long(242, 'a')),
        format!("#!/bin/echo {}b\n", long(243, 'a')),
        format!("#!{}/bin/echo\n", long(243, '/')),
        format!("#!{}/bin/echo\n", long(244, '/')),
        format!("#!{}/bin/echo\n", long(245, '/')),
        format!("#!{}/bin/echo a\n", long(243, '/')),
        format!("#!{}/bin/echo a\n", long(244, '/')),
    ];
    for (i, line) in lines.iter().enumerate() {
        let path = dir.join(i.to_string());
        fs::write(&path, line).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let (expected, text) = native(&path, &["x", "y"], &[]);
        match run(&path, &["x", "y"], &[], true) {
            Ok(outcome) => assert_eq!(outcome.output, text, "{line:?}"),
            Err(e) => assert_eq!(Err(e.errno() as i32), expected, "{line:?}"),
        }
    }
}

#[test]
fn chains_of_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let mut interpreter = "/bin/true".to_owned();
    for depth in 1..=duet_loader::MAX_DEPTH + 1 {
        let path = dir.path().join(depth.to_string());
        fs::write(&path, format!("#!{interpreter}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        interpreter = path.to_str().unwrap().to_owned();
        let expected = if depth > duet_loader::MAX_DEPTH {
            Some(libc::ELOOP)
        } else {
            None
        };
        assert_eq!(native(&path, &["x"], &[]).0.err(), expected, "{depth}");
    }
}

//! Kernels of a few instructions, as files, that look at what they were given.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use duet_vfs::tmp::{TmpFs, TmpOptions};
use duet_vfs::{MountFlags, Store, Vfs};

use super::{code, possible};
use crate::machine::{End, Init, Machine, Running};
use crate::monitor;

/// An ELF image with `code` at 1 MiB, entered there by its PVH note.
fn pvh(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    let note = [
        &4u32.to_le_bytes()[..],
        &4u32.to_le_bytes(),
        &18u32.to_le_bytes(),
        b"Xen\0",
        &(BASE as u32).to_le_bytes(),
    ]
    .concat();
    let (code_at, note_at) = (0x1000u64, 0x800u64);
    let mut image = Vec::new();
    image.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0");
    for value in [BASE, 64, 0] {
        image.extend_from_slice(&u64::to_le_bytes(value));
    }
    for value in [0u16, 0, 64, 56, 2, 0, 0, 0] {
        image.extend_from_slice(&value.to_le_bytes());
    }
    for (kind, at, address, len) in [
        (1u32, code_at, BASE, code.len() as u64),
        (4, note_at, 0, note.len() as u64),
    ] {
        image.extend_from_slice(&kind.to_le_bytes());
        image.extend_from_slice(&7u32.to_le_bytes());
        for value in [at, address, address, len, len, 0x1000] {
            image.extend_from_slice(&value.to_le_bytes());
        }
    }
    image.resize(note_at as usize, 0);
    image.extend_from_slice(&note);
    image.resize(code_at as usize, 0);
    image.extend_from_slice(code);
    image
}

/// A bzImage with `code` at its 64-bit entry.
fn bz_image(code: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    // 64-bit entry; where it wants to be, and what it needs there.
    put(0x236, &1u16.to_le_bytes());
    put(0x258, &0x20_0000u64.to_le_bytes());
    put(0x260, &0x10_0000u32.to_le_bytes());
    image.resize(image.len() + 0x200, 0xf4);
    image.extend_from_slice(code);
    image
}

struct Given {
    kernel: Vec<u8>,
    line: String,
    memory: u64,
    /// `None`: a tree, which the kernel is to mount.
    initramfs: Option<Vec<u8>>,
}

impl Given {
    fn new(kernel: Vec<u8>) -> Given {
        Given {
            kernel,
            line: "quiet".into(),
            memory: 16 << 20,
            initramfs: Some(b"first bytes".to_vec()),
        }
    }

    /// Starts it. Returns how it ended, and what it said on the serial port.
    fn run(self) -> crate::Result<(End, String)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, &self.kernel).unwrap();
        let root = empty_tree(dir.path());
        let init = match self.initramfs {
            Some(bytes) => {
                let mut initramfs = tempfile::tempfile().unwrap();
                // Its position does not matter.
                initramfs.write_all(&bytes).unwrap();
                Init::Initramfs(initramfs)
            }
            None => Init::Tree(crate::init_tree::build(root.store()).unwrap()),
        };
        let (mut ours, serial) = UnixStream::pair().unwrap();
        let machine = Machine {
            kernel: File::open(&path).unwrap(),
            kernel_name: path.display().to_string(),
            init,
            command_line: self.line,
            cpus: 1,
            memory: self.memory,
            root,
            ports: Vec::new(),
            serial,
            network: None,
        };
        let mut running = monitor::start(machine)?;
        let end = running.wait()?;
        drop(running);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        Ok((end, text))
    }
}

fn empty_tree(dir: &Path) -> std::sync::Arc<Vfs> {
    for name in ["files", "dirs"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    let open = |name| File::open(dir.join(name)).unwrap().into();
    let root = TmpFs::new(open("files"), TmpOptions::default()).unwrap();
    let store = Store {
        files: open("files"),
        dirs: open("dirs"),
    };
    Vfs::new(store, root, MountFlags::empty(), "tmpfs").unwrap()
}

/// Says the start information's magic, the command line, the initramfs, and the root of the ACPI tables.
fn pvh_kernel() -> &'static [u8] {
    code!(
        "pvh_kernel",
        ".code32",
        "mov edx, 0x3f8",
        "cmp dword ptr [ebx], 0x336ec578",
        "jne 9f",
        // cmdline_paddr, up to its NUL.
        "mov esi, [ebx + 24]",
        "2: mov al, [esi]",
        "test al, al",
        "jz 3f",
        "out dx, al",
        "inc esi",
        "jmp 2b",
        "3: mov al, 10",
        "out dx, al",
        // The first module: address and length.
        "cmp dword ptr [ebx + 12], 1",
        "jne 8f",
        "mov edi, [ebx + 16]",
        "mov esi, [edi]",
        "mov ecx, [edi + 8]",
        "4: mov al, [esi]",
        "out dx, al",
        "inc esi",
        "dec ecx",
        "jnz 4b",
        "8: mov al, 10",
        "out dx, al",
        // rsdp_paddr
        "mov esi, [ebx + 32]",
        "mov ecx, 7",
        "5: mov al, [esi]",
        "out dx, al",
        "inc esi",
        "dec ecx",
        "jnz 5b",
        "mov al, 10",
        "out dx, al",
        // The MP table's pointer.
        "mov esi, 0xf0000",
        "mov ecx, 4",
        "6: mov al, [esi]",
        "out dx, al",
        "inc esi",
        "dec ecx",
        "jnz 6b",
        "9: mov edx, 0x600",
        "mov al, 0x34",
        "out dx, al",
        "7: jmp 7b",
        ".code64",
    )
}

#[test]
fn an_elf_kernel_finds_what_pvh_promises() {
    if !possible("an_elf_kernel_finds_what_pvh_promises") {
        return;
    }
    let (end, text) = Given::new(pvh(pvh_kernel())).run().unwrap();
    assert_eq!(end, End::PoweredOff);
    let places = "virtio_mmio.device=4096@0xd0000000:5 virtio_mmio.device=4096@0xd0001000:6 \
                  virtio_mmio.device=4096@0xd0002000:7";
    assert_eq!(text, format!("quiet {places}\nfirst bytes\nRSD PTR\n_MP_"));
    // Without an initramfs, but with one device more.
    let mut given = Given::new(pvh(pvh_kernel()));
    given.initramfs = None;
    let (end, text) = given.run().unwrap();
    assert_eq!(end, End::PoweredOff);
    let more = "virtio_mmio.device=4096@0xd0003000:10";
    assert_eq!(text, format!("quiet {places} {more}\n\nRSD PTR\n_MP_"));
}

#[test]
fn a_bzimage_finds_what_the_boot_protocol_promises() {
    if !possible("a_bzimage_finds_what_the_boot_protocol_promises") {
        return;
    }
    let kernel = code!(
        "bz_kernel",
        "mov edx, 0x3f8",
        "cmp dword ptr [rsi + 0x202], 0x53726448",
        "jne 9f",
        // Entries of the map, the last one's end in MiB.
        "movzx ecx, byte ptr [rsi + 0x1e8]",
        "lea eax, [ecx + 0x30]",
        "out dx, al",
        "lea ecx, [ecx + 4 * ecx]",
        "lea rdi, [rsi + 4 * rcx + 0x2d0 - 20]",
        "mov rax, [rdi]",
        "add rax, [rdi + 8]",
        "shr rax, 20",
        "add al, 0x20",
        "out dx, al",
        // The command line's first bytes, and the initramfs.
        "mov ebx, [rsi + 0x228]",
        "mov ecx, 5",
        "2: mov al, [rbx]",
        "out dx, al",
        "inc rbx",
        "dec ecx",
        "jnz 2b",
        "mov ebx, [rsi + 0x218]",
        "mov ecx, [rsi + 0x21c]",
        "3: mov al, [rbx]",
        "out dx, al",
        "inc rbx",
        "dec ecx",
        "jnz 3b",
        "mov ebx, [rsi + 0x70]",
        "mov al, [rbx]",
        "out dx, al",
        "9: mov edx, 0x602",
        "mov al, 1",
        "out dx, al",
        "7: jmp 7b",
    );
    let (end, text) = Given::new(bz_image(kernel)).run().unwrap();
    assert_eq!(end, End::PoweredOff);
    // 16 MiB and 0x20 is a 0.
    assert_eq!(text, "20quietfirst bytesR");
}

#[test]
fn what_does_not_fit_is_said() {
    if !possible("what_does_not_fit_is_said") {
        return;
    }
    let kernel = || pvh(code!("nothing", "2: hlt", "jmp 2b"));
    let fails = |given: Given, words: &str| match given.run() {
        Err(e) => assert!(e.to_string().contains(words), "{e}, not {words:?}"),
        Ok(other) => panic!("{other:?}, not {words:?}"),
    };
    let mut given = Given::new(kernel());
    given.initramfs = Some(vec![0; 17 << 20]);
    fails(given, "--memory");
    let mut given = Given::new(bz_image(&[0xf4]));
    // Behind what the kernel needs to unpack itself (from 2 to 3 MiB).
    given.initramfs = Some(vec![0; 14 << 20]);
    fails(given, "--memory");
    let mut given = Given::new(kernel());
    given.line = "x".repeat(2048);
    fails(given, "--append");
    let mut without_note = kernel();
    without_note[0x800 + 8] = 17;
    fails(Given::new(without_note), "PVH");
    let mut old = bz_image(&[0xf4]);
    old[0x206] = 0x0b;
    fails(Given::new(old), "too old");
    fails(Given::new(b"no kernel".to_vec()), "is no kernel");
    // Any shortened image is an error, or runs what is there of it.
    let whole = kernel();
    for len in [4, 63, 64, 100, 0x7ff, 0x810, 0x1000] {
        fails(Given::new(whole[..len].to_vec()), "cannot be loaded");
    }
    // A segment that lies outside of memory.
    let mut outside = kernel();
    outside[64 + 24..64 + 32].copy_from_slice(&(1u64 << 40).to_le_bytes());
    fails(Given::new(outside), "cannot be loaded");
}

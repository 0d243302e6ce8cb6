//! Libraries made here, whole and broken.

use super::*;

const LOAD: u64 = 0x100_0000;
const SIZE: u64 = 0x2000;
const ENTRY: u32 = 0x100_0040;
/// Where the parts of a library made here are.
const DYNAMIC: usize = 0x100;
const HASH: usize = 0x200;
const SYMBOLS: usize = 0x240;
const NAMES: usize = 0x2a0;
const RELOCATIONS: usize = 0x300;
const CODE: usize = 0x400;
const TABLE: usize = 0x800;
const BUNDLE: usize = 0x1000;

/// The function as gcc 13 makes it without optimization: a frame, and the address by the global offset table.
const PLAIN: &[u8] = &[
    0x55, // push rbp
    0x48, 0x89, 0xe5, // mov rbp, rsp
    0x48, 0x89, 0x7d, 0xf8, // mov [rbp - 8], rdi
    0x48, 0x89, 0x75, 0xf0, // mov [rbp - 16], rsi
    0x48, 0x89, 0x55, 0xe8, // mov [rbp - 24], rdx
    0x48, 0x8b, 0x45, 0xf8, // mov rax, [rbp - 8]
    0x48, 0xc7, 0x00, 0x00, 0x00, 0x00, 0x01, // mov qword ptr [rax], 0x1000000
    0x48, 0x8b, 0x45, 0xf0, // mov rax, [rbp - 16]
    0x48, 0xc7, 0x00, 0x23, 0x01, 0x00, 0x01, // mov qword ptr [rax], 0x1000123
    0x48, 0x8b, 0x45, 0xe8, // mov rax, [rbp - 24]
    0x48, 0xc7, 0x00, 0x00, 0x20, 0x00, 0x00, // mov qword ptr [rax], 0x2000
    0x48, 0x8b, 0x05, 0xc8, 0x03, 0x00, 0x00, // mov rax, [rip + 0x3c8]: TABLE
    0x5d, // pop rbp
    0xc3, // ret
];

/// As with optimization, and the address relative to the instruction.
const OPTIMIZED: &[u8] = &[
    0xf3, 0x0f, 0x1e, 0xfa, // endbr64
    0x48, 0xc7, 0x07, 0x00, 0x00, 0x00, 0x01, // mov qword ptr [rdi], 0x1000000
    0xb8, 0x23, 0x01, 0x00, 0x01, // mov eax, 0x1000123
    0x48, 0x89, 0x06, // mov [rsi], rax
    0x48, 0x8d, 0x05, 0xe6, 0x0b, 0x00, 0x00, // lea rax, [rip + 0xbe6]: BUNDLE
    0x48, 0xc7, 0x02, 0x00, 0x20, 0x00, 0x00, // mov qword ptr [rdx], 0x2000
    0xc3, // ret
];

/// A library whose one function is `code`, with a PVH note in its kernel.
fn library(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; BUNDLE + SIZE as usize];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    put(
        0,
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0",
    );
    put(32, &words(&[64]));
    put(52, &[64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let len = (BUNDLE as u64) + SIZE;
    let (all, dynamic) = (7u64 << 32 | 1, 6u64 << 32 | 2);
    let (at, dynamic_len) = (DYNAMIC as u64, 9 * 16);
    put(64, &words(&[all, 0, 0, 0, len, len, 0x1000]));
    put(
        120,
        &words(&[dynamic, at, at, at, dynamic_len, dynamic_len, 8]),
    );
    // DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_RELAENT, DT_STRSZ, DT_SYMENT
    put(
        DYNAMIC,
        &words(&[
            4, 0x200, 5, 0x2a0, 6, 0x240, 7, 0x300, 8, 24, 9, 24, 10, 0x40, 11, 24, 0, 0,
        ]),
    );
    // One bucket, three symbols.
    put(HASH, &[1, 0, 0, 0, 3, 0, 0, 0]);
    let symbol = |name: u64, kind: u64, value: usize| {
        words(&[name | kind << 32 | 1 << 48, value as u64, 0x40])
    };
    put(SYMBOLS + 24, &symbol(1, 0x12, CODE));
    put(SYMBOLS + 48, &symbol(19, 0x11, BUNDLE));
    put(NAMES + 1, b"krunfw_get_kernel\0KERNEL_BUNDLE\0");
    // R_X86_64_GLOB_DAT of the second symbol.
    put(RELOCATIONS, &words(&[TABLE as u64, 2 << 32 | 6, 0]));
    put(CODE, code);
    put(BUNDLE + 0x20, b"Xen\0");
    put(BUNDLE + 0x24, &[0; 4]);
    put(BUNDLE + 0x100, &note(b"Xen", PHYS32_ENTRY, ENTRY));
    file
}

#[test]
fn kernels_come_out_of_libraries() {
    for code in [PLAIN, OPTIMIZED] {
        let library = library(code);
        assert!(is_one(&library));
        let image = unpack(&library).unwrap();
        let image = [&image.head, image.memory].concat();
        let elf = Elf::parse(&image).unwrap();
        let segment = &elf.program_headers[0];
        assert_eq!((segment.p_paddr, segment.p_memsz), (LOAD, SIZE));
        assert!(image[segment.file_range()] == library[BUNDLE..]);
        let notes: Vec<_> = elf.iter_note_headers(&image).unwrap().flatten().collect();
        assert_eq!(notes.len(), 2);
        let name = notes[0].name.trim_end_matches('\0');
        assert_eq!((name, notes[0].n_type), ("Xen", 18));
        assert_eq!(notes[0].desc, ENTRY.to_le_bytes());
        assert!(takes_no_initramfs(&image[..512]));
        // And of what comes out, nothing more does.
        assert!(crate::kernel::image::unpack(&image) == Ok(None));
    }
    let other = b"\x7fELF and nothing that says it";
    assert!(!takes_no_initramfs(other) && !is_one(other));
}

#[track_caller]
fn fails(library: &[u8], words: &str) {
    let error = unpack(library).err().expect(words);
    assert!(error.contains(words), "{error}, not {words}");
}

#[test]
fn what_is_wrong_with_a_library_is_said() {
    let whole = library(PLAIN);
    let with = |at: usize, bytes: &[u8]| {
        let mut library = whole.clone();
        library[at..at + bytes.len()].copy_from_slice(bytes);
        library
    };
    fails(&with(NAMES + 1, b"x"), "without krunfw_get_kernel");
    fails(
        &with(SYMBOLS + 24 + 8, &[0; 8]),
        "without krunfw_get_kernel",
    );
    fails(&with(SYMBOLS + 24 + 11, &[1]), "outside of the file");
    fails(&whole[..whole.len() - 1], "is cut short");
    fails(&with(CODE + 46, &[0xff]), "is cut short");
    // Loaded at no page; entered outside.
    fails(&with(CODE + 23, &[1]), "cannot be");
    fails(&with(CODE + 37, &[2]), "cannot be");
    fails(&with(BUNDLE + 0x100 + 8, &[19]), "without a PVH note");
    fails(&with(BUNDLE + 0x100 + 19, &[2]), "without a PVH note");
    // A relocation of a kind that leads to nothing here: R_X86_64_JUMP_SLOT.
    fails(&with(RELOCATIONS + 8, &[7]), "does more than");
    for (code, words) in [
        (&[0xc3][..], "returns nothing"),
        // xor eax, eax; ret
        (&[0x31, 0xc0, 0xc3], "does not fill"),
        // mov [rdi + 8], 1
        (&[0x48, 0xc7, 0x47, 0x08, 1, 0, 0, 0, 0xc3], "does more"),
        // A jump to itself, a system call, a call, an invalid instruction, no end.
        (&[0xeb, 0xfe], "does more"),
        (&[0x0f, 0x05, 0xc3], "does more"),
        (&[0xe8, 0, 0, 0, 0, 0xc3], "does more"),
        (&[0x06], "does not end"),
        (&[0x90; 1000], "does not end"),
        // pop rsp; push rax
        (&[0x5c, 0x50], "does more"),
    ] {
        fails(&library(code), words);
    }
}

#[test]
fn broken_libraries_are_errors() {
    let whole = library(PLAIN);
    for len in 0..BUNDLE {
        assert!(unpack(&whole[..len]).is_err(), "{len}");
    }
    let mut seed = 1u64;
    let mut random = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
        (seed >> 33) as usize
    };
    for _ in 0..20_000 {
        let mut broken = whole.clone();
        for _ in 0..1 + random() % 4 {
            broken[random() % (TABLE + 8)] = random() as u8;
        }
        // No panic, and what is taken for a kernel is one piece of the file.
        if is_one(&broken)
            && let Ok(image) = unpack(&broken)
        {
            assert!(broken.as_ptr_range().contains(&image.memory.as_ptr()));
            assert!(image.head.len() == PAGE as usize);
        }
    }
}

#[test]
fn each_installed_library_is_found_once() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["usr/local/lib", "usr/lib64"].map(|d| dir.path().join(d));
    for dir in [&one, &two] {
        fs::create_dir_all(dir).unwrap();
    }
    let real = one.join("libkrunfw.so.5.6.1");
    fs::write(&real, library(PLAIN)).unwrap();
    fs::write(one.join("libkrunfw.so.4"), "text").unwrap();
    fs::write(one.join("libkrun.so.1"), library(PLAIN)).unwrap();
    let link = one.join("libkrunfw.so.5");
    std::os::unix::fs::symlink("libkrunfw.so.5.6.1", &link).unwrap();
    std::os::unix::fs::symlink(&real, two.join("libkrunfw.so")).unwrap();
    let found = installed_below(dir.path());
    assert_eq!(found, [("libkrunfw.so.5".to_owned(), link)]);
}

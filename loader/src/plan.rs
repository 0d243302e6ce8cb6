//! Where everything goes: the address space of a program, chosen as `load_elf_binary` chooses it,
//! but by Duet.
//!
//! The kernel lays out stack, vDSO, `mmap` area and heap for the *stub*. The heap of a static PIE
//! starts within the first GiB above `ELF_ET_DYN_BASE` (0x5555_5555_4000), so a movable program goes
//! 64 GiB above that, and the heap has room to grow. Both windows lie where the shadow layouts of
//! AddressSanitizer, MemorySanitizer and ThreadSanitizer (the narrow one of GCC 12 and the wide one
//! of LLVM 18) expect programs and libraries; the interpreter's lies below the lowest `mmap_base` of
//! a kernel with the usual 28 bits of randomness and above what libraries fill downwards from it.

use std::ops::Range;

use crate::elf::PHDR_SIZE;
use crate::{Image, Kind, LoadError, SegmentFault, TASK_SIZE, page_align, page_offset, page_start};

/// Where movable programs go.
const PROGRAM_WINDOW: Range<u64> = 0x5565_5555_4000..0x5680_0000_0000;

/// Where movable interpreters go.
const INTERPRETER_WINDOW: Range<u64> = 0x7e80_0000_0000..0x7ef0_0000_0000;

/// Where either goes that its own window is too small for.
const WIDE_WINDOW: Range<u64> = 0x5680_0000_0000..0x7e80_0000_0000;

/// The file that a mapping is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The program itself.
    Program,
    /// Its interpreter.
    Interpreter,
}

/// One thing to do to the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Map a part of a file, private.
    File {
        /// Which file.
        source: Source,
        /// Where, page-aligned.
        addr: u64,
        /// Bytes, whole pages.
        len: u64,
        /// `PROT_*`.
        prot: i32,
        /// Offset in the file, page-aligned.
        offset: u64,
        /// `MAP_FIXED` over an earlier step, or `MAP_FIXED_NOREPLACE`.
        fixed: i32,
    },
    /// Map fresh memory.
    Anonymous {
        /// Where, page-aligned.
        addr: u64,
        /// Bytes, whole pages.
        len: u64,
        /// `PROT_*`.
        prot: i32,
        /// `MAP_FIXED` over an earlier step, or `MAP_FIXED_NOREPLACE`.
        fixed: i32,
    },
    /// Clear bytes that an earlier step has mapped, writable.
    Zero {
        /// Where.
        addr: u64,
        /// Bytes, less than a page.
        len: u64,
    },
}

/// The address space of a program about to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// Where to jump to: the interpreter's entry, or the program's own.
    pub entry: u64,
    /// The program's own entry (`AT_ENTRY`).
    pub program_entry: u64,
    /// Its program headers (`AT_PHDR`).
    pub phdr: u64,
    /// Size of one (`AT_PHENT`).
    pub phent: u64,
    /// Their number (`AT_PHNUM`).
    pub phnum: u64,
    /// Load bias of the interpreter (`AT_BASE`), 0 without one.
    pub base: u64,
    /// Whether the stack has to be executable.
    pub exec_stack: bool,
    /// First address of the program's code (`start_code` of `/proc/PID/stat`).
    pub start_code: u64,
    /// End of its code.
    pub end_code: u64,
    /// First address of its last data segment.
    pub start_data: u64,
    /// End of its data in the file.
    pub end_data: u64,
    /// End of the image, bss included, up to the page.
    pub end: u64,
}

impl Plan {
    /// Chooses addresses for a program and, if it names one, its interpreter. With `aslr`, a source
    /// of random 64-bit numbers, movable images go to a random place, else always to the same.
    ///
    /// Errors: those that Linux finds past the point of no return ([`LoadError::kills`]).
    pub fn new(
        image: &Image,
        interpreter: Option<&Image>,
        mut aslr: Option<&mut dyn FnMut() -> u64>,
    ) -> Result<Plan, LoadError> {
        let mut random = || aslr.as_mut().map_or(0, |random| random());
        let mut space = Space::default();

        check_segments(image)?;
        let bias = place(image, PROGRAM_WINDOW, &mut random)?;
        space.load(image, Source::Program, bias);
        let program_entry = image.entry.wrapping_add(bias);
        let mut plan = Plan {
            steps: Vec::new(),
            entry: program_entry,
            program_entry,
            phdr: image.phdr.unwrap_or(0).wrapping_add(bias),
            phent: PHDR_SIZE as u64,
            phnum: u64::from(image.phnum),
            base: 0,
            exec_stack: image.exec_stack,
            start_code: u64::MAX,
            end_code: 0,
            start_data: 0,
            end_data: 0,
            end: 0,
        };
        plan.measure(image, bias);

        if let Some(interp) = interpreter {
            let wrap = |e| LoadError::Interpreter(Box::new(e));
            if interp.segments.is_empty() {
                return Err(wrap(LoadError::NothingToLoad));
            }
            check_segments(interp).map_err(wrap)?;
            plan.base = place(interp, INTERPRETER_WINDOW, &mut random).map_err(wrap)?;
            space.load(interp, Source::Interpreter, plan.base);
            plan.entry = interp.entry.wrapping_add(plan.base);
            if plan.entry >= TASK_SIZE {
                return Err(wrap(LoadError::Entry(plan.entry)));
            }
        } else if plan.entry >= TASK_SIZE {
            return Err(LoadError::Entry(plan.entry));
        }
        plan.steps = space.steps;
        Ok(plan)
    }

    /// The figures that `/proc` shows, as the kernel takes them from the table.
    fn measure(&mut self, image: &Image, bias: u64) {
        for s in &image.segments {
            let code = s.prot & libc::PROT_EXEC != 0;
            if code {
                self.start_code = self.start_code.min(s.vaddr);
                self.end_code = self.end_code.max(s.vaddr + s.filesz);
            }
            self.start_data = self.start_data.max(s.vaddr);
            self.end_data = self.end_data.max(s.vaddr + s.filesz);
            self.end = self.end.max(s.vaddr + s.memsz);
        }
        for field in [
            &mut self.start_code,
            &mut self.end_code,
            &mut self.start_data,
            &mut self.end_data,
        ] {
            *field = field.wrapping_add(bias);
        }
        self.end = page_align(self.end.wrapping_add(bias));
    }
}

/// The limits that `load_elf_binary` and `mmap` set to each segment. What holds afterwards: no sum of
/// address and size passes [`TASK_SIZE`], and no sum of offset and size overflows.
fn check_segments(image: &Image) -> Result<(), LoadError> {
    for s in &image.segments {
        let fail = |fault| {
            Err(LoadError::Segment {
                segment: s.index,
                fault,
            })
        };
        if s.vaddr >= TASK_SIZE || s.memsz > TASK_SIZE || TASK_SIZE - s.memsz < s.vaddr {
            return fail(SegmentFault::Address);
        }
        if s.filesz > s.memsz {
            return fail(SegmentFault::FileSize);
        }
        if s.filesz == 0 {
            continue;
        }
        if page_offset(s.offset) != page_offset(s.vaddr) {
            return fail(SegmentFault::Misaligned);
        }
        if s.offset > i64::MAX as u64 - TASK_SIZE {
            return fail(SegmentFault::Offset);
        }
        let end = s.offset + s.filesz;
        if s.tail_to_clear().is_some() && page_start(end) >= image.file_len {
            return fail(SegmentFault::Truncated);
        }
    }
    Ok(())
}

/// The load bias of an image: 0 if it is not movable, else one that puts it into `window`.
fn place(
    image: &Image,
    window: Range<u64>,
    random: &mut dyn FnMut() -> u64,
) -> Result<u64, LoadError> {
    let (Kind::Dyn, Some(first)) = (image.kind, image.segments.first()) else {
        return Ok(0);
    };
    let first = page_start(first.vaddr);
    let segments = image.segments.iter();
    let low = segments.clone().map(|s| page_start(s.vaddr)).min();
    let high = segments.map(|s| page_align(s.vaddr + s.memsz)).max();
    let (low, high) = (low.unwrap_or(0), high.unwrap_or(0));
    for window in [window, WIDE_WINDOW] {
        // As in the kernel it is the first segment's place that is aligned, not the bias.
        let lowest = (window.start + (first - low)).checked_next_multiple_of(image.align);
        let highest = window.end.checked_sub(high - first);
        let (Some(lowest), Some(highest)) = (lowest, highest) else {
            continue;
        };
        if let Some(room) = highest.checked_sub(lowest) {
            let places = room / image.align + 1;
            let at = lowest + random() % places * image.align;
            return Ok(at.wrapping_sub(first));
        }
    }
    Err(LoadError::NoRoom(high - low))
}

impl crate::Segment {
    /// Address as linked and length of the rest of the last page that its bytes of the file reach
    /// into, if it has to be cleared. The kernel leaves what is not writable as it is.
    fn tail_to_clear(&self) -> Option<(u64, u64)> {
        let end = self.vaddr + self.filesz;
        let len = page_align(end) - end;
        let clear = self.memsz > self.filesz && len > 0 && self.prot & libc::PROT_WRITE != 0;
        clear.then_some((end, len))
    }
}

/// The steps so far and what they have mapped.
#[derive(Default)]
struct Space {
    steps: Vec<Step>,
    mapped: Vec<Range<u64>>,
    /// End of the highest mapping.
    top: u64,
}

impl Space {
    /// `elf_load` for every segment.
    fn load(&mut self, image: &Image, source: Source, bias: u64) {
        for s in &image.segments {
            let vaddr = s.vaddr.wrapping_add(bias);
            let mut end = page_start(vaddr);
            if s.filesz > 0 {
                let addr = page_start(vaddr);
                end = page_align(vaddr + s.filesz);
                let fixed = self.claim(addr..end);
                self.steps.push(Step::File {
                    source,
                    addr,
                    len: end - addr,
                    prot: s.prot,
                    offset: page_start(s.offset),
                    fixed,
                });
                if let Some((tail, len)) = s.tail_to_clear() {
                    self.steps.push(Step::Zero {
                        addr: tail.wrapping_add(bias),
                        len,
                    });
                }
            }
            let bss_end = page_align(vaddr + s.memsz);
            if s.memsz > s.filesz && bss_end > end {
                // vm_brk_flags(): always readable and writable, executable on request.
                let fixed = self.claim(end..bss_end);
                self.steps.push(Step::Anonymous {
                    addr: end,
                    len: bss_end - end,
                    prot: libc::PROT_READ | libc::PROT_WRITE | (s.prot & libc::PROT_EXEC),
                    fixed,
                });
            }
        }
    }

    /// The flag to map `range` with. The kernel lets a segment replace earlier ones; nothing else
    /// may be in its place.
    fn claim(&mut self, range: Range<u64>) -> i32 {
        let meets = |m: &Range<u64>| m.start < range.end && range.start < m.end;
        let over = range.start < self.top && self.mapped.iter().any(meets);
        self.top = self.top.max(range.end);
        self.mapped.push(range);
        if over {
            libc::MAP_FIXED
        } else {
            libc::MAP_FIXED_NOREPLACE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Segment;

    fn segment(vaddr: u64, memsz: u64, filesz: u64, prot: i32) -> Segment {
        Segment {
            index: 0,
            vaddr,
            memsz,
            offset: vaddr & 0xffff,
            filesz,
            prot,
        }
    }

    fn image(kind: Kind, segments: Vec<Segment>) -> Image {
        Image {
            kind,
            entry: 0x1000,
            phnum: 1,
            phdr: Some(0x40),
            segments,
            align: 4096,
            interpreter: None,
            exec_stack: false,
            file_len: 1 << 20,
        }
    }

    const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
    const RX: i32 = libc::PROT_READ | libc::PROT_EXEC;

    #[test]
    fn a_movable_image_is_aligned_and_inside_its_window() {
        let mut image = image(
            Kind::Dyn,
            vec![
                segment(0x1000, 0x800, 0x800, RX),
                segment(0x2800, 0x5000, 0x100, RW),
            ],
        );
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            seed >> 7
        };
        let mut places = std::collections::HashSet::new();
        for align in [4096, 1 << 21, 1 << 30] {
            image.align = align;
            for _ in 0..100 {
                let plan = Plan::new(&image, Some(&image), Some(&mut random)).unwrap();
                let bias = plan.phdr - 0x40;
                assert_eq!((bias + 0x1000) % align, 0);
                assert!(PROGRAM_WINDOW.contains(&(bias + 0x1000)));
                assert!(INTERPRETER_WINDOW.contains(&(plan.base + 0x1000)));
                assert!(plan.end <= PROGRAM_WINDOW.end);
                places.insert(bias);
            }
        }
        assert!(places.len() > 200);
        let plan = Plan::new(&image, None, None).unwrap();
        let again = Plan::new(&image, None, None).unwrap();
        assert_eq!(plan.steps, again.steps);
    }

    #[test]
    fn bss_is_cleared_to_the_page_and_mapped_from_there() {
        let image = image(Kind::Exec, vec![segment(0x402800, 0x5000, 0x100, RW)]);
        let plan = Plan::new(&image, None, None).unwrap();
        assert_eq!(
            plan.steps,
            [
                Step::File {
                    source: Source::Program,
                    addr: 0x402000,
                    len: 0x1000,
                    prot: RW,
                    offset: 0x2000,
                    fixed: libc::MAP_FIXED_NOREPLACE,
                },
                Step::Zero {
                    addr: 0x402900,
                    len: 0x700
                },
                Step::Anonymous {
                    addr: 0x403000,
                    len: 0x5000,
                    prot: RW,
                    fixed: libc::MAP_FIXED_NOREPLACE,
                },
            ]
        );
    }

    #[test]
    fn a_later_segment_replaces_an_earlier_one() {
        let image = image(
            Kind::Exec,
            vec![
                segment(0x400000, 0x3000, 0x3000, RX),
                segment(0x401000, 0x1000, 0x1000, RW),
            ],
        );
        let plan = Plan::new(&image, None, None).unwrap();
        assert!(matches!(
            plan.steps[..],
            [
                Step::File {
                    fixed: libc::MAP_FIXED_NOREPLACE,
                    ..
                },
                Step::File {
                    fixed: libc::MAP_FIXED,
                    ..
                },
            ]
        ));
    }

    #[test]
    fn what_fits_nowhere_is_refused() {
        let mut image = image(Kind::Dyn, vec![segment(0, 1 << 46, 0, RW)]);
        let error = Plan::new(&image, None, None).unwrap_err();
        assert!(matches!(error, LoadError::NoRoom(_)) && error.kills());
        image.segments = vec![segment(0, 1 << 44, 0, RW)];
        assert!(Plan::new(&image, None, None).is_ok());
        image.align = 1 << 63;
        assert!(Plan::new(&image, None, None).is_err());
        image.segments = vec![segment(0x1000, u64::MAX, 0, RW)];
        assert!(Plan::new(&image, None, None).is_err());
    }
}

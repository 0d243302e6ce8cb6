//! The state in which a processor starts: what it says of itself, its registers, its tables.
//!
//! Documentation/arch/x86/boot.rst ("64-bit boot protocol") and Xen's docs/misc/pvh.pandoc; CPUID leaves as
//! in Intel's and AMD's manuals.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, Msrs, kvm_cpuid_entry2, kvm_fpu, kvm_msr_entry,
    kvm_regs, kvm_segment,
};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::vm::{Vm, step};
use crate::error::{Error, Result};

/// Where the tables of the start lie: in the first page that a kernel does not take for itself.
const GDT: u64 = 0x500;
/// The page tables of 64-bit code: one of level 4, one of level 3, four of level 2.
const PML4: u64 = 0x9000;
const PDPT: u64 = 0xa000;
const PD: u64 = 0xb000;
/// Where a stack begins, growing down.
const STACK: u64 = 0x8ff0;

/// How the first processor enters the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit mode, the first 4 GiB mapped to themselves, `argument` in RSI.
    Long {
        /// Address of the first instruction.
        code: u64,
        /// What RSI holds: the zero page.
        argument: u64,
    },
    /// 32-bit protected mode without paging, `argument` in EBX.
    Protected {
        /// Address of the first instruction.
        code: u32,
        /// What EBX holds: the PVH start information.
        argument: u32,
    },
}

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Describes the processor `id` of `count`, as KVM can run it.
pub fn describe(vm: &Vm, vcpu: &VcpuFd, id: u32, count: u32) -> Result<()> {
    let mut leaves = vm.cpuid().as_slice().to_vec();
    number(&mut leaves, id, count);
    for leaf in leaves.iter_mut().filter(|l| l.function == 1) {
        // A hypervisor is there; and the local timer's kind.
        leaf.ecx = (leaf.ecx & !(1 << 24)) | 1 << 31 | u32::from(vm.has_tsc_deadline()) << 24;
    }
    let cpuid = CpuId::from_entries(&leaves)
        .map_err(|e| Error::Failed(format!("describing a processor: {e:?}")))?;
    vcpu.set_cpuid2(&cpuid)
        .map_err(step("describing a processor"))
}

/// Says in `leaves` which processor of how many this is: all are cores of one package, with one thread each.
fn number(leaves: &mut Vec<kvm_cpuid_entry2>, id: u32, count: u32) {
    // Bits of an id that tell the cores apart.
    let bits = count.next_power_of_two().trailing_zeros();
    let is_topology = |function| matches!(function, 0xb | 0x1f);
    // KVM leaves it to us to say how deep the topology is.
    let mut functions: Vec<u32> = leaves.iter().map(|l| l.function).collect();
    functions.retain(|f| is_topology(*f));
    functions.dedup();
    leaves.retain(|l| !is_topology(l.function));
    for function in functions {
        for (index, shift, number, kind) in [(0, 0, 1, 1), (1, bits, count, 2), (2, 0, 0, 0)] {
            leaves.push(kvm_cpuid_entry2 {
                function,
                index,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                eax: shift,
                ebx: number,
                ecx: index | kind << 8,
                edx: id,
                padding: [0; 3],
            });
        }
    }
    for leaf in leaves {
        match leaf.function {
            1 => {
                // Initial id, logical processors; HTT: their number is valid.
                leaf.ebx = (leaf.ebx & 0xffff) | count.min(255) << 16 | id << 24;
                leaf.edx = (leaf.edx & !(1 << 28)) | u32::from(count > 1) << 28;
            }
            // Processors that share a cache, and cores of the package (Intel).
            4 if leaf.eax & 0x1f != 0 => {
                let shared = match (leaf.eax >> 5) & 7 {
                    3.. => count - 1,
                    _ => 0,
                };
                leaf.eax =
                    (leaf.eax & 0x3fff) | shared.min(0xfff) << 14 | (count - 1).min(63) << 26;
            }
            // Cores of the package (AMD).
            0x8000_0008 => {
                leaf.ecx = (leaf.ecx & !0xf0ff) | (count - 1).min(255) | bits << 12;
            }
            // Id, core and node (AMD).
            0x8000_001e => (leaf.eax, leaf.ebx, leaf.ecx) = (id, id & 0xff, 0),
            _ => (),
        }
    }
}

/// Sets the registers that every processor has the same: memory types, and string instructions that are
/// fast.
pub fn set_common(vcpu: &VcpuFd) -> Result<()> {
    const MISC_ENABLE: u32 = 0x1a0;
    const FAST_STRING: u64 = 1;
    const MTRR_DEF_TYPE: u32 = 0x2ff;
    const ENABLED: u64 = 1 << 11;
    const WRITE_BACK: u64 = 6;
    for (index, data) in [
        (MISC_ENABLE, FAST_STRING),
        (MTRR_DEF_TYPE, ENABLED | WRITE_BACK),
    ] {
        let entry = kvm_msr_entry {
            index,
            data,
            ..kvm_msr_entry::default()
        };
        let msrs = Msrs::from_entries(&[entry])
            .map_err(|e| Error::Failed(format!("setting a register: {e:?}")))?;
        // A kernel starts without them too.
        match vcpu.set_msrs(&msrs) {
            Ok(1) => (),
            other => log::debug!("register {index:#x} of the guest's processor: {other:?}"),
        }
    }
    let fpu = kvm_fpu {
        fcw: 0x37f,
        mxcsr: 0x1f80,
        ..kvm_fpu::default()
    };
    vcpu.set_fpu(&fpu)
        .map_err(step("setting floating-point registers"))
}

/// Puts the first processor at the guest's entry, with the tables that it needs.
pub fn enter(memory: &GuestMemoryMmap, vcpu: &VcpuFd, entry: Entry) -> Result<()> {
    let mut special = vcpu
        .get_sregs()
        .map_err(step("reading a processor's registers"))?;
    let wide = matches!(entry, Entry::Long { .. });
    let (code, data, task) = (code_segment(wide), DATA, TASK);
    // The selectors that Linux's 64-bit boot protocol asks for: code at 0x10, data at 0x18.
    let table = [
        0,
        0,
        descriptor(&code),
        descriptor(&data),
        descriptor(&task),
    ];
    for (i, value) in table.iter().enumerate() {
        put(memory, GDT + 8 * i as u64, *value)?;
    }
    special.gdt.base = GDT;
    special.gdt.limit = (8 * table.len() - 1) as u16;
    special.idt.base = 0;
    special.idt.limit = 0;
    special.cs = code;
    for segment in [
        &mut special.ds,
        &mut special.es,
        &mut special.fs,
        &mut special.gs,
        &mut special.ss,
    ] {
        *segment = data;
    }
    special.tr = task;
    special.cr0 = CR0_PE | CR0_ET;
    special.cr4 = 0;
    special.efer = 0;
    let mut general = kvm_regs {
        // Reserved, always set.
        rflags: 2,
        rsp: STACK,
        ..kvm_regs::default()
    };
    match entry {
        Entry::Long { code, argument } => {
            map_low_memory(memory)?;
            special.cr3 = PML4;
            special.cr4 = CR4_PAE;
            special.cr0 |= CR0_PG;
            special.efer = EFER_LME | EFER_LMA;
            general.rip = code;
            general.rsi = argument;
        }
        Entry::Protected { code, argument } => {
            general.rip = code.into();
            general.rbx = argument.into();
        }
    }
    vcpu.set_sregs(&special)
        .map_err(step("setting a processor's registers"))?;
    vcpu.set_regs(&general)
        .map_err(step("setting a processor's registers"))
}

/// Maps the first 4 GiB to themselves, in pages of 2 MiB.
fn map_low_memory(memory: &GuestMemoryMmap) -> Result<()> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    put(memory, PML4, PDPT | PRESENT_WRITABLE)?;
    for i in 0..4 {
        put(memory, PDPT + 8 * i, (PD + 0x1000 * i) | PRESENT_WRITABLE)?;
    }
    for i in 0..4 * 512 {
        put(memory, PD + 8 * i, (i << 21) | LARGE | PRESENT_WRITABLE)?;
    }
    Ok(())
}

fn put(memory: &GuestMemoryMmap, address: u64, value: u64) -> Result<()> {
    memory
        .write_obj(value.to_le(), GuestAddress(address))
        .map_err(|e| Error::Failed(format!("writing the guest's tables: {e}")))
}

/// Flat code, of 64 or 32 bits.
fn code_segment(wide: bool) -> kvm_segment {
    kvm_segment {
        selector: 0x10,
        type_: 0xb,
        l: u8::from(wide),
        db: u8::from(!wide),
        ..DATA
    }
}

/// Flat data, readable and writable.
const DATA: kvm_segment = kvm_segment {
    base: 0,
    limit: 0xffff_ffff,
    selector: 0x18,
    type_: 3,
    present: 1,
    dpl: 0,
    db: 1,
    s: 1,
    l: 0,
    g: 1,
    avl: 0,
    unusable: 0,
    padding: 0,
};

/// A busy task state, which the processor must have and never uses.
const TASK: kvm_segment = kvm_segment {
    limit: 0x67,
    selector: 0x20,
    type_: 0xb,
    db: 0,
    s: 0,
    g: 0,
    ..DATA
};

/// The eight bytes of the descriptor table that say the same as `s`.
fn descriptor(s: &kvm_segment) -> u64 {
    let base = s.base & 0xffff_ffff;
    let limit = u64::from(if s.g == 1 { s.limit >> 12 } else { s.limit });
    let access = u64::from(s.type_)
        | u64::from(s.s) << 4
        | u64::from(s.dpl) << 5
        | u64::from(s.present) << 7;
    let flags = u64::from(s.avl) | u64::from(s.l) << 1 | u64::from(s.db) << 2 | u64::from(s.g) << 3;
    (limit & 0xffff)
        | (base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (base >> 24) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_cores_of_one_package() {
        let leaf = |function, eax, ebx| kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ..kvm_cpuid_entry2::default()
        };
        // A third-level cache; a topology without levels.
        let all = [
            leaf(1, 7, 0xff00_0800),
            leaf(4, 0x63, 0),
            leaf(0xb, 0, 0),
            leaf(0x8000_0008, 0, 0),
        ];
        let mut leaves = all.to_vec();
        number(&mut leaves, 2, 3);
        let find = |function, index| {
            let mut found = leaves.iter();
            *found
                .find(|l| (l.function, l.index) == (function, index))
                .unwrap()
        };
        assert_eq!(find(1, 0).ebx, 0x0203_0800);
        assert_eq!(find(1, 0).edx, 1 << 28);
        assert_eq!(find(4, 0).eax, 0x63 | 2 << 14 | 2 << 26);
        assert_eq!(find(0x8000_0008, 0).ecx, 2 | 2 << 12);
        let levels = [0, 1, 2]
            .map(|i| find(0xb, i))
            .map(|l| (l.eax, l.ebx, l.ecx, l.edx));
        assert_eq!(levels, [(0, 1, 0x100, 2), (2, 3, 0x201, 2), (0, 0, 2, 2)]);
        // One alone is as if it were not numbered.
        let mut leaves = all.to_vec();
        number(&mut leaves, 0, 1);
        assert_eq!((leaves[0].ebx, leaves[0].edx), (0x0001_0800, 0));
    }

    #[test]
    fn descriptors_are_those_of_the_manuals() {
        assert_eq!(descriptor(&code_segment(true)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&code_segment(false)), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&DATA), 0x00cf_9300_0000_ffff);
        assert_eq!(descriptor(&TASK), 0x0000_8b00_0000_0067);
        let mut high = TASK;
        high.base = 0x1234_5678;
        assert_eq!(descriptor(&high), 0x1200_8b34_5678_0067);
    }
}

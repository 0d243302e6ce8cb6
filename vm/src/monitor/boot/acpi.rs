//! ACPI tables, by which most kernels find everything (ACPI 6.5; a machine of the hardware-reduced kind).

use acpi_tables::Aml;
use acpi_tables::aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use vm_memory::GuestMemoryMmap;

use super::mptable::{IO_APIC, LOCAL_APIC, controller_id};
use super::put_bytes;
use crate::error::{Error, Result};
use crate::monitor::platform;

/// Where the tables are: in the firmware's memory.
const START: u64 = 0xe_0000;
/// Where they must have ended.
const END: u64 = 0xf_0000;

const OEM: [u8; 6] = *b"DUET  ";
const TABLE: [u8; 8] = *b"MICROVM ";
const REVISION: u32 = 1;

/// A virtio device with its registers in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address of the registers.
    pub address: u32,
    /// Length of them.
    pub len: u32,
    /// Its interrupt.
    pub gsi: u32,
}

/// Writes all tables. Returns the address of their root.
pub fn put(memory: &GuestMemoryMmap, cpus: u32, devices: &[Place]) -> Result<u64> {
    let mut next = START;
    let mut add = |table: &dyn Aml| -> Result<u64> {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        let at = next;
        next = (at + bytes.len() as u64).next_multiple_of(16);
        if next > END {
            return Err(Error::Failed("the ACPI tables have no room".into()));
        }
        put_bytes(memory, at, &bytes)?;
        Ok(at)
    };
    // The root is found by its address, or by a search from the start.
    let rsdp_len = Rsdp::len() as u64;
    let rsdp_at = START;
    add(&Rsdp::new(OEM, 0))?;
    debug_assert!(rsdp_len <= 64);
    let dsdt = add(&dsdt(devices))?;
    let fadt = add(&fadt(dsdt))?;
    let madt = add(&madt(cpus))?;
    let mut xsdt = XSDT::new(OEM, TABLE, REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = add(&xsdt)?;
    let mut root = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut root);
    put_bytes(memory, rsdp_at, &root)?;
    Ok(rsdp_at)
}

/// What devices there are.
fn dsdt(devices: &[Place]) -> Sdt {
    let mut code: Vec<u8> = Vec::new();
    serial(&mut code);
    for (i, place) in devices.iter().enumerate() {
        virtio(&mut code, i, *place);
    }
    panic_device(&mut code);
    // To power off is to sleep as deep as this.
    let off = aml::Package::new(vec![&platform::SLEEP_OFF]);
    aml::Name::new("_S5_".into(), &off).to_aml_bytes(&mut code);
    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, TABLE, REVISION);
    table.append_slice(&code);
    table
}

fn serial(code: &mut Vec<u8>) {
    let id = aml::EISAName::new("PNP0501");
    let ports = aml::IO::new(
        platform::SERIAL,
        platform::SERIAL,
        1,
        platform::SERIAL_PORTS,
    );
    let interrupt = aml::Interrupt::new(true, true, false, false, platform::SERIAL_IRQ);
    let resources = aml::ResourceTemplate::new(vec![&ports, &interrupt]);
    aml::Device::new(
        "_SB_.COM1".into(),
        vec![
            &aml::Name::new("_HID".into(), &id),
            &aml::Name::new("_UID".into(), &aml::ZERO),
            &aml::Name::new("_CRS".into(), &resources),
        ],
    )
    .to_aml_bytes(code);
}

fn virtio(code: &mut Vec<u8>, number: usize, place: Place) {
    let registers = aml::Memory32Fixed::new(true, place.address, place.len);
    let interrupt = aml::Interrupt::new(true, true, false, false, place.gsi);
    let resources = aml::ResourceTemplate::new(vec![&registers, &interrupt]);
    let name = format!("_SB_.V{number:03}");
    aml::Device::new(
        name.as_str().into(),
        vec![
            // What Linux's virtio_mmio driver looks for.
            &aml::Name::new("_HID".into(), &"LNRO0005"),
            &aml::Name::new("_UID".into(), &number),
            &aml::Name::new("_CCA".into(), &aml::ONE),
            &aml::Name::new("_CRS".into(), &resources),
        ],
    )
    .to_aml_bytes(code);
}

fn panic_device(code: &mut Vec<u8>) {
    let ports = aml::IO::new(platform::PANIC, platform::PANIC, 1, 1);
    let resources = aml::ResourceTemplate::new(vec![&ports]);
    aml::Device::new(
        "_SB_.PEVT".into(),
        vec![
            &aml::Name::new("_HID".into(), &"QEMU0001"),
            &aml::Name::new("_CRS".into(), &resources),
        ],
    )
    .to_aml_bytes(code);
}

/// The fixed hardware: nearly none.
fn fadt(dsdt: u64) -> impl Aml {
    const NO_VGA: u16 = 1 << 2;
    const NO_ASPM: u16 = 1 << 4;
    let port = |offset: u16| {
        let address = (platform::POWER + offset).into();
        GAS::new(
            AddressSpace::SystemIo,
            8,
            0,
            AccessSize::ByteAccess,
            address,
        )
    };
    let mut table = FADTBuilder::new(OEM, TABLE, REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    table.iapc_boot_arch = (NO_VGA | NO_ASPM).into();
    table.century = 0x32;
    table.reset_reg = port(platform::RESET);
    table.reset_value = platform::RESET_VALUE;
    table.sleep_control_reg = port(platform::SLEEP_CONTROL);
    table.sleep_status_reg = port(platform::SLEEP_STATUS);
    table.finalize()
}

/// Interrupt controllers.
fn madt(cpus: u32) -> MADT {
    let mut table = MADT::new(
        OEM,
        TABLE,
        REVISION,
        LocalInterruptController::Address(LOCAL_APIC),
    );
    table.add_structure(IoApic::new(controller_id(cpus), IO_APIC, 0));
    for id in 0..cpus as u8 {
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    table
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::monitor::memory;

    #[test]
    fn tables_lead_to_one_another_and_add_up() {
        let memory = memory::create(2 << 20).unwrap();
        let devices: Vec<Place> = (0..3)
            .map(|i| Place {
                address: 0xd000_0000 + 0x1000 * i,
                len: 0x1000,
                gsi: 5 + i,
            })
            .collect();
        let bytes = |at: u64, len: usize| {
            let mut bytes = vec![0; len];
            memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            bytes
        };
        let table = |at: u64| {
            let len = memory.read_obj::<u32>(GuestAddress(at + 4)).unwrap();
            let bytes = bytes(at, len as usize);
            assert_eq!(
                bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b)),
                0,
                "{at:#x}"
            );
            bytes
        };
        let long =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let rsdp_at = put(&memory, 2, &devices).unwrap();
        let rsdp = bytes(rsdp_at, Rsdp::len());
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        let xsdt = table(long(&rsdp, 24));
        assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 16));
        let fadt = table(long(&xsdt, 36));
        assert_eq!(&fadt[..4], b"FACP");
        let madt = table(long(&xsdt, 44));
        assert_eq!((&madt[..4], madt.len()), (&b"APIC"[..], 44 + 12 + 2 * 8));
        let dsdt = table(long(&fadt, 140));
        let found = |needle: &[u8]| dsdt.windows(needle.len()).filter(|w| *w == needle).count();
        assert_eq!(found(b"LNRO0005"), 3);
        assert_eq!(found(&0xd000_2000u32.to_le_bytes()), 1);
        // As many processors as can be.
        assert!(put(&memory, 254, &devices).is_ok());
    }
}

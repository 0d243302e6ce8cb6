//! Where an access to a port or to memory-mapped registers goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::machine::End;

/// A device with registers. Offsets and lengths are the guest's: any length from 1 to 8, or more for
/// string instructions.
pub trait Registers: Send {
    /// Fills `data` with what the guest reads at `offset` of the device.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Takes what the guest writes at `offset`. `Some`: the machine ends by it.
    fn write(&mut self, offset: u64, data: &[u8]) -> Option<End>;
}

/// A device that several buses and threads may share.
pub type Shared = Arc<Mutex<dyn Registers>>;

/// Devices by address. Made once, before the processors start.
#[derive(Default)]
pub struct Bus {
    /// By first address; the length with each.
    devices: BTreeMap<u64, (u64, Shared)>,
}

impl Bus {
    /// Puts a device at `len` addresses from `start` on, which no other device may have.
    pub fn insert(&mut self, start: u64, len: u64, device: Shared) {
        debug_assert!(self.find(start).is_none() && self.find(start + len - 1).is_none());
        self.devices.insert(start, (len, device));
    }

    fn find(&self, address: u64) -> Option<(u64, &Shared)> {
        let (start, (len, device)) = self.devices.range(..=address).next_back()?;
        let offset = address - start;
        (offset < *len).then_some((offset, device))
    }

    /// A read by the guest. Where nothing is, all bits are set, as on a real bus.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.find(address) {
            device.lock().read(offset, data);
        }
    }

    /// A write by the guest. Where nothing is, it is lost.
    pub fn write(&self, address: u64, data: &[u8]) -> Option<End> {
        let (offset, device) = self.find(address)?;
        device.lock().write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Cell(u8);

    impl Registers for Cell {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(self.0 + offset as u8);
        }
        fn write(&mut self, _: u64, data: &[u8]) -> Option<End> {
            self.0 = *data.first()?;
            (self.0 == 9).then_some(End::PoweredOff)
        }
    }

    #[test]
    fn accesses_go_where_a_device_is() {
        let mut bus = Bus::default();
        bus.insert(0x10, 4, Arc::new(Mutex::new(Cell(1))));
        bus.insert(0x14, 1, Arc::new(Mutex::new(Cell(50))));
        let read = |bus: &Bus, at| {
            let mut data = [0];
            bus.read(at, &mut data);
            data[0]
        };
        let seen: Vec<u8> = [0, 0xf, 0x10, 0x13, 0x14, 0x15, u64::MAX]
            .map(|at| read(&bus, at))
            .into();
        assert_eq!(seen, [0xff, 0xff, 1, 4, 50, 0xff, 0xff]);
        assert_eq!(bus.write(0x11, &[7]), None);
        assert_eq!(read(&bus, 0x10), 7);
        assert_eq!(bus.write(0x20, &[9]), None);
        assert_eq!(bus.write(0x14, &[9]), Some(End::PoweredOff));
    }
}

//! What a PC has at fixed ports: serial port, keyboard controller (for its reset line), clock, and the
//! registers by which a guest powers off, resets, and says that it has crashed.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use vm_superio::serial::NoEvents;
use vm_superio::{I8042Device, Serial, Trigger};

use super::bus::{Bus, Registers};
use super::vm::Vm;
use crate::error::{Error, Result};
use crate::machine::End;

/// First port of the first serial port, and its interrupt.
pub const SERIAL: u16 = 0x3f8;
/// Ports of a serial port.
pub const SERIAL_PORTS: u8 = 8;
/// The first serial port's interrupt.
pub const SERIAL_IRQ: u32 = 4;
/// Keyboard controller: data and command ports are 4 apart.
const KEYBOARD: u16 = 0x60;
const KEYBOARD_PORTS: u64 = 5;
/// Index and data port of the clock.
const CLOCK: u16 = 0x70;
/// Control, status and reset registers of the machine's power (ACPI 6.5, 4.8.3.7 and 4.8.3.6).
pub const POWER: u16 = 0x600;
/// Offsets of these.
pub const SLEEP_CONTROL: u16 = 0;
/// Reads as zero: nothing ever wakes up.
pub const SLEEP_STATUS: u16 = 1;
/// A write of [`RESET_VALUE`] resets.
pub const RESET: u16 = 2;
/// What is written to [`RESET`].
pub const RESET_VALUE: u8 = 1;
/// The type of sleep that is "off" (S5), as `SLP_TYP` of the control register.
pub const SLEEP_OFF: u8 = 5;
/// QEMU's device by which a guest tells of its crash (docs/specs/pvpanic.txt).
pub const PANIC: u16 = 0x505;

/// Puts all of them on the bus. `serial`: where the bytes of the serial port go.
pub fn add(ports: &mut Bus, vm: &Vm, serial: UnixStream) -> Result<()> {
    let interrupt = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|e| Error::step("making an eventfd", e))?;
    vm.interrupt_by(&interrupt, SERIAL_IRQ)?;
    let serial = SerialPort(Serial::new(Line(interrupt), Output(serial)));
    let mut add = |start: u16, len: u64, device| ports.insert(start.into(), len, device);
    add(SERIAL, SERIAL_PORTS.into(), Arc::new(Mutex::new(serial)));
    let keyboard = Keyboard(I8042Device::new(ResetLine(Arc::default())));
    add(KEYBOARD, KEYBOARD_PORTS, Arc::new(Mutex::new(keyboard)));
    add(CLOCK, 2, Arc::new(Mutex::new(Clock::default())));
    add(POWER, 3, Arc::new(Mutex::new(Power)));
    add(PANIC, 1, Arc::new(Mutex::new(Panic)));
    Ok(())
}

/// An interrupt line, raised by an eventfd.
struct Line(EventFd);

impl Trigger for Line {
    type E = nix::Error;

    fn trigger(&self) -> nix::Result<()> {
        self.0.write(1).map(drop)
    }
}

/// Where the bytes of the serial port go. Nobody there is no reason for the guest to stop.
struct Output(UnixStream);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        use std::os::fd::AsRawFd;
        // SAFETY: `bytes` are as many as is said.
        let sent = unsafe {
            libc::send(
                self.0.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_NOSIGNAL,
            )
        };
        match nix::errno::Errno::result(sent) {
            Ok(n) => Ok(n.unsigned_abs()),
            Err(nix::errno::Errno::EPIPE) => Ok(bytes.len()),
            Err(e) => Err(e.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct SerialPort(Serial<Line, NoEvents, Output>);

impl Registers for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for byte in data {
            *byte = self.0.read(offset as u8);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<End> {
        for &byte in data {
            if let Err(e) = self.0.write(offset as u8, byte) {
                log::debug!("serial port: {e}");
            }
        }
        None
    }
}

/// Whether the reset line has been pulled.
#[derive(Clone)]
struct ResetLine(Arc<Mutex<bool>>);

impl Trigger for ResetLine {
    type E = std::convert::Infallible;

    fn trigger(&self) -> std::result::Result<(), Self::E> {
        *self.0.lock() = true;
        Ok(())
    }
}

struct Keyboard(I8042Device<ResetLine>);

impl Registers for Keyboard {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let [byte] = data {
            *byte = self.0.read(offset as u8);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<End> {
        let &[byte] = data else { return None };
        let Ok(()) = self.0.write(offset as u8, byte);
        let pulled = *self.0.reset_evt().0.lock();
        pulled.then_some(End::PoweredOff)
    }
}

/// The clock of a PC (MC146818): the host's time, in binary, 24 hours; nothing can be set.
#[derive(Default)]
struct Clock {
    index: u8,
}

impl Clock {
    /// What the register holds at this time, in seconds since the epoch.
    fn register(index: u8, time: u64) -> u8 {
        const BINARY_24_HOURS: u8 = 0x06;
        const VALID: u8 = 0x80;
        let (days, second) = (time / 86400, time % 86400);
        let (year, month, day) = civil(days);
        let value = match index {
            0x00 => second % 60,
            0x02 => second / 60 % 60,
            0x04 => second / 3600,
            // 1 is Sunday; the epoch was a Thursday.
            0x06 => (days + 4) % 7 + 1,
            0x07 => day,
            0x08 => month,
            0x09 => year % 100,
            // Documented by FADT as the register of centuries.
            0x32 => year / 100,
            0x0b => return BINARY_24_HOURS,
            0x0d => return VALID,
            _ => 0,
        };
        value as u8
    }
}

/// Year, month and day of a day since the epoch (Howard Hinnant's algorithm, for years from 1970 on).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

impl Registers for Clock {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        if let (1, [byte]) = (offset, data) {
            *byte = Clock::register(self.index, now);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<End> {
        if let (0, [byte]) = (offset, data) {
            self.index = byte & 0x7f;
        }
        None
    }
}

/// Power-off and reset.
struct Power;

impl Registers for Power {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Option<End> {
        const ENABLE: u8 = 1 << 5;
        let &[byte] = data else { return None };
        let off = offset == u64::from(SLEEP_CONTROL)
            && byte & ENABLE != 0
            && (byte >> 2) & 7 == SLEEP_OFF;
        let reset = offset == u64::from(RESET) && byte == RESET_VALUE;
        (off || reset).then_some(End::PoweredOff)
    }
}

/// The guest's word that its kernel has crashed.
struct Panic;

impl Registers for Panic {
    fn read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(Panic::CRASHED);
    }

    fn write(&mut self, _: u64, data: &[u8]) -> Option<End> {
        let crashed = data.first()? & Panic::CRASHED != 0;
        crashed.then(|| End::Failed("the guest's kernel says that it crashed".into()))
    }
}

impl Panic {
    /// `PVPANIC_PANICKED`, the one event of which we want to hear.
    const CRASHED: u8 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_shows_dates() {
        let date = |time| [0x32, 9, 8, 7, 4, 2, 0, 6].map(|r| Clock::register(r, time));
        assert_eq!(date(0), [19, 70, 1, 1, 0, 0, 0, 5]);
        // A Thursday, leap day of a year that 400 divides: Tuesday, 2000-02-29 23:59:59.
        assert_eq!(date(951_868_799), [20, 0, 2, 29, 23, 59, 59, 3]);
        assert_eq!(date(951_868_800), [20, 0, 3, 1, 0, 0, 0, 4]);
        // 2026-11-27 00:04:30, a Friday.
        assert_eq!(date(1_795_737_870), [20, 26, 11, 27, 0, 4, 30, 6]);
    }

    #[test]
    fn only_the_right_writes_end_a_machine() {
        let off = (SLEEP_OFF << 2) | 1 << 5;
        let mut power = Power;
        assert_eq!(power.write(0, &[off]), Some(End::PoweredOff));
        assert_eq!(power.write(2, &[RESET_VALUE]), Some(End::PoweredOff));
        for (offset, data) in [
            (0, &[off & !(1 << 5)][..]),
            (0, &[1 << 5]),
            (0, &[off, 0]),
            (1, &[off]),
            (2, &[0]),
            (2, &[]),
        ] {
            assert_eq!(power.write(offset, data), None, "{offset} {data:?}");
        }
        assert_eq!(Panic.write(0, &[2]), None);
        assert!(matches!(Panic.write(0, &[1]), Some(End::Failed(_))));
        let mut keyboard = Keyboard(I8042Device::new(ResetLine(Arc::default())));
        assert_eq!(keyboard.write(0, &[0xfe]), None);
        assert_eq!(keyboard.write(4, &[0xfe, 0xfe]), None);
        assert_eq!(keyboard.write(4, &[0xfe]), Some(End::PoweredOff));
    }
}

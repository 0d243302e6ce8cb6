//! Init inside a guest of the VM mode.
//!
//! The kernel starts this program from the initramfs that Duet wrote, or where it takes none from a small tree
//! that it has mounted by virtio-fs. It mounts what a program expects, loads the modules that lie beside it,
//! opens its ports to the host (`duet-vm-protocol`), mounts the program's tree by virtio-fs as the root, runs
//! the one program that the host names, carries its streams and signals, and reports its end. Then the
//! machine is powered off.
//!
//! It trusts the host. The host trusts nothing that comes from here: the program may be root, and then
//! everything inside is its own.
//!
//! | module | owns |
//! |---|---|
//! | [`early`] | what it is started from: first mounts, modules |
//! | [`ports`] | finding the ports to the host |
//! | [`root`] | the program's world: root, `/dev`, `/proc`, host name, network |
//! | [`program`] | starting the program |
//! | [`relay`] | streams, signals, the end |

mod early;
mod network;
mod ports;
mod program;
mod relay;
mod root;

use std::fs::File;
use std::path::Path;

use duet_vm_protocol::{FromGuest, FromHost, MAX_TO_GUEST, VERSION, receive, send};
use nix::sys::reboot::{RebootMode, reboot};

use crate::relay::Streams;

/// What failed, in words for the person at the host.
type Step<T> = Result<T, String>;

/// Says what failed.
trait Named<T> {
    fn named(self, what: &str) -> Step<T>;
}

impl<T, E: std::fmt::Display> Named<T> for Result<T, E> {
    fn named(self, what: &str) -> Step<T> {
        self.map_err(|e| format!("{what}: {e}"))
    }
}

fn main() {
    if std::process::id() != 1 {
        eprintln!("duet-agent: runs as init of a guest only");
        std::process::exit(1);
    }
    let mounted = early::mount_kernel_file_systems();
    let end = end();
    if end == RebootMode::RB_AUTOBOOT {
        keep_from_halting();
    }
    if let Err(text) = mounted.and_then(|()| serve()) {
        // Standard error is the console, if there is one: the host shows its last lines.
        eprintln!("duet-agent: {text}");
    }
    let Err(e) = reboot(end);
    eprintln!("duet-agent: cannot power off: {e}");
}

/// How the machine is brought to its end: without ACPI it has no power-off, but a reset, which ends it too.
/// The program's tree need not show which it is.
fn end() -> RebootMode {
    match Path::new("/sys/firmware/acpi").exists() {
        true => RebootMode::RB_POWER_OFF,
        false => RebootMode::RB_AUTOBOOT,
    }
}

/// Takes the capability to end the machine from what this process starts: asked for a power-off that it does not
/// have, the kernel would halt instead, and the host wait for ever.
fn keep_from_halting() {
    const CAP_SYS_BOOT: libc::c_ulong = 22;
    // SAFETY: integers.
    let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0) };
    if let Err(e) = nix::errno::Errno::result(dropped) {
        eprintln!("duet-agent: keeping programs from halting the machine: {e}");
    }
}

fn serve() -> Step<()> {
    let events = ports::Events::subscribe()?;
    early::load_modules()?;
    let mut control = events.open(duet_vm_protocol::CONTROL)?;
    send(&mut control, &FromGuest::Hello { version: VERSION }).named("greeting the host")?;
    if let Err(text) = run(&events, &mut control) {
        // One line, which fits a message.
        let text = text.chars().take(1000).collect();
        send(&mut control, &FromGuest::Failed(text)).named("reporting a failure")?;
    }
    // What was said waits in the devices until the host has taken it, and would be lost with them: the host
    // stops the machine when it has all.
    while let Ok(Some(_)) = receive::<FromHost>(&mut control, MAX_TO_GUEST) {}
    Ok(())
}

fn run(events: &ports::Events, control: &mut File) -> Step<()> {
    let start = match receive(control, MAX_TO_GUEST).named("listening to the host")? {
        Some(FromHost::Start(start)) => start,
        Some(other) => return Err(format!("the host began with {other:?}")),
        // It does not speak this version.
        None => return Ok(()),
    };
    let streams = Streams {
        stdin: events.open(duet_vm_protocol::STDIN)?,
        stdout: events.open(duet_vm_protocol::STDOUT)?,
        stderr: events.open(duet_vm_protocol::STDERR)?,
    };
    root::enter(&start)?;
    let signals = relay::watch_children()?;
    let (child, ends) = match program::start(&start)? {
        Ok(started) => started,
        Err(errno) => {
            return send(control, &FromGuest::CannotExecute(errno)).named("reporting to the host");
        }
    };
    send(control, &FromGuest::Started).named("reporting to the host")?;
    relay::attend(control, &signals, child, streams, ends)
}

//! The guest's network: the loopback device, and one network card with a user-mode network behind it.

use std::ffi::CStr;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use duet_vm_protocol::network::{ADDRESS, GATEWAY, NAME_SERVER, PREFIX};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::{Named, Step};

const MASK: Ipv4Addr = Ipv4Addr::from_bits(!0 << (32 - PREFIX));

/// Brings up the loopback device, and with `card` the network card and the way out.
pub fn up(card: bool) -> Step<()> {
    let kind = SockType::Datagram;
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)
        .named("setting up the network")?;
    set_up(&socket, c"lo").named("bringing up the loopback device")?;
    if !card {
        return Ok(());
    }
    let device = first_card().ok_or("there is no network card")?;
    let name = std::ffi::CString::new(device).named("the network card's name")?;
    set_address(&socket, &name, libc::SIOCSIFADDR, ADDRESS).named("setting the address")?;
    set_address(&socket, &name, libc::SIOCSIFNETMASK, MASK).named("setting the network mask")?;
    set_up(&socket, &name).named("bringing up the network card")?;
    add_default_route(&socket).named("adding a route")?;
    name_server()
}

/// The first network device that is a device of the machine (not `lo`).
fn first_card() -> Option<String> {
    let devices = fs::read_dir("/sys/class/net").ok();
    // Without a sysfs in the tree, the kernel names the first card so.
    let Some(devices) = devices else {
        return Some("eth0".into());
    };
    let mut names = devices
        .flatten()
        .filter_map(|d| d.file_name().into_string().ok());
    names.find(|n| n != "lo").or(Some("eth0".into()))
}

fn request(name: &CStr) -> libc::ifreq {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero.
    let room = libc::IFNAMSIZ - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    request
}

fn internet(address: Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from(address).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain and of the same size, as the interface has it (ip(7)).
    unsafe { std::mem::transmute(address) }
}

fn set_up(socket: &OwnedFd, name: &CStr) -> nix::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the structure that the request wants (netdevice(7)).
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) })
        .map(drop)
}

fn set_address(
    socket: &OwnedFd,
    name: &CStr,
    what: libc::Ioctl,
    address: Ipv4Addr,
) -> nix::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_addr = internet(address);
    // SAFETY: the structure that the request wants (netdevice(7)).
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), what, &request) }).map(drop)
}

fn add_default_route(socket: &OwnedFd) -> nix::Result<()> {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = internet(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = internet(GATEWAY);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the structure that the request wants.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT, &route) }).map(drop)
}

/// Lets names be resolved, where the tree has a file that says how.
fn name_server() -> Step<()> {
    let at = "/etc/resolv.conf";
    if !Path::new(at).is_file() {
        return Ok(());
    }
    let file = "/dev/resolv.conf";
    fs::write(file, format!("nameserver {NAME_SERVER}\n")).named(file)?;
    let none = None::<&str>;
    mount(Some(file), at, none, MsFlags::MS_BIND, none).named(at)?;
    // It stays where it is bound.
    fs::remove_file(file).named(file)
}

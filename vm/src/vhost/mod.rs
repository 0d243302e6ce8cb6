//! The vhost-user-fs device: serves a tree to QEMU over a Unix socket.
//!
//! QEMU (`-chardev socket,id=fs,path=SOCKET -device vhost-user-fs-device,chardev=fs,tag=TAG,queue-size=1024`)
//! connects, sends a descriptor of the guest's memory (which must be shared: `memory-backend-memfd`)
//! and the places of the queues; the requests themselves come straight from the guest. One thread
//! speaks with QEMU, one serves the queues; both end with the connection.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringMutex, VringState, VringT};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::fuse::Server;
use crate::virtio::fs;

/// `VHOST_USER_F_PROTOCOL_FEATURES`
const PROTOCOL_FEATURES: u64 = 1 << 30;

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;

/// The device, as the `vhost-user-backend` crate wants it.
#[derive(Clone)]
struct Device {
    server: Arc<Server>,
    memory: Memory,
    exit: Arc<Mutex<Option<(EventConsumer, EventNotifier)>>>,
}

impl Device {
    fn serve(&self, vring: &VringMutex<Memory>) -> io::Result<()> {
        let mut vring: std::sync::MutexGuard<'_, VringState<Memory>> = vring.get_mut();
        if !vring.is_enabled() {
            return Ok(());
        }
        let memory = self.memory.memory();
        loop {
            match fs::serve(&self.server, vring.get_queue_mut(), &memory) {
                Ok(served) => {
                    if served.notify {
                        vring.signal_used_queue()?;
                    }
                    if !served.more {
                        return Ok(());
                    }
                }
                Err(e) => {
                    // As a device that needs a reset: no more of this queue, the rest goes on.
                    log::error!("virtio-fs: the guest has broken a queue: {e}");
                    vring.set_enabled(false);
                    return Ok(());
                }
            }
        }
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = VringMutex<Memory>;

    fn num_queues(&self) -> usize {
        fs::QUEUES
    }

    fn max_queue_size(&self) -> usize {
        fs::QUEUE_SIZE.into()
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | PROTOCOL_FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    // The vrings are told by the crate itself.
    fn set_event_idx(&self, _enabled: bool) {}

    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit.lock().ok()?.take()
    }

    fn handle_event(
        &self,
        event: u16,
        _set: EventSet,
        vrings: &[Self::Vring],
        _thread: usize,
    ) -> io::Result<()> {
        match vrings.get(usize::from(event)) {
            Some(vring) => self.serve(vring),
            None => Ok(()),
        }
    }
}

/// A device waiting for QEMU, or connected.
pub struct FsDevice {
    thread: JoinHandle<io::Result<()>>,
}

impl FsDevice {
    /// Serves `server` to the first that connects to the Unix socket `path`, which is made here and
    /// exists when this returns.
    pub fn listen(server: Arc<Server>, path: &Path) -> io::Result<FsDevice> {
        let mut listener = Listener::new(path, false).map_err(other)?;
        let memory = Memory::new(GuestMemoryMmap::new());
        let exit = new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        let stop = exit.1.try_clone()?;
        let device = Device {
            server,
            memory: memory.clone(),
            exit: Arc::new(Mutex::new(Some(exit))),
        };
        let mut daemon = VhostUserDaemon::new("duet-virtiofs".into(), device, memory)
            .map_err(|e| io::Error::other(e.to_string()))?;
        let thread = std::thread::Builder::new()
            .name("duet-vhost".into())
            .spawn(move || {
                let served = daemon.start(&mut listener).and_then(|()| daemon.wait());
                let stopped = stop.notify();
                match served {
                    Ok(()) => stopped,
                    Err(vhost_user_backend::Error::HandleRequest(
                        vhost::vhost_user::Error::Disconnected
                        | vhost::vhost_user::Error::PartialMessage,
                    )) => stopped,
                    Err(e) => Err(io::Error::other(e.to_string())),
                }
            })?;
        Ok(FsDevice { thread })
    }

    /// Waits until QEMU has gone. Fails with what QEMU did wrong, if anything. Blocks for ever if QEMU
    /// never connects: connect and close, to end that.
    pub fn wait(self) -> io::Result<()> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread of the device panicked")))
    }
}

fn other(e: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(e)
}

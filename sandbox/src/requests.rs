//! Questions to init, answered through the supervisor's main loop, which alone reads the channel.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nix::errno::Errno;
use parking_lot::Mutex;

use crate::channel::{Channel, Message};

/// How long init may take: it does nothing that blocks.
const PATIENCE: Duration = Duration::from_secs(5);

/// The supervisor's end of the channel, for sending, and the answers.
pub struct Requests {
    channel: std::sync::Arc<Channel>,
    answers: Mutex<Receiver<i32>>,
    answer: Mutex<Sender<i32>>,
}

impl Requests {
    /// Over this channel.
    pub fn new(to_init: std::sync::Arc<Channel>) -> Requests {
        let (answer, answers) = channel();
        Requests {
            channel: to_init,
            answers: Mutex::new(answers),
            answer: Mutex::new(answer),
        }
    }

    /// Asks and waits: one question at a time.
    pub fn ask(&self, message: &Message) -> nix::Result<()> {
        let answers = self.answers.lock();
        self.channel.send(message, &[])?;
        match answers.recv_timeout(PATIENCE) {
            Ok(0) => Ok(()),
            Ok(errno) => Err(Errno::from_raw(errno)),
            Err(_) => Err(Errno::EIO),
        }
    }

    /// Sends what needs no answer. Init may be gone already.
    pub fn tell(&self, message: &Message) {
        if let Err(e) = self.channel.send(message, &[]) {
            log::debug!("init did not hear {message:?}: {e}");
        }
    }

    /// Hands on an answer that the main loop has read.
    pub fn answered(&self, errno: i32) {
        if self.answer.lock().send(errno).is_err() {
            log::debug!("nobody waited for init's answer");
        }
    }
}

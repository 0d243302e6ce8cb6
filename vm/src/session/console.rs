//! The guest's serial port: the kernel's messages.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;

use super::printable;
use crate::error::{Error, Result};

/// Bytes that are kept for when the guest fails.
const KEPT: usize = 16 << 10;
/// Lines of them that are shown then.
const SHOWN: usize = 12;

/// What came from the serial port, or its last part.
pub struct Console {
    kept: Arc<Mutex<VecDeque<u8>>>,
}

impl Console {
    /// Reads the port on a thread of its own, until the machine's end. `show`: on standard error as well.
    pub fn collect(mut port: UnixStream, show: bool) -> Result<Console> {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let console = Console { kept: kept.clone() };
        let body = move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = port.read(&mut bytes)
                && n > 0
            {
                let new = bytes.get(..n).unwrap_or_default();
                if show {
                    let text: Vec<u8> = new.iter().copied().filter(|&b| b != b'\r').collect();
                    let text = printable(&String::from_utf8_lossy(&text));
                    if let Err(e) = std::io::stderr().write_all(text.as_bytes()) {
                        log::debug!("the console is not shown: {e}");
                    }
                }
                let mut kept = kept.lock();
                kept.extend(new);
                let over = kept.len().saturating_sub(KEPT);
                kept.drain(..over);
            }
        };
        std::thread::Builder::new()
            .name("duet-console".into())
            .spawn(body)
            .map_err(|e| Error::io("starting a thread", &e))?;
        Ok(console)
    }

    /// The last lines, to follow a message; nothing if there are none.
    pub fn last(&self) -> String {
        let bytes: Vec<u8> = self.kept.lock().iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes).replace('\r', "");
        last_lines(&printable(&text))
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(SHOWN));
    if last.is_empty() {
        return String::new();
    }
    // Registers and calls come behind the one line that says what happened.
    let panic = before.iter().rfind(|l| l.contains("Kernel panic"));
    let shown: Vec<&str> = panic.into_iter().chain(last).copied().collect();
    format!("\nits last messages:\n  {}", shown.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_shown_with_the_last_lines() {
        assert_eq!(last_lines("\n \n"), "");
        assert_eq!(last_lines("a\n\nb"), "\nits last messages:\n  a\n  b");
        let many: Vec<String> = (0..20).map(|n| format!("line {n}")).collect();
        let text = format!("first\nKernel panic - not syncing: x\n{}", many.join("\n"));
        let shown = last_lines(&text);
        assert!(
            shown.contains("Kernel panic - not syncing: x\n  line 8\n"),
            "{shown}"
        );
        assert!(!shown.contains("line 7"), "{shown}");
    }
}

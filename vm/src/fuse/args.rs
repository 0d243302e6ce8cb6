//! The fixed part and the strings of a request, copied out of the guest's memory.

use duet_vfs::{Errno, Result};
use zerocopy::FromBytes;

use super::MAX_ARGUMENTS;
use super::io::Segments;

/// Longest name in bytes.
const NAME_MAX: usize = 255;

/// All that is left of a request: E2BIG if it is longer than any request can be.
pub(super) fn copy(mut body: Segments<'_>) -> Result<Vec<u8>> {
    if body.len() > MAX_ARGUMENTS {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; body.len()];
    body.read(&mut bytes);
    Ok(bytes)
}

/// Reads a request from front to back; EINVAL where it ends too early.
pub(super) struct Args<'a>(&'a [u8]);

impl<'a> Args<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Args<'a> {
        Args(bytes)
    }

    /// The next structure.
    pub(super) fn take<T: FromBytes>(&mut self) -> Result<T> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::EINVAL)?;
        self.0 = rest;
        Ok(value)
    }

    /// The next string, up to its NUL.
    pub(super) fn text(&mut self) -> Result<&'a [u8]> {
        let end = self.0.iter().position(|&b| b == 0).ok_or(Errno::EINVAL)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(text)
    }

    /// The next string, which must be a name in a directory: not empty, no `.` nor `..`, no slash.
    pub(super) fn name(&mut self) -> Result<&'a [u8]> {
        let name = self.text()?;
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            return Err(Errno::EINVAL);
        }
        Ok(name)
    }

    /// The next `len` bytes.
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(bytes)
    }
}

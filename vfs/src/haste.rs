//! Work for which somebody waits who has no time: whoever serves many leaves what takes long to others.

use std::cell::Cell;

use crate::types::{Errno, Result};

/// Bytes that are copied in haste.
const LITTLE: u64 = 1 << 20;

#[derive(Clone, Copy)]
enum Haste {
    No,
    Yes,
    /// Something would have taken too long.
    GaveUp,
}

thread_local! {
    static HASTE: Cell<Haste> = const { Cell::new(Haste::No) };
}

/// Does `work`. `None` if it would take long: it has changed nothing then that anybody sees.
pub fn in_haste<T>(work: impl FnOnce() -> T) -> Option<T> {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            HASTE.set(Haste::No);
        }
    }
    HASTE.set(Haste::Yes);
    let _over = Over;
    let done = work();
    (!matches!(HASTE.get(), Haste::GaveUp)).then_some(done)
}

/// Before anything is changed: `EAGAIN` if as many bytes are not to be copied in haste.
pub(crate) fn may_copy(bytes: impl FnOnce() -> Result<u64>) -> Result<()> {
    if matches!(HASTE.get(), Haste::No) || bytes()? <= LITTLE {
        return Ok(());
    }
    HASTE.set(Haste::GaveUp);
    Err(Errno::EAGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_little_is_copied_in_haste() {
        assert_eq!(may_copy(|| Ok(u64::MAX)), Ok(()));
        assert_eq!(in_haste(|| may_copy(|| Ok(LITTLE))), Some(Ok(())));
        assert_eq!(in_haste(|| may_copy(|| Ok(LITTLE + 1))), None);
        assert_eq!(may_copy(|| Ok(u64::MAX)), Ok(()));
    }
}

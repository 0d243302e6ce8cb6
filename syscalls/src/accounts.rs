//! From the thread that has served a call to whoever watches: what was done for it
//! ([`duet_vfs::account`]). An account is handed in just before the call is answered, and is there for
//! [`of`] when an observer hears of the answer.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use duet_intercept::{Call, Tid};
use duet_vfs::account::{self, Account};
use parking_lot::Mutex;

/// Threads whose last account is held, at most: not of every thread's end is told.
const MAX_HELD: usize = 16384;

/// What was done for a call.
#[derive(Debug)]
pub struct Served {
    call: u64,
    /// The account.
    pub account: Account,
    /// From the call's arrival to its answer.
    pub took: Duration,
}

static HELD: LazyLock<Mutex<HashMap<i32, Arc<Served>>>> = LazyLock::new(Mutex::default);

/// Hands in the account of the calling thread, if it keeps one, as that of `call`.
pub(crate) fn hand_in(call: &Call) {
    if let Some(account) = account::take() {
        let served = Served {
            call: call.id,
            took: account.begun.elapsed(),
            account: *account,
        };
        let mut held = HELD.lock();
        if held.len() >= MAX_HELD {
            held.clear();
        }
        held.insert(call.tid.0, Arc::new(served));
    }
}

/// What was done for `call`; `None` if it was not emulated, or its thread has made another.
pub fn of(call: &Call) -> Option<Arc<Served>> {
    if !account::kept() {
        return None;
    }
    let held = HELD.lock();
    held.get(&call.tid.0).filter(|s| s.call == call.id).cloned()
}

/// What was done for the last emulated call of a thread.
pub fn last(tid: Tid) -> Option<Arc<Served>> {
    if !account::kept() {
        return None;
    }
    HELD.lock().get(&tid.0).cloned()
}

/// A thread has ended.
pub fn forget(tid: Tid) {
    if account::kept() {
        HELD.lock().remove(&tid.0);
    }
}

//! From the thread that has served a call to whoever watches: what was done for it
//! ([`duet_vfs::account`]). An account is handed in just before the call is answered, and is there for
//! [`collect`] when an observer hears of the answer.

use std::collections::HashMap;
use std::sync::LazyLock;

use duet_intercept::Tid;
use duet_vfs::account::{self, Account};
use parking_lot::Mutex;

/// Accounts that nobody has collected, at most: threads may die between answer and news.
const MAX_HELD: usize = 16384;

static HELD: LazyLock<Mutex<HashMap<i32, Box<Account>>>> = LazyLock::new(Mutex::default);

/// Hands in the account of the calling thread, if it keeps one, as that of the last call of `tid`.
pub(crate) fn hand_in(tid: Tid) {
    if let Some(account) = account::take() {
        let mut held = HELD.lock();
        if held.len() >= MAX_HELD {
            held.clear();
        }
        held.insert(tid.0, account);
    }
}

/// What was done for the last call of `tid`; `None` if it was not emulated, or this was asked already.
pub fn collect(tid: Tid) -> Option<Box<Account>> {
    if !account::kept() {
        return None;
    }
    HELD.lock().remove(&tid.0)
}

//! The one table of x86-64 system calls: what each is called and takes, and what Duet does with it.
//!
//! The seccomp filter ([`filter`]), dispatch ([`verdict`]), the decoding of traces and the page for
//! readers ([`docs`]) all come from it. The rule for every row:
//!
//! - **native** – it touches only the caller's own memory, time, or descriptors that it already holds;
//! - **emulated** – it names a path, an identity, a process outside itself, an address under policy, or
//!   a property of the machine;
//! - **refused** – an honest errno, counted and reported, never a kill.
//!
//! Rows stand in `rows_*.rs` by number, one line each:
//! `number name(argument: type, …) -> result, family, disposition, "note";`. What a call is for, and the
//! errors that do not follow from its arguments, stand in `senses_*.rs` in the same order; a row without
//! does not compile.

mod disposition;
pub mod docs;
pub mod filter;
pub mod places;
mod prototype;
mod rows_000;
mod rows_128;
mod rows_256;
mod rows_424;
mod senses;
mod senses_000;
mod senses_128;
mod senses_256;
#[cfg(test)]
mod tests;
mod types;

use nix::errno::Errno;

pub use disposition::{Disposition, Rule, Verdict};
pub(crate) use disposition::{PR_SET_SYSCALL_USER_DISPATCH, SO_PEERPIDFD};
pub use types::{Arg, Dir, Family, Len, Ret, Row, Set, Struct, Type};

/// `AUDIT_ARCH_X86_64`: what seccomp calls the architecture whose calls the table lists.
pub const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// What the rows are written with.
mod prelude {
    pub(super) use super::calls;
    pub(super) use super::disposition::{
        BEGINS_TRACING, CLONE_NO_NAMESPACE, Disposition::*, KNOWN_FAMILIES, NO_ADDRESS,
        NO_LOCK_LIMIT, NOT_THE_PEER, OWN_ATTRIBUTES, OWN_LIMITS, OWN_PAGES, SAFE_REQUEST,
        UNSHARE_NO_NAMESPACE,
    };
    pub(super) use super::types::{
        Arg, Family, Len::*, Ret, Row, Set::*, Struct::*, Type::*, inout, inouts, input, inputs,
        output, outputs,
    };
    pub(super) use nix::errno::Errno::*;
}

/// Rows of the table, a line each; see the module's documentation.
macro_rules! calls {
    ($($nr:literal $name:ident($($arg:ident: $ty:expr),*) -> $ret:ident, $family:ident, $disposition:expr
       $(, $note:literal)?;)*) => {
        /// The calls of this file, by number.
        pub(super) const ROWS: &[Row] = &[$(Row {
            nr: $nr,
            name: stringify!($name),
            args: &[$(Arg { name: stringify!($arg), ty: $ty }),*],
            ret: Ret::$ret,
            family: Family::$family,
            disposition: $disposition,
            note: concat!($($note)?),
            sense: "",
            own_errors: &[],
        }),*];
    };
}
use calls;

const PARTS: [&[Row]; 4] = [
    rows_000::ROWS,
    rows_128::ROWS,
    rows_256::ROWS,
    rows_424::ROWS,
];

/// The senses, in the order of the rows.
const SENSES: [&[senses::Sense]; 3] = [senses_000::SENSES, senses_128::SENSES, senses_256::SENSES];

const COUNT: usize = {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].len();
        part += 1;
    }
    count
};

static TABLE: [Row; COUNT] = {
    let mut table = [PARTS[0][0]; COUNT];
    let (mut at, mut part) = (0, 0);
    while part < PARTS.len() {
        let mut i = 0;
        while i < PARTS[part].len() {
            table[at] = PARTS[part][i];
            // Also what makes duplicates an error of compilation.
            assert!(
                at == 0 || table[at - 1].nr < table[at].nr,
                "rows stand in the order of numbers"
            );
            at += 1;
            i += 1;
        }
        part += 1;
    }
    (at, part) = (0, 0);
    while part < SENSES.len() {
        let mut i = 0;
        while i < SENSES[part].len() {
            let sense = SENSES[part][i];
            assert!(
                senses::same(sense.name, table[at].name),
                "senses stand in the order of the rows"
            );
            table[at].sense = sense.text;
            table[at].own_errors = sense.errors;
            at += 1;
            i += 1;
        }
        part += 1;
    }
    assert!(at == COUNT, "every row has a sense");
    table
};

/// One more than the highest number in the table.
const NUMBERS: usize = {
    let last = PARTS[PARTS.len() - 1];
    last[last.len() - 1].nr as usize + 1
};

/// No row has this number.
const NO_ROW: u16 = u16::MAX;

/// From number to place in the table.
static INDEX: [u16; NUMBERS] = {
    let mut index = [NO_ROW; NUMBERS];
    let mut at = 0;
    while at < COUNT {
        index[TABLE[at].nr as usize] = at as u16;
        at += 1;
    }
    index
};

/// All rows, by number.
pub fn rows() -> &'static [Row] {
    &TABLE
}

/// The row of a number; in constant time.
pub fn lookup(nr: u32) -> Option<&'static Row> {
    let at = *INDEX.get(usize::try_from(nr).ok()?)?;
    TABLE.get(usize::from(at))
}

/// The row of a name; looks at each.
pub fn by_name(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

/// What becomes of a call that a guest made: `ENOSYS` if the number is unknown, or belongs to another
/// architecture (i386, x32).
pub fn verdict(arch: u32, nr: u32, args: &[u64; 6]) -> Verdict {
    match lookup(nr) {
        Some(row) if arch == AUDIT_ARCH_X86_64 => row.disposition.verdict(args),
        _ => Verdict::Refused(Errno::ENOSYS),
    }
}

//! What descriptors and paths of a call lead to.

use duet_intercept::{Call, Tid};
use duet_syscalls::table::{Row, Type};

use super::{Naming, Recorder};
use crate::decode::Decoder;
use crate::structs::Memory;
use crate::text;

impl Recorder {
    /// What descriptor `fd` is.
    fn name_of(&self, tid: Tid, fd: i32) -> Option<String> {
        let names = self.names.get()?;
        let mut out = String::from("<");
        if fd == libc::AT_FDCWD {
            text::named(&mut out, &names.directory(tid)?);
            out.push('>');
            return Some(out);
        }
        let details = match self.settings.naming {
            Naming::Details => names.details(tid, fd).unwrap_or_default(),
            _ => Vec::new(),
        };
        let details = String::from_utf8_lossy(&details);
        if !details.is_empty() && !details.starts_with('<') {
            return Some(format!("<{details}>"));
        }
        let name = names.descriptor(tid, fd)?;
        let (name, deleted) = match name.strip_suffix(b" (deleted)") {
            Some(name) => (name, "(deleted)"),
            None => (&name[..], ""),
        };
        text::named(&mut out, name);
        Some(format!("{out}{details}>{deleted}"))
    }

    /// Gives `work` what decodes a call; `before`: what [`Decoder::before`] found at its entry.
    pub(super) fn decode<T>(
        &self,
        call: &Call,
        row: &Row,
        before: u64,
        work: impl FnOnce(&Decoder<'_>) -> T,
    ) -> T {
        let name_of = |tid: Tid, fd: i32| self.name_of(tid, fd);
        let memory = Memory {
            tid: call.tid,
            limit: self.settings.limit,
            full: self.settings.full,
            name_of: (self.settings.naming != Naming::Numbers).then_some(&name_of),
        };
        work(&Decoder {
            call,
            row,
            memory,
            before,
        })
    }

    /// Whether a call names one of the paths that are asked for.
    pub(super) fn names_path(&self, call: &Call, row: &Row) -> bool {
        let filter = &self.settings.filter;
        let memory = Memory {
            tid: call.tid,
            limit: 0,
            full: false,
            name_of: None,
        };
        let names = self.names.get();
        let mut base = None;
        row.args
            .iter()
            .zip(call.args)
            .any(|(arg, value)| match arg.ty {
                Type::DirFd | Type::Fd => {
                    let fd = value as i32;
                    let name = names.and_then(|n| match fd {
                        libc::AT_FDCWD => n.directory(call.tid),
                        fd => n.descriptor(call.tid, fd),
                    });
                    let matches = name.as_ref().is_some_and(|n| filter.shows_path(n));
                    base = name;
                    matches && fd != libc::AT_FDCWD
                }
                Type::Path => {
                    let Some(path) = memory.path_bytes(value).filter(|_| value != 0) else {
                        return false;
                    };
                    if filter.shows_path(&path) {
                        return true;
                    }
                    if path.first() == Some(&b'/') || path.is_empty() {
                        return false;
                    }
                    let base = base.take();
                    let base = base.or_else(|| names.and_then(|n| n.directory(call.tid)));
                    let Some(mut whole) = base else {
                        return false;
                    };
                    if whole.last() != Some(&b'/') {
                        whole.push(b'/');
                    }
                    whole.extend_from_slice(path.strip_prefix(b"./").unwrap_or(&path));
                    filter.shows_path(&whole)
                }
                _ => false,
            })
    }
}

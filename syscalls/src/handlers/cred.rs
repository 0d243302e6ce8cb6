//! Virtual credentials: credentials(7), capabilities(7). Nothing here touches the host's.

use std::path::Path;
use std::sync::Arc;

use duet_vfs::types::{Caps, Creds, Errno, Result};

use crate::abi;
use crate::table::PR_SET_SYSCALL_USER_DISPATCH;
use crate::task::{Reply, Task};

/// The id that leaves a field alone.
const KEEP: u32 = u32::MAX;
/// `NGROUPS_MAX`.
const MAX_GROUPS: usize = 65536;

pub(super) fn getuid(t: &Task) -> Result<Reply> {
    Ok(Reply::Value(t.state.creds.uid.into()))
}

pub(super) fn geteuid(t: &Task) -> Result<Reply> {
    Ok(Reply::Value(t.state.creds.euid.into()))
}

pub(super) fn getgid(t: &Task) -> Result<Reply> {
    Ok(Reply::Value(t.state.creds.gid.into()))
}

pub(super) fn getegid(t: &Task) -> Result<Reply> {
    Ok(Reply::Value(t.state.creds.egid.into()))
}

fn set(t: &Task, creds: Creds) -> Result<Reply> {
    if creds != *t.state.creds {
        t.change(|s| s.creds = Arc::new(creds));
    }
    Ok(Reply::DONE)
}

/// Capabilities after a change of user ids (capabilities(7), "Effect of user ID changes").
fn adjust_caps(t: &Task, old: &Creds, new: &mut Creds) {
    let any_root = |c: &Creds| c.uid == 0 || c.euid == 0 || c.suid == 0;
    if any_root(old) && !any_root(new) {
        if !t.state.keep_caps {
            new.permitted = Caps::empty();
            new.effective = Caps::empty();
        }
        new.ambient = Caps::empty();
    }
    if old.euid == 0 && new.euid != 0 {
        new.effective = Caps::empty();
    } else if old.euid != 0 && new.euid == 0 {
        new.effective = new.permitted;
    }
}

/// Capabilities that go with the file-system user.
const FS_CAPS: Caps = Caps::CHOWN
    .union(Caps::DAC_OVERRIDE)
    .union(Caps::DAC_READ_SEARCH)
    .union(Caps::FOWNER)
    .union(Caps::FSETID)
    .union(Caps::MKNOD);

fn set_users(t: &Task, mut new: Creds) -> Result<Reply> {
    new.fsuid = new.euid;
    let old = t.state.creds.clone();
    adjust_caps(t, &old, &mut new);
    set(t, new)
}

fn set_groups_ids(t: &Task, mut new: Creds) -> Result<Reply> {
    new.fsgid = new.egid;
    set(t, new)
}

pub(super) fn setuid(t: &Task) -> Result<Reply> {
    let (id, c) = (t.uint(0), &t.state.creds);
    let mut new = (**c).clone();
    if id == KEEP {
        return Err(Errno::EINVAL);
    }
    if c.has(Caps::SETUID) {
        (new.uid, new.suid) = (id, id);
    } else if id != c.uid && id != c.suid {
        return Err(Errno::EPERM);
    }
    new.euid = id;
    set_users(t, new)
}

pub(super) fn setgid(t: &Task) -> Result<Reply> {
    let (id, c) = (t.uint(0), &t.state.creds);
    let mut new = (**c).clone();
    if id == KEEP {
        return Err(Errno::EINVAL);
    }
    if c.has(Caps::SETGID) {
        (new.gid, new.sgid) = (id, id);
    } else if id != c.gid && id != c.sgid {
        return Err(Errno::EPERM);
    }
    new.egid = id;
    set_groups_ids(t, new)
}

pub(super) fn setreuid(t: &Task) -> Result<Reply> {
    let (r, e, c) = (t.uint(0), t.uint(1), &t.state.creds);
    let mut new = (**c).clone();
    let free = c.has(Caps::SETUID);
    if r != KEEP {
        if !free && r != c.uid && r != c.euid {
            return Err(Errno::EPERM);
        }
        new.uid = r;
    }
    if e != KEEP {
        if !free && e != c.uid && e != c.euid && e != c.suid {
            return Err(Errno::EPERM);
        }
        new.euid = e;
    }
    if r != KEEP || (e != KEEP && e != c.uid) {
        new.suid = new.euid;
    }
    set_users(t, new)
}

pub(super) fn setregid(t: &Task) -> Result<Reply> {
    let (r, e, c) = (t.uint(0), t.uint(1), &t.state.creds);
    let mut new = (**c).clone();
    let free = c.has(Caps::SETGID);
    if r != KEEP {
        if !free && r != c.gid && r != c.egid {
            return Err(Errno::EPERM);
        }
        new.gid = r;
    }
    if e != KEEP {
        if !free && e != c.gid && e != c.egid && e != c.sgid {
            return Err(Errno::EPERM);
        }
        new.egid = e;
    }
    if r != KEEP || (e != KEEP && e != c.gid) {
        new.sgid = new.egid;
    }
    set_groups_ids(t, new)
}

/// The three ids of a `setres*id` call, `KEEP` where unchanged, if `have` or privilege allows them.
fn three_ids(t: &Task, have: [u32; 3], cap: Caps) -> Result<[u32; 3]> {
    let asked = [t.uint(0), t.uint(1), t.uint(2)];
    let free = t.state.creds.has(cap);
    if !free && asked.iter().any(|id| *id != KEEP && !have.contains(id)) {
        return Err(Errno::EPERM);
    }
    let [r, e, s] = asked;
    let [r0, e0, s0] = have;
    let pick = |new: u32, old: u32| if new == KEEP { old } else { new };
    Ok([pick(r, r0), pick(e, e0), pick(s, s0)])
}

pub(super) fn setresuid(t: &Task) -> Result<Reply> {
    let c = &t.state.creds;
    let mut new = (**c).clone();
    [new.uid, new.euid, new.suid] = three_ids(t, [c.uid, c.euid, c.suid], Caps::SETUID)?;
    set_users(t, new)
}

pub(super) fn setresgid(t: &Task) -> Result<Reply> {
    let c = &t.state.creds;
    let mut new = (**c).clone();
    [new.gid, new.egid, new.sgid] = three_ids(t, [c.gid, c.egid, c.sgid], Caps::SETGID)?;
    set_groups_ids(t, new)
}

fn write_three(t: &Task, ids: [u32; 3]) -> Result<Reply> {
    for (i, id) in ids.into_iter().enumerate() {
        t.write(t.arg(i), &id.to_le_bytes())?;
    }
    Ok(Reply::DONE)
}

pub(super) fn getresuid(t: &Task) -> Result<Reply> {
    let c = &t.state.creds;
    write_three(t, [c.uid, c.euid, c.suid])
}

pub(super) fn getresgid(t: &Task) -> Result<Reply> {
    let c = &t.state.creds;
    write_three(t, [c.gid, c.egid, c.sgid])
}

pub(super) fn setfsuid(t: &Task) -> Result<Reply> {
    let (id, c) = (t.uint(0), &t.state.creds);
    let old = c.fsuid;
    if id != KEEP && (c.has(Caps::SETUID) || [c.uid, c.euid, c.suid, c.fsuid].contains(&id)) {
        let mut new = (**c).clone();
        new.fsuid = id;
        if old == 0 && id != 0 {
            new.effective.remove(FS_CAPS);
        } else if old != 0 && id == 0 {
            new.effective |= new.permitted & FS_CAPS;
        }
        set(t, new)?;
    }
    Ok(Reply::Value(i64::from(old)))
}

pub(super) fn setfsgid(t: &Task) -> Result<Reply> {
    let (id, c) = (t.uint(0), &t.state.creds);
    let old = c.fsgid;
    if id != KEEP && (c.has(Caps::SETGID) || [c.gid, c.egid, c.sgid, c.fsgid].contains(&id)) {
        let mut new = (**c).clone();
        new.fsgid = id;
        set(t, new)?;
    }
    Ok(Reply::Value(i64::from(old)))
}

pub(super) fn getgroups(t: &Task) -> Result<Reply> {
    let (size, groups) = (t.int(0), &t.state.creds.groups);
    let count = groups.len() as i64;
    if size < 0 || (size != 0 && i64::from(size) < count) {
        return Err(Errno::EINVAL);
    }
    if size != 0 {
        let bytes: Vec<u8> = groups.iter().flat_map(|g| g.to_le_bytes()).collect();
        t.write(t.arg(1), &bytes)?;
    }
    Ok(Reply::Value(count))
}

pub(super) fn setgroups(t: &Task) -> Result<Reply> {
    let size = t.int(0);
    if !t.state.creds.has(Caps::SETGID) {
        return Err(Errno::EPERM);
    }
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size > MAX_GROUPS {
        return Err(Errno::EINVAL);
    }
    let bytes = t.read(t.arg(1), size * 4)?;
    let mut groups: Vec<u32> = bytes
        .chunks_exact(4)
        .filter_map(|c| c.try_into().ok().map(u32::from_le_bytes))
        .collect();
    // As the kernel keeps them.
    groups.sort_unstable();
    let mut new = (*t.state.creds).clone();
    new.groups = groups.into();
    set(t, new)
}

const CAP_VERSION_1: u32 = 0x1998_0330;
const CAP_VERSION_2: u32 = 0x2007_1026;
const CAP_VERSION_3: u32 = 0x2008_0522;

/// `(pid, words)` of the header of `capget`/`capset`; a version that is unknown is corrected in place.
fn cap_header(t: &Task) -> Result<(i32, usize)> {
    let header: [u8; 8] = t.read_array(t.arg(0))?;
    let pid = abi::u32_at(&header, 4)? as i32;
    match abi::u32_at(&header, 0)? {
        CAP_VERSION_1 => Ok((pid, 1)),
        CAP_VERSION_2 | CAP_VERSION_3 => Ok((pid, 2)),
        _ => {
            t.write(t.arg(0), &CAP_VERSION_3.to_le_bytes())?;
            Err(Errno::EINVAL)
        }
    }
}

pub(super) fn capget(t: &Task) -> Result<Reply> {
    use duet_vfs::inode::Caller;
    let (pid, words) = match cap_header(t) {
        // Asking for the version alone.
        Err(Errno::EINVAL) if t.arg(1) == 0 => return Ok(Reply::DONE),
        other => other?,
    };
    if t.arg(1) == 0 {
        return Ok(Reply::DONE);
    }
    let state = match pid {
        ..0 => return Err(Errno::EINVAL),
        0 => t.state.clone(),
        p if p == t.pid() || p == t.tid() => t.state.clone(),
        // Duet's own init, shown as belonging to whom the first program runs as.
        1 => t.kernel.processes.initial_state().ok_or(Errno::ESRCH)?,
        p => t
            .kernel
            .processes
            .by_guest_pid(p)
            .ok_or(Errno::ESRCH)?
            .state(),
    };
    let c = &state.creds;
    let mut out = Vec::with_capacity(24);
    for word in 0..words {
        for set in [c.effective, c.permitted, c.inheritable] {
            out.extend_from_slice(&((set.bits() >> (32 * word)) as u32).to_le_bytes());
        }
    }
    t.write(t.arg(1), &out)?;
    Ok(Reply::DONE)
}

pub(super) fn capset(t: &Task) -> Result<Reply> {
    use duet_vfs::inode::Caller;
    let (pid, words) = cap_header(t)?;
    if pid != 0 && pid != t.pid() && pid != t.tid() {
        return Err(Errno::EPERM);
    }
    let data = t.read(t.arg(1), words * 12)?;
    let mut sets = [0u64; 3];
    for word in 0..words {
        for (i, set) in sets.iter_mut().enumerate() {
            let bits = u64::from(abi::u32_at(&data, word * 12 + i * 4)?);
            *set |= bits << (32 * word);
        }
    }
    let [effective, permitted, inheritable] =
        sets.map(|s| Caps::from_bits_retain(s & Creds::ALL_CAPS));
    let c = &t.state.creds;
    let may_inherit = c.inheritable | c.permitted | c.bounding;
    if !c.permitted.contains(permitted)
        || !permitted.contains(effective)
        || !may_inherit.contains(inheritable)
    {
        return Err(Errno::EPERM);
    }
    let mut new = (**c).clone();
    new.ambient &= permitted & inheritable;
    (new.effective, new.permitted, new.inheritable) = (effective, permitted, inheritable);
    set(t, new)
}

/// The options of `prctl(2)` that concern virtual credentials; the filter sends no others here.
pub(super) fn prctl(t: &Task) -> Result<Reply> {
    let (option, arg) = (t.int(0), t.arg(1));
    let bit = || {
        let known = arg <= 40;
        if known {
            Ok(Caps::from_bits_retain(1 << arg))
        } else {
            Err(Errno::EINVAL)
        }
    };
    let c = &t.state.creds;
    match option {
        libc::PR_CAPBSET_READ => Ok(Reply::Value(i64::from(c.bounding.contains(bit()?)))),
        libc::PR_CAPBSET_DROP => {
            let bit = bit()?;
            const SETPCAP: Caps = Caps::from_bits_retain(1 << 8);
            if !c.has(SETPCAP) {
                return Err(Errno::EPERM);
            }
            let mut new = (**c).clone();
            new.bounding.remove(bit);
            set(t, new)
        }
        libc::PR_CAP_AMBIENT => ambient(t),
        libc::PR_GET_KEEPCAPS => Ok(Reply::Value(i64::from(t.state.keep_caps))),
        libc::PR_SET_KEEPCAPS if arg <= 1 => {
            t.change(|s| s.keep_caps = arg == 1);
            Ok(Reply::DONE)
        }
        libc::PR_GET_SECUREBITS => Ok(Reply::Value(0)),
        libc::PR_SET_SECUREBITS if arg == 0 => Ok(Reply::DONE),
        libc::PR_SET_SECUREBITS => Err(Errno::EPERM),
        libc::PR_GET_NO_NEW_PRIVS => Ok(Reply::Value(i64::from(t.state.no_new_privs))),
        libc::PR_SET_NO_NEW_PRIVS if arg == 1 && t.arg(2) == 0 => {
            t.change(|s| s.no_new_privs = true);
            Ok(Reply::DONE)
        }
        // Yama's. Without it every other process of the same user may trace.
        libc::PR_SET_PTRACER if Path::new("/proc/sys/kernel/yama").exists() => Ok(Reply::Run),
        libc::PR_SET_PTRACER => Ok(Reply::DONE),
        // As a filter does, it sees calls.
        option if option == PR_SET_SYSCALL_USER_DISPATCH as i32 => {
            crate::agents::filters(t);
            Ok(Reply::Run)
        }
        libc::PR_SET_SECCOMP => filter(t, arg == u64::from(libc::SECCOMP_MODE_FILTER)),
        _ => Err(Errno::EINVAL),
    }
}

/// `seccomp(operation, flags, args)`.
pub(super) fn seccomp(t: &Task) -> Result<Reply> {
    let installs = t.uint(0) == libc::SECCOMP_SET_MODE_FILTER;
    let reply = filter(t, installs)?;
    // As the kernel says if Duet has the one listener that there can be. If it has none, the guest's
    // could let a call run that Duet is to answer.
    if installs && t.arg(1) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
        return Err(Errno::EBUSY);
    }
    Ok(reply)
}

/// A filter wants `no_new_privs` or a capability, as its guest has them; all guests have the former on
/// the host.
fn filter(t: &Task, installs: bool) -> Result<Reply> {
    let may = t.state.no_new_privs || t.state.creds.has(Caps::SYS_ADMIN);
    if installs && !may {
        Err(Errno::EACCES)
    } else {
        // Its filter is to see all calls.
        crate::agents::filters(t);
        Ok(Reply::Run)
    }
}

fn ambient(t: &Task) -> Result<Reply> {
    let (what, cap) = (t.int(1), t.arg(2));
    let mut new = (*t.state.creds).clone();
    if what == libc::PR_CAP_AMBIENT_CLEAR_ALL {
        new.ambient = Caps::empty();
        return set(t, new);
    }
    if cap > 40 {
        return Err(Errno::EINVAL);
    }
    let bit = Caps::from_bits_retain(1 << cap);
    match what {
        libc::PR_CAP_AMBIENT_IS_SET => Ok(Reply::Value(i64::from(new.ambient.contains(bit)))),
        libc::PR_CAP_AMBIENT_LOWER => {
            new.ambient.remove(bit);
            set(t, new)
        }
        libc::PR_CAP_AMBIENT_RAISE
            if new.permitted.contains(bit) && new.inheritable.contains(bit) =>
        {
            new.ambient |= bit;
            set(t, new)
        }
        libc::PR_CAP_AMBIENT_RAISE => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

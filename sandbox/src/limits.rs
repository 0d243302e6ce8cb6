//! Limits on what all processes of the sandbox together may use: a control group of their own (cgroups(7),
//! version 2 or 1), and where none is to be had the nearest that the kernel offers without.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;

/// Limits of one run. `None`: the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processors' worth of time; more than 0.
    pub cpus: Option<f64>,
    /// Time after which all is killed.
    pub timeout: Option<Duration>,
}

/// How a limit is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Pids,
    Cpu,
}

impl Kind {
    fn controller(self) -> &'static str {
        match self {
            Kind::Memory => "memory",
            Kind::Pids => "pids",
            Kind::Cpu => "cpu",
        }
    }
}

/// The control groups of one sandbox, removed when this goes away: then no process may be left in them.
pub struct Groups {
    made: Vec<PathBuf>,
}

impl Drop for Groups {
    fn drop(&mut self) {
        for dir in &self.made {
            // The last process may still be on its way out of the group.
            for _ in 0..50 {
                match fs::remove_dir(dir) {
                    Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(e) => return log::debug!("{}: {e}", dir.display()),
                    Ok(()) => break,
                }
            }
        }
    }
}

impl Groups {
    /// Limits the process `init`, which has no children yet, and all that will come of it. What no
    /// control group can keep is kept by the next best means, or not at all, and a warning says so.
    pub fn limit(limits: &Limits, init: Pid) -> Groups {
        let mut groups = Groups { made: Vec::new() };
        let wanted = [
            (Kind::Memory, limits.memory.is_some()),
            (Kind::Pids, limits.pids.is_some()),
            (Kind::Cpu, limits.cpus.is_some()),
        ];
        let wanted: Vec<Kind> = wanted.iter().filter(|w| w.1).map(|w| w.0).collect();
        if wanted.is_empty() {
            return groups;
        }
        let table = Hierarchies::read();
        // Version 2 has one group for all controllers, version 1 one for each.
        let mut left = wanted;
        for kinds in table.groupings(&left) {
            let done = groups.enter(&table, &kinds, limits, init);
            match done {
                Ok(()) => left.retain(|k| !kinds.contains(k)),
                Err(e) => log::debug!("control group for {kinds:?}: {e}"),
            }
        }
        left.iter()
            .for_each(|&kind| without_group(kind, limits, init));
        groups
    }

    fn enter(
        &mut self,
        table: &Hierarchies,
        kinds: &[Kind],
        limits: &Limits,
        init: Pid,
    ) -> io::Result<()> {
        let mut last = io::Error::from_raw_os_error(libc::ENOENT);
        for parent in table.parents(kinds) {
            match self.enter_below(&parent, kinds, limits, init) {
                Ok(()) => return Ok(()),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn enter_below(
        &mut self,
        parent: &Parent,
        kinds: &[Kind],
        limits: &Limits,
        init: Pid,
    ) -> io::Result<()> {
        if parent.unified {
            for kind in kinds {
                let enable = format!("+{}", kind.controller());
                fs::write(parent.dir.join("cgroup.subtree_control"), enable)?;
            }
        }
        let dir = parent.dir.join(format!("duet-{}", std::process::id()));
        fs::create_dir(&dir)?;
        self.made.push(dir.clone());
        for &kind in kinds {
            for (file, value, needed) in settings(kind, limits, parent.unified) {
                let path = dir.join(file);
                if needed || path.exists() {
                    fs::write(path, value)?;
                }
            }
        }
        fs::write(dir.join("cgroup.procs"), init.to_string())
    }
}

/// Files of a control group and what goes into them; the flag: whether it cannot do without.
fn settings(kind: Kind, limits: &Limits, unified: bool) -> Vec<(&'static str, String, bool)> {
    /// Microseconds that shares of the processors are counted in, the kernel's default.
    const PERIOD: u32 = 100_000;
    let memory = limits.memory.unwrap_or(u64::MAX).to_string();
    let pids = limits.pids.unwrap_or(u64::MAX).to_string();
    let quota = limits.cpus.unwrap_or(f64::MAX) * f64::from(PERIOD);
    // The kernel takes no less than a millisecond.
    let quota = quota.clamp(1000.0, 1e12) as u64;
    match (kind, unified) {
        (Kind::Memory, true) => vec![
            ("memory.max", memory, true),
            ("memory.swap.max", "0".into(), false),
        ],
        (Kind::Memory, false) => vec![
            ("memory.limit_in_bytes", memory.clone(), true),
            ("memory.memsw.limit_in_bytes", memory, false),
        ],
        (Kind::Pids, _) => vec![("pids.max", pids, true)],
        (Kind::Cpu, true) => vec![("cpu.max", format!("{quota} {PERIOD}"), true)],
        (Kind::Cpu, false) => vec![
            ("cpu.cfs_period_us", PERIOD.to_string(), true),
            ("cpu.cfs_quota_us", quota.to_string(), true),
        ],
    }
}

/// A directory that a group may be made in.
struct Parent {
    dir: PathBuf,
    unified: bool,
}

/// One mounted hierarchy.
struct Hierarchy {
    /// Controllers; empty for version 2.
    controllers: Vec<String>,
    mountpoint: PathBuf,
    /// The group that the mount shows at its top.
    root: String,
    /// Duet's own group.
    own: String,
}

struct Hierarchies(Vec<Hierarchy>);

impl Hierarchies {
    fn read() -> Hierarchies {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Hierarchies::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    fn parse(mountinfo: &str, own: &str) -> Hierarchies {
        let of = |line: &str| -> Option<Hierarchy> {
            let (before, behind) = line.split_once(" - ")?;
            let mut behind = behind.split(' ');
            let (kind, _, options) = (behind.next()?, behind.next()?, behind.next()?);
            let mut fields = before.split(' ');
            let (root, mountpoint) = (fields.nth(3)?, fields.next()?);
            let controllers: Vec<String> = match kind {
                "cgroup" => options.split(',').map(str::to_owned).collect(),
                "cgroup2" => Vec::new(),
                _ => return None,
            };
            let own = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (named, path) = (parts.next()?, parts.next()?);
                let mut named = named.split(',').filter(|n| !n.is_empty()).peekable();
                let same = match (controllers.is_empty(), named.peek()) {
                    (true, first) => first.is_none(),
                    (false, _) => named.any(|n| controllers.iter().any(|c| c == n)),
                };
                same.then(|| path.to_owned())
            })?;
            Some(Hierarchy {
                controllers,
                mountpoint: mountpoint.into(),
                root: root.to_owned(),
                own,
            })
        };
        Hierarchies(mountinfo.lines().filter_map(of).collect())
    }

    /// Which limits are set in one group: all in one of version 2, as far as it has the controllers,
    /// and each in its own of version 1.
    fn groupings(&self, wanted: &[Kind]) -> Vec<Vec<Kind>> {
        let unified: Vec<Kind> = wanted
            .iter()
            .filter(|k| !self.parents(&[**k]).is_empty() && self.parents(&[**k])[0].unified)
            .copied()
            .collect();
        let rest = wanted.iter().filter(|k| !unified.contains(k));
        let mut all: Vec<Vec<Kind>> = rest.map(|&k| vec![k]).collect();
        if !unified.is_empty() {
            all.insert(0, unified);
        }
        all
    }

    /// Where a group with these controllers may be made, the likeliest first: below Duet's own group,
    /// beside it (where a group of version 2 with processes cannot have groups below), at the top.
    fn parents(&self, kinds: &[Kind]) -> Vec<Parent> {
        let mut all = Vec::new();
        for h in &self.0 {
            let unified = h.controllers.is_empty();
            let below = h.own.strip_prefix(&h.root).unwrap_or(&h.own);
            let own = h.mountpoint.join(below.trim_start_matches('/'));
            let has = |dir: &Path, kind: Kind| {
                let listed = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
                listed.split_whitespace().any(|c| c == kind.controller())
            };
            let mut dirs = vec![own.clone()];
            dirs.extend(own.parent().map(Path::to_owned));
            dirs.push(h.mountpoint.clone());
            dirs.retain(|d| d.starts_with(&h.mountpoint));
            dirs.dedup();
            let offered = |dir: &Path| {
                kinds.iter().all(|&k| match unified {
                    true => has(dir, k),
                    false => h.controllers.iter().any(|c| c == k.controller()),
                })
            };
            dirs.retain(|d| offered(d));
            all.extend(dirs.into_iter().map(|dir| Parent { dir, unified }));
        }
        all
    }
}

/// Keeps a limit without a control group, as well as can be, and says how well.
fn without_group(kind: Kind, limits: &Limits, init: Pid) {
    match kind {
        // The sandbox's user namespace counts its processes by itself.
        Kind::Pids => {
            let pids = limits.pids.unwrap_or(u64::MAX);
            set_limit(init, Resource::RLIMIT_NPROC, pids, "--pids");
        }
        Kind::Memory => {
            log::warn!(
                "--memory: no control group can be made here; each process by itself is held to that \
                 much data (RLIMIT_DATA), but not all together"
            );
            let memory = limits.memory.unwrap_or(u64::MAX);
            set_limit(init, Resource::RLIMIT_DATA, memory, "--memory");
        }
        Kind::Cpu => {
            let cpus = limits.cpus.unwrap_or(f64::MAX);
            log::warn!(
                "--cpus: no control group can be made here; the sandbox is bound to {} processors instead",
                cpus.ceil()
            );
            if let Err(e) = bind_to(init, cpus.ceil() as usize) {
                log::warn!("--cpus: is not kept: {}", e.desc());
            }
        }
    }
}

fn set_limit(init: Pid, resource: Resource, value: u64, option: &str) {
    let hard = getrlimit(resource).map_or(value, |(_, hard)| hard.min(value));
    let new = libc::rlimit64 {
        rlim_cur: hard,
        rlim_max: hard,
    };
    let old = std::ptr::null_mut();
    // SAFETY: `new` is ours, and nothing is written back.
    let n = unsafe {
        libc::prlimit64(
            init.as_raw(),
            resource as libc::__rlimit_resource_t,
            &new,
            old,
        )
    };
    if let Err(e) = Errno::result(n) {
        log::warn!("{option}: is not kept: {}", e.desc());
    }
}

/// Lets a process run on the first `count` of the processors that it may run on.
fn bind_to(pid: Pid, count: usize) -> nix::Result<()> {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(pid)?;
    let mut chosen = CpuSet::new();
    let usable = (0..CpuSet::count()).filter(|&c| allowed.is_set(c).unwrap_or(false));
    usable.take(count.max(1)).try_for_each(|c| chosen.set(c))?;
    sched_setaffinity(pid, &chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let v1 = Hierarchies::parse(
            "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             31 25 0:27 /a /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
             32 25 0:28 / /proc rw - proc proc rw\n",
            "4:memory:/a/b\n1:cpuacct,cpu:/a/c\n0::/\n",
        );
        let dirs = |kind| -> Vec<String> {
            let all = v1.parents(&[kind]).into_iter();
            all.map(|p| p.dir.to_string_lossy().trim_end_matches('/').to_owned())
                .collect()
        };
        let top = "/sys/fs/cgroup/memory";
        assert_eq!(
            dirs(Kind::Memory),
            [format!("{top}/a/b"), format!("{top}/a"), top.into()]
        );
        assert_eq!(
            dirs(Kind::Cpu),
            ["/sys/fs/cgroup/cpu/c", "/sys/fs/cgroup/cpu"]
        );
        assert!(dirs(Kind::Pids).is_empty());
        assert_eq!(
            v1.groupings(&[Kind::Memory, Kind::Pids, Kind::Cpu]),
            [[Kind::Memory], [Kind::Pids], [Kind::Cpu]]
        );
        let v2 = Hierarchies::parse(
            "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "0::/user.slice/session\n",
        );
        assert_eq!(v2.0[0].own, "/user.slice/session");
        assert!(v2.0[0].controllers.is_empty());
    }

    #[test]
    fn shares_of_processors_become_a_quota() {
        let limits = Limits {
            cpus: Some(1.5),
            memory: Some(1 << 20),
            ..Limits::default()
        };
        let unified = settings(Kind::Cpu, &limits, true);
        assert_eq!(unified, [("cpu.max", "150000 100000".into(), true)]);
        assert_eq!(settings(Kind::Memory, &limits, false)[0].1, "1048576");
    }
}

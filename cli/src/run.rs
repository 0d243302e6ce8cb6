//! `duet run`.

use std::ffi::{CString, OsStr, OsString};
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum, value_parser};
use duet_compare::inside::{self, Calls, Cpu, Inside};
use duet_sandbox::machine;
use duet_sandbox::{
    Config, Engine, Limits, Messages, Network, Outcome, Port, Protocol, Seen, Tree, Volume,
};

use crate::report;

/// Options of `duet run`.
#[derive(Args)]
#[group(id = "run-options")]
pub struct Run {
    /// What brings the program's calls to Duet
    #[arg(long, value_enum, default_value_t = EngineOption::Seccomp)]
    engine: EngineOption,
    /// Bring every call by a switch of context, also those of programs that make many
    #[arg(long)]
    no_accelerator: bool,
    /// At the end, print what was called: native, emulated, refused. Native calls are slower then. With
    /// --mode vm: what it took to run the machine
    #[arg(long)]
    report: bool,
    /// Write what was seen of the inside of the run to a file, for `duet compare`
    #[arg(long, value_name = "FILE", hide = true)]
    figures: Option<PathBuf>,
    /// With --figures: count all calls
    #[arg(long, requires = "figures", hide = true)]
    count: bool,
    /// With --report: one JSON object instead of a table
    #[arg(long, requires = "report")]
    json: bool,
    #[command(flatten)]
    options: Options,
}

/// Options of all that run a program.
#[derive(Args)]
pub struct Options {
    /// Where to run it: in the compatibility layer, or in a virtual machine with a kernel of its own
    #[arg(long, value_enum, default_value_t = Mode::Layer)]
    mode: Mode,
    /// With --mode vm: the kernel, by its name in `duet kernel list` or as a file
    #[arg(long, value_name = "NAME|FILE")]
    kernel: Option<String>,
    /// With --mode vm: more for the kernel's command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    append: String,
    /// With --mode vm: show the kernel's messages on standard error
    #[arg(long)]
    console: bool,
    /// With --mode vm: what runs the machine
    #[arg(long, value_enum, default_value_t = MonitorOption::Auto)]
    monitor: MonitorOption,
    /// With --mode vm: at the end, print how long each phase took
    #[arg(long)]
    timings: bool,
    /// Directory that is the program's tree
    #[arg(long, value_name = "DIR", conflicts_with = "host_root")]
    rootfs: Option<PathBuf>,
    /// Write to the tree itself instead of a layer that is thrown away
    #[arg(long, requires = "rootfs")]
    rw: bool,
    /// Show the host's tree, read-only, under a layer that is thrown away
    #[arg(long)]
    host_root: bool,
    /// Show a file or directory of the host in the tree
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro]", value_parser = parse_volume)]
    volumes: Vec<Volume>,
    /// Show what is yours in a volume or the host's tree as the user's inside (--user), not as root's. Makes no
    /// difference to root
    #[arg(long)]
    keep_id: bool,
    /// Mount an empty tmpfs
    #[arg(long, value_name = "DST", value_parser = parse_absolute)]
    tmpfs: Vec<OsString>,
    /// Set an environment variable, or with NAME alone take it from the caller
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Pass the caller's whole environment
    #[arg(long)]
    env_host: bool,
    /// Working directory in the tree
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<OsString>,
    /// User, and group, to be inside (numbers)
    #[arg(short, long, value_name = "UID[:GID]", default_value = "0", value_parser = parse_user)]
    user: (u32, u32),
    /// Host name inside
    #[arg(long, value_name = "NAME", default_value = "duet", value_parser = parse_hostname)]
    hostname: String,
    /// Network
    #[arg(long, value_enum, default_value_t = NetworkOption::None)]
    network: NetworkOption,
    /// Let a port of the host lead into the sandbox; implies --network user
    #[arg(short, long = "publish", value_name = "[IP:]HOST:GUEST[/tcp|udp]", value_parser = parse_port)]
    publish: Vec<Port>,
    /// Leave sendmsg(2) and sendmmsg(2) to the kernel: at native speed, but a message to the path of a
    /// Unix socket finds nobody
    #[arg(long)]
    native_sendmsg: bool,
    /// Memory that all processes together may use: bytes, or with a suffix k, m, g (powers of 1024)
    #[arg(short, long, value_name = "SIZE", value_parser = parse_memory)]
    memory: Option<u64>,
    /// Most processes and threads
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    pids: Option<u64>,
    /// Processors' worth of time that may be used; fractions are allowed
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    cpus: Option<f64>,
    /// Kill everything after this time and exit with 124: seconds, or a time like 1m30s
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "PROG")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Duet answers its system calls
    Layer,
    /// A Linux kernel of its own does, in a virtual machine
    Vm,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MonitorOption {
    /// Duet's own where it can, else QEMU
    Auto,
    /// Duet's own, on /dev/kvm
    Duet,
    /// QEMU, which translates every instruction
    Qemu,
}

#[derive(Clone, Copy, ValueEnum)]
enum NetworkOption {
    /// A loopback device of its own, and nothing else
    None,
    /// The host's network
    Host,
    /// One of its own, connected to the host's by slirp4netns
    User,
}

#[derive(Clone, Copy, ValueEnum)]
enum EngineOption {
    /// Seccomp user notification: fast
    Seccomp,
    /// ptrace, where the host has no user notification
    Ptrace,
}

pub fn parse_volume(text: &str) -> Result<Volume, String> {
    let (text, read_only) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    let (source, target) = text
        .split_once(':')
        .ok_or("a volume is SRC:DST or SRC:DST:ro")?;
    if !target.starts_with('/') {
        return Err(format!("the target {target:?} is not an absolute path"));
    }
    if source.is_empty() {
        return Err("the source is empty".into());
    }
    Ok(Volume {
        source: source.into(),
        target: target.as_bytes().to_vec(),
        read_only,
    })
}

fn parse_port(text: &str) -> Result<Port, String> {
    let (ports, protocol) = match text.rsplit_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => return Err(format!("{other:?} is neither tcp nor udp")),
    };
    let mut parts = ports.rsplit(':');
    let (guest, host, address) = (parts.next(), parts.next(), parts.next());
    let number = |text: Option<&str>| match text.map(str::parse) {
        Some(Ok(0) | Err(_)) => Err("a port is a number from 1 to 65535".to_owned()),
        None => Err("a port is HOST:GUEST, as 8080:80".into()),
        Some(Ok(port)) => Ok(port),
    };
    let address = match address {
        None => Ipv4Addr::UNSPECIFIED,
        Some(text) => text
            .parse()
            .map_err(|_| format!("{text:?} is no IPv4 address"))?,
    };
    if parts.next().is_some() {
        return Err("a port is [IP:]HOST:GUEST".into());
    }
    Ok(Port {
        address,
        host: number(host)?,
        guest: number(guest)?,
        protocol,
    })
}

pub fn parse_absolute(text: &str) -> Result<OsString, String> {
    if text.starts_with('/') {
        Ok(text.into())
    } else {
        Err("not an absolute path".into())
    }
}

pub fn parse_user(text: &str) -> Result<(u32, u32), String> {
    let id = |t: &str| match t.parse() {
        Ok(u32::MAX) | Err(_) => Err(format!("{t:?} is no id; a user is UID or UID:GID")),
        Ok(id) => Ok(id),
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((id(uid)?, id(gid)?)),
        None => id(text).map(|uid| (uid, uid)),
    }
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let size = parse_size::Config::new().with_binary().parse_size(text);
    match size {
        Ok(0) => Err("a program needs some memory".into()),
        Ok(size) => Ok(size),
        Err(e) => Err(format!("{e}; a size is a number, or one with k, m or g")),
    }
}

fn parse_cpus(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(n) if n > 0.0 && f64::is_finite(n) => Ok(n),
        _ => Err("a number above 0, such as 1.5".into()),
    }
}

pub fn parse_time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string());
    }
    humantime::parse_duration(text).map_err(|e| e.to_string())
}

pub fn parse_hostname(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 64 || text.contains('\0') {
        return Err("a host name has 1 to 64 bytes".into());
    }
    Ok(text.into())
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The guest's environment: the usual few variables, or the caller's, then those of `--env`. `uid` is the
/// guest's user.
pub fn variables(
    settings: &[OsString],
    of_host: bool,
    uid: u32,
) -> Result<Vec<(OsString, OsString)>> {
    let mut env: Vec<(OsString, OsString)> = if of_host {
        std::env::vars_os().collect()
    } else {
        let home = if uid == 0 { "/root" } else { "/" };
        let mut env = vec![
            ("PATH".into(), DEFAULT_PATH.into()),
            ("HOME".into(), OsString::from(home)),
        ];
        env.extend(std::env::var_os("TERM").map(|t| ("TERM".into(), t)));
        env
    };
    for setting in settings {
        let bytes = setting.as_bytes();
        let at = bytes.iter().position(|&b| b == b'=');
        let (name, value) = match at {
            Some(0) => bail!("--env {}: the name is empty", setting.to_string_lossy()),
            Some(at) => {
                let (name, value) = bytes.split_at(at);
                (name, Some(OsStr::from_bytes(&value[1..]).to_owned()))
            }
            None => (bytes, std::env::var_os(setting)),
        };
        let name = OsStr::from_bytes(name).to_owned();
        env.retain(|(n, _)| *n != name);
        env.extend(value.map(|v| (name, v)));
    }
    Ok(env)
}

fn environment(options: &Options) -> Result<Vec<CString>> {
    let env = variables(&options.env, options.env_host, options.user.0)?;
    let join = |(name, value): (OsString, OsString)| {
        let mut text = name;
        text.push("=");
        text.push(value);
        c_string(text)
    };
    env.into_iter().map(join).collect()
}

fn c_string(text: OsString) -> Result<CString> {
    CString::new(text.into_vec()).context("an argument holds a NUL byte")
}

/// What the options ask for, with the engine that is fast.
pub fn config(options: &Options) -> Result<Config> {
    let tree = match &options.rootfs {
        Some(path) => Tree::Directory {
            path: path.clone(),
            writable: options.rw,
        },
        None if options.host_root => Tree::Host,
        None => Tree::Bare,
    };
    let mut command = options.command.iter().cloned().map(c_string);
    let program = command.next().context("no program is named")??;
    Ok(Config {
        program,
        args: command.collect::<Result<_>>()?,
        env: environment(options)?,
        tree,
        volumes: options.volumes.clone(),
        keep_id: options.keep_id,
        tmpfs: options
            .tmpfs
            .iter()
            .map(|t| t.as_bytes().to_vec())
            .collect(),
        workdir: options.workdir.as_ref().map(|d| d.as_bytes().to_vec()),
        uid: options.user.0,
        gid: options.user.1,
        hostname: options.hostname.clone(),
        network: match options.network {
            NetworkOption::Host if !options.publish.is_empty() => {
                bail!("--publish is for --network user; the host's network needs none")
            }
            NetworkOption::Host => Network::Host,
            NetworkOption::None if options.publish.is_empty() => Network::None,
            NetworkOption::None | NetworkOption::User => Network::User(options.publish.clone()),
        },
        limits: Limits {
            memory: options.memory,
            pids: options.pids,
            cpus: options.cpus,
            timeout: options.timeout,
        },
        engine: Engine::Seccomp,
        seen: Seen::Intercepted,
        messages: if options.native_sendmsg {
            Messages::Native
        } else {
            Messages::Seen
        },
        accelerated: true,
    })
}

/// Runs the command in a virtual machine.
fn in_machine(run: &Run, began: Instant) -> Result<u8> {
    let options = &run.options;
    let how = machine::Options {
        kernel: options.kernel.clone(),
        append: options.append.clone(),
        console: options.console,
        monitor: match options.monitor {
            MonitorOption::Auto => machine::Choice::Auto,
            MonitorOption::Duet => machine::Choice::Duet,
            MonitorOption::Qemu => machine::Choice::Qemu,
        },
    };
    let outcome = machine::run(&config(options)?, &how, began)?;
    if options.timings {
        for (phase, time) in outcome.timings.marks() {
            eprintln!("{:>9.3} ms  {phase}", time.as_secs_f64() * 1000.0);
        }
    }
    if run.report || log::log_enabled!(log::Level::Info) {
        let report = report::Machine::new(&outcome);
        eprint!(
            "{}",
            if run.json {
                report.json()?
            } else {
                report.text()
            }
        );
    }
    if let Some(path) = &run.figures {
        let marks = outcome.timings.marks().iter();
        let at = |phase| {
            let mark = marks.clone().find(|(name, _)| *name == phase);
            mark.map(|(_, time)| inside::monotonic(began + *time))
        };
        let seen = Inside {
            started: at("program started"),
            ended: at("program ended"),
            guest: outcome.used.map(|u| Cpu {
                user: u.user,
                system: u.system,
            }),
            guest_peak: outcome.used.map(|u| u.peak),
            machine: outcome
                .processor
                .and_then(|t| u64::try_from(t.as_micros()).ok()),
            exits: outcome.work.as_ref().map(|work| {
                let owned = |(reason, n): &(&str, u64)| ((*reason).to_owned(), *n);
                work.exits.iter().map(owned).collect()
            }),
            monitor: Some(outcome.monitor.clone()),
            files: outcome.kernel_files,
            ..Inside::default()
        };
        seen.write(path)
            .with_context(|| path.display().to_string())?;
    }
    Ok(outcome.exit_code)
}

/// What was seen of the inside of a run in the layer.
fn inside_layer(outcome: &Outcome, counted: bool) -> Inside {
    let mut calls = Calls::default();
    for (_, counts) in outcome.counters().counts() {
        calls.native += counts.native;
        calls.emulated += counts.emulated;
        calls.refused += counts.refused;
    }
    calls.refused += outcome.counters().unknown() + outcome.counters().foreign();
    Inside {
        started: outcome.started().map(inside::monotonic),
        ended: Some(inside::monotonic(outcome.ended)),
        guest: Some(Cpu {
            user: outcome.used.user,
            system: outcome.used.system,
        }),
        guest_peak: Some(outcome.used.peak).filter(|peak| *peak > 0),
        calls: counted.then_some(calls),
        ..Inside::default()
    }
}

/// Refuses what is for virtual machines only.
pub fn check_layer(options: &Options) -> Result<()> {
    if options.mode == Mode::Vm {
        bail!("--mode vm: the calls are the guest kernel's; Duet does not see them");
    }
    let machines = [
        ("--kernel", options.kernel.is_some()),
        ("--append", !options.append.is_empty()),
        ("--console", options.console),
        ("--monitor", options.monitor != MonitorOption::Auto),
        ("--timings", options.timings),
    ];
    if let Some((option, _)) = machines.iter().find(|(_, given)| *given) {
        bail!("{option} is for --mode vm");
    }
    Ok(())
}

/// Runs the command.
pub fn main(run: &Run) -> Result<u8> {
    let began = Instant::now();
    let options = &run.options;
    if options.mode == Mode::Vm {
        return in_machine(run, began);
    }
    check_layer(options)?;
    let mut config = config(options)?;
    config.engine = match run.engine {
        EngineOption::Seccomp => Engine::Seccomp,
        EngineOption::Ptrace => Engine::Ptrace,
    };
    config.accelerated = !run.no_accelerator;
    if run.report || run.count {
        config.seen = Seen::All;
    }
    let outcome = duet_sandbox::run(&config, None)?;
    if let Some(path) = &run.figures {
        let seen = inside_layer(&outcome, run.count);
        seen.write(path)
            .with_context(|| path.display().to_string())?;
    }
    if run.report {
        let report = report::Report::new(outcome.counters());
        eprint!(
            "{}",
            if run.json {
                report.json()?
            } else {
                report.text()
            }
        );
    }
    Ok(outcome.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_parsed() {
        let v = parse_volume("/a:/b:ro").unwrap();
        assert_eq!(
            (v.source, v.target, v.read_only),
            ("/a".into(), b"/b".to_vec(), true)
        );
        assert!(!parse_volume("a:/b").unwrap().read_only);
        assert!(parse_volume("/a").is_err());
        assert!(parse_volume("/a:b").is_err());
        assert!(parse_volume(":/b").is_err());
    }

    #[test]
    fn limits_are_parsed() {
        assert_eq!(parse_memory("512m"), Ok(512 << 20));
        assert_eq!(parse_memory("4096"), Ok(4096));
        assert_eq!(parse_memory("2G"), Ok(2 << 30));
        assert!(parse_memory("0").is_err() && parse_memory("much").is_err());
        assert_eq!(parse_cpus("0.5"), Ok(0.5));
        assert!(
            ["0", "-1", "inf", "nan", "x"]
                .map(parse_cpus)
                .iter()
                .all(Result::is_err)
        );
        assert_eq!(parse_time("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("1m30s"), Ok(Duration::from_secs(90)));
        assert!(
            ["-1", "soon", "1e400"]
                .map(parse_time)
                .iter()
                .all(Result::is_err)
        );
    }

    #[test]
    fn ports_are_parsed() {
        let port = parse_port("8080:80").unwrap();
        assert_eq!((port.host, port.guest), (8080, 80));
        assert_eq!(port.address, Ipv4Addr::UNSPECIFIED);
        assert_eq!(port.protocol, Protocol::Tcp);
        let port = parse_port("127.0.0.1:53:5353/udp").unwrap();
        assert_eq!((port.address, port.host), (Ipv4Addr::LOCALHOST, 53));
        assert_eq!(port.protocol, Protocol::Udp);
        for bad in [
            "80",
            "0:1",
            "1:65536",
            "x:1",
            "1:2/sctp",
            "a:1:2",
            "1:127.0.0.1:1:2",
            "",
        ] {
            assert!(parse_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn users_are_numbers() {
        assert_eq!(parse_user("7"), Ok((7, 7)));
        assert_eq!(parse_user("7:8"), Ok((7, 8)));
        assert!(parse_user("root").is_err());
        assert!(parse_user("4294967295").is_err());
    }
}

//! A built-in set of measurements: what calls, files, processes, memory, a network and whole programs cost
//! in each mode, and under other programs of this kind; and what real software does there.
//!
//! One static program, built from `benches/abibench.c` together with this crate, is run through
//! [`session::compare`]: it measures its own operations and prints nanoseconds. Software is measured from
//! outside, and servers by the programs that put them under load. [`crate::sets`] says what there is,
//! [`crate::tables`] shows it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use duet_vm::host;
use nix::sys::signalfd::SignalFd;
use nix::unistd::{User, getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::child::{Run, Status};
use crate::figures::Unit;
use crate::modes::{Candidate, Mode};
use crate::report::Host;
use crate::session::{self, Progress, Settings};
use crate::sets::{self, EMPTY, LOADS, Load, MEASURES, Set, WORKS, Work};
use crate::stats::Summary;
use crate::subject::{Subject, Tree};
use crate::{Error, Result, material};

/// The measuring program.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/abibench"));

/// Names the form of the stored results and its version.
pub const SCHEMA: &str = "duet-bench/1";

/// A mode in which the measuring program takes longer is not run again.
pub const PATIENCE: Duration = Duration::from_secs(6);

/// Most runs of software in each mode.
pub const SOFTWARE_RUNS: u32 = 3;

/// A mode in which software takes longer is not run again.
pub const SOFTWARE_PATIENCE: Duration = Duration::from_secs(3);

/// Software that has not ended by then is ended.
const LIMIT: Duration = Duration::from_secs(120);

/// Where programs are looked for.
const PATH: &str = "/usr/bin:/bin";

/// A column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// The mode.
    pub mode: String,
    /// Why it was not run.
    pub missing: Option<String>,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What kind of thing it is.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub title: String,
    /// Unit of its values: seconds, or so many a second.
    #[serde(default = "seconds")]
    pub unit: Unit,
    /// By mode; without those where it failed.
    pub values: BTreeMap<String, Summary>,
}

fn seconds() -> Unit {
    Unit::Seconds
}

/// Something that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What.
    pub what: String,
    /// In which mode; `None`: in none.
    pub mode: Option<String>,
    /// Why.
    pub why: String,
}

/// All results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of Duet.
    pub duet: String,
    /// The machine.
    pub host: Host,
    /// When it was measured, in seconds since the epoch.
    pub taken: u64,
    /// Runs in each mode.
    pub runs: u32,
    /// Seconds that each measurement took within a run.
    pub seconds: f64,
    /// Whether it was ended before all runs were made.
    pub interrupted: bool,
    /// The modes.
    pub columns: Vec<Column>,
    /// What was measured.
    pub rows: Vec<Row>,
    /// Software that is not installed, or did not work in a mode.
    #[serde(default)]
    pub failures: Vec<Failure>,
}

/// What is to be measured, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sets.
    pub sets: Vec<Set>,
    /// The modes, in the order of columns.
    pub candidates: Vec<Candidate>,
    /// Whether each set is run in all of them, instead of those that say something of it.
    pub everywhere: bool,
    /// How often, and by what.
    pub settings: Settings,
    /// Seconds that each measurement takes within a run.
    pub seconds: f64,
}

/// Measures.
///
/// # Errors
/// Measuring itself fails.
pub fn run(
    plan: &Plan,
    version: &str,
    signals: &SignalFd,
    progress: &mut dyn Progress,
) -> Result<(Results, Option<i32>)> {
    let place = place()?;
    let program = place.path().join("abibench");
    write_program(&program).map_err(|e| Error::on(&program, e))?;
    let results = Results {
        schema: SCHEMA.into(),
        duet: version.into(),
        host: Host::here(),
        taken: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_secs()),
        runs: plan.settings.runs,
        seconds: plan.seconds,
        interrupted: false,
        columns: plan
            .candidates
            .iter()
            .map(|c| Column {
                mode: c.mode.name().into(),
                missing: c.missing.clone(),
            })
            .collect(),
        rows: Vec::new(),
        failures: Vec::new(),
    };
    let mut bench = Bench {
        plan,
        signals,
        progress,
        place: place.path().to_owned(),
        program,
        candidates: plan.candidates.clone(),
        results,
        samples: BTreeMap::new(),
        interrupted: None,
    };
    bench.all()?;
    let mut results = bench.results;
    results.interrupted = bench.interrupted.is_some();
    results.rows = rows(&bench.samples);
    Ok((results, bench.interrupted))
}

/// A directory that users of any number may enter.
fn place() -> Result<tempfile::TempDir> {
    let place = tempfile::Builder::new()
        .prefix("duet-bench-")
        .tempdir()
        .map_err(|e| Error::step("making a directory", e))?;
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755))
        .map_err(|e| Error::on(place.path(), e))?;
    Ok(place)
}

/// Makes a directory that everybody may write to: to an ordinary user's layer its user is somebody else than
/// who has made it.
fn open_dir(path: &Path) -> std::io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o777))
}

fn write_program(path: &Path) -> std::io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(path)?;
    file.write_all(PROGRAM)
}

/// Samples by row and mode, in the unit of the row.
type Samples = BTreeMap<(String, &'static str), Vec<f64>>;

struct Bench<'a> {
    plan: &'a Plan,
    signals: &'a SignalFd,
    progress: &'a mut dyn Progress,
    place: PathBuf,
    program: PathBuf,
    /// Without the modes that the measuring program has failed in: they are not asked again.
    candidates: Vec<Candidate>,
    results: Results,
    samples: Samples,
    interrupted: Option<i32>,
}

impl Bench<'_> {
    /// Everything, until a signal comes.
    fn all(&mut self) -> Result<()> {
        let wants = |set: &Set| self.plan.sets.contains(set);
        let own: Vec<Set> = Set::OWN.into_iter().filter(wants).collect();
        let (trees, servers) = (wants(&Set::Trees), wants(&Set::Servers));
        let works: Vec<&Work> = WORKS.iter().filter(|w| wants(&w.set)).collect();
        self.own(&own)?;
        if trees {
            self.trees()?;
        }
        if !works.is_empty() {
            let dir = self.place.join("material");
            let made = open_dir(&dir).and_then(|()| material::write(&dir));
            let made = made.and_then(|()| write_program(&dir.join("abibench")));
            made.map_err(|e| Error::on(&dir, e))?;
            for work in works {
                self.work(work, &dir)?;
            }
        }
        for load in LOADS.iter().filter(|_| servers) {
            self.load(load)?;
        }
        Ok(())
    }

    /// The modes of a set.
    fn candidates_of(&self, set: Set) -> Vec<Candidate> {
        let modes = set.modes();
        let wanted = |c: &&Candidate| self.plan.everywhere || modes.contains(&c.mode);
        self.candidates.iter().filter(wanted).cloned().collect()
    }

    /// Runs it in these modes. `None`: a signal has come, now or before.
    fn columns(
        &mut self,
        subject: &Subject,
        candidates: &[Candidate],
        settings: &Settings,
    ) -> Result<Option<Vec<session::Column>>> {
        if self.interrupted.is_some() {
            return Ok(None);
        }
        let found = session::compare(
            subject,
            candidates,
            settings,
            self.signals,
            &mut *self.progress,
        )?;
        self.interrupted = found.interrupted;
        // What was measured before it came is kept.
        Ok(Some(found.columns))
    }

    fn sample(&mut self, name: String, mode: Mode, value: f64) {
        let all = self.samples.entry((name, mode.name())).or_default();
        all.push(value);
    }

    /// Takes what the program has printed, under names with this prefix.
    fn take(&mut self, prefix: &str, column: &session::Column) {
        for run in &column.timed {
            for (name, value) in printed(column, run) {
                let name = format!("{prefix}{name}");
                if let Some(measure) = MEASURES.iter().find(|m| m.name == name) {
                    let value = match measure.unit {
                        Unit::Seconds => value / 1e9,
                        _ => value,
                    };
                    self.sample(name, column.mode, value);
                }
            }
        }
    }

    /// The measuring program in all modes.
    fn own(&mut self, wanted: &[Set]) -> Result<()> {
        let names = |set: Set| {
            let of = MEASURES.iter().filter(move |m| m.set == set);
            of.map(|m| m.name)
        };
        let operations: Vec<&str> = wanted
            .iter()
            .filter(|s| **s != Set::Programs)
            .flat_map(|s| names(*s))
            .collect();
        let operations = operations.join(",");
        let duration = self.plan.seconds.to_string();
        let mut runs: Vec<&[&str]> = Vec::new();
        let measuring = ["-d", &duration, "-f", &operations, "."];
        if wanted.contains(&Set::Programs) {
            runs.extend([&["--exit"][..], &["-w", "."]]);
        }
        if !operations.is_empty() {
            runs.push(&measuring);
        }
        for arguments in runs {
            let subject = subject(&self.program, arguments);
            let candidates = self.candidates_of(Set::Calls);
            let settings = Settings {
                patience: Some(PATIENCE),
                ..self.plan.settings.clone()
            };
            let Some(columns) = self.columns(&subject, &candidates, &settings)? else {
                return Ok(());
            };
            for column in &columns {
                match arguments {
                    ["--exit"] => {
                        let fine = |r: &&Run| r.status == Status::Exited(0);
                        for run in column.timed.iter().filter(fine) {
                            self.sample(EMPTY.into(), column.mode, run.total as f64 / 1e9);
                        }
                    }
                    _ => self.take("", column),
                }
                if let Some(why) = column.missing.clone().or_else(|| failure(column)) {
                    self.give_up(column.mode, why);
                }
            }
        }
        Ok(())
    }

    /// Leaves a mode out from now on.
    fn give_up(&mut self, mode: Mode, why: String) {
        if let Some(candidate) = self.candidates.iter_mut().find(|c| c.mode == mode) {
            candidate.missing.get_or_insert_with(|| why.clone());
        }
        let mut columns = self.results.columns.iter_mut();
        if let Some(column) = columns.find(|c| c.mode == mode.name()) {
            column.missing.get_or_insert(why);
        }
    }

    fn fail(&mut self, what: &str, mode: Option<Mode>, why: String) {
        self.results.failures.push(Failure {
            what: what.into(),
            mode: mode.map(|m| m.name().into()),
            why,
        });
    }

    /// The layer's file systems: its tmpfs, and an overlay over a directory.
    fn trees(&mut self) -> Result<()> {
        let duration = self.plan.seconds.to_string();
        for prefix in ["tmp_", "overlay_"] {
            let dir = self.place.join(prefix.trim_end_matches('_'));
            open_dir(&dir).map_err(|e| Error::on(&dir, e))?;
            let mut subject = subject(&self.program, &["-d", &duration, "-f", sets::OF_TREES]);
            subject.command.push(dir.clone().into());
            match prefix {
                "tmp_" => subject.options = vec!["--tmpfs".into(), dir.into()],
                _ => subject.tree = Tree::Host,
            }
            let candidates = self.candidates_of(Set::Trees);
            let settings = self.plan.settings.clone();
            let Some(columns) = self.columns(&subject, &candidates, &settings)? else {
                return Ok(());
            };
            for column in &columns {
                self.take(prefix, column);
                if let Some(why) = failure(column) {
                    let what = format!("{prefix}…");
                    self.fail(&what, Some(column.mode), why);
                }
            }
        }
        Ok(())
    }

    /// Whether all this is installed; says so if not.
    fn has(&mut self, what: &str, needs: &[&str]) -> bool {
        let absent = |n: &&&str| host::find_program_in(n.as_ref(), PATH.as_ref()).is_none();
        let Some(absent) = needs.iter().find(absent) else {
            return true;
        };
        self.fail(what, None, format!("{absent} is not installed"));
        false
    }

    fn software(script: &str) -> Subject {
        let mut subject = subject(Path::new("/bin/sh"), &["-c", script]);
        subject.tree = Tree::Host;
        subject.env.push(("HOME".into(), "/nonexistent".into()));
        subject
    }

    /// How it is run, and where.
    fn of_software(&self, place: Option<PathBuf>) -> Settings {
        let settings = self.plan.settings.clone();
        Settings {
            runs: settings.runs.min(SOFTWARE_RUNS),
            timeout: Some(LIMIT),
            patience: Some(SOFTWARE_PATIENCE),
            place,
            ..settings
        }
    }

    fn work(&mut self, work: &Work, material: &Path) -> Result<()> {
        if !self.has(work.title, work.needs) {
            return Ok(());
        }
        let mut subject = Self::software(work.script);
        subject.dir = Some(material.to_owned());
        // A machine has a `/dev/shm` of its own, which hides a directory below the host's.
        let all = self.candidates_of(work.set);
        let (machines, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|c| c.mode == Mode::Vm);
        let both = [(others, in_memory()), (machines, None)];
        let mut columns = Vec::new();
        for (candidates, place) in both {
            let settings = self.of_software(place);
            if !candidates.is_empty() {
                columns.extend(
                    self.columns(&subject, &candidates, &settings)?
                        .unwrap_or_default(),
                );
            }
        }
        for column in &columns {
            let fine = |r: &&Run| r.status == Status::Exited(0);
            for run in column.timed.iter().filter(fine) {
                self.sample(work.name.into(), column.mode, run.total as f64 / 1e9);
                if work.set == Set::Traces {
                    let micros = run.cpu.user.saturating_add(run.cpu.system);
                    let name = sets::cpu_name(work.name);
                    self.sample(name, column.mode, micros as f64 / 1e6);
                }
            }
            if let Some(why) = failed(column) {
                self.fail(work.title, Some(column.mode), why);
            }
        }
        Ok(())
    }

    fn load(&mut self, load: &Load) -> Result<()> {
        if !self.has(load.name, load.needs) {
            return Ok(());
        }
        let mut subject = Self::software(load.script);
        let port = free_port().map_err(|e| Error::step("finding a free port", e))?;
        subject.env.push(("PORT".into(), port.to_string().into()));
        if let Some(user) = load.user.filter(|_| geteuid().is_root()) {
            let Some(user) = User::from_name(user).ok().flatten() else {
                let why = format!("it needs a user {user}, as it does not run as root");
                self.fail(load.name, None, why);
                return Ok(());
            };
            subject.user = (user.uid.as_raw(), user.gid.as_raw());
        }
        let settings = self.of_software(in_memory());
        let candidates = self.candidates_of(Set::Servers);
        let Some(columns) = self.columns(&subject, &candidates, &settings)? else {
            return Ok(());
        };
        for column in &columns {
            self.take("", column);
            if let Some(why) = failed(column) {
                self.fail(load.name, Some(column.mode), why);
            }
        }
        Ok(())
    }
}

/// A directory whose files are in memory, if there is one: disks take their own time.
fn in_memory() -> Option<PathBuf> {
    let shm = Path::new("/dev/shm");
    let writable = nix::unistd::access(shm, nix::unistd::AccessFlags::W_OK).is_ok();
    (shm.is_dir() && writable).then(|| shm.to_owned())
}

/// A port of the loopback device that nobody has at the moment.
fn free_port() -> std::io::Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    Ok(listener.local_addr()?.port())
}

fn subject(program: &Path, arguments: &[&str]) -> Subject {
    let words = arguments.iter().map(OsString::from);
    Subject {
        command: std::iter::once(program.into()).chain(words).collect(),
        tree: Tree::Bare,
        dir: None,
        workdir: None,
        volumes: Vec::new(),
        env: vec![("PATH".into(), PATH.into())],
        user: (geteuid().as_raw(), getegid().as_raw()),
        input: None,
        options: Vec::new(),
        machine_options: Vec::new(),
    }
}

/// `name number` on each line; what failed says so instead.
fn printed(column: &session::Column, run: &Run) -> Vec<(String, f64)> {
    let bytes = column.kept.stdout(&run.did).map_or(&[][..], |c| &c.head);
    let text = String::from_utf8_lossy(bytes);
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        let value = value.trim().parse::<f64>().ok();
        value
            .filter(|v| v.is_finite() && *v >= 0.0)
            .map(|v| (name.to_owned(), v))
    };
    text.lines().filter_map(line).collect()
}

/// Why a mode gives nothing, if all its runs of the measuring program failed.
fn failure(column: &session::Column) -> Option<String> {
    let failed = |r: &Run| r.status != Status::Exited(0) && printed(column, r).is_empty();
    let last = column.timed.last()?;
    column.timed.iter().all(failed).then(|| said(column, last))
}

/// Why software did not work in a mode, if a run failed or there was none.
fn failed(column: &session::Column) -> Option<String> {
    let odd = |r: &&Run| r.status != Status::Exited(0);
    match column.timed.iter().find(odd) {
        Some(run) => Some(said(column, run)),
        None => column.missing.clone().filter(|_| column.timed.is_empty()),
    }
}

/// How a run ended, with the last line of its standard error.
fn said(column: &session::Column, run: &Run) -> String {
    let bytes = column.kept.stderr(&run.did).map_or(&[][..], |c| &c.head);
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().last().unwrap_or("");
    let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
    format!(
        "{} failed with status {}: {line}",
        column.mode.name(),
        run.status
    )
}

fn rows(samples: &Samples) -> Vec<Row> {
    let mut all = Vec::new();
    let mut add = |group: &str, name: String, title: &str, unit: Unit| {
        let of = samples.iter().filter(|((of, _), _)| *of == name);
        let values = of.filter_map(|((_, mode), all)| {
            Some(((*mode).to_owned(), Summary::of(all.iter().copied())?))
        });
        let row = Row {
            group: group.into(),
            title: title.into(),
            unit,
            values: values.collect(),
            name,
        };
        if !row.values.is_empty() {
            all.push(row);
        }
    };
    for set in Set::ALL {
        let groups = set.groups();
        for (i, group) in groups.iter().enumerate() {
            for m in MEASURES.iter().filter(|m| m.set == set) {
                add(group, m.name.into(), m.title, m.unit);
            }
            for w in WORKS.iter().filter(|w| w.set == set) {
                let name = match i {
                    0 => w.name.to_owned(),
                    _ => sets::cpu_name(w.name),
                };
                add(group, name, w.title, Unit::Seconds);
            }
        }
    }
    all
}

impl Results {
    /// Reads stored results.
    ///
    /// # Errors
    /// The file's, or what is in it are no results of this form.
    pub fn read(path: &Path) -> Result<Results> {
        let text = fs::read(path).map_err(|e| Error::on(path, e))?;
        let results: Results = serde_json::from_slice(&text)
            .map_err(|e| Error::on(path, format!("no results of duet bench: {e}")))?;
        match results.schema == SCHEMA {
            true => Ok(results),
            false => Err(Error::on(
                path,
                format!("has the form {:?}, and this is {SCHEMA}", results.schema),
            )),
        }
    }
}

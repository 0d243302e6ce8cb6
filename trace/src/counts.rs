//! How often each call was made and how long it took: the table of strace(1)'s `-c`.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use duet_syscalls::table;

/// In which order the table stands; the largest comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Total time.
    #[default]
    Time,
    /// Calls.
    Calls,
    /// Errors.
    Errors,
    /// By name.
    Name,
}

/// What is known of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How often it was made.
    pub calls: u64,
    /// How often it failed.
    pub errors: u64,
    /// How long it took, from entry to exit by the clock on the wall.
    pub time: Duration,
}

/// All calls of a run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    by_number: HashMap<u32, Count>,
}

impl Counts {
    /// Adds a call.
    pub fn add(&mut self, nr: u32, failed: bool, time: Duration) {
        let count = self.by_number.entry(nr).or_default();
        count.calls += 1;
        count.errors += u64::from(failed);
        count.time += time;
    }

    /// Each call by name, in an order; of equals the earlier name first.
    pub fn sorted(&self, order: Order) -> Vec<(&'static str, Count)> {
        let named = |(nr, count): (&u32, &Count)| {
            // The table has no row for what has no name.
            (
                table::lookup(*nr).map_or("(unknown)", |row| row.name),
                *count,
            )
        };
        let mut all: Vec<_> = self.by_number.iter().map(named).collect();
        all.sort_by(|(a, x), (b, y)| {
            let by = match order {
                Order::Time => y.time.cmp(&x.time),
                Order::Calls => y.calls.cmp(&x.calls),
                Order::Errors => y.errors.cmp(&x.errors),
                Order::Name => std::cmp::Ordering::Equal,
            };
            by.then_with(|| a.cmp(b))
        });
        all
    }

    /// The table.
    pub fn table(&self, order: Order) -> String {
        let rule = "------ ----------- ----------- --------- --------- ----------------\n";
        let mut out = String::from("% time     seconds  usecs/call     calls    errors syscall\n");
        out.push_str(rule);
        let all = self.sorted(order);
        let mut total = Count::default();
        for (_, c) in &all {
            total.calls += c.calls;
            total.errors += c.errors;
            total.time += c.time;
        }
        for (name, count) in &all {
            line(&mut out, name, count, total.time);
        }
        out.push_str(rule);
        line(&mut out, "total", &total, total.time);
        out
    }
}

fn line(out: &mut String, name: &str, count: &Count, total: Duration) {
    let share = match total.as_nanos() {
        0 => 0.0,
        all => 100.0 * count.time.as_nanos() as f64 / all as f64,
    };
    let each = count.time.as_micros() / u128::from(count.calls.max(1));
    let errors = match count.errors {
        0 => String::new(),
        n => n.to_string(),
    };
    let (seconds, calls) = (count.time.as_secs_f64(), count.calls);
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{share:6.2} {seconds:11.6} {each:11} {calls:9} {errors:>9} {name}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_adds_up() {
        let mut counts = Counts::default();
        counts.add(libc::SYS_read as u32, false, Duration::from_micros(30));
        counts.add(libc::SYS_read as u32, true, Duration::from_micros(30));
        counts.add(libc::SYS_close as u32, false, Duration::from_micros(40));
        let names = |order| {
            counts
                .sorted(order)
                .into_iter()
                .map(|(n, _)| n)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Order::Time), ["read", "close"]);
        assert_eq!(names(Order::Name), ["close", "read"]);
        assert_eq!(
            counts.table(Order::Calls),
            "% time     seconds  usecs/call     calls    errors syscall\n\
             ------ ----------- ----------- --------- --------- ----------------\n \
             60.00    0.000060          30         2         1 read\n \
             40.00    0.000040          40         1           close\n\
             ------ ----------- ----------- --------- --------- ----------------\n\
             100.00    0.000100          33         3         1 total\n"
        );
    }
}

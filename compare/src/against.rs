//! What has changed between two sets of results, beyond the noise.

use crate::bench::Results;
use crate::figures::Unit;
use crate::stats::Summary;
use crate::text;

/// Runs that each side must have: with four on each, two samples of the same lie wholly apart by chance once
/// in 35 times; with five, once in 126.
pub const LEAST: usize = 4;
/// A smaller change of the median is none.
const SMALLEST: f64 = 0.05;

/// How one value changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The mode.
    pub mode: String,
    /// What was measured.
    pub title: String,
    /// Unit of the values.
    pub unit: Unit,
    /// Before.
    pub before: Summary,
    /// Now.
    pub now: Summary,
}

impl Change {
    /// Now, in terms of before.
    pub fn ratio(&self) -> f64 {
        self.now.median / self.before.median
    }

    /// How much slower it became: the ratio of times, or its inverse for rates.
    fn slowdown(&self) -> f64 {
        match self.unit.is_rate() {
            true => 1.0 / self.ratio(),
            false => self.ratio(),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Beyond the noise, the greatest slowdown first.
    pub changed: Vec<Change>,
    /// Values that did not change so.
    pub same: usize,
    /// Values that one side lacks, or has too few runs of.
    pub unknown: usize,
}

/// Whether two samples of one figure are apart: no value of one lies within the other, and their medians
/// differ by more than 5 %. `None`: there are too few to tell.
pub fn apart(before: &Summary, now: &Summary) -> Option<bool> {
    if before.n < LEAST || now.n < LEAST {
        return None;
    }
    let overlap = now.min <= before.max && before.min <= now.max;
    let far = (now.median - before.median).abs() > SMALLEST * before.median.abs();
    Some(!overlap && far)
}

/// Compares two sets.
pub fn changes(before: &Results, now: &Results) -> Changes {
    let mut found = Changes::default();
    for row in &now.rows {
        let old = before.rows.iter().find(|r| r.name == row.name);
        for (mode, value) in &row.values {
            let old = old.and_then(|r| r.values.get(mode));
            match old.and_then(|old| Some((old, apart(old, value)?))) {
                None => found.unknown += 1,
                Some((_, false)) => found.same += 1,
                Some((old, true)) => found.changed.push(Change {
                    mode: mode.clone(),
                    title: row.title.clone(),
                    unit: row.unit,
                    before: *old,
                    now: *value,
                }),
            }
        }
    }
    found
        .changed
        .sort_by(|a, b| b.slowdown().total_cmp(&a.slowdown()));
    found
}

/// For people.
pub fn report(before: &Results, now: &Results) -> String {
    let found = changes(before, now);
    let mut out = String::from("\nwhat changed beyond the noise\n");
    if before.host != now.host {
        let (old, new) = (&before.host, &now.host);
        out += &format!(
            "measured on different machines: {} with Linux {}, and {} with Linux {}\n",
            old.processor, old.kernel, new.processor, new.kernel
        );
    }
    if !found.changed.is_empty() {
        let range = |unit: Unit, s: &Summary| {
            let show = |v| unit.show(v);
            format!("{} ({}–{})", show(s.median), show(s.min), show(s.max))
        };
        let rows = found.changed.iter().map(|c| {
            vec![
                c.title.clone(),
                c.mode.clone(),
                range(c.unit, &c.before),
                range(c.unit, &c.now),
                format!("{:+.0} %", (c.ratio() - 1.0) * 100.0),
            ]
        });
        let header = ["", "mode", "before", "now", "change"].map(String::from);
        out += &format!("\n{}\n\n", text::plain_table(header.into(), rows.collect()));
    }
    out += &format!(
        "{} changed, {} did not; {} cannot be told ({LEAST} runs are needed on both sides)\n",
        found.changed.len(),
        found.same,
        found.unknown
    );
    let native = found.changed.iter().filter(|c| c.mode == "native").count();
    if native > 0 {
        out += &format!(
            "{native} of them are native: there the machine changed, or how busy it was, not Duet\n"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: &[f64]) -> Summary {
        Summary::of(values.iter().copied()).unwrap()
    }

    #[test]
    fn noise_is_no_change() {
        let old = summary(&[10.0, 10.5, 11.0, 11.5]);
        assert_eq!(
            apart(&old, &summary(&[11.4, 12.0, 12.0, 13.0])),
            Some(false)
        );
        assert_eq!(apart(&old, &summary(&[12.0, 12.1, 12.2, 13.0])), Some(true));
        assert_eq!(apart(&old, &summary(&[8.0, 8.5, 9.0, 9.9])), Some(true));
        assert_eq!(apart(&old, &summary(&[20.0, 20.0, 20.0])), None);
        let steady = summary(&[10.0; 5]);
        assert_eq!(apart(&steady, &summary(&[10.4; 5])), Some(false));
    }
}

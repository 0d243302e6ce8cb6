//! Results of [`crate::bench`] as tables: for a terminal, and for pages.

use crate::bench::{Results, Row};
use crate::figures::Unit;
use crate::sets::Set;
use crate::text;

/// Rows that stand in one table.
struct Block<'a> {
    title: String,
    rows: Vec<&'a Row>,
    columns: Vec<&'a str>,
    /// The column that those behind it are held against.
    base: usize,
}

impl Block<'_> {
    /// A row's cells: its title, then a value for each column.
    fn cells(&self, row: &Row) -> Vec<String> {
        let base = self.columns.get(self.base).and_then(|c| row.values.get(*c));
        let cell = |(i, column): (usize, &&str)| {
            let Some(value) = row.values.get(*column) else {
                return "-".to_owned();
            };
            let shown = row.unit.show(value.median);
            match base.filter(|b| i > self.base && b.median > 0.0) {
                Some(b) => format!("{shown} ({})", ratio(value.median / b.median)),
                None => shown,
            }
        };
        let cells = self.columns.iter().enumerate().map(cell);
        std::iter::once(row.title.clone()).chain(cells).collect()
    }

    fn header(&self, corner: &str) -> Vec<String> {
        let columns = self.columns.iter().map(|c| (*c).to_owned());
        std::iter::once(corner.to_owned()).chain(columns).collect()
    }

    /// What its brackets mean.
    fn against(&self) -> &str {
        self.columns.get(self.base).copied().unwrap_or_default()
    }
}

impl Results {
    /// The rows of these sets, table by table: those that the measuring program gives in one.
    fn blocks(&self, sets: &[Set]) -> Vec<Block<'_>> {
        let mut blocks: Vec<(Option<Set>, String, Vec<&Row>)> = Vec::new();
        for row in &self.rows {
            let Some(set) = Set::of_group(&row.group).filter(|s| sets.contains(s)) else {
                continue;
            };
            let own = Set::OWN.contains(&set);
            let title = if own { "" } else { &row.group };
            match blocks.last_mut().filter(|(_, of, _)| of == title) {
                Some((_, _, rows)) => rows.push(row),
                None => blocks.push((Some(set).filter(|_| !own), title.into(), vec![row])),
            }
        }
        let block = |(set, title, rows): (Option<Set>, String, Vec<_>)| {
            let has = |mode: &str| rows.iter().any(|r: &&Row| r.values.contains_key(mode));
            let all = self.columns.iter().map(|c| c.mode.as_str());
            let columns: Vec<&str> = all.filter(|c| has(c)).collect();
            let base = set.and_then(Set::base).map(|m| m.name());
            let base = base.and_then(|b| columns.iter().position(|c| *c == b));
            Block {
                title,
                rows,
                base: base.unwrap_or(0),
                columns,
            }
        };
        blocks.into_iter().map(block).collect()
    }

    /// For people.
    pub fn text(&self, sets: &[Set]) -> String {
        let mut out = format!("medians of {}\n", runs(&self.blocks(sets)));
        if self.interrupted {
            out += "INTERRUPTED: what was measured so far\n";
        }
        for block in self.blocks(sets) {
            let heading = match block.title.as_str() {
                "" => "time of one operation",
                title => title,
            };
            out += &format!(
                "\n{heading}, and in brackets the ratio to {}\n",
                block.against()
            );
            out += &format!("\n{}\n", block.text());
        }
        for column in &self.columns {
            if let Some(why) = &column.missing {
                out += &format!("{} is missing: {}\n", column.mode, text::plain(why));
            }
        }
        for failure in &self.failures {
            let (what, why) = (&failure.what, text::plain(&failure.why));
            out += &match &failure.mode {
                Some(_) => format!("{what}: {why}\n"),
                None => format!("{what} is missing: {why}\n"),
            };
        }
        out
    }

    /// For a page of documentation.
    pub fn markdown(&self, sets: &[Set]) -> String {
        let blocks = self.blocks(sets);
        let mut out = format!(
            "{}, {} processors, Linux {}; medians of {}.\n",
            self.host.processor,
            self.host.processors,
            self.host.kernel,
            runs(&blocks)
        );
        for block in blocks {
            out += "\n";
            // Its heading stands in the page, if it is the only one.
            let (_, kind) = block.title.split_once(": ").unwrap_or_default();
            out += &line(&block.header(kind));
            out += &format!("|---|{}\n", "--:|".repeat(block.columns.len()));
            out.extend(block.rows.iter().map(|r| line(&block.cells(r))));
        }
        out
    }
}

impl Block<'_> {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        let mut group = "";
        for row in &self.rows {
            if row.group != group && self.title.is_empty() {
                let mut title = vec![row.group.to_uppercase()];
                title.resize(self.columns.len() + 1, String::new());
                lines.push(title);
            }
            group = &row.group;
            lines.push(self.cells(row));
        }
        text::plain_table(self.header(""), lines)
    }
}

/// `5 runs`, or where some had fewer `1 to 5 runs`.
fn runs(blocks: &[Block]) -> String {
    let rows = blocks.iter().flat_map(|b| &b.rows);
    let all = rows.flat_map(|r| r.values.values().map(|v| v.n));
    match (all.clone().min(), all.max()) {
        (Some(1), Some(1)) => "1 run".into(),
        (Some(least), Some(most)) if least < most => format!("{least} to {most} runs"),
        (_, most) => format!("{} runs", most.unwrap_or(0)),
    }
}

/// A line of a table in Markdown.
pub fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// `1.04×`, `11×`, `0.004×`.
pub fn ratio(n: f64) -> String {
    match n {
        n if n >= 9.95 => format!("{n:.0}×"),
        n if n >= 1.995 => format!("{n:.1}×"),
        n if n >= 0.0995 => format!("{n:.2}×"),
        n => format!("{n:.3}×"),
    }
}

/// A value with its unit, or a ratio where there is none.
pub fn measured(value: f64, unit: Option<Unit>) -> String {
    unit.map_or_else(|| ratio(value), |u| u.show(value))
}

//! A page of documentation whose tables are those of kept results.
//!
//! A table stands between `<!-- duet bench: SETS -->` and `<!-- end -->`, each on a line of its own; SETS are names
//! as in `--set`, with commas between, or `aims`.

use crate::aims;
use crate::bench::Results;
use crate::sets::Set;

const BEGIN: &str = "<!-- duet bench: ";
const END: &str = "<!-- end -->";

/// The page with its tables made anew.
///
/// # Errors
/// It has no place for a table, or one that is not ended or names no set; a text that says which.
pub fn fill(page: &str, results: &Results) -> std::result::Result<String, String> {
    let mut out = String::new();
    let mut lines = page.lines();
    let mut tables = 0;
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        let Some(names) = line.strip_prefix(BEGIN) else {
            continue;
        };
        let names = names.strip_suffix(" -->");
        let names = names.ok_or_else(|| format!("{line:?} is not closed by -->"))?;
        out += &table(names, results)?;
        if !lines.by_ref().any(|l| l == END) {
            return Err(format!("{line:?} is not followed by {END:?}"));
        }
        out.push_str(END);
        out.push('\n');
        tables += 1;
    }
    match tables {
        0 => Err(format!("there is no line {BEGIN:?}…")),
        _ => Ok(out),
    }
}

fn table(names: &str, results: &Results) -> std::result::Result<String, String> {
    if names.trim() == "aims" {
        return Ok(aims::markdown(results));
    }
    let mut sets = Vec::new();
    for name in names.split(',') {
        sets.extend(Set::parse(name.trim())?);
    }
    Ok(results.markdown(&sets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Column, Row, SCHEMA};
    use crate::figures::Unit;
    use crate::report::Host;
    use crate::stats::Summary;

    fn results() -> Results {
        let row = |group: &str, name: &str, unit, values: &[(&str, f64)]| Row {
            group: group.into(),
            name: name.into(),
            title: name.to_uppercase(),
            unit,
            values: values
                .iter()
                .map(|(m, v)| ((*m).to_owned(), Summary::of([*v]).unwrap()))
                .collect(),
        };
        let column = |mode: &str| Column {
            mode: mode.into(),
            missing: None,
        };
        Results {
            schema: SCHEMA.into(),
            duet: "1".into(),
            host: Host {
                kernel: "6".into(),
                processor: "P".into(),
                processors: 2,
            },
            taken: 0,
            runs: 5,
            seconds: 0.05,
            interrupted: false,
            columns: ["native", "layer:seccomp", "strace", "trace"]
                .map(column)
                .into(),
            rows: vec![
                row(
                    "files",
                    "stat",
                    Unit::Seconds,
                    &[("native", 1e-6), ("layer:seccomp", 5e-6)],
                ),
                row(
                    "traces",
                    "trace_ls",
                    Unit::Seconds,
                    &[("native", 0.1), ("strace", 0.4), ("trace", 0.2)],
                ),
                row(
                    "servers",
                    "redis_get",
                    Unit::PerSecond,
                    &[("native", 80_000.0), ("layer:seccomp", 40_000.0)],
                ),
            ],
            failures: Vec::new(),
        }
    }

    #[test]
    fn tables_are_made_anew_and_the_rest_stays() {
        let page = "# Title\n\n<!-- duet bench: files -->\nold\n<!-- end -->\nwords\n\
                    <!-- duet bench: traces, servers -->\n<!-- end -->\n";
        let filled = fill(page, &results()).unwrap();
        let expected = "# Title\n\n<!-- duet bench: files -->\n\
            P, 2 processors, Linux 6; medians of 1 run.\n\n\
            |  | native | layer:seccomp |\n|---|--:|--:|\n| STAT | 1.00 µs | 5.00 µs (5.0×) |\n\
            <!-- end -->\nwords\n<!-- duet bench: traces, servers -->\n\
            P, 2 processors, Linux 6; medians of 1 run.\n\n\
            |  | native | strace | trace |\n|---|--:|--:|--:|\n| TRACE_LS | 100 ms | 400 ms | 200 ms (0.50×) |\n\n\
            |  | native | layer:seccomp |\n|---|--:|--:|\n| REDIS_GET | 80,000/s | 40,000/s (0.50×) |\n<!-- end -->\n";
        assert_eq!(filled, expected);
        assert_eq!(fill(&filled, &results()).unwrap(), filled);
    }

    #[test]
    fn a_page_that_is_not_one_is_refused() {
        let of = |page: &str| fill(page, &results()).unwrap_err();
        assert!(of("text\n").contains("no line"));
        assert!(of("<!-- duet bench: files -->\n").contains("not followed"));
        assert!(of("<!-- duet bench: files\n").contains("not closed"));
        assert!(of("<!-- duet bench: fish -->\n<!-- end -->\n").contains("fish"));
    }
}

//! Files that name each test of a borrowed suite that does otherwise in a layer than natively, with its
//! reason (`tests/expectations`).
//!
//! A line is one of these; `#` begins a comment.
//!
//! ```text
//! differs NATIVE LAYER TEST: reason      the verdicts that both runs must give
//! unsteady TEST: reason                  either run may give any verdict
//! without TEST: reason                   is run by neither; part of a name will do
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::build::workspace_dir;

/// The verdict of each test, by its name.
pub type Verdicts = BTreeMap<String, String>;

/// A line of the file.
#[derive(Debug)]
struct Expectation {
    test: String,
    kind: Kind,
    reason: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Differs { native: String, layer: String },
    Unsteady,
    Without,
}

/// What is known of a suite.
#[derive(Debug)]
pub struct Expectations(Vec<Expectation>);

impl Expectations {
    /// Reads `tests/expectations/SUITE.txt`.
    pub fn of(suite: &str) -> Expectations {
        let file = workspace_dir().join(format!("tests/expectations/{suite}.txt"));
        let text = std::fs::read_to_string(&file);
        Expectations::parse(&text.unwrap_or_else(|e| panic!("{}: {e}", file.display())))
    }

    /// Reads the text of a file.
    ///
    /// # Panics
    /// On a line that is none of the above, gives no reason, or names a test again.
    pub fn parse(text: &str) -> Expectations {
        let mut all: Vec<Expectation> = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (words, reason) = line.split_once(": ").unwrap_or((line, ""));
            assert!(!reason.trim().is_empty(), "no reason: {line}");
            let (test, kind) = match words.split_whitespace().collect::<Vec<_>>()[..] {
                ["differs", native, layer, test] => {
                    assert_ne!(native, layer, "no difference: {line}");
                    let (native, layer) = (native.to_owned(), layer.to_owned());
                    (test, Kind::Differs { native, layer })
                }
                ["unsteady", test] => (test, Kind::Unsteady),
                ["without", test] => (test, Kind::Without),
                _ => panic!("no expectation: {line}"),
            };
            assert!(all.iter().all(|e| e.test != test), "named twice: {test}");
            all.push(Expectation {
                test: test.to_owned(),
                kind,
                reason: reason.trim().to_owned(),
            });
        }
        Expectations(all)
    }

    /// Why tests differ in every run, a reason for each.
    pub fn differences(&self) -> Vec<&str> {
        let differs = |e: &&Expectation| matches!(e.kind, Kind::Differs { .. });
        self.0
            .iter()
            .filter(differs)
            .map(|e| e.reason.as_str())
            .collect()
    }

    /// The tests that neither run runs.
    pub fn without(&self) -> impl Iterator<Item = &str> {
        let without = |e: &&Expectation| e.kind == Kind::Without;
        self.0.iter().filter(without).map(|e| e.test.as_str())
    }

    /// What is wrong with two runs of the same tests, a line each: differences that the file does not
    /// name, and expectations that the runs do not bear out. Tests that neither ran are asked about
    /// if they were `chosen`.
    pub fn judge(
        &self,
        native: &Verdicts,
        layer: &Verdicts,
        chosen: impl Fn(&str) -> bool,
    ) -> Vec<(String, String)> {
        let none = "missing".to_owned();
        let of = |verdicts: &Verdicts, test: &str| verdicts.get(test).unwrap_or(&none).clone();
        let mut wrong = Vec::new();
        let tests: BTreeSet<&String> = native.keys().chain(layer.keys()).collect();
        for test in tests {
            let (a, b) = (of(native, test), of(layer, test));
            let known = self.0.iter().find(|e| e.test == *test).map(|e| &e.kind);
            let fine = match known {
                Some(Kind::Differs { native, layer }) => (native, layer) == (&a, &b),
                Some(Kind::Unsteady) => true,
                Some(Kind::Without) => false,
                None => a == b,
            };
            if !fine {
                wrong.push((
                    test.clone(),
                    format!("native {a}, layer {b}, known {known:?}"),
                ));
            }
        }
        for Expectation { test, kind, .. } in &self.0 {
            let ran = native.contains_key(test) || layer.contains_key(test);
            if *kind != Kind::Without && !ran && chosen(test) {
                wrong.push((test.clone(), "there is no such test".to_owned()));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(list: &[(&str, &str)]) -> Verdicts {
        let owned = |(test, verdict): &(&str, &str)| (test.to_string(), verdict.to_string());
        list.iter().map(owned).collect()
    }

    #[test]
    fn names_what_differs_and_what_no_longer_does() {
        let known =
            Expectations::parse("# why\ndiffers ok failed m.a: x\nunsteady m.b: y\nwithout z: z\n");
        assert_eq!(known.without().collect::<Vec<_>>(), ["z"]);
        let native = verdicts(&[("m.a", "ok"), ("m.b", "ok"), ("m.c", "ok")]);
        let judge = |layer: &[(&str, &str)]| -> Vec<String> {
            let wrong = known.judge(&native, &verdicts(layer), |t| t.starts_with("m."));
            wrong.into_iter().map(|(test, _)| test).collect()
        };
        assert!(judge(&[("m.a", "failed"), ("m.b", "error"), ("m.c", "ok")]).is_empty());
        assert_eq!(
            judge(&[("m.a", "ok"), ("m.b", "ok"), ("m.c", "ok")]),
            ["m.a"]
        );
        assert_eq!(judge(&[("m.a", "failed"), ("m.b", "ok")]), ["m.c"]);
        assert_eq!(
            known
                .judge(&verdicts(&[]), &verdicts(&[]), |t| t == "m.a")
                .len(),
            1
        );
    }

    #[test]
    #[should_panic(expected = "no reason")]
    fn asks_for_reasons() {
        Expectations::parse("unsteady m.a");
    }
}

//! Where in Duet's own source a call is treated.

use super::{Row, Verdict, filter};
use crate::{dispatch, handlers};

/// A function of Duet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The source file, from the top of the workspace.
    pub file: &'static str,
    /// The function's name in it.
    pub function: &'static str,
}

impl Row {
    /// The function that decides or does what becomes of it, if this does.
    pub fn place(&self, verdict: &Verdict) -> Option<Place> {
        match verdict {
            Verdict::Native => Some(filter::PLACE),
            Verdict::Emulated => handlers::place_of(self.name),
            Verdict::Refused(_) => Some(dispatch::REFUSES),
        }
    }

    /// The functions that decide or do what becomes of it: of a native call the one that writes the
    /// filter that lets it through, of an emulated one its handler, of a refused one what refuses.
    pub fn places(&self) -> Vec<Place> {
        let mut all = Vec::new();
        self.each_outcome(&mut |verdict, _| {
            all.extend(self.place(&verdict).filter(|p| !all.contains(p)));
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::table::rows;

    #[test]
    fn the_places_exist() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for row in rows() {
            let places = row.places();
            assert!(!places.is_empty(), "{}", row.name);
            for Place { file, function } in places {
                let text = std::fs::read_to_string(top.join(file)).expect(file);
                assert!(
                    text.contains(&format!("fn {function}(")),
                    "{}: {file} has no {function}",
                    row.name
                );
            }
        }
    }
}

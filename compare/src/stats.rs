//! Medians and spread.

use serde::{Deserialize, Serialize};

/// Many values of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub n: usize,
    /// The middle one.
    pub median: f64,
    /// A quarter of them are less.
    pub q1: f64,
    /// A quarter of them are more.
    pub q3: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    /// Of these values; `None` without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Summary> {
        let mut all: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        all.sort_by(f64::total_cmp);
        let (&min, &max) = (all.first()?, all.last()?);
        Some(Summary {
            n: all.len(),
            median: quantile(&all, 0.5),
            q1: quantile(&all, 0.25),
            q3: quantile(&all, 0.75),
            min,
            max,
        })
    }

    /// Half of the distance between the quartiles: what is shown behind `±`.
    pub fn spread(&self) -> f64 {
        (self.q3 - self.q1) / 2.0
    }
}

/// Between neighbours in proportion (Hyndman and Fan's type 7). `sorted` has at least one value.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len().saturating_sub(1)) as f64;
    let below = sorted.get(at.floor() as usize).copied().unwrap_or(f64::NAN);
    let above = sorted.get(at.ceil() as usize).copied().unwrap_or(below);
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        let s = Summary::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            (s.n, s.min, s.q1, s.median, s.q3, s.max),
            (4, 1.0, 1.75, 2.5, 3.25, 4.0)
        );
        assert_eq!(s.spread(), 0.75);
        let one = Summary::of([7.0]).unwrap();
        assert_eq!((one.median, one.spread()), (7.0, 0.0));
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([f64::NAN]), None);
    }
}

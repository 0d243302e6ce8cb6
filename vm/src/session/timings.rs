//! How long each phase of a run took.

use std::time::{Duration, Instant};

/// Phases, each with the time since the command began.
pub struct Timings {
    began: Instant,
    marks: Vec<(&'static str, Duration)>,
}

impl Timings {
    /// Nothing has happened since `began`.
    pub fn new(began: Instant) -> Timings {
        Timings {
            began,
            marks: Vec::new(),
        }
    }

    /// A phase has ended now.
    pub fn mark(&mut self, phase: &'static str) {
        self.marks.push((phase, self.began.elapsed()));
    }

    /// Ends of phases in order, each with the time since the command began.
    pub fn marks(&self) -> &[(&'static str, Duration)] {
        &self.marks
    }
}

//! The path walk.
/// A place in the tree.
#[derive(Clone)]
pub struct Location;

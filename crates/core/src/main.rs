//! dyad-core
fn main() {}

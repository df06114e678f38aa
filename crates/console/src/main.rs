//! dyad-console
fn main() {}

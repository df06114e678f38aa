//! dyad-cli
fn main() {}

//! dyad-node
fn main() {}

//! dyad-init
fn main() {}

//! dyad-witness
fn main() {}

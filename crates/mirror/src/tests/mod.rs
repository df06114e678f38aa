//! Pairs of mirrors over fake stores.

mod fake;
mod pair;
mod props;
mod scenarios;

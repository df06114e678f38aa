//! Pairs of mirrors over fake stores.

mod fake;
mod flight;
mod pair;
mod props;
mod scenarios;

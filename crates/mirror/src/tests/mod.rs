//! Pairs of mirrors over fake stores.

mod clocks;
mod closing;
mod fake;
mod flight;
mod full;
mod lost;
mod pair;
mod progress;
mod props;
mod queue;
mod scenarios;
mod sessions;
mod syncs;

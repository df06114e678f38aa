//! What happened, for people: a bounded list in memory, each entry also in the log.

use crate::clock;
use dyad_control::{TimelineEvent, TimelineKind};
use dyad_types::{BootTime, NodeId};
use std::collections::VecDeque;

/// Most events kept; the oldest one goes first.
const KEEP: usize = 2_000;

/// The newest [`KEEP`] events of this node since its core started.
#[derive(Debug)]
pub struct Timeline {
    events: VecDeque<TimelineEvent>,
    next: u64,
    me: Option<NodeId>,
}

impl Timeline {
    /// An empty one.
    pub fn new(me: Option<NodeId>) -> Self {
        Self { events: VecDeque::new(), next: 1, me }
    }

    /// Adds an entry that happened now.
    pub fn note(&mut self, kind: TimelineKind, text: impl Into<String>) {
        self.note_at(clock::now(), kind, text);
    }

    /// Adds an entry that happened at `at`.
    pub fn note_at(&mut self, at: BootTime, kind: TimelineKind, text: impl Into<String>) {
        let text = text.into();
        tracing::info!(kind = kind.word(), "{text}");
        if self.events.len() == KEEP {
            self.events.pop_front();
        }
        self.events.push_back(TimelineEvent {
            number: self.next,
            boot_ms: at.0 / 1_000_000,
            wall_ms: clock::wall_ms(),
            node: self.me,
            kind,
            text,
        });
        self.next += 1;
    }

    /// Entries from number `since` on.
    pub fn since(&self, since: u64) -> Vec<TimelineEvent> {
        self.events.iter().filter(|e| e.number >= since).cloned().collect()
    }
}

//! The actions of placement that are not carried out yet.
//!
//! **Invariant.** They are carried out one after the other in the order in which they arose. An action can give placement a
//! further event, through the mirror: the actions of that event wait in this queue.

use dyad_placement::Action;
use std::collections::VecDeque;

/// A queue with one consumer.
#[derive(Debug, Default)]
pub(in crate::state) struct PlacementActions {
    queued: VecDeque<Action>,
    /// Actions are being carried out.
    consuming: bool,
}

impl PlacementActions {
    /// Queues the actions of one event. `true` = the caller must now carry out the actions of [`Self::next`]; `false` = a
    /// caller already does, and these follow.
    pub(in crate::state) fn begin(&mut self, actions: Vec<Action>) -> bool {
        self.queued.extend(actions);
        !std::mem::replace(&mut self.consuming, true)
    }

    /// The next action. `None` = none is queued; the next [`Self::begin`] returns `true`.
    pub(in crate::state) fn next(&mut self) -> Option<Action> {
        let action = self.queued.pop_front();
        self.consuming = action.is_some();
        action
    }
}

//! Child graphs follow their parent.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{children, view::GraphView},
    Session,
};
use crate::engine::{Action, Attempt};

impl Session {
    /// Has child graphs follow their parent: they are suspended with it, and called off when their attempt is over.
    pub(super) fn steer(&mut self, changed: Vec<(Attempt, Arc<GraphView>)>) {
        let suspended = self.run.is_suspended();
        let mut look: BTreeSet<Attempt> = changed.iter().map(|(attempt, _)| *attempt).collect();
        self.children.extend(changed);
        if self.told_suspended != suspended {
            self.told_suspended = suspended;
            look.extend(self.children.keys());
        }
        for attempt in look {
            let Some(child) = self.children.get(&attempt).map(Arc::clone) else { continue };
            if !children::goes_on(&child) {
                self.children.remove(&attempt);
            } else if self.is_over(attempt) {
                self.children.remove(&attempt);
                // its end must not be mistaken for the attempt's, which is not stored yet
                self.held.push((self.run.sequence(), vec![Action::Stop { attempt }]));
            } else if let Some(wanted) = children::wanted(&child, suspended)
                && ![attempt, attempt.whole()].iter().any(|stopped| self.stopping.contains(stopped))
            {
                let hold = self.hold(attempt);
                self.hands.spawn(hold.steer(child.uid().to_owned(), wanted));
            }
        }
    }
}

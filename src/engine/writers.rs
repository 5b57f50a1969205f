//! Who wrote what of a graph, as far as it is known: its history names them.

use super::{reason, state::Run};
use crate::api::HistoryEntry;

/// The longest name that a status takes, in characters.
const LONGEST: usize = 253;

/// Who wrote the spec of a graph: names of users, as the API server knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Who created it.
    pub created: Option<String>,
    /// Who changed last what is run.
    pub designed: Option<String>,
    /// Who changed last how it is run: `desiredState` or `rerun`.
    pub operated: Option<String>,
}

impl Writers {
    /// Whose doing an event of the history is; nobody's, of what comes about by itself.
    pub fn of(&self, event: &str) -> Option<&str> {
        let writer = match event {
            reason::ACCEPTED => self.created.as_deref(),
            reason::EDITED => self.designed.as_deref(),
            // a graph may be created suspended
            reason::RERUN | reason::SUSPENDED | reason::RESUMED | reason::CANCELLED => {
                self.operated.as_deref().or(self.created.as_deref())
            }
            _ => None,
        };
        writer.map(bounded)
    }
}

/// A name, as far as it is kept: where admission does not run, anybody may have written anything.
fn bounded(name: &str) -> &str {
    name.char_indices().nth(LONGEST).map_or(name, |(end, _)| &name[..end])
}

impl Run {
    /// Names those whose doing is recorded from now on; of a run that has just begun, also who began it.
    pub fn set_writers(&mut self, writers: Writers) {
        self.writers = writers;
        if let Some(HistoryEntry { event, by: by @ None, .. }) = self.history.back_mut()
            && event == reason::ACCEPTED
        {
            *by = self.writers.of(event).map(str::to_owned);
        }
    }
}

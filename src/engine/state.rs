//! The state of one run of a graph.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    event::{Event, Step},
    graph::{Graph, Identity, Settings},
};
use crate::api::TaskGraphStatus;

/// One run of a graph.
#[derive(Debug)]
pub struct Run {}

impl Run {
    /// A run that begins at `now`.
    pub fn new(_graph: Arc<Graph>, _settings: Settings, _identity: Identity, _now: Timestamp) -> Self {
        unimplemented!()
    }

    /// The run that a stored status tells of. Events about the Jobs and Pods that exist must be
    /// given to the first step.
    pub fn restore(_graph: Arc<Graph>, _settings: Settings, _identity: Identity, _status: &TaskGraphStatus) -> Self {
        unimplemented!()
    }

    /// Takes what was observed and the time; answers what to do.
    pub fn step(&mut self, _events: impl IntoIterator<Item = Event>, _now: Timestamp) -> Step {
        unimplemented!()
    }

    /// Takes changed settings; they count from the next step on.
    pub fn set_settings(&mut self, _settings: Settings) {
        unimplemented!()
    }

    /// Number of transitions recorded so far.
    pub fn sequence(&self) -> u64 {
        unimplemented!()
    }

    /// Tells that the status up to `sequence` is stored.
    pub fn stored(&mut self, _sequence: u64) {
        unimplemented!()
    }

    /// Writes what the run knows into a status: `phase`, `message`, `progress`, `counts`, times, `ending`, `sequence`,
    /// `tasks`, `history`, and the conditions `Complete`, `Failed`, `Suspended`. Other fields stay as they are.
    pub fn write(&self, _status: &mut TaskGraphStatus, _now: Timestamp) {
        unimplemented!()
    }
}

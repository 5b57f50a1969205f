//! What a session tells people, once it is stored.

use super::{Session, Surroundings};
use crate::{
    api::{TaskGraphStatus, TaskPhase},
    controller::{
        aside,
        events::{Recorder, Telling},
        trace::{self, Ended},
        view::GraphView,
    },
    engine::{TaskId, reason},
    runtime::traces::Trace,
};

impl Session {
    /// Takes note of what a transition has to tell.
    pub(super) fn note_to_tell(&mut self, task: TaskId, to: TaskPhase) {
        let (sequence, status) = (self.run.sequence(), self.run.task(task));
        // one that was launched before a restart may have ended when it is first seen
        if !self.started && status.attempts > 0 {
            self.started = true;
            self.untold.push((sequence, Telling::started()));
        }
        if to == TaskPhase::Failed {
            self.untold.push((sequence, Telling::task_failed(self.graph.task(task).role(), status)));
        }
    }

    /// The trace that the graph belongs to, if it is traced.
    pub(super) fn trace_of(&self, view: &GraphView) -> Option<Trace> {
        self.hands.tracer.trace(&self.identity.uid, view.traceparent())
    }

    /// Sends spans of what has ended by `status`, which is stored, and had not by the one stored before.
    pub fn trace_stored(&self, status: &TaskGraphStatus, view: &GraphView) {
        if let Some(trace) = self.trace_of(view).filter(Trace::is_sampled) {
            self.hands.tracer.send(trace::spans(&trace, &self.identity, &self.ended_before, status));
        }
    }

    /// Tells what is stored by now. The history is that of the last write: no other was begun since.
    pub(super) fn tell_stored(&mut self, around: &Surroundings<'_>) {
        self.trace_stored(&self.report.status, around.view);
        if self.hands.tracer.is_on() {
            self.ended_before = Ended::by(&self.report.status);
        }
        let (status, until) = (&self.report.status, self.told_until);
        around.courier.stored(around.view, status);
        for entry in status.history.iter().filter(|entry| until.is_none_or(|until| entry.time > until)) {
            if entry.event == reason::FINISHED {
                aside::count_finished(&self.hands.metrics, status);
            }
            if let Some(telling) = Telling::of_history(entry, status) {
                around.recorder.tell(around.view, &telling);
            }
        }
        self.told_until = status.history.last().map(|entry| entry.time).or(until);
        let stored = self.report.stored;
        for (_, telling) in self.untold.extract_if(.., |(sequence, _)| *sequence <= stored) {
            around.recorder.tell(around.view, &telling);
        }
    }

    /// Tells once more what happened lately: whoever stored it may have been ended before he could.
    pub fn tell_again(&mut self) {
        let status = &self.report.status;
        self.untold.extend(Telling::lately(status).into_iter().map(|telling| (0, telling)));
        self.told_until = status.history.last().map(|entry| entry.time);
    }

    /// Tells what there is to tell: all of it is stored.
    pub fn tell_all(&self, recorder: &Recorder, view: &GraphView) {
        self.untold.iter().for_each(|(_, telling)| recorder.tell(view, telling));
    }
}

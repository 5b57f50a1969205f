//! The graphs that are being run: a slot for each, with a mailbox for what background work has to tell.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

use super::{cluster::CallError, session::Session, view::GraphView};
use crate::{
    engine::{Attempt, Event},
    jobs::JobView,
};

/// What background work tells a session.
#[derive(Debug)]
pub enum Note {
    /// Something for the engine.
    Event(Event),
    /// A status write ended: the run's sequence that it carried, and the new resource version.
    Stored(u64, Result<String, StoreError>),
    /// A look at a Job that seems to be missing, or at why one has no pod, ended without a finding.
    Looked(Attempt),
    /// The attempt's Job would try for ever: delete it once the attempt's failure is stored.
    Discard(Attempt, Arc<JobView>),
}

/// Why a status was not stored.
#[derive(Debug)]
pub enum StoreError {
    /// Somebody else has stored a newer status: what this session believes is out of date.
    Overtaken,
    /// The graph is not there any more.
    Deleted,
    /// Anything else; try again.
    Failed(CallError),
}

/// One graph's place.
#[derive(Debug, Default)]
pub struct Slot {
    notes: Mutex<Vec<Note>>,
    /// The session; taken for one reconcile at a time.
    pub session: tokio::sync::Mutex<Option<Session>>,
    /// Failed reconciles in a row.
    pub failures: Mutex<u32>,
}

impl Slot {
    /// Takes what came in.
    pub fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock())
    }
}

/// All slots, by UID of the graph, and the way to wake the queue.
#[derive(Debug)]
pub struct Registry {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    wake: futures::channel::mpsc::UnboundedSender<ObjectRef<GraphView>>,
}

/// How background work reaches its session.
///
/// It does not keep the slot alive: the session in there has a mailbox itself, and would never end. What is left for a
/// session that has ended is dropped, and never read by the next one of the same graph.
#[derive(Clone, Debug)]
pub struct Mailbox {
    slot: Weak<Slot>,
    reference: ObjectRef<GraphView>,
    wake: futures::channel::mpsc::UnboundedSender<ObjectRef<GraphView>>,
}

impl Mailbox {
    /// Leaves a note and wakes the graph.
    pub fn post(&self, note: Note) {
        let Some(slot) = self.slot.upgrade() else { return };
        slot.notes.lock().push(note);
        // the receiver is gone only when the program ends
        let _ = self.wake.unbounded_send(self.reference.clone());
    }

    /// Leaves an event for the engine.
    pub fn event(&self, event: Event) {
        self.post(Note::Event(event));
    }
}

impl Registry {
    /// An empty registry; graphs to be looked at are sent to `wake`.
    pub fn new(wake: futures::channel::mpsc::UnboundedSender<ObjectRef<GraphView>>) -> Self {
        Self { slots: Mutex::default(), wake }
    }

    /// The slot of a graph.
    pub fn slot(&self, uid: &str) -> Arc<Slot> {
        Arc::clone(self.slots.lock().entry(uid.to_owned()).or_default())
    }

    /// The mailbox of the session of a graph in `slot`, which may have been forgotten since the look at it began.
    pub fn mailbox(&self, view: &GraphView, slot: &Arc<Slot>) -> Mailbox {
        Mailbox { slot: Arc::downgrade(slot), reference: view.reference(), wake: self.wake.clone() }
    }

    /// Asks for a look at a graph.
    pub fn wake(&self, reference: ObjectRef<GraphView>) {
        let _ = self.wake.unbounded_send(reference);
    }

    /// Forgets a graph.
    pub fn remove(&self, uid: &str) {
        let removed = self.slots.lock().remove(uid);
        // a session ends here: not under the lock
        drop(removed);
    }

    /// Begins a graph anew: its session ends, and what is still left for it is never read. Failures go on being counted.
    /// One that was forgotten stays so.
    pub fn renew(&self, uid: &str) {
        let mut slots = self.slots.lock();
        let removed = slots.get_mut(uid).map(|slot| {
            let failures = Mutex::new(*slot.failures.lock());
            std::mem::replace(slot, Arc::new(Slot { failures, ..Slot::default() }))
        });
        drop(slots);
        drop(removed);
    }

    /// Counts a failed look at a graph; how many there were in a row before. Of one that was forgotten nothing is kept.
    pub fn failed(&self, uid: &str) -> u32 {
        let slots = self.slots.lock();
        let Some(slot) = slots.get(uid) else { return 0 };
        let mut failures = slot.failures.lock();
        let before = *failures;
        *failures = before.saturating_add(1);
        before
    }

    /// Forgets all graphs: this process leads no more, so what it believes grows old.
    pub fn clear(&self) {
        let removed = std::mem::take(&mut *self.slots.lock());
        drop(removed);
    }

    /// Forgets all graphs but these.
    pub fn retain(&self, known: impl Fn(&str) -> bool) {
        self.slots.lock().retain(|uid, _| known(uid));
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;

    use super::*;
    use crate::engine::TaskId;

    #[test]
    fn a_mailbox_keeps_no_forgotten_graph_alive() {
        let (wake, mut woken) = mpsc::unbounded();
        let registry = Registry::new(wake);
        let view = GraphView::default();
        let slot = registry.slot(view.uid());
        let mailbox = registry.mailbox(&view, &slot);
        mailbox.post(Note::Looked(Attempt::new(TaskId(0), 1)));
        assert_eq!(slot.take_notes().len(), 1);
        assert!(woken.try_recv().is_ok());

        let forgotten = Arc::downgrade(&slot);
        *slot.failures.lock() = 3;
        drop(slot);
        registry.renew(view.uid());
        assert_eq!(
            *registry.slot(view.uid()).failures.lock(),
            3,
            "else what always panics would be tried ten times a second"
        );
        assert!(forgotten.upgrade().is_none());
        mailbox.post(Note::Looked(Attempt::new(TaskId(0), 1)));
        assert!(woken.try_recv().is_err(), "nobody reads what is left for it");
        assert!(registry.slot(view.uid()).take_notes().is_empty());
        registry.remove(view.uid());
        assert!(registry.slots.lock().is_empty());
        // a look that was under way when its graph was deleted
        registry.renew(view.uid());
        assert_eq!(registry.failed(view.uid()), 0);
        assert!(registry.slots.lock().is_empty(), "nothing is kept of a graph that is gone");
        registry.slot(view.uid());
        assert_eq!([registry.failed(view.uid()), registry.failed(view.uid())], [0, 1]);
    }
}

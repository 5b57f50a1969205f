//! The graphs of which something is to be told, and what was. It holds no events: of each graph that runs the last
//! stored status and marks of what was told, of one that finished no more than its name.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{event::GraphName, facts::Told};
use crate::{
    api::{CloudEventsStatus, TaskGraphStatus},
    runtime::metrics::{DropLabel, Metrics},
};

/// How many states of a graph are kept that an edit or a rerun took over before they were told.
const SUPERSEDED: usize = 3;
/// Of how many graphs that were deleted something may still be told.
const DELETED: usize = 1000;

/// All of them.
#[derive(Debug)]
pub struct Desk {
    /// Counts what becomes of events.
    pub metrics: Metrics,
    places: Mutex<HashMap<String, Arc<Place>>>,
    /// Graphs with something to tell; each stands there once, so it is no longer than there are graphs.
    queue: UnboundedSender<Arc<Place>>,
    /// Deleted graphs in the queue.
    deleted: AtomicUsize,
}

/// One graph's place.
#[derive(Debug)]
pub struct Place {
    /// Which graph.
    pub graph: GraphName,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each tells of something else, and all go together")]
struct State {
    /// What was told; `None`: the stored status says it.
    told: Option<Told>,
    /// What is to be told, oldest first.
    statuses: VecDeque<Pending>,
    /// When it had something to tell that is not delivered yet.
    since: Option<Instant>,
    queued: bool,
    busy: bool,
    /// Nobody looks after it here any more.
    ended: bool,
    /// The graph was deleted.
    deleted: bool,
}

#[derive(Debug)]
struct Pending {
    status: Arc<TaskGraphStatus>,
    superseded: bool,
}

/// How a look at a graph ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not all is told; later.
    Later,
    /// The status was told whole.
    Told,
    /// It was, the graph has finished, and its stored status says so.
    Settled,
}

impl Desk {
    /// An empty desk, and where graphs come out that have something to tell.
    pub fn new(metrics: Metrics) -> (Self, UnboundedReceiver<Arc<Place>>) {
        let (queue, queued) = unbounded_channel();
        let desk = Self { metrics, places: Mutex::default(), queue, deleted: AtomicUsize::new(0) };
        (desk, queued)
    }

    fn place(&self, uid: &str) -> Option<Arc<Place>> {
        self.places.lock().get(uid).cloned()
    }

    fn place_or_new(&self, uid: &str, name: impl FnOnce() -> GraphName) -> Arc<Place> {
        let mut places = self.places.lock();
        let fresh = || Arc::new(Place { graph: name(), state: Mutex::default() });
        Arc::clone(places.entry(uid.to_owned()).or_insert_with(fresh))
    }

    /// See [`super::Courier::begin`].
    pub fn begin(&self, uid: &str, name: impl FnOnce() -> GraphName, stored: &TaskGraphStatus) {
        let place = self.place_or_new(uid, name);
        let mut state = place.state.lock();
        if state.told.is_none() {
            state.told = Some(Told::restore(stored));
        }
    }

    /// See [`super::Courier::owed`].
    pub fn owed(&self, uid: &str, status: &TaskGraphStatus) -> CloudEventsStatus {
        let place = self.place(uid);
        let owed = place.and_then(|place| place.state.lock().told.as_ref().map(|told| told.owed(status)));
        // one that was forgotten since: what the status said before may be too little
        owed.unwrap_or_else(|| Told::default().owed(status))
    }

    /// See [`super::Courier::stored`] and [`super::Courier::superseded`].
    pub fn stored(&self, uid: &str, status: &TaskGraphStatus, superseded: bool) {
        let Some(place) = self.place(uid) else { return };
        let mut state = place.state.lock();
        state.statuses.pop_back_if(|last| !last.superseded);
        let owes = status.cloud_events.as_ref().is_none_or(|owed| owed.owes(status.sequence));
        // of one that finished it is still to be stored that all is told
        if !owes && state.statuses.is_empty() && status.completion_time.is_none() {
            return;
        }
        while state.statuses.len() >= SUPERSEDED {
            state.statuses.pop_front();
        }
        state.statuses.push_back(Pending { status: Arc::new(status.clone()), superseded });
        self.enqueue(&place, &mut state);
    }

    /// See [`super::Courier::finished`].
    pub fn take_up(&self, uid: &str, name: impl FnOnce() -> GraphName) {
        let place = self.place_or_new(uid, name);
        let mut state = place.state.lock();
        if state.since.is_none() {
            self.enqueue(&place, &mut state);
        }
    }

    fn enqueue(&self, place: &Arc<Place>, state: &mut State) {
        state.since.get_or_insert_with(Instant::now);
        if !state.queued && !state.busy {
            state.queued = true;
            // the receiver is gone only when the program ends
            let _ = self.queue.send(Arc::clone(place));
        }
    }

    /// See [`super::Courier::deleted`].
    pub fn deleted(&self, uid: &str) {
        if let Some(place) = self.places.lock().remove(uid) {
            self.bury(&place);
        }
    }

    /// See [`super::Courier::retain`].
    pub fn retain(&self, known: impl Fn(&str) -> bool) {
        let gone: Vec<_> = self.places.lock().extract_if(|uid, _| !known(uid)).map(|(_, place)| place).collect();
        for place in &gone {
            self.bury(place);
        }
    }

    fn bury(&self, place: &Place) {
        let mut state = place.state.lock();
        if state.since.is_none() {
            state.ended = true;
        } else if state.statuses.is_empty() || self.deleted.load(Ordering::Relaxed) >= DELETED {
            state.ended = true;
            self.metrics.cloud_events_dropped.get_or_create(&DropLabel::DELETED).inc();
        } else {
            state.deleted = true;
            self.deleted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// See [`super::Courier::clear`].
    pub fn clear(&self) {
        let places = std::mem::take(&mut *self.places.lock());
        for place in places.into_values() {
            place.state.lock().ended = true;
        }
    }

    /// How many graphs have something to tell, and since when the first of them has.
    pub fn backlog(&self) -> (usize, Option<Instant>) {
        let places = self.places.lock();
        let since: Vec<_> = places.values().filter_map(|place| place.state.lock().since).collect();
        (since.len() + self.deleted.load(Ordering::Relaxed), since.into_iter().min())
    }

    /// Takes a place out of the queue, to tell what is to be told.
    pub fn take(place: &Place) {
        let mut state = place.state.lock();
        (state.queued, state.busy) = (false, true);
    }

    /// Puts it back.
    pub fn put_back(&self, place: &Arc<Place>, outcome: Outcome) {
        let mut places = self.places.lock();
        let mut state = place.state.lock();
        state.busy = false;
        if state.ended {
            state.statuses.clear();
            return;
        }
        match outcome {
            Outcome::Later => return self.enqueue(place, &mut state),
            // more came meanwhile, or the last one came too late to be told with the others
            _ if !state.statuses.is_empty() => {
                state.since = Some(Instant::now());
                return self.enqueue(place, &mut state);
            }
            Outcome::Told => state.since = None,
            Outcome::Settled => {
                state.ended = true;
                state.since = None;
                if places.get(&place.graph.uid).is_some_and(|known| Arc::ptr_eq(known, place)) {
                    places.remove(&place.graph.uid);
                }
            }
        }
        if state.deleted {
            state.ended = true;
            self.deleted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Place {
    /// Whether nobody looks after it here any more.
    pub fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// Whether the graph was deleted.
    pub fn is_deleted(&self) -> bool {
        self.state.lock().deleted
    }

    /// The first status that is to be told. `None`: it is to be read.
    pub fn first(&self) -> Option<Arc<TaskGraphStatus>> {
        self.state.lock().statuses.front().map(|pending| Arc::clone(&pending.status))
    }

    /// A status that was read; what was told is known from it, if nothing better is.
    pub fn read(&self, status: &Arc<TaskGraphStatus>) {
        let mut state = self.state.lock();
        if state.told.is_none() {
            state.told = Some(Told::restore(status));
        }
        if state.statuses.is_empty() {
            state.statuses.push_back(Pending { status: Arc::clone(status), superseded: false });
        }
    }

    /// Reads or changes what was told.
    pub fn with_told<T>(&self, look: impl FnOnce(&mut Told) -> T) -> T {
        look(self.state.lock().told.get_or_insert_default())
    }

    /// A status was told whole. Whether more are waiting.
    pub fn told(&self, status: &Arc<TaskGraphStatus>) -> bool {
        let mut state = self.state.lock();
        state.statuses.pop_front_if(|first| Arc::ptr_eq(&first.status, status));
        if let Some(told) = &mut state.told {
            told.prune(status);
        }
        !state.statuses.is_empty()
    }

    /// Keeps nothing of a graph that finished: its status can be read again.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        let is_last = state.statuses.len() == 1 && !state.deleted;
        if is_last && state.statuses.front().is_some_and(|last| last.status.completion_time.is_some()) {
            state.statuses.clear();
            state.told = None;
        }
    }
}

#[cfg(test)]
mod tests;

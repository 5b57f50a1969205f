//! The graphs of which something is to be told, and what was. It holds no events: of each graph that runs the last
//! stored status and marks of what was told, of one that finished no more than its name.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{
    event::GraphName,
    facts::{Fact, Told},
};
use crate::{
    api::{CloudEventsStatus, TaskGraphStatus},
    runtime::metrics::{DropLabel, Metrics},
};

/// How many states of a graph are kept that an edit or a rerun took over before they were told.
const SUPERSEDED: usize = 3;
/// Of how many graphs that were deleted something may still be told,
const DELETED: usize = 1000;
/// and of how many bytes, as JSON, their statuses may be together: nobody else holds those any more.
const DELETED_BYTES: usize = 32 << 20;

/// All of them.
#[derive(Debug)]
pub struct Desk {
    /// Counts what becomes of events.
    pub metrics: Metrics,
    places: Mutex<HashMap<String, Arc<Place>>>,
    /// Graphs with something to tell; each stands there once, so it is no longer than there are graphs.
    queue: UnboundedSender<Arc<Place>>,
    deleted: Deleted,
}

/// What is kept of graphs that were deleted.
#[derive(Debug, Default)]
struct Deleted {
    graphs: AtomicUsize,
    bytes: AtomicUsize,
}

impl Deleted {
    /// Keeps one more, if there is room.
    fn keep(&self, bytes: usize) -> bool {
        let room = |count: &AtomicUsize, more: usize, most: usize| {
            let add = |count: usize| count.checked_add(more).filter(|sum| *sum <= most);
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
        };
        if !room(&self.graphs, 1, DELETED) {
            return false;
        }
        let kept = room(&self.bytes, bytes, DELETED_BYTES);
        if !kept {
            self.graphs.fetch_sub(1, Ordering::Relaxed);
        }
        kept
    }

    fn drop_one(&self, bytes: usize) {
        self.graphs.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One graph's place.
#[derive(Debug)]
pub struct Place {
    /// Which graph.
    pub graph: GraphName,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was told; `None`: the stored status says it. Shared, so that nobody waits while it is looked through.
    told: Option<Arc<Told>>,
    /// What is to be told, oldest first.
    statuses: VecDeque<Pending>,
    /// When it had something to tell that is not delivered yet.
    since: Option<Instant>,
    queued: bool,
    busy: bool,
    /// Nobody looks after it here any more.
    ended: bool,
    /// The graph was deleted; so many bytes are kept of it.
    deleted: Option<usize>,
}

#[derive(Debug)]
struct Pending {
    status: Arc<TaskGraphStatus>,
    origin: Origin,
}

/// Where a status comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was stored just now, by whoever follows the graph here.
    Stored,
    /// It would have been, had not an edit or a rerun taken it over.
    Superseded,
    /// It was read: nobody follows the graph here.
    Read,
}

/// How a look at a graph ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not all is told; later.
    Later,
    /// The status was told whole.
    Told,
    /// It was, nobody follows the graph here any more, and its stored status says so; or there is nothing to be done.
    Settled,
}

impl Desk {
    /// An empty desk, and where graphs come out that have something to tell.
    pub fn new(metrics: Metrics) -> (Self, UnboundedReceiver<Arc<Place>>) {
        let (queue, queued) = unbounded_channel();
        let desk = Self { metrics, places: Mutex::default(), queue, deleted: Deleted::default() };
        (desk, queued)
    }

    fn place(&self, uid: &str) -> Option<Arc<Place>> {
        self.places.lock().get(uid).cloned()
    }

    /// The place of a graph, its own or a new one, while nobody can end it.
    fn at<T>(&self, uid: &str, name: impl FnOnce() -> GraphName, work: impl FnOnce(&Arc<Place>, &mut State) -> T) -> T {
        let mut places = self.places.lock();
        let fresh = || Arc::new(Place { graph: name(), state: Mutex::default() });
        let place = Arc::clone(places.entry(uid.to_owned()).or_insert_with(fresh));
        let mut state = place.state.lock();
        drop(places);
        work(&place, &mut state)
    }

    /// See [`super::Courier::begin`].
    pub fn begin(&self, uid: &str, name: impl FnOnce() -> GraphName, stored: &TaskGraphStatus) {
        self.at(uid, name, |_, state| _ = state.told_of(stored));
    }

    /// See [`super::Courier::owed`].
    pub fn owed(&self, uid: &str, status: &TaskGraphStatus) -> CloudEventsStatus {
        let told = self.place(uid).and_then(|place| place.state.lock().told.clone());
        // one that was forgotten since: what the status said before may be too little
        told.unwrap_or_default().owed(status)
    }

    /// See [`super::Courier::stored`] and [`super::Courier::superseded`].
    pub fn stored(&self, uid: &str, name: impl FnOnce() -> GraphName, status: &TaskGraphStatus, origin: Origin) {
        self.at(uid, name, |place, state| {
            // if the place was left meanwhile, the status itself says what of it was told
            let told = Arc::clone(state.told_of(status));
            state.statuses.pop_back_if(|last| last.origin != Origin::Superseded);
            let owes = status.cloud_events.as_ref().is_none_or(|owed| owed.owes(status.sequence));
            // of one that finished it is still to be stored that all is told
            if !owes && state.statuses.is_empty() && status.completion_time.is_none() {
                return;
            }
            while state.statuses.len() >= SUPERSEDED {
                let oldest = state.statuses.pop_front();
                let next = state.statuses.front().map_or(status, |next| &next.status);
                let lost = oldest.map_or(0, |oldest| told.lost(&oldest.status, next));
                self.metrics.cloud_events_dropped.get_or_create(&DropLabel::FORGOTTEN).inc_by(lost);
            }
            state.statuses.push_back(Pending { status: Arc::new(status.clone()), origin });
            self.enqueue(place, state);
        });
    }

    /// See [`super::Courier::unfollowed`].
    pub fn take_up(&self, uid: &str, name: impl FnOnce() -> GraphName) {
        self.at(uid, name, |place, state| {
            if state.since.is_none() {
                self.enqueue(place, state);
            }
        });
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
            state.end();
            return;
        }
        let bytes =
            state.statuses.iter().fold(0_usize, |sum, pending| sum.saturating_add(size_of_json(&pending.status)));
        if !state.statuses.is_empty() && self.deleted.keep(bytes) {
            state.deleted = Some(bytes);
        } else {
            state.end();
            self.metrics.cloud_events_dropped.get_or_create(&DropLabel::DELETED).inc();
        }
    }

    /// See [`super::Courier::clear`].
    pub fn clear(&self) {
        let places = std::mem::take(&mut *self.places.lock());
        for place in places.into_values() {
            place.state.lock().end();
        }
    }

    /// How many graphs have something to tell, and since when the first of them has.
    pub fn backlog(&self) -> (usize, Option<Instant>) {
        let places = self.places.lock();
        let since: Vec<_> = places.values().filter_map(|place| place.state.lock().since).collect();
        (since.len() + self.deleted.graphs.load(Ordering::Relaxed), since.into_iter().min())
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
        if let Some(bytes) = state.deleted.take() {
            state.ended = true;
            self.deleted.drop_one(bytes);
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
        self.state.lock().deleted.is_some()
    }

    /// The first status that is to be told, and where it comes from. `None`: it is to be read.
    pub fn first(&self) -> Option<(Arc<TaskGraphStatus>, Origin)> {
        self.state.lock().statuses.front().map(|pending| (Arc::clone(&pending.status), pending.origin))
    }

    /// A status that was read; what was told is known from it, if nothing better is.
    pub fn read(&self, status: &Arc<TaskGraphStatus>) {
        let mut state = self.state.lock();
        state.told_of(status);
        if state.statuses.is_empty() {
            state.statuses.push_back(Pending { status: Arc::clone(status), origin: Origin::Read });
        }
    }

    /// What is to be told of a status.
    pub fn facts(&self, status: &TaskGraphStatus) -> Vec<Fact> {
        let told = self.state.lock().told.clone();
        told.unwrap_or_default().facts(status)
    }

    /// A fact of a status was told; see [`Told::take`].
    pub fn take(&self, fact: &Fact, status: &TaskGraphStatus) -> u32 {
        Arc::make_mut(self.state.lock().told.get_or_insert_default()).take(fact, status)
    }

    /// A status was told whole. Whether more are waiting.
    pub fn told(&self, status: &Arc<TaskGraphStatus>) -> bool {
        let mut state = self.state.lock();
        state.statuses.pop_front_if(|first| Arc::ptr_eq(&first.status, status));
        if let Some(told) = &mut state.told {
            Arc::make_mut(told).prune(status);
        }
        !state.statuses.is_empty()
    }

    /// Keeps nothing of a graph that finished: its status can be read again.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        let is_last = state.statuses.len() == 1 && state.deleted.is_none();
        if is_last && state.statuses.front().is_some_and(|last| last.status.completion_time.is_some()) {
            state.statuses.clear();
            state.told = None;
        }
    }

    /// Tells no more of what is there: it cannot be told.
    pub fn give_up(&self) {
        self.state.lock().statuses.clear();
    }
}

impl State {
    /// What was told, if nothing else is known: as `stored` says.
    fn told_of(&mut self, stored: &TaskGraphStatus) -> &mut Arc<Told> {
        self.told.get_or_insert_with(|| Arc::new(Told::restore(stored)))
    }

    /// Nobody looks after it here any more. It may stand in the queue for long.
    fn end(&mut self) {
        self.ended = true;
        self.statuses.clear();
        self.told = None;
    }
}

/// How many bytes a status has as JSON.
fn size_of_json(status: &TaskGraphStatus) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // what cannot be written has no place either
    serde_json::to_writer(&mut count, status).map_or(usize::MAX, |()| count.0)
}

#[cfg(test)]
mod tests;

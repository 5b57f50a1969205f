use serde_json::json;

use super::*;

fn desk() -> (Desk, UnboundedReceiver<Arc<Place>>) {
    Desk::new(Metrics::new().0)
}

fn name() -> GraphName {
    GraphName { namespace: "team".into(), name: "g".into(), uid: "u".into() }
}

/// A graph with one task that succeeded, as the desk has it stored.
fn status(desk: &Desk, sequence: u64, finished: bool) -> TaskGraphStatus {
    let time = "2026-01-01T00:00:00Z";
    let task =
        json!({"name": "a", "phase": "Succeeded", "attempts": sequence, "startTime": time, "completionTime": time});
    let mut status: TaskGraphStatus = serde_json::from_value(
        json!({"sequence": sequence, "completionTime": finished.then_some(time), "tasks": [task]}),
    )
    .unwrap();
    desk.begin("u", name, &TaskGraphStatus::default());
    status.cloud_events = Some(desk.owed("u", &status));
    status
}

/// Tells all of the first status.
fn tell(place: &Place) -> usize {
    tell_of(place, &place.first().unwrap().0)
}

fn tell_of(place: &Place, status: &Arc<TaskGraphStatus>) -> usize {
    let facts = place.facts(status);
    for fact in &facts {
        place.take(fact, status);
    }
    place.told(status);
    facts.len()
}

#[test]
fn a_graph_stands_in_the_queue_once_and_its_last_status_is_told() {
    let (desk, mut queue) = desk();
    for sequence in [1, 2, 3] {
        desk.stored("u", name, &status(&desk, sequence, false), Origin::Stored);
    }
    let place = queue.try_recv().unwrap();
    assert!(queue.try_recv().is_err());
    assert_eq!(desk.backlog().0, 1);
    Desk::take(&place);
    assert_eq!(place.first().unwrap().0.sequence, 3);
    assert_eq!(tell(&place), 2);
    desk.put_back(&place, Outcome::Told);
    assert_eq!(desk.backlog(), (0, None));
    desk.stored("u", name, &status(&desk, 3, false), Origin::Stored);
    assert!(queue.try_recv().is_err(), "there is nothing new");
}

#[test]
fn what_comes_while_a_graph_is_told_is_told_next() {
    let (desk, mut queue) = desk();
    desk.stored("u", name, &status(&desk, 1, false), Origin::Stored);
    let place = queue.try_recv().unwrap();
    Desk::take(&place);
    let (first, _) = place.first().unwrap();
    desk.stored("u", name, &status(&desk, 2, false), Origin::Stored);
    assert!(queue.try_recv().is_err(), "never two at once");
    assert_eq!(tell_of(&place, &first), 2);
    desk.put_back(&place, Outcome::Told);
    let again = queue.try_recv().unwrap();
    assert!(Arc::ptr_eq(&place, &again));
}

#[test]
fn what_an_edit_took_over_is_told_before_the_rest() {
    let (desk, mut queue) = desk();
    desk.stored("u", name, &status(&desk, 1, false), Origin::Superseded);
    desk.stored("u", name, &status(&desk, 2, false), Origin::Stored);
    let place = queue.try_recv().unwrap();
    assert_eq!(place.first().unwrap().0.sequence, 1);
    for sequence in 3..20 {
        desk.stored("u", name, &status(&desk, sequence, false), Origin::Superseded);
    }
    assert!(place.state.lock().statuses.len() <= SUPERSEDED, "memory is bounded");
    // each tells of an attempt of its own, its start and its end; fifteen made room for the last three
    let lost = desk.metrics.cloud_events_dropped.get_or_create(&DropLabel::FORGOTTEN).get();
    assert_eq!(lost, 2 * 15, "and what is left out is counted");
}

#[test]
fn a_graph_that_was_left_is_told_from_where_its_status_stands() {
    let (desk, mut queue) = desk();
    let first = status(&desk, 1, true);
    desk.stored("u", name, &first, Origin::Stored);
    let place = queue.try_recv().unwrap();
    Desk::take(&place);
    tell(&place);
    // while that is being noted, somebody takes the graph up again, and stores the next status
    let mut next = status(&desk, 2, false);
    next.cloud_events = Some(desk.owed("u", &next));
    desk.put_back(&place, Outcome::Settled);
    desk.stored("u", name, &next, Origin::Stored);
    let again = queue.try_recv().unwrap();
    assert!(place.has_ended() && !again.has_ended());
    Desk::take(&again);
    assert_eq!(tell(&again), 2, "of the second attempt only");
}

#[test]
fn of_deleted_graphs_no_more_is_kept_than_there_is_room_for() {
    let kept = Deleted::default();
    assert!(kept.keep(DELETED_BYTES - 10) && !kept.keep(11) && kept.keep(10));
    kept.drop_one(DELETED_BYTES - 10);
    assert!(!kept.keep(usize::MAX));
    assert_eq!((kept.graphs.load(Ordering::Relaxed), kept.bytes.load(Ordering::Relaxed)), (1, 10));
    for _ in 1..DELETED {
        assert!(kept.keep(1));
    }
    assert!(!kept.keep(1), "nor of more graphs");

    let (desk, mut queue) = desk();
    desk.deleted.bytes.store(DELETED_BYTES, Ordering::Relaxed);
    desk.stored("u", name, &status(&desk, 1, false), Origin::Stored);
    desk.deleted("u");
    let place = queue.try_recv().unwrap();
    assert!(place.has_ended() && place.first().is_none(), "it stands in the queue, empty");
    assert_eq!(desk.metrics.cloud_events_dropped.get_or_create(&DropLabel::DELETED).get(), 1);
}

#[test]
fn of_a_graph_that_finished_nothing_is_kept_while_the_sink_is_away() {
    let (desk, mut queue) = desk();
    desk.stored("u", name, &status(&desk, 1, true), Origin::Stored);
    let place = queue.try_recv().unwrap();
    Desk::take(&place);
    place.forget();
    desk.put_back(&place, Outcome::Later);
    assert!(place.first().is_none() && place.state.lock().told.is_none());
    assert_eq!(desk.backlog().0, 1);
    let place = queue.try_recv().unwrap();
    Desk::take(&place);
    let live = Arc::new(status(&desk, 1, true));
    place.read(&live);
    tell(&place);
    desk.put_back(&place, Outcome::Settled);
    assert_eq!(desk.backlog().0, 0);
    assert!(desk.places.lock().is_empty(), "nothing is left of it");
}

#[test]
fn a_deleted_graph_is_told_if_it_is_known() {
    let (desk, mut queue) = desk();
    desk.stored("u", name, &status(&desk, 1, false), Origin::Stored);
    desk.deleted("u");
    let place = queue.try_recv().unwrap();
    assert!(!place.has_ended() && place.is_deleted());
    Desk::take(&place);
    assert_eq!(tell(&place), 2);
    desk.put_back(&place, Outcome::Told);
    assert_eq!(desk.backlog().0, 0);

    desk.take_up("u", name);
    desk.retain(|_| false);
    assert!(queue.try_recv().unwrap().has_ended(), "nobody knows any more what there was");
    assert_eq!(desk.metrics.cloud_events_dropped.get_or_create(&DropLabel::DELETED).get(), 1);
}

#[test]
fn who_leads_no_more_tells_nothing() {
    let (desk, mut queue) = desk();
    desk.stored("u", name, &status(&desk, 1, false), Origin::Stored);
    let place = queue.try_recv().unwrap();
    Desk::take(&place);
    desk.clear();
    assert!(place.has_ended() && place.first().is_none());
    desk.put_back(&place, Outcome::Later);
    assert!(queue.try_recv().is_err());
}

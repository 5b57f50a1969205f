//! Graphs that were restored from a backup of objects: a spec that ran elsewhere or before, under a new UID, with the
//! status of what was saved or with none.
//!
//! | the status | the graph |
//! |---|---|
//! | tells that it finished | stays finished: nothing of it runs again |
//! | tells that it had begun | waits for a word: what it started may still run where it was saved, or be done |
//! | is missing, and the graph is marked as restored | waits for a word: it may have run |
//! | is missing, and nothing marks the graph | is a new one |
//!
//! The word is the annotation [`ANNOTATION_RESTORED`]. A mark is the same annotation, or the label that Velero sets.

use std::time::Duration;

use jiff::Timestamp;
use tracing::info;

use super::{
    Context,
    accept::{AcceptError, Taken, live_status, put_status},
    pin::pin_again,
    report::Verdict,
    revision::Pinned,
    view::GraphView,
};
use crate::api::{
    ANNOTATION_RESTORED, CONDITION_ACCEPTED, RESTORED_CONTINUE, RESTORED_HOLD, TaskGraphStatus, VELERO_RESTORE,
};

/// The reason of a graph that waits for a word, and of one that had finished.
pub const RESTORED: &str = "Restored";
/// In place of the UID of an object of which nothing else is known.
const UNKNOWN: &str = "unknown";
/// Velero writes a status after it has created the object. One that the operator wrote in between would keep it out.
const STATUS_FOLLOWS: Duration = Duration::from_secs(10);

/// What is to be done about a graph that may have been restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Nothing: it was not, or its status is its own by now.
    GoOn,
    /// Nothing yet: its status may be under way.
    Await,
    /// Its status is made its own; it has finished.
    KeepFinished,
    /// Its status is made its own, and it goes on from there.
    Adopt,
    /// It waits for a word.
    Hold,
}

fn decide(view: &GraphView, now: Timestamp) -> Decision {
    let word = view.annotation(ANNOTATION_RESTORED);
    let by_velero = view.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(VELERO_RESTORE));
    if view.has_status_of_another() {
        return match (&view.status.completion_time, word) {
            (Some(_), _) => Decision::KeepFinished,
            (None, Some(RESTORED_CONTINUE)) => Decision::Adopt,
            (None, _) => Decision::Hold,
        };
    }
    let is_marked = word == Some(RESTORED_HOLD) || (by_velero && word != Some(RESTORED_CONTINUE));
    if view.status.revision.is_some() || !is_marked {
        return Decision::GoOn;
    }
    let age = view.metadata.creation_timestamp.as_ref().map(|created| now.duration_since(created.0));
    let is_new = age.is_some_and(|age| age.unsigned_abs() < STATUS_FOLLOWS);
    if word.is_none() && is_new && view.status.conditions.is_empty() { Decision::Await } else { Decision::Hold }
}

/// What came of a graph that was restored; `None`: it is to be taken up as any other.
pub async fn take_up(ctx: &Context, view: &GraphView) -> Result<Option<Taken>, AcceptError> {
    let decision = decide(view, super::now());
    match decision {
        Decision::GoOn => return Ok(None),
        Decision::Await => return Ok(Some(Taken::Late)),
        Decision::Hold if !view.has_status_of_another() => return Ok(Some(Taken::Not(held(view)))),
        Decision::Hold | Decision::KeepFinished | Decision::Adopt => {}
    }
    let (mut status, version) = live_status(&ctx.hands.cluster, view).await?;
    if (&status.uid, status.completion_time.is_some()) != (&view.status.uid, view.status.completion_time.is_some()) {
        return Ok(Some(Taken::Late));
    }
    match decision {
        Decision::Hold if status.uid.is_some() => return Ok(Some(Taken::Not(held(view)))),
        // the refusal is written of this generation: nothing else would tell any more that the status is another's
        Decision::Hold => status.uid = Some(UNKNOWN.to_owned()),
        Decision::KeepFinished => {
            pin_finished(ctx, view, &mut status).await?;
            adopt(&mut status, view);
            tell_finished(&mut status, view.generation());
        }
        _ => adopt(&mut status, view),
    }
    put_status(ctx, view, &version, &status).await?;
    info!(graph = view.name(), namespace = view.namespace(), ?decision, "the graph was restored");
    // the watch brings the graph with the status that is its own now
    Ok(Some(Taken::Late))
}

/// What is told of a graph that waits for a word.
pub fn held(view: &GraphView) -> Verdict {
    let why = if view.has_status_of_another() {
        "The graph was restored from a backup, in the middle of its run: what it had started may still run where it was \
         saved, or be done by now"
    } else {
        "The graph was restored from a backup, without its status: it may have run before"
    };
    let (name, namespace) = (view.name(), view.namespace());
    let message = format!(
        "{why}. Nothing of it is started. `kubectl annotate taskgraph {name} --namespace {namespace} --overwrite \
         {ANNOTATION_RESTORED}={RESTORED_CONTINUE}` lets it go on; otherwise delete it."
    );
    Verdict::Refused(RESTORED, message)
}

/// Makes a status that of this object.
fn adopt(status: &mut TaskGraphStatus, view: &GraphView) {
    status.uid = Some(view.uid().to_owned());
    status.observed_generation = Some(view.generation());
    for condition in &mut status.conditions {
        condition.observed_generation = Some(view.generation());
    }
}

/// Says in `Accepted` why a finished graph does not run.
fn tell_finished(status: &mut TaskGraphStatus, generation: i64) {
    let now = super::now();
    Verdict::Accepted.write(status, generation, now);
    if let Some(accepted) = status.conditions.iter_mut().find(|one| one.type_ == CONDITION_ACCEPTED) {
        RESTORED.clone_into(&mut accepted.reason);
        "The graph was restored from a backup after it had finished: nothing of it runs again."
            .clone_into(&mut accepted.message);
    }
}

/// Pins the spec as it is, so that a later edit is told from it. One that is not valid any more is left as it is: the edit
/// is judged then.
async fn pin_finished(ctx: &Context, view: &GraphView, status: &mut TaskGraphStatus) -> Result<(), AcceptError> {
    let number = status.revision_number.max(1);
    if let Ok(pinned) = pin_again(ctx, view, number, status.rerun.as_deref()).await? {
        status.revision = Some(Pinned::name(view, number));
        status.revision_number = number;
        status.templates = pinned.told();
        // one that was asked for when the graph was saved, or since, is not acted on here
        if let Some(rerun) = pinned.spec.rerun {
            status.rerun = Some(rerun.id);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn view(annotation: Option<&str>, velero: bool, age: i64, status: &Value) -> (GraphView, Timestamp) {
        let now: Timestamp = "2026-03-02T09:00:00Z".parse().unwrap();
        let created = now - jiff::SignedDuration::from_secs(age);
        let mut metadata =
            json!({"name": "g", "uid": "new", "generation": 2, "creationTimestamp": created.to_string()});
        if let Some(word) = annotation {
            metadata["annotations"] = json!({ANNOTATION_RESTORED: word});
        }
        if velero {
            metadata["labels"] = json!({VELERO_RESTORE: "r1"});
        }
        (serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap(), now)
    }

    #[test]
    fn what_is_done_about_each_status_and_mark() {
        let none = json!({"observedGeneration": -1});
        let own = json!({"uid": "new", "observedGeneration": 2, "revision": "g-1"});
        let own_of_old = json!({"observedGeneration": 2, "revision": "g-1"});
        let begun = json!({"uid": "old", "observedGeneration": 1, "revision": "g-1"});
        let begun_of_old = json!({"observedGeneration": 3, "revision": "g-1"});
        let done = json!({"uid": "old", "observedGeneration": 2, "completionTime": "2026-01-01T00:00:00Z"});
        let done_of_old = json!({"observedGeneration": 9, "completionTime": "2026-01-01T00:00:00Z"});
        let refused = json!({"observedGeneration": 2,
            "conditions": [{"type": "Accepted", "status": "False", "reason": "Restored", "message": "..."}]});
        let (hold, go) = (Some(RESTORED_HOLD), Some(RESTORED_CONTINUE));
        for (annotation, velero, age, status, expected) in [
            // nothing tells of a restore
            (None, false, 0, &none, Decision::GoOn),
            (None, false, 0, &own, Decision::GoOn),
            (None, false, 99, &own_of_old, Decision::GoOn),
            // marks
            (hold, false, 0, &none, Decision::Hold),
            (hold, true, 0, &none, Decision::Hold),
            (go, false, 0, &none, Decision::GoOn),
            (go, true, 0, &none, Decision::GoOn),
            (None, true, 3, &none, Decision::Await),
            (None, true, -3, &none, Decision::Await),
            (None, true, 30, &none, Decision::Hold),
            (None, true, -3600, &none, Decision::Hold),
            (None, true, 3, &refused, Decision::Hold),
            // a mark says nothing of a graph that began here
            (hold, true, 99, &own, Decision::GoOn),
            (hold, false, 99, &own_of_old, Decision::GoOn),
            // the status of another
            (None, false, 0, &begun, Decision::Hold),
            (None, false, 0, &begun_of_old, Decision::Hold),
            (hold, true, 0, &begun, Decision::Hold),
            (Some("Yes"), false, 0, &begun, Decision::Hold),
            (go, true, 0, &begun, Decision::Adopt),
            (go, false, 99, &begun_of_old, Decision::Adopt),
            (None, false, 0, &done, Decision::KeepFinished),
            (None, false, 0, &done_of_old, Decision::KeepFinished),
            (hold, true, 0, &done, Decision::KeepFinished),
            (go, false, 0, &done, Decision::KeepFinished),
        ] {
            let (view, now) = view(annotation, velero, age, status);
            assert_eq!(decide(&view, now), expected, "{annotation:?} {velero} {age} {status}");
        }
    }

    #[test]
    fn a_status_that_was_adopted_is_its_own() {
        let (view, _) = view(None, false, 0, &json!({}));
        let mut status: TaskGraphStatus = serde_json::from_value(json!({"uid": "old", "observedGeneration": 9, "conditions": [
            {"type": "Complete", "status": "True", "reason": "Complete", "observedGeneration": 9, "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]}))
        .unwrap();
        adopt(&mut status, &view);
        tell_finished(&mut status, view.generation());
        assert_eq!((status.uid.as_deref(), status.observed_generation), (Some("new"), Some(2)));
        assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(2)));
        let told: Vec<_> = status
            .conditions
            .iter()
            .map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("Complete", "True", "Complete"),
                ("Accepted", "True", "Restored"),
                ("Reconciling", "False", "Accepted"),
                ("Stalled", "False", "Accepted"),
            ]
        );
    }
}

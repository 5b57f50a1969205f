//! What a run rebuilds from its status, and what it makes of a status that was broken by hand.

use proptest::prelude::*;
use serde_json::Map;

use super::fixture::*;
use crate::{
    api::{DesiredState, TaskGraphStatus, TaskPhase, TaskStatus},
    engine::{Attempt, Blame, Event},
};

fn build() -> Build {
    let mut build = Build::new();
    build.task("a").retries(2).compensate(1);
    build.task("b").after(&["a"]).compensate(0);
    build.task("choice").after(&["a"]).decision(&["yes", "no"]);
    build.task("c").after(&["choice/no", "b"]).compensate(0);
    build.finally("end");
    build
}

#[test]
fn a_job_that_is_not_known_to_have_existed_is_launched_again() {
    let driver = Driver::new(build());
    let mut unseen = driver.restarted();
    unseen.step([]);
    assert_eq!(unseen.actions(), ["launch a/1"]);
    let mut seen = driver.restarted();
    seen.step([seen.launched("a")]);
    assert!(seen.actions().is_empty());
    // its name is stored: if it is not there any more, it is lost, and the caller says so
    let mut lost = seen.restarted();
    lost.step([]);
    assert!(lost.actions().is_empty());
    assert_eq!(lost.run.live().next().and_then(|live| live.job), Some("g-a"));
}

#[test]
fn a_graph_of_whose_beginning_nothing_was_stored_begins() {
    let told = |driver: &Driver| driver.status().history.into_iter().map(|entry| entry.event).collect::<Vec<_>>();
    let mut driver = Driver::new(build()).restored_from(&TaskGraphStatus::default());
    driver.step([]);
    assert_eq!(told(&driver), ["Accepted"]);
    driver.step([]);
    assert_eq!(told(&driver), ["Accepted"], "once");
}

#[test]
fn an_attempt_beyond_the_stored_one_is_adopted() {
    let mut driver = Driver::new(build());
    let stored = driver.status();
    driver.ok("a");
    let mut restarted = driver.restored_from(&stored);
    let attempt = Attempt::new(driver.id("b"), 1);
    let finished = driver.finished("b", crate::engine::AttemptResult::Succeeded { outputs: Map::new(), message: None });
    restarted.step([Event::Launched { attempt, job: "g-b".into() }, finished, restarted.launched("a")]);
    assert_eq!(restarted.phase("b"), TaskPhase::Succeeded);
    assert!(restarted.actions().is_empty(), "{:?}", restarted.actions());
}

#[test]
fn an_older_attempt_that_is_not_known_to_have_ended_is_stopped() {
    let mut driver = Driver::new(build());
    let a = driver.id("a");
    driver.step([Event::Launched { attempt: Attempt::new(a, 3), job: "g-a-3".into() }]);
    assert_eq!(driver.actions(), ["stop a/1"]);
    driver.step([Event::Launched { attempt: Attempt::new(a, 2), job: "g-a-2".into() }]);
    assert_eq!(driver.actions(), ["stop a/2"]);
    driver.step([Event::Gone { attempt: Attempt::new(a, 1) }]);
    assert_eq!(driver.line(), "a=Running b=Pending choice=Pending c=Pending end=Pending");
}

#[test]
fn a_start_timeout_keeps_its_blame_through_a_restart() {
    for cluster in [true, false] {
        let mut driver = Driver::new(build());
        let (reason, message) = ("Unschedulable".to_owned(), "no room".to_owned());
        driver.step([driver.launched("a"), Event::Blocked { attempt: driver.attempt("a"), reason, message, cluster }]);
        assert_eq!(driver.reason("a"), "Unschedulable");
        driver.wait(600);
        assert_eq!(driver.actions(), ["stop a/1"]);
        let mut restarted = driver.restarted();
        restarted.step([restarted.launched("a")]);
        assert_eq!(restarted.actions(), ["stop a/1"]);
        restarted.gone("a");
        assert_eq!((restarted.phase("a"), restarted.reason("a")), (TaskPhase::Retrying, "StartTimeout"));
        let status = restarted.status();
        assert_eq!(status.tasks[0].disruptions, u32::from(cluster));
        let message = status.tasks[0].failed_attempts[0].message.as_deref();
        assert_eq!(message, Some("the pod did not start within 10m: Unschedulable: no room"));
    }
}

#[test]
fn retries_keep_the_time_that_was_drawn() {
    let mut driver = Driver::new(build());
    driver.fail("a");
    let wake = driver.last.wake_at;
    let mut restarted = driver.restarted();
    restarted.wait(3);
    assert_eq!((restarted.last.wake_at, restarted.actions()), (wake, vec!["await a/1".to_owned()]));
}

fn any_phase() -> impl Strategy<Value = TaskPhase> {
    use TaskPhase::*;
    prop::sample::select(vec![Pending, Ready, Running, Retrying, Succeeded, Failed, Cancelled, Skipped, Omitted])
}

fn any_task() -> impl Strategy<Value = TaskStatus> {
    let name = prop::sample::select(vec!["a", "b", "choice", "c", "end", "gone", ""]);
    let number = || prop_oneof![0..4u32, Just(u32::MAX - 1), Just(u32::MAX)];
    let time = || prop::option::of((-1000..1000i64).prop_map(at));
    let text = || {
        prop::option::of(prop_oneof![Just("FailurePolicy".to_owned()), Just("StartTimeout".to_owned()), "\\PC{0,400}"])
    };
    let branch = prop::option::of(prop::sample::select(vec!["yes".to_owned(), "no".to_owned(), "maybe".to_owned()]));
    (name, any_phase(), (number(), number()), (time(), time(), time(), time()), (text(), text(), text()), branch)
        .prop_map(
            |(
                name,
                phase,
                (attempts, disruptions),
                (ready_time, start_time, completion_time, wake_at),
                (reason, message, job),
                branch,
            )| {
                TaskStatus {
                    name: name.to_owned(),
                    phase,
                    reason,
                    message,
                    attempts,
                    disruptions,
                    job,
                    ready_time,
                    start_time,
                    completion_time,
                    wake_at,
                    branch,
                    ..TaskStatus::default()
                }
            },
        )
}

proptest! {
    /// Whatever stands in a status, the run neither panics nor hangs: told that every attempt succeeds, and that
    /// what is stopped is gone, it comes to an end.
    #[test]
    fn a_status_broken_by_hand_still_comes_to_an_end(
        tasks in prop::collection::vec(any_task(), 0..8),
        undone in prop::collection::vec(prop::option::of(any_task()), 8),
        (start_time, finally_time, completion_time, compensation_time)
            in (prop::bool::ANY, prop::bool::ANY, prop::bool::ANY, prop::bool::ANY),
        sequence in prop_oneof![Just(0), Just(u64::MAX)],
    ) {
        let time = |set: bool| set.then(|| at(0));
        let mut tasks = tasks;
        for (task, undo) in tasks.iter_mut().zip(undone) {
            task.compensation = undo.map(|undo| Box::new(undo.into()));
        }
        let status = TaskGraphStatus {
            start_time: time(start_time),
            compensation_time: time(compensation_time),
            finally_time: time(finally_time),
            completion_time: time(completion_time),
            sequence,
            tasks,
            ..TaskGraphStatus::default()
        };
        let mut driver = Driver::new(build()).restored_from(&status);
        driver.graph = std::sync::Arc::clone(driver.run.graph());
        driver.step([]);
        for _ in 0..20 {
            let events: Vec<_> = driver.run.graph().ids().flat_map(|id| {
                let name = driver.name(id);
                let attempt = driver.attempt(&name);
                let done = crate::engine::AttemptResult::Succeeded { outputs: Map::new(), message: None };
                [driver.launched(&name), driver.finished(&name, done), Event::Gone { attempt }]
            }).collect();
            driver.now = driver.now.checked_add(jiff::SignedDuration::from_secs(400)).unwrap();
            driver.step(events);
        }
        prop_assert!(driver.run.is_finished(), "{}", driver.line());
    }
}

#[test]
fn an_attempt_that_overtakes_a_stored_one_has_it_stopped() {
    let mut driver = Driver::new(build());
    driver.step([driver.launched("a")]);
    let mut restarted = driver.restarted();
    let attempt = Attempt::new(driver.id("a"), 2);
    restarted.step([driver.launched("a"), Event::Launched { attempt, job: "g-a-2".into() }]);
    assert_eq!(restarted.actions(), ["stop a/1"]);
    assert_eq!(restarted.attempt("a").number, 2);
}

#[test]
fn an_attempt_that_is_found_after_its_task_was_called_off_is_stopped() {
    let mut driver = Driver::new(build());
    driver.fail("a");
    driver.set(|settings| settings.desired_state = DesiredState::Cancel);
    assert_eq!(driver.phase("a"), TaskPhase::Retrying, "its pods are not gone");
    let attempt = Attempt::new(driver.id("a"), 2);
    driver.step([Event::Launched { attempt, job: "g-a-2".into() }]);
    assert_eq!(driver.actions(), ["stop a/2"]);
    driver.gone("a");
    assert_eq!((driver.phase("a"), driver.reason("a")), (TaskPhase::Cancelled, "Cancelled"));
}

#[test]
fn a_success_lost_with_its_job_comes_before_a_further_attempt_of_what_follows() {
    let mut driver = Driver::new(build());
    driver.step([driver.launched("a")]);
    let stored = driver.status();
    // `a` succeeded and `b` was launched, of which nothing was stored; then the operator crashed, and somebody deleted
    // the Job of `a`
    let mut restarted = driver.restored_from(&stored);
    let b = Attempt::new(driver.id("b"), 1);
    let lost = driver.finished("a", failed(Blame::Cluster));
    restarted.step([Event::Launched { attempt: b, job: "g-b".into() }, lost]);
    assert_eq!(restarted.phase("b"), TaskPhase::Running);
    restarted.fail_by("b", Blame::Cluster);
    restarted.gone("b");
    restarted.wait(1000);
    assert_eq!(restarted.phase("b"), TaskPhase::Retrying, "`a` has not succeeded");
    restarted.gone("a");
    assert_eq!(restarted.actions(), ["launch a/2"]);
    restarted.ok("a");
    assert!(restarted.actions().contains(&"launch b/2".to_owned()), "{:?}", restarted.actions());
}

//! What a run writes into a status.

use super::fixture::*;
use crate::{
    api::{CONDITION_SUSPENDED, Condition, DesiredState, TaskGraphStatus},
    engine::{AttemptResult, Blame, Event, Failure},
};

#[test]
fn counts_progress_and_order() {
    let mut build = Build::new();
    for name in ["z", "y", "x"] {
        build.task(name);
    }
    build.task("w").after(&["z"]);
    build.finally("a");
    let mut driver = Driver::new(build);
    driver.ok("y");
    let status = driver.status();
    let names: Vec<_> = status.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["z", "y", "x", "w", "a"]);
    assert_eq!(status.progress.as_deref(), Some("1/5"));
    let counts = status.counts.clone().unwrap();
    assert_eq!((counts.waiting, counts.running, counts.succeeded, counts.failed), (2, 2, 1, 0));
    assert_eq!(status.sequence, driver.run.sequence());
    assert_eq!(status.start_time, Some(at(0)));
}

#[test]
fn a_task_that_cannot_start_says_why() {
    let mut build = Build::new();
    build.task("a");
    let mut driver = Driver::new(build);
    let blocked = Event::Blocked {
        attempt: driver.attempt("a"),
        reason: "ErrImageNeverPull".into(),
        message: "no such image".into(),
        cluster: false,
    };
    assert!(driver.step([blocked.clone()]).changed);
    assert!(!driver.step([blocked.clone()]).changed, "nothing new");
    let status = driver.status();
    assert_eq!(status.message.as_deref(), Some("a cannot start: ErrImageNeverPull: no such image"));
    assert_eq!(status.tasks[0].reason.as_deref(), Some("ErrImageNeverPull"));
    driver.step([Event::Started { attempt: driver.attempt("a") }]);
    assert_eq!(driver.status().message, None);
    assert!(!driver.step([blocked]).changed, "it came late");
}

#[test]
fn conditions_keep_their_time_while_their_status_stays() {
    let mut build = Build::new();
    build.task("a");
    let mut driver = Driver::new(build);
    let mut status = TaskGraphStatus { observed_generation: Some(3), ..TaskGraphStatus::default() };
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    driver.run.write(&mut status, at(1));
    status.observed_generation = Some(4);
    driver.run.write(&mut status, at(2));
    let condition: &Condition = &status.conditions[0];
    assert_eq!((condition.type_.as_str(), condition.last_transition_time), (CONDITION_SUSPENDED, at(1)));
    assert_eq!(condition.observed_generation, Some(4));
    driver.set(|settings| settings.desired_state = DesiredState::Run);
    driver.run.write(&mut status, at(3));
    assert_eq!((status.conditions[0].status.as_str(), status.conditions[0].last_transition_time), ("False", at(3)));
}

#[test]
fn other_fields_stay_and_entries_that_are_no_tasks_go() {
    let mut build = Build::new();
    build.task("a");
    let driver = Driver::new(build);
    let mut status = driver.status();
    status.revision = Some("g-1".into());
    status.tasks.push(crate::api::TaskStatus { name: "old".into(), ..Default::default() });
    driver.run.write(&mut status, at(9));
    assert_eq!((status.revision.as_deref(), status.tasks.len()), (Some("g-1"), 1));
}

#[test]
fn failed_attempts_of_all_tasks_stay_within_64_kib() {
    let mut build = Build::new();
    let names: Vec<_> = (0..200).map(|place| format!("t{place}")).collect();
    for name in &names {
        build.task(name).retries(10);
    }
    let mut driver = Driver::new(build);
    for _ in 0..6 {
        for name in &names {
            let message = Some("\u{1}".repeat(300));
            let failure = Failure { reason: "Error".into(), message, exit_code: Some(1), blame: Blame::Task };
            driver.step([driver.finished(name, AttemptResult::Failed(failure))]);
            driver.gone(name);
        }
        driver.wait(400);
    }
    for driver in [driver.restarted(), driver] {
        let status = driver.status();
        let kept: Vec<_> = status.tasks.iter().flat_map(|task| &task.failed_attempts).collect();
        let bytes: usize = kept.iter().map(|failure| serde_json::to_string(failure).unwrap().len()).sum();
        assert!((60 * 1024..=64 * 1024).contains(&bytes), "{bytes}");
        assert!(kept.iter().all(|failure| failure.attempt == 6), "the oldest go first");
    }
}

//! What a run writes into a status.

use serde_json::json;

use super::fixture::*;
use crate::{
    api::{
        CONDITION_SUSPENDED, CompensationStatus, Condition, DesiredState, FailedAttempt, HistoryEntry, ItemsStatus,
        TaskGraphStatus, TaskPhase, TaskStatus, TemplateStatus, VolumeStatus,
    },
    engine::{
        AttemptResult, Blame, Event, Failure,
        edit::MAX_TOLD,
        validate::{MAX_COMPENSATIONS, MAX_FINALLY},
    },
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

#[test]
fn the_status_of_the_largest_graph_stays_within_768_kib() {
    let name = |place: usize| format!("{place:0>63}");
    let size = |status: &TaskGraphStatus| serde_json::to_string(status).unwrap().len();
    let mut build = Build::new();
    for place in 0..2000 {
        build.task(&name(place));
    }
    let mut driver = Driver::new(build);
    let blocked = |driver: &Driver, place| Event::Blocked {
        attempt: driver.attempt(&name(place)),
        reason: "CreateContainerConfigError".into(),
        message: "\n\"x\"".repeat(100),
        cluster: false,
    };
    let events: Vec<_> = (0..2000).flat_map(|place| [driver.launched(&name(place)), blocked(&driver, place)]).collect();
    driver.step(events);
    let status = driver.status();
    assert!(size(&status) < 768 * 1024, "all blocked: {}", size(&status));
    let jobs: Vec<_> = driver.run.live().map(|live| live.job.map(str::to_owned)).collect();
    let restored: Vec<_> = driver.restarted().run.live().map(|live| live.job.map(str::to_owned)).collect();
    assert_eq!(jobs, restored, "what runs is still known");

    let outputs = serde_json::json!({"text": "x".repeat(100)}).as_object().unwrap().clone();
    let result = AttemptResult::Succeeded { outputs, message: Some("\u{1}".repeat(256)) };
    let events: Vec<_> = (0..2000).map(|place| driver.finished(&name(place), result.clone())).collect();
    driver.step(events);
    let status = driver.status();
    assert!(size(&status) < 768 * 1024, "all final: {}", size(&status));
    let before: Vec<_> =
        driver.graph.ids().map(|id| (driver.run.task(id).phase, &driver.run.task(id).outputs)).collect();
    let after: Vec<_> = status.tasks.iter().map(|task| (task.phase, &task.outputs)).collect();
    assert_eq!(before, after, "phases and outputs never go");
}

#[test]
fn the_status_of_the_largest_saga_stays_within_768_kib() {
    let name = |place: usize| format!("{place:0>63}");
    let mut build = Build::new();
    for place in 0..2000 {
        let task = build.task(&name(place));
        if place < crate::engine::validate::MAX_COMPENSATIONS {
            task.compensate(0);
        }
    }
    let mut driver = Driver::new(build);
    let outputs = serde_json::json!({"text": "x".repeat(115)}).as_object().unwrap().clone();
    let result = AttemptResult::Succeeded { outputs, message: Some("\u{1}".repeat(256)) };
    let done: Vec<_> = (0..1999).map(|place| driver.finished(&name(place), result.clone())).collect();
    driver.step(done);
    driver.fail(&name(1999));
    let undoing: Vec<_> = driver.graph.compensations().map(|id| driver.name(id)).collect();
    let blocked = undoing.iter().flat_map(|undo| {
        let blocked = Event::Blocked {
            attempt: driver.attempt(undo),
            reason: "CreateContainerConfigError".into(),
            message: "\n\"x\"".repeat(100),
            cluster: false,
        };
        [Event::Launched { attempt: driver.attempt(undo), job: "j".repeat(63) }, blocked]
    });
    let blocked: Vec<_> = blocked.collect();
    driver.step(blocked);
    assert_eq!(driver.run.live().count(), 500);
    let status = driver.status();
    let size = serde_json::to_string(&status).unwrap().len();
    assert!((700 * 1024..768 * 1024).contains(&size), "{size}");
    assert_eq!(driver.restarted().run.live().filter(|live| live.job.is_some()).count(), 500);
}

/// All that a task can be told with, as large as it gets.
fn told_in_full(name: &str, phase: TaskPhase) -> TaskStatus {
    let failure = |attempt| FailedAttempt {
        attempt,
        job: Some("j".repeat(63)),
        start_time: Some(at(0)),
        completion_time: Some(at(i64::from(attempt))),
        exit_code: Some(137),
        reason: "CreateContainerConfigError".into(),
        message: Some("\u{1}".repeat(256)),
    };
    let begun = matches!(phase, TaskPhase::Running);
    TaskStatus {
        name: name.into(),
        phase,
        reason: Some(if begun { "Cancelled".into() } else { "r".repeat(128) }),
        message: Some("\u{1}".repeat(256)),
        attempts: 121,
        attempts_before: 100,
        stale: true,
        definition: Some("0123456789abcdef".into()),
        disruptions: 20,
        job: Some("j".repeat(63)),
        progress: Some("1000/2000".into()),
        ready_time: Some(at(1)),
        start_time: Some(at(1)),
        completion_time: phase.is_final().then(|| at(1)),
        items: Some(ItemsStatus {
            total: 1000,
            failed: 100,
            failed_indexes: Some("1,".repeat(100)),
            ..Default::default()
        }),
        failed_attempts: (117..=121).map(failure).collect(),
        compensation: Some(Box::new(CompensationStatus {
            attempts: 20,
            attempts_before: 20,
            failed_attempts: vec![failure(20)],
            ..CompensationStatus::default()
        })),
        ..TaskStatus::default()
    }
}

/// All that stands in a status beside the tasks.
fn rest() -> TaskGraphStatus {
    let condition = |type_: &str| Condition {
        type_: type_.into(),
        status: "False".into(),
        observed_generation: Some(77),
        last_transition_time: at(0),
        reason: "Invalid".into(),
        message: "a line of sixty-four bytes with \"quotes\" and its end, to be sure\n".repeat(240),
    };
    let entry = HistoryEntry {
        time: at(0),
        event: "Edited".into(),
        message: Some("added ".repeat(42)),
        by: Some("\"".repeat(253)),
    };
    let template = TemplateStatus { name: "t".repeat(253), generation: Some(7), ..TemplateStatus::default() };
    let volume = VolumeStatus { name: "v".repeat(63), claim: "c".repeat(63), uid: "u".repeat(36) };
    TaskGraphStatus {
        start_time: Some(at(0)),
        sequence: 1_000_000,
        revision: Some("r".repeat(63)),
        revision_number: 70,
        conditions: ["Accepted", "Reconciling", "Stalled"].map(condition).into(),
        history: vec![entry; 20],
        templates: vec![template; 64],
        volumes: vec![volume; 16],
        ..TaskGraphStatus::default()
    }
}

#[test]
fn the_status_of_the_largest_graph_that_was_edited_and_rerun_stays_within_768_kib() {
    let name = |place: usize| format!("{place:0>63}");
    let graph = || {
        let mut build = Build::new();
        for place in 0..2000 {
            let task = build.task(&name(place));
            if place < MAX_COMPENSATIONS {
                task.compensate(0);
            }
        }
        (2000..2000 + MAX_FINALLY).for_each(|place| _ = build.finally(&name(place)));
        build
    };
    let removed = MAX_TOLD - 2000 - MAX_FINALLY;
    // all run; half is done and has left all that may be left; all is done
    for running in [2000, 1000, 0] {
        let outputs = json!({"text": "x".repeat(if running == 2000 { 0 } else { 256 * 1024 / 2000 - 30 })});
        let mut tasks: Vec<_> = (0..2000 + MAX_FINALLY)
            .map(|place| {
                told_in_full(&name(place), if place < running { TaskPhase::Running } else { TaskPhase::Succeeded })
            })
            .collect();
        for task in tasks.iter_mut().skip(MAX_COMPENSATIONS) {
            task.compensation = None;
        }
        for task in tasks.iter_mut().filter(|task| task.phase == TaskPhase::Succeeded) {
            task.outputs = outputs.as_object().unwrap().clone();
        }
        tasks.extend(
            (0..removed)
                .map(|place| TaskStatus { removed: true, ..told_in_full(&name(9000 + place), TaskPhase::Failed) }),
        );
        let stored = TaskGraphStatus { tasks, ..rest() };
        let driver = Driver::new(graph()).restored_from(&stored);
        let mut status = rest();
        driver.run.write(&mut status, at(2));
        let size = serde_json::to_string(&status).unwrap().len();
        assert!((600 * 1024..=768 * 1024).contains(&size), "{running} running: {size}");
        assert_eq!(status.tasks.len(), MAX_TOLD);

        let again = driver.restored_from(&status);
        for id in driver.graph.ids() {
            let (was, is) = (driver.run.task(id), again.run.task(id));
            let facts = |task: &TaskStatus| {
                (
                    task.phase,
                    task.attempts,
                    task.attempts_before,
                    task.disruptions,
                    task.stale,
                    task.removed,
                    task.start_time.filter(|_| !task.phase.is_final()),
                )
            };
            assert_eq!((facts(was), &was.outputs), (facts(is), &is.outputs), "{}", was.name);
            assert!(was.phase.is_final() || (was.job == is.job && was.reason == is.reason), "{}", was.name);
        }
    }
}

#[test]
fn a_finished_task_costs_little() {
    let mut build = Build::new();
    build.task("transform-orders");
    let mut driver = Driver::new(build);
    driver.step([Event::Launched {
        attempt: driver.attempt("transform-orders"),
        job: "pipeline-transform-orders-1-3fa9c1".into(),
    }]);
    driver.ok("transform-orders");
    let task = serde_json::to_string(&driver.status().tasks[0]).unwrap();
    assert!(task.len() < 250, "{} bytes: {task}", task.len());
}

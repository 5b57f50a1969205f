//! Delays and approvals.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::fixture::*;
use crate::{
    api::{
        ApprovalDecision::{Approved, Rejected},
        DesiredState, Duration, FailurePolicy, OnTimeout, TaskPhase, TaskStatus,
    },
    engine::{Event, Settings, graph::TriggerRule, reason},
};

/// `wait` for a minute, then `after`; beside them `ask`, within an hour, then `deploy`.
fn waits() -> Build {
    let mut build = Build::new();
    build.task("wait").delay(60);
    build.task("after").after(&["wait"]);
    build.task("ask").approval(OnTimeout::Fail, Some(3600));
    build.task("deploy").after(&["ask"]);
    build
}

fn suspend(driver: &mut Driver) {
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
}

fn resume(driver: &mut Driver) {
    driver.set(|settings| settings.desired_state = DesiredState::Run);
}

#[test]
fn a_delay_ends_when_its_time_has_come() {
    let mut driver = Driver::new(waits());
    assert_eq!(driver.phase("wait"), TaskPhase::Waiting);
    let status = driver.status().tasks[0].clone();
    assert_eq!((status.wake_at, status.attempts, status.start_time), (Some(at(60)), 1, Some(at(0))));
    assert_eq!(driver.last.wake_at, Some(at(60)));
    assert_eq!(driver.status().counts.unwrap().waiting, 4);
    driver.wait(59);
    assert_eq!(driver.line(), "wait=Waiting/Delay after=Pending ask=Waiting/ApprovalPending deploy=Pending");
    assert!(!driver.last.changed);
    driver.wait(1);
    assert_eq!(driver.actions(), ["launch after/1"]);
    let status = &driver.status().tasks[0];
    assert_eq!((status.phase, status.wake_at, status.completion_time), (TaskPhase::Succeeded, None, Some(at(60))));
}

#[test]
fn the_time_is_drawn_once_and_stored_before_anything_follows() {
    let mut build = waits();
    build.task("later").after(&["after"]).delay(30);
    let mut driver = Driver::new(build);
    // the definition may change, or be read by another version: what is stored counts
    let mut status = driver.status();
    status.tasks[0].wake_at = Some(at(100));
    let mut restarted = driver.restored_from(&status);
    restarted.wait(60);
    assert_eq!(restarted.phase("wait"), TaskPhase::Waiting);
    restarted.wait(40);
    assert_eq!(restarted.phase("wait"), TaskPhase::Succeeded);
    // nothing was stored yet: the launch waits for the time that was drawn
    driver.wait(60);
    assert_eq!(driver.actions(), ["launch after/1"]);
    assert!(driver.last.store_first);
    // an operator that was down when it came due goes on at once
    let mut late = driver.restored_from(&driver.status());
    late.now += SignedDuration::from_hours(5);
    late.step([Event::Launched { attempt: driver.attempt("after"), job: "g-after".into() }]);
    assert_eq!(late.phase("wait"), TaskPhase::Succeeded);
}

#[test]
fn forms_of_delay() {
    let ready = at(0).to_string();
    for (delay, expected) in [
        (json!({"duration": "1h30m"}), Some(at(5400))),
        (json!({"until": "2023-11-15T00:00:00+01:00"}), Some("2023-11-14T23:00:00Z".parse().unwrap())),
        // the graph starts at 2023-11-14T22:13:20Z
        (json!({"cron": "0 9 * * *"}), Some("2023-11-15T09:00:00Z".parse::<Timestamp>().unwrap())),
        (json!({"cron": "0 9 * * *", "timeZone": "Asia/Tokyo"}), Some("2023-11-15T00:00:00Z".parse().unwrap())),
        (json!({"until": "2020-01-01T00:00:00Z"}), None),
        (json!({"until": ready}), None),
    ] {
        let driver = Driver::of(json!({"tasks": [{"name": "wait", "delay": delay}]}));
        let status = driver.run.task(driver.id("wait"));
        let phase = if expected.is_some() { TaskPhase::Waiting } else { TaskPhase::Succeeded };
        assert_eq!((status.phase, status.wake_at), (phase, expected), "{delay}");
    }
}

#[test]
fn an_approval_lets_on_and_says_who_decided() {
    let mut driver = Driver::new(waits());
    assert_eq!(driver.status().tasks[2].wake_at, Some(at(3600)));
    driver.wait(10);
    driver.decide("ask", 1, Approved);
    assert_eq!(driver.actions(), ["launch deploy/1"]);
    assert!(driver.last.store_first, "an approval acted on is stored first");
    let status = driver.status();
    let ask = &status.tasks[2];
    assert_eq!((ask.phase, ask.reason.as_deref()), (TaskPhase::Succeeded, Some("Approved")));
    assert_eq!(ask.message.as_deref(), Some("by ann: as agreed"));
    assert_eq!((ask.completion_time, ask.wake_at), (Some(at(10)), None));
    let event = status.history.last().unwrap();
    assert_eq!((event.event.as_str(), event.message.as_deref()), ("Approved", Some("ask: by ann: as agreed")));
    // taken back by hand, it stays what it was
    driver.set(|settings| settings.approvals = std::sync::Arc::default());
    assert_eq!(driver.phase("ask"), TaskPhase::Succeeded);
    let mut restarted = driver.restored_from(&status);
    restarted.step([]);
    assert_eq!((restarted.phase("ask"), restarted.phase("deploy")), (TaskPhase::Succeeded, TaskPhase::Running));
}

#[test]
fn an_approval_of_no_task_is_told_of_while_one_is_waited_for() {
    let mut driver = Driver::new(waits());
    for (task, hint) in [("aks", " (did you mean \"ask\"?)"), ("deploy", "")] {
        driver.set(|settings| {
            settings.approvals = std::sync::Arc::default();
            decide(settings, task, 1, Approved);
        });
        let message = format!("spec.approvals decides on {task:?}, which asks for no approval{hint}");
        assert_eq!(driver.status().message, Some(message));
    }
    driver.decide("ask", 1, Approved);
    assert_eq!(driver.status().message, None);
}

#[test]
fn a_rejection_fails_the_attempt_and_a_retry_asks_anew() {
    let mut build = Build::new();
    build.task("ask").approval(OnTimeout::Fail, None).retries(2);
    let mut driver = Driver::new(build);
    assert_eq!(driver.last.wake_at, None, "it waits for ever");
    driver.decide("ask", 1, Rejected);
    assert_eq!((driver.phase("ask"), driver.reason("ask")), (TaskPhase::Retrying, "Rejected"));
    assert_eq!(driver.actions(), [""; 0], "there is no pod to wait for");
    // an attempt that has not begun finds what was decided before
    driver.decide("ask", 3, Approved);
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(restarted.actions(), [""; 0]);
    for mut driver in [driver, restarted] {
        driver.wait(12);
        assert_eq!((driver.phase("ask"), driver.attempt("ask").number), (TaskPhase::Waiting, 2));
        driver.decide("ask", 2, Rejected);
        driver.wait(30);
        assert_eq!((driver.phase("ask"), driver.attempt("ask").number), (TaskPhase::Succeeded, 3));
        let status = driver.status();
        let failed: Vec<_> = status.tasks[0]
            .failed_attempts
            .iter()
            .map(|failed| (failed.attempt, failed.reason.as_str(), failed.message.as_deref()))
            .collect();
        assert_eq!(failed, [(1, "Rejected", Some("by ann: as agreed")), (2, "Rejected", Some("by ann: as agreed"))]);
        let events: Vec<_> = status.history.iter().map(|entry| entry.event.as_str()).collect();
        assert_eq!(events, ["Accepted", "Rejected", "Rejected", "Approved", "Finished"]);
        assert_eq!(status.history[3].message.as_deref(), Some("ask (attempt 3): by ann: as agreed"));
    }
}

#[test]
fn a_rejection_without_retries_fails_the_task_and_starts_handlers() {
    let mut build = waits();
    build.task("undo").after(&["ask"]).trigger(TriggerRule::AnyFailed);
    let mut driver = Driver::new(build);
    driver.decide("ask", 1, Rejected);
    assert_eq!(
        driver.line(),
        "wait=Waiting/Delay after=Omitted/FailurePolicy ask=Failed/Rejected deploy=Omitted/DependencyFailed undo=Running"
    );
    assert_eq!(driver.run.task(driver.id("ask")).message.as_deref(), Some("by ann: as agreed"));
}

#[test]
fn what_it_means_that_nobody_decides() {
    for (on_timeout, expected) in [
        (OnTimeout::Fail, "ask=Failed/ApprovalTimeout"),
        (OnTimeout::Reject, "ask=Failed/Rejected"),
        (OnTimeout::Approve, "ask=Succeeded/ApprovalTimeout"),
    ] {
        let mut build = Build::new();
        build.task("ask").approval(on_timeout, Some(60));
        let mut driver = Driver::new(build);
        driver.wait(59);
        assert_eq!(driver.line(), "ask=Waiting/ApprovalPending");
        driver.wait(1);
        assert_eq!(driver.line(), expected);
        assert_eq!(driver.run.task(driver.id("ask")).message.as_deref(), Some("nobody decided within 1m"));
        assert_eq!(driver.status().history[1].event, reason::APPROVAL_TIMEOUT);
    }
}

#[test]
fn a_decision_that_came_in_the_same_moment_wins_over_the_timeout() {
    let mut driver = Driver::new(waits());
    let status = driver.status();
    driver.now = at(4000);
    driver.decide("ask", 1, Approved);
    assert_eq!(driver.reason("ask"), "Approved");
    // and one that came while no operator ran
    let mut restarted = driver.restored_from(&status);
    restarted.step([]);
    assert_eq!(restarted.reason("ask"), "Approved");
}

#[test]
fn a_decision_on_another_attempt_or_task_changes_nothing() {
    let mut driver = Driver::new(waits());
    driver.decide("ask", 2, Approved);
    driver.decide("deploy", 1, Rejected);
    assert_eq!(driver.reason("ask"), "ApprovalPending");
    assert!(!driver.last.changed);
}

#[test]
fn waits_take_no_slot() {
    let mut build = waits();
    build.task("long");
    let driver = Driver::with(build, Settings { parallelism: Some(1), ..settings() });
    assert!(driver.line().ends_with("long=Running"), "{}", driver.line());
    assert!(driver.line().starts_with("wait=Waiting"), "{}", driver.line());
}

#[test]
fn a_suspended_graph_begins_to_wait_takes_decisions_and_holds_back_times() {
    let mut build = waits();
    build.task("job");
    build.task("second").after(&["job"]).delay(10);
    let mut driver = Driver::new(build);
    suspend(&mut driver);
    driver.ok("job");
    assert_eq!(driver.phase("second"), TaskPhase::Waiting, "its time counts from when it was Ready");
    driver.wait(100);
    assert_eq!((driver.phase("wait"), driver.phase("second")), (TaskPhase::Waiting, TaskPhase::Waiting));
    assert_eq!(driver.last.wake_at, Some(at(3600)), "it does not spin");
    driver.decide("ask", 1, Approved);
    assert_eq!((driver.phase("ask"), driver.phase("deploy")), (TaskPhase::Succeeded, TaskPhase::Ready));
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(restarted.line(), driver.line());
    for mut driver in [driver, restarted] {
        resume(&mut driver);
        assert_eq!(driver.actions(), ["launch after/1", "launch deploy/1"]);
        assert_eq!((driver.phase("wait"), driver.phase("second")), (TaskPhase::Succeeded, TaskPhase::Succeeded));
    }
}

#[test]
fn a_timeout_of_a_suspended_graph_waits_and_a_decision_before_it_is_resumed_counts() {
    for decided in [true, false] {
        let mut driver = Driver::new(waits());
        suspend(&mut driver);
        driver.wait(5000);
        assert_eq!(driver.phase("ask"), TaskPhase::Waiting);
        if decided {
            driver.decide("ask", 1, Approved);
        }
        resume(&mut driver);
        assert_eq!(driver.reason("ask"), if decided { "Approved" } else { "ApprovalTimeout" });
    }
}

#[test]
fn whatever_calls_a_graph_off_ends_its_waits_at_once() {
    let failing = |build: &mut Build| _ = build.task("bad");
    for (name, expected) in [("cancel", "Cancelled"), ("timeout", "DeadlineExceeded"), ("policy", "FailurePolicy")] {
        let mut build = waits();
        failing(&mut build);
        build.task("retried").approval(OnTimeout::Fail, None).retries(1);
        let mut driver = Driver::with(
            build,
            Settings {
                failure_policy: FailurePolicy::CancelRunning,
                timeout: Some(Duration::from_secs(50)),
                ..settings()
            },
        );
        driver.decide("retried", 1, Rejected);
        assert_eq!(driver.phase("retried"), TaskPhase::Retrying);
        match name {
            "cancel" => _ = driver.set(|settings| settings.desired_state = DesiredState::Cancel),
            "timeout" => _ = driver.wait(50),
            _ => _ = driver.fail("bad"),
        }
        for task in ["wait", "ask", "retried"] {
            assert_eq!((driver.phase(task), driver.reason(task)), (TaskPhase::Cancelled, expected), "{name} {task}");
        }
        let stops: Vec<_> = driver.actions().into_iter().filter(|action| !action.ends_with("bad/1")).collect();
        assert_eq!(stops, [""; 0], "{name}: nothing is to be stopped");
        if name == "policy" {
            assert!(driver.run.is_finished());
        }
    }
}

#[test]
fn what_waits_goes_on_when_nothing_new_is_launched() {
    let mut build = waits();
    build.task("bad");
    build.task("slow");
    build.task("late").after(&["slow"]).delay(1);
    let mut driver = Driver::new(build);
    driver.fail("bad");
    assert_eq!(
        driver.line(),
        "wait=Waiting/Delay after=Omitted/FailurePolicy ask=Waiting/ApprovalPending deploy=Omitted/FailurePolicy \
         bad=Failed/Error slow=Running late=Omitted/FailurePolicy"
    );
    driver.wait(60);
    assert_eq!(driver.phase("wait"), TaskPhase::Succeeded);
}

#[test]
fn gates_and_allow_failure_hold_for_waits_too() {
    let mut build = Build::new();
    build.task("choice").decision(&["fast", "slow"]);
    build.task("wait").after(&["choice/slow"]).delay(60);
    build.task("ask").after(&["choice/fast"]).approval(OnTimeout::Fail, Some(5)).allow_failure();
    build.task("join").after(&["wait", "ask"]);
    let mut driver = Driver::new(build);
    assert_eq!(driver.line(), "choice=Succeeded wait=Skipped/BranchNotTaken ask=Waiting/ApprovalPending join=Pending");
    driver.wait(5);
    assert_eq!(driver.phase("join"), TaskPhase::Running);
    driver.ok("join");
    assert_eq!(driver.status().conditions[0].type_, "Complete");
    let mut skipped = Driver::of(json!({"arguments": {"fast": true}, "tasks": [
        {"name": "wait", "when": "!args.fast", "delay": {"duration": "1h"}},
    ]}));
    skipped.step([]);
    assert_eq!(skipped.line(), "wait=Skipped/ConditionFalse");
}

#[test]
fn waits_of_finally() {
    let mut build = Build::new();
    build.task("job");
    build.finally("wait").delay(10);
    build.finally("ask").after(&["wait"]).approval(OnTimeout::Fail, None);
    let mut driver = Driver::with(build, Settings { finally_timeout: Duration::from_secs(100), ..settings() });
    driver.ok("job");
    driver.wait(10);
    assert_eq!(driver.line(), "job=Succeeded wait=Succeeded ask=Waiting/ApprovalPending");
    driver.wait(90);
    assert_eq!(driver.line(), "job=Succeeded wait=Succeeded ask=Cancelled/DeadlineExceeded");
    assert!(driver.run.is_finished());
}

#[test]
fn a_job_that_somebody_made_for_a_wait_is_stopped() {
    let mut driver = Driver::new(waits());
    let launched = [driver.launched("wait"), driver.launched("ask")];
    driver.step(launched);
    assert_eq!(driver.actions(), ["stop wait/1", "stop ask/1"]);
    assert_eq!((driver.phase("wait"), driver.phase("ask")), (TaskPhase::Waiting, TaskPhase::Waiting));
}

#[test]
fn a_status_edited_by_hand_is_taken_as_the_nearest_that_can_be() {
    let driver = Driver::new(waits());
    let phase = |place: usize, edit: fn(&mut TaskStatus)| {
        let mut status = driver.status();
        edit(&mut status.tasks[place]);
        let mut restored = driver.restored_from(&status);
        restored.step([]);
        let task = &restored.status().tasks[place];
        (task.phase, task.attempts)
    };
    // a delay without its end is drawn again
    assert_eq!(phase(0, |task| task.wake_at = None), (TaskPhase::Waiting, 2));
    assert_eq!(phase(0, |task| task.phase = TaskPhase::Running), (TaskPhase::Waiting, 2));
    assert_eq!(phase(0, |task| task.phase = TaskPhase::Retrying), (TaskPhase::Waiting, 2));
    assert_eq!(phase(2, |task| task.attempts = 0), (TaskPhase::Waiting, 1));
    // an attempt that failed, of which nobody knows when it is tried again: now
    assert_eq!(
        phase(2, |task| {
            task.phase = TaskPhase::Retrying;
            task.wake_at = None;
        }),
        (TaskPhase::Waiting, 2)
    );
    // a task with a Job that waits for nothing: its pods must be gone first
    assert_eq!(
        phase(1, |task| {
            task.phase = TaskPhase::Waiting;
            task.attempts = 3;
        }),
        (TaskPhase::Retrying, 3)
    );
}

/// A step looks at what is due and at nothing else.
#[test]
fn thousands_wait_at_once() {
    let mut build = Build::new();
    for place in 0..2000 {
        build.task(&format!("wait{place}")).delay(60 + place);
    }
    let mut driver = Driver::new(build);
    driver.wait(60);
    let start = std::time::Instant::now();
    for _ in 0..1999 {
        assert_eq!(driver.last.transitions.len(), 1);
        driver.wait(1);
    }
    assert!(driver.run.is_finished());
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
}

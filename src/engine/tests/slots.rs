//! Slots, priorities, and suspension.

use super::fixture::*;
use crate::{
    api::{CONDITION_SUSPENDED, DesiredState, GraphPhase, TaskPhase},
    engine::Settings,
};

fn four(parallelism: u32) -> Driver {
    let mut build = Build::new();
    build.task("low").priority(0);
    build.task("first");
    build.task("second");
    build.task("high").priority(10).retries(1);
    Driver::with(build, Settings { parallelism: Some(parallelism), ..settings() })
}

#[test]
fn slots_go_by_priority_and_then_by_place() {
    let mut driver = four(1);
    for (next, done) in [("high", "high"), ("first", "first"), ("second", "second"), ("low", "low")] {
        assert_eq!(driver.actions(), [format!("launch {next}/1")]);
        driver.ok(done);
    }
    assert!(driver.run.is_finished());
}

#[test]
fn a_task_that_waits_for_its_next_attempt_holds_no_slot() {
    let mut driver = four(1);
    driver.fail("high");
    assert_eq!(driver.actions(), ["launch first/1", "await high/1"]);
    driver.gone("high");
    driver.wait(15);
    assert_eq!(driver.phase("high"), TaskPhase::Ready, "the slot is taken");
    driver.ok("first");
    assert_eq!(driver.actions(), ["launch high/2"]);
}

#[test]
fn a_task_that_is_being_stopped_holds_its_slot() {
    let mut driver = four(1);
    driver.wait(600);
    assert_eq!(driver.actions(), ["stop high/1"], "it never started");
    driver.gone("high");
    assert_eq!(driver.actions(), ["launch first/1"]);
}

#[test]
fn more_slots_are_used_at_once_and_fewer_stop_nothing() {
    let mut driver = four(1);
    driver.set(|settings| settings.parallelism = Some(3));
    assert_eq!(driver.actions(), ["launch first/1", "launch second/1"]);
    driver.set(|settings| settings.parallelism = Some(1));
    assert!(driver.actions().is_empty());
    driver.ok("first");
    driver.ok("second");
    assert!(driver.actions().is_empty());
    driver.ok("high");
    assert_eq!(driver.actions(), ["launch low/1"]);
    driver.set(|settings| settings.parallelism = None);
    driver.ok("low");
    assert!(driver.run.is_finished());
}

#[test]
fn suspension_starts_nothing_and_stops_nothing() {
    let mut driver = four(2);
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    assert!(driver.actions().is_empty() && driver.last.changed);
    driver.ok("first");
    driver.fail("high");
    driver.gone("high");
    driver.wait(60);
    assert!(driver.actions().is_empty());
    assert_eq!(driver.line(), "low=Ready first=Succeeded second=Ready high=Ready");
    let status = driver.status();
    assert_eq!(status.phase, Some(GraphPhase::Suspended));
    let condition = |status: &crate::api::TaskGraphStatus| {
        let found = status.conditions.iter().find(|condition| condition.type_ == CONDITION_SUSPENDED).unwrap();
        (found.status.clone(), found.reason.clone())
    };
    assert_eq!(condition(&status), ("True".into(), "Suspended".into()));
    let mut restarted = driver.restored_from(&status);
    restarted.step([]);
    assert!(restarted.actions().is_empty());
    for mut driver in [driver, restarted] {
        driver.set(|settings| settings.desired_state = DesiredState::Run);
        assert_eq!(driver.actions(), ["launch high/2", "launch second/1"]);
        let status = driver.status();
        assert_eq!(condition(&status), ("False".into(), "Resumed".into()));
        let events: Vec<_> = status.history.iter().map(|entry| entry.event.as_str()).collect();
        assert_eq!(events, ["Accepted", "Suspended", "Resumed"]);
    }
}

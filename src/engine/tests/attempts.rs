//! The life of an attempt.

use jiff::SignedDuration;

use super::fixture::*;
use crate::{
    api::TaskPhase,
    engine::{Attempt, Blame, Event},
};

fn one(retries: u32) -> Driver {
    let mut build = Build::new();
    build.task("a").retries(retries);
    Driver::new(build)
}

#[test]
fn a_chain_is_handed_over_in_the_step_that_sees_the_end() {
    let mut build = Build::new();
    build.task("a");
    build.task("b").after(&["a"]);
    let mut driver = Driver::new(build);
    assert_eq!(driver.actions(), ["launch a/1"]);
    driver.ok("a");
    assert_eq!(driver.actions(), ["launch b/1"]);
    assert!(!driver.last.store_first, "a plain success waits for no store");
    driver.ok("b");
    assert!(driver.run.is_finished());
    assert_eq!(driver.line(), "a=Succeeded b=Succeeded");
    assert_eq!(driver.last.wake_at, None);
}

#[test]
fn a_retry_waits_for_its_time_and_for_the_pods_to_be_gone() {
    let mut driver = one(1);
    driver.fail("a");
    assert_eq!(driver.actions(), ["await a/1"]);
    assert_eq!(driver.phase("a"), TaskPhase::Retrying);
    let wake = driver.last.wake_at.unwrap();
    let wait = wake.duration_since(driver.now);
    assert!((SignedDuration::from_secs(9)..=SignedDuration::from_secs(11)).contains(&wait), "{wait}");
    driver.wait(12);
    assert!(driver.actions().is_empty(), "its pods are not gone");
    driver.gone("a");
    assert_eq!(driver.actions(), ["launch a/2"]);
    assert!(driver.last.store_first, "the failed attempt is to be stored first");
    driver.fail("a");
    assert_eq!(driver.line(), "a=Failed/Error");
    assert!(driver.run.is_finished());
}

#[test]
fn gone_before_the_time_waits_for_the_time() {
    let mut driver = one(1);
    driver.fail("a");
    driver.gone("a");
    assert!(driver.actions().is_empty());
    driver.run.stored(driver.run.sequence());
    driver.wait(12);
    assert_eq!(driver.actions(), ["launch a/2"]);
    assert!(!driver.last.store_first, "it is stored");
}

#[test]
fn final_failures_are_not_tried_again() {
    let mut driver = one(5);
    driver.fail_by("a", Blame::Final);
    assert_eq!(driver.line(), "a=Failed/Error");
}

#[test]
fn the_cluster_may_fail_a_task_twenty_times_beside_its_limit() {
    let mut driver = one(1);
    let mut attempts = 1;
    for blame in
        std::iter::repeat_n(Blame::Cluster, 10).chain([Blame::Task]).chain(std::iter::repeat_n(Blame::Cluster, 10))
    {
        driver.fail_by("a", blame);
        assert_eq!(driver.phase("a"), TaskPhase::Retrying, "after attempt {attempts}");
        driver.gone("a");
        driver.wait(400);
        attempts += 1;
        assert_eq!(driver.actions(), [format!("launch a/{attempts}")]);
    }
    let mut by_task = driver.restarted();
    by_task.step([driver.launched("a")]);
    by_task.fail("a");
    assert_eq!(by_task.phase("a"), TaskPhase::Failed, "its one retry was used before");
    driver.fail_by("a", Blame::Cluster);
    assert_eq!(driver.phase("a"), TaskPhase::Failed, "the 21st");
    let status = driver.status();
    assert_eq!((status.tasks[0].attempts, status.tasks[0].disruptions), (22, 20));
    let kept: Vec<_> = status.tasks[0].failed_attempts.iter().map(|failure| failure.attempt).collect();
    assert_eq!(kept, [18, 19, 20, 21, 22]);
}

#[test]
fn a_job_that_should_not_exist_is_stopped() {
    let mut driver = one(0);
    driver.ok("a");
    let attempt = Attempt::new(driver.id("a"), 2);
    driver.step([Event::Launched { attempt, job: "stray".into() }]);
    assert_eq!(driver.actions(), ["stop a/2"]);
    driver.step([driver.launched("a")]);
    assert!(driver.actions().is_empty(), "the Job of its own attempt stays");
}

//! Waits between attempts, and attempts that do not start.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::fixture::*;
use crate::{
    api::{Duration, TaskPhase},
    engine::{AttemptResult, Blame, Event, Failure, graph::RetryRule, policy::retry},
};

fn rule(initial: u64, factor: f64, max: u64) -> RetryRule {
    let millis = Duration::from_millis;
    RetryRule { limit: 100, initial: millis(initial), factor, max: millis(max), when: None }
}

#[test]
fn waits_grow_by_the_factor_up_to_the_longest() {
    let rule = rule(1_000, 2.0, 300_000);
    for (attempt, plain) in [(1, 1_000), (2, 2_000), (3, 4_000), (9, 256_000), (10, 300_000), (u32::MAX, 300_000)] {
        let wait = retry::wait(&rule, "uid", "task", attempt).millis();
        assert!((plain * 9 / 10..=plain * 11 / 10).contains(&wait), "attempt {attempt}: {wait}");
    }
}

#[test]
fn waits_are_drawn_by_graph_task_and_attempt_and_spread_out() {
    let rule = rule(100_000, 1.0, 100_000);
    let wait = |uid: &str, task: &str, attempt| retry::wait(&rule, uid, task, attempt).millis();
    assert_eq!(wait("u", "t", 1), wait("u", "t", 1));
    assert_ne!(wait("u", "t", 1), wait("u", "t", 2));
    assert_ne!(wait("u", "t", 1), wait("v", "t", 1));
    let drawn: Vec<_> = (0..1000).map(|task| wait("u", &format!("t{task}"), 1)).collect();
    let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
    assert!(*least < 91_000 && *most > 109_000, "{least} to {most}");
    assert!(drawn.iter().collect::<BTreeSet<_>>().len() > 900);
}

proptest! {
    #[test]
    fn no_rule_gives_a_wait_out_of_bounds(
        initial in 0..u64::MAX, max in 0..u64::MAX, attempt in 1..u32::MAX,
        factor in prop_oneof![0.0..100.0, Just(f64::NAN), Just(f64::INFINITY), Just(-3.0)],
    ) {
        let rule = rule(initial, factor, max);
        let wait = retry::wait(&rule, "u", "t", attempt).millis();
        prop_assert!(wait >= 1 && wait <= rule.max.millis() + rule.max.millis() / 10 + 2);
    }
}

#[test]
fn limit_counts_retries_and_not_attempts() {
    for (limit, attempts) in [(0, 1), (1, 2), (3, 4)] {
        let mut build = Build::new();
        build.task("a").retries(limit);
        let mut driver = Driver::new(build);
        for _ in 0..10 {
            driver.fail("a");
            driver.gone("a");
            driver.wait(400);
        }
        assert_eq!((driver.phase("a"), driver.attempt("a").number), (TaskPhase::Failed, attempts), "limit {limit}");
    }
}

#[test]
fn a_pod_that_started_has_no_start_timeout() {
    let mut build = Build::new();
    build.task("a");
    let mut driver = Driver::new(build);
    assert_eq!(driver.last.wake_at, Some(at(600)));
    driver.step([Event::Started { attempt: driver.attempt("a") }]);
    assert_eq!(driver.last.wake_at, None);
    driver.wait(10_000);
    assert!(driver.actions().is_empty());
}

#[test]
fn a_pod_that_does_not_start_fails_the_attempt_once_it_is_gone() {
    for (cluster, disruptions) in [(Some(true), 1), (None, 1), (Some(false), 0)] {
        let mut build = Build::new();
        build.task("a").retries(1);
        let mut driver = Driver::new(build);
        if let Some(cluster) = cluster {
            let (reason, message) = ("QuotaExceeded".to_owned(), "no quota".to_owned());
            driver.step([Event::Blocked { attempt: driver.attempt("a"), reason, message, cluster }]);
        }
        driver.wait(600);
        assert_eq!(driver.actions(), ["stop a/1"]);
        assert!(driver.last.store_first, "what is deleted is stored first");
        driver.wait(600);
        assert!(driver.actions().is_empty(), "it is asked for once");
        driver.gone("a");
        assert_eq!((driver.phase("a"), driver.reason("a")), (TaskPhase::Retrying, "StartTimeout"));
        assert_eq!(driver.status().tasks[0].disruptions, disruptions, "{cluster:?}");
        driver.wait(20);
        assert_eq!(driver.actions(), ["launch a/2"], "its pods are known to be gone");
    }
}

#[test]
fn a_success_after_the_start_timeout_stands() {
    let mut build = Build::new();
    build.task("a");
    let mut driver = Driver::new(build);
    driver.wait(600);
    driver.step([Event::Started { attempt: driver.attempt("a") }]);
    driver.ok("a");
    assert_eq!(driver.line(), "a=Succeeded");
}

#[test]
fn a_failed_attempt_is_recorded_and_its_message_cut() {
    let mut build = Build::new();
    build.task("a").retries(1);
    let mut driver = Driver::new(build);
    driver.step([driver.launched("a")]);
    driver.now = at(7);
    let message = Some("é".repeat(300));
    let failure = Failure { reason: "OOMKilled".into(), message, exit_code: Some(137), blame: Blame::Task };
    driver.step([driver.finished("a", AttemptResult::Failed(failure))]);
    let status = driver.status();
    let record = &status.tasks[0].failed_attempts[0];
    assert_eq!((record.attempt, record.exit_code, record.reason.as_str()), (1, Some(137), "OOMKilled"));
    assert_eq!(
        (record.job.as_deref(), record.start_time, record.completion_time),
        (Some("g-a"), Some(at(0)), Some(at(7)))
    );
    assert_eq!(record.message.as_deref(), Some("é".repeat(128).as_str()));
    assert_eq!(status.tasks[0].wake_at, driver.last.wake_at);
}

//! The simulator.

use jiff::{SignedDuration, Timestamp};

use super::fixture::*;
use crate::{
    api::{Approval, ApprovalDecision, Duration, OnTimeout, TaskPhase},
    engine::{
        Attempt, Blame, Event, Launch, Run, Settings,
        sim::{Block, Fate, Told, World, replay, simulate},
    },
};

fn run(build: Build, settings: Settings) -> Run {
    Run::new(build.graph(), settings, identity(), at(0))
}

#[test]
fn a_chain_takes_as_long_as_its_tasks() {
    let mut build = Build::new();
    build.task("a");
    build.task("b").after(&["a"]);
    build.task("c").after(&["b"]);
    let mut run = run(build, settings());
    let trace = simulate(&mut run, &mut |_: &Launch, _: Timestamp| Fate::success(Duration::from_secs(7)), at(0));
    assert!(trace.finished);
    assert_eq!(trace.makespan(), SignedDuration::from_secs(21));
    assert_eq!(trace.transitions.len(), 9, "Ready, Running, Succeeded of each");
}

#[test]
fn slots_bound_how_many_run() {
    let mut build = Build::new();
    for place in 0..10 {
        build.task(&format!("t{place}"));
    }
    let mut run = run(build, Settings { parallelism: Some(4), ..settings() });
    let trace = simulate(&mut run, &mut |_: &Launch, _: Timestamp| Fate::success(Duration::from_secs(5)), at(0));
    assert_eq!(trace.makespan(), SignedDuration::from_secs(15));
}

#[test]
fn what_cannot_start_is_stopped_and_tried_again() {
    let mut build = Build::new();
    build.task("a").retries(1);
    let mut run = run(build, settings());
    let mut world = |launch: &Launch, _: Timestamp| {
        let block = Block { reason: "ErrImagePull".into(), message: "not found".into(), cluster: false };
        let fate = Fate::success(Duration::from_secs(5));
        if launch.attempt.number == 1 { Fate { blocked: Some(block), start: None, run: None, ..fate } } else { fate }
    };
    let trace = simulate(&mut run, &mut world, at(0));
    assert_eq!(trace.phase(crate::engine::TaskId(0)), Some(TaskPhase::Succeeded));
    let seconds = trace.makespan().as_secs();
    assert!((600 + 9 + 5..=600 + 11 + 5).contains(&seconds), "{seconds}");
}

#[test]
fn an_attempt_that_never_ends_ends_the_simulation() {
    let mut build = Build::new();
    build.task("a");
    let mut run = run(build, settings());
    let mut world = |_: &Launch, _: Timestamp| Fate { run: None, ..Fate::success(Duration::from_secs(1)) };
    let trace = simulate(&mut run, &mut world, at(0));
    assert!(!trace.finished);
}

#[test]
fn a_recorded_run_comes_to_the_same_end() {
    let mut build = Build::new();
    build.task("a").retries(1);
    build.task("b").after(&["a"]);
    let graph = build.graph();
    let event = |task: u32, number| crate::engine::Attempt::new(crate::engine::TaskId(task), number);
    let ok = || crate::engine::AttemptResult::Succeeded { outputs: serde_json::Map::new(), message: None };
    let recorded = [
        (at(1), Event::Finished { attempt: event(0, 1), result: failed(Blame::Task), time: at(1) }),
        (at(2), Event::Gone { attempt: event(0, 1) }),
        (at(20), Event::Finished { attempt: event(0, 2), result: ok(), time: at(20) }),
        (at(30), Event::Finished { attempt: event(1, 1), result: ok(), time: at(30) }),
    ];
    let mut run = Run::new(graph, settings(), identity(), at(0));
    let trace = replay(&mut run, recorded, at(0));
    assert!(trace.finished);
    assert_eq!(trace.phases, [TaskPhase::Succeeded, TaskPhase::Succeeded]);
}

/// Somebody who rejects first attempts after a minute, and approves second ones after two.
struct Careful;

impl World for Careful {
    fn fate(&mut self, _: &Launch, _: Timestamp) -> Fate {
        Fate::success(Duration::from_secs(5))
    }

    fn decide(&mut self, asked: Attempt, _: Timestamp) -> Option<(Duration, Approval)> {
        let first = asked.number == 1;
        let decision = if first { ApprovalDecision::Rejected } else { ApprovalDecision::Approved };
        let approval =
            Approval { task: "ask".into(), attempt: asked.number, decision, by: "ann".into(), message: None };
        Some((Duration::from_secs(if first { 60 } else { 120 }), approval))
    }
}

fn asking() -> Build {
    let mut build = Build::new();
    build.task("wait").delay(30);
    build.task("ask").after(&["wait"]).approval(OnTimeout::Fail, Some(600)).retries(1);
    build.task("deploy").after(&["ask"]);
    build
}

#[test]
fn waits_are_simulated_with_those_who_decide() {
    let mut decided = run(asking(), settings());
    let trace = simulate(&mut decided, &mut Careful, at(0));
    assert_eq!(trace.phases, [TaskPhase::Succeeded; 3]);
    let seconds = trace.makespan().as_secs();
    // the backoff is ten seconds, give or take one
    assert!((30 + 60 + 9 + 120 + 5..=30 + 60 + 11 + 120 + 5).contains(&seconds), "{seconds}");
    let mut alone = run(asking(), settings());
    let trace = simulate(&mut alone, &mut |_: &Launch, _: Timestamp| Fate::success(Duration::from_secs(5)), at(0));
    assert_eq!(trace.phases, [TaskPhase::Succeeded, TaskPhase::Failed, TaskPhase::Omitted]);
    assert!(trace.makespan().as_secs() > 2 * 600, "both attempts time out");
}

#[test]
fn recorded_approvals_are_played_again() {
    let approval = |attempt, decision| {
        Told::from(Approval { task: "ask".into(), attempt, decision, by: "ann".into(), message: None })
    };
    let ok = crate::engine::AttemptResult::Succeeded { outputs: serde_json::Map::new(), message: None };
    let deploy = Attempt::new(crate::engine::TaskId(2), 1);
    let recorded = [
        (at(90), approval(1, ApprovalDecision::Rejected)),
        (at(200), approval(2, ApprovalDecision::Approved)),
        (at(300), Event::Finished { attempt: deploy, result: ok, time: at(300) }.into()),
    ];
    let mut run = run(asking(), settings());
    let trace = replay(&mut run, recorded, at(0));
    assert_eq!(trace.phases, [TaskPhase::Succeeded; 3]);
    assert_eq!(run.task(crate::engine::TaskId(1)).attempts, 2);
}

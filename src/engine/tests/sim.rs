//! The simulator.

use jiff::{SignedDuration, Timestamp};

use super::fixture::*;
use crate::{
    api::{Duration, TaskPhase},
    engine::{
        Blame, Event, Launch, Run, Settings,
        sim::{Block, Fate, replay, simulate},
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
    let event = |task: u32, number| crate::engine::Attempt { task: crate::engine::TaskId(task), number };
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

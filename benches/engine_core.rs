//! How fast the engine decides: whole graphs in virtual time, one event in a large graph, and writing its status.
//!
//! `simulate/*` reports task transitions a second: at least 500,000 are wanted.

use std::{collections::BTreeSet, hint::black_box, sync::Arc, time::Duration as Wall};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use taskgraph::{
    api::{Duration, TaskGraphSpec, TaskGraphStatus},
    engine::{
        Attempt, AttemptResult, Event, Graph, Identity, Launch, Plan, Run, Settings, TaskId, Templates, compile,
        sim::{Fate, simulate},
    },
};

/// `layers` layers of `width` tasks, each after two of the layer before.
fn layers(layers: usize, width: usize) -> Plan {
    let name = |layer: usize, place: usize| format!("t-{layer}-{}", place % width);
    let tasks: Vec<Value> = (0..layers)
        .flat_map(|layer| (0..width).map(move |place| (layer, place)))
        .map(|(layer, place)| {
            let after: BTreeSet<_> = layer
                .checked_sub(1)
                .map_or_else(BTreeSet::new, |before| [place, place + 1].map(|place| name(before, place)).into());
            json!({"name": name(layer, place), "dependsOn": after, "container": {"image": "localhost/busybox:1"}})
        })
        .collect();
    let spec: TaskGraphSpec = serde_json::from_value(json!({"tasks": tasks})).expect("a spec");
    compile(&spec, &Templates::new()).expect("a valid spec")
}

fn begin(graph: &Arc<Graph>, settings: &Settings) -> Run {
    let identity = Identity { name: "bench".into(), namespace: "default".into(), uid: "0".into() };
    Run::new(Arc::clone(graph), settings.clone(), identity, Timestamp::UNIX_EPOCH)
}

fn success(task: u32) -> Event {
    let result = AttemptResult::Succeeded { outputs: Map::new(), message: None };
    Event::Finished { attempt: Attempt::new(TaskId(task), 1), result, time: Timestamp::UNIX_EPOCH }
}

fn simulations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("simulate");
    for (name, depth, width, parallelism) in [
        ("chain of 500", 500, 1, None),
        ("10 layers of 50", 10, 50, None),
        ("40 layers of 50, 20 slots", 40, 50, Some(20)),
    ] {
        let Plan { graph, settings } = layers(depth, width);
        let settings = Settings { parallelism, ..settings };
        let mut world = |launch: &Launch, _: Timestamp| {
            Fate::success(Duration::from_millis(1000 + u64::from(launch.attempt.task.0) % 7))
        };
        let transitions = simulate(&mut begin(&graph, &settings), &mut world, Timestamp::UNIX_EPOCH).transitions.len();
        group.throughput(Throughput::Elements(u64::try_from(transitions).unwrap_or(u64::MAX)));
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || begin(&graph, &settings),
                |mut run| simulate(&mut run, &mut world, Timestamp::UNIX_EPOCH),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn large_graph(criterion: &mut Criterion) {
    let Plan { graph, settings } = layers(40, 50);
    let started = || {
        let mut run = begin(&graph, &settings);
        run.step([], Timestamp::UNIX_EPOCH);
        run
    };
    let mut group = criterion.benchmark_group("2,000 tasks");
    group.bench_function("a step with one event", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut run = started();
                run.step([success(0)], Timestamp::UNIX_EPOCH);
                run
            },
            // the second of two dependencies: the next task is launched
            |run| run.step([success(1)], Timestamp::UNIX_EPOCH),
            BatchSize::LargeInput,
        );
    });
    let mut run = started();
    let mut status = TaskGraphStatus::default();
    run.write(&mut status, Timestamp::UNIX_EPOCH);
    group.bench_function("write a new status", |bencher| {
        bencher.iter_batched(
            TaskGraphStatus::default,
            |mut status| {
                run.write(&mut status, Timestamp::UNIX_EPOCH);
                status
            },
            BatchSize::LargeInput,
        );
    });
    group.bench_function("write over the last status", |bencher| {
        bencher.iter(|| run.write(black_box(&mut status), Timestamp::UNIX_EPOCH));
    });
    run.step([success(0)], Timestamp::UNIX_EPOCH);
    group.bench_function("restore", |bencher| {
        bencher.iter_batched(
            || Identity { name: "bench".into(), namespace: "default".into(), uid: "0".into() },
            |identity| Run::restore(Arc::clone(&graph), settings.clone(), identity, &status),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Wall::from_secs(3)).warm_up_time(Wall::from_millis(500)).sample_size(20);
    targets = simulations, large_graph
}
criterion_main!(benches);

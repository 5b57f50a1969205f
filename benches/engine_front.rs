//! What it costs to check a graph of 500 tasks and make it ready to run: layers of 50, each task with two dependencies
//! in the layer before. Budgets: 5 ms without expressions, 25 ms with 250 distinct ones.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use taskgraph::{
    api::TaskGraphSpec,
    engine::{Templates, compile},
};

const TASKS: usize = 500;
const WIDTH: usize = 50;

/// The graph; every second task has an env value with an expression of its own if `expressions`.
fn layers(expressions: bool) -> TaskGraphSpec {
    let task = |number: usize| {
        let before: Vec<usize> = match number.checked_sub(WIDTH) {
            Some(above) => vec![above, if above % WIDTH == WIDTH - 1 { above + 1 - WIDTH } else { above + 1 }],
            None => Vec::new(),
        };
        let value = match before.first() {
            Some(above) if expressions && number.is_multiple_of(2) => {
                format!(
                    "${{{{ tasks.t{above}.outputs.rows > {number} && args.source != 'x' ? tasks.t{above}.outputs.rows : {number} }}}}"
                )
            }
            None if expressions && number.is_multiple_of(2) => format!("${{{{ args.source + '{number}' }}}}"),
            _ => format!("value {number}"),
        };
        json!({
            "name": format!("t{number}"),
            "dependsOn": before.iter().map(|before| format!("t{before}")).collect::<Vec<_>>(),
            "retry": {"limit": 3, "backoff": {"initial": "1s", "factor": 2, "max": "5m"}},
            "timeout": "10m",
            "container": {
                "image": "localhost/busybox:1", "command": ["sh", "-c", "echo done"],
                "env": [{"name": "VALUE", "value": value}], "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            },
        })
    };
    let tasks: Vec<Value> = (0..TASKS).map(task).collect();
    serde_json::from_value(json!({"arguments": {"source": "orders.csv"}, "tasks": tasks})).expect("a spec")
}

fn front(criterion: &mut Criterion) {
    let templates = Templates::new();
    for (name, expressions) in [("compile 500 tasks", false), ("compile 500 tasks, 250 expressions", true)] {
        let spec = layers(expressions);
        assert!(compile(&spec, &templates).is_ok());
        criterion.bench_function(name, |bench| bench.iter(|| compile(black_box(&spec), black_box(&templates))));
    }
}

/// Single expressions, the worst within the limits last: what bounds the time that one spec can take.
fn expressions(criterion: &mut Criterion) {
    let texts = [
        ("condition", "tasks.a.outputs.rows > 10 && args.source != ''".to_owned()),
        ("200 sums", format!("1{} > 0", "+1".repeat(199))),
        ("200 elements", format!("size([1{}]) > 0", ",1".repeat(199))),
        ("1,000 elements", format!("size([1{}]) > 0", ",1".repeat(999))),
    ];
    for (name, text) in texts {
        let spec: TaskGraphSpec = serde_json::from_value(json!({"arguments": {"source": "x"}, "tasks": [
            {"name": "a", "container": {}}, {"name": "b", "dependsOn": ["a"], "when": text, "container": {}},
        ]}))
        .expect("a spec");
        criterion.bench_function(&format!("expression: {name}"), |bench| {
            bench.iter(|| compile(black_box(&spec), &Templates::new()));
        });
    }
}

criterion_group!(benches, front, expressions);
criterion_main!(benches);

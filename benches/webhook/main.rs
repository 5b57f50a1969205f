//! What admission costs, for graphs of 500 tasks. Milliseconds from when a request was due to its answer: one that had to
//! wait for its turn counts as late.
//!
//! At its own endpoint, over TLS, from ten connections as an API server keeps them: 99 of 100 answers within 20 ms, at 100
//! requests a second. Then through an API server, 20 creates a second, with the webhook and without; it looks up the
//! requester's rights as it does in a cluster. What the API server does itself for 500 tasks takes it 0.15 s of CPU, with
//! no webhook at all: where there are few cores for that, only graphs of 50 tasks say what admission adds.
//!
//!     cargo bench --bench webhook                       # 10 s of each kind
//!     SECONDS=60 RATE=200 cargo bench --bench webhook   # RATE: at the endpoint
//!     cargo bench --bench webhook -- endpoint           # or: server
//!
//! The second needs the programs of a control plane: hack/cluster/cluster build.
#![allow(missing_docs)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod endpoint;
mod server;

use std::{env, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};

// as the operator has it
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Tasks of a graph at the endpoint.
const TASKS: usize = 500;
/// Kinds of graphs: a name, and the number of different expressions.
const KINDS: [(&str, Option<usize>); 3] =
    [("no expressions", None), ("250 tasks with one of 10 expressions", Some(20)), ("250 expressions", Some(TASKS))];

/// A graph in layers of 50; every second task has an expression if `expressions`: its own, or one of ten.
fn graph(tasks: usize, expressions: Option<usize>) -> Value {
    let task = |number: usize| {
        let before: Vec<String> = (number >= 50).then(|| format!("t{}", number - 50)).into_iter().collect();
        let value = match expressions {
            Some(kinds) if number.is_multiple_of(2) => format!("${{{{ args.source + '{}' }}}}", number % kinds),
            _ => format!("value {number}"),
        };
        json!({
            "name": format!("t{number}"), "dependsOn": before, "timeout": "10m",
            "retry": {"limit": 3, "backoff": {"initial": "1s", "factor": 2, "max": "5m"}},
            "container": {
                "image": "localhost/busybox:1", "command": ["sh", "-c", "echo done"],
                "env": [{"name": "VALUE", "value": value}], "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            },
        })
    };
    json!({"arguments": {"source": "orders.csv"}, "tasks": (0..tasks).map(task).collect::<Vec<_>>()})
}

/// Requests a second, and for how long.
#[derive(Clone, Copy, Debug)]
struct Pace {
    rate: u32,
    seconds: u32,
}

impl Pace {
    /// When the request of this number is due, after the first.
    fn due(self, number: u32) -> Duration {
        Duration::from_secs(1) * number / self.rate
    }

    fn requests(self) -> u32 {
        self.rate * self.seconds
    }
}

/// One line about times in milliseconds.
fn print(name: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied().unwrap_or_default();
    println!("  {name:<38} p50 {:6.2}  p99 {:6.2}  most {:6.2}", at(50), at(99), at(100));
}

fn setting(name: &str, default: u32) -> u32 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    // `cargo test --benches` asks for nothing but that it starts
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let only = |name: &str| arguments.iter().all(|argument| argument == "--bench" || argument == name);
    let seconds = setting("SECONDS", 10);
    if only("endpoint") {
        endpoint::measure(Pace { rate: setting("RATE", 100), seconds }).await?;
    }
    if only("server") {
        server::measure(Pace { rate: 20, seconds }).await?;
    }
    Ok(())
}

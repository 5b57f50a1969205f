//! The gallery: each file says in its first comment how its graph ends, and it must end so.
//!
//! ```yaml
//! # Ends: Complete
//! #   TASK  PHASE  what people should know (Reason)
//! ```

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use taskgraph::api::TaskGraph;

use crate::{
    support::namespace::{finished, status},
    world::World,
};

/// How a graph is to end: its condition, and phase and, where the file says so, reason of each task.
#[derive(Debug, PartialEq)]
struct Ending {
    condition: String,
    tasks: BTreeMap<String, (String, Option<String>)>,
}

impl Ending {
    /// What the comment at the head of a file says.
    fn read(text: &str) -> Result<Self> {
        let comment = text.lines().map_while(|line| line.strip_prefix('#'));
        let mut lines = comment.skip_while(|line| !line.starts_with(" Ends: "));
        let condition = lines.next().and_then(|line| line.strip_prefix(" Ends: ")).context("no line `# Ends: `")?;
        let task = |line: &str| {
            let mut words = line.split_whitespace();
            let (name, phase) = (words.next()?.to_owned(), words.next()?.to_owned());
            let (_, reason) = line.rsplit_once('(').unwrap_or_default();
            let reason = reason.strip_suffix(')').filter(|reason| !reason.contains(' ') && !reason.contains('`'));
            Some((name, (phase, reason.map(str::to_owned))))
        };
        let tasks = lines.take_while(|line| line.starts_with("   ")).filter_map(task).collect();
        Ok(Self { condition: condition.trim().to_owned(), tasks })
    }

    /// What became of a graph, the reasons only of those tasks of which `self` states one.
    fn seen(&self, graph: &TaskGraph) -> Self {
        let states_reason = |name: &str| self.tasks.get(name).is_some_and(|(_, reason)| reason.is_some());
        let tasks = status(graph).tasks.into_iter().map(|task| {
            let reason = task.reason.filter(|_| states_reason(&task.name));
            (task.name, (task.phase.name().to_owned(), reason))
        });
        Self { condition: finished(graph).unwrap_or("neither").to_owned(), tasks: tasks.collect() }
    }
}

async fn run(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let ending = Ending::read(&text)?;
    let name = path.file_stem().and_then(|name| name.to_str()).context("a name")?;
    let world = World::new(name).await?;
    world.apply(&text).await?;
    let graph = world.wait(name, &ending.condition.to_lowercase()).await?;
    let seen = ending.seen(&graph);
    ensure!(seen == ending, "as its comment says: {ending:#?}\nas it went: {seen:#?}");
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shape_ends_as_its_file_says() -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gallery");
    let mut shapes = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        shapes.push(tokio::spawn(async move { run(&path).await.with_context(|| path.display().to_string()) }));
    }
    assert!(!shapes.is_empty());
    let mut failed = Vec::new();
    for shape in shapes {
        if let Err(error) = shape.await? {
            failed.push(format!("{error:#}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}
